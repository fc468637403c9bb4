"""Conversations as Arrow batches: one row a turn, one row a message, whatever view asks.

Arrow keeps a million messages in a fraction of what Python objects take, and hands text to pandas without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.codec import encode_json
from promptkit_nb.replays import INTERRUPTED
from promptkit_nb.staleness import stale_turns
from promptkit_nb.state import Totals
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from promptkit_nb.state import ConversationState, Summary

DROPPED = "dropped"
"""The status of what was paid for turns that the store was told to forget: in usage, and in no other view."""

SMALLEST_USD = Decimal("1e-18")

NAME = pa.dictionary(pa.int32(), pa.string())
TEXT = pa.large_string()
COUNT = pa.int64()
TIME = pa.timestamp("us", "UTC")
MONEY = pa.decimal128(38, 18)

_TURN_TYPES = {
    "conversation_id": NAME,
    "user_id": NAME,
    "turn_id": TEXT,
    "position": COUNT,
    "created_at": TIME,
    "user_text": TEXT,
    "text": TEXT,
    "messages": COUNT,
    "model": NAME,
    "requested_model": NAME,
    "provider": NAME,
    "input_tokens": COUNT,
    "output_tokens": COUNT,
    "cached_tokens": COUNT,
    "reasoning_tokens": COUNT,
    "total_tokens": COUNT,
    "estimated": pa.bool_(),
    "cost": MONEY,
    "saved": MONEY,
    "latency_ms": pa.float64(),
    "finish_reason": NAME,
    "truncated": COUNT,
    "cell_id": NAME,
    "replayed": pa.bool_(),
    "interrupted": pa.bool_(),
    "stale": pa.bool_(),
    "status": NAME,
    "branch": NAME,
    "paid": COUNT,
    "unpriced": COUNT,
}

TURN_COLUMNS = tuple(_TURN_TYPES)

_MESSAGE_TYPES = {"role": NAME, "content": TEXT, "reasoning": TEXT, "tool_calls": TEXT, "created_at": TIME}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some conversations: ``turns`` one row a turn, ``messages`` one a message, in the same order.

    ``turns`` has, beyond what is shown: ``requested_model``; ``cost`` and ``saved`` as exact decimals; ``paid``, how
    many calls of a row were paid for, and ``unpriced``, how many of those have no known price.
    """

    turns: pa.RecordBatch
    messages: pa.RecordBatch


class _Row(NamedTuple):
    """A turn, or a summary as if it were one, and where it is in its conversation."""

    turn: Turn
    status: str
    is_paid: bool
    position: int | None = None
    branch: str | None = None
    is_stale: bool = False


def batch_of(states: Iterable[ConversationState], *, with_stale: bool) -> Batch:
    """Return the rows of whole conversations; without ``with_stale`` no turn is said to be stale, which is faster."""
    turns: list[tuple[object, ...]] = []
    messages: list[tuple[object, ...]] = []
    for state in states:
        for row in _rows_of(state, stale_turns(state) if with_stale else frozenset()):
            turns.append(_turn_values(state, row))
            messages += (_message_values(message, row.turn) for message in row.turn.messages)
        if state.dropped != Totals():
            turns.append(_dropped_values(state))
    return Batch(_record_batch(turns, _TURN_TYPES), _record_batch(messages, _MESSAGE_TYPES))


def _rows_of(state: ConversationState, stale: frozenset[str]) -> Iterator[_Row]:
    """Yield the current turns in their order, then former versions, branches and summaries."""
    for position, turn in enumerate(state.turns):
        yield _Row(turn, _status(turn, "current"), turn.counts, position, is_stale=turn.id in stale)
    for former in state.versions.values():
        yield from (_Row(turn, _status(turn, "replaced"), turn.counts) for turn in former)
    for branch in state.branches:
        yield from (_Row(turn, _status(turn, "archived"), turn.counts, branch=branch.id) for turn in branch.turns)
    for summary in state.summaries:
        yield _Row(_as_turn(summary), "summary", summary.counts)


def _status(turn: Turn, otherwise: str) -> str:
    return "inherited" if turn.inherited else otherwise


def _as_turn(summary: Summary) -> Turn:
    return Turn(
        id="",
        messages=(Message("assistant", summary.text),),
        usage=summary.usage,
        cost=summary.cost,
        model=summary.model,
        created_at=summary.created_at,
    )


def _turn_values(state: ConversationState, row: _Row) -> tuple[object, ...]:
    turn, usage = row.turn, row.turn.usage
    is_summary = row.status == "summary"
    return (
        state.conversation_id,
        state.user_id,
        turn.id or None,
        row.position,
        turn.created_at,
        None if is_summary else turn.user_text,
        turn.text,
        len(turn.messages),
        turn.model or None,
        turn.requested_model,
        turn.provider or None,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.total_tokens,
        usage.estimated,
        turn.cost,
        turn.saved,
        turn.latency_ms,
        turn.finish_reason,
        turn.truncated,
        turn.cell_id,
        turn.replayed,
        turn.finish_reason == INTERRUPTED,
        row.is_stale,
        row.status,
        row.branch,
        int(row.is_paid),
        int(row.is_paid and turn.cost is None),
    )


def _dropped_values(state: ConversationState) -> tuple[object, ...]:
    """Return a row of what is known no more but as a sum: neither when it was said, nor by whom."""
    dropped = state.dropped
    known: dict[str, object] = {
        "conversation_id": state.conversation_id,
        "user_id": state.user_id,
        "messages": 0,
        "total_tokens": dropped.tokens,
        "cost": dropped.known_cost,
        "status": DROPPED,
        "paid": dropped.priced + dropped.unpriced,
        "unpriced": dropped.unpriced,
    }
    return tuple(known.get(name, False if dtype == pa.bool_() else None) for name, dtype in _TURN_TYPES.items())


def _message_values(message: Message, turn: Turn) -> tuple[object, ...]:
    calls = encode_json(message.tool_calls).decode() if message.tool_calls else None
    return message.role, message.content, message.reasoning, calls, message.timestamp or turn.created_at


def _record_batch(rows: Sequence[tuple[object, ...]], types: dict[str, pa.DataType]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((),) * len(types)
    arrays = [_array(list(values), dtype) for values, dtype in zip(columns, types.values(), strict=True)]
    return pa.record_batch(arrays, names=list(types))


def _array(values: list[Any], dtype: pa.DataType) -> pa.Array:
    if dtype == NAME:
        return names_of(values)
    if dtype == MONEY:
        return money_of(values)
    return pa.array(values, dtype)


def names_of(values: Iterable[str | None]) -> pa.DictionaryArray:
    """Return texts of which many are equal, each once."""
    return pa.array(list(values), pa.string()).dictionary_encode()


def money_of(costs: Sequence[Decimal | None]) -> pa.Array:
    """Return US dollars as exact decimals; what is smaller than ``SMALLEST_USD`` is rounded."""
    try:
        return pa.array([None if cost is None else str(cost) for cost in costs], pa.string()).cast(MONEY)
    except pa.ArrowInvalid:
        return pa.array([None if cost is None else cost.quantize(SMALLEST_USD) for cost in costs], MONEY)


def dollars_of(money: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return exact decimals as the nearest floating-point numbers; Arrow's own cast is off by the last digit."""
    return pc.cast(pc.cast(money, pa.string()), pa.float64())
