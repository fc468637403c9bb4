"""Stored lines of JSON, decoded into columns: one row per turn, and one row per message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import numpy as np

from promptkit_nb.characters import visible
from promptkit_nb.codec import (
    MOST_COUNT,
    MOST_TOTAL,
    MOST_USD,
    SALVAGE,
    decode_json,
    decode_turn,
    decoder_of,
    encode_json,
    encode_turn,
    is_absurd_cost,
)
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.state import ConversationState, Summary, Totals
from promptkit_nb.stores.layout import ASIDE, places_of
from promptkit_nb.thinking import MAY_BE_THINKING, split_thinking
from promptkit_nb.turns import INTERRUPTED, OWN_SOURCE, Message, Role, ToolCall, Turn, price_source_of
from promptkit_nb.views.columns import MISSING, Array, Columns, Names, texts, times
from promptkit_nb.views.zones import start_of_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import tzinfo

    from promptkit_nb.stores.kept_usage import KeptUsage
    from promptkit_nb.stores.row_reader import ConversationRows

KEPT = "kept"
"""The status of calls that were paid for but have no stored turn; only usage has it."""

DROPPED = "dropped"
"""The status of the spending on turns that the store was told to forget; only usage shows it."""

_NAMES_OF_MESSAGES = (
    "conversation_id",
    "user_id",
    "model",
    "provider",
    "source",
    "price_source",
    "cell_id",
    "status",
    "branch",
)
_ARRAYS_OF_MESSAGES = ("turn_id", "position", "replayed", "interrupted")
"""Columns of a turn that its messages have, too."""

_IS_ESCAPE = np.isin(np.arange(256), [*b"urbf"])
"""Marks bytes that, after a backslash, begin an escape of a control character other than a line break or a tab."""

_SPENDING = "_spending"
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]


class _MessageLine(msgspec.Struct, gc=False):
    role: Role
    content: str = ""
    timestamp: _AwareTime | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class _UsageLine(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    unknown: bool = False


_NO_USAGE = _UsageLine(0, 0)
_UNKNOWN_USAGE = _UsageLine(MISSING, MISSING, MISSING, MISSING, cache_write_tokens=MISSING, unknown=True)


class _Spending(msgspec.Struct, gc=False):
    """What a line that is not a stored turn was paid for, if its usage and cost do not say it."""

    paid: int
    unpriced: int | None = None
    total_tokens: int | None = None


class _TurnLine(msgspec.Struct, gc=False):
    """What the views read of a turn, in the order in which turns are written, and what only we add to a line."""

    messages: list[_MessageLine]
    usage: _UsageLine | None = _NO_USAGE
    cost: Decimal | None = None
    model: str = ""
    provider: str = ""
    latency_ms: float | None = None
    finish_reason: str | None = None
    id: str = ""
    created_at: _AwareTime | None = None
    requested_model: str | None = None
    price_source: str | None = None
    truncated: int = 0
    cell_id: str | None = None
    context_hash: str | None = None
    replayed: bool = False
    saved: Decimal | None = None
    inherited: bool = False
    source: str = OWN_SOURCE
    row_index: str | None = None
    spending: _Spending | None = msgspec.field(default=None, name=_SPENDING)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of some conversations: ``turns`` one per turn, ``messages`` one per message, in the same order.

    In addition to the columns shown, ``turns`` has ``requested_model``, ``cost`` and ``saved`` as decimals,
    ``paid``, the number of calls of a row that were paid for, and ``unpriced``, how many of those have no known price.
    """

    turns: Columns
    messages: Columns


class _Block(NamedTuple):
    """Consecutive lines of one conversation; ``position`` is that of the first, if they are current."""

    conversation_id: str | None
    user_id: str
    status: str
    line_count: int
    position: int | None
    branch: str | None
    inherited: Sequence[bool] | None


@dataclass(slots=True)
class TurnLines:
    """Lines of JSON, each a turn, in blocks."""

    lines: list[bytes] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.lines)

    def conversation_ids(self) -> list[str]:
        """Return the conversation id of each line; ``""`` if it has none."""
        return [block.conversation_id or "" for block in self.blocks for _ in range(block.line_count)]

    def add_state(self, state: ConversationState) -> None:
        """Add the current turns in their order, then previous versions, branches, summaries and dropped spending."""
        own = _Writer(self, state.conversation_id, state.user_id)
        own.add(map(encode_turn, state.turns), "current", position=0)
        for previous in state.versions.values():
            own.add(map(encode_turn, previous), "replaced")
        for branch in state.branches:
            own.add(map(encode_turn, branch.turns), "archived", branch=branch.id)
        own.add_unstored(state.summaries, state.dropped, state.settings.source)

    def add_kept(self, kept: Iterable[KeptUsage], zone: tzinfo) -> None:
        """Add the amounts of calls without a stored turn."""
        for each in kept:
            _Writer(self, None, each.user_id).add([_kept_line(each, zone)], KEPT)

    def add_rows(self, conversation: ConversationRows) -> None:
        """Add the same from stored rows, or only what was appended since; ``KeyError`` if a row is missing."""
        record, frame = conversation.record, conversation.frame
        own = _Writer(self, conversation.conversation_id, record.user_id)
        has_inherited = frame.inherited_places > 0 or frame.inherited_aside > ASIDE

        def add(rows: Sequence[int], status: str, *, position: int | None = None, branch: str | None = None) -> None:
            lines = [conversation.lines[row] for row in rows]
            inherited = [frame.is_inherited(row) for row in rows] if has_inherited else None
            own.add(lines, status, position=position, branch=branch, inherited=inherited)

        before = conversation.since
        current = frame.current_rows(record.next_place) if before is None else [*conversation.lines]
        already = 0 if before is None else before.turn_count
        if already + len(current) != record.turn_count:
            raise KeyError(record.turn_count)
        add(current, "current", position=already)
        if before is not None:
            return
        for rows in frame.versions.values():
            add(rows[:-1], "replaced")
        for branch in frame.branches:
            add([frame.row_at(place) for place in places_of(branch.ranges, 0)], "archived", branch=branch.id)
        own.add_unstored(frame.summaries, frame.dropped, frame.settings.source)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Adds the lines of one conversation."""

    to: TurnLines
    conversation_id: str | None
    user_id: str

    def add(
        self,
        lines: Iterable[bytes],
        status: str,
        *,
        position: int | None = None,
        branch: str | None = None,
        inherited: Sequence[bool] | None = None,
    ) -> None:
        """Add a block."""
        before = len(self.to)
        self.to.lines += lines
        count = len(self.to) - before
        self.to.blocks.append(_Block(self.conversation_id, self.user_id, status, count, position, branch, inherited))

    def add_unstored(self, summaries: Iterable[Summary], dropped: Totals, source: str) -> None:
        """Add lines for what was paid for and is not stored as a turn: summaries, and the sum for dropped turns."""
        self.add([_summary_line(summary, source) for summary in summaries], "summary")
        if dropped != Totals():
            self.add([_dropped_line(dropped, source)], DROPPED)


def batch_of(lines: TurnLines) -> Batch:
    """Decode lines into columns; raise ``StoreCorruptedError``, naming conversations, if one is not a turn."""
    decoded = _decoded(lines)
    try:
        turns = _turn_columns(lines, decoded)
    except OverflowError as error:
        raise _not_shown(lines.conversation_ids(), error) from error
    return Batch(turns, _message_columns(turns, decoded))


def with_stale_turns(batch: Batch, stale: AbstractSet[tuple[str, str]]) -> Batch:
    """Return the batch with these turns, given by conversation and id, marked as stale if they are current."""
    if not stale:
        return batch
    turns = batch.turns
    turn_ids = np.asarray(turns.arrays["turn_id"])
    stale = {(conversation_id, visible(turn_id)) for conversation_id, turn_id in stale}
    stale_ids = {turn_id for _, turn_id in stale}
    is_candidate = np.array([turn_id in stale_ids for turn_id in turn_ids], bool)
    candidates = np.flatnonzero(is_candidate & (turns.arrays["position"] != MISSING))
    conversation_ids = turns.names["conversation_id"][candidates].values()
    flags = np.zeros(len(turn_ids), bool)
    flags[candidates] = [pair in stale for pair in zip(conversation_ids, turn_ids[candidates], strict=True)]
    return Batch(turns.with_arrays(stale=flags), batch.messages)


def _turn_columns(lines: TurnLines, turns: Sequence[_TurnLine]) -> Columns:
    inherited = np.array([turn.inherited for turn in turns], bool) | _inherited(lines.blocks)
    names = {
        "model": Names.of([turn.model or None for turn in turns]),
        "requested_model": Names.of([turn.requested_model for turn in turns]),
        "provider": Names.of([turn.provider or None for turn in turns]),
        "source": Names.of([turn.source for turn in turns]),
        "price_source": Names.of([price_source_of(turn.price_source) for turn in turns]),
        "finish_reason": Names.of([turn.finish_reason for turn in turns]),
        "cell_id": Names.of([turn.cell_id for turn in turns]),
        **_block_names(lines.blocks, inherited),
    }
    arrays = {
        "turn_id": texts([turn.id or None for turn in turns]),
        "row_index": texts([turn.row_index for turn in turns]),
        "position": _positions(lines.blocks),
        "created_at": times([turn.created_at for turn in turns]),
        "messages": np.array([len(turn.messages) for turn in turns], np.int64),
        "latency_ms": np.array([turn.latency_ms for turn in turns], np.float64),
        "truncated": np.array([turn.truncated if 0 <= turn.truncated <= MOST_COUNT else 0 for turn in turns], np.int64),
        "replayed": np.array([turn.replayed for turn in turns], bool),
        "interrupted": names["finish_reason"].equals(INTERRUPTED),
        "has_context": np.array([turn.context_hash is not None for turn in turns], bool),
        "stale": np.zeros(len(turns), bool),
    }
    return Columns(names, arrays | _spending(turns, arrays["replayed"] | inherited))


def _spending(turns: Sequence[_TurnLine], are_free: Array) -> dict[str, Array]:
    """Return tokens, costs, and how many calls of each row were paid for, and how many of them without a price."""
    usages = [*map(_known_usage, turns)]
    costs = [_known_cost(turn.cost, is_sum=turn.spending is not None) for turn in turns]
    input_tokens = np.array([usage.input_tokens for usage in usages], np.int64)
    output_tokens = np.array([usage.output_tokens for usage in usages], np.int64)
    total_tokens = np.where(input_tokens == MISSING, MISSING, input_tokens + output_tokens)
    paid = np.where(are_free, 0, 1)
    unpriced = np.where([cost is None for cost in costs], paid, 0)
    for index, spending in [(index, turn.spending) for index, turn in enumerate(turns) if turn.spending is not None]:
        paid[index] = spending.paid
        unpriced[index] = spending.paid if turns[index].cost is None else 0
        if spending.unpriced is not None:
            unpriced[index] = spending.unpriced
        if spending.total_tokens is not None:
            total_tokens[index] = spending.total_tokens
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": np.array([usage.cached_tokens for usage in usages], np.int64),
        "reasoning_tokens": np.array([usage.reasoning_tokens for usage in usages], np.int64),
        "cache_write_tokens": np.array([usage.cache_write_tokens for usage in usages], np.int64),
        "total_tokens": total_tokens,
        "estimated": np.array([usage.estimated for usage in usages], bool),
        "cost": np.array(costs, object),
        "saved": np.array([_known_cost(turn.saved) for turn in turns], object),
        "paid": paid,
        "unpriced": unpriced,
    }


def _known_usage(turn: _TurnLine) -> _UsageLine:
    """Return the usage of a turn; absurd ones, which earlier versions stored, become unknown."""
    usage = turn.usage
    if usage is None or usage.unknown:
        return _UNKNOWN_USAGE
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cache_write_tokens,
    )
    return usage if min(counts) >= 0 and max(counts) <= MOST_COUNT else _UNKNOWN_USAGE


def _known_cost(cost: Decimal | None, *, is_sum: bool = False) -> Decimal | None:
    most_usd = Decimal(MOST_TOTAL) if is_sum else MOST_USD
    return None if cost is None or is_absurd_cost(cost, most_usd) else cost


def _block_names(blocks: Sequence[_Block], inherited: Array) -> dict[str, Names]:
    block_of = np.repeat(np.arange(len(blocks)), [block.line_count for block in blocks])
    statuses = Names.of([block.status for block in blocks])[block_of]
    return {
        "conversation_id": Names.of([block.conversation_id for block in blocks])[block_of],
        "user_id": Names.of([block.user_id for block in blocks])[block_of],
        "status": statuses.where(inherited, "inherited") if inherited.any() else statuses,
        "branch": Names.of([block.branch for block in blocks])[block_of],
    }


def _positions(blocks: Sequence[_Block]) -> Array:
    positions = (
        np.full(block.line_count, MISSING)
        if block.position is None
        else np.arange(block.position, block.position + block.line_count)
        for block in blocks
    )
    return np.concatenate([np.empty(0, np.int64), *positions])


def _inherited(blocks: Sequence[_Block]) -> Array:
    flags = [[False] * block.line_count if block.inherited is None else block.inherited for block in blocks]
    return np.array([*chain.from_iterable(flags)], bool)


def _message_columns(turns: Columns, decoded: Iterable[_TurnLine]) -> Columns:
    messages = [message for turn in decoded for message in turn.messages]
    turn_of = np.repeat(np.arange(len(turns.arrays["messages"])), turns.arrays["messages"])
    created_at = times([message.timestamp for message in messages])
    said = [*map(_text_and_thinking, messages)]
    names = {name: turns.names[name][turn_of] for name in _NAMES_OF_MESSAGES}
    arrays = {name: turns.arrays[name][turn_of] for name in _ARRAYS_OF_MESSAGES}
    return Columns(
        names | {"role": Names.of([message.role for message in messages])},
        arrays
        | {
            "content": texts([text for text, _ in said]),
            "reasoning": texts([thinking or None for _, thinking in said]),
            "tool_calls": texts(
                [visible(encode_json(each.tool_calls).decode()) if each.tool_calls else None for each in messages]
            ),
            "tool_name": texts(
                [visible(each.name or "") or None if each.role == "tool" else None for each in messages]
            ),
            "tool_call_id": texts([visible(each.tool_call_id or "") or None for each in messages]),
            "created_at": np.where(np.isnat(created_at), turns.arrays["created_at"][turn_of], created_at),
        },
    )


def _visible(text: str | None) -> str | None:
    return visible(text) if text else None


def _text_and_thinking(message: _MessageLine) -> tuple[str, str | None]:
    """Return text and thinking of a message, which version 0.1 stored together for some models."""
    if message.role != "assistant" or not message.content.startswith(MAY_BE_THINKING):
        return message.content, message.reasoning
    thinking, text = split_thinking(message.content)
    return text, message.reasoning or thinking


def _decoded(lines: TurnLines) -> list[_TurnLine]:
    try:
        turns = [*map(decoder_of(_TurnLine).decode, lines.lines)]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        turns = [_decoded_as_turn(*each) for each in zip(lines.lines, lines.conversation_ids(), strict=True)]
    for index in _lines_with_controls(lines.lines):
        _make_visible(turns[index])
    return turns


def _lines_with_controls(lines: Sequence[bytes]) -> list[int]:
    """Return the indexes of lines that may contain characters that ``visible`` replaces.

    JSON escapes them, except DEL, C1 controls, and bidirectional characters. Checking each text separately would take
    longer than decoding it.
    """
    joined = b"".join([*lines, b"  "])
    codes = np.frombuffer(joined, np.uint8)
    backslashes = np.flatnonzero(codes == ord("\\"))
    found = [backslashes[_IS_ESCAPE[codes[backslashes + 1]]], np.flatnonzero(codes == 0x7F)]  # noqa: PLR2004 - DEL
    if not joined.isascii():
        starts = np.flatnonzero((codes == 0xC2) | (codes == 0xE2))  # noqa: PLR2004 - in UTF-8
        first, second, third = codes[starts], codes[starts + 1], codes[starts + 2]
        overrides = (second == 0x80) & (third >= 0xAA) & (third <= 0xAE)  # noqa: PLR2004 - U+202A to U+202E
        isolates = (second == 0x81) & (third >= 0xA6) & (third <= 0xA9)  # noqa: PLR2004 - U+2066 to U+2069
        found.append(starts[np.where(first == 0xC2, second < 0xA0, overrides | isolates)])  # noqa: PLR2004 - U+0080 to U+009F
    ends = np.cumsum([*map(len, lines)])
    rows: list[int] = np.unique(np.searchsorted(ends, np.concatenate(found), side="right")).tolist()
    return rows


def _make_visible(turn: _TurnLine) -> None:
    turn.id = visible(turn.id)
    for message in turn.messages:
        message.content = visible(message.content)
        message.reasoning = message.reasoning and visible(message.reasoning)


def _decoded_as_turn(line: bytes, conversation_id: str) -> _TurnLine:
    """Decode a line that may be from another writer; raise ``StoreCorruptedError`` if it is not a turn."""
    written = line if _SPENDING.encode() in line else encode_turn(decode_turn(line, conversation_id))
    decoder: msgspec.json.Decoder[_TurnLine] = decoder_of(_TurnLine)
    try:
        return decoder.decode(written)
    except msgspec.MsgspecError as error:
        raise _not_shown([conversation_id], error) from error


def _not_shown(conversation_ids: Iterable[str], error: Exception) -> StoreCorruptedError:
    among = ", ".join(map(repr, dict.fromkeys(conversation_ids)))
    return StoreCorruptedError(
        f"A turn cannot be shown ({error!s:.200}); it is in one of these conversations: {among:.1000}. {SALVAGE}"
    )


def _summary_line(summary: Summary, source: str) -> bytes:
    """Return a summary as the line of a turn that the model wrote."""
    turn = Turn(
        id="",
        messages=(Message("assistant", summary.text),),
        usage=summary.usage,
        cost=summary.cost,
        model=summary.model,
        created_at=summary.created_at,
        source=source,
    )
    return encode_json(decode_json(encode_turn(turn)) | {_SPENDING: {"paid": int(summary.counts)}})


def _kept_line(kept: KeptUsage, zone: tzinfo) -> bytes:
    """Return the amounts of calls without a stored turn as the line of a turn at the beginning of their day."""
    line: dict[str, object] = {
        "messages": [],
        "usage": None if kept.other_tokens else kept.usage,
        "cost": kept.known_cost,
        "model": kept.model,
        "provider": kept.provider,
        "source": kept.source,
        "created_at": None if kept.day is None else start_of_day(kept.day, zone),
        _SPENDING: {"paid": kept.calls, "unpriced": kept.unpriced, "total_tokens": kept.total_tokens},
    }
    return encode_json(line)


def _dropped_line(dropped: Totals, source: str) -> bytes:
    """Return the sum for dropped turns as the line of a turn without time, model and kinds of tokens."""
    known: dict[str, object] = {
        "messages": [],
        "usage": None,
        "source": source,
        _SPENDING: {
            "paid": dropped.priced + dropped.unpriced,
            "unpriced": dropped.unpriced,
            "total_tokens": dropped.tokens,
        },
    }
    return encode_json(known if dropped.known_cost is None else known | {"cost": str(dropped.known_cost)})
