"""Reads untrusted values from other tools' files: JSON lines, texts, counts, times, and amounts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import msgspec

from promptkit_nb.characters import without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

MOST_TOKENS = 10**12
MOST_USD = 10**9
COST_PLACES = 12
LARGEST_INTEGER = 2**63

BROKEN = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""Exceptions that a damaged or hostile file may raise in a reader; they do not stop the import."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)


class DamagedRecordError(ValueError):
    """A line, a row, or a file violates its format; the message names the problem."""


def decode_record(data: bytes | str, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a record; raise ``DamagedRecordError`` if it is not JSON, or has values of other types."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise DamagedRecordError(f"not as expected: {error}") from error
    except _UNDECODABLE as error:
        return _decoded_leniently(data, decoder, error)


def _decoded_leniently(data: bytes | str, decoder: msgspec.json.Decoder[T], first_error: Exception) -> T:
    """Decode JSON with lone surrogates, or numbers such as NaN that JSON does not allow; some tools write them."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        found: T = msgspec.convert(clean(json.loads(text)), decoder.type, strict=True)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise DamagedRecordError(f"not JSON ({first_error})") from first_error
    return found


def decoded_value(data: bytes) -> Any:
    """Decode a JSON value; return data that is not JSON as text."""
    try:
        return clean(msgspec.json.decode(data))
    except _UNDECODABLE:
        return data.decode("utf-8", "replace")


def clean(value: object) -> Any:
    """Return a JSON value that can be stored: no lone surrogates, finite numbers, 64-bit integers."""
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if isinstance(value, dict):
        return {without_lone_surrogates(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    can_be_stored = isfinite(value) if isinstance(value, float) else _fits(value)
    return value if can_be_stored else str(value)


def _fits(value: object) -> bool:
    return value is None or (isinstance(value, int) and -LARGEST_INTEGER <= value < 2 * LARGEST_INTEGER)


def text_of(value: object) -> str:
    """Return a text; "" for anything else."""
    return value if isinstance(value, str) else ""


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return a JSON list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def count_of(value: object) -> int:
    """Return a number of tokens; 0 if it is missing, absurd, or not a number."""
    # nearly always an int, and asked several times for each call, so the fast check comes first
    return int(value) if (type(value) is int or is_number(value)) and 0 <= value <= MOST_TOKENS else 0


def usd_of(value: object) -> Decimal | None:
    """Return US dollars from a JSON number, rounded to 12 places; ``None`` if it is missing, negative, or absurd.

    >>> usd_of(0.00048000000000000007)
    Decimal('0.00048')
    """
    if not is_number(value) or not 0 <= value <= MOST_USD:
        return None
    return Decimal(str(round(value, COST_PLACES)))


def time_of(value: object) -> datetime | None:
    """Return a moment in UTC from ISO 8601 text, or from seconds since 1970; ``None`` if it is missing or invalid.

    A text without offset is in UTC. Nanoseconds are cut to microseconds. Go's year 1 is missing.

    >>> time_of("2026-03-02T09:00:01.123456789+01:00")
    datetime.datetime(2026, 3, 2, 8, 0, 1, 123456, tzinfo=datetime.timezone.utc)
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        elif is_number(value):
            found = _EPOCH + timedelta(seconds=value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return found if found >= _EPOCH else None
