"""The JSON form of everything that is stored: the only serialiser, versioned.

One turn is one line of JSON; what has its default value is left out. Money is text, times are RFC 3339.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.turns import Message, Turn

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
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreCorruptedError(
            f"A stored {kind.__name__} cannot be read ({error}): it begins {bytes(data[:40])!r}. "
            "Nothing was changed; restore the store from a backup, or delete the conversation."
        ) from error


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
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidArgumentError(f"{path} is {value}, which JSON readers cannot hold: store it as text.")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - only NaN differs from itself
            raise InvalidArgumentError(f"{path} is {value}, which JSON does not know: use None or text instead.")
    elif isinstance(value, str):
        if not value.isascii():
            _refuse_lone_surrogates(value, path)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_what_json_lacks(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(f"{path} has the key {key!r}: JSON keys are text.")
            _refuse_what_json_lacks(item, f"{path}[{key!r}]")
    else:
        raise InvalidArgumentError(
            f"{path} is {value!r} of type {type(value).__name__}, which JSON cannot hold: "
            "give text, numbers, booleans, None, lists or dicts."
        )


def _refuse_lone_surrogates(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{path} is {text!a}, which holds half of a character (a lone surrogate).") from None


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


def _without_defaults(record: Message | Turn | DataclassInstance) -> dict[str, object]:
    stored: dict[str, object] = {}
    for name, default in _stored_fields(type(record)):
        value = getattr(record, name)
        if value != default:
            stored[name] = value
    return stored
