"""Builds turns and conversations from the records of the readers, message by message and call by call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import msgspec

from promptkit_nb.codec import encode_json
from promptkit_nb.imports.notes import Notes
from promptkit_nb.imports.prices import CallPrices
from promptkit_nb.imports.records import clean, is_number
from promptkit_nb.pricing import UNKNOWN_COST, CallCost
from promptkit_nb.state import Branch, ConversationState, Settings, Summary
from promptkit_nb.turns import Message, Role, ToolCall, Turn, Usage, sum_of_usages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


ToolOutput = Literal["keep", "cut", "drop"]

TOOL_OUTPUT_CHARACTERS = 4000
"""Characters that are kept of a tool output that is cut: three quarters from its beginning, the rest from its end."""

LONGEST_LATENCY_MS = 1e12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN_USAGE = Usage(0, 0, unknown=True)


def turn_id_of(source: str, conversation_id: str, native_id: str, at: datetime | None, row: int) -> str:
    """Return a turn id that is the same at every import: the time or the row, and a hash of the origin."""
    since = None if at is None else at - EPOCH
    time_ns = row if since is None else ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
    digest = hashlib.sha256(f"{source}\x00{conversation_id}\x00{native_id}".encode("utf-8", "replace"))
    return f"{time_ns:016x}{digest.hexdigest()[:16]}"


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One API call, as recorded by the source.

    ``input_tokens`` includes cached tokens. ``cost`` is the recorded cost. ``is_unpriceable`` marks a call at rates
    that are not in the price list.
    """

    model: str
    at: datetime | None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    has_usage: bool = True
    is_unpriceable: bool = False

    @property
    def usage(self) -> Usage:
        """The tokens as ``Usage``."""
        if not self.has_usage:
            return UNKNOWN_USAGE
        return Usage(
            self.input_tokens,
            self.output_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cache_write_tokens=self.cache_write_tokens,
        )


@dataclass(slots=True)
class DraftMessage:
    """A message under construction: tools often write one answer as several records."""

    role: Role
    at: datetime | None = None
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def is_blank(self) -> bool:
        """Whether the message is empty; an empty answer is not kept."""
        return self.role == "assistant" and not (any(self.texts) or any(self.reasoning) or self.tool_calls)

    def message(self) -> Message:
        """Return the message."""
        return Message(
            self.role,
            "\n".join(self.texts),
            timestamp=self.at,
            reasoning="\n".join(self.reasoning) or None,
            tool_calls=tuple(self.tool_calls),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )


def tool_call(call_id: str, name: str, arguments: object) -> ToolCall:
    """Return a tool call; ``arguments`` are JSON, or text as the model wrote it."""
    text = arguments if isinstance(arguments, str) else encode_json(clean(arguments)).decode()
    return ToolCall(call_id, name, text)


@dataclass(slots=True)
class DraftTurn:
    """A turn under construction."""

    id: str
    at: datetime | None
    messages: list[DraftMessage] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    finish_reason: str | None = None
    latency_ms: float | None = None
    warnings: list[str] = field(default_factory=list)
    provider: str = ""

    def answer(self, at: datetime | None) -> DraftMessage:
        """Add a message from the model."""
        self.messages.append(DraftMessage("assistant", at))
        return self.messages[-1]

    def add_latency(self, latency_ms: object) -> None:
        """Add the time that a call took."""
        if is_number(latency_ms) and 0 < latency_ms < LONGEST_LATENCY_MS:
            self.latency_ms = (self.latency_ms or 0.0) + latency_ms


@dataclass(frozen=True, slots=True)
class Reading:
    """Shared by all conversations of an import: notes for the report, prices, and how to treat tool output."""

    notes: Notes
    prices: CallPrices
    tool_output: ToolOutput = "cut"
    id_prefix: str = ""

    def shortened(self, text: str) -> str:
        """Return the output of a tool, whole, cut, or dropped, depending on ``tool_output``."""
        if self.tool_output == "drop" and text:
            self.notes.add_omission("tool outputs dropped")
            return f"[{len(text):,} characters dropped]"
        if self.tool_output == "keep" or len(text) <= TOOL_OUTPUT_CHARACTERS:
            return text
        self.notes.add_omission("tool outputs cut")
        head, tail = TOOL_OUTPUT_CHARACTERS * 3 // 4, TOOL_OUTPUT_CHARACTERS // 4
        return f"{text[:head]}\n[{len(text) - head - tail:,} characters cut]\n{text[-tail:]}"


@dataclass(slots=True)
class ConversationBuilder:
    """Builds one conversation; ``native_id`` is its id at the source."""

    source: str
    native_id: str
    reading: Reading
    system_prompt: str | None = None
    title: str | None = None
    user_id: str = ""
    metadata: dict[str, object] = field(default_factory=dict)
    created_at: datetime | None = None
    turns: list[DraftTurn] = field(default_factory=list)
    branches: list[tuple[int, list[DraftTurn]]] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    last_at: datetime | None = None
    _ids: set[str] = field(default_factory=set)

    def start_turn(self, native_id: str, at: datetime | None) -> DraftTurn:
        """Start a turn; its first message has the id ``native_id``."""
        self.saw(at)
        at = at or self.last_at
        turn_id = turn_id_of(self.source, self.native_id, native_id, at, len(self._ids))
        while turn_id in self._ids:
            native_id += "'"
            turn_id = turn_id_of(self.source, self.native_id, native_id, at, len(self._ids))
        self._ids.add(turn_id)
        self.turns.append(DraftTurn(turn_id, at))
        return self.turns[-1]

    def ask(self, text: str, native_id: str, at: datetime | None) -> DraftTurn:
        """Start a turn with a user message."""
        turn = self.start_turn(native_id, at)
        turn.messages.append(DraftMessage("user", turn.at, [text]))
        return turn

    def current(self, native_id: str, at: datetime | None) -> DraftTurn:
        """Return the current turn; before the first user message, a new turn without one."""
        self.saw(at)
        return self.turns[-1] if self.turns else self.start_turn(native_id, at)

    def saw(self, at: datetime | None) -> None:
        """Remember the time of a record; a record without one gets the time of the previous record."""
        if at is not None and (self.last_at is None or at > self.last_at):
            self.last_at = at

    def add_result(
        self, turn: DraftTurn, call_id: str, text: str, at: datetime | None, name: str | None = None
    ) -> None:
        """Add a tool result to a turn, after its call and the other results of the same answer."""
        shown = self.reading.shortened(text)
        result = DraftMessage("tool", at, [shown], tool_call_id=call_id, name=name)
        for index in range(len(turn.messages) - 1, -1, -1):
            if any(call.id == result.tool_call_id for call in turn.messages[index].tool_calls):
                place = index + 1
                while place < len(turn.messages) and turn.messages[place].role == "tool":
                    place += 1
                turn.messages.insert(place, result)
                return
        self.reading.notes.add_omission("tool results without a call (kept)")
        turn.messages.append(result)

    def branch_from(self, index: int) -> None:
        """Move the turns from this position on to a branch."""
        self.branches.append((index, self.turns[index:]))
        del self.turns[index:]

    def summarize(self, text: str, at: datetime | None) -> None:
        """Add a summary of all current turns."""
        if text.strip() and self.turns:
            made_at = at or self.last_at or EPOCH
            self.summaries.append(Summary(self.turns[0].id, self.turns[-1].id, text, created_at=made_at))

    def state(self) -> ConversationState | None:
        """Return the conversation, or ``None`` if it has no messages; the drafts of its turns are given up."""
        branches = tuple(
            Branch(id=f"branch-{number}", turns=kept, start=start, created_at=kept[0].created_at)
            for number, (start, drafts) in enumerate(self.branches, 1)
            if (kept := self._finished(drafts))
        )
        if self.title:
            self.metadata["title"] = self.title
        return imported_state(
            self.source,
            self.native_id,
            self._finished(self.turns),
            branches=branches,
            user_id=self.user_id,
            system_prompt=self.system_prompt,
            summaries=tuple(self.summaries),
            metadata=self.metadata,
            created_at=self.created_at,
            last_at=self.last_at,
        )

    def _finished(self, drafts: list[DraftTurn]) -> tuple[Turn, ...]:
        """Return the turns of drafts, each of which is removed: a long conversation must not be in memory twice."""
        drafts.reverse()
        removed = (drafts.pop() for _ in range(len(drafts)))
        return tuple(self._turn(draft) for draft in removed if draft.messages or draft.calls)

    def _turn(self, draft: DraftTurn) -> Turn:
        created_at = draft.at or self.created_at or EPOCH
        cost = sum_of_costs([self.reading.prices.of(call, call.at or created_at) for call in draft.calls])
        return Turn(
            id=draft.id,
            messages=tuple(each.message() for each in draft.messages if not each.is_blank),
            usage=known_usage([call.usage for call in draft.calls]),
            cost=cost.usd,
            model=draft.calls[-1].model if draft.calls else "",
            provider=draft.provider,
            latency_ms=draft.latency_ms,
            finish_reason=draft.finish_reason,
            created_at=created_at,
            price_source=cost.source,
            price_list=cost.price_list,
            warnings=tuple(draft.warnings),
            source=self.source,
        )


def known_usage(usages: Iterable[Usage]) -> Usage:
    """Return the total usage of calls; unknown if no call has a recorded usage."""
    known = [usage for usage in usages if not usage.unknown]
    return sum_of_usages(known) if known else UNKNOWN_USAGE


def sum_of_costs(costs: Sequence[CallCost]) -> CallCost:
    """Return the total cost of calls, with the least certain of their price sources; unknown if any cost is."""
    known = [cost.usd for cost in costs if cost.usd is not None]
    if not costs or len(known) < len(costs):
        return UNKNOWN_COST
    if len(costs) == 1:
        return costs[0]
    sources = {cost.source for cost in costs}
    source = next(each for each in ("list", "yours", "reported") if each in sources)
    return CallCost(sum(known, Decimal(0)), source, next((cost.price_list for cost in costs if cost.price_list), None))


def imported_state(
    source: str,
    native_id: str,
    turns: tuple[Turn, ...],
    *,
    user_id: str,
    system_prompt: str | None,
    summaries: tuple[Summary, ...],
    metadata: Mapping[str, object],
    branches: tuple[Branch, ...] = (),
    created_at: datetime | None = None,
    last_at: datetime | None = None,
) -> ConversationState | None:
    """Return an imported conversation, or ``None`` if it has no messages."""
    if not turns and not branches:
        return None
    times = [turn.created_at for turn in (*turns, *(turn for branch in branches for turn in branch.turns))]
    created_at = created_at or min(times)
    return ConversationState(
        f"{source}:{native_id}",
        user_id,
        turns,
        system_prompt,
        summaries,
        branches=branches,
        settings=Settings(kind="imported", source=source),
        metadata=clean(metadata),
        created_at=created_at,
        updated_at=max(created_at, last_at or created_at, *times),
    )
