"""The columns of typed answers: which ones a schema makes, and their pandas dtypes."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
import pydantic

_DTYPES: Mapping[type, str] = {bool: "boolean", int: "Int64", float: "Float64", str: "str"}
_MOST = 2**63


class DoesNotFitError(Exception):
    """A valid value has no place in its column; the text says why. It never reaches users."""


@dataclass(frozen=True, slots=True)
class AnswerColumn:
    """One column: its name, the path to its value in an answer, and its dtype, an object column if ``None``.

    ``categories`` are the labels of a column of the dtype ``category``, in the order of the schema.
    """

    name: str
    path: tuple[str, ...]
    dtype: str | None
    categories: tuple[Any, ...] = ()

    def value_in(self, answer: Any) -> Any:
        """Return the value in an answer, ``None`` if it is missing; raise ``DoesNotFitError`` if the dtype lacks it."""
        for name in self.path:
            if answer is None:
                return None
            answer = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name)
        if isinstance(answer, Enum):
            answer = answer.value
        if self.dtype == "Int64" and isinstance(answer, int) and not -_MOST <= answer < _MOST:
            raise DoesNotFitError(f"{self.name}: {answer} does not fit into Int64")
        return _plain(answer) if self.dtype is None else answer

    def array_of(self, values: Sequence[Any]) -> Any:
        """Return the values as a pandas array; ``None`` is missing."""
        if self.dtype == "category":
            return pd.Categorical(list(values), categories=list(self.categories))
        if self.dtype == "datetime":
            return _datetimes(values)
        if self.dtype is not None:
            return pd.array(list(values), dtype=self.dtype)
        found = np.empty(len(values), object)
        found[:] = list(values)
        return pd.array(found, dtype=object)


def columns_of(schema: Any, into: str | None) -> tuple[AnswerColumn, ...]:
    """Return the columns of the answers to a schema: its fields, or one named ``into``; without a schema, the text.

    Nested models are flattened one level, such as ``address.city``. If the schema has fields, ``into`` may name
    one more column with the whole answers.

    >>> [(each.name, each.dtype) for each in columns_of({"stars": int, "mood": Literal["good", "bad"]}, None)]
    [('stars', 'Int64'), ('mood', 'category')]
    """
    whole = () if into is None else (_column(into, (), _whole_type(schema)),)
    fields = fields_of(schema)
    if fields is None:
        return whole
    found: list[AnswerColumn] = []
    for name, annotation in fields.items():
        nested = fields_of(_without_none(annotation))
        if nested:
            found += (_column(f"{name}.{inner}", (name, inner), each) for inner, each in nested.items())
        else:
            found.append(_column(name, (name,), annotation))
    return (*found, *whole)


def fields_of(schema: Any) -> Mapping[str, Any] | None:
    """Return the fields of a schema with their types, ``None`` if it is a single value."""
    if isinstance(schema, Mapping):
        return {str(name): each for name, each in schema.items()}
    if not isinstance(schema, type) or issubclass(schema, pydantic.RootModel):
        return None
    if issubclass(schema, pydantic.BaseModel):
        return {name: field.annotation for name, field in schema.model_fields.items()}
    if is_dataclass(schema) or hasattr(schema, "__required_keys__"):  # a TypedDict, also of typing_extensions
        return typing.get_type_hints(schema)
    return None


def _whole_type(schema: Any) -> Any:
    if schema is None:
        return str
    return Literal[tuple(schema)] if isinstance(schema, (list, tuple)) else schema


def _column(name: str, path: tuple[str, ...], annotation: Any) -> AnswerColumn:
    kind = _without_none(annotation)
    if get_origin(kind) is Literal:
        labels = dict.fromkeys(each.value if isinstance(each, Enum) else each for each in get_args(kind))
        return AnswerColumn(name, path, "category", tuple(each for each in labels if each is not None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return AnswerColumn(name, path, "category", tuple(dict.fromkeys(each.value for each in kind)))
    if kind in (date, datetime):
        return AnswerColumn(name, path, "datetime")
    return AnswerColumn(name, path, _DTYPES.get(kind) if isinstance(kind, type) else None)


def _without_none(annotation: Any) -> Any:
    """Return a type without its metadata, and without ``None`` if it is optional."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        others = [each for each in get_args(annotation) if each is not type(None)]
        return _without_none(others[0]) if len(others) == 1 else annotation
    return annotation


def _datetimes(values: Iterable[Any]) -> Any:
    """Return dates and times as ``datetime64``, in UTC if they have a time zone; as objects if only some have one."""
    found = list(values)
    present = [each for each in found if each is not None]
    aware = [each for each in present if isinstance(each, datetime) and each.tzinfo is not None]
    if aware and len(aware) < len(present):
        return pd.array(np.array([*found, None], object)[:-1], dtype=object)
    dtype = "datetime64[us, UTC]" if aware else "datetime64[us]"
    return pd.Series(pd.to_datetime(pd.Series(found, dtype=object), utc=bool(aware))).astype(dtype).array


def _plain(value: Any) -> Any:
    """Return models as dicts, also within lists and dicts."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value
