"""Claude Code: a session is a file of JSON lines in ``~/.claude/projects``; sub-agents have files of their own.

Layouts of versions 1.0 to 2.1. The tokens of one answer are repeated on each of its lines, and count once; lines that
a resumed session repeats from an earlier one belong to the earlier one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from promptkit_nb.imports.building import Call, ConversationBuilder, DraftMessage, DraftTurn, Reading, tool_call
from promptkit_nb.imports.lines import decode_line, lines_of, open_counted, skipping
from promptkit_nb.imports.notes import Notes
from promptkit_nb.imports.reader import recognized
from promptkit_nb.imports.records import (
    BROKEN,
    DamagedRecordError,
    count_of,
    list_of,
    mapping_of,
    text_of,
    time_of,
    usd_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from promptkit_nb.imports.reader import Reader, Source, Unit
    from promptkit_nb.state import ConversationState, Head

HEAD_BYTES = 256 * 1024
SKIPPED = skipping(("progress", "file-history-snapshot"))
IGNORED = {
    *("system", "progress", "file-history-snapshot", "last-prompt", "permission-mode", "mode", "agent-name"),
    *("agent-color", "agent-setting", "pr-link", "tag", "worktree-state", "bridge-session"),
}
"""Types of records that say nothing of a conversation; all others are reported."""

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

_FIRST_TIME = re.compile(rb'"timestamp": ?"([^"]+)"')
_SESSION_ID = re.compile(rb'"sessionId": ?"([^"\\]+)"')
_AGENT_ID = re.compile(rb'"agentId": ?"([^"\\]+)"')
_SUMMARY = (b'{"type":"summary"', b'{"type": "summary"')
_IS_AGENT = re.compile(rb'"isSidechain": ?true')
_IS_MAIN = re.compile(rb'"isSidechain": ?false')


class _Line(msgspec.Struct, gc=False):
    """What a line may have; other fields are not decoded."""

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


_decoder = msgspec.json.Decoder(_Line)


@dataclass(slots=True)
class _Answer:
    """One answer of the API, written as a line for each of its blocks."""

    turn: DraftTurn
    message: DraftMessage
    model: str
    at: datetime | None
    usage: Mapping[str, Any] = field(default_factory=dict)
    rank: tuple[bool, bool, int] | None = None
    cost: Decimal | None = None

    def take_usage(self, line: _Line, message: Mapping[str, Any]) -> None:
        """Keep the best of the usages of its lines: not of a sub-agent, with a reason to stop, the greatest."""
        usage = mapping_of(message.get("usage"))
        if usage:
            total = _input_tokens(usage) + count_of(usage.get("output_tokens"))
            rank = (not line.is_sidechain, message.get("stop_reason") is not None, total)
            if self.rank is None or rank > self.rank:
                self.usage, self.rank = usage, rank
        cost = usd_of(line.cost_usd)
        self.cost = cost if self.cost is None or (cost is not None and cost > self.cost) else self.cost

    def calls(self) -> Iterator[Call]:
        """Yield the call, and those of advisors within it, which come on top."""
        yield _call_of(self.model, self.at, self.usage, self.cost)
        for each in map(mapping_of, list_of(self.usage.get("iterations"))):
            if each.get("type") == "advisor_message":
                yield _call_of(text_of(each.get("model")), self.at, mapping_of(each.get("usage")) or each, None)


def _call_of(model: str, at: datetime | None, usage: Mapping[str, Any], cost: Decimal | None) -> Call:
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
        cost=cost,
        has_usage=bool(usage),
        is_unpriceable=not is_standard,
    )


def _input_tokens(usage: Mapping[str, Any]) -> int:
    """Return all tokens that went in: in this format, cached and written ones are counted apart."""
    return sum(
        count_of(usage.get(name)) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )


class _Session:
    """One conversation: a session, or a sub-agent of it."""

    def __init__(self, builder: ConversationBuilder, owner: str) -> None:
        """Start without messages; ``owner`` tells its records from those of other conversations."""
        self.builder = builder
        self.owner = owner
        self.custom_title = ""
        self._answers: dict[object, _Answer] = {}
        self._last_key: object = None
        self._uuids: list[str] = []
        self._turn_after: dict[str, tuple[int, datetime | None]] = {}
        self._queued: list[str] = []
        self._removed: list[str] = []

    def take(self, line: _Line, place: str, owners: dict[object, str]) -> None:
        """Take a line of the conversation itself."""
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

    def take_queue(self, line: _Line) -> None:
        """Take a message that was typed while the model worked, as versions before 2.1.101 record it."""
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
        """Return the conversation with the calls of all answers; ``titles`` are those of summaries, by their record."""
        for answer in self._answers.values():
            answer.turn.calls.extend(answer.calls())
        self._answers = {}
        summary = next((titles[each] for each in reversed(self._uuids) if each in titles), None)
        self.builder.title = self.custom_title or self.builder.title or summary
        return self.builder.state()

    def _take_user(self, line: _Line, at: datetime | None, place: str) -> None:
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
        """Start a turn; of two typed messages with one parent, the earlier one and what follows it are a branch."""
        if isinstance(parent, str) and parent in self._turn_after:
            index, asked_at = self._turn_after[parent]
            if asked_at != at:  # records with one time are repetitions
                self.builder.branch_from(index)
                self._turn_after = {key: value for key, value in self._turn_after.items() if value[0] < index}
        if isinstance(parent, str):
            self._turn_after.setdefault(parent, (len(self.builder.turns), at))
        self.builder.ask(text, native_id, at)

    def _typed_text(self, content: object) -> str:
        """Return what the user typed; "" if it is only what the program put in."""
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
                self.builder.reading.notes.left_out("images and documents (not copied)")
        return "\n".join(texts or images)

    def _result_text(self, block: Mapping[str, Any]) -> str:
        for each in map(mapping_of, list_of(block.get("content"))):
            if each.get("type") == "image":
                self.builder.reading.notes.left_out("images and documents (not copied)")
        return _text_in(block.get("content"))

    def _take_attachment(self, line: _Line, at: datetime | None) -> None:
        attachment = mapping_of(line.attachment)
        if attachment.get("type") != "queued_command":
            return
        text = self._typed_text(attachment.get("prompt"))
        if text in self._removed:
            self._removed.remove(text)
        elif text:
            self._ask(text, text_of(line.uuid), at, None)

    def _take_answer(self, line: _Line, at: datetime | None, owners: dict[object, str]) -> None:
        message = mapping_of(line.message)
        if message.get("model") == "<synthetic>" or line.is_api_error:
            turn = self.builder.current(text_of(line.uuid), at)
            turn.finish_reason = "error"
            turn.warnings.append(_text_in(message.get("content")))
            return
        key = _key_of(message, line)
        if owners.setdefault(key, self.owner) != self.owner:
            return
        is_new = key not in self._answers or (_is_reusable(key) and key != self._last_key)
        if is_new:
            turn = self.builder.current(text_of(line.uuid), at)
            turn.provider = "anthropic"
            answer = _Answer(turn, turn.answer(at), text_of(message.get("model")), at)
            if key in self._answers:  # a gateway's id, used again
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


def _key_of(message: Mapping[str, Any], line: _Line) -> object:
    """Return what tells an answer from others: ids of Anthropic's API are unique, those of gateways are not."""
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


class ClaudeCodeReader:
    """Reads the session files below a directory, or one of them."""

    source: ClassVar[str] = "claude-code"

    def __init__(self, source: Source, reading: Reading) -> None:
        """Read from these files."""
        self._source = source
        self._reading = reading
        self._owners: dict[object, str] = {}
        self._titles: dict[str, str] = {}
        self._calls_of_agents: dict[str, str] = {}

    def units(self) -> list[Unit]:
        """Return the session files; records of workflows are told, not read."""
        units = []
        for file in self._source.files:
            if not file.location.endswith(".jsonl"):
                continue
            if "/workflows/" in file.location and "/subagents/" in file.location:
                self._reading.notes.left_out("workflow files (not read)")
                continue
            units.append(self._source.unit_of(file))
        return units

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return sessions by their first time, then sub-agents; what they may repeat is looked up first."""
        heads = recognized(changed, _FileHead.of, self._reading.notes)
        found = [(unit, head) for unit, head in heads if head.is_session]
        for _, head in found:
            self._titles.update(head.titles)
        for other, imported in unchanged.items():
            if any(_may_repeat(unit, head, other, imported) for unit, head in found):
                for line, _ in self._lines(other, Notes(), _ignore):
                    self._owners[line.uuid] = self._owners[_key_of(mapping_of(line.message), line)] = other.name
        found.sort(key=lambda each: (each[1].is_agent, each[1].began, each[1].mtime_ns, each[0].name))
        return [unit for unit, _ in found]

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield a file's sub-agents, then its session."""
        head = _FileHead.of(unit)
        sessions: dict[str, _Session] = {}
        agent_of: dict[str, str] = {}
        for line, place in self._lines(unit, self._reading.notes, advance):
            try:
                agent = _agent_of(line, head, agent_of)
                session = sessions.get(agent)
                if session is None:
                    session = sessions[agent] = self._started(unit, head, agent)
                self._take(session, unit, line, place)
            except BROKEN as error:
                self._reading.notes.is_damaged(place, f"{type(error).__name__}: {error}")
        main = sessions.pop("", None)
        for session in (*sessions.values(), *([] if main is None else [main])):
            state = session.state(self._titles)
            if state is not None:
                yield state
            else:
                self._reading.notes.left_out("sessions without messages")

    def _started(self, unit: Unit, head: _FileHead, agent: str) -> _Session:
        native_id = f"{head.session_id}:agent:{agent}" if agent else head.session_id
        session = _Session(ConversationBuilder(self.source, native_id, self._reading), f"{unit.name} {agent}")
        if agent:
            session.builder.metadata["parent"] = f"{self._reading.id_prefix}{self.source}:{head.session_id}"
            told = _meta_of(unit)
            call_id = text_of(told.get("toolUseId")) or self._calls_of_agents.get(agent, "")
            if call_id:
                session.builder.metadata["parent_tool_call_id"] = call_id
            if text_of(told.get("agentType")):
                session.builder.metadata["agent_type"] = told["agentType"]
        return session

    def _take(self, session: _Session, unit: Unit, line: _Line, place: str) -> None:
        """Take a line: a message, unless an earlier session has it, too, or something else."""
        if line.type == "queue-operation":
            session.take_queue(line)
        elif line.type not in ("user", "assistant", "attachment"):
            self._take_other(session, line)
        elif self._owns(unit, line):
            session.take(line, place, self._owners)
            self._note_agent(line)

    def _take_other(self, session: _Session, line: _Line) -> None:
        """Take a record that is not a message: a title, or something that is only counted."""
        if line.type == "ai-title":
            session.builder.title = text_of(line.ai_title) or session.builder.title
        elif line.type == "custom-title":
            session.custom_title = text_of(line.custom_title) or session.custom_title
        elif line.type == "summary" and text_of(line.leaf_uuid):
            self._titles[line.leaf_uuid] = text_of(line.summary)
        elif text_of(line.type) not in IGNORED:
            self._reading.notes.has_unknown_type(f"{self.source}: {line.type}")

    def _owns(self, unit: Unit, line: _Line) -> bool:
        """Return whether a record is of this file; one that an earlier session has, too, belongs to that."""
        if not text_of(line.uuid):
            return True
        if line.uuid in self._owners:
            self._reading.notes.left_out("records that are there twice")
            return False
        self._owners[line.uuid] = unit.name
        return True

    def _note_agent(self, line: _Line) -> None:
        """Remember which tool call started a sub-agent, for files that do not say it."""
        told = bytes(line.tool_use_result)
        if b"agentId" not in told:
            return
        with suppress(msgspec.MsgspecError, RecursionError):
            agent = text_of(mapping_of(msgspec.json.decode(told)).get("agentId"))
            for block in map(mapping_of, list_of(mapping_of(line.message).get("content"))):
                if agent and block.get("type") == "tool_result":
                    self._calls_of_agents[agent] = text_of(block.get("tool_use_id"))

    def _lines(self, unit: Unit, notes: Notes, advance: Callable[[int], object]) -> Iterator[tuple[_Line, str]]:
        """Yield the decoded lines of a file with their places, and note the damaged ones."""
        with open_counted(unit.path, advance) as file:
            for number, data in lines_of(file, SKIPPED):
                place = f"{unit.name}:{number}"
                try:
                    yield decode_line(data, _decoder), place
                except DamagedRecordError as error:
                    notes.is_damaged(place, str(error))


@dataclass(frozen=True, slots=True)
class _FileHead:
    """What the first bytes of a file say, before it is read: whose it is, and when it began."""

    is_session: bool
    is_agent: bool
    began: str
    mtime_ns: int
    session_id: str
    agent_id: str
    titles: Mapping[str, str]

    @classmethod
    def of(cls, unit: Unit) -> _FileHead:
        """Read the first bytes of a file."""
        with unit.path.open("rb") as file:
            data = file.read(HEAD_BYTES)
        ids = [each.decode("utf-8", "replace") for each in _SESSION_ID.findall(data)]
        agents = [each.decode("utf-8", "replace") for each in _AGENT_ID.findall(data)]
        first_time = _FIRST_TIME.search(data)
        stem = unit.path.stem
        is_agent = _IS_AGENT.search(data) is not None and _IS_MAIN.search(data) is None and bool(agents)
        return cls(
            is_session=b'"type"' in data and b'"payload"' not in data and (bool(ids) or b'"leafUuid"' in data),
            is_agent=is_agent,
            mtime_ns=unit.path.stat().st_mtime_ns,
            began=first_time[1].decode("utf-8", "replace") if first_time else "",
            session_id=stem if stem in ids or not ids else ids[0],
            agent_id=agents[0] if is_agent else "",
            titles=dict(_titles_in(data)),
        )


def _titles_in(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the titles at the beginning of a file, which are of earlier sessions, by their last record."""
    for row in data.split(b"\n"):
        if not row.startswith(_SUMMARY):
            return
        with suppress(DamagedRecordError):
            line = decode_line(row, _decoder)
            yield text_of(line.leaf_uuid), text_of(line.summary)


def _agent_of(line: _Line, head: _FileHead, agent_of: dict[str, str]) -> str:
    """Return the sub-agent of a line; "" if it is of the session itself.

    Old versions write sub-agents into the file of the session, where each begins with a message without a parent.
    """
    if head.is_agent:
        return text_of(line.agent_id) or head.agent_id
    if not line.is_sidechain:
        return ""
    parent = text_of(line.parent_uuid)
    agent = text_of(line.agent_id) or agent_of.get(parent) or parent or text_of(line.uuid)
    agent_of[text_of(line.uuid)] = agent
    return agent


def _meta_of(unit: Unit) -> Mapping[str, Any]:
    """Return the file beside that of a sub-agent, which names the tool call that started it."""
    with suppress(OSError, ValueError, RecursionError):
        return mapping_of(json.loads(unit.path.with_suffix(".meta.json").read_text("utf-8")))
    return {}


def _may_repeat(unit: Unit, head: _FileHead, other: Unit, imported: Sequence[Head]) -> bool:
    """Return whether a session may have lines of another one: it began while that was under way, or with it."""
    began = time_of(head.began)
    return (
        began is not None
        and unit.path.parent == other.path.parent
        and any(each.created_at <= began <= each.updated_at or each.created_at >= began for each in imported)
    )


def _ignore(_: int) -> None:
    """Ignore progress."""


def open_reader(source: Source, reading: Reading) -> Reader | None:
    """Return a reader if there are files of JSON lines."""
    found = any(file.location.endswith(".jsonl") for file in source.files)
    return ClaudeCodeReader(source, reading) if found else None
