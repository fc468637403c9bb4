"""The row cache of a disk store: views show what is stored now, and read only what changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    DiskStore,
    MemoryStore,
    Message,
    StoreCorruptedError,
    Summary,
    Turn,
    Usage,
    conversations_df,
    messages_df,
    turns_df,
    usage_df,
)
from promptkit_nb.stores.disk_backend import DiskBackend
from promptkit_nb.stores.row_reader import RowReader
from promptkit_nb.views import row_cache
from storing import START, Clock, Foreign, rich_state, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 5)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskStore]:
    """An empty store on disk."""
    with DiskStore(tmp_path) as store:
        yield store


def texts_of(store: DiskStore, **filters: Any) -> list[str]:
    """Return the users' texts, as the view of turns shows them."""
    return list(turns_df(store, **filters)["user_text"])


def assert_same_views(store: Any, other: Any) -> None:
    """Assert that every view of two stores is equal."""
    for view in (turns_df, messages_df):
        pd.testing.assert_frame_equal(view(store, status="all"), view(other, status="all"))
    pd.testing.assert_frame_equal(conversations_df(store), conversations_df(other))
    pd.testing.assert_frame_equal(usage_df(store), usage_df(other))


class Changing(RuleBasedStateMachine):
    """After any changes in any order, cached rows equal freshly read ones."""

    def __init__(self) -> None:
        """Start with an empty store."""
        super().__init__()
        self.directory = TemporaryDirectory()
        self.store = DiskStore(self.directory.name, clock=Clock())
        self.count = 0

    @rule(name=NAMES, count=NUMBERS)
    def append(self, name: str, count: int) -> None:
        """Append turns."""
        for _ in range(count):
            self.store.append(name, self._turn())

    @rule(name=NAMES, place=NUMBERS)
    def replace(self, name: str, place: int) -> None:
        """Replace a turn."""
        turns = self._turns(name)
        if place < len(turns):
            self.store.replace(name, turns[place].id, self._turn())

    @rule(name=NAMES, start=NUMBERS, stop=NUMBERS)
    def archive(self, name: str, start: int, stop: int) -> None:
        """Archive turns."""
        if start <= stop <= len(self._turns(name)) > 0:
            self.count += 1
            self.store.archive(name, start, stop, as_branch=f"branch {self.count}")

    @rule(name=NAMES)
    def restore(self, name: str) -> None:
        """Restore a branch."""
        if self._turns(name):
            for branch in self.store.get(name).branches[:1]:
                self.store.restore(name, branch)

    @rule(name=NAMES)
    def summarize(self, name: str) -> None:
        """Add a summary."""
        if self._turns(name):
            self.store.add_summary(name, Summary(0, 0, "So far.", Usage(5, 1), Decimal("0.01"), "m", START))

    @rule(name=NAMES, other=NAMES)
    def fork(self, name: str, other: str) -> None:
        """Fork a conversation."""
        if self._turns(name) and not self.store.list(prefix=other):
            self.store.fork(name, other)

    @rule(name=NAMES)
    def shorten(self, name: str) -> None:
        """Set a conversation to a single turn."""
        if self._turns(name):
            self.store.set(replace(self.store.get(name), turns=(self._turn(),), versions={}, branches=()))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Delete a conversation."""
        if self._turns(name):
            self.store.delete(name)

    @rule(name=NAMES)
    def view_one(self, name: str) -> None:
        """View a single conversation."""
        turns_df(self.store, conversation_id=name)

    @invariant()
    def cached_rows_equal_stored_ones(self) -> None:
        """The views equal those built from public methods."""
        assert_same_views(self.store, Foreign(self.store))

    def teardown(self) -> None:
        """Close the store."""
        self.store.close()
        self.directory.cleanup()

    def _turn(self) -> Turn:
        self.count += 1
        return said(str(self.count), model="m", context_hash=str(self.count % 2))

    def _turns(self, name: str) -> tuple[Turn, ...]:
        found = self.store.list(prefix=name)
        return self.store.get(name).turns if found else ()


TestChanging = Changing.TestCase
TestChanging.settings = settings(max_examples=10, stateful_step_count=10)


class TestReading:
    """How many rows are read."""

    @pytest.fixture
    def turns_read(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The number of turns that each read requested."""
        asked: list[int] = []
        turns, turns_at = DiskBackend.turns, DiskBackend.turns_at

        def counted_turns(rows: DiskBackend, cid: int) -> Any:
            found = turns(rows, cid)
            asked.append(len(found))
            return found

        def counted_turns_at(rows: DiskBackend, cid: int, places: Any) -> Any:
            asked.append(len(places))
            return turns_at(rows, cid, places)

        monkeypatch.setattr(DiskBackend, "turns", counted_turns)
        monkeypatch.setattr(DiskBackend, "turns_at", counted_turns_at)
        return asked

    def test_second_view_reads_nothing(self, disk: DiskStore, turns_read: list[int]) -> None:
        """No view reads unchanged conversations again."""
        disk.create(rich_state())
        messages_df(disk)
        assert turns_read == [7]
        for view in (messages_df, turns_df, usage_df, conversations_df):
            view(disk)
        assert turns_read == [7]

    def test_only_the_new_turn_is_read(self, disk: DiskStore, turns_read: list[int]) -> None:
        """The length of the conversation does not matter."""
        disk.create(ConversationState("a", turns=tuple(said(str(number)) for number in range(100))))
        messages_df(disk)
        disk.append("a", said("new"))
        assert messages_df(disk)["content"].iloc[-2] == "new"
        assert turns_read == [100, 1]

    def test_only_selected_conversations_are_read(self, disk: DiskStore, turns_read: list[int]) -> None:
        """A filter by conversation or user reads no other conversation."""
        for name in ("alice", "bob"):
            disk.append(f"{name}'s", said(name), user_id=name)
        assert texts_of(disk, user_id="bob") == ["bob"]
        assert turns_read == [1]
        assert texts_of(disk) == ["alice", "bob"]
        assert turns_read == [1, 1]

    def test_many_slices_are_merged(self, disk: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A conversation in many slices is read again as a whole, with equal results."""
        monkeypatch.setattr(row_cache, "MAX_SLICES", 3)
        monkeypatch.setattr(row_cache, "LINES_PER_BATCH", 4)
        for number in range(20):
            disk.append("a", said(str(number)))
            assert texts_of(disk) == [str(each) for each in range(number + 1)]


class TestStale:
    """Staleness is computed again for changed conversations."""

    def test_staleness_follows_changes(self, disk: DiskStore) -> None:
        """Later turns become stale; a fork with the same turns does not."""
        manager = ConversationManager(DemoProvider(), disk)
        conv = manager.new_conversation(conversation_id="a")
        conv.send("one")
        conv.send("two")
        conv.fork("b")
        assert turns_df(disk, status="all")["stale"].tolist() == [False] * 4
        conv.rerun(0, "uno")
        found = turns_df(disk, status="all")
        assert found[found["stale"]][["conversation_id", "user_text"]].to_numpy().tolist() == [["a", "two"]]
        conv.send("three")
        assert turns_df(disk, conversation_id="a")["stale"].tolist() == [False, True, False]


class TestUsers:
    """Cached rows are not shown to other users."""

    def test_users_share_the_cache_and_see_their_own_rows(self, disk: DiskStore) -> None:
        """This holds after a view of the whole store, and for a conversation's id."""
        manager = ConversationManager(DemoProvider(), disk)
        for name in ("alice", "bob"):
            disk.append(f"{name}'s", said(name), user_id=name)
        turns_df(disk)
        bobs = manager.for_user("bob")
        assert list(bobs.turns_df()["user_text"]) == ["bob"]
        assert list(bobs.turns_df()["conversation_id"].cat.categories) == ["bob's"]
        assert len(bobs.turns_df(conversation_id="alice's")) == 0
        assert texts_of(disk, conversation_id="alice's", user_id="bob") == []

    def test_conversation_deleted_during_the_read_is_omitted(
        self, disk: DiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its cached rows are not shown if it is deleted after it was listed."""
        disk.append("a", said("x"))
        turns_df(disk)
        disk.append("a", said("y"))
        listed = RowReader.records

        def then_deleted(reader: RowReader, prefix: str | None, user_id: str | None) -> dict[str, bytes]:
            found = listed(reader, prefix, user_id)
            disk.delete("a")
            return found

        monkeypatch.setattr(RowReader, "records", then_deleted)
        assert texts_of(disk) == []

    def test_reused_id_belongs_to_its_new_owner(self, disk: DiskStore) -> None:
        """A conversation id that another user took is not shown to its previous owner."""
        disk.append("shared", said("alice"), user_id="alice")
        turns_df(disk)
        disk.delete("shared")
        disk.append("shared", said("bob"), user_id="bob")
        assert texts_of(disk, user_id="alice") == []
        assert texts_of(disk, user_id="bob") == ["bob"]


class TestThreads:
    """Several threads read and write at the same time."""

    def test_each_thread_sees_whole_conversations(self, disk: DiskStore) -> None:
        """No thread fails, and the final view shows what is stored."""

        def work(number: int) -> None:
            for round_ in range(10):
                disk.append(f"c{number}", said(f"{number}.{round_}"))
                turns_df(disk)
                if round_ == 5:
                    disk.delete(f"c{number}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert texts_of(disk) == [f"{number}.{round_}" for number in range(4) for round_ in range(6, 10)]


class TestTtl:
    """Views do not extend a TTL, and do not show expired conversations."""

    def test_view_does_not_extend_the_ttl(self, open_store: Any, clock: Clock) -> None:
        """A conversation expires as if it had not been viewed."""
        store = open_store(ttl=timedelta(seconds=10))
        store.append("a", said("x"))
        clock.pass_s(8)
        assert len(turns_df(store)) == 1
        clock.pass_s(3)
        for view in (turns_df, messages_df, conversations_df):
            assert len(view(store)) == 0
        assert usage_df(store, by="status")["status"].tolist() == ["kept"]
        assert len(turns_df(store, conversation_id="a")) == 0


class TestDamage:
    """Unreadable rows are reported, never passed over."""

    def test_damaged_line_names_the_conversation(self, disk: DiskStore) -> None:
        """Incomplete JSON, and JSON that is not a turn, are reported; the conversation itself raises."""
        disk.append("a", said("x"))
        for line in (b'{"messages": [', b"[]", b"{}", b'{"messages":[{"role":"user"}],"usage":5}', b"{}{}"):
            disk.backend.run(partial(disk.backend.put, (1 << 24) | 0, line), write=True)
            with DiskStore(disk.directory) as fresh:
                with pytest.warns(UserWarning, match="'a'"):
                    assert len(turns_df(fresh)) == 0
                with pytest.raises(StoreCorruptedError, match="'a'"):
                    turns_df(fresh, conversation_id="a")

    def test_missing_row_names_the_conversation(self, disk: DiskStore) -> None:
        """A missing turn is reported."""
        disk.append("a", said("x"))
        disk.append("a", said("y"))
        disk.backend.run(lambda: disk.backend.delete((1 << 24) | 1), write=True)
        with pytest.warns(UserWarning, match=r"'a' .* is incomplete"):
            assert len(turns_df(disk)) == 0

    def test_numeric_cost_is_read(self, disk: DiskStore) -> None:
        """A cost may be a JSON number."""
        disk.append("a", said("x", id="1"))
        line = disk.backend.run(lambda: disk.backend.turns(1)[0], write=False)
        other = line.replace(b'"cost":"0.001"', b'"cost":0.001')
        assert other != line
        disk.backend.run(lambda: disk.backend.put((1 << 24) | 0, other, tag="t:1"), write=True)
        assert turns_df(disk)["cost_usd"].tolist() == [0.001]

    def test_number_beyond_64_bits_is_unknown(self, disk: DiskStore) -> None:
        """Tokens beyond 64 bits, which earlier versions stored, are missing."""
        disk.append("a", said("x", usage=Usage(10**12, 0)))
        line = disk.backend.run(lambda: disk.backend.turns(1)[0], write=False)
        absurd = line.replace(b"1000000000000", str(2**63).encode())
        disk.backend.run(lambda: disk.backend.put((1 << 24) | 0, absurd), write=True)
        assert turns_df(disk)["input_tokens"].isna().tolist() == [True]


def test_long_and_unusual_texts_are_preserved() -> None:
    """Line breaks, quotes, emojis, empty and very long texts are; of the control characters, none is shown."""
    store = MemoryStore()
    texts = ["", "a\nb\r\n\u2028", '"\\/', "🙂 é e\u0301", "nul\0inside", "x" * 3_000_000, "{}"]
    for text in texts:
        store.append("a", Turn(messages=(Message("user", "?"), Message("assistant", text))))
    shown = ["", "a\nb\n\u2028", '"\\/', "🙂 é e\u0301", "nulinside", "x" * 3_000_000, "{}"]
    assert list(messages_df(store)["content"])[1::2] == shown
    assert list(turns_df(store)["text"]) == shown
    assert [turn.text for turn in store.get("a").turns] == texts
