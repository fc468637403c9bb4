"""``import_chats`` reads Claude Code, Codex, and llm: results are exact, repeats add nothing, sources do not change."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from other_tools import DATA, SESSION, START, checksums, claude_log, codex_log, codex_message, codex_tokens
from promptkit_nb import (
    ConversationState,
    DiskStore,
    ImportSourceError,
    InvalidArgumentError,
    MemoryStore,
    Message,
    Turn,
    export_store,
    import_chats,
)
from promptkit_nb.imports.lines import lines_of, skipping

if TYPE_CHECKING:
    from pathlib import Path

    from promptkit_nb import StateStore

SAMPLES = [
    (folder, name)
    for folder in ("claude-code", "codex", "llm")
    for name in json.loads((DATA / folder / "expected.json").read_text("utf-8"))["files"]
]
ID = f"claude-code:{SESSION}"


def expected(folder: str, name: str) -> dict[str, Any]:
    """Return the expected result for a sample."""
    found: dict[str, Any] = json.loads((DATA / folder / "expected.json").read_text("utf-8"))["files"][name]
    return found


def told(message: Message) -> dict[str, Any]:
    """Return a message in the form of ``expected.json``."""
    calls = [{"id": c.id, "name": c.name, "arguments": json.loads(c.arguments)} for c in message.tool_calls]
    optional = {"reasoning": message.reasoning, "tool_calls": calls, "tool_call_id": message.tool_call_id}
    return {"role": message.role, "content": message.content} | {key: value for key, value in optional.items() if value}


def wanted(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of ``expected.json`` without what ``told`` leaves out."""
    return {key: value for key, value in message.items() if key not in ("name", "attachments")}


@pytest.mark.parametrize(("folder", "name"), SAMPLES)
def test_samples_give_exactly_what_is_in_them(store: StateStore, folder: str, name: str) -> None:
    """Messages, tokens, costs to the nano-dollar, models, times and titles, in every store."""
    want = expected(folder, name)
    import_chats(DATA / folder / name, store)
    found = {head.conversation_id: store.get(head.conversation_id) for head in store.list()}
    assert set(found) == {each["conversation_id"] for each in want["conversations"]}
    for conversation in want["conversations"]:
        state = found[conversation["conversation_id"]]
        assert state.created_at == datetime.fromisoformat(conversation["created_at"])
        assert conversation.get("title") == state.metadata.get("title")
        assert (state.settings.kind, state.settings.source) == ("imported", folder)
        prompt = conversation.get("system_prompt", "")
        assert prompt.startswith("(base_instructions") or (state.system_prompt or "") == prompt
        for turn, one in zip(state.turns, conversation["turns"], strict=True):
            assert [told(message) for message in turn.messages] == [wanted(message) for message in one["messages"]]
            assert turn.created_at == datetime.fromisoformat(one["created_at"])
            assert turn.model == one["model"]
            assert turn.cost == (None if one["cost_usd"] is None else Decimal(one["cost_usd"]))
            assert turn.price_source == one["cost_basis"]
            assert turn.usage.unknown is (one["usage"] is None)
            for count, value in (one["usage"] or {}).items():
                assert count == "cache_write_1h_tokens" or getattr(turn.usage, count) == value


@pytest.mark.parametrize(("folder", "name"), SAMPLES)
def test_second_run_writes_nothing(tmp_path: Path, folder: str, name: str) -> None:
    """Everything is unchanged, and no revision goes up."""
    with DiskStore(tmp_path) as store:
        first = import_chats(DATA / folder / name, store)
        before = {head.conversation_id: head.revision for head in store.list()}
        second = import_chats(DATA / folder / name, store)
        assert sorted(second.unchanged) == sorted(first.created) == sorted(before)
        assert {head.conversation_id: head.revision for head in store.list()} == before


@pytest.mark.parametrize(("folder", "name"), SAMPLES)
def test_source_stays_as_it_was(tmp_path: Path, folder: str, name: str) -> None:
    """No byte and no time changes, and no file is added."""
    copy = shutil.copytree(DATA / folder, tmp_path / "copy")
    before = checksums(copy)
    import_chats(copy / name, MemoryStore())
    assert checksums(copy) == before


def test_files_that_did_not_change_are_not_opened(tmp_path: Path) -> None:
    """A file whose size and time are those of the previous import may even be unreadable."""
    log = claude_log(tmp_path / "projects")
    log.ask("My name is Alice")
    log.answer("Nice to meet you, Alice!")
    directory, store = log.write(), MemoryStore()
    import_chats(directory, store)
    stat = log.path.stat()
    log.path.write_bytes(b"x" * stat.st_size)
    os.utime(log.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert import_chats(directory, store).unchanged == (ID,)


def test_file_that_changed_without_new_turns_is_opened_once(store: StateStore, tmp_path: Path) -> None:
    """Its new size and time are remembered; the conversation keeps its times, and the user's metadata stays."""
    log = claude_log(tmp_path / "projects")
    log.ask("My name is Alice")
    log.answer("Nice to meet you, Alice!")
    directory = log.write()
    import_chats(directory, store)
    store.update_metadata(ID, topic="names")
    before = store.get(ID)
    log.add("progress", data={})
    log.write()
    assert import_chats(directory, store, dry_run=True).unchanged == (ID,)
    assert store.get(ID) == before
    assert import_chats(directory, store).unchanged == (ID,)
    after = store.get(ID)
    assert (after.turns, after.created_at, after.updated_at) == (before.turns, before.created_at, before.updated_at)
    assert after.metadata == {**before.metadata, "imported_from": after.metadata["imported_from"]}
    stat = log.path.stat()
    log.path.write_bytes(b"x" * stat.st_size)
    os.utime(log.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert import_chats(directory, store).unchanged == (ID,)
    assert store.get(ID) == after


def test_grown_log_adds_turns_and_replaces_the_last(tmp_path: Path) -> None:
    """A turn that was not complete keeps its id, so that its tokens count once."""
    log = claude_log(tmp_path)
    log.ask("My name is Alice")
    store = MemoryStore()
    import_chats(log.write(), store)
    (asked,) = store.get(ID).turns
    log.answer("Nice to meet you, Alice!")
    log.ask("Bye")
    log.answer("Bye!")
    report = import_chats(log.write(), store)
    state = store.get(ID)
    assert report.extended == (ID,)
    assert [turn.text for turn in state.turns] == ["Nice to meet you, Alice!", "Bye!"]
    assert state.turns[0].id == asked.id
    assert state.token_count == 220
    assert report.rows[0].new_turns == 2


def test_cost_is_written_the_same_whichever_call_is_priced_first(tmp_path: Path) -> None:
    """A file that is read again by itself is unchanged, although its call was not the first at that price before."""
    for session in ("first", "second"):
        log = claude_log(tmp_path, session)
        log.ask("One")
        log.answer("1")
        log.write()
    store = MemoryStore()
    created = import_chats(tmp_path, store).created
    turns = store.get("claude-code:second").turns
    os.utime(log.path, (1, 1))
    assert import_chats(tmp_path, store).unchanged == created
    assert store.get("claude-code:second").turns == turns


def test_what_was_done_here_stays(tmp_path: Path) -> None:
    """A conversation that was changed in the store is left alone and reported; a title set in the store stays."""
    log = claude_log(tmp_path)
    log.ask("One")
    log.ask("Two")
    store = MemoryStore()
    import_chats(log.write(), store)
    store.update_metadata(ID, title="Mine")
    log.ask("Three")
    import_chats(log.write(), store)
    assert store.head(ID).metadata["title"] == "Mine"
    store.archive(ID, 2, 3, as_branch="mine")
    log.ask("Four")
    report = import_chats(log.write(), store)
    assert report.changed_here == (ID,)
    assert [turn.user_text for turn in store.get(ID).turns] == ["One", "Two"]


def test_turns_that_the_source_no_longer_has_stay(tmp_path: Path) -> None:
    """A shortened file adds its new turns, and removes none."""
    log = claude_log(tmp_path)
    for text in ("One", "Two", "Three"):
        log.ask(text)
    store = MemoryStore()
    import_chats(log.write(), store)
    log.ask("Four")
    del log.lines[1]
    import_chats(log.write(), store)
    assert [turn.user_text for turn in store.get(ID).turns] == ["One", "Two", "Three", "Four"]


def test_own_conversations_are_never_overwritten(tmp_path: Path) -> None:
    """If another conversation has the id, the import skips and reports it; ``id_prefix`` avoids that."""
    log = claude_log(tmp_path)
    log.ask("One")
    store = MemoryStore()
    store.create(ConversationState(ID, turns=(Turn(messages=(Message("user", "Ours"),)),)))
    (row,) = import_chats(log.write(), store).rows
    assert (row.outcome, row.detail) == ("skipped", "another conversation of yours has this id; give id_prefix=")
    assert store.get(ID).turns[0].user_text == "Ours"
    assert import_chats(log.write(), store, id_prefix="laptop:").created == (f"laptop:{ID}",)


def test_narrowed_store_takes_its_own_user(tmp_path: Path) -> None:
    """Its user owns conversations without a recorded user, and conversations of other users stay hidden."""
    log = claude_log(tmp_path)
    log.ask("One")
    store = MemoryStore()
    import_chats(log.write(), store.for_user("alice"))
    assert store.head(ID).user_id == "alice"
    (row,) = import_chats(log.write(), store.for_user("bob")).rows
    assert (row.outcome, row.detail) == ("skipped", "the id is taken by another user's conversation")
    with pytest.raises(InvalidArgumentError, match="user_id='bob' is another user"):
        import_chats(log.path, store.for_user("alice"), user_id="bob")


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    """The report is that of a real run."""
    log = claude_log(tmp_path)
    log.ask("One")
    store = MemoryStore()
    report = import_chats(log.write(), store, dry_run=True)
    assert (report.created, store.list()) == ((ID,), [])
    assert str(report).endswith("1 created · 1 new turn (dry run: nothing was written)")


def test_killed_process_has_stored_what_it_reported(tmp_path: Path) -> None:
    """New conversations are written many at a time, and all of them before the report is there."""
    for number in range(450):
        log = claude_log(tmp_path / "projects", f"session-{number}")
        log.ask("One")
        log.write()
    code = (
        "import os, sys; from promptkit_nb import DiskStore, import_chats\n"
        "print(len(import_chats(sys.argv[1], DiskStore(sys.argv[2])).created), flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "projects"), str(tmp_path / "store")]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (killed.returncode, killed.stdout) == (-9, "450\n")
    with DiskStore(tmp_path / "store") as store:
        assert len(store.list()) == 450


def test_since_leaves_older_conversations_out(tmp_path: Path) -> None:
    """A conversation counts by its last activity."""
    log = claude_log(tmp_path)
    log.ask("One")
    report = import_chats(log.write(), MemoryStore(), since="2026-03-03")
    assert (report.rows, report.left_out) == ((), {"conversations before since=": 1})
    assert import_chats(log.path, MemoryStore(), since="2026-03-02").created == (ID,)


def test_files_are_not_opened_again_for_a_later_since(tmp_path: Path) -> None:
    """An earlier ``since``, or none, reads a file again from which conversations were left out."""
    path = tmp_path / "logs.db"
    shutil.copy(DATA / "llm" / "logs-0.27.db", path)
    store = MemoryStore()
    first = import_chats(path, store, since="2026-11-27T21:18:02Z")
    assert (len(first.created), first.left_out["conversations before since="]) == (3, 4)
    for since, is_opened in (("2026-11-28", False), ("2026-11-27", True), (None, True)):
        with patch("promptkit_nb.imports.llm.LlmReader.read", return_value=iter(())) as read:
            import_chats(path, store, since=since)
        assert read.called is is_opened


@pytest.mark.parametrize(("how", "kept"), [("keep", 10_000), ("cut", 4_024), ("drop", 27)])
def test_tool_output_is_kept_cut_or_dropped(tmp_path: Path, how: Any, kept: int) -> None:
    """Cut output keeps its beginning and its end; the report counts what was cut."""
    log = claude_log(tmp_path)
    log.ask("One")
    log.answer("", content=[{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}])
    log.add(
        "user",
        message={"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x" * 10_000}]},
    )
    store = MemoryStore()
    report = import_chats(log.write(), store, tool_output=how)
    assert len(store.get(ID).turns[0].messages[-1].content) == kept
    assert sum(report.left_out.values()) == (how != "keep")


def test_own_prices_take_precedence(tmp_path: Path) -> None:
    """They are marked as ``yours``; a recorded cost takes precedence over them and the list."""
    log = claude_log(tmp_path)
    log.ask("One")
    log.answer("1", model="mine")
    log.ask("Two")
    log.answer("2", model="mine", costUSD=0.25)
    store = MemoryStore()
    import_chats(log.write(), store, prices={"mine": (1, 2)})
    one, two = store.get(ID).turns
    assert (one.cost, one.price_source) == (Decimal("0.00012"), "yours")
    assert (two.cost, two.price_source) == (Decimal("0.25"), "reported")


def test_each_call_is_priced_by_itself(tmp_path: Path) -> None:
    """Ten calls of 60,000 tokens cost ten short requests, not one long one; one unknown model makes it unknown."""
    log = claude_log(tmp_path)
    log.ask("One")
    for _ in range(10):
        log.answer("1", usage={"input_tokens": 60_000, "output_tokens": 100})
    log.ask("Two")
    log.answer("2")
    log.answer("2", model="no-such-model")
    store = MemoryStore()
    report = import_chats(log.write(), store)
    one, two = store.get(ID).turns
    assert (one.cost, one.price_source) == (Decimal("1.815"), "list")
    assert (two.cost, two.price_source, two.usage.total_tokens) == (None, None, 220)
    assert report.unpriced_models == {"no-such-model": 1}


_LINES = [
    {"type": "progress"},
    {"uuid": "1", "type": "progress"},
    {"uuid": "123456", "type": "progress", "data": {"type": "user"}},
    {"type": "user"},
    {"uuid": "1", "type": "user"},
    {"data": {"a": 1, "type": "progress"}, "type": "user"},
    {"a": {"b": 1, "type": "progress"}, "type": "user"},
    {"a": {"type": "progress"}, "type": "user", "message": {"type": "progress"}},
    {"uuid": '"type":"progress"', "type": "user"},
    {"type": "file-history-snapshot"},
    {"type": "progress-note"},
]


@example([{"uuid": "1", "type": "progress"}, {"a": {"b": 1, "type": "progress"}, "type": "user"}] * 9, (",", ":"), 200)
@given(st.lists(st.sampled_from(_LINES)), st.sampled_from([(",", ":"), (", ", ": ")]), st.integers(1, 2000))
def test_lines_are_skipped_by_their_own_type(lines: list[dict[str, Any]], separators: Any, block: int) -> None:
    """Neither a nested type nor a text that looks like one counts, wherever the blocks that are read end."""
    texts = [json.dumps(line, separators=separators).encode() for line in lines]
    with patch("promptkit_nb.imports.lines.BLOCK_BYTES", block):
        file = io.BytesIO(b"\n".join(texts))
        found = [
            (number, line.rstrip(b"\n"))
            for number, line in lines_of(file, skipping("progress", "file-history-snapshot"))
        ]
    matter = ("user", "progress-note")
    assert found == [(number, texts[number - 1]) for number, line in enumerate(lines, 1) if line["type"] in matter]


_PIECES = [
    *(
        b'{"type":"progress"',
        b'{"uuid":"1","type":"progress"',
        b'{"a":{"b":1,"type":"progress"',  # a nested type in the same place
        b'"type": "progress"',
        b'{"type":"mode"',
        b'{"type":"user"',
        b'{"own": true,"type":"system"',
        b'{"own": null,"type":"system"',
        b'{"type":"system","own": true',
        b'{"type":"system","a":{"own": true',
    ),
    *(b"{", b"}", b" ", b"\r", b"\n", b"\0", b"\xc3\xa9", b"\xff", b"x" * 380),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=60), st.lists(st.sampled_from(_PIECES), max_size=8), st.data())
def test_blocks_give_what_single_lines_give(pieces: list[bytes], repeated: list[bytes], data: st.DataObject) -> None:
    """Any mixture of whole, damaged, blank, and half lines gives the same in blocks of any size as line by line."""
    skipped = skipping("progress", "mode", conditional="system", condition=rb'"own": true')
    written = b"".join(pieces) + b"".join(repeated) * 20

    def is_skipped(line: bytes) -> bool:
        found = re.search(rb'"type": ?"(progress|mode|system)"', line[:400])
        if found is None or b"{" in line[1 : found.start()]:
            return False
        own = line[:400].find(b'"own": true')
        return found[1] != b"system" or (own >= 0 and b"{" not in line[1:own])

    single = enumerate(io.BytesIO(written), 1)
    expected = [(number, line) for number, line in single if line.strip() and not is_skipped(line)]
    with patch("promptkit_nb.imports.lines.BLOCK_BYTES", data.draw(st.integers(1, len(written) + 2))):
        assert [*lines_of(io.BytesIO(written), skipped)] == expected


class TestClaudeCode:
    """Sessions of Claude Code."""

    def test_rewound_conversation_has_a_branch(self, tmp_path: Path) -> None:
        """Of two typed messages with one parent the later is current."""
        log = claude_log(tmp_path)
        log.ask("One")
        parent = log.answer("1")
        log.ask("Two")
        log.answer("2")
        log.ask("Another two", parent=parent)
        log.answer("another 2")
        store = MemoryStore()
        import_chats(log.write(), store)
        state = store.get(ID)
        assert [turn.user_text for turn in state.turns] == ["One", "Another two"]
        assert [(branch.start, [turn.user_text for turn in branch.turns]) for branch in state.branches] == [
            (1, ["Two"])
        ]
        assert state.token_count == 330

    def test_compaction_is_a_summary(self, tmp_path: Path) -> None:
        """The message that contains it is not a user message, and the conversation continues."""
        log = claude_log(tmp_path)
        log.ask("One")
        log.answer("1")
        log.add("system", subtype="compact_boundary", parent=None)
        log.ask("They counted to one.", isCompactSummary=True)
        log.ask("Two")
        store = MemoryStore()
        import_chats(log.write(), store)
        state = store.get(ID)
        assert [turn.user_text for turn in state.turns] == ["One", "Two"]
        (summary,) = state.summaries
        assert (summary.text, summary.first_turn, summary.last_turn) == (
            "They counted to one.",
            state.turns[0].id,
            state.turns[0].id,
        )

    def test_resumed_session_repeats_nothing(self, tmp_path: Path) -> None:
        """Lines of an earlier session belong to it, in one run and in two."""
        other = "5b1f0c2e-0002-4a11-8a11-00000000000b"
        first = claude_log(tmp_path)
        first.ask("One")
        first.answer("1")
        store, later = MemoryStore(), MemoryStore()
        import_chats(first.write(), later)
        second = claude_log(tmp_path, other)
        second.lines = [line.replace(SESSION, other) for line in first.lines]
        second.ask("Two")
        second.answer("2")
        directory = second.write()
        os.utime(first.path, (1, 1))
        import_chats(directory, store)
        import_chats(directory, later)
        for each in (store, later):
            assert [turn.user_text for turn in each.get(ID).turns] == ["One"]
            assert [turn.user_text for turn in each.get(f"claude-code:{other}").turns] == ["Two"]

    def test_old_sub_agents_in_the_same_file_are_conversations(self, tmp_path: Path) -> None:
        """Each begins with a message without a parent, and its tokens are in no turn of the session."""
        log = claude_log(tmp_path)
        log.ask("Use an agent")
        log.ask("Look around", parent=None, uuid="root-1", isSidechain=True)
        log.answer("It is small", isSidechain=True)
        log.answer("It says: small", parent=None)
        store = MemoryStore()
        import_chats(log.write(), store)
        assert store.get(f"{ID}:agent:root-1").turns[0].text == "It is small"
        assert store.head(f"{ID}:agent:root-1").metadata["parent"] == ID
        assert store.head(ID).token_count == 110

    def test_records_of_the_system_lead_to_the_sub_agent_of_their_parent(self, tmp_path: Path) -> None:
        """A sub-agent's message may follow a record of the system, of which only the session's own are left out."""
        log = claude_log(tmp_path)
        log.ask("Look around")
        log.add("system", subtype="turn_duration")
        task = log.ask("Search the archive", isSidechain=True, parent=None)
        log.add("system", isSidechain=True, subtype="informational")
        log.answer("Two letters", isSidechain=True)
        store = MemoryStore()
        import_chats(log.write(), store)
        assert [len(turn.messages) for turn in store.get(f"{ID}:agent:{task}").turns] == [2]
        assert [head.conversation_id for head in store.list()] == [f"{ID}:agent:{task}", ID]

    def test_messages_typed_while_it_worked_are_turns(self, tmp_path: Path) -> None:
        """Newer versions attach them, older ones take them from a queue."""
        log = claude_log(tmp_path)
        log.ask("One")
        log.add("attachment", attachment={"type": "queued_command", "prompt": "Faster"})
        log.lines.append(json.dumps({"type": "queue-operation", "operation": "enqueue", "content": "Stop"}))
        log.lines.append(json.dumps({"type": "queue-operation", "operation": "remove", "content": "Stop"}))
        store = MemoryStore()
        import_chats(log.write(), store)
        assert [turn.user_text for turn in store.get(ID).turns] == ["One", "Faster", "Stop"]

    def test_interruption_ends_a_turn(self, tmp_path: Path) -> None:
        """The note of the program is not a message."""
        log = claude_log(tmp_path)
        log.ask("One")
        log.answer("1")
        log.ask("[Request interrupted by user]")
        store = MemoryStore()
        import_chats(log.write(), store)
        (turn,) = store.get(ID).turns
        assert (turn.finish_reason, len(turn.messages)) == ("interrupted", 2)

    def test_title_of_a_summary_elsewhere_is_found(self, tmp_path: Path) -> None:
        """Old versions write it at the beginning of a later file."""
        log = claude_log(tmp_path)
        leaf = log.ask("One")
        log.write()
        later = claude_log(tmp_path, "later")
        later.lines = [json.dumps({"type": "summary", "summary": "Counting", "leafUuid": leaf})]
        later.ask("Two")
        store = MemoryStore()
        import_chats(later.write(), store)
        assert store.head(ID).metadata["title"] == "Counting"

    def test_later_title_is_taken(self, tmp_path: Path) -> None:
        """From the session's own file, or that of a later session; a title that was set here stays."""
        log = claude_log(tmp_path)
        leaf = log.ask("One")
        store, titled = MemoryStore(), MemoryStore()
        for each in (store, titled):
            import_chats(log.write(), each)
        titled.update_metadata(ID, title="Mine")
        later = claude_log(tmp_path, "later")
        later.lines = [json.dumps({"type": "summary", "summary": "Counting", "leafUuid": leaf})]
        later.ask("Two")
        report = import_chats(later.write(), store)
        assert (report.extended, store.head(ID).metadata["title"]) == ((ID,), "Counting")
        log.lines.append(json.dumps({"type": "ai-title", "sessionId": SESSION, "aiTitle": "Counting to one"}))
        for each, title in ((store, "Counting to one"), (titled, "Mine")):
            import_chats(log.write(), each)
            assert each.head(ID).metadata["title"] == title
            before = each.head(ID).revision
            assert ID in import_chats(log.path, each).unchanged
            assert each.head(ID).revision == before


class TestCodex:
    """Rollouts of Codex."""

    def test_repeated_counts_of_tokens_count_once(self, tmp_path: Path) -> None:
        """An event that repeats is skipped, and totals that start anew after a resume are not subtracted."""
        path = codex_log(
            tmp_path / "rollout-a.jsonl",
            ("turn_context", {"model": "gpt-5-codex"}),
            codex_message("user", "One"),
            codex_tokens(2859, 2859),
            codex_tokens(2859, 2859),
            codex_tokens(5780, 2921),
            codex_tokens(3025, 3025),
            codex_message("assistant", "1"),
        )
        store = MemoryStore()
        import_chats(path, store)
        (turn,) = store.get("codex:01a2-thread").turns
        assert (turn.usage.input_tokens, turn.usage.output_tokens) == (8805, 3)

    def test_compressed_rollout_is_read_and_its_plain_sibling_wins(self, tmp_path: Path) -> None:
        """Files that end in ``.zst`` are decompressed as they are read."""
        import pyarrow as pa  # noqa: PLC0415 - for tests only

        path = codex_log(tmp_path / "rollout-a.jsonl", codex_message("user", "One"))
        with pa.CompressedOutputStream(str(tmp_path / "rollout-a.jsonl.zst"), "zstd") as file:
            file.write(path.read_bytes())
        assert len(import_chats(tmp_path, MemoryStore()).rows) == 1
        path.unlink()
        assert import_chats(tmp_path, MemoryStore()).created == ("codex:01a2-thread",)

    def test_compressed_rollout_needs_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without it, the report says how to install it; other files are imported."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        codex_log(tmp_path / "rollout-b.jsonl", codex_message("user", "One"))
        (tmp_path / "rollout-a.jsonl.zst").write_bytes(b"")
        report = import_chats(tmp_path, MemoryStore())
        assert report.created == ("codex:01a2-thread",)
        assert "reading compressed files needs pyarrow: pip install 'promptkit-nb[arrow]'" in str(report)

    def test_only_compressed_rollouts_need_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If nothing can be read, the error says how to install it."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        for name in "ab":
            (tmp_path / f"rollout-{name}.jsonl.zst").write_bytes(b"")
        with pytest.raises(ImportSourceError) as caught:
            import_chats(tmp_path, MemoryStore())
        assert str(caught.value) == (
            f"{tmp_path} has no conversations that can be read. rollout-a.jsonl.zst and 1 more: "
            "reading compressed files needs pyarrow: pip install 'promptkit-nb[arrow]'"
        )

    def test_fork_without_its_parent_leaves_out_a_burst(self, tmp_path: Path) -> None:
        """What was written within the first second is a copy."""
        path = codex_log(
            tmp_path / "rollout-b.jsonl",
            ("session_meta", {"id": "gone"}),
            codex_message("user", "One"),
            codex_message("user", "Two"),
            forked_from_id="gone",
        )
        store = MemoryStore()
        lines = path.read_text("utf-8").splitlines()
        lines[1:3] = [line.replace("09:00:01", "09:00:00").replace("09:00:02", "09:00:00") for line in lines[1:3]]
        path.write_text("\n".join(lines), "utf-8")
        import_chats(path, store)
        state = store.get("codex:01a2-thread")
        assert ([turn.user_text for turn in state.turns], state.metadata["forked_from"]) == (["Two"], "gone")

    def test_compaction_is_a_summary(self, tmp_path: Path) -> None:
        """The history that it repeats is not read."""
        path = codex_log(
            tmp_path / "rollout-c.jsonl",
            codex_message("user", "One"),
            ("compacted", {"message": "They counted.", "replacement_history": [{"type": "message"}]}),
            codex_message("user", "Two"),
        )
        store = MemoryStore()
        import_chats(path, store)
        state = store.get("codex:01a2-thread")
        assert ([summary.text for summary in state.summaries], len(state.turns)) == (["They counted."], 2)

    def test_old_rollout_without_envelopes_is_read(self, tmp_path: Path) -> None:
        """It has text, and no tokens."""
        path = tmp_path / "rollout-old.jsonl"
        records = [
            {"id": "old", "timestamp": START.isoformat(), "instructions": None},
            {"record_type": "state"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]},
        ]
        path.write_text("\n".join(map(json.dumps, records)), "utf-8")
        store = MemoryStore()
        import_chats(path, store)
        (turn,) = store.get("codex:old").turns
        assert (turn.user_text, turn.text, turn.usage.unknown, turn.created_at) == ("One", "1", True, START)

    def test_priority_tier_has_no_known_price(self, tmp_path: Path) -> None:
        """Its price is unknown."""
        path = codex_log(
            tmp_path / "rollout-d.jsonl",
            ("turn_context", {"model": "gpt-5-codex"}),
            ("event_msg", {"type": "thread_settings_applied", "thread_settings": {"service_tier": "priority"}}),
            codex_message("user", "One"),
            codex_tokens(10, 10),
        )
        store = MemoryStore()
        import_chats(path, store)
        assert store.head("codex:01a2-thread").total_cost is None


class TestLlm:
    """Databases of llm."""

    def test_conversation_continued_after_an_upgrade_has_both_parts(self, tmp_path: Path) -> None:
        """Its old rows come first, what the new ones repeat of them is left out, and its old name stays."""
        path = shutil.copy(DATA / "llm" / "logs-0.36.db", tmp_path / "logs.db")
        thread = "01m8fdxxvrqmt1ddb1e3v6k9b5"
        with sqlite3.connect(path) as database:
            database.execute("INSERT INTO conversations VALUES (?, 'Before the upgrade', 'gpt-4o-mini')", (thread,))
            old = ("01a00000000000000000000000", "Hello", "Be kind.", "Hi!", thread, "2025-01-01T10:00:00.5", 10, 2)
            database.execute(
                "INSERT INTO responses (id, prompt, system, response, conversation_id, datetime_utc, input_tokens, "
                "output_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                old,
            )
            repeated = [("h1", None, "user", "Hello"), ("h2", "h1", "assistant", "Hi!")]
            for key, parent, role, text in repeated:
                database.execute("INSERT INTO messages VALUES (?, ?, ?, NULL)", (key, parent, role))
                database.execute(
                    "INSERT INTO parts (message_hash, position, type, text) VALUES (?, 0, 'text', ?)", (key, text)
                )
            database.execute(
                "UPDATE messages SET parent_hash = 'h2' WHERE hash = 'b2:b7805801c281d83fd27963992ab93d7c'"
            )
        database.close()
        store = MemoryStore()
        import_chats(path, store)
        state = store.get(f"llm:{thread}")
        asked = ["Hello", "My name is Alice", "Please think about the harbour"]
        assert [turn.user_text for turn in state.turns] == asked
        assert (state.system_prompt, state.metadata["title"]) == ("Be kind.", "Before the upgrade")
        assert state.turns[0].created_at == datetime(2025, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC)


class TestUnreadable:
    """Unsupported sources, and invalid arguments."""

    def test_other_files_are_named(self, tmp_path: Path) -> None:
        """The error says what was found, and what is supported."""
        (tmp_path / "a.txt").write_text("hello", "utf-8")
        with pytest.raises(ImportSourceError, match=r"contains no conversations, only 1 of \.txt\. import_chats reads"):
            import_chats(tmp_path, MemoryStore())
        with pytest.raises(ImportSourceError, match="No such file"):
            import_chats(tmp_path / "nothing", MemoryStore())

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"PK\x03\x04rest", "a ZIP archive, such as an export of ChatGPT"),
            (b'[{"mapping": {}}]', "a JSON file in another format"),
            (b"", "an empty file"),
            (b"SQLite format 3\0" + b"\0" * 100, "a SQLite database, but not of llm"),
        ],
    )
    def test_what_a_file_is_is_said(self, tmp_path: Path, data: bytes, what: str) -> None:
        """A ZIP archive is not even opened."""
        path = tmp_path / "file"
        path.write_bytes(data)
        with pytest.raises(ImportSourceError, match=what):
            import_chats(path, MemoryStore())

    def test_own_exports_have_their_own_import(self, tmp_path: Path) -> None:
        """The error names the function to use."""
        export_store(MemoryStore(), tmp_path / "store.jsonl")
        with pytest.raises(ImportSourceError, match=r"read it with import_store\(path, store\)"):
            import_chats(tmp_path / "store.jsonl", MemoryStore())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kind": "chatgpt"}, "kind='chatgpt' is unknown"),
            ({"tool_output": "all"}, "tool_output='all' is unknown"),
            ({"id_prefix": " "}, "id_prefix=' ' is not text"),
            ({"since": "yesterday"}, "since='yesterday' is not a time"),
            ({"prices": {"m": 1}}, "prices"),
        ],
    )
    def test_arguments_are_checked(self, arguments: dict[str, Any], message: str) -> None:
        """Each by an error that names the value."""
        with pytest.raises(InvalidArgumentError, match=message):
            import_chats(DATA, MemoryStore(), **arguments)
