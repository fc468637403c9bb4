"""Truncated, garbled, huge, and hostile files cause a row in the report or a clear error, and stop nothing else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from other_tools import DATA, SESSION, START, ClaudeLog, checksums, claude_log, codex_log, codex_message
from promptkit_nb import ImportSourceError, MemoryStore, import_chats
from promptkit_nb.imports.lines import LONGEST_LINE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

ID = f"claude-code:{SESSION}"
GARBLED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

FILES = {
    "claude-code": f"claude-code/projects/-home-user-demo/{SESSION}.jsonl",
    "codex": "codex/sessions/2026/11/28/rollout-2026-11-28T10-00-00-01a21ee2-a0bd-7581-a890-ecc20b75aaaa.jsonl",
    "llm": "llm/logs-0.27.db",
    "promptkit": "promptkit/files/conv-persistent-chat/messages.jsonl",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def copied(name: str, directory: Path) -> Path:
    """Return the sample file of a tool, copied with its surroundings."""
    target = directory / FILES[name]
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree((DATA / FILES[name]).parent, target.parent)
    return target


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@GARBLED
def test_garbled_file_never_raises_anything_else(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Bytes that are cut off or overwritten: the rest is imported, or the error is one of ours; nothing changes."""
    path = copied(name, tmp_path / "copy")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=20))
    path.write_bytes(whole[:at] if data.draw(st.booleans()) else whole[:at] + noise + whole[at + len(noise) :])
    before = checksums(tmp_path / "copy")
    store = MemoryStore()
    with suppress(ImportSourceError):
        import_chats(tmp_path / "copy", store)
        assert import_chats(tmp_path / "copy", store).created == ()
    assert checksums(tmp_path / "copy") == before


@given(fields=st.dictionaries(st.sampled_from(["message", "uuid", "parentUuid", "timestamp", "type", "version"]), JSON))
@GARBLED
def test_strange_values_of_a_session_never_raise(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Each field of a line may be anything."""
    line = {"type": "assistant", "sessionId": SESSION, "uuid": "u", "timestamp": START.isoformat(), **fields}
    log = claude_log(tmp_path)
    log.lines = [json.dumps({"type": "user", "sessionId": SESSION, "message": {"content": "Hi"}}), json.dumps(line)]
    store = MemoryStore()
    import_chats(log.write(), store)
    assert store.get(ID).turns


@given(payload=st.dictionaries(st.sampled_from(["type", "role", "content", "id", "info", "usage", "output"]), JSON))
@GARBLED
def test_strange_values_of_a_rollout_never_raise(tmp_path: Path, payload: dict[str, Any]) -> None:
    """Each field of a payload may be anything, in every kind of record."""
    kinds = ("response_item", "event_msg", "turn_context", "token_usage_record", "compacted", "session_meta")
    records = [(kind, payload) for kind in kinds]
    path = codex_log(tmp_path / "rollout-x.jsonl", codex_message("user", "Hi"), *records, codex_message("user", "Bye"))
    store = MemoryStore()
    import_chats(path, store)
    assert store.get("codex:01a2-thread").turns[-1].user_text == "Bye"


def test_half_a_last_line_is_not_lost(tmp_path: Path) -> None:
    """It is reported, and read once it is complete."""
    log = claude_log(tmp_path)
    log.ask("One")
    log.ask("Two")
    directory = log.write()
    whole = log.path.read_text("utf-8")
    log.path.write_text(whole[:-30], "utf-8")
    store = MemoryStore()
    (row,) = import_chats(directory, store).damaged
    assert row.place.endswith(".jsonl:2")
    assert "not complete, and is read again next time" in row.detail
    log.path.write_text(whole, "utf-8")
    import_chats(directory, store)
    assert [turn.user_text for turn in store.get(ID).turns] == ["One", "Two"]


def test_long_line_of_promptkit_is_told(tmp_path: Path) -> None:
    """With its place; the messages around it are read."""
    folder = tmp_path / "conv-a"
    folder.mkdir()
    (folder / "state.json").write_text('{"id": "a", "user_id": "alice"}')
    one, two = (json.dumps({"role": "user", "content": text}).encode() for text in ("One", "Two"))
    long = b'{"role": "user", "content": "' + b"x" * LONGEST_LINE_BYTES + b'"}'
    (folder / "messages.jsonl").write_bytes(b"\n".join([one, long, two]))
    store = MemoryStore()
    (damaged,) = import_chats(tmp_path, store).damaged
    assert (damaged.place, damaged.detail) == ("conv-a/messages.jsonl:2", "a line of more than 32 MB is not read")
    assert [turn.user_text for turn in store.get("promptkit:a").turns] == ["One", "Two"]


def test_line_of_100_megabytes_is_told(tmp_path: Path) -> None:
    """It is reported but not decoded, and the lines after it are read."""
    log = claude_log(tmp_path)
    log.ask("One")
    directory = log.write()
    with log.path.open("ab") as file:
        for size in (100 * 2**20, LONGEST_LINE_BYTES - 14):
            file.write(b'{"type":"user"' + b" " * size + b"\n")
        file.write(b'{"type":"progress","data":"' + b"x" * (40 * 2**20) + b'"}\n')
    later = ClaudeLog(log.path, SESSION, [log.path.read_text("utf-8")[:-1]])
    later.ask("Two", parent=None)
    later.write()
    store = MemoryStore()
    report = import_chats(directory, store)
    assert [row.detail for row in report.damaged] == ["a line of more than 32 MB is not read"] * 2
    assert [turn.user_text for turn in store.get(ID).turns] == ["One", "Two"]


def test_deep_chains_and_circles_end(tmp_path: Path) -> None:
    """30,000 nested messages do not cause a recursion error, and a circular chain ends."""
    path = shutil.copy(DATA / "llm" / "logs-0.36.db", tmp_path / "logs.db")
    with sqlite3.connect(path) as database:
        hashes = [(f"h{number}", f"h{number - 1}" if number else "h29999", "user") for number in range(30_000)]
        database.executemany("INSERT INTO messages (hash, parent_hash, role) VALUES (?, ?, ?)", hashes)
        database.execute("UPDATE turns SET parent_message_hash = 'h29999' WHERE id = '01m8fdycyhdmwv94w119reyqfy'")
    database.close()
    assert len(import_chats(path, MemoryStore()).created) == 9


def test_deep_json_is_told(tmp_path: Path) -> None:
    """A line that is nested 30,000 levels deep is damaged, and the next one is read."""
    log = claude_log(tmp_path)
    log.lines.append('{"type":"user","message":' + "[" * 30_000 + "]" * 30_000 + "}")
    log.ask("One", parent=None)
    store = MemoryStore()
    report = import_chats(log.write(), store)
    assert (len(report.damaged), store.get(ID).turns[0].user_text) == (1, "One")


def test_ids_like_paths_are_only_ids(tmp_path: Path) -> None:
    """They do not name files, and ids that are too long or blank are reported."""
    folder = tmp_path / "files" / "conv-a"
    folder.mkdir(parents=True)
    message = '{"role": "user", "content": "Hi"}\n'
    (folder / "messages.jsonl").write_text(message, "utf-8")
    for conversation_id, outcome in (("../../etc/passwd", "created"), ("x" * 2000, "skipped"), (" ", "created")):
        (folder / "state.json").write_text(json.dumps({"id": conversation_id}), "utf-8")
        (row,) = import_chats(tmp_path / "files", MemoryStore()).rows
        assert (row.outcome, row.conversation_id) == (outcome, f"promptkit:{conversation_id}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["conv-a", "files", "messages.jsonl", "state.json"]


def test_half_of_a_character_and_huge_numbers_are_cleaned(tmp_path: Path) -> None:
    """Lone surrogates become U+FFFD, and absurd counts become 0."""
    log = claude_log(tmp_path)
    log.ask("half \ud83d of it")
    log.answer("1", usage={"input_tokens": 10**30, "output_tokens": -5})
    store = MemoryStore()
    import_chats(log.write(), store)
    (turn,) = store.get(ID).turns
    assert (turn.user_text, turn.usage.total_tokens) == ("half \ufffd of it", 0)


def test_one_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    """It has a row in the report."""
    shutil.copy(DATA / "llm" / "logs-0.27.db", tmp_path / "whole.db")
    data = (tmp_path / "whole.db").read_bytes()
    (tmp_path / "broken.db").write_bytes(data[:5000] + b"\xff" * 2000 + data[7000:])
    (tmp_path / "cut.db").write_bytes(data[:30_000])
    (tmp_path / "noise.jsonl").write_bytes(b"\x00\xff" * 500)
    report = import_chats(tmp_path, MemoryStore())
    assert len(report.created) == 7
    assert {"noise.jsonl"} <= {row.place.rpartition("/")[2] for row in report.skipped}


def test_damaged_row_of_a_database_stops_only_its_conversation(tmp_path: Path) -> None:
    """It is reported with the id of the conversation."""
    path = shutil.copy(DATA / "llm" / "logs-0.27.db", tmp_path / "logs.db")
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE responses SET token_details = '{' WHERE conversation_id = '01m8fdym10dw5vxn5p80tv4ehh'"
        )
    database.close()
    report = import_chats(path, MemoryStore())
    assert len(report.created) == 6
    assert [row.place for row in report.damaged] == ["logs.db:01m8fdym10dw5vxn5p80tv4ehh"]


def test_database_in_wal_mode_is_read_with_its_newest_rows(tmp_path: Path) -> None:
    """They are in the ``-wal`` file, and nothing is written there."""
    path = tmp_path / "logs.db"
    shutil.copy(DATA / "llm" / "logs-0.27.db", path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO responses (id, prompt, response, conversation_id) VALUES ('01z', 'Hi', 'Hello', 'new')")
    writer.commit()
    before = checksums(tmp_path)
    store = MemoryStore()
    import_chats(path, store)
    assert checksums(tmp_path) == before
    assert store.get("llm:new").turns[0].text == "Hello"
    writer.close()


def test_database_before_version_0_5_is_told(tmp_path: Path) -> None:
    """The row says what to do."""
    path = tmp_path / "logs.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE log (prompt TEXT)")
    database.close()
    (row,) = import_chats(path, MemoryStore()).skipped
    assert "written by llm before 0.5" in row.detail
