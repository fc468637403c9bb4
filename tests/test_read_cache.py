"""What a handle has read is not decoded again, and changes by others are always noticed."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from promptkit_nb.errors import ConversationNotFoundError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.row_access import MOST_BYTES, MOST_CONVERSATIONS
from storing import Clock, said, texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[DiskStore, DiskStore]]:
    """Two handles of one directory; both have read the conversation ``a`` of two turns."""
    with DiskStore(tmp_path) as mine, DiskStore(tmp_path) as theirs:
        mine.append("a", said("one"))
        mine.append("a", said("two"))
        for store in (mine, theirs):
            assert texts(store.get("a").turns) == texts(store.recent("a", 5)) == ["one", "two"]
        yield mine, theirs


def changed(directory: Path, statement: str) -> None:
    """Change the database, bypassing the store."""
    with closing(sqlite3.connect(directory / "cache.db")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


class TestTurns:
    """The row of a turn is written once, so it is decoded once."""

    def test_turn_is_decoded_once(self, store: StateStore) -> None:
        """Every read returns the same frozen value, on every store."""
        store.append("a", said("one"))
        (turn,) = store.get("a").turns
        assert store.get("a").turns[0] is turn
        assert store.recent("a", 1)[0] is turn

    def test_changes_by_others_are_seen(self, two: tuple[DiskStore, DiskStore]) -> None:
        """Appended and replaced turns, and a new conversation under the same id."""
        mine, theirs = two
        theirs.append("a", said("three"))
        assert texts(mine.recent("a", 2)) == ["two", "three"]
        theirs.replace("a", theirs.get("a").turns[0].id, said("ONE"))
        assert texts(mine.recent("a", 3)) == texts(mine.get("a").turns) == ["ONE", "two", "three"]
        theirs.delete("a")
        with pytest.raises(ConversationNotFoundError):
            mine.recent("a", 3)
        theirs.append("a", said("anew"))
        assert texts(mine.recent("a", 3)) == texts(mine.get("a").turns) == ["anew"]

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE Cache SET value = CAST('{' AS BLOB) WHERE key = (1 << 24) | 1",
            "DELETE FROM Cache WHERE key = (1 << 24) | 1",
        ],
    )
    def test_damage_is_seen_though_the_turn_was_read_before(
        self, two: tuple[DiskStore, DiskStore], tmp_path: Path, statement: str
    ) -> None:
        """A damaged or missing row is an error, never the previous turn or a shorter history."""
        changed(tmp_path, statement)
        for store in two:
            with pytest.raises(StoreCorruptedError, match="'a'"):
                store.get("a")
            with pytest.raises(StoreCorruptedError, match="'a'"):
                store.recent("a", 2)

    def test_newest_turns_are_not_read_if_nothing_changed(self, tmp_path: Path) -> None:
        """One query tells that nothing changed, even after our own appends; our other writes make it read again."""
        with DiskStore(tmp_path, clock=Clock()) as store:  # a turn older than the last write is looked up
            for name in ("one", "two"):
                store.append("a", said(name))
            store.recent("a", 5)
            asked: list[str] = []
            store.backend._connection.set_trace_callback(asked.append)
            assert texts(store.recent("a", 5)) == ["one", "two"]
            assert asked == ["BEGIN", "PRAGMA data_version", "COMMIT"]
            store.append("a", said("three"))
            asked.clear()
            assert texts(store.recent("a", 5)) == ["one", "two", "three"]
            assert asked == ["BEGIN", "PRAGMA data_version", "COMMIT"]
            store.replace("a", store.get("a").turns[0].id, said("ONE"))
            assert texts(store.recent("a", 5)) == ["ONE", "two", "three"]
            store.archive("a", 0, 1, as_branch="head")
            assert texts(store.recent("a", 5)) == ["two", "three"]

    def test_interrupt_right_after_an_append_hides_nothing(self, tmp_path: Path) -> None:
        """If Ctrl-C comes while the turn is being stored, it is stored and read."""
        with DiskStore(tmp_path) as store:
            store.append("a", said("one"))
            store.recent("a", 5)

            def interrupt(statement: str) -> None:
                if statement == "COMMIT":
                    signal.raise_signal(signal.SIGINT)

            store.backend._connection.set_trace_callback(interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.append("a", said("two"))
            store.backend._connection.set_trace_callback(None)
            assert texts(store.recent("a", 5)) == ["one", "two"]
            assert store.append("a", said("three")).turn_count == 3

    def test_threads_of_one_handle_see_each_others_writes(self, tmp_path: Path) -> None:
        """Each has its own connection, whose counters tell nothing about the others'."""
        with DiskStore(tmp_path) as store, ThreadPoolExecutor(1) as other:
            for number in range(20):
                other.submit(store.append, "a", said(f"{number} there")).result()
                store.append("a", said(f"{number} here"))
                expected = [f"{number} there", f"{number} here"]
                assert texts(store.recent("a", 2)) == texts(other.submit(store.recent, "a", 2).result()) == expected
            other.submit(store.delete, "a").result()
            with pytest.raises(ConversationNotFoundError):
                store.recent("a", 2)

    def test_deleted_text_is_dropped(self, store: DiskStore) -> None:
        """A handle that deletes a conversation keeps nothing of it in memory."""
        store.append("a", said("secret"))
        store.get("a")
        store.recent("a", 1)
        store.delete("a")
        assert "secret" not in repr(vars(store._cache))

    def test_no_more_bytes_are_cached_than_the_limit(self, store: DiskStore) -> None:
        """A handle that lives for months does not grow; it reads again what it has dropped."""
        long = "x" * (MOST_BYTES // 5)
        for number in range(8):
            store.append("a", said(f"{number}{long}"))
        kept = [line for rows in store._cache._turns.values() for line, *_ in rows.values()]
        assert 0 < sum(map(len, kept)) <= MOST_BYTES
        assert [turn.user_text[0] for turn in store.get("a").turns] == list("01234567")


class TestConversations:
    """Record and frame are cached together, because each change of a frame changes the record, too."""

    def test_metadata_that_another_handle_changed_is_in_the_head(self, two: tuple[DiskStore, DiskStore]) -> None:
        """An append after the change returns it."""
        mine, theirs = two
        theirs.update_metadata("a", topic="travel")
        assert mine.append("a", said("three")).metadata == {"topic": "travel"}

    def test_metadata_is_the_callers_own(self, store: StateStore) -> None:
        """Changing what an append returned changes neither the stored value nor the next result."""
        store.create(ConversationState("a", metadata={"tags": ["x"]}))
        for number in range(3):
            head = store.append("a", said(str(number)))
            assert head.metadata == {"tags": ["x"]}
            head.metadata["tags"].append("y")  # type: ignore[attr-defined]  # a mistake of the caller
            head.metadata["more"] = 1  # type: ignore[index]  # same
        assert store.get("a").metadata == {"tags": ["x"]}

    def test_failed_append_is_not_cached(
        self, two: tuple[DiskStore, DiskStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rolled back turn is in neither the head nor the totals of the next append."""
        mine, theirs = two
        with monkeypatch.context() as patch:
            patch.setattr(mine.backend, "put", _failing)  # record and turn have been written then
            with pytest.raises(StoreUnavailableError, match="no space"):
                mine.append("a", said("lost"), charge=Charge(("total",), Decimal(1)))
        head = mine.append("a", said("three"))
        assert head == theirs.head("a")
        assert texts(mine.recent("a", 9)) == texts(theirs.get("a").turns) == ["one", "two", "three"]

    def test_no_more_conversations_are_cached_than_the_limit(self, store: DiskStore) -> None:
        """The limit is a number of conversations."""
        for number in range(MOST_CONVERSATIONS + 5):
            store.create(ConversationState(str(number)))
            store.recent(str(number), 1)
        assert 0 < len(store._cache._conversations) <= MOST_CONVERSATIONS
        assert store.append("0", said("hello")).turn_count == 1


def _failing(*_: object, **__: object) -> None:
    raise OSError("no space")
