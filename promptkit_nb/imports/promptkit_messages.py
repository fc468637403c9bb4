"""Builds a conversation of PromptKit (Go) from its state, messages, and summaries in JSON, from Redis or files.

An older conversation is a single document with Go's field names. If a conversation has both layouts, parts that are
missing in the newer one are taken from the document.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from promptkit_nb.imports.building import (
    EPOCH,
    UNKNOWN_USAGE,
    Call,
    Reading,
    imported_state,
    known_usage,
    sum_of_costs,
    tool_call,
    turn_id_of,
)
from promptkit_nb.imports.records import (
    DamagedRecordError,
    count_of,
    decode_record,
    mapping_of,
    text_of,
    time_of,
    usd_of,
)
from promptkit_nb.pricing import UNKNOWN_COST, CallCost
from promptkit_nb.state import Summary
from promptkit_nb.turns import Message, Role, Turn, Usage

if TYPE_CHECKING:
    from promptkit_nb.imports.notes import Notes
    from promptkit_nb.state import ConversationState

T = TypeVar("T")

SOURCE = "promptkit"
DEFAULT_PREFIX = "promptkit"
FINISH_REASONS = {"max_output_tokens": "length", "tool_use": "tool_calls", "safety": "content_filter"}
MEDIA = ("image", "audio", "video", "document")
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    id: str = ""
    name: str = ""
    args: Any = None


class _ToolResult(msgspec.Struct, gc=False):
    id: str = ""
    name: str = ""
    error: str = ""
    content: str = ""
    parts: list[_Part] | None = None


class _CostInfo(msgspec.Struct, gc=False):
    input_tokens: float = 0
    output_tokens: float = 0
    cached_tokens: float = 0
    total_cost_usd: float | None = None
    provider_name: str = ""


class _Meta(msgspec.Struct, gc=False):
    model: Any = None


class _Reasoning(msgspec.Struct, gc=False):
    text: str = ""


class StoredMessage(msgspec.Struct, gc=False):
    """A message as written by PromptKit; other fields are not decoded."""

    role: str = ""
    content: str = ""
    timestamp: str = ""
    latency_ms: float = 0
    cost_info: _CostInfo | None = None
    finish_reason: str = ""
    meta: _Meta | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_result: _ToolResult | None = None
    parts: list[_Part] | None = None
    reasoning: _Reasoning | None = None
    validations: list[msgspec.Raw] | None = None


class StoredSummary(msgspec.Struct, gc=False):
    """A summary as written by PromptKit; its range counts messages."""

    start: int = msgspec.field(default=0, name="StartTurn")
    end: int = msgspec.field(default=0, name="EndTurn")
    content: str = msgspec.field(default="", name="Content")
    created_at: str = msgspec.field(default="", name="CreatedAt")


class _Document(msgspec.Struct, gc=False):
    """The lists of a conversation that is a single document."""

    messages: list[StoredMessage] | None = msgspec.field(default=None, name="Messages")
    summaries: list[StoredSummary] | None = msgspec.field(default=None, name="Summaries")


_MESSAGE = msgspec.json.Decoder(StoredMessage)
_SUMMARY = msgspec.json.Decoder(StoredSummary)
_DOCUMENT = msgspec.json.Decoder(_Document)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class StoredConversation:
    """The stored parts of one conversation: the state, the lists, and the document if there is one."""

    conversation_id: str
    state: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[StoredMessage] = ()
    summaries: Sequence[StoredSummary] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document: bytes | None = None
    prefix: str = DEFAULT_PREFIX

    def conversation(self, reading: Reading) -> ConversationState | None:
        """Return the conversation, ``None`` if it has no messages."""
        state, place = self.state, self.conversation_id
        whole = object_of(self.document, place, reading.notes)
        lists = (_decoded(self.document, _DOCUMENT, place, reading.notes) if whole else None) or _Document()
        messages, summaries = self.messages or lists.messages or (), self.summaries or lists.summaries or ()
        metadata = {**mapping_of(whole.get("Metadata")), **mapping_of(state.get("metadata")), **self.metadata}
        metadata["prefix"] = self.prefix
        token_count = count_of(state.get("token_count")) or count_of(whole.get("TokenCount"))
        if token_count:
            metadata["token_count"] = token_count
        used_at = time_of(state.get("last_accessed_at")) or time_of(whole.get("LastAccessedAt"))
        prefix = "" if self.prefix == DEFAULT_PREFIX else f"{self.prefix}:"
        turns = _Turns(f"{prefix}{self.conversation_id}", reading, used_at or EPOCH)
        for index, message in enumerate(messages):
            turns.take(index, message)
        configured = text_of(state.get("system_prompt")) or text_of(whole.get("SystemPrompt"))
        said = "\n\n".join(turns.system_texts)
        if said and configured not in ("", said):
            metadata["configured_system_prompt"] = configured
        return imported_state(
            SOURCE,
            turns.native_id,
            turns.finished(),
            user_id=text_of(state.get("user_id")) or text_of(whole.get("UserID")),
            system_prompt=said or configured or None,
            summaries=tuple(_mapped(summaries, turns.turn_of)),
            metadata=metadata,
            last_at=used_at,
        )


@dataclass(slots=True)
class _DraftTurn:
    """A turn under construction."""

    id: str
    at: datetime
    messages: list[Message] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    costs: list[CallCost] = field(default_factory=list)
    model: str = ""
    provider: str = ""
    latency_ms: float = 0.0
    finish_reason: str | None = None


class _Turns:
    """The turns of a conversation, built from its messages; ``turn_of`` is the turn of each message, if it has one."""

    def __init__(self, native_id: str, reading: Reading, fallback_at: datetime) -> None:
        """Start without messages; ``fallback_at`` is the time of messages before the first recorded time."""
        self.native_id = native_id
        self.system_texts: list[str] = []
        self.turn_of: list[_DraftTurn | None] = []
        self._reading = reading
        self._fallback_at = fallback_at
        self._at: datetime | None = None
        self._turns: list[_DraftTurn] = []

    def take(self, index: int, message: StoredMessage) -> None:
        """Process the next message; a user message starts a turn, and leading system messages are the prompt."""
        role = _ROLES.get(message.role)
        self._at = at = time_of(message.timestamp) or self._at
        if role is None:
            self._reading.notes.add_unknown_type(f"{SOURCE}: message with role {message.role!r}")
        if role is None or (role == "system" and not self._turns):
            self.system_texts += [self._text_of(message)] if role else []
            self.turn_of.append(None)
            return
        if role == "user" or not self._turns:
            turn_id = turn_id_of(SOURCE, self.native_id, str(index), at, index)
            self._turns.append(_DraftTurn(turn_id, at or self._fallback_at))
        turn = self._turns[-1]
        self.turn_of.append(turn)
        if role == "tool":
            turn.messages.append(self._result(message, at))
        elif role == "assistant":
            self._take_answer(turn, message, at)
        else:
            turn.messages.append(Message(role, self._text_of(message), timestamp=at))

    def finished(self) -> tuple[Turn, ...]:
        """Return the turns."""
        return tuple(map(self._finished, self._turns))

    @staticmethod
    def _finished(turn: _DraftTurn) -> Turn:
        cost = sum_of_costs(turn.costs)
        return Turn(
            id=turn.id,
            messages=tuple(turn.messages),
            usage=known_usage(turn.usages),
            cost=cost.usd,
            model=turn.model,
            provider=turn.provider,
            latency_ms=turn.latency_ms or None,
            finish_reason=turn.finish_reason,
            created_at=turn.at,
            price_source=cost.source,
            price_list=cost.price_list,
            source=SOURCE,
        )

    def _take_answer(self, turn: _DraftTurn, message: StoredMessage, at: datetime | None) -> None:
        calls = [tool_call(call.id, call.name, call.args or {}) for call in message.tool_calls or ()]
        thoughts = "" if message.reasoning is None else message.reasoning.text
        if message.parts and not thoughts:
            thoughts = "".join(part.text or "" for part in message.parts if part.type == "thinking")
        text = self._text_of(message)
        answer = Message("assistant", text, timestamp=at, tool_calls=tuple(calls), reasoning=thoughts or None)
        turn.messages.append(answer)
        if message.validations:
            self._reading.notes.add_omission("validations")
        if message.meta is not None:
            turn.model = text_of(message.meta.model) or turn.model
        if message.latency_ms > 0:
            turn.latency_ms += message.latency_ms
        if message.finish_reason:
            turn.finish_reason = FINISH_REASONS.get(message.finish_reason, message.finish_reason)
        usage, cost = self._spent(turn, message.cost_info, at)
        turn.usages.append(usage)
        turn.costs.append(cost)

    def _spent(self, turn: _DraftTurn, info: _CostInfo | None, at: datetime | None) -> tuple[Usage, CallCost]:
        """Return usage and cost of an answer; without ``cost_info``, both are unknown.

        A cost of 0 for tokens means that the service did not know the price: the price list is used instead.
        """
        if info is None:
            return UNKNOWN_USAGE, UNKNOWN_COST
        turn.provider = info.provider_name or turn.provider
        input_tokens, cached = count_of(info.input_tokens), count_of(info.cached_tokens)
        if cached > input_tokens:  # this provider counts them separately
            input_tokens += cached
        usage = Usage(input_tokens, count_of(info.output_tokens), cached_tokens=cached)
        usd = usd_of(info.total_cost_usd)
        if usd or (usd is not None and not usage.total_tokens):
            return usage, CallCost(usd, "reported")
        call = Call(
            model=turn.model,
            at=at,
            input_tokens=input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=cached,
        )
        return usage, self._reading.prices.of(call, at or turn.at)

    def _text_of(self, message: StoredMessage) -> str:
        """Return the text of a message: that of its parts if it has any, because ``content`` is then only a digest."""
        if not message.parts:
            return message.content
        text = self._text_in(message.parts)
        return text or " ".join(f"[{part.type}]" for part in message.parts if part.type in MEDIA)

    def _result(self, message: StoredMessage, at: datetime | None) -> Message:
        """Return the result of a tool: its parts, or else its error, or else the field of old versions."""
        result = message.tool_result or _ToolResult()
        text = self._text_in(result.parts or ()) or result.error or result.content or message.content
        shown = self._reading.shortened(text)
        return Message("tool", shown, timestamp=at, tool_call_id=result.id, name=result.name or None)

    def _text_in(self, parts: Iterable[_Part]) -> str:
        texts: list[str] = []
        for part in parts:
            if part.type == "text":
                texts.append(part.text or "")
            elif part.type in MEDIA:
                self._reading.notes.add_omission("images, audio, video and documents (not copied)")
        return "".join(texts)


def _mapped(stored: Sequence[StoredSummary], turn_of: Sequence[_DraftTurn | None]) -> Iterable[Summary]:
    """Yield the summaries, with their ranges of messages mapped to ranges of turns.

    The end of a range is included if the next one starts right after it, and excluded otherwise.
    """
    is_included = any(after.start == before.end + 1 for before, after in itertools.pairwise(stored))
    for each in stored:
        covered = [turn for turn in turn_of[max(0, each.start) : max(0, each.end + is_included)] if turn is not None]
        if each.content and covered:
            made_at = time_of(each.created_at) or covered[-1].at
            yield Summary(covered[0].id, covered[-1].id, each.content, created_at=made_at)


def object_of(data: bytes | None, place: str, notes: Notes) -> dict[str, Any]:
    """Return a JSON object, an empty one if there is none; if it is damaged, note that."""
    return _decoded(data, _OBJECT, place, notes) or {}


def messages_of(lines: Iterable[bytes], place: str, notes: Notes) -> list[StoredMessage]:
    """Return the messages of a list; damaged ones are noted and left out."""
    return _all_decoded(lines, _MESSAGE, place, notes)


def summaries_of(lines: Iterable[bytes], place: str, notes: Notes) -> list[StoredSummary]:
    """Return the summaries of a list; damaged ones are noted and left out."""
    return _all_decoded(lines, _SUMMARY, place, notes)


def _decoded(data: bytes | None, decoder: msgspec.json.Decoder[T], place: str, notes: Notes) -> T | None:
    if not data:
        return None
    try:
        return decode_record(data, decoder)
    except DamagedRecordError as error:
        notes.add_damaged(place, str(error))
        return None


def _all_decoded(lines: Iterable[bytes], decoder: msgspec.json.Decoder[T], place: str, notes: Notes) -> list[T]:
    found = [_decoded(line, decoder, f"{place}:{number}", notes) for number, line in enumerate(lines, 1)]
    return [each for each in found if each is not None]
