"""The JSON form of everything that is stored: the only serialiser, versioned.

One turn is one line of JSON; what has its default value is left out. Money is text, times are RFC 3339.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.turns import Turn, without_lone_surrogates

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT_VERSION = 1

T = TypeVar("T", bound="DataclassInstance")

_encode = msgspec.json.Encoder().encode


def encode(record: DataclassInstance) -> bytes:
    """Return the record as one line of JSON."""
    return _encode(_without_defaults(record))


def encode_turn(turn: Turn) -> bytes:
    """Return the turn as one line of JSON."""
    line = _without_defaults(turn)
    line["messages"] = [_without_defaults(message) for message in turn.messages]
    return _encode(line)


def decode(data: bytes, kind: type[T]) -> T:
    """Return the record that ``encode`` wrote; ``StoreCorruptedError`` where it is none."""
    try:
        record: T = _decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreCorruptedError(
            f"A stored {kind.__name__} cannot be read ({error}): it begins {bytes(data[:40])!r}. "
            "Nothing was changed; restore the store from a backup, or delete the conversation."
        ) from error
    return record


def decode_turn(data: bytes) -> Turn:
    """Return the turn that ``encode_turn`` wrote; ``StoreCorruptedError`` where it is none."""
    return decode(data, Turn)


def check_format(version: int, where: str) -> None:
    """Refuse what a newer version of this package wrote, rather than half-read it."""
    if version > FORMAT_VERSION:
        raise StoreUnavailableError(
            f"{where} was written in format {version}, and this promptkit_nb reads up to format {FORMAT_VERSION}. "
            "Nothing was read or changed; update with: pip install -U promptkit-nb"
        )


def json_copy(values: object, what: str) -> Any:  # the type of JSON is the type of what was given
    """Return a deep copy of JSON values; ``InvalidArgumentError`` naming what cannot be stored as JSON."""
    _refuse_what_json_lacks(values, what)
    return msgspec.json.decode(_encode(values))


def _refuse_what_json_lacks(value: object, path: str) -> None:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_what_json_lacks(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(f"{path} has the key {key!r}: JSON keys are text.")
            _refuse_what_json_lacks(item, f"{path}[{key!r}]")
    elif (problem := _problem_of(value)) is not None:
        raise InvalidArgumentError(f"{path} is {value!a:.60}, {problem}")


def _problem_of(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**64
        return None if fits else "which JSON readers cannot hold: store it as text."
    if isinstance(value, float):
        return None if isfinite(value) else "which JSON does not know: use None or text instead."
    if isinstance(value, str):
        whole = without_lone_surrogates(value) == value
        return None if whole else "which holds half of a character (a lone surrogate)."
    return f"a {type(value).__name__}, which JSON cannot hold: give text, numbers, booleans, None, lists or dicts."


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


@cache
def _stored_fields(kind: type) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, _default_of(field)) for field in fields(kind))


def _default_of(field: Field[object]) -> object:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is dict:
        return {}
    return MISSING


def _without_defaults(record: DataclassInstance) -> dict[str, object]:
    stored: dict[str, object] = {}
    for name, default in _stored_fields(type(record)):
        value = getattr(record, name)
        if value != default:
            stored[name] = value
    return stored
