"""What only Redis has: URLs and passwords, keys and their slot, servers that fail, expiry, counts of commands."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from promptkit_nb.errors import (
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
    StoreCorruptedError,
    StoreUnavailableError,
)
from promptkit_nb.exports.archives import export_store
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.turns import Message, Turn, Usage
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")
PASSWORD = "p@ss/w:rd#1"  # noqa: S105 - of the test's own server


def said(text: str, **fields: Any) -> Turn:
    """Return a turn in which the user said this."""
    return Turn(messages=(Message("user", text), Message("assistant", "Yes.")), usage=Usage(8, 2), **fields)


def texts(store: RedisStore, conversation_id: str = "a") -> list[str]:
    """Return what the user said in a conversation."""
    return [turn.user_text for turn in store.get(conversation_id).turns]


def key_of(prefix: str, name: str) -> str:
    """Return the key of this name."""
    return f"{prefix}{{{prefix}}}{name}"


def keys_of(client: redis.Redis, prefix: str) -> set[str]:
    """Return the names of the keys of a prefix."""
    tag = key_of(prefix, "")
    found: Any = client.keys("*")
    return {key.decode().removeprefix(tag) for key in found if key.decode().startswith(tag)}


def whole_text_of(error: BaseException) -> str:
    """Return everything that an error shows: message, causes, traceback."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.fixture
def prefix() -> str:
    """A prefix for this test."""
    return f"{uuid4()}:"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the shared server."""
    with closing(redis.Redis.from_url(redis_url)) as opened:
        yield opened


@pytest.fixture
def store(redis_url: str, prefix: str) -> Iterator[RedisStore]:
    """An empty store on the shared server."""
    with RedisStore(redis_url, prefix=prefix) as opened:
        yield opened


class TestAddress:
    """The URL of a store, and what is shown of it."""

    def test_repr_says_host_port_and_database(self, redis_url: str, prefix: str) -> None:
        """Also whether it is closed."""
        store = RedisStore(redis_url, prefix=prefix)
        where = redis_url.removeprefix("redis://")
        assert repr(store) == f"<RedisStore: {where}>"
        store.close()
        assert repr(store) == f"<RedisStore: closed, {where}>"

    def test_closed_store_is_unavailable_and_closes_twice(self, redis_url: str, prefix: str) -> None:
        """Every call raises, even an append to a cached conversation."""
        store = RedisStore(redis_url, prefix=prefix)
        store.append("a", said("one"))
        store.close()
        store.close()
        for call in (store.list, lambda: store.get("a"), lambda: store.append("a", said("two"))):
            with pytest.raises(StoreUnavailableError, match="is closed"):
                call()

    def test_databases_are_apart(self, redis_url: str, prefix: str) -> None:
        """The same prefix in another database is another store."""
        with (
            RedisStore(redis_url, prefix=prefix) as one,
            RedisStore(redis_url.replace("/0", "/1"), prefix=prefix) as other,
        ):
            one.append("a", said("hello"))
            assert other.list() == []

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://:se/cret@localhost:1",
            "redis://:6379?secret@localhost",
            "redis://:6379#secret@localhost",
            "redis://localhost/chats",
            7,
            None,
        ],
    )
    def test_invalid_url_is_refused_unquoted(self, url: Any) -> None:
        """An unencoded slash makes the password look like a port; no part of it is quoted."""
        with pytest.raises(InvalidArgumentError, match="url is not the URL of a Redis server") as caught:
            RedisStore(url)
        assert "cret" not in "".join(traceback.format_exception_only(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "{a}", "\ud83d", None, 7])
    def test_prefix_is_text_without_braces(self, redis_url: str, prefix: Any) -> None:
        """Braces would be another hash tag."""
        with pytest.raises(InvalidArgumentError, match=r"prefix=.* is not valid; give text without braces"):
            RedisStore(redis_url, prefix=prefix)

    @pytest.mark.parametrize("timeout_s", [0, -1, None, "soon"])
    def test_timeout_is_a_positive_number(self, redis_url: str, timeout_s: Any) -> None:
        """Waiting forever is not an option."""
        with pytest.raises(InvalidArgumentError, match="timeout_s="):
            RedisStore(redis_url, timeout_s=timeout_s)

    def test_tls_is_spoken_to_rediss(self, tmp_path: Path) -> None:
        """With the certificate authority that the URL names."""
        with RedisServer(tmp_path, tls=True) as server:
            url = f"{server.url}?ssl_ca_certs={server.certificate}"
            with RedisStore(url) as store:
                store.append("a", said("hello"))
                assert texts(store) == ["hello"]

    def test_unknown_certificate_is_refused(self, tmp_path: Path) -> None:
        """A server that cannot prove its identity gets no data."""
        with (
            RedisServer(tmp_path, tls=True) as server,
            pytest.raises(StoreUnavailableError, match=rf"127\.0\.0\.1:{server.port}/0 cannot be used.*(?i:certif)"),
        ):
            RedisStore(server.url)


class TestPassword:
    """A password works, and is shown nowhere."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[RedisServer]:
        """A server with a password."""
        with RedisServer(tmp_path, password=PASSWORD) as started:
            yield started

    def test_password_opens(self, server: RedisServer) -> None:
        """As an argument, or encoded in the URL."""
        with RedisStore(server.url, password=PASSWORD) as store:
            store.append("a", said("hello"))
        with RedisStore(server.url.replace("//", "//:p%40ss%2Fw%3Ard%231@")) as store:
            assert texts(store) == ["hello"]
            assert repr(store) == f"<RedisStore: 127.0.0.1:{server.port}/0>"

    @pytest.mark.parametrize("password", [None, "wrong-pa55"])
    def test_wrong_password_is_refused_unquoted(self, server: RedisServer, password: str | None) -> None:
        """The error names host and port."""
        with pytest.raises(
            StoreUnavailableError, match=rf"127\.0\.0\.1:{server.port}/0 refused access.*password"
        ) as caught:
            RedisStore(server.url, password=password)
        assert "pa55" not in whole_text_of(caught.value)

    def test_password_is_in_no_error_of_a_lost_server(self, tmp_path: Path) -> None:
        """Neither in the message nor in the traceback."""
        with RedisServer(tmp_path, password="pa55word") as server:  # noqa: S106 - of the test's own server
            url = server.url.replace("//", "//:pa55word@")
            store = RedisStore(url)
            server.kill()
            with pytest.raises(StoreUnavailableError) as caught:
                store.get("a")
            assert "pa55word" not in whole_text_of(caught.value) + repr(store) + str(store.backend.where)
            with pytest.raises(StoreUnavailableError) as at_opening:
                RedisStore(url)
            assert "pa55word" not in str(at_opening.value)


class TestClient:
    """A client that the caller made."""

    def test_it_stays_open(self, client: redis.Redis, prefix: str) -> None:
        """Closing the store closes none of its connections, not even idle ones."""
        client.ping()
        with RedisStore(client=client, prefix=prefix) as store:
            store.append("a", said("hello"))
        connections = client.connection_pool._available_connections
        assert connections
        assert all(connection._sock is not None for connection in connections)
        assert client.ping()

    def test_own_client_is_closed(self, redis_url: str, prefix: str) -> None:
        """The store leaves no connection behind."""
        store = RedisStore(redis_url, prefix=prefix)
        store.append("a", said("hello"))
        pool = store.backend._client.connection_pool
        store.close()
        assert all(connection._sock is None for connection in pool._available_connections)

    def test_one_connection_is_enough(self, redis_url: str, prefix: str) -> None:
        """A transaction reads with the connection that it watches with."""
        with closing(redis.Redis.from_url(redis_url, max_connections=1)) as client:
            store = RedisStore(client=client, prefix=prefix, ttl=60)
            store.append("a", said("one"))
            store.append("a", said("two"))
            store.fork("a", "b")
            assert store.delete_prefix("a") == ("a",)
            assert texts(store, "b") == ["one", "two"]

    def test_other_encoding_makes_no_difference(self, redis_url: str, prefix: str) -> None:
        """Keys are the same bytes whatever the client's encoding."""
        with closing(redis.Redis.from_url(redis_url, encoding="latin-1")) as client:
            RedisStore(client=client, prefix=prefix).append("日本語", said("one"), user_id="é")
        with RedisStore(redis_url, prefix=prefix) as store:
            assert [head.user_id for head in store.list(user_id="é")] == ["é"]

    def test_decoding_client_is_refused(self, redis_url: str) -> None:
        """Given as a client or by the URL."""
        client = redis.Redis.from_url(redis_url, decode_responses=True)
        with pytest.raises(InvalidArgumentError, match="without decode_responses=True"):
            RedisStore(client=client)
        with pytest.raises(InvalidArgumentError, match="without decode_responses=True"):
            RedisStore(f"{redis_url}?decode_responses=True")

    def test_invalid_client_is_refused(self) -> None:
        """The error names its type."""
        wrong: Any = "redis://localhost"
        with pytest.raises(InvalidArgumentError, match="client is a str"):
            RedisStore(client=wrong)

    def test_without_the_package_the_extra_is_named(self) -> None:
        """The error says ``pip install 'promptkit-nb[redis]'``, and importing the class works."""
        script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "redis":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from promptkit_nb import MissingDependencyError, RedisStore
try:
    RedisStore()
except MissingDependencyError as error:
    print(error)
"""
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ran.stdout == "RedisStore needs redis: pip install 'promptkit-nb[redis]'\n"


class TestNotebook:
    """``%chat_setup --store redis://…`` in a real shell."""

    @pytest.fixture
    def shell(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InteractiveShell]:
        """A shell with the extension, which is unloaded afterwards."""
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
        InteractiveShell.clear_instance()
        config = Config()
        config.HistoryManager.enabled = False
        started = InteractiveShell.instance(config=config)
        started.run_line_magic("load_ext", "promptkit_nb")
        yield started
        started.run_line_magic("unload_ext", "promptkit_nb")
        InteractiveShell.clear_instance()

    def test_conversations_are_kept_there(self, shell: InteractiveShell, tmp_path: Path) -> None:
        """The status line names server and database, but not the password."""
        with RedisServer(tmp_path, password="pa55word") as server:  # noqa: S106 - of the test's own server
            url = server.url.replace("//", "//:pa55word@")
            printed = printed_by(shell, f"%chat_setup --provider demo --store {url}?socket_timeout=5")
            assert printed == f"provider demo · model demo · store {server.url} · user default\n"
            printed_by(shell, "%chat_use talk")
            printed_by(shell, "%%chat -q\nhello")
            with RedisStore(url) as store:
                assert texts(store, "talk") == ["hello"]

    def test_missing_server_is_an_error_of_one_line(self, shell: InteractiveShell) -> None:
        """Without the password."""
        printed = printed_by(shell, "%chat_setup --provider demo --store redis://:pa55word@127.0.0.1:1/0")
        assert "The Redis server at 127.0.0.1:1/0 cannot be used" in printed
        assert "pa55word" not in printed


class TestKeys:
    """Which keys the store has."""

    def test_all_keys_carry_the_hash_tag(self, tmp_path: Path) -> None:
        """Whichever call is made; so no call crosses the slots of a cluster."""
        with RedisServer(tmp_path, cluster=True) as server, RedisStore(server.url, prefix="chats:", ttl=60) as store:
            call_everything(store)
            store.append("a", said("one"))
            with closing(server.client()) as client:
                found: Any = client.keys("*")
                assert len(found) > 8
                assert all(key.startswith(b"chats:{chats:}") for key in found)
                slots = {client.execute_command("CLUSTER", "KEYSLOT", key) for key in found}  # type: ignore[no-untyped-call]
                assert len(slots) == 1

    def test_foreign_keys_survive(self, client: redis.Redis, prefix: str, redis_url: str) -> None:
        """Even those with a similar prefix; none of them is listed."""
        foreign = {prefix, f"{prefix}h:a", f"{prefix}{{x}}", f"{{{prefix}y}}h:a", f"{{{prefix[:-1]}}}h:a"}
        for key in foreign:
            client.set(key, "theirs")
        with RedisStore(redis_url, prefix=prefix) as store, RedisStore(redis_url, prefix=f"{prefix}x") as other:
            store.append("a", said("hello"))
            other.append("a", said("other"))
            assert [head.conversation_id for head in store.list()] == ["a"]
            assert store.delete_prefix("a") == ("a",)
            assert store.cleanup(timedelta(seconds=0.001)) == ()
            assert texts(other) == ["other"]
        assert client.mget(sorted(foreign)) == [b"theirs"] * len(foreign)

    def test_deleted_conversation_leaves_no_key(self, store: RedisStore, client: redis.Redis, prefix: str) -> None:
        """Only the format, the ledger, what was spent, and the mark of the list of all ids remain."""
        call_everything(store)
        for head in store.list():
            store.delete(head.conversation_id)
        assert keys_of(client, prefix) == {"format", "l:user:alice", "kept", "counted", "calls", "ids"}
        assert client.zrange(key_of(prefix, "ids"), 0, -1) == [b"\xff"]

    def test_listing_never_asks_for_keys(self, store: RedisStore, client: redis.Redis) -> None:
        """Neither ``KEYS`` nor ``SCAN``, whatever is called after the first time."""
        assert store.list() == []
        before = commands_of(client)
        call_everything(store)
        used = {name for name, calls in commands_of(client).items() if calls > before.get(name, 0)}
        assert not used & {"keys", "scan", "sscan", "zscan", "hscan", "flushdb", "flushall"}

    def test_list_takes_as_many_commands_for_1000_as_for_10(self, store: RedisStore, client: redis.Redis) -> None:
        """One command reads the index and one all heads."""
        taken = []
        for upto in (10, 1000):
            for number in range(0 if upto == 10 else 10, upto):
                store.create(ConversationState(f"c{number}"))
            store.list()
            before = commands_of(client)
            assert len(store.list()) == upto
            after = commands_of(client)
            taken.append({name: after[name] - before.get(name, 0) for name in ("zrangebylex", "mget", "get")})
        assert taken == [{"zrangebylex": 1, "mget": 1, "get": 0}] * 2

    @pytest.mark.parametrize("name", ["h:a", "a:a", "ids", "u:default", "t:", "i:"])
    def test_foreign_data_is_an_error_and_left_alone(
        self, store: RedisStore, client: redis.Redis, prefix: str, name: str
    ) -> None:
        """A key of another type is never overwritten."""
        store.append("a", said("hello"))
        key = key_of(prefix, next((each for each in keys_of(client, prefix) if each.startswith(name)), name))
        client.delete(key)
        client.xadd(key, {"theirs": "1"})
        with pytest.raises(StoreCorruptedError, match=r"has other data under the keys of this store|is incomplete"):
            call_everything(store)
        assert client.xlen(key) == 1

    def test_newer_format_is_refused(self, redis_url: str, client: redis.Redis, prefix: str) -> None:
        """Nothing is read or changed."""
        client.set(key_of(prefix, "format"), 2)
        with pytest.raises(StoreUnavailableError, match=r"has format 2.*pip install -U promptkit-nb"):
            RedisStore(redis_url, prefix=prefix)
        assert client.get(key_of(prefix, "format")) == b"2"

    def test_foreign_format_is_refused(self, redis_url: str, client: redis.Redis, prefix: str) -> None:
        """A format key with another value belongs to another program."""
        client.set(key_of(prefix, "format"), "pdf")
        with pytest.raises(StoreCorruptedError, match=r"has other data in .*b'pdf'"):
            RedisStore(redis_url, prefix=prefix)


class TestDamage:
    """A damaged key is named in the error, and the rest can be saved."""

    def test_damaged_record_is_named_and_the_others_are_saved(
        self, store: RedisStore, client: redis.Redis, prefix: str, tmp_path: Path
    ) -> None:
        """A list reports it; ``export_store`` raises, or leaves out only that one."""
        for name in ("a", "b"):
            store.append(name, said("hello"))
        client.set(key_of(prefix, "h:b"), b"{")
        with pytest.warns(UserWarning, match=r"left out: 'b' \(.*on_damaged=print"):
            assert [head.conversation_id for head in store.list()] == ["a"]
        with pytest.raises(StoreCorruptedError, match=r"conversation 'b'.*on_damaged=print"):
            export_store(store, tmp_path / "all.jsonl")
        left_out: list[str] = []
        assert export_store(store, tmp_path / "some.jsonl", on_damaged=lambda name, _: left_out.append(name)) == 1
        assert left_out == ["b"]


class TestOneRoundTrip:
    """An append is one command if no one else wrote, and correct if someone did."""

    def test_it_is_taken(self, store: RedisStore, client: redis.Redis) -> None:
        """After the first one, twenty appends are twenty ``EVALSHA`` without a transaction."""
        store.append("a", said("first"))
        store.append("a", said("second"))  # loads the script
        before = commands_of(client)
        for number in range(20):
            store.append("a", said(str(number)))
        after = commands_of(client)
        assert after["evalsha"] - before["evalsha"] == 20
        assert all(after.get(name, 0) == before.get(name, 0) for name in ("watch", "multi", "exec", "evalsha_ro"))
        assert store.head("a").turn_count == 22

    def test_charge_takes_one_more(self, store: RedisStore, client: redis.Redis) -> None:
        """Twenty charged appends read their four accounts with twenty ``MGET``, and write with twenty ``EVALSHA``."""
        charge = Charge(("total", "day", "user", "conversation"), Decimal("0.1"))
        for name in ("first", "second"):  # the first creates the conversation, the second loads the script
            store.append("a", said(name), charge=charge)
        before = commands_of(client)
        for number in range(20):
            store.append("a", said(str(number)), charge=charge)
        after = commands_of(client)
        counts = {name: after.get(name, 0) - before.get(name, 0) for name in ("mget", "evalsha", "watch", "exec")}
        assert counts == {"mget": 20, "evalsha": 20, "watch": 0, "exec": 0}
        assert [store.spending(scope).spent for scope in charge.scopes] == [Decimal("2.2")] * 4

    def test_charge_counts_what_another_handle_spent(
        self, store: RedisStore, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If an account changes between the two commands, the append is repeated with the new amount."""
        store.append("a", said("first"))
        accounts = store.backend.accounts

        def spent_meanwhile(scopes: Sequence[str]) -> list[bytes | None]:
            found = accounts(scopes)
            monkeypatch.undo()
            with RedisStore(redis_url, prefix=prefix) as other:
                other.append("b", said("theirs"), charge=Charge(("total",), Decimal("0.2")))
            return found

        monkeypatch.setattr(store.backend, "accounts", spent_meanwhile)
        assert store.append("a", said("mine"), charge=Charge(("total",), Decimal("0.1"))).turn_count == 2
        assert store.spending("total").spent == Decimal("0.3")

    def test_it_is_taken_after_any_read(
        self, store: RedisStore, redis_url: str, client: redis.Redis, prefix: str
    ) -> None:
        """A conversation that another handle created is cached once it was read."""
        store.append("a", said("one"))
        with RedisStore(redis_url, prefix=prefix) as other:
            other.get("a")
            before = commands_of(client)
            other.append("a", said("two"))
            assert commands_of(client)["watch"] == before["watch"]

    def test_head_is_the_same_as_read_anew(self, store: RedisStore) -> None:
        """It has the same counts, totals, metadata, times and revision."""
        store.create(ConversationState("a", "alice", metadata={"topic": "travel"}))
        store.append("a", said("one", cost=Decimal("0.01")))
        head = store.append("a", said("two", cost=None))
        assert head == store.head("a")
        assert (head.turn_count, head.revision, head.unpriced_turns) == (2, 3, 1)

    def test_another_handle_wrote(self, store: RedisStore, redis_url: str, prefix: str) -> None:
        """Both turns stay, and the changed metadata is in the head."""
        store.append("a", said("mine"))
        with RedisStore(redis_url, prefix=prefix) as other:
            other.append("a", said("theirs"))
            other.update_metadata("a", topic="travel")
        head = store.append("a", said("mine again"))
        assert texts(store) == ["mine", "theirs", "mine again"]
        assert (head.turn_count, head.revision, head.metadata) == (3, 4, {"topic": "travel"})

    def test_another_handle_deleted(self, store: RedisStore, redis_url: str, prefix: str) -> None:
        """Without ``create`` it raises; with it a new conversation is started."""
        store.append("a", said("old"))
        with RedisStore(redis_url, prefix=prefix) as other:
            other.delete("a")
        with pytest.raises(ConversationNotFoundError):
            store.append("a", said("new"), create=False)
        assert store.append("a", said("new")).turn_count == 1
        assert texts(store) == ["new"]

    def test_another_handle_deleted_and_created_again(self, store: RedisStore, redis_url: str, prefix: str) -> None:
        """The turn is added to the new one."""
        store.append("a", said("old"))
        with RedisStore(redis_url, prefix=prefix) as other:
            other.delete("a")
            other.append("a", said("theirs"))
        store.append("a", said("mine"))
        assert texts(store) == ["theirs", "mine"]

    def test_same_turn_is_once(self, store: RedisStore) -> None:
        """The last turn or an old one; nothing is counted."""
        first, last = said("first"), said("last")
        store.append("a", first)
        head = store.append("a", last)
        assert store.append("a", last) == head
        assert store.append("a", first) == head

    def test_thousands_of_conversations_are_not_all_cached(self, store: RedisStore) -> None:
        """A handle that lives for months does not grow; it reads again what it has dropped."""
        for number in range(1050):
            store.append(str(number), said("one"))
        assert len(store._cache._conversations) <= 1000
        store.append("0", said("hello"))
        assert texts(store, "0") == ["one", "hello"]

    def test_cost_does_not_grow_with_the_history(self, store: RedisStore, client: redis.Redis) -> None:
        """The commands of an append, and the bytes in and out, are the same after 10 and after 10,000 turns."""
        measured = []
        for turns in (10, 10_000):
            name = str(turns)
            store.create(ConversationState(name, turns=tuple(said(f"{number:05}") for number in range(turns))))
            for _ in range(2):  # the first reads the record; the second may be the server's first, and loads the script
                store.append(name, said("warm up"))
            before, bytes_before = commands_of(client), traffic_of(client)
            for _ in range(5):
                store.append(name, said("one more"))
            own_bytes = [now - then for now, then in zip(traffic_of(client), bytes_before, strict=True)]
            after = commands_of(client)
            measured.append(({key: after[key] - before.get(key, 0) for key in after if key != "info"}, own_bytes))
        (few, few_bytes), (many, many_bytes) = measured
        assert few == many
        assert max(many_bytes[0] - few_bytes[0], many_bytes[1] - few_bytes[1]) < 500


class TestManyWriters:
    """Several handles, in processes and threads, write at once."""

    def test_four_processes_lose_nothing(self, redis_url: str, prefix: str, store: RedisStore) -> None:
        """Fifty appends each to one conversation: 200 turns, each stored once, in the order of its writer."""
        writers = [SPAWN.Process(target=append_many, args=(redis_url, prefix, name, 50)) for name in "abcd"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        assert [writer.exitcode for writer in writers] == [0] * 4
        found = texts(store)
        assert sorted(found) == sorted(f"{name}{number}" for name in "abcd" for number in range(50))
        for name in "abcd":
            assert [text for text in found if text[0] == name] == [f"{name}{number}" for number in range(50)]
        assert store.head("a").revision == 200

    def test_eight_threads_share_a_handle(self, store: RedisStore) -> None:
        """On one conversation and with one connection pool."""
        failed: list[BaseException] = []

        def append(name: str) -> None:
            try:
                for number in range(10):
                    store.append("a", said(f"{name}{number}"))
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failed.append(error)

        threads = [threading.Thread(target=append, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []
        assert sorted(texts(store)) == sorted(f"{name}{number}" for name in "abcdefgh" for number in range(10))

    def test_forked_child_has_connections_of_its_own(self, store: RedisStore) -> None:
        """Parent and child both use the same handle."""
        store.append("a", said("before"))
        child = FORK.Process(target=append_to, args=(store, "child", 20))
        child.start()
        append_to(store, "parent", 20)
        child.join(60)
        assert child.exitcode == 0
        assert len(set(texts(store))) == store.head("a").turn_count == 41

    def test_cleanup_spares_what_was_written_meanwhile(self, store: RedisStore, redis_url: str, prefix: str) -> None:
        """An old conversation that is continued between reading and deleting stays."""
        store.append("a", said("old"))
        time.sleep(0.05)
        with RedisStore(redis_url, prefix=prefix) as other:
            before_writing(store, lambda: other.append("a", said("new")))
            assert store.cleanup(0.05) == ()
        assert texts(store) == ["old", "new"]

    def test_expired_id_of_another_user_is_in_one_list(self, redis_url: str, prefix: str, store: RedisStore) -> None:
        """If the server dropped alice's conversation and bob took its id, only bob's list has it."""
        with RedisStore(redis_url, prefix=prefix, ttl=0.05) as brief:
            brief.append("a", said("hello"), user_id="alice")
        time.sleep(0.1)
        store.append("a", said("hello"), user_id="bob")
        assert store.list(user_id="alice") == []
        assert [head.user_id for head in store.list()] == ["bob"]


class TestExpiry:
    """The server drops expired conversations."""

    def test_nothing_is_left(self, redis_url: str, client: redis.Redis, prefix: str) -> None:
        """After the TTL, neither keys nor entries in the lists are left, only what the conversations cost."""
        with RedisStore(redis_url, prefix=prefix, ttl=2) as store:
            store.append("a", said("one"), user_id="alice")
            store.append("a", said("two"))
            store.update_metadata("a", topic="travel")
            store.fork("a", "b")
            store.create(ConversationState("c", "alice"))
            assert len(store.list(user_id="alice")) == 3
            time.sleep(2.1)
            assert not {name for name in keys_of(client, prefix) if name[:2] in {"h:", "a:", "t:", "i:"}}
            assert store.list() == []
            assert "u:alice" not in keys_of(client, prefix)
            assert client.zrange(key_of(prefix, "ids"), 0, -1) == [b"\xff"]
            with pytest.raises(ConversationNotFoundError):
                store.get("a")

    @pytest.mark.parametrize("call", ["get", "recent", "append", "update_metadata", "set"])
    def test_every_key_lives_on(self, redis_url: str, client: redis.Redis, prefix: str, call: str) -> None:
        """Reading or writing any key restarts the TTL of all, to the millisecond."""
        with RedisStore(redis_url, prefix=prefix, ttl=15) as store:
            store.append("a", said("one"))
            state = store.get("a")
            keys = {name for name in keys_of(client, prefix) if name[:2] in {"h:", "a:", "t:", "i:"}}
            assert len(keys) == 4
            for name in keys:
                client.pexpire(key_of(prefix, name), 9000)
            calls: dict[str, Callable[[], object]] = {
                "get": lambda: store.get("a"),
                "recent": lambda: store.recent("a", 1),
                "append": lambda: store.append("a", said("two")),
                "update_metadata": lambda: store.update_metadata("a", topic="travel"),
                "set": lambda: store.set(state),
            }
            calls[call]()
            alive = {name for name in keys_of(client, prefix) if name[:2] in {"h:", "a:", "t:", "i:"}}
            assert len(alive) == 4
            for name in alive:
                remaining: Any = client.pttl(key_of(prefix, name))
                assert 10_000 < remaining <= 15_000

    def test_store_without_ttl_leaves_the_expiry_of_others(
        self, redis_url: str, client: redis.Redis, prefix: str
    ) -> None:
        """Its writes neither clear nor shorten it: the TTL starts again, at the server, too."""
        with RedisStore(redis_url, prefix=prefix, ttl=60) as brief, RedisStore(redis_url, prefix=prefix) as store:
            brief.append("a", said("one"))
            names = {name for name in keys_of(client, prefix) if name[:2] in {"h:", "a:", "t:", "i:"}}
            writes: list[Callable[[], object]] = [
                partial(store.append, "a", said("two")),
                lambda: store.set(store.get("a")),
            ]
            for write in writes:
                for name in names & keys_of(client, prefix):
                    client.pexpire(key_of(prefix, name), 1000)
                write()
                names = {name for name in keys_of(client, prefix) if name[:2] in {"h:", "a:", "t:", "i:"}}
                remaining: list[Any] = [client.pttl(key_of(prefix, name)) for name in names]
                assert len(names) == 4
                assert all(50_000 < each <= 60_000 for each in remaining), remaining

    def test_append_after_expiry_begins_anew(self, redis_url: str, prefix: str) -> None:
        """A handle with the conversation in its cache does not restore it."""
        with RedisStore(redis_url, prefix=prefix, ttl=0.1) as store:
            store.append("a", said("old"))
            time.sleep(0.2)
            assert store.append("a", said("new")).turn_count == 1
            assert texts(store) == ["new"]


class TestLostServer:
    """A lost server is an error, and no acknowledged write is lost."""

    def test_no_server(self) -> None:
        """The error names host and port, and how to check."""
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1/0 cannot be used.*redis-cli ping"):
            RedisStore("redis://127.0.0.1:1/0")

    def test_killed_server_loses_nothing_acknowledged(self, tmp_path: Path) -> None:
        """The store is unavailable while it is down, works when it is back, and a retried turn is stored once."""
        with RedisServer(tmp_path, durable=True) as server, RedisStore(server.url) as store:
            turns = [said(str(number)) for number in range(30)]
            for turn in turns[:-1]:
                store.append("a", turn)
            server.kill()
            calls: list[Callable[[], object]] = [
                lambda: store.append("a", turns[-1]),
                lambda: store.get("a"),
                store.list,
                lambda: store.create(ConversationState("b")),
            ]
            for call in calls:
                with pytest.raises(StoreUnavailableError, match=rf"127\.0\.0\.1:{server.port}/0 cannot be used"):
                    call()
            server.start()
            store.append("a", turns[-1])
            store.append("a", turns[-1])
            assert store.get("a").turns == tuple(turns)

    def test_server_killed_while_four_threads_append(self, tmp_path: Path) -> None:
        """Each repeats a turn until it is acknowledged: all are stored, each once."""
        with RedisServer(tmp_path, durable=True) as server, RedisStore(server.url) as store:
            threads = [threading.Thread(target=append_until_kept, args=(store, name, 40)) for name in "abcd"]
            for thread in threads:
                thread.start()
            for _ in range(3):
                time.sleep(0.15)
                server.kill()
                server.start()
            for thread in threads:
                thread.join(60)
            assert sorted(texts(store)) == sorted(f"{name}{number}" for name in "abcd" for number in range(40))

    def test_paused_server_is_not_waited_for_beyond_the_timeout(self, tmp_path: Path) -> None:
        """A timeout is raised, then it works again; the turn that was being appended is stored once."""
        with RedisServer(tmp_path) as server, RedisStore(server.url, timeout_s=0.3) as store:
            store.append("a", said("one"))
            turn = said("two")
            server.pause()
            for call in (lambda: store.append("a", turn), lambda: store.get("a")):
                started = time.monotonic()
                with pytest.raises(
                    StoreUnavailableError, match=rf"127\.0\.0\.1:{server.port}/0 cannot be used.*(?i:time)"
                ):
                    call()
                assert time.monotonic() - started < 5
            server.resume()
            store.append("a", turn)
            assert texts(store) == ["one", "two"]

    def test_lost_answer_is_not_a_refusal(self, tmp_path: Path) -> None:
        """If the connection is lost during a creation, the error says so, not that the id is taken."""
        with RedisServer(tmp_path) as server, RedisStore(server.url) as store:
            before_writing(store, server.kill)
            with pytest.raises(StoreUnavailableError, match="cannot be used"):
                store.create(ConversationState("a"))
            server.start()
            store.create(ConversationState("a"))
            with pytest.raises(ConversationExistsError):
                store.create(ConversationState("a"))

    def test_restarted_server_gets_a_new_connection(self, tmp_path: Path) -> None:
        """The first call after it succeeds, although the connection is dead and the script is not loaded."""
        with RedisServer(tmp_path, durable=True) as server, RedisStore(server.url) as store:
            store.append("a", said("one"))
            store.append("a", said("two"))
            server.kill()
            server.start()
            store.append("a", said("three"))
            assert texts(store) == ["one", "two", "three"]

    def test_cluster_that_does_not_serve_the_slot_is_unavailable(self, tmp_path: Path) -> None:
        """The error quotes the server."""
        with RedisServer(tmp_path, cluster=True) as server, RedisStore(server.url) as store:
            with closing(server.client()) as client:
                client.execute_command("CLUSTER", "DELSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
            with pytest.raises(StoreUnavailableError, match=r"cannot be used: .*not served"):
                store.list()

    def test_replica_is_unavailable(self, redis_url: str, tmp_path: Path) -> None:
        """It is read-only, and the error asks for the address of the primary."""
        port = redis_url.rpartition(":")[2].partition("/")[0]
        with RedisServer(tmp_path) as server, RedisStore(server.url) as store, closing(server.client()) as client:
            store.append("a", said("one"))
            client.replicaof("127.0.0.1", int(port))
            with pytest.raises(StoreUnavailableError, match="give the address of the primary"):
                store.append("a", said("two"))

    def test_full_server_says_so(self, tmp_path: Path) -> None:
        """Reading still works."""
        with RedisServer(tmp_path) as server, RedisStore(server.url) as store, closing(server.client()) as client:
            store.append("a", said("one"))
            client.config_set("maxmemory", "1mb")
            with pytest.raises(StoreUnavailableError, match="is full"):
                store.append("a", said("x" * 2_000_000))
            with pytest.raises(StoreUnavailableError, match="is full"):
                store.create(ConversationState("b"))
            assert texts(store) == ["one"]


def call_everything(store: RedisStore) -> None:
    """Make each call that reads or writes rows once."""
    first = said("one")
    store.append("a", first, user_id="alice")
    store.append("a", said("two"))
    store.append("a", said("three"))
    store.replace("a", first.id, said("one, better"))
    store.archive("a", 1, 2, as_branch="b1")
    store.restore("a", "b1")
    store.fork("a", "b")
    store.set(store.get("b"))
    store.recent("a", 2)
    store.head("a")
    store.update_metadata("a", topic="travel")
    store.list("a")
    store.list(user_id="alice")
    list(store.iter_turns())
    store.settle(store.reserve(["user:alice"], Decimal(1), limit=Decimal(2), lease=60), Decimal(1))
    store.spending("user:alice")
    store.create(ConversationState("old:1"))
    store.delete_prefix("old:")
    store.create(ConversationState("old:2"))
    store.delete("old:2")
    store.cleanup(timedelta(days=1))


def printed_by(shell: InteractiveShell, cell: str) -> str:
    """Run a cell and return all the text that it shows."""
    with capture_output() as captured:
        shell.run_cell(cell)  # type: ignore[no-untyped-call]  # IPython's has no types
    return captured.stdout + captured.stderr


def before_writing(store: RedisStore, act: Callable[[], object]) -> None:
    """Run an action once, between the reads and the writes of the store's next transaction."""
    once = [act]
    run_once = store.backend._run_once

    def run(work: Callable[[], object]) -> object:
        def work_then_act() -> object:
            result = work()
            if once:
                once.pop()()
            return result

        return run_once(work_then_act)

    store.backend._run_once = run  # type: ignore[assignment, method-assign]


def commands_of(client: redis.Redis) -> dict[str, int]:
    """Return how often the server has executed each command, including those in scripts."""
    stats: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}


def traffic_of(client: redis.Redis) -> tuple[int, int]:
    """Return the bytes that the server has received and sent."""
    stats: Any = client.info("stats")
    return stats["total_net_input_bytes"], stats["total_net_output_bytes"]


def append_many(url: str, prefix: str, name: str, count: int) -> None:
    """Append this many turns to the conversation ``a``, in a process of its own."""
    with RedisStore(url, prefix=prefix) as store:
        append_to(store, name, count)


def append_to(store: RedisStore, name: str, count: int) -> None:
    """Append this many turns to the conversation ``a``."""
    for number in range(count):
        store.append("a", said(f"{name}{number}"))


def append_until_kept(store: RedisStore, name: str, count: int) -> None:
    """Append this many turns, each repeated until it is acknowledged."""
    for number in range(count):
        turn = said(f"{name}{number}")
        while True:
            try:
                store.append("a", turn)
                break
            except StoreUnavailableError:
                time.sleep(0.02)
