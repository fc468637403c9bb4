"""Claude Code: a session is a file of JSON lines in ``~/.claude/projects``; sub-agents have separate files.

This reader knows the layouts of versions 1.0 to 2.1. All lines of an answer repeat its tokens, which count once. Lines
that a resumed session copied from an earlier session belong to the earlier one.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from promptkit_nb.imports.building import ConversationBuilder, Reading
from promptkit_nb.imports.claude_code_session import LINE, Session, SessionLine, key_of
from promptkit_nb.imports.lines import decode_line, lines_of, open_counted, skipping
from promptkit_nb.imports.notes import Notes
from promptkit_nb.imports.reader import recognized
from promptkit_nb.imports.records import (
    BROKEN,
    DamagedRecordError,
    list_of,
    mapping_of,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from promptkit_nb.imports.lines import Shape
    from promptkit_nb.imports.reader import Reader, Source, Unit
    from promptkit_nb.state import ConversationState, Head

HEAD_BYTES = 256 * 1024
IGNORED = {
    *("system", "progress", "file-history-snapshot", "last-prompt", "permission-mode", "mode", "agent-name"),
    *("agent-color", "agent-setting", "pr-link", "tag", "worktree-state", "bridge-session"),
}
"""Types of records without conversation contents; other unknown types are reported."""
SKIPPED = skipping(*sorted(IGNORED - {"system"}), conditional="system", condition=rb'"isSidechain": ?false')
"""Records that are not decoded; those of the system within a sub-agent can be parents of its records."""

_FIRST_TIME = re.compile(rb'"timestamp": ?"([^"]+)"')
_SESSION_ID = re.compile(rb'"sessionId": ?"([^"\\]+)"')
_AGENT_ID = re.compile(rb'"agentId": ?"([^"\\]+)"')
_SUMMARY = (b'{"type":"summary"', b'{"type": "summary"')
_IS_AGENT = re.compile(rb'"isSidechain": ?true')
_IS_MAIN = re.compile(rb'"isSidechain": ?false')


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
        self._heads: dict[Unit, _FileHead] = {}
        self._usual: list[Shape] = []

    def units(self) -> list[Unit]:
        """Return the session files; workflow files are counted but not read."""
        units = []
        for unit in self._source.files:
            if not unit.location.endswith(".jsonl"):
                continue
            if "/workflows/" in unit.location and "/subagents/" in unit.location:
                self._reading.notes.add_omission("workflow files (not read)")
                continue
            units.append(unit)
        return units

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return sessions by their first time, then sub-agents; lines that they may repeat are looked up first."""
        heads = recognized(changed, _FileHead.of, self._reading.notes)
        found = [(unit, head) for unit, head in heads if head.is_session]
        for _, head in found:
            self._titles.update(head.titles)
        retitled = [
            unit for unit, imported in unchanged.items() if self._titles and self._has_new_title(unit, imported)
        ]
        found += recognized(retitled, _FileHead.of, self._reading.notes)
        for other, imported in unchanged.items() if found else ():
            if other not in retitled and any(_may_repeat(unit, head, other, imported) for unit, head in found):
                for line, _ in self._lines(other, Notes(), _ignore):
                    self._owners[line.uuid] = self._owners[key_of(mapping_of(line.message), line)] = other.name
        self._heads.update(found)
        found.sort(key=lambda each: (each[1].is_agent, each[1].began, each[1].mtime_ns, each[0].name))
        return [unit for unit, _ in found]

    def _has_new_title(self, unit: Unit, imported: Sequence[Head]) -> bool:
        """Return whether a session that was imported without a title has one in a file that is read now."""
        if all(head.metadata.get("title") for head in imported):
            return False
        return any(line.uuid in self._titles for line, _ in self._lines(unit, Notes(), _ignore))

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield a file's sub-agents, then its session."""
        head = self._heads.pop(unit, None) or _FileHead.of(unit)
        sessions: dict[str, Session] = {}
        agent_of: dict[str, str] = {}
        for line, place in self._lines(unit, self._reading.notes, advance):
            try:
                agent = _agent_of(line, head, agent_of)
                session = sessions.get(agent)
                if session is None:
                    session = sessions[agent] = self._started(unit, head, agent)
                self._take(session, unit, line, place)
            except BROKEN as error:
                self._reading.notes.add_damaged(place, f"{type(error).__name__}: {error}")
        if not sessions:
            self._reading.notes.add_omission("sessions without messages")
        main = sessions.pop("", None)
        for session in (*sessions.values(), *([] if main is None else [main])):
            state = session.state(self._titles)
            if state is not None:
                yield state
            else:
                self._reading.notes.add_omission("sessions without messages")

    def _started(self, unit: Unit, head: _FileHead, agent: str) -> Session:
        native_id = f"{head.session_id}:agent:{agent}" if agent else head.session_id
        session = Session(ConversationBuilder(self.source, native_id, self._reading), f"{unit.name} {agent}")
        if agent:
            session.builder.metadata["parent"] = f"{self._reading.id_prefix}{self.source}:{head.session_id}"
            told = _meta_of(unit)
            call_id = text_of(told.get("toolUseId")) or self._calls_of_agents.get(agent, "")
            if call_id:
                session.builder.metadata["parent_tool_call_id"] = call_id
            if text_of(told.get("agentType")):
                session.builder.metadata["agent_type"] = told["agentType"]
        return session

    def _take(self, session: Session, unit: Unit, line: SessionLine, place: str) -> None:
        """Process a line: a message, unless it belongs to an earlier session, or another record."""
        if line.type == "queue-operation":
            session.take_queue(line)
        elif line.type not in ("user", "assistant", "attachment"):
            self._take_other(session, line)
        elif self._owns(unit, line):
            session.take(line, place, self._owners)
            self._note_agent(line)

    def _take_other(self, session: Session, line: SessionLine) -> None:
        """Process a record that is not a message: use a title, count unknown types."""
        if line.type == "ai-title":
            session.builder.title = text_of(line.ai_title) or session.builder.title
        elif line.type == "custom-title":
            session.custom_title = text_of(line.custom_title) or session.custom_title
        elif line.type == "summary" and text_of(line.leaf_uuid):
            self._titles[line.leaf_uuid] = text_of(line.summary)
        elif text_of(line.type) not in IGNORED:
            self._reading.notes.add_unknown_type(f"{self.source}: {line.type}")

    def _owns(self, unit: Unit, line: SessionLine) -> bool:
        """Return whether a record belongs to this file, and not to an earlier session that has it, too."""
        if not text_of(line.uuid):
            return True
        if line.uuid in self._owners:
            self._reading.notes.add_omission("duplicate records")
            return False
        self._owners[line.uuid] = unit.name
        return True

    def _note_agent(self, line: SessionLine) -> None:
        """Remember which tool call started a sub-agent, for files that do not record it."""
        told = bytes(line.tool_use_result)
        if b"agentId" not in told:
            return
        with suppress(msgspec.MsgspecError, RecursionError):
            agent = text_of(mapping_of(msgspec.json.decode(told)).get("agentId"))
            for block in map(mapping_of, list_of(mapping_of(line.message).get("content"))):
                if agent and block.get("type") == "tool_result":
                    self._calls_of_agents[agent] = text_of(block.get("tool_use_id"))

    def _lines(self, unit: Unit, notes: Notes, advance: Callable[[int], object]) -> Iterator[tuple[SessionLine, str]]:
        """Yield the decoded lines of a file with their places, and note the damaged ones."""
        with open_counted(unit.path, advance) as file:
            for number, data in lines_of(file, SKIPPED, self._usual):
                place = f"{unit.name}:{number}"
                try:
                    yield decode_line(data, LINE), place
                except DamagedRecordError as error:
                    notes.add_damaged(place, str(error))


@dataclass(frozen=True, slots=True)
class _FileHead:
    """The session or sub-agent of a file and when it began, from its first bytes."""

    is_session: bool
    is_agent: bool
    began: str
    mtime_ns: int
    session_id: str
    agent_id: str
    titles: Mapping[str, str]

    @classmethod
    def of(cls, unit: Unit) -> _FileHead:
        """Read the first bytes of a file; what decides by its first occurrence comes first."""
        path = unit.path
        with path.open("rb") as file:
            data = file.read(HEAD_BYTES)
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
        ids = _texts_of(_SESSION_ID, data)
        first_id = next(ids, "")
        is_agent = _IS_MAIN.search(data) is None and _IS_AGENT.search(data) is not None
        agent_id = next(_texts_of(_AGENT_ID, data), "") if is_agent else ""
        return cls(
            is_session=b'"type"' in data and bool(first_id or b'"leafUuid"' in data) and b'"payload"' not in data,
            is_agent=bool(agent_id),
            mtime_ns=mtime_ns,
            began=next(_texts_of(_FIRST_TIME, data), ""),
            session_id=path.stem if not first_id or first_id == path.stem or path.stem in ids else first_id,
            agent_id=agent_id,
            titles=dict(_titles_in(data)),
        )


def _texts_of(pattern: re.Pattern[bytes], data: bytes) -> Iterator[str]:
    """Yield the text of the pattern's group at each place where it is found."""
    return (found[1].decode("utf-8", "replace") for found in pattern.finditer(data))


def _titles_in(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the titles of earlier sessions at the beginning of a file, by the last record of each session."""
    for row in io.BytesIO(data):
        if not row.startswith(_SUMMARY):
            return
        with suppress(DamagedRecordError):
            line = decode_line(row, LINE)
            yield text_of(line.leaf_uuid), text_of(line.summary)


def _agent_of(line: SessionLine, head: _FileHead, agent_of: dict[str, str]) -> str:
    """Return the sub-agent of a line; "" if it belongs to the session itself.

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
    """Return the contents of a sub-agent's metadata file, which names the tool call that started it."""
    with suppress(OSError, ValueError, RecursionError):
        return mapping_of(json.loads(unit.path.with_suffix(".meta.json").read_text("utf-8")))
    return {}


def _may_repeat(unit: Unit, head: _FileHead, other: Unit, imported: Sequence[Head]) -> bool:
    """Return whether a session may repeat lines of another one, because it began during that one or before it."""
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
