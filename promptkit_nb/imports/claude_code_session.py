"""Builds a conversation from the lines of a session of Claude Code, or of a sub-agent."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from promptkit_nb.imports.building import Call, ConversationBuilder, DraftMessage, DraftTurn, tool_call
from promptkit_nb.imports.records import (
    count_of,
    list_of,
    mapping_of,
    text_of,
    time_of,
    usd_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from promptkit_nb.state import ConversationState


NOT_TYPED = (
    "<command-name>",
    "<command-message>",
    "<local-command-",
    "<system-reminder>",
    "<task-notification>",
    "<bash-",
)
INTERRUPTION = "[Request interrupted by user"
FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


class SessionLine(msgspec.Struct, gc=False):
    """The fields of a line that are used; others are not decoded."""

    type: Any = None
    subtype: Any = None
    uuid: Any = None
    parent_uuid: Any = msgspec.field(default=None, name="parentUuid")
    session_id: Any = msgspec.field(default=None, name="sessionId")
    agent_id: Any = msgspec.field(default=None, name="agentId")
    request_id: Any = msgspec.field(default=None, name="requestId")
    is_sidechain: Any = msgspec.field(default=None, name="isSidechain")
    is_meta: Any = msgspec.field(default=None, name="isMeta")
    is_compact_summary: Any = msgspec.field(default=None, name="isCompactSummary")
    is_api_error: Any = msgspec.field(default=None, name="isApiErrorMessage")
    timestamp: Any = None
    cwd: Any = None
    git_branch: Any = msgspec.field(default=None, name="gitBranch")
    version: Any = None
    message: Any = None
    attachment: Any = None
    operation: Any = None
    content: Any = None
    summary: Any = None
    leaf_uuid: Any = msgspec.field(default=None, name="leafUuid")
    ai_title: Any = msgspec.field(default=None, name="aiTitle")
    custom_title: Any = msgspec.field(default=None, name="customTitle")
    cost_usd: Any = msgspec.field(default=None, name="costUSD")
    tool_use_result: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="toolUseResult")


LINE = msgspec.json.Decoder(SessionLine)


@dataclass(slots=True)
class _Answer:
    """One answer of the API; each of its blocks is a line."""

    turn: DraftTurn
    message: DraftMessage
    model: str
    at: datetime | None
    found: tuple[Call, ...] = ()
    rank: tuple[bool, bool, int] | None = None
    cost: Decimal | None = None

    def take_usage(self, line: SessionLine, message: Mapping[str, Any]) -> None:
        """Keep the best usage of the lines: one outside sub-agents, then one with a stop reason, then the largest."""
        usage = mapping_of(message.get("usage"))
        if usage:
            call = _call_of(self.model, self.at, usage)
            total = call.input_tokens + call.output_tokens
            rank = (not line.is_sidechain, message.get("stop_reason") is not None, total)
            if self.rank is None or rank > self.rank:
                self.found, self.rank = (call, *self._advisors_in(usage)), rank
        cost = usd_of(line.cost_usd)
        self.cost = cost if self.cost is None or (cost is not None and cost > self.cost) else self.cost

    def calls(self) -> tuple[Call, ...]:
        """Return the call, and additional calls by advisors within it."""
        call, *advisors = self.found or (_call_of(self.model, self.at, {}),)
        return (call if self.cost is None else replace(call, cost=self.cost), *advisors)

    def _advisors_in(self, usage: Mapping[str, Any]) -> Iterator[Call]:
        for each in map(mapping_of, list_of(usage.get("iterations"))):
            if each.get("type") == "advisor_message":
                yield _call_of(text_of(each.get("model")), self.at, mapping_of(each.get("usage")) or each)


def _call_of(model: str, at: datetime | None, usage: Mapping[str, Any]) -> Call:
    details = mapping_of(usage.get("output_tokens_details"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    kept = count_of(mapping_of(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    is_standard = usage.get("service_tier") in (None, "standard") and usage.get("speed") in (None, "standard")
    return Call(
        model=model,
        at=at,
        input_tokens=_input_tokens(usage),
        output_tokens=count_of(usage.get("output_tokens")),
        cached_tokens=count_of(usage.get("cache_read_input_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(kept, written),
        reasoning_tokens=min(count_of(details.get("thinking_tokens")), count_of(usage.get("output_tokens"))),
        has_usage=bool(usage),
        is_unpriceable=not is_standard,
    )


def _input_tokens(usage: Mapping[str, Any]) -> int:
    """Return all input tokens: this format counts cached and written ones separately."""
    plain, written = usage.get("input_tokens"), usage.get("cache_creation_input_tokens")
    return count_of(plain) + count_of(written) + count_of(usage.get("cache_read_input_tokens"))


class Session:
    """One conversation: a session, or a sub-agent of it."""

    def __init__(self, builder: ConversationBuilder, owner: str) -> None:
        """Start without messages; ``owner`` distinguishes its records from those of other conversations."""
        self.builder = builder
        self.owner = owner
        self.custom_title = ""
        self._answers: dict[object, _Answer] = {}
        self._last_key: object = None
        self._uuids: list[str] = []
        self._turn_after: dict[str, tuple[int, datetime | None]] = {}
        self._queued: list[str] = []
        self._removed: list[str] = []

    def take(self, line: SessionLine, place: str, owners: dict[object, str]) -> None:
        """Process a line of the conversation itself."""
        builder, at = self.builder, time_of(line.timestamp)
        builder.saw(at)
        self._uuids.append(text_of(line.uuid))
        for name, value in (("cwd", line.cwd), ("version", line.version), ("git_branch", line.git_branch)):
            if text_of(value):
                builder.metadata.setdefault(name, value)
        if line.type == "user":
            self._take_user(line, at, place)
        elif line.type == "assistant":
            self._take_answer(line, at, owners)
        elif line.type == "attachment":
            self._take_attachment(line, at)

    def take_queue(self, line: SessionLine) -> None:
        """Process a message that was typed while the model worked, as recorded by versions before 2.1.101."""
        text = text_of(line.content)
        if line.operation == "enqueue" and text:
            self._queued.append(text)
        elif line.operation in ("remove", "dequeue") and self._queued:
            removed = text or self._queued[0]
            self._queued = [each for each in self._queued if each != removed]
            if line.operation == "remove":
                self._removed.append(removed)
                self._ask(removed, f"queue:{text_of(line.timestamp)}", time_of(line.timestamp), None)

    def state(self, titles: Mapping[str, str]) -> ConversationState | None:
        """Return the conversation with the calls of all answers; ``titles`` maps records to the titles in summaries."""
        for key in [*self._answers]:
            answer = self._answers.pop(key)
            answer.turn.calls.extend(answer.calls())
        summary = next((titles[each] for each in reversed(self._uuids) if each in titles), None)
        self._uuids.clear()
        self._turn_after.clear()
        self.builder.title = self.custom_title or self.builder.title or summary
        return self.builder.state()

    def _take_user(self, line: SessionLine, at: datetime | None, place: str) -> None:
        message = mapping_of(line.message)
        if line.is_compact_summary:
            self.builder.summarize(_text_in(message.get("content")), at)
            return
        if isinstance(message.get("content"), list):
            for block in map(mapping_of, message["content"]):
                if block.get("type") == "tool_result":
                    turn = self.builder.current(text_of(line.uuid), at)
                    self.builder.add_result(turn, text_of(block.get("tool_use_id")), self._result_text(block), at)
        text = self._typed_text(message.get("content"))
        if text.lstrip().startswith(INTERRUPTION):
            if self.builder.turns:
                self.builder.turns[-1].finish_reason = "interrupted"
        elif text and not line.is_meta:
            self._ask(text, text_of(line.uuid) or place, at, line.parent_uuid)

    def _ask(self, text: str, native_id: str, at: datetime | None, parent: object) -> None:
        """Start a turn; if two typed messages have the same parent, the earlier one starts a branch."""
        if isinstance(parent, str) and parent in self._turn_after:
            index, asked_at = self._turn_after[parent]
            if asked_at != at:  # records with the same time are repetitions
                self.builder.branch_from(index)
                self._turn_after = {key: value for key, value in self._turn_after.items() if value[0] < index}
        if isinstance(parent, str):
            self._turn_after.setdefault(parent, (len(self.builder.turns), at))
        self.builder.ask(text, native_id, at)

    def _typed_text(self, content: object) -> str:
        """Return what the user typed; "" if the program inserted all of it."""
        if isinstance(content, str):
            return "" if content.lstrip().startswith(NOT_TYPED) else content
        texts: list[str] = []
        images: list[str] = []
        for block in map(mapping_of, list_of(content)):
            text = text_of(block.get("text")) if block.get("type") == "text" else ""
            if text and not text.lstrip().startswith(NOT_TYPED):
                texts.append(text)
            elif block.get("type") in ("image", "document"):
                kind = mapping_of(block.get("source")).get("media_type")
                images.append(f"[{block['type']}: {text_of(kind) or 'unknown type'}]")
                self.builder.reading.notes.add_omission("images and documents (not copied)")
        return "\n".join(texts or images)

    def _result_text(self, block: Mapping[str, Any]) -> str:
        for each in map(mapping_of, list_of(block.get("content"))):
            if each.get("type") == "image":
                self.builder.reading.notes.add_omission("images and documents (not copied)")
        return _text_in(block.get("content"))

    def _take_attachment(self, line: SessionLine, at: datetime | None) -> None:
        attachment = mapping_of(line.attachment)
        if attachment.get("type") != "queued_command":
            return
        text = self._typed_text(attachment.get("prompt"))
        if text in self._removed:
            self._removed.remove(text)
        elif text:
            self._ask(text, text_of(line.uuid), at, None)

    def _take_answer(self, line: SessionLine, at: datetime | None, owners: dict[object, str]) -> None:
        message = mapping_of(line.message)
        if message.get("model") == "<synthetic>" or line.is_api_error:
            turn = self.builder.current(text_of(line.uuid), at)
            turn.finish_reason = "error"
            turn.warnings.append(_text_in(message.get("content")))
            return
        key = key_of(message, line)
        if owners.setdefault(key, self.owner) != self.owner:
            return
        is_new = key not in self._answers or (_is_reusable(key) and key != self._last_key)
        if is_new:
            turn = self.builder.current(text_of(line.uuid), at)
            turn.provider = "anthropic"
            answer = _Answer(turn, turn.answer(at), sys.intern(text_of(message.get("model"))), at)
            if key in self._answers:  # a gateway reused the id
                key = (key, len(self._answers))
            self._answers[key] = answer
        self._last_key = key
        answer = self._answers[key]
        answer.take_usage(line, message)
        self._take_blocks(answer, message.get("content"))
        reason = text_of(message.get("stop_reason"))
        if reason:
            answer.turn.finish_reason = FINISH_REASONS.get(reason, reason)

    def _take_blocks(self, answer: _Answer, content: object) -> None:
        if isinstance(content, str):
            answer.message.texts.append(content)
        for block in map(mapping_of, list_of(content)):
            kind = block.get("type")
            if kind == "text" and text_of(block.get("text")):
                answer.message.texts.append(block["text"])
            elif kind == "thinking" and text_of(block.get("thinking")):
                answer.message.reasoning.append(block["thinking"])
            elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
                call = tool_call(text_of(block.get("id")), text_of(block.get("name")), block.get("input") or {})
                if call.id not in [each.id for each in answer.message.tool_calls]:
                    answer.message.tool_calls.append(call)


def key_of(message: Mapping[str, Any], line: SessionLine) -> object:
    """Return a key that identifies an answer: ids of Anthropic's API are unique, those of gateways are not."""
    message_id, request_id = text_of(message.get("id")), text_of(line.request_id)
    if message_id.startswith("msg_"):
        return message_id
    if message_id and request_id:
        return message_id, request_id
    return (message_id, None, text_of(line.session_id)) if message_id else (text_of(line.uuid), None, None)


def _is_reusable(key: object) -> bool:
    return isinstance(key, tuple) and key[1] is None


def _text_in(content: object) -> str:
    """Return the text of a message or result: a string, or blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(text_of(block.get("text")) for block in map(mapping_of, list_of(content)) if "text" in block)
