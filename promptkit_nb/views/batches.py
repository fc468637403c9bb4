"""Turns as Arrow batches, straight from their lines of JSON: one row a turn, one row a message.

Arrow reads the lines several times faster than Python makes objects of them, keeps a million messages in a fraction of
what those take, and hands text to pandas without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from promptkit_nb.codec import SALVAGE, decode_turn, encode_json, encode_turn
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.turns import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from promptkit_nb.views.lines import Lines

SMALLEST_USD = Decimal("1e-18")

TEXT = pa.large_string()
TIME = pa.timestamp("us", "UTC")
MONEY = pa.decimal128(38, 18)

_STRING, _COUNT, _FLAG = pa.string(), pa.int64(), pa.bool_()

_MESSAGE = {
    "role": _STRING,
    "content": _STRING,
    "reasoning": _STRING,
    "timestamp": _STRING,
    "tool_calls": pa.list_(pa.struct({"id": _STRING, "name": _STRING, "arguments": _STRING})),
}
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_USAGE_FIELDS = (*_TOKENS, "estimated")
_LINE = pa.schema(
    {
        "id": _STRING,
        "created_at": _STRING,
        "messages": pa.list_(pa.struct(_MESSAGE)),
        "model": _STRING,
        "requested_model": _STRING,
        "provider": _STRING,
        "usage": pa.struct(dict.fromkeys(_TOKENS, _COUNT) | {"estimated": _FLAG}),
        "cost": _STRING,
        "price_source": _STRING,
        "saved": _STRING,
        "latency_ms": pa.float64(),
        "finish_reason": _STRING,
        "truncated": _COUNT,
        "cell_id": _STRING,
        "replayed": _FLAG,
        "inherited": _FLAG,
        # Of summaries and of what was dropped only, where they do not follow from the rest:
        "_total_tokens": _COUNT,
        "_paid": _COUNT,
        "_unpriced": _COUNT,
    }
)
_OF_TURN = (
    "conversation_id",
    "user_id",
    "turn_id",
    "position",
    "model",
    "provider",
    "cell_id",
    "replayed",
    "interrupted",
    "status",
    "branch",
)
_LONGEST_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Some conversations: ``turns`` one row a turn, ``messages`` one a message, in the same order.

    ``turns`` has, beyond what is shown: ``requested_model``; ``price_source``; ``cost`` and ``saved`` as exact
    decimals; ``paid``, how many calls of a row were paid for, and ``unpriced``, how many of those have no known price.
    """

    turns: pa.RecordBatch
    messages: pa.RecordBatch


def batch_of(lines: Lines) -> Batch:
    """Return the lines as columns; ``StoreCorruptedError``, naming conversations, where one is no turn."""
    try:
        return _batch(lines, lines.lines)
    except pa.ArrowException:  # 0.5 for the text "0.5" can be read all the same; of a damaged line, rewriting raises
        rewritten = [_rewritten(*each) for each in zip(lines.lines, lines.conversation_ids, strict=True)]
    try:
        return _batch(lines, rewritten)
    except pa.ArrowException as error:
        among = ", ".join(map(repr, dict.fromkeys(lines.conversation_ids)))
        raise StoreCorruptedError(
            f"A turn cannot be shown ({error!s:.200}); it is in one of these conversations: {among:.1000}. {SALVAGE}"
        ) from error


def marked(batch: Batch, stale: AbstractSet[tuple[str, str]]) -> Batch:
    """Return the batch with those current turns marked as stale whose conversation and id are among these."""
    if not stale:
        return batch
    turns = batch.turns
    alike = pc.is_in(turns["turn_id"], pa.array({turn_id for _, turn_id in stale}, TEXT))
    places = np.flatnonzero(pc.and_(alike, pc.is_valid(turns["position"])).to_numpy(zero_copy_only=False))
    found = turns.take(pa.array(places)).select(["conversation_id", "turn_id"]).to_pylist()
    flags = np.zeros(len(turns), bool)
    flags[places] = [tuple(each.values()) in stale for each in found]
    return Batch(turns.set_column(turns.schema.get_field_index("stale"), "stale", pa.array(flags)), batch.messages)


def _batch(lines: Lines, said: Sequence[bytes]) -> Batch:
    parsed = _parsed(said)
    counts = pc.list_value_length(parsed["messages"])
    if parsed.num_rows != len(said) or counts.null_count:
        raise pa.ArrowInvalid("a line is no turn")
    turns = _turns(lines, parsed, counts)
    of_turns = turns.take(pa.array(np.repeat(np.arange(len(said)), counts.to_numpy())))
    return Batch(turns, _messages(parsed["messages"].flatten(), of_turns))


def _turns(lines: Lines, parsed: pa.RecordBatch, counts: pa.Array) -> pa.RecordBatch:
    usage = dict(zip(_USAGE_FIELDS, parsed["usage"].flatten(), strict=True))
    not_told = pc.if_else(pc.is_valid(parsed["_total_tokens"]), pa.scalar(None, _COUNT), 0)
    tokens = {name: pc.coalesce(usage[name], not_told) for name in _TOKENS}
    cost = _money(parsed["cost"])
    replayed = _flag(parsed["replayed"])
    inherited = pc.or_(_flag(parsed["inherited"]), pa.array(lines.are_inherited, _FLAG))
    paid = pc.coalesce(parsed["_paid"], pc.if_else(pc.or_(replayed, inherited), 0, 1))
    total = pc.add(tokens["input_tokens"], tokens["output_tokens"])
    status = pc.if_else(inherited, "inherited", pa.array(lines.statuses, _STRING))
    return pa.record_batch(
        {
            "conversation_id": names_of(lines.conversation_ids),
            "user_id": names_of(lines.user_ids),
            "turn_id": pc.cast(_said(parsed["id"]), TEXT),
            "position": pa.array(lines.positions, _COUNT),
            "created_at": pc.cast(parsed["created_at"], TIME),
            "messages": pc.cast(counts, _COUNT),
            "model": _said(parsed["model"]).dictionary_encode(),
            "requested_model": parsed["requested_model"].dictionary_encode(),
            "provider": _said(parsed["provider"]).dictionary_encode(),
            **tokens,
            "total_tokens": pc.coalesce(parsed["_total_tokens"], total),
            "estimated": _flag(usage["estimated"]),
            "cost": cost,
            "price_source": parsed["price_source"].dictionary_encode(),
            "saved": _money(parsed["saved"]),
            "latency_ms": parsed["latency_ms"],
            "finish_reason": parsed["finish_reason"].dictionary_encode(),
            "truncated": pc.coalesce(parsed["truncated"], 0),
            "cell_id": parsed["cell_id"].dictionary_encode(),
            "replayed": replayed,
            "interrupted": _flag(pc.equal(parsed["finish_reason"], INTERRUPTED)),
            "stale": pa.repeat(False, len(lines)),  # noqa: FBT003 - Arrow's signature
            "status": status.dictionary_encode(),
            "branch": names_of(lines.branches),
            "paid": paid,
            "unpriced": pc.coalesce(parsed["_unpriced"], pc.if_else(pc.is_null(cost), paid, 0)),
        }
    )


def names_of(values: Iterable[str | None]) -> pa.DictionaryArray:
    """Return texts of which many are equal, each once."""
    return pa.array(list(values), _STRING).dictionary_encode()


def dollars_of(money: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return exact decimals as the nearest floating-point numbers; Arrow's own cast is off by the last digit."""
    return pc.cast(pc.cast(money, _STRING), pa.float64())


def money_of(costs: Iterable[Decimal | None]) -> pa.Array:
    """Return US dollars as exact decimals; what is smaller than ``SMALLEST_USD`` is rounded."""
    return _money(pa.array([None if cost is None else str(cost) for cost in costs], _STRING))


def _money(texts: pa.StringArray) -> pa.Decimal128Array:
    try:
        return pc.cast(texts, MONEY)
    except pa.ArrowInvalid:
        costs = (None if text is None else Decimal(text) for text in texts.to_pylist())
        return pa.array([None if cost is None else cost.quantize(SMALLEST_USD) for cost in costs], MONEY)


def _messages(said: pa.StructArray, of_turns: pa.RecordBatch) -> pa.RecordBatch:
    fields = dict(zip(_MESSAGE, said.flatten(), strict=True))
    calls = fields["tool_calls"]
    return pa.record_batch(
        {name: of_turns[name] for name in _OF_TURN}
        | {
            "role": fields["role"].dictionary_encode(),
            "content": pc.coalesce(pc.cast(fields["content"], TEXT), pa.scalar("", TEXT)),
            "reasoning": pc.cast(fields["reasoning"], TEXT),
            "tool_calls": _json_of(calls) if calls.null_count < len(calls) else pa.nulls(len(calls), TEXT),
            "created_at": pc.coalesce(pc.cast(fields["timestamp"], TIME), of_turns["created_at"]),
        }
    )


def _json_of(calls: pa.ListArray) -> pa.Array:
    return pa.array([None if each is None else encode_json(each).decode() for each in calls.to_pylist()], TEXT)


def _parsed(lines: Sequence[bytes]) -> pa.RecordBatch:
    if not lines:
        return pa.RecordBatch.from_pylist([], _LINE)
    block_bytes = max(_LONGEST_BLOCK, *map(len, lines)) + 1
    table = arrow_json.read_json(
        pa.BufferReader(b"\n".join(lines)),
        arrow_json.ReadOptions(block_size=block_bytes),
        arrow_json.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore"),
    )
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _rewritten(line: bytes, conversation_id: str) -> bytes:
    """Return a line as this package writes it; ``StoreCorruptedError`` where it is no turn."""
    return line if b'"_paid"' in line else encode_turn(decode_turn(line, conversation_id))


def _flag(values: pa.BooleanArray) -> pa.BooleanArray:
    return pc.fill_null(values, False)  # noqa: FBT003 - Arrow's signature


def _said(texts: pa.StringArray) -> pa.StringArray:
    """Return texts with those missing that say nothing."""
    return pc.if_else(pc.equal(texts, ""), None, texts)
