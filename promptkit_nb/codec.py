"""The JSON form of everything that is stored, versioned.

A turn is one line of JSON; fields with their default value are left out. Money is text, times are RFC 3339.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import MISSING, Field, fields, replace
from decimal import Decimal
from functools import cache
from itertools import chain
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.json_values import reason_of
from promptkit_nb.plain import plain
from promptkit_nb.turns import NO_USAGE, OWN_SOURCE, Message, Turn, Usage

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from promptkit_nb.state import ConversationState, Settings, Summary, Totals

FORMAT_VERSION = 1
"""The format of stores and files, and of conversations without fields that were added later."""

NEWEST_FORMAT = 2
"""The format of conversations with imported turns, rows, typed answers, PDFs, or usage that format 1 cannot hold."""

SALVAGE = (
    "Nothing was changed; restore the store from a backup, or save what can be read with: "
    "export_store(store, path, on_damaged=print)"
)

T = TypeVar("T", bound=Hashable)
D = TypeVar("D", bound="DataclassInstance")
K = TypeVar("K")

MOST_COUNT = 10**12
MOST_USD = Decimal(10**9)
"""The most tokens and dollars of one call; more is a mistake that would spoil totals and budgets."""

MOST_TOTAL = 10**15
"""The largest valid total, which fits into 64 bits."""

_UNKNOWN_COUNTS = (("truncated", 0), ("cell_call", 0), ("counted_input_tokens", None))

MOST_BYTES = 2**28
"""How much JSON a turn, or the rest of a conversation, may take: every store can hold it."""

MOST_DECIMALS = 100
MOST_TYPES = 1000
_STABLE_TYPES: set[tuple[type | str, ...]] = set()
"""The types of turns that were read back unchanged; another turn of the same types will be, too."""


def _plain_or_refused(value: object) -> object:
    """Return a value such as ``numpy.int64`` as a type that JSON has; raise ``TypeError`` for other values."""
    found = plain(value)
    if found is value:
        raise TypeError(f"a {type(value).__name__} is not a JSON value")
    return found


_encode = msgspec.json.Encoder(enc_hook=_plain_or_refused).encode
_UNSTORABLE = (msgspec.MsgspecError, AttributeError, TypeError, OverflowError, RecursionError)


class _PlainValues(NamedTuple):
    """All values in a turn, their types and the roles of its messages."""

    types: tuple[type | str, ...]
    values: tuple[object, ...]
    messages: list[tuple[object, ...]]


def encode(record: DataclassInstance | msgspec.Struct) -> bytes:
    """Return the record as one line of JSON; lone surrogates are replaced as in ``Message``."""
    return _encoded(record if isinstance(record, msgspec.Struct) else _without_defaults(record))


def encode_json(value: object) -> bytes:
    """Return JSON values as JSON."""
    return _encode(value)


def decode_json(data: bytes) -> Any:  # the type of JSON is the type of what was given
    """Return the values that ``encode_json`` wrote."""
    return msgspec.json.decode(data)


def encode_turn(turn: Turn) -> bytes:
    """Return the turn as one line of JSON."""
    return _encoded(_turn_line(turn))


def encode_state(state: ConversationState) -> bytes:
    """Return a whole conversation as one line of JSON, without its revision and notebook, which belong to the store."""
    line = _without_defaults(replace(state, revision=0, notebook=None))
    line["turns"] = [_turn_line(turn) for turn in state.turns]
    line["versions"] = {key: [_turn_line(turn) for turn in previous] for key, previous in state.versions.items()}
    line["branches"] = [
        {**_without_defaults(branch), "turns": [_turn_line(turn) for turn in branch.turns]} for branch in state.branches
    ]
    return _encoded(line)


def decode(data: bytes, kind: type[T], conversation_id: str | None = None) -> T:
    """Return the record that ``encode`` wrote; ``StoreCorruptedError``, naming the conversation, if it is damaged."""
    try:
        record: T = decoder_of(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        owner = "" if conversation_id is None else f" of the conversation {conversation_id!r}"
        raise StoreCorruptedError(
            f"A stored {kind.__name__}{owner} cannot be read ({reason_of(error)}); "
            f"it begins with {bytes(data[:40])!r}. {SALVAGE}"
        ) from error
    return record


def decode_turn(data: bytes, conversation_id: str | None = None) -> Turn:
    """Return a turn from ``encode_turn``, with absurd values made unknown; raises the same errors as ``decode``."""
    turn = decode(data, Turn, conversation_id)
    if _is_plausible(turn):
        return turn
    changes = _known_spending(turn)
    counts = ((name, unknown, getattr(turn, name) or 0) for name, unknown in _UNKNOWN_COUNTS)
    changes |= {name: unknown for name, unknown, count in counts if not 0 <= count <= MOST_COUNT}
    if turn.saved is not None and is_absurd_cost(turn.saved):
        changes["saved"] = None
    if turn.latency_ms is not None and not abs(turn.latency_ms) <= MOST_COUNT:
        changes["latency_ms"] = None
    return replace(turn, **changes)


def summary_as_read(summary: Summary) -> Summary:
    """Return a stored summary, with absurd values made unknown."""
    changes = _known_spending(summary)
    return replace(summary, **changes) if changes else summary


def _is_plausible(turn: Turn) -> bool:
    """Return whether no number is absurd; earlier versions stored any. This is called for each turn that is read."""
    counts = *_values_of_usage(turn.usage), turn.truncated, turn.cell_call or 0, turn.counted_input_tokens or 0
    if min(counts) < 0 or max(counts) > MOST_COUNT:
        return False
    for cost in (turn.cost, turn.saved):
        if cost is not None and is_absurd_cost(cost):
            return False
    return turn.latency_ms is None or abs(turn.latency_ms) <= MOST_COUNT


def totals_as_read(totals: Totals) -> Totals:
    """Return stored totals, with absurd values made unknown."""
    if not are_absurd_totals(totals):
        return totals
    tokens = totals.tokens if 0 <= totals.tokens <= MOST_TOTAL else 0
    return replace(totals, tokens=tokens, cost=Decimal(0), priced=0, unpriced=1)


def _known_spending(paid: Turn | Summary) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if is_absurd_usage(paid.usage):
        changes["usage"] = Usage(0, 0, unknown=True)
    if paid.cost is not None and is_absurd_cost(paid.cost):
        changes["cost"] = None
    return changes


def check_format(version: int, where: str, newest: int = FORMAT_VERSION) -> None:
    """Raise ``StoreUnavailableError`` for a newer format, which could only be read in part."""
    if version > newest:
        raise StoreUnavailableError(
            f"{where} has format {version}, but this promptkit_nb reads formats up to {newest}. "
            "Nothing was read or changed; update with: pip install -U promptkit-nb"
        )


def format_of(paid: Iterable[Turn | Summary]) -> int:
    """Return the format of a conversation with these turns and summaries, newer only if they use later fields."""
    is_newer = any(
        each.usage.cache_write_tokens
        or each.usage.unknown
        or getattr(each, "source", OWN_SOURCE) != OWN_SOURCE
        or getattr(each, "row_index", None) is not None
        or getattr(each, "value_json", None) is not None
        or any(part.type == "file" for message in getattr(each, "messages", ()) for part in message.parts)
        for each in paid
    )
    return NEWEST_FORMAT if is_newer else FORMAT_VERSION


def checked(record: D) -> D:
    """Return the record as it will be read back; ``InvalidArgumentError`` if it could not be."""
    kind = type(record)
    try:
        found: D = decoder_of(kind).decode(encode(record))
    except _UNSTORABLE as error:
        raise _not_storable(kind, error) from error
    return found


def turn_and_line(turn: Turn) -> tuple[Turn, bytes]:
    """Return the turn as it will be read back, and its line of JSON; ``InvalidArgumentError`` if it has none."""
    if not isinstance(turn, Turn):
        raise InvalidArgumentError(f"A {type(turn).__name__} is not a Turn; give Turn(messages=(Message(...), ...)).")
    plain = _plain_values_of(turn)
    if plain is not None and (known := _known_line(plain)) is not None:
        check_values_of(turn)
        check_size("This turn is", known)
        return turn, known
    try:
        line = encode_turn(turn)
        found: Turn = decoder_of(Turn).decode(line)
    except _UNSTORABLE as error:
        raise _not_storable(Turn, error) from error
    check_values_of(found)
    _remember_types(plain, _plain_values_of(found))
    if found.id != turn.id:
        raise InvalidArgumentError(f"A turn's id is {turn.id!a}, which has half of a character (a lone surrogate).")
    if turn.cost is not None and not isinstance(turn.cost, Decimal):  # a number: money is text
        line = encode_turn(found)
    check_size("This turn is", line)
    return found, line


def check_size(what: str, stored: bytes) -> None:
    """Raise ``InvalidArgumentError`` if this is too large to be stored."""
    if len(stored) > MOST_BYTES:
        raise InvalidArgumentError(
            f"{what} too large: {len(stored):,} bytes as JSON, more than {MOST_BYTES:,}. Nothing was changed; keep "
            "large values in files, and store their paths."
        )


def _known_line(plain: _PlainValues) -> bytes | None:
    """Return the line of a turn, if one of the same types was read back unchanged before; else ``None``.

    Reading back every turn would take a tenth of an append, and keep each text twice.
    """
    try:
        return _encode(_form_of_turn(plain.values, plain.messages)) if plain.types in _STABLE_TYPES else None
    except (*_UNSTORABLE, UnicodeEncodeError):
        return None


def _remember_types(plain: _PlainValues | None, kept: _PlainValues | None) -> None:
    if plain is not None and kept is not None and plain.types == kept.types:
        if len(_STABLE_TYPES) >= MOST_TYPES:
            _STABLE_TYPES.clear()
        _STABLE_TYPES.add(kept.types)


def _plain_values_of(turn: Turn) -> _PlainValues | None:
    """Return the values of a turn, or ``None`` if it has nested or invalid ones."""
    try:
        more = [turn.warnings, *[each for message in turn.messages for each in (message.parts, message.tool_calls)]]
        if any(more) or (type(turn.latency_ms) is float and not isfinite(turn.latency_ms)):
            return None
        values, messages = _values_of_turn(turn), [*map(_values_of_message, turn.messages)]
        held = chain((turn,), values, _values_of_usage(turn.usage), turn.messages, *messages)
        types = *map(type, held), *[message.role for message in turn.messages]
    except (AttributeError, TypeError):
        return None
    return _PlainValues(types, values, messages)


def _not_storable(kind: type, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(f"This {kind.__name__} cannot be stored: {error}. Nothing was changed.")


def check_values_of(turn: Turn) -> None:
    """Raise ``InvalidArgumentError`` for a blank id, an absurd number or cost, or a time without a time zone."""
    if not turn.id.strip():
        raise InvalidArgumentError("A turn's id is blank; leave it out to get a new one, or give any text.")
    costs = [cost for cost in (turn.cost, turn.saved) if cost is not None]
    if is_absurd_usage(turn.usage) or any(map(is_absurd_cost, costs)):
        check_spent("turn", turn.usage, turn.cost)
        _check_cost("turn", "saved", turn.saved)
    for name in ("truncated", "cell_call", "counted_input_tokens"):
        if not 0 <= (getattr(turn, name) or 0) <= MOST_COUNT:
            raise InvalidArgumentError(
                f"A turn's {name} cannot be {getattr(turn, name)}; give a number from 0 to {MOST_COUNT:,}."
            )
    if turn.latency_ms is not None and not abs(turn.latency_ms) <= MOST_COUNT:
        raise InvalidArgumentError(f"A turn's latency_ms cannot be {turn.latency_ms}; give milliseconds, or None.")
    times = [turn.created_at, *[message.timestamp for message in turn.messages]]
    if None in [time.tzinfo for time in times if time is not None]:
        raise InvalidArgumentError("A turn's time has no time zone; give aware ones, such as datetime.now(UTC).")


def check_spent(what: str, usage: Usage, cost: Decimal | None) -> None:
    """Raise ``InvalidArgumentError`` for negative or absurd tokens, or such a cost."""
    _check_cost(what, "cost", cost)
    if is_absurd_usage(usage):
        raise InvalidArgumentError(
            f"A {what}'s usage cannot be {usage}; give each number of tokens from 0 to {MOST_COUNT:,}."
        )


def check_totals(totals: Totals) -> None:
    """Raise ``InvalidArgumentError`` for negative or absurd totals."""
    if are_absurd_totals(totals):
        raise InvalidArgumentError(
            f"A conversation's totals cannot be {totals}; give each number from 0, or leave it out."
        )


def _check_cost(what: str, name: str, cost: Decimal | None) -> None:
    if cost is not None and is_absurd_cost(cost):
        raise InvalidArgumentError(
            f"A {what}'s {name} cannot be {cost!s:.80}; give US dollars from 0 to {MOST_USD:,}, or None if unknown."
        )


def is_absurd_usage(usage: Usage) -> bool:
    """Return whether a count is negative, or larger than that of any call."""
    counts: tuple[int, ...] = _values_of_usage(usage)
    return min(counts) < 0 or max(counts) > MOST_COUNT


def is_absurd_cost(cost: Decimal, most_usd: Decimal = MOST_USD) -> bool:
    """Return whether a cost is negative, not a number, or larger than that of any call."""
    if not cost.is_finite() or not 0 <= cost <= most_usd:
        return True
    if abs(cost.adjusted()) + len(str(cost)) <= MOST_DECIMALS:
        return False  # the exponent is smaller than that, and asking for it takes three times as long
    exponent = cost.as_tuple().exponent
    return not (isinstance(exponent, int) and abs(exponent) <= MOST_DECIMALS)  # as many characters as that when written


def are_absurd_totals(totals: Totals) -> bool:
    """Return whether a total is negative, not a number, or too large; called for each record that is read."""
    counts, cost = (totals.tokens, totals.priced, totals.unpriced), totals.cost
    is_sum = cost.is_finite() and 0 <= cost <= MOST_TOTAL and abs(cost.adjusted()) <= MOST_DECIMALS
    return min(counts) < 0 or max(counts) > MOST_TOTAL or not is_sum


def _turn_line(turn: Turn) -> object:
    return _form_of_turn(_values_of_turn(turn), [*map(_values_of_message, turn.messages)])


def _form_of_turn(values: tuple[object, ...], messages: list[tuple[object, ...]]) -> object:
    form = _TurnForm(*values)
    form.usage = _form_of_usage(form.usage)
    form.messages = [_MessageForm(*message) for message in messages]
    return form


def _encoded(line: object) -> bytes:
    try:
        return _encode(line)
    except UnicodeEncodeError:
        return _encode(_cleaned(msgspec.to_builtins(line)))


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


_BUILDING = threading.RLock()
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_BUILDING.acquire, after_in_parent=_BUILDING.release, after_in_child=_BUILDING.release)


@cache
def decoder_of(kind: type[K]) -> msgspec.json.Decoder[K]:
    """Return the decoder of a type.

    They are made one at a time: msgspec crashes the process if a thread uses what another one knows of a type so far.
    """
    with _BUILDING:
        return msgspec.json.Decoder(kind)


@cache
def _stored_fields(kind: type) -> tuple[tuple[tuple[str, object], ...], Callable[[object], tuple[object, ...]]]:
    """Return the names and defaults of the fields, and a getter for all values of a record."""
    names_and_defaults = tuple((field.name, _default_of(field)) for field in fields(kind))
    return names_and_defaults, attrgetter(*(name for name, _ in names_and_defaults))


def _default_of(field: Field[object]) -> object:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is dict:
        return {}
    return msgspec.UNSET


def _without_defaults(record: DataclassInstance) -> dict[str, object]:
    names_and_defaults, values_of = _stored_fields(type(record))
    both = zip(names_and_defaults, values_of(record), strict=True)
    line = {name: value for (name, default), value in both if value is not default and value != default}
    if "usage" in line:
        line["usage"] = _form_of_usage(line["usage"])
    if "settings" in line:
        line["settings"] = _form_of_settings(cast("Settings", line["settings"]))
    if "summaries" in line:
        line["summaries"] = [*map(_form_of_summary, cast("tuple[Summary, ...]", line["summaries"]))]
    return line


def _form_of(kind: type) -> tuple[type[Any], Callable[[object], tuple[object, ...]]]:
    """Return a struct that msgspec writes without default values, in a third of the time of ``_without_defaults``.

    It leaves out the default value itself; an equal value, such as another ``Usage(0, 0)``, is written.
    """
    names_and_defaults, values_of = _stored_fields(kind)
    columns = [(name, object, default) for name, default in names_and_defaults]
    return msgspec.defstruct(kind.__name__, columns, omit_defaults=True), values_of


_TurnForm, _values_of_turn = _form_of(Turn)
_MessageForm, _values_of_message = _form_of(Message)
_values_of_usage = attrgetter(*(field.name for field in fields(Usage)))

_FORMAT_1 = {"input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "estimated"}
_UsageForm = msgspec.defstruct(
    "Usage",
    [
        (field.name, object) if field.name in _FORMAT_1 else (field.name, object, field.default)
        for field in fields(Usage)
    ],
    omit_defaults=True,
)
"""Usage as stored: all fields of format 1, and later fields only if they are set."""


def _form_of_usage(usage: object) -> object:
    is_written = isinstance(usage, Usage) and usage is not NO_USAGE
    return _UsageForm(*_values_of_usage(usage)) if is_written else usage


def _form_of_settings(settings: Settings) -> object:
    """Return the stored form of settings: all fields of version 0.1, and later ones only if they are set."""
    kind: type = type(settings)
    names_and_defaults, values_of = _stored_fields(kind)
    values = zip(names_and_defaults, values_of(settings), strict=True)
    return {name: value for (name, default), value in values if name not in _LATER_SETTINGS or value != default}


_LATER_SETTINGS = ("kind", "source", "acts")


def _form_of_summary(summary: Summary) -> object:
    """Return the stored form of a summary, with all its fields."""
    kind: type = type(summary)
    names_and_defaults, values_of = _stored_fields(kind)
    values = zip(names_and_defaults, values_of(summary), strict=True)
    line = {name: value for (name, _), value in values if value is not msgspec.UNSET}
    return {**line, "usage": _form_of_usage(summary.usage)}
