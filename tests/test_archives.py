"""Conversations as files: equal in every store, written atomically, readable by later versions."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptkit_nb.errors import ConversationExistsError, InvalidArgumentError, StoreUnavailableError
from promptkit_nb.exports import archives
from promptkit_nb.exports.archives import export_store, import_store, read_conversation, write_conversation
from promptkit_nb.manager import ConversationManager
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.state import Branch, ConversationState, Settings, Summary
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.turns import Message, Turn, Usage
from storing import Foreign, rich_state, said, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.stores.base import StateStore
    from storing import Clock, OpenStore

DATA = Path(__file__).parent / "data"
THEN = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)


def fixed_turn(number: int, text: str, **fields: Any) -> Turn:
    """Return a turn with fixed id and times."""
    return Turn(
        id=f"{number:032x}",
        messages=(Message("user", text, timestamp=THEN), Message("assistant", f"You said {text}")),
        usage=Usage(8, 2, cached_tokens=4),
        cost=Decimal("0.0019"),
        model="gpt-4o-mini",
        provider="openai",
        latency_ms=812.5,
        finish_reason="stop",
        created_at=THEN,
        **fields,
    )


FORMAT_1 = ConversationState(
    "user:alice:session:1",
    "alice",
    turns=(fixed_turn(1, "Grüezi 🙂", cell_id="c1"), fixed_turn(2, "again", replayed=True)),
    system_prompt="You help.",
    summaries=(Summary(f"{1:032x}", f"{1:032x}", "A greeting.", Usage(5, 1), None, "gpt-4o-mini", THEN),),
    versions={f"{2:032x}": (fixed_turn(3, "at first"),)},
    branches=(Branch(id="before", turns=(fixed_turn(4, "left", inherited=True),), start=1, created_at=THEN),),
    settings=Settings(
        model="gpt-4o-mini", parameters={"temperature": 0.5}, max_tokens=4000, variables={"city": "Bern"}
    ),
    metadata={"topic": "travel", "stars": 5, "price": 3.0},
    created_at=THEN,
    updated_at=THEN,
    context_hash="c" * 64,
)


class TestConversation:
    """One conversation as a JSON document."""

    def test_it_is_read_back_equal_in_every_store(self, store: StateStore, tmp_path: Path) -> None:
        """Turns, versions, branches, summaries, settings, metadata, times and totals, including dropped summaries."""
        other = MemoryStore()
        other.set(rich_state("a"))
        other.set(replace(other.get("a"), summaries=()))
        write_conversation(other.get("a"), tmp_path / "a.json")
        head = store.create(read_conversation(tmp_path / "a.json"))
        assert store.get("a") == other.get("a")
        assert head == replace(other.head("a"), revision=1)

    def test_conversation_exports_and_manager_imports(self, store: StateStore, tmp_path: Path) -> None:
        """The returned path is absolute, and the imported conversation can continue at once."""
        manager = ConversationManager(DemoProvider(), store)
        conv = manager.new_conversation(conversation_id="a", system_prompt="You help.")
        conv.send("Hello")
        path = conv.export(tmp_path / "a.json")
        assert path == tmp_path / "a.json"
        before = store.get("a")
        manager.delete_conversation("a")
        again = manager.import_conversation(path)
        assert store.get("a") == before
        again.send("And on")
        assert [turn.user_text for turn in again.turns] == ["Hello", "And on"]

    def test_taken_id_is_refused(self, store: StateStore, tmp_path: Path) -> None:
        """The existing conversation is unchanged."""
        store.append("a", said("mine"))
        write_conversation(rich_state("a"), tmp_path / "a.json")
        with pytest.raises(ConversationExistsError):
            ConversationManager(DemoProvider(), store).import_conversation(tmp_path / "a.json")
        assert texts(store.get("a").turns) == ["mine"]

    def test_file_is_readable_text_for_its_owner(self, tmp_path: Path) -> None:
        """It is indented, so that diffs are readable, and no other user may read it."""
        path = write_conversation(FORMAT_1, tmp_path / "a.json")
        lines = path.read_text("utf-8").splitlines()
        assert lines[:2] == ["{", ' "promptkit_nb": "conversation",']
        assert "Grüezi 🙂" in path.read_text("utf-8")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_lone_surrogate_is_replaced(self, tmp_path: Path) -> None:
        """As everywhere else."""
        state = ConversationState("a", turns=(said("x", cell_source="a\ud83db"),), system_prompt="half \ud83d")
        found = read_conversation(write_conversation(state, tmp_path / "a.json"))
        assert (found.system_prompt, found.turns[0].cell_source) == ("half \ufffd", "a\ufffdb")

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(), metadata=st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1) | st.text()))
    def test_any_text_is_read_back(self, tmp_path: Path, text: str, metadata: dict[str, object]) -> None:
        """Line ends, quotes, any writing system."""
        state = ConversationState("a", turns=(said(text),), system_prompt=text, metadata=metadata)
        assert read_conversation(write_conversation(state, tmp_path / "a.json")) == state


class TestStore:
    """A whole store as JSON Lines."""

    def test_from_disk_to_redis_is_two_calls(self, tmp_path: Path, redis_url: str) -> None:
        """All conversations are equal."""
        with DiskStore(tmp_path / "disk") as disk, RedisStore(redis_url, prefix=f"{tmp_path}:") as redis:
            for number in range(5):
                disk.set(rich_state(f"{number}"))
            assert export_store(disk, tmp_path / "all.jsonl") == 5
            heads = import_store(tmp_path / "all.jsonl", redis)
            assert [head.conversation_id for head in heads] == ["0", "1", "2", "3", "4"]
            assert [redis.get(f"{number}") for number in range(5)] == [disk.get(f"{number}") for number in range(5)]

    def test_every_store_exports_the_same_bytes(self, open_store: OpenStore, tmp_path: Path) -> None:
        """After an import into another store, too."""
        one, other = open_store(), MemoryStore()
        for each in (FORMAT_1, ConversationState("empty", created_at=THEN, updated_at=THEN)):
            one.set(each)
        export_store(one, tmp_path / "one.jsonl")
        import_store(tmp_path / "one.jsonl", other)
        export_store(other, tmp_path / "other.jsonl")
        assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()

    def test_changes_are_kept(self, open_store: OpenStore, tmp_path: Path) -> None:
        """Replaced, archived and forked turns are imported as such and can be restored."""
        one, other = open_store(), open_store()
        turns = [said(letter) for letter in "abc"]
        for turn in turns:
            one.append("a", turn)
        one.replace("a", turns[1].id, said("x"))
        one.archive("a", 2, 3, as_branch="tail")
        one.archive("a", 0, 1, as_branch="head")
        one.fork("a", "b")
        one.append("b", said("own"))
        export_store(one, tmp_path / "all.jsonl")
        import_store(tmp_path / "all.jsonl", other)
        for store in (one, other):
            store.restore("a", "head")
            store.restore("a", turns[1])
            store.restore("a", "tail")
        assert texts(other.get("a").turns) == ["a", "b", "c"]
        assert [other.get(name).turns for name in "ab"] == [one.get(name).turns for name in "ab"]
        assert [other.head(name).token_count for name in "ab"] == [40, 10]

    def test_empty_store_can_be_exported(self, store: StateStore, tmp_path: Path) -> None:
        """The file has no conversations."""
        assert export_store(store, tmp_path / "all.jsonl") == 0
        assert import_store(tmp_path / "all.jsonl", store) == []

    def test_taken_id_ends_the_import(self, store: StateStore, tmp_path: Path) -> None:
        """The conversations before it are imported, and none is overwritten."""
        other = MemoryStore()
        for name in "abc":
            other.append(name, said(name))
        export_store(other, tmp_path / "all.jsonl")
        store.append("b", said("mine"))
        with pytest.raises(ConversationExistsError, match="'b'"):
            import_store(tmp_path / "all.jsonl", store)
        assert sorted(head.conversation_id for head in store.list()) == ["a", "b"]
        assert texts(store.get("b").turns) == ["mine"]

    def test_expired_conversations_are_not_exported(self, open_store: OpenStore, clock: Clock, tmp_path: Path) -> None:
        """An expired conversation is missing everywhere."""
        store = open_store(60)
        store.append("a", said("x"))
        clock.pass_s(60)
        store.append("b", said("x"))
        assert export_store(store, tmp_path / "all.jsonl") == 1


class TestWriting:
    """A file is replaced atomically."""

    def test_failed_write_keeps_the_old_file(self, tmp_path: Path) -> None:
        """If the store is closed halfway, the old file stays, and no temporary file is left."""
        store = MemoryStore()
        for name in "ab":
            store.append(name, said(name))
        path = tmp_path / "all.jsonl"
        export_store(store, path)
        before = path.read_bytes()
        with pytest.raises(StoreUnavailableError, match="closed"):
            export_store(_ClosesHalfway(store), path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_directory_is_not_replaced(self, tmp_path: Path) -> None:
        """The error names the path, and no temporary file is left."""
        (tmp_path / "taken").mkdir()
        with pytest.raises(StoreUnavailableError, match=r"taken cannot be written: .*directory"):
            write_conversation(FORMAT_1, tmp_path / "taken")
        assert list(tmp_path.iterdir()) == [tmp_path / "taken"]

    def test_missing_directory_is_named(self, tmp_path: Path) -> None:
        """It is not created: the path is probably misspelled."""
        with pytest.raises(StoreUnavailableError, match=r"missing/a\.json cannot be written: No such file"):
            write_conversation(FORMAT_1, tmp_path / "missing" / "a.json")


class TestReading:
    """A file that is not one of our archives is refused by name."""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"hello",
            b"[]",
            b"{}",
            b"\x89PNG\r\n",
            b'{"promptkit_nb": "\xff"}',
            b'{"messages": []}',
            b'{"promptkit_nb":"store","format":1}',
            b'{"promptkit_nb":"conversation","format":1}',
            b'{"promptkit_nb":"conversation","format":1,"conversation":{"turns":7}}',
        ],
    )
    def test_other_file_is_not_a_conversation(self, tmp_path: Path, content: bytes) -> None:
        """The error says which file to pass."""
        path = tmp_path / "foreign.json"
        path.write_bytes(content)
        with pytest.raises(
            InvalidArgumentError, match=r"foreign\.json is not an exported conversation .*export\(path\)"
        ):
            read_conversation(path)

    @pytest.mark.parametrize("wrong", [None, 5, b"chat.json", "", "a\0b"])
    def test_invalid_path_is_refused(self, store: StateStore, wrong: Any) -> None:
        """The error names the value, for reading and writing."""
        conv = ConversationManager(DemoProvider(), store).new_conversation()
        calls: list[Callable[[], object]] = [
            lambda: conv.export(wrong),
            lambda: read_conversation(wrong),
            lambda: export_store(store, wrong),
            lambda: import_store(wrong, store),
        ]
        for call in calls:
            with pytest.raises(InvalidArgumentError, match=r"^path=.* is not a path; give text or a pathlib.Path"):
                call()

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"turns": [0, 0]}, "turn '00' occurs twice, as a current turn and as a current turn"),
            ({"turns": [0], "branches": [("b", [0])]}, "as a current turn and as a turn of the branch 'b'"),
            ({"branches": [("b", [0]), ("c", [0])]}, "as a turn of the branch 'b' and as a turn of the branch 'c'"),
            ({"turns": [0], "versions": {"00": [0]}}, "as a current turn and as a previous version of '00'"),
            ({"turns": [0], "versions": {"00": [1, 1]}}, "turn '01' occurs twice"),
            ({"branches": [("b", [0]), ("b", [1])]}, "branch 'b' occurs twice"),
            ({"versions": {"00": [1]}}, "versions has the turn '00', which is neither a current turn nor on a branch"),
            ({"dropped": {"tokens": -1, "cost": "0", "priced": 0, "unpriced": 0}}, "totals cannot be .*tokens=-1"),
            ({"dropped": {"tokens": 0, "cost": "NaN", "priced": 0, "unpriced": 0}}, "totals cannot be .*NaN"),
            ({"settings": {"max_tokens": -5}}, "settings.max_tokens=-5 is out of range"),
            ({"conversation_id": " "}, "' ' cannot be a conversation id: it is blank"),
            ({"user_id": ""}, "cannot be a user id"),
        ],
    )
    def test_contradictions_are_refused_by_name(
        self, store: StateStore, tmp_path: Path, changes: dict[str, Any], problem: str
    ) -> None:
        """Duplicates, negative counters, and invalid ids, which a store never writes."""
        conversation: dict[str, Any] = {"conversation_id": "a", **changes}
        if "turns" in changes:
            conversation["turns"] = [*map(numbered, changes["turns"])]
        if "branches" in changes:
            conversation["branches"] = [
                {"id": name, "start": 0, "turns": [*map(numbered, turns)]} for name, turns in changes["branches"]
            ]
        if "versions" in changes:
            conversation["versions"] = {key: [*map(numbered, turns)] for key, turns in changes["versions"].items()}
        one, all_of_them = tmp_path / "one.json", tmp_path / "all.jsonl"
        header = {"promptkit_nb": "conversation", "format": 1, "conversation": conversation}
        one.write_text(json.dumps(header), "utf-8")
        lines = [{"promptkit_nb": "store", "format": 1}, conversation]
        all_of_them.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        for call in (lambda: read_conversation(one), lambda: import_store(all_of_them, store)):
            with pytest.raises(InvalidArgumentError, match=rf"(one|all)\.jsonl? is not an exported \w+ \(.*{problem}"):
                call()
        assert store.list() == []

    def test_deep_file_is_refused(self, store: StateStore, tmp_path: Path) -> None:
        """It ends with our error, not with one of Python."""
        deep = "[" * 200_000 + "]" * 200_000
        one, all_of_them = tmp_path / "one.json", tmp_path / "all.jsonl"
        conversation = f'{{"conversation_id":"a","metadata":{{"a":{deep}}}}}'
        one.write_text(f'{{"promptkit_nb":"conversation","format":1,"conversation":{conversation}}}', "utf-8")
        all_of_them.write_text(f'{{"promptkit_nb":"store","format":1}}\n{conversation}\n', "utf-8")
        for call in (lambda: read_conversation(one), lambda: import_store(all_of_them, store)):
            with pytest.raises(InvalidArgumentError, match=r"is not an exported .* nested too deeply"):
                call()

    def test_long_line_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is refused before it fills the memory; exports stay far below the limit."""
        monkeypatch.setattr(archives, "MAX_CONVERSATION_BYTES", 1000)
        path = tmp_path / "all.jsonl"
        path.write_bytes(b'{"promptkit_nb":"store","format":1}\n' + b" " * 1001)
        with pytest.raises(StoreUnavailableError, match="it has a line of more than 1,000 bytes"):
            import_store(path, MemoryStore())

    @pytest.mark.parametrize(
        "content", [b"", b"hello\n", b'{"promptkit_nb":"conversation"}', b'{"promptkit_nb":"store","format":1}\n{"x"']
    )
    def test_other_file_is_not_a_store(self, store: StateStore, tmp_path: Path, content: bytes) -> None:
        """No conversation is created."""
        path = tmp_path / "foreign.jsonl"
        path.write_bytes(content)
        with pytest.raises(InvalidArgumentError, match=r"foreign\.jsonl is not an exported store .*export_store"):
            import_store(path, store)
        assert store.list() == []

    def test_newer_format_is_refused(self, tmp_path: Path) -> None:
        """The error says how to read it, even if the rest of the file has another shape."""
        path = tmp_path / "newer.json"
        path.write_text('{"promptkit_nb": "conversation", "format": 3, "chat": []}', "utf-8")
        with pytest.raises(StoreUnavailableError, match="has format 3, but this promptkit_nb reads formats up to 2"):
            read_conversation(path)
        path.write_text('{"promptkit_nb": "store", "format": 3}\n', "utf-8")
        with pytest.raises(StoreUnavailableError, match="pip install -U promptkit-nb"):
            import_store(path, MemoryStore())

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        """The error names the path and says what to do."""
        for read in (read_conversation, lambda path: import_store(path, MemoryStore())):
            with pytest.raises(
                StoreUnavailableError, match=r"none\.json cannot be read: No such file .*Check the path"
            ):
                read(tmp_path / "none.json")


class TestFormat1:
    """Files of format 1 stay readable, and are written byte for byte the same until there is a format 2."""

    def test_conversation_is_read_and_written(self, tmp_path: Path) -> None:
        """Read value by value, written byte by byte."""
        stored = DATA / "conversation.format1.json"
        assert read_conversation(stored) == FORMAT_1
        assert write_conversation(FORMAT_1, tmp_path / "a.json").read_bytes() == stored.read_bytes()

    def test_store_is_read_and_written(self, tmp_path: Path) -> None:
        """Read head by head, written byte by byte."""
        stored, store = DATA / "store.format1.jsonl", MemoryStore()
        heads = import_store(stored, store)
        assert [(head.conversation_id, head.turn_count, head.token_count) for head in heads] == [
            ("empty", 0, 0),
            ("user:alice:session:1", 2, 26),
        ]
        assert store.get("user:alice:session:1") == FORMAT_1
        export_store(store, tmp_path / "all.jsonl")
        assert (tmp_path / "all.jsonl").read_bytes() == stored.read_bytes()
        assert json.loads(stored.read_text("utf-8").splitlines()[0]) == {"promptkit_nb": "store", "format": 1}


def numbered(number: int) -> dict[str, object]:
    """Return a turn as JSON."""
    return {"id": f"{number:02}", "messages": [{"role": "user", "content": "Hi"}]}


class _ClosesHalfway(Foreign):
    """A store that is closed during the export."""

    def get(self, conversation_id: str) -> ConversationState:
        """Return the first one only."""
        state = self.store.get(conversation_id)
        self.store.close()
        return state
