"""Large stores: what reads little, writes little, or lets others write, whatever is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import (
    ConversationManager,
    ConversationNotFoundError,
    ConversationState,
    DemoProvider,
    DiskStore,
    MemoryStore,
    RedisStore,
    StoreCorruptedError,
)
from promptkit_nb.chat.stored_conversation import Snapshot
from promptkit_nb.stores import damage, disk_backend, disk_cache, layout, redis_backend, redis_lists, row_erasure
from storing import START, Foreign, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.stores.row_store import RowStore

MANY = 300


def fill(store: StateStore, count: int = MANY) -> list[str]:
    """Create conversations, each a minute newer than the one before; return their ids in this order."""
    ids = [f"chat-{number:03}" for number in range(count)]
    for number, name in enumerate(ids):
        at = START + timedelta(minutes=number)
        store.create(ConversationState(name, "ab"[number % 2], created_at=at, updated_at=at))
    return ids


class TestListing:
    """``list(limit=n)`` reads little more than what it returns."""

    @pytest.mark.parametrize("sort_by", ["updated_at", "created_at", "conversation_id"])
    def test_page_is_all_that_is_decoded(
        self, store: StateStore, monkeypatch: pytest.MonkeyPatch, sort_by: Any
    ) -> None:
        """Ten of three hundred are read, of all users or of one."""
        ids = fill(store)
        decoded: list[str] = []

        def counted(stored: bytes, conversation_id: str) -> Any:
            decoded.append(conversation_id)
            return layout.record_of(stored, conversation_id)

        monkeypatch.setattr(damage, "record_of", counted)
        newest = [head.conversation_id for head in store.list(sort_by=sort_by, limit=10)]
        assert newest == ids[: -10 - 1 : -1] == decoded
        assert [head.conversation_id for head in store.list(sort_by=sort_by, user_id="a", limit=2, offset=1)] == [
            "chat-296",
            "chat-294",
        ]

    def test_disk_reads_an_index(self, tmp_path: Path) -> None:
        """SQLite neither scans the table nor sorts, for all users and for one."""
        with DiskStore(tmp_path) as store:
            table = store.backend
            plans = []
            for order, where, tags in (
                (f"{disk_cache.TIMES['updated_at']} DESC, key DESC", disk_cache.IS_RECORD, ()),
                (f"{disk_cache.TIMES['created_at']}, key", f"{disk_cache.IS_RECORD} AND +tag = ?", ("u:a",)),
                ("key DESC", "key >= ? AND key < ?", ("h:", "h;")),
            ):
                select = f"EXPLAIN QUERY PLAN SELECT value FROM Cache WHERE {where} ORDER BY {order}"  # noqa: S608 - constants
                plans.append([row[3] for row in table._connection.execute(select, tags)])
            assert [plan[0].partition("INDEX ")[2].partition(" ")[0] for plan in plans] == [
                "Promptkit_updated_at",
                "Promptkit_created_at",
                "Cache_key_raw",
            ]
            assert [len(plan) for plan in plans] == [1, 1, 1]

    @given(st.lists(st.integers(0, 3_000_000), max_size=30), st.integers(0, 12), st.integers(0, 5), st.booleans())
    def test_order_is_that_of_the_times(self, offsets: list[int], limit: int, offset: int, descending: bool) -> None:  # noqa: FBT001 - hypothesis
        """To the microsecond, with and without fractions of a second, in any zone; equal times are ordered by id."""
        store = MemoryStore()
        for number, us in enumerate(offsets):
            at = (START + timedelta(microseconds=us // 1_000_000 * 1_000_000 + us % 3)).astimezone()
            store.create(ConversationState(f"{number:02}", updated_at=at))
        ordered = sorted(store.list(), key=lambda head: (head.updated_at, head.conversation_id), reverse=descending)
        assert store.list(descending=descending, limit=limit, offset=offset) == ordered[offset : offset + limit]

    def test_disk_orders_as_memory_does(self, tmp_path: Path) -> None:
        """Times with and without a fraction, and texts that look like times in a user's name."""
        memory = MemoryStore()
        with DiskStore(tmp_path) as disk:
            for number, us in enumerate([0, 1, 500_000, 999_999, 1_000_000, 0, 500_000]):
                at = START + timedelta(microseconds=us)
                user = f'"updated_at":"{number}'
                for store in (memory, disk):
                    store.create(ConversationState(f"{number}", user, created_at=at, updated_at=at))
            for keys in ("updated_at", "created_at"):
                sort_by: Any = keys
                assert disk.list(sort_by=sort_by) == memory.list(sort_by=sort_by)
                assert disk.list(sort_by=sort_by, limit=3) == disk.list(sort_by=sort_by)[:3]

    def test_newest_fifty_are_shown(self, store: StateStore) -> None:
        """With the number of all; the list itself has all of them."""
        ids = fill(store, 60)
        manager = ConversationManager(DemoProvider(), store)
        listed = manager.list_conversations()
        assert len(listed) == 60
        for table in (listed, manager.newest_conversations()):
            lines = repr(table).splitlines()
            assert [line.split()[0] for line in lines[1:51]] == ids[:9:-1]
            assert lines[51:] == ["50 of 60 conversations"]
            html = table._repr_html_()
            assert html.count("<tr>") == 51
            assert "50 of 60 conversations" in html
        assert repr(manager.newest_conversations("chat-05")).count("\n") == 10
        foreign: Any = Foreign(store)
        assert repr(ConversationManager(DemoProvider(), foreign).newest_conversations()) == repr(listed)

    def test_near_matches_read_no_conversation(self, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A misspelled id is compared with the ids alone."""
        fill(store, 5)
        monkeypatch.setattr(type(store), "list", None)
        with pytest.raises(ConversationNotFoundError, match="Did you mean 'chat-003'"):
            ConversationManager(DemoProvider(), store).get_conversation("caht-003")


class TestRedisLists:
    """On Redis, lists by time make pages fast; whatever happens to them, no conversation is missing."""

    @pytest.fixture
    def redis(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
        """A store with three hundred conversations, of which few are read at once."""
        monkeypatch.setattr(redis_lists, "AT_ONCE", 20)
        monkeypatch.setattr(redis_backend, "FEW", 5)
        with RedisStore(redis_url, prefix=f"{uuid4()}:") as store:
            fill(store)
            yield store

    @pytest.mark.parametrize(
        "filters", [{}, {"user_id": "a"}, {"prefix": "chat-"}, {"prefix": "chat-2", "user_id": "b"}]
    )
    @pytest.mark.parametrize("sort_by", ["updated_at", "created_at", "conversation_id"])
    @pytest.mark.parametrize("descending", [True, False])
    def test_page_reads_about_as_many_as_it_returns(
        self,
        redis: RedisStore,
        monkeypatch: pytest.MonkeyPatch,
        filters: Any,
        sort_by: Any,
        descending: bool,  # noqa: FBT001 - a parameter
    ) -> None:
        """Pages are those of the whole list."""
        ordered = redis.list(sort_by=sort_by, descending=descending, **filters)
        read: list[str] = []
        picked = redis.backend._picked

        def noted(name: str, found: Any) -> Any:
            read.append(name)
            return picked(name, found)

        monkeypatch.setattr(redis.backend, "_picked", noted)
        for limit, offset in ((4, 0), (7, 6)):
            read.clear()
            assert (
                redis.list(sort_by=sort_by, descending=descending, limit=limit, offset=offset, **filters)
                == ordered[offset : offset + limit]
            )
            assert len(read) <= 2 * (limit + offset + 5)

    @pytest.mark.parametrize(
        "harm",
        [
            lambda server, key: server.delete(key),
            lambda server, key: server.zremrangebyrank(key, 290, 295),
            lambda server, key: server.zremrangebyrank(key, 0, 200),
            lambda server, key: server.zrem(key, b"chat-299\xffb") and server.zadd(key, {b"nobody's\xffb": 9e15}),
            lambda server, key: server.zadd(key, {b"nobody's\xffb": 9e15}),
        ],
        ids=["evicted", "newest gone", "oldest gone", "exchanged", "more"],
    )
    def test_damaged_list_hides_nothing(self, redis: RedisStore, harm: Callable[[Any, bytes], object]) -> None:
        """All are read instead, and the list is written anew, so that the next page is fast again."""
        ordered = redis.list()
        server, key = redis.backend._client, redis.backend._lists.by_time("updated_at")
        whole = server.zrange(key, 0, -1, withscores=True)
        harm(server, key)
        assert redis.list(limit=10) == ordered[:10]
        assert server.zrange(key, 0, -1, withscores=True) == whole
        harm(server, key)
        assert redis.list(limit=295, offset=3) == ordered[3:298]

    def test_wrong_kind_of_key_is_an_error(self, redis: RedisStore) -> None:
        """If another program uses the key of a list, nothing is shown that may not be all."""
        key = redis.backend._lists.by_time("updated_at")
        redis.backend._client.delete(key)
        redis.backend._client.set(key, b"x")
        with pytest.raises(StoreCorruptedError, match="other data under the keys of this store"):
            redis.list(limit=10)

    def test_every_write_is_in_order(self, redis: RedisStore) -> None:
        """Turns, in one step and in several, metadata, new and deleted conversations, another owner."""
        redis.append("chat-100", said("one"))
        redis.append("chat-100", said("two"))
        redis.update_metadata("chat-003", x=1)
        redis.fork("chat-004", "chat-fork")
        redis.append("chat-new", said("x"))
        redis.delete("chat-299")
        redis.set(replace(redis.get("chat-298"), user_id="zoe"))
        for sort_by in ("updated_at", "created_at"):
            key: Any = sort_by
            ordered = sorted(redis.list(), key=lambda head: (getattr(head, key), head.conversation_id), reverse=True)
            assert redis.list(sort_by=key, limit=9) == ordered[:9]
        assert redis.backend._client.zcard(redis.backend._lists.by_time("created_at")) == 301

    def test_equal_times_are_ordered_by_id(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even if one id begins with another, and a page ends among them."""
        monkeypatch.setattr(redis_lists, "AT_ONCE", 1)
        monkeypatch.setattr(redis_backend, "FEW", 0)
        ids = ["a", "ab", "a\0", "abc", "b", "a-", "é", "z"]
        with RedisStore(redis_url, prefix=f"{uuid4()}:") as store:
            for name in ids:
                store.create(ConversationState(name, created_at=START, updated_at=START))
            for limit in range(len(ids)):
                page = store.list(descending=False, limit=limit)
                assert [head.conversation_id for head in page] == sorted(ids)[:limit]

    def test_lists_are_written_when_they_are_first_needed(self, redis: RedisStore) -> None:
        """A store of an earlier version has none."""
        ordered = redis.list()
        lists, server = redis.backend._lists, redis.backend._client
        for key in redis_lists.TIME_KEYS:
            server.delete(lists.by_time(key))
        redis.append("chat-000", said("by this version"))
        assert redis.list(limit=3) == [redis.head("chat-000"), *ordered[:2]]
        assert [server.zcard(lists.by_time(key)) for key in redis_lists.TIME_KEYS] == [300, 300]


class TestCleanup:
    """Cleaning up works in batches."""

    def test_others_write_in_between(self, store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A conversation that is used while others are deleted stays."""
        for number in range(5):
            store.create(ConversationState(f"old-{number}", updated_at=START - timedelta(days=9)))
        monkeypatch.setattr(row_erasure, "BUSY_S", 1e-9)
        monkeypatch.setattr(row_erasure, "PAUSE_S", 0)
        used = iter([lambda: store.append("old-4", said("used again"))])
        let_others = type(store)._let_others_write

        def use(each: RowStore) -> None:
            let_others(each)
            next(used, lambda: None)()

        monkeypatch.setattr(type(store), "_let_others_write", use)
        assert store.cleanup(timedelta(days=1)) == ("old-0", "old-1", "old-2", "old-3")
        assert [head.conversation_id for head in store.list()] == ["old-4"]

    def test_ids_are_read_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other threads write in between; ids that come or go do not change the others."""
        monkeypatch.setattr(disk_backend, "IDS_AT_ONCE", 3)
        with DiskStore(tmp_path) as store:
            for number in range(7):
                store.create(ConversationState(f"id-{number}", f"user-{number % 2}"))
            read_ids = store.backend.ids_from
            calls: list[str] = []

            def read(start: str, user_id: str | None) -> tuple[list[str], bool]:
                calls.append(start)
                return read_ids(start, user_id)

            monkeypatch.setattr(store.backend, "ids_from", read)
            assert store.conversation_ids() == tuple(f"id-{number}" for number in range(7))
            assert calls == ["", "id-2", "id-4", "id-6"]
            assert store.for_user("user-1").conversation_ids() == ("id-1", "id-3", "id-5")

    @pytest.mark.parametrize("way", ["delete", "cleanup", "interrupted"])
    def test_long_conversation_is_deleted_in_steps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """It is gone at once; its turns follow, at the latest with the next deletion, and are in no file then."""
        monkeypatch.setattr(disk_backend, "ERASED_AT_ONCE", 3)
        monkeypatch.setattr(row_erasure, "PAUSE_S", 0)
        with DiskStore(tmp_path) as store:
            for number in range(10):
                store.append("long", said(f"secret {number}"))
            store.append("other", said("kept"))
            if way == "interrupted":
                with monkeypatch.context() as patch:
                    patch.setattr(type(store), "_let_others_write", interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        store.delete("long")
                store.append("long", said("anew"))
                assert len(store.get("long").turns) == 1
                store.cleanup(timedelta(days=999))
            elif way == "delete":
                store.delete("long")
            else:
                store.append("other", said("kept"))
                store.cleanup(timedelta(microseconds=1))
        assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def touch(touched: list[str], name: str, *_: object) -> dict[int, bytes]:
    """Record that rows of turns were used."""
    touched.append(name)
    return {}


def interrupt(_: object) -> None:
    """Interrupt, as Ctrl-C does."""
    raise KeyboardInterrupt


class TestLongConversations:
    """Undoing and setting a variable neither read nor write the turns."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda conv: conv.undo(),
            lambda conv: conv.variables.update(city="Porto"),
            lambda conv: conv.store.update_metadata(conv.id, x=1) and conv.store.archive(conv.id, 5, 6, as_branch="b"),
        ],
        ids=["undo", "variable", "archive in the middle"],
    )
    def test_turns_are_left_alone(
        self, store: RowStore, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]
    ) -> None:
        """No turn is read or written."""
        turns = tuple(said(f"{number}") for number in range(20))
        state = ConversationState("long", turns=turns, created_at=START, updated_at=START)
        store.create(state)
        conv = ConversationManager(DemoProvider(), store).get_conversation("long")
        assert len(conv.turns) == 20
        touched: list[str] = []
        for name in ("turns", "put_turn", "copy_turns"):
            monkeypatch.setattr(store.backend, name, partial(touch, touched, name))
        change(conv)
        assert touched == []

    @given(st.lists(st.sampled_from(["undo", "variable", "send", "restore", "clear", "truncate"]), max_size=8))
    def test_snapshot_is_what_is_stored(self, changes: list[str]) -> None:
        """After any changes, the state in memory equals the one that is read anew, with its hashes."""
        store = MemoryStore()
        conv = ConversationManager(DemoProvider(), store).new_conversation(system_prompt="You help.")
        for number in range(3):
            conv.send(f"My day {number} is sunny")
        for number, change in enumerate(changes):
            if change == "undo":
                conv.undo()
            elif change == "variable":
                conv.variables["city"] = number
            elif change == "send":
                conv.send(f"My city is {number}")
            elif change == "clear":
                conv.clear()
            elif change == "truncate":
                conv.truncate(keep_last=2)
            elif conv.branches():
                conv.restore(conv.branches()[-1])
            found, stored = conv.snapshot(), Snapshot.of(store.get(conv.id))
            assert found == stored
            assert found.context_hashes[: len(found.state.turns) + 1] == stored.context_hashes
            assert replace(found.state, revision=0) == replace(stored.state, revision=0)

    def test_store_of_your_own_is_rewritten(self) -> None:
        """A store that is not derived from ``StateStore`` has no ``update_settings``: it is read and set."""

        class Own:
            def __init__(self) -> None:
                self.store = MemoryStore()

            def __getattr__(self, name: str) -> Any:
                if name == "update_settings":
                    raise AttributeError(name)
                return getattr(self.store, name)

        own: Any = Own()
        conv = ConversationManager(DemoProvider(), own).new_conversation()
        conv.variables["city"] = "Porto"
        assert own.get(conv.id).settings.variables == {"city": "Porto"}
