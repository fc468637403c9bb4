"""Redis servers that evict keys: nothing is written to them, numbers are never reused, and damage is never hidden."""

from __future__ import annotations

import warnings
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from promptkit_nb.errors import ConversationNotFoundError, StoreCorruptedError, StoreError, StoreUnavailableError
from promptkit_nb.exports.archives import export_store
from promptkit_nb.manager import ConversationManager
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.stores import redis_status
from promptkit_nb.stores.base import Charge, Reservation
from promptkit_nb.stores.redis import RedisStore
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from promptkit_nb.providers.base import ChatRequest, StreamEvent
    from redis_server import RedisServer

ALL_KEYS = ["allkeys-lru", "allkeys-lfu", "allkeys-random"]
VOLATILE = ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"]


@pytest.fixture
def server(own_redis_server: RedisServer) -> RedisServer:
    """An empty server that evicts nothing."""
    own_redis_server.call("FLUSHALL")
    set_policy(own_redis_server, "noeviction", maxmemory="0")
    with RedisStore(own_redis_server.url) as store:
        store.append("a", said("one"), user_id="alice")
        store.append("a", said("two"))
        store.append("b", said("three"))
    return own_redis_server


def set_policy(server: RedisServer, policy: str, *, maxmemory: str = "100mb") -> None:
    """Change the settings, as the server's owner would."""
    server.call("CONFIG", "SET", "maxmemory", maxmemory, "maxmemory-policy", policy)


def writes_to(store: RedisStore) -> list[Callable[[], object]]:
    """Return a call of each kind that would store something."""
    state = ConversationState("c")
    return [
        lambda: store.append("a", said("new")),
        lambda: store.append("c", said("new")),
        lambda: store.create(state),
        lambda: store.set(state),
        lambda: store.replace("a", "x", said("new")),
        lambda: store.archive("a", 0, 1, as_branch="x"),
        lambda: store.restore("a", "x"),
        lambda: store.add_summary("a", Summary(0, 0, "They talked.")),
        lambda: store.update_metadata("a", topic="travel"),
        lambda: store.fork("a", "c"),
        lambda: store.reserve(["total"], Decimal(1), limit=None, lease=60),
        lambda: store.settle(Reservation("x", ("total",), Decimal(1)), Decimal(1)),
    ]


def contents_of(server: RedisServer) -> dict[bytes, bytes]:
    """Return all keys with their values as the server would dump them."""
    return {key: server.call("DUMP", key) for key in server.call("KEYS", "*")}


class TestPolicies:
    """A server that may evict our keys is read from and deleted from, but not written to."""

    @pytest.mark.parametrize("policy", ALL_KEYS)
    def test_every_write_is_refused(self, server: RedisServer, policy: str) -> None:
        """With the setting to change; nothing is changed."""
        set_policy(server, policy)
        before = contents_of(server)
        with RedisStore(server.url) as store:
            for write in writes_to(store):
                with pytest.raises(
                    StoreUnavailableError,
                    match=rf"maxmemory 104857600, maxmemory-policy {policy}.*nothing was stored.*"
                    "CONFIG SET maxmemory-policy noeviction",
                ):
                    write()
        assert contents_of(server) == before

    @pytest.mark.parametrize("policy", [*ALL_KEYS, *VOLATILE])
    @pytest.mark.parametrize("ttl", [None, 60])
    def test_reading_exporting_and_deleting_work(
        self, server: RedisServer, tmp_path: Path, policy: str, ttl: int | None
    ) -> None:
        """With a TTL, too, which reading does not restart then."""
        set_policy(server, policy)
        with RedisStore(server.url, ttl=ttl) as store:
            assert texts(store.get("a").turns) == ["one", "two"]
            assert texts(store.recent("a", 1)) == ["two"]
            assert (store.head("a").turn_count, len(store.list()), len(list(store.iter_turns()))) == (2, 2, 3)
            assert store.spending("total").spent == 0
            assert export_store(store, tmp_path / "all.jsonl") == 2
            store.delete("a")
            assert store.delete_prefix("b") == ("b",)
            assert store.cleanup(1) == ()
            assert store.list() == []

    @pytest.mark.parametrize("policy", VOLATILE)
    def test_volatile_policies_concern_only_what_expires(self, server: RedisServer, policy: str) -> None:
        """Without a TTL, writing works, except to a conversation that got one from another store."""
        with RedisStore(server.url, ttl=60) as brief:
            brief.append("brief", said("one"))
        set_policy(server, policy)
        with RedisStore(server.url) as store, RedisStore(server.url, ttl=60) as brief:
            store.append("a", said("three"))
            assert texts(store.get("a").turns) == ["one", "two", "three"]
            with pytest.raises(StoreUnavailableError, match=policy):
                store.append("brief", said("two"))
            for write in writes_to(brief):
                with pytest.raises(StoreUnavailableError, match=policy):
                    write()

    @pytest.mark.parametrize(("policy", "maxmemory"), [("noeviction", "100mb"), ("allkeys-lru", "0")])
    def test_server_that_evicts_nothing_is_written_to(self, server: RedisServer, policy: str, maxmemory: str) -> None:
        """It has no limit, or refuses writes itself when it is full."""
        set_policy(server, policy, maxmemory=maxmemory)
        with RedisStore(server.url, ttl=60) as store:
            assert store.append("a", said("three")).turn_count == 3

    def test_changed_setting_is_noticed(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Open stores notice it, too, once their last check is older than a second."""
        with RedisStore(server.url) as store:
            store.append("a", said("three"))
            set_policy(server, "allkeys-lru")
            monkeypatch.setattr(redis_status, "VALID_S", 0)
            with pytest.raises(StoreUnavailableError, match="allkeys-lru"):
                store.append("a", said("four"))
            set_policy(server, "noeviction")
            assert store.append("a", said("four")).turn_count == 4


class TestNumbers:
    """The numbers that turns are stored under."""

    def test_they_are_not_counted(self, server: RedisServer) -> None:
        """A server that lost them gives out new ones: two stores share no keys except lists."""
        seen = set()
        for _ in range(3):
            with RedisStore(server.url) as store:
                store.append("a", said("one"))
                seen |= set(keys_of(server, "t:*"))
            server.call("FLUSHALL")
        assert len(seen) == 4  # three of a, and b
        assert all(int(key.rpartition(b":")[2]) >= 1 << 62 for key in seen)

    def test_turns_say_whose_they_are(self, server: RedisServer) -> None:
        """Rows of another conversation are never shown."""
        with RedisStore(server.url) as store:
            cid_of_a, cid_of_b = [store.backend.run(partial(store._visible, name), write=False).cid for name in "ab"]
            start = "promptkit:{promptkit:}t:"
            server.call("RENAME", f"{start}{cid_of_b}", f"{start}{cid_of_a}")
            for call in (store.get, lambda name: store.recent(name, 1), lambda name: store.append(name, said("new"))):
                with pytest.raises(StoreCorruptedError, match="'a'"):
                    call("a")


class TestEvicted:
    """Conversations that were evicted in part."""

    @pytest.mark.parametrize("kind", ["h", "a", "t", "i"])
    def test_half_evicted_conversation_is_damaged(self, server: RedisServer, tmp_path: Path, kind: str) -> None:
        """It is reported by name, never shown shorter or as missing; the others are fine, and it can be deleted."""
        with RedisStore(server.url) as store:
            (key,) = keys_of_a(server, kind)
            store.get("a")  # in the cache of this handle
            server.call("DEL", key)
            if kind != "i":
                with pytest.raises(StoreCorruptedError, match="'a'"):
                    store.get("a")
            with pytest.raises(StoreCorruptedError, match="'a'"):
                store.append("a", said("new"))
            if kind == "h":
                with pytest.raises(StoreCorruptedError, match="'a'"):
                    store.create(ConversationState("a"))
            left_out: list[str] = []
            export_store(store, tmp_path / "all.jsonl", on_damaged=lambda name, _: left_out.append(name))
            assert left_out == (["a"] if kind != "i" else [])
            assert texts(store.get("b").turns) == ["three"]
            store.delete("a")
            assert store.conversation_ids() == ("b",)
            assert [key for kind in "hati" for key in keys_of_a(server, kind)] == []
            with pytest.raises(ConversationNotFoundError):
                store.get("a")

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("with_times", ["", "o:updated_at", "o:created_at"])
    def test_list_of_ids_that_was_evicted_is_reported(self, server: RedisServer, with_times: str) -> None:
        """No conversation is missing, with or without a page or a prefix, and all are listed again."""
        calls: list[Callable[[RedisStore], list[str]]] = [
            lambda store: sorted(head.conversation_id for head in store.list()),
            lambda store: sorted(head.conversation_id for head in store.list(limit=9)),
            lambda store: [head.conversation_id for head in store.list("a")] + ["b"],
            lambda store: [*store.conversation_ids()],
        ]
        for call in calls:
            server.call("DEL", *(key for kind in filter(None, ("ids", with_times)) for key in keys_of(server, kind)))
            with RedisStore(server.url) as store:
                with pytest.warns(UserWarning, match="has lost a list of the conversations of this store: 2 ids"):
                    assert call(store) == ["a", "b"]
                assert call(store) == ["a", "b"]

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("is_begun_anew", [False, True])
    def test_users_list_that_was_evicted_is_reported(self, server: RedisServer, *, is_begun_anew: bool) -> None:
        """None of the user's conversations is missing, and all are listed again."""
        calls: list[Callable[[RedisStore], list[str]]] = [
            lambda store: sorted(head.conversation_id for head in store.list(user_id="alice")),
            lambda store: sorted(head.conversation_id for head in store.for_user("alice").list(limit=9)),
            lambda store: [*store.for_user("alice").conversation_ids()],
            lambda store: ["a", "a2"][: store.for_user("alice").count()],
        ]
        with RedisStore(server.url) as store:
            for number, call in enumerate(calls):
                store.list()  # the list by user is there
                server.call("DEL", *keys_of(server, "u:alice"))
                if is_begun_anew:
                    store.append("a2", said(f"{number}"), user_id="alice")
                    store.update_metadata("a2", number=number)
                expected = ["a", "a2"] if is_begun_anew else ["a"]
                with pytest.warns(UserWarning, match="has lost a list of the conversations of this store: 1 id were"):
                    assert call(store) == expected
                assert call(store) == expected
                assert server.call("SCARD", *keys_of(server, "u:alice")) == len(expected)

    @pytest.mark.parametrize("is_begun_anew", [False, True])
    @pytest.mark.parametrize("user_id", [None, "alice"])
    def test_all_lists_that_were_evicted_are_reported(
        self, server: RedisServer, user_id: str | None, *, is_begun_anew: bool
    ) -> None:
        """Conversations are found by their keys, also if a new one began the lists anew; those in part are damaged."""
        with RedisStore(server.url) as store:
            store.append("c", said("four"), user_id="alice")
            for name in ("h:b", "ids", "u:*", "o:*"):
                server.call("DEL", *keys_of(server, name))
        with RedisStore(server.url) as store:
            if is_begun_anew:
                store.append("new", said("five"), user_id="alice")
            for is_first in (True, False):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    found = {head.conversation_id for head in store.list(user_id=user_id, limit=9)}
                    ids = store.conversation_ids()
                words = "\n".join(str(each.message) for each in caught)
                assert found == ({"a", "c", "new"} if is_begun_anew else {"a", "c"})
                assert {*ids} == found | {"b"}
                assert ("has lost a list of the conversations of this store: 3 ids were" in words) is is_first
                assert ("'b'" in words) is (user_id is None)

    @pytest.mark.filterwarnings("error")
    def test_user_who_must_not_look_for_keys_can_list(self, server: RedisServer) -> None:
        """He sees what the lists have, as before."""
        server.call("DEL", *keys_of(server, "ids"))
        url = server.url_of_user("limited", "~*", "+@all", "-scan")
        with RedisStore(url) as store, pytest.warns(UserWarning, match="2 ids"):
            assert sorted(head.conversation_id for head in store.list()) == ["a", "b"]

    @pytest.mark.filterwarnings("error")
    def test_list_that_was_begun_anew_is_completed(self, server: RedisServer) -> None:
        """A conversation that was created after the eviction does not hide the others, nor do deleted ones appear."""
        with RedisStore(server.url) as store:
            store.append("gone", said("x"))
            server.call("DEL", *keys_of(server, "ids"))
            store.append("new", said("four"))
            store.delete("gone")
            with pytest.warns(UserWarning, match="2 ids"):
                assert sorted(head.conversation_id for head in store.list()) == ["a", "b", "new"]
            assert store.conversation_ids() == ("a", "b", "new")

    @pytest.mark.filterwarnings("error")
    def test_deleted_conversation_in_another_list_is_no_loss(self, server: RedisServer) -> None:
        """An earlier version does not remove it from the lists by time."""
        for key in keys_of(server, "o:*"):
            server.call("ZADD", key, "1", b"gone\xffalice")
        with RedisStore(server.url) as store:
            assert store.conversation_ids() == ("a", "b")

    def test_narrowed_store_deletes_only_its_own(self, server: RedisServer) -> None:
        """Without a record, the lists say whose a conversation is."""
        (key,) = keys_of_a(server, "h")
        with RedisStore(server.url) as store:
            server.call("DEL", key)
            with pytest.raises(StoreError):
                store.for_user("bob").delete("a")
            assert keys_of_a(server, "a")
            store.for_user("alice").delete("a")
            assert keys_of_a(server, "a") == []

    def test_after_an_eviction_no_turn_is_in_a_wrong_conversation(self, server: RedisServer) -> None:
        """A full server evicts keys at random; what is shown afterwards is whole, and its own."""
        with RedisStore(server.url) as store:
            for number in range(60):
                turns = tuple(said(f"{number}:{each}") for each in range(5))
                store.create(ConversationState(f"c{number}", f"user{number}", turns=turns))
        used = server.call("INFO", "memory")["used_memory"]
        set_policy(server, "allkeys-random", maxmemory=str(used + 100_000))
        for number in range(40):
            server.call("SET", f"other:{number}", "x" * 10_000)
        set_policy(server, "noeviction", maxmemory="0")
        assert server.call("INFO", "stats")["evicted_keys"] > 0
        damaged = 0
        with RedisStore(server.url) as store, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(60):
                store.append(f"new{number}", said(f"new{number}"), user_id="mallory")
            for number in range(60):
                assert texts(store.get(f"new{number}").turns) == [f"new{number}"]
                try:
                    assert texts(store.get(f"c{number}").turns) == [f"{number}:{each}" for each in range(5)]
                except StoreCorruptedError:
                    damaged += 1
                except ConversationNotFoundError:
                    assert keys_of(server, f"h:c{number}") == keys_of(server, f"a:c{number}") == []
        assert damaged > 0


def test_nothing_is_asked_that_could_not_be_stored(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to the model is refused before it is sent, so nothing is paid; replayed answers are still shown."""
    monkeypatch.setattr(redis_status, "VALID_S", 0)
    asked: list[object] = []

    class Counting(DemoProvider):
        def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
            asked.append(request)
            return super().stream(request)

    with RedisStore(server.url) as store:
        conversation = ConversationManager(Counting(), store, replay="auto").new_conversation()
        first = conversation.send("hello")
        set_policy(server, "allkeys-lru")
        with pytest.raises(StoreUnavailableError, match="CONFIG SET maxmemory-policy noeviction"):
            conversation.send("hello again")
        assert len(asked) == 1
        assert conversation.rerun(first.turn).content == first.content


def keys_of(server: RedisServer, name: str) -> list[bytes]:
    """Return the keys of this name: one or none."""
    return [*server.call("KEYS", f"promptkit:{{promptkit:}}{name}")]


def keys_of_a(server: RedisServer, kind: str) -> list[bytes]:
    """Return the keys of this kind that belong to the conversation ``a``, which has two turns."""
    if kind in "ha":
        return keys_of(server, f"{kind}:a")
    return [key for key in keys_of(server, f"{kind}:*") if server.call("HLEN", key) == (3 if kind == "t" else 2)]


def test_charge_is_refused_too(server: RedisServer) -> None:
    """An append with a charge does not charge anything."""
    set_policy(server, "allkeys-lru")
    with RedisStore(server.url) as store:
        with pytest.raises(StoreUnavailableError, match="allkeys-lru"):
            store.append("a", said("new"), charge=Charge(("total",), Decimal("0.1")))
        assert store.spending("total").spent == 0
