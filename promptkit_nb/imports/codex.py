"""Codex CLI: a session is a file of JSON lines, ``rollout-*.jsonl`` or ``.jsonl.zst``, in ``~/.codex/sessions``.

Each visible text is recorded twice, as an item of the API and as an event; this reader uses the items. Tokens come from
``token_usage_record``, or in older files from ``token_count`` events, which repeat. Files of forks and sub-agents begin
with a copy of their parent's records, which belong to the parent.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from promptkit_nb.imports.building import Call, ConversationBuilder, DraftMessage, Reading, tool_call
from promptkit_nb.imports.lines import decode_line, lines_of, open_counted
from promptkit_nb.imports.notes import Notes
from promptkit_nb.imports.reader import recognized
from promptkit_nb.imports.records import BROKEN, DamagedRecordError, count_of, list_of, mapping_of, text_of, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.imports.reader import Reader, Source, Unit
    from promptkit_nb.state import ConversationState, Head

HEAD_BYTES = 64 * 1024
SUFFIXES = (".jsonl", ".jsonl.zst")
COPYING_TIME = timedelta(seconds=1)
"""The longest time that copying the parent's records takes; used if the parent's file is missing."""

NOT_TYPED = (
    "<environment_context>",
    "<user_instructions>",
    "# AGENTS.md",
    "<turn_aborted>",
    "<INSTRUCTIONS>",
    "<skill>",
    "<subagent_notification>",
)
IGNORED_ITEMS = frozenset({"ghost_snapshot", "compaction", "compaction_summary", "web_search_call", "other"})
OUTPUTS = frozenset(
    {"function_call_output", "custom_tool_call_output", "local_shell_call_output", "mcp_tool_call_output"}
)

_IS_ROLLOUT = re.compile(rb'"type": ?"session_meta"')
_IS_OLD = re.compile(rb'\s*\{"id": ?"[^"]+", ?"timestamp": ?"[^"]+", ?"instructions"')


class _Line(msgspec.Struct, gc=False):
    """A line: an envelope with a payload, or in old files the payload alone."""

    timestamp: Any = None
    type: Any = None
    payload: msgspec.Raw = msgspec.Raw()


class _Compacted(msgspec.Struct, gc=False):
    """A compaction, without the repeated history."""

    message: Any = None
    compaction_response_id: Any = None


_decode_line = msgspec.json.Decoder(_Line)
_decode_any = msgspec.json.Decoder(dict[str, Any])
_decode_compacted = msgspec.json.Decoder(_Compacted)


class _Rollout:
    """One session, built from its records."""

    def __init__(self, builder: ConversationBuilder) -> None:
        """Start before its first record."""
        self.builder = builder
        self._model = ""
        self._provider = ""
        self._is_priority = False
        self._answer: DraftMessage | None = None
        self._has_records = False
        self._responses: set[str] = set()
        self._total: object = None
        self._turn_ids: set[str] = set()
        self._waiting: list[Call] = []

    def begin(self, meta: Mapping[str, Any]) -> None:
        """Process the first ``session_meta``, which describes this session; a second one describes its parent."""
        builder = self.builder
        builder.created_at = time_of(meta.get("timestamp"))
        builder.saw(builder.created_at)
        self._provider = text_of(meta.get("model_provider"))
        builder.system_prompt = text_of(mapping_of(meta.get("base_instructions")).get("text")) or None
        told = {"cwd": meta.get("cwd"), "version": meta.get("cli_version"), "forked_from": meta.get("forked_from_id")}
        builder.metadata.update({name: value for name, value in told.items() if text_of(value)})
        parent = parent_of(meta)
        if parent:
            builder.metadata["parent"] = f"{builder.reading.id_prefix}{builder.source}:{parent}"

    def take(self, line: _Line, place: str) -> None:
        """Process a record."""
        at, kind = time_of(line.timestamp), line.type
        if kind == "compacted":
            self._take_compaction(decode_line(bytes(line.payload), _decode_compacted), at)
            return
        payload = decode_line(bytes(line.payload), _decode_any)
        if kind == "response_item":
            self.take_item(payload, at, place)
        elif kind == "event_msg":
            self._take_event(payload, at)
        elif kind == "turn_context":
            self._model = text_of(payload.get("model")) or self._model
        elif kind == "token_usage_record":
            self._take_record(payload, at)
        elif kind not in ("session_meta", "world_state"):
            self.builder.reading.notes.add_unknown_type(f"{self.builder.source}: {kind}")

    def pass_over(self, line: _Line) -> None:
        """Process a copied record of the parent: only the model and the token total still apply."""
        if line.type not in ("event_msg", "turn_context"):
            return
        payload = decode_line(bytes(line.payload), _decode_any)
        if line.type == "turn_context":
            self._model = text_of(payload.get("model")) or self._model
        elif payload.get("type") == "token_count":
            self._total = mapping_of(payload.get("info")).get("total_token_usage") or self._total

    def state(self) -> ConversationState | None:
        """Return the conversation; calls after the last user message, such as compactions, belong to the last turn."""
        if self.builder.turns:
            self.builder.turns[-1].calls += self._waiting
        for turn in self.builder.turns:
            turn.provider = self._provider
        return self.builder.state()

    def take_item(self, item: Mapping[str, Any], at: datetime | None, place: str) -> None:
        """Process an item of the API: a message, reasoning, a tool call, or a result."""
        kind = text_of(item.get("type"))
        native_id = text_of(item.get("id")) or f"{self.builder.native_id}:{place.rpartition(':')[2]}"
        if kind == "message":
            self._take_message(item, native_id, at)
        elif kind == "reasoning":
            texts = [text_of(mapping_of(each).get("text")) for each in list_of(item.get("summary"))]
            texts = texts or [text_of(mapping_of(each).get("text")) for each in list_of(item.get("content"))]
            if any(texts):
                self._open_answer(native_id, at).reasoning += filter(None, texts)
        elif kind in OUTPUTS:
            turn = self.builder.current(native_id, at)
            self._answer = None
            self.builder.add_result(turn, text_of(item.get("call_id")), self._output_text(item.get("output")), at)
        elif call := _call_in(item):
            self._open_answer(native_id, at).tool_calls.append(call)
        elif kind == "image_generation_call":
            self.builder.reading.notes.add_omission("images and documents (not copied)")
        elif kind not in IGNORED_ITEMS:
            self.builder.reading.notes.add_unknown_type(f"{self.builder.source}: response_item {kind}")

    def _take_message(self, item: Mapping[str, Any], native_id: str, at: datetime | None) -> None:
        role, passed = item.get("role"), mapping_of(item.get("internal_chat_message_metadata_passthrough"))
        if role == "assistant":
            text = "\n".join(text_of(mapping_of(part).get("text")) for part in list_of(item.get("content")))
            self._open_answer(native_id, at).texts.append(text)
        elif role == "user":
            text = self._typed_text(item.get("content"), list_of(passed.get("content_item_kinds")))
            if text:
                self._answer = None
                turn = self.builder.ask(text, native_id, at)
                turn.calls, self._waiting = self._waiting, []
                self._turn_ids.add(text_of(passed.get("turn_id")))

    def _typed_text(self, content: object, kinds: Sequence[object]) -> str:
        """Return what the user typed, "" if it is only context; newer versions record the kind of each part."""
        texts: list[str] = []
        images: list[str] = []
        for index, part in enumerate(map(mapping_of, list_of(content))):
            text, kind = text_of(part.get("text")), kinds[index] if index < len(kinds) else None
            if part.get("type") == "input_image":
                images.append("[image]")
                self.builder.reading.notes.add_omission("images and documents (not copied)")
            elif text and (kind == "user.text" if isinstance(kind, str) else not text.lstrip().startswith(NOT_TYPED)):
                texts.append(text)
        return "\n".join(texts or images)

    def _output_text(self, output: object) -> str:
        """Return the text of a result: a string, an object with content, or parts."""
        if isinstance(output, str):
            return output
        if isinstance(output, dict):
            return self._output_text(output.get("content") or output.get("output") or "")
        parts = [mapping_of(part) for part in list_of(output)]
        images = sum(part.get("type") in ("input_image", "image") for part in parts)
        if images:
            self.builder.reading.notes.add_omission("images and documents (not copied)", images)
        return "\n".join(text_of(part.get("text")) for part in parts if "text" in part)

    def _open_answer(self, native_id: str, at: datetime | None) -> DraftMessage:
        """Return the current answer: reasoning, text, and tool calls up to the next result are one message."""
        turn = self.builder.current(native_id, at)
        if self._answer is None:
            self._answer = turn.answer(at)
        return self._answer

    def _take_event(self, event: Mapping[str, Any], at: datetime | None) -> None:
        kind = event.get("type")
        if kind == "token_count" and not self._has_records:
            info = mapping_of(event.get("info"))
            last, total = mapping_of(info.get("last_token_usage")), info.get("total_token_usage")
            if last and total != self._total and any(map(count_of, last.values())):
                self._add_call(self._call(last, at), is_of_this_turn=bool(self.builder.turns))
            self._total = total or self._total
        elif kind == "thread_settings_applied":
            settings = mapping_of(event.get("thread_settings"))
            self._model = text_of(settings.get("model")) or self._model
            self._is_priority = text_of(settings.get("service_tier")) not in ("", "default", "auto", "standard")
        elif kind == "turn_aborted" and self.builder.turns:
            self.builder.turns[-1].finish_reason = "interrupted"
            self._answer = None
        elif kind == "error" and self.builder.turns:
            self.builder.turns[-1].warnings.append(text_of(event.get("message")))

    def _take_record(self, record: Mapping[str, Any], at: datetime | None) -> None:
        """Process the usage of one response; the usage of a compaction may precede the message of its turn."""
        self._has_records = True
        response_id, turn_id = text_of(record.get("response_id")), text_of(record.get("turn_id"))
        if response_id not in self._responses:
            self._responses.add(response_id)
            call = self._call(mapping_of(record.get("usage")), at)
            self._add_call(call, is_of_this_turn=turn_id in self._turn_ids)

    def _add_call(self, call: Call, *, is_of_this_turn: bool) -> None:
        if is_of_this_turn:
            self.builder.turns[-1].calls.append(call)
        else:
            self._waiting.append(call)

    def _take_compaction(self, compacted: _Compacted, at: datetime | None) -> None:
        self._answer = None
        self.builder.summarize(text_of(compacted.message), at)

    def _call(self, usage: Mapping[str, Any], at: datetime | None) -> Call:
        input_tokens, output_tokens = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
        return Call(
            model=self._model,
            at=at,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=count_of(usage.get("cached_input_tokens")),
            cache_write_tokens=count_of(usage.get("cache_write_input_tokens")),
            reasoning_tokens=min(count_of(usage.get("reasoning_output_tokens")), output_tokens),
            has_usage=bool(usage),
            is_unpriceable=self._is_priority,
        )


def parent_of(meta: Mapping[str, Any]) -> str:
    """Return the id of the thread that started a sub-agent."""
    spawned = mapping_of(mapping_of(mapping_of(meta.get("source")).get("subagent")).get("thread_spawn"))
    return text_of(meta.get("parent_thread_id")) or text_of(spawned.get("parent_thread_id"))


def _call_in(item: Mapping[str, Any]) -> Any:
    """Return the tool call of an item, ``None`` if it is not a tool call."""
    kind = text_of(item.get("type"))
    call_id = text_of(item.get("call_id")) or text_of(item.get("id"))
    if kind == "local_shell_call":
        return tool_call(call_id, "local_shell", item.get("action") or {})
    if kind in ("function_call", "custom_tool_call", "mcp_tool_call"):
        return tool_call(call_id, text_of(item.get("name")), item.get("arguments", item.get("input")) or "{}")
    return None


class CodexReader:
    """Reads the rollout files below a directory, or one of them."""

    source: ClassVar[str] = "codex"

    def __init__(self, source: Source, reading: Reading) -> None:
        """Read from these files."""
        self._source = source
        self._reading = reading
        self._path_of: dict[str, Unit] = {}

    def units(self) -> list[Unit]:
        """Return the files; if a file is there both plain and compressed, the plain one."""
        units = [unit for unit in self._source.files if unit.location.endswith(SUFFIXES)]
        plain = {unit.location for unit in units}
        return [unit for unit in units if not (unit.location.endswith(".zst") and unit.location[:-4] in plain)]

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return the rollouts sorted by name, which begins with their time."""
        self._path_of = {unit.path.name.partition(".")[0][-36:]: unit for unit in (*unchanged, *changed)}
        found = [unit for unit, is_own in recognized(changed, _is_rollout, self._reading.notes) if is_own]
        return sorted(found, key=lambda unit: (unit.path.name, unit.name))

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversation of a file."""
        lines = self._lines(unit, advance, self._reading)
        first = next(lines, None)
        if first is None:
            return
        meta = decode_line(bytes(first[0].payload), _decode_any) if bytes(first[0].payload) else {}
        thread_id = text_of(meta.get("id")) or unit.path.name.partition(".")[0][-36:]
        rollout = _Rollout(ConversationBuilder(self.source, thread_id, self._reading))
        rollout.begin(meta)
        for line, place in self._without_copy(lines, meta, rollout):
            try:
                rollout.take(line, place)
            except BROKEN as error:
                self._reading.notes.add_damaged(place, f"{type(error).__name__}: {error}")
        state = rollout.state()
        if state is None:
            self._reading.notes.add_omission("sessions without messages")
        else:
            yield state

    def _without_copy(
        self, lines: Iterator[tuple[_Line, str]], meta: Mapping[str, Any], rollout: _Rollout
    ) -> Iterator[tuple[_Line, str]]:
        """Yield the records of this session; records copied from its parent go to ``pass_over`` instead.

        The copy ends at the first item that differs from the parent's. If the parent's file is missing, all records of
        the first second count as copied.
        """
        parent = text_of(meta.get("forked_from_id")) or parent_of(meta)
        began, is_copy = rollout.builder.created_at, bool(parent) and "history_base" not in meta
        items: Iterator[object] | None = None
        matched = 0
        for line, place in lines:
            if line.type == "session_meta":
                copied = text_of(decode_line(bytes(line.payload), _decode_any).get("id"))
                is_copy = is_copy or (not matched and copied not in ("", rollout.builder.native_id))
                parent = parent or copied
                if is_copy:
                    rollout.builder.metadata.setdefault("forked_from", parent)
                continue
            if is_copy and line.type == "response_item":
                items = self._items_of(parent) if items is None else items
                item = next(items, None)
                if item is not None and item == decode_line(bytes(line.payload), _decode_any):
                    matched += 1
                else:
                    is_copy = not matched and _is_within(line, began, COPYING_TIME)
            if not is_copy:
                yield line, place
            else:
                rollout.pass_over(line)

    def _items_of(self, thread_id: str) -> Iterator[object]:
        """Yield the items of another session; none if its file is missing."""
        unit = self._path_of.get(thread_id)
        if unit is not None:
            silent = Reading(Notes(), self._reading.prices)
            for line, _ in self._lines(unit, lambda _: None, silent):
                if line.type == "response_item":
                    yield decode_line(bytes(line.payload), _decode_any)

    def _lines(self, unit: Unit, advance: Callable[[int], object], reading: Reading) -> Iterator[tuple[_Line, str]]:
        """Yield the records of a file with their places; records of old files, which have no envelope, get one."""
        with open_counted(unit.path, advance) as file:
            for number, data in lines_of(file):
                place = f"{unit.name}:{number}"
                try:
                    line = decode_line(data, _decode_line)
                except DamagedRecordError as error:
                    reading.notes.add_damaged(place, str(error))
                    continue
                if line.type is None and number == 1:
                    yield _Line(line.timestamp, "session_meta", msgspec.Raw(data)), place
                elif not bytes(line.payload) and line.type is not None:
                    yield _Line(line.timestamp, "response_item", msgspec.Raw(data)), place
                elif bytes(line.payload):
                    yield line, place


def _is_within(line: _Line, began: datetime | None, time: timedelta) -> bool:
    at = time_of(line.timestamp)
    return at is None or began is None or at - began <= time


def _is_rollout(unit: Unit) -> bool:
    """Return whether a file is a rollout, by its first bytes."""
    with open_counted(unit.path, lambda _: None) as file:
        head = file.read(HEAD_BYTES)
    return _IS_ROLLOUT.search(head) is not None or _IS_OLD.match(head) is not None


def open_reader(source: Source, reading: Reading) -> Reader | None:
    """Return a reader if there are files of JSON lines."""
    found = any(file.location.endswith(SUFFIXES) for file in source.files)
    return CodexReader(source, reading) if found else None
