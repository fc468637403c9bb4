"""Typed answers: the schema that a model gets, and how its text becomes a value, or is rejected."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.near_names import near_names
from promptkit_nb.text.plain_text import one_line, preview
from promptkit_nb.tools.functions import without_titles

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_NAME = re.compile(r"[^a-zA-Z0-9_-]+")
_HOLDERS = frozenset({"properties", "$defs"})  # their keys are names
_NOT_STRICT = frozenset({"allOf", "not", "if", "dependentRequired", "dependentSchemas", "prefixItems", "uniqueItems"})
_MAX_SHOWN_ERRORS = 5
_BUILT_IN: Mapping[str, type] = {kind.__name__: kind for kind in (str, int, float, bool)}


class AnswerRejectedError(Exception):
    """An answer does not fit; the text tells the model why. It never reaches users."""


@dataclass(frozen=True, slots=True)
class AnswerType:
    """What an answer must be. ``is_wrapped`` says that the model answers ``{"value": …}``, since roots are objects.

    ``labels`` are the allowed texts, if the answer is one of a list.
    """

    name: str
    schema: dict[str, Any]
    is_strict: bool
    is_wrapped: bool
    labels: tuple[str, ...]
    is_plain: bool
    _adapter: pydantic.TypeAdapter[Any]

    @classmethod
    def of(cls, wanted: Any) -> AnswerType:
        """Return the type for a pydantic model, a dict of types, a list of labels, or a plain type.

        Raises ``InvalidArgumentError`` for anything that has no JSON schema.

        >>> AnswerType.of(["bug", "idea"]).read("Bug")
        'bug'
        """
        labels = _labels_of(wanted)
        try:
            kind: Any = Literal[labels] if labels else wanted
            if isinstance(wanted, Mapping):
                fields: dict[str, Any] = {str(name): (each, ...) for name, each in wanted.items()}
                kind = pydantic.create_model("Answer", **fields)
            adapter = pydantic.TypeAdapter(kind)
            schema = without_titles(adapter.json_schema())
        except (pydantic.errors.PydanticUserError, TypeError, NameError, AttributeError) as error:
            raise InvalidArgumentError(
                f"schema={wanted!r:.80} cannot be an answer ({one_line(str(error))[:200]}): give a pydantic model, a "
                "dict of types, a list of labels, or a type such as int or list[str]."
            ) from error
        is_wrapped = schema.get("type") != "object" and "$ref" not in schema
        if is_wrapped:
            definitions = schema.pop("$defs", None)
            schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
            schema |= {} if definitions is None else {"$defs": definitions}
        schema, is_strict = _strict(schema)
        name = _NAME.sub("_", getattr(wanted, "__name__", "Answer"))[:64]
        return cls(name, schema, is_strict, is_wrapped, labels, isinstance(wanted, Mapping), adapter)

    @property
    def definition(self) -> dict[str, Any]:
        """The schema as requests carry it."""
        return {"name": self.name, "schema": self.schema, "strict": self.is_strict}

    def read(self, text: str) -> Any:
        """Return the value of an answer: JSON, alone, in one fenced block, or as the only object within text.

        Labels may differ in case and blanks. Raises ``AnswerRejectedError`` for anything else; nothing is guessed.
        """
        if self.labels and (label := self._label(text)) is not None:
            return label
        found = _json_in(text)
        if self.is_wrapped and isinstance(found, dict) and found.keys() == {"value"}:
            found = found["value"]
        if self.labels and isinstance(found, str) and (label := self._label(found)) is not None:
            return label
        try:
            value = self._adapter.validate_json(json.dumps(found))
        except pydantic.ValidationError as error:
            raise AnswerRejectedError("; ".join(map(_said, error.errors()[:_MAX_SHOWN_ERRORS]))) from None
        return value.model_dump() if self.is_plain else value

    def _label(self, text: str) -> str | None:
        said = text.strip()
        if said in self.labels:
            return said
        near = [label for label in self.labels if label.strip().casefold() == said.casefold()]
        return near[0] if len(near) == 1 else None


def schema_named(name: str, variables: Mapping[str, object]) -> object:
    """Return the schema with this name in a notebook, or the built-in type; raise ``InvalidArgumentError`` if unknown.

    >>> schema_named("int", {}), schema_named("labels", {"labels": ["bug", "idea"]})
    (<class 'int'>, ['bug', 'idea'])
    """
    found = variables.get(name, _BUILT_IN.get(name))
    if found is not None:
        return found
    known = [each for each, value in variables.items() if isinstance(value, (type, dict, list)) and each[0] != "_"]
    near = near_names(name, [*known, *_BUILT_IN])
    hint = f"Did you mean {near[0]}?" if near else "Run the cell that defines it."
    raise InvalidArgumentError(f"--schema {name}: there is no type or list of labels of this name. {hint}")


def _labels_of(wanted: Any) -> tuple[str, ...]:
    if not isinstance(wanted, (list, tuple)):
        return ()
    if not wanted or not all(isinstance(each, str) and each.strip() for each in wanted):
        raise InvalidArgumentError(
            f"schema={wanted!r:.80} is not a list of labels: give texts, such as ['bug', 'idea']."
        )
    return tuple(dict.fromkeys(wanted))


def _json_in(text: str) -> Any:
    fenced = _FENCED.findall(text)
    candidates = [text, *(fenced if len(fenced) == 1 else [])]
    for candidate in candidates:
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    start = text.find("{")
    if start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            if "{" not in text[end:]:  # which one of several is meant would be a guess
                return value
    raise AnswerRejectedError(f"It is not JSON: {preview(text, 100)}")


def _strict(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the schema, closed and with every property required if strict mode can say it, else unchanged."""
    is_strict = True

    def closed(node: Any, *, are_names: bool = False) -> Any:
        nonlocal is_strict
        if isinstance(node, list):
            return [closed(item) for item in node]
        if not isinstance(node, dict):
            return node
        if not are_names:
            is_strict = is_strict and not _NOT_STRICT & node.keys()
            if node.get("type") == "object" and not are_names:
                names = list(node.get("properties") or ())
                is_strict = is_strict and sorted(names) == sorted(node.get("required") or ())
                is_strict = is_strict and not isinstance(node.get("additionalProperties"), dict) and bool(names)
                node = {**node, "additionalProperties": False}
        holders: frozenset[str] = frozenset() if are_names else _HOLDERS
        return {key: closed(value, are_names=key in holders) for key, value in node.items()}

    found = closed(schema)
    return (found, True) if is_strict else (schema, False)


def _said(error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"])) or "answer"
    return f"{where}: {one_line(str(error['msg']))}"
