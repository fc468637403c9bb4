"""llm: reads ``logs.db``, the SQLite database of versions 0.5 to 0.36.

Up to 0.31, one call of the API is a row of ``responses``; from 0.32 on, it is a row of ``turns``, with messages that
are linked by hashes. An upgraded file has both, even within one conversation. The file is copied before it is opened,
because SQLite may create files next to a database even if it only reads it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from promptkit_nb.imports.building import Call, ConversationBuilder, DraftTurn, Reading, tool_call
from promptkit_nb.imports.reader import recognized
from promptkit_nb.imports.records import (
    BROKEN,
    DamagedRecordError,
    count_of,
    decode_record,
    is_number,
    mapping_of,
    text_of,
    time_of,
)
from promptkit_nb.imports.sources import SQLITE, head_bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from promptkit_nb.imports.reader import Reader, Source, Unit
    from promptkit_nb.state import ConversationState, Head

RESPONSES = {"responses", "conversations"}
THREADS = {"threads", "turns", "messages", "parts"}
BEFORE_0_5 = {"log", "logs"}
BESIDE = ("-wal", "-journal")
"""Suffixes of files next to a database with its newest rows, or the rest of an interrupted write."""

COPY_BYTES = 2**20
_INDEXES = {
    "responses": "conversation_id",
    "turns": "thread_id",
    "parts": "message_hash",
    "tool_calls": "response_id",
    "tool_results": "response_id",
}

_decoder = msgspec.json.Decoder(Any)

Row = dict[str, Any]


class _Database:
    """A copy of a database, and the tables and columns in it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """List the tables, and index the columns used for lookups."""
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
        self._connection = connection
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self.tables = {str(row[0]) for row in names}
        for table, column in _INDEXES.items():
            if table in self.tables:
                connection.execute(f'CREATE INDEX "import_{table}" ON "{table}" ("{column}")')

    def rows(self, table: str, where: str = "", *values: object, order: str = "rowid") -> Iterator[Row]:
        """Yield rows as mappings; none if the table does not exist."""
        if table in self.tables:
            condition = f"WHERE {where}" if where else ""
            query = f'SELECT * FROM "{table}" {condition} ORDER BY {order}'  # noqa: S608 - our own names only
            for row in self._connection.execute(query, values):
                yield {key: row[key] for key in row.keys()}  # noqa: SIM118 - sqlite3.Row iterates over values

    def first(self, table: str, where: str, *values: object) -> Row:
        """Return the first row, an empty one if there is none."""
        return next(self.rows(table, where, *values), {})

    def texts(self, table: str, of: str, row_id: object) -> list[str]:
        """Return the fragments that belong to a row, in their order."""
        found = self.rows(table, f"{of} = ?", row_id, order='"order"')
        return [text_of(self.first("fragments", "id = ?", row["fragment_id"]).get("content")) for row in found]

    def conversation_ids(self) -> Iterator[str]:
        """Yield the ids of conversations; the most recently active one comes last."""
        queries = {
            "responses": "SELECT coalesce(conversation_id, id) AS id, max(id) AS last FROM responses GROUP BY 1",
            "turns": "SELECT coalesce(thread_id, id) AS id, max(id) AS last FROM turns GROUP BY 1",
        }
        union = " UNION ALL ".join(query for table, query in queries.items() if table in self.tables)
        query = f"SELECT id FROM ({union}) GROUP BY id ORDER BY max(last)"  # noqa: S608 - as above
        for row in self._connection.execute(query):
            yield str(row[0])


class _Conversation:
    """One conversation, built row by row."""

    def __init__(self, database: _Database, builder: ConversationBuilder) -> None:
        """Read its title."""
        self._database = database
        self._notes = builder.reading.notes
        self.builder = builder
        named = database.first("conversations", "id = ?", builder.native_id)
        thread = database.first("threads", "id = ?", builder.native_id)
        builder.title = text_of(named.get("name")) or text_of(thread.get("name")) or None
        if text_of(thread.get("forked_from")):
            builder.metadata["forked_from"] = thread["forked_from"]

    def state(self) -> ConversationState | None:
        """Return the conversation: its rows of both layouts, in the order of their ids."""
        native_id = self.builder.native_id
        old = self._database.rows("responses", "coalesce(conversation_id, id) = ?", native_id)
        new = self._database.rows("turns", "coalesce(thread_id, id) = ?", native_id)
        rows = [*((str(row["id"]), False, row) for row in old), *((str(row["id"]), True, row) for row in new)]
        for _, is_new, row in sorted(rows, key=lambda each: each[:2]):
            turn = self._take_turn(row) if is_new else self._take_response(row)
            turn.calls.append(_call_of(row))
            turn.add_latency(row.get("duration_ms"))
            for column, what in (("schema_id", "schemas"), ("options_json", "options of calls")):
                if text_of(row.get(column)) not in ("", "{}"):
                    self._notes.add_omission(what)
        return self.builder.state()

    def _take_response(self, row: Row) -> DraftTurn:
        """Process a row of ``responses``; a row after a tool call has no prompt, and belongs to the same turn."""
        database, row_id, at = self._database, row["id"], time_of(row.get("datetime_utc"))
        prompt = text_of(row.get("prompt"))
        texts = [*database.texts("prompt_fragments", "response_id", row_id), *([prompt] if prompt else [])]
        attachments = [
            database.first("attachments", "id = ?", each["attachment_id"])
            for each in database.rows("prompt_attachments", "response_id = ?", row_id, order='"order"')
        ]
        self._take_system([*database.texts("system_fragments", "response_id", row_id), text_of(row.get("system"))])
        if texts or attachments:
            self._ask("\n".join(texts), attachments, row)
        turn = self.builder.current(str(row_id), at)
        for result in database.rows("tool_results", "response_id = ?", row_id, order="id"):
            self._add_result(turn, result, row)
        answer = turn.answer(at)
        answer.texts.append(text_of(row.get("response")))
        answer.reasoning += filter(None, [text_of(row.get("reasoning"))])
        answer.tool_calls += [
            tool_call(text_of(call.get("tool_call_id")), text_of(call.get("name")), text_of(call.get("arguments")))
            for call in database.rows("tool_calls", "response_id = ?", row_id, order="id")
        ]
        return turn

    def _take_turn(self, row: Row) -> DraftTurn:
        """Process a row of ``turns``: the messages after its parent, and user and tool messages just before them."""
        at = time_of(row.get("datetime_utc"))
        parent, tip = row.get("parent_message_hash"), row.get("tip_message_hash")
        answers = list(self._chain(tip, until=parent))[::-1]
        asked = []
        for message in self._chain(parent):
            if message.get("role") not in ("user", "tool"):
                break
            asked.append(message)
        if not self.builder.turns:
            for message in self._chain(parent):
                if message.get("role") == "system":
                    self._take_system([self._text_of_part(part) for part in self._parts(message)])
        for message in asked[::-1]:
            self._take_asked(message, row)
        turn = self.builder.current(str(row["id"]), at)
        for message in answers:
            self._take_answer(turn, message, row)
        return turn

    def _take_asked(self, message: Row, row: Row) -> None:
        parts = [*self._parts(message)]
        for part in parts:
            if part["type"] == "tool_result":
                turn = self.builder.current(str(row["id"]), time_of(row.get("datetime_utc")))
                self._add_result(turn, mapping_of(part["payload"]), row)
        if message.get("role") == "user":
            text = "\n".join(self._text_of_part(part) for part in parts if part["type"] == "text")
            attachments = [
                self._database.first("attachments", "id = ?", link["attachment_id"])
                for part in parts
                for link in self._database.rows("part_attachments", "part_id = ?", part["id"], order='"order"')
            ]
            if text or attachments:
                self._ask(text, attachments, row)

    def _take_answer(self, turn: DraftTurn, message: Row, row: Row) -> None:
        at = time_of(row.get("datetime_utc"))
        answer = turn.answer(at) if message.get("role") == "assistant" else None
        for part in self._parts(message):
            kind, payload = part["type"], mapping_of(part["payload"])
            if kind == "tool_result":
                self._add_result(turn, payload, row)
            elif answer is None:
                continue
            elif kind == "text":
                answer.texts.append(self._text_of_part(part))
            elif kind == "reasoning" and text_of(part.get("text")):
                answer.reasoning.append(part["text"])
            elif kind == "tool_call":
                call_id, name = text_of(payload.get("tool_call_id")), text_of(payload.get("name"))
                answer.tool_calls.append(tool_call(call_id, name, payload.get("arguments") or {}))
            elif kind != "reasoning":
                self._notes.add_omission(
                    "attachments (not copied)" if kind == "attachment" else f"parts of type {kind}"
                )

    def _take_system(self, texts: Sequence[str]) -> None:
        """Process the system prompt, which is only recorded with the first call."""
        text = "\n\n".join(each.strip() for each in texts if each.strip())
        if text and self.builder.system_prompt is None:
            self.builder.system_prompt = text
        elif text and text != self.builder.system_prompt:
            self._notes.add_omission("further system prompts of a conversation")

    def _ask(self, text: str, attachments: Sequence[Row], row: Row) -> None:
        names = [_name_of(each) for each in attachments]
        shown = text or " ".join(f"[{name}]" for name in names)
        turn = self.builder.ask(shown, str(row["id"]), time_of(row.get("datetime_utc")))
        if names:
            self._notes.add_omission("attachments (not copied)", len(names))
            turn.warnings.append(f"not copied: {', '.join(names)}")

    def _add_result(self, turn: DraftTurn, result: Mapping[str, Any], row: Row) -> None:
        output = result.get("output")
        text = text_of(output) or text_of(result.get("exception"))
        text = text if isinstance(output, str) or output is None else msgspec.json.encode(output).decode()
        at, name = time_of(row.get("datetime_utc")), text_of(result.get("name")) or None
        self.builder.add_result(turn, text_of(result.get("tool_call_id")), text, at, name)

    def _chain(self, tip: object, until: object = None) -> Iterator[Row]:
        """Yield the messages from ``tip`` back to ``until`` (excluded), or to the first one."""
        seen: set[object] = set()
        while tip is not None and tip != until and tip not in seen:
            seen.add(tip)
            message = self._database.first("messages", "hash = ?", tip)
            if not message:
                return
            yield message
            tip = message.get("parent_hash")

    def _parts(self, message: Row) -> Iterator[Row]:
        for part in self._database.rows("parts", "message_hash = ?", message["hash"], order="position"):
            payload = text_of(part.get("payload"))
            yield part | {"payload": decode_record(payload, _decoder) if payload else {}}

    def _text_of_part(self, part: Row) -> str:
        """Return the text of a part, which may consist of fragments and literal texts."""
        references = mapping_of(part["payload"]).get("text_ref")
        if text_of(part.get("text")) or references is None:
            return text_of(part.get("text"))
        texts = []
        for each in map(mapping_of, references if isinstance(references, list) else [references]):
            fragment = self._database.first("fragments", "id = ?", each.get("fragment")) if "fragment" in each else {}
            texts.append(text_of(each.get("literal")) or text_of(fragment.get("content")))
        return "".join(texts)


def _call_of(row: Row) -> Call:
    """Return the call of a row; providers other than OpenAI count cached input separately."""
    details = text_of(row.get("token_details"))
    told = mapping_of(decode_record(details, _decoder)) if details else {}
    input_tokens, output_tokens = count_of(row.get("input_tokens")), count_of(row.get("output_tokens"))
    asked = mapping_of(told.get("prompt_tokens_details")) or mapping_of(told.get("input_tokens_details"))
    answered = mapping_of(told.get("completion_tokens_details")) or mapping_of(told.get("output_tokens_details"))
    cached, written = count_of(asked.get("cached_tokens")), count_of(asked.get("cache_write_tokens"))
    if "cache_read_input_tokens" in told or "cache_creation_input_tokens" in told:
        cached = count_of(told.get("cache_read_input_tokens"))
        written = count_of(told.get("cache_creation_input_tokens"))
        input_tokens += cached + written
    return Call(
        model=text_of(row.get("resolved_model")) or text_of(row.get("model")),
        at=time_of(row.get("datetime_utc")),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=min(count_of(answered.get("reasoning_tokens")), output_tokens),
        has_usage=is_number(row.get("input_tokens")) or is_number(row.get("output_tokens")),
    )


def _name_of(attachment: Row) -> str:
    where = text_of(attachment.get("path")) or text_of(attachment.get("url"))
    return " ".join(filter(None, (text_of(attachment.get("type")), PurePosixPath(where).name))) or "attachment"


class LlmReader:
    """Reads the databases below a directory, or one of them."""

    source: ClassVar[str] = "llm"

    def __init__(self, source: Source, reading: Reading) -> None:
        """Read from these files."""
        self._source = source
        self._reading = reading

    def units(self) -> list[Unit]:
        """Return the databases."""
        is_file = len(self._source.files) == 1 and self._source.files[0].location == str(self._source.root)
        return [unit for unit in self._source.files if is_file or unit.location.endswith(".db")]

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return the databases that have tables of llm."""
        del unchanged
        return [unit for unit, is_own in recognized(changed, _is_logs, self._reading.notes) if is_own]

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversations of a database."""
        try:
            with _copied(unit.path, advance) as connection:
                database = _Database(connection)
                if not (database.tables & {"responses", "turns"}):
                    raise DamagedRecordError("written by llm before 0.5; open it with a newer llm to convert it")
                for conversation_id in database.conversation_ids():
                    state = self._state(database, conversation_id, unit)
                    if state is not None:
                        yield state
        except sqlite3.Error as error:
            raise DamagedRecordError(f"not a whole SQLite database: {error}") from error

    def _state(self, database: _Database, conversation_id: str, unit: Unit) -> ConversationState | None:
        """Return a conversation; if one of its rows is damaged, note that and return ``None``."""
        builder = ConversationBuilder(self.source, conversation_id, self._reading)
        try:
            return _Conversation(database, builder).state()
        except (*BROKEN, sqlite3.DatabaseError) as error:
            self._reading.notes.add_damaged(f"{unit.name}:{conversation_id}", f"{type(error).__name__}: {error}")
            return None


@contextmanager
def _copied(path: Path, advance: Callable[[int], object]) -> Iterator[sqlite3.Connection]:
    """Open a copy of a database, including its journal files."""
    with TemporaryDirectory(prefix="promptkit-import-") as directory:
        copy = Path(directory) / "logs.db"
        for suffix in ("", *BESIDE):
            original = path.with_name(path.name + suffix)
            if original.exists():
                with original.open("rb") as source, copy.with_name(copy.name + suffix).open("wb") as target:
                    shutil.copyfileobj(source, target, COPY_BYTES)
        advance(path.stat().st_size)
        with closing(sqlite3.connect(copy)) as connection:
            yield connection


def _is_logs(unit: Unit) -> bool:
    """Return whether a file is a database of llm; ``immutable`` keeps SQLite from creating files next to it."""
    path = unit.path
    if not head_bytes_of(path).startswith(SQLITE):
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1&mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:
        return path.with_name(f"{path.name}-wal").exists()
    tables = {str(row[0]) for row in rows}
    return tables >= RESPONSES or tables >= THREADS or bool(tables & BEFORE_0_5)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def open_reader(source: Source, reading: Reading) -> Reader | None:
    """Return a reader if there are files."""
    return LlmReader(source, reading) if source.files else None
