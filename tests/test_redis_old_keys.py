"""A store on Redis that version 0.1 wrote: its keys begin with a brace, and move when a conversation is first written.

``data/redis.format1.jsonl`` has the keys of such a store: four conversations, and accounts of the ledger.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from promptkit_nb.errors import ConversationExistsError, StoreUnavailableError
from promptkit_nb.exports.archives import export_store
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.redis import RedisStore
from storing import said
from test_stored_formats import DATA, IDS, load_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis_server import RedisServer

OLD, NEW = b"{team:}", b"team:{team:}"
LIMITED = ("~team:*", "-@all", "+@read", "+@write", "+@transaction", "+@connection", "+time", "+info")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def server(own_redis_server: RedisServer) -> RedisServer:
    """A server with a store of version 0.1 and nothing else."""
    own_redis_server.call("FLUSHALL")
    load_dump(own_redis_server.url, "team:")
    return own_redis_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    """That store, opened by a user with all rights."""
    with RedisStore(server.url, prefix="team:") as opened:
        yield opened


def names(server: RedisServer, start: bytes) -> set[str]:
    """Return the names of the keys that start so."""
    return {key.removeprefix(start).decode() for key in server.call("KEYS", "*") if key.startswith(start)}


def limited(server: RedisServer) -> RedisStore:
    """Open the store as a user who may use only keys that begin with the prefix."""
    return RedisStore(server.url_of_user("limited", *LIMITED), prefix="team:")


def exported(store: RedisStore, path: Path) -> bytes:
    """Return all of a store in the form of exports."""
    export_store(store, path)
    return path.read_bytes()


class TestAllRights:
    """A user with all rights sees everything, and moves what they write."""

    def test_reading_moves_nothing(self, server: RedisServer, store: RedisStore, tmp_path: Path) -> None:
        """All of it is read from the old keys."""
        before = names(server, OLD)
        assert exported(store, tmp_path / "all.jsonl") == (DATA / "disk.format1.jsonl").read_bytes()
        assert [len(store.recent(name, 5)) for name in IDS] == [3, 0, 2, 2]
        assert names(server, OLD) == before
        assert names(server, NEW) == set()

    @pytest.mark.parametrize("call", ["append", "set", "metadata", "replace", "archive", "fork"])
    def test_first_write_moves_the_conversation(self, server: RedisServer, store: RedisStore, call: str) -> None:
        """With its versions and branches, and its entries in the lists; the others stay where they are."""
        state = store.get("history")
        calls: dict[str, Callable[[], object]] = {
            "append": lambda: store.append("history", said("new")),
            "set": lambda: store.set(state),
            "metadata": lambda: store.update_metadata("history"),
            "replace": lambda: store.replace("history", state.turns[0].id, said("new")),
            "archive": lambda: store.archive("history", 0, 1, as_branch="first"),
            "fork": lambda: store.fork("history", "twin"),
        }
        others = {f"{kind}:{name}" for kind in "ha" for name in IDS if name != "history"}
        calls[call]()
        assert {"h:history", "a:history", "ids"} <= names(server, NEW)
        assert not {"h:history", "a:history"} & names(server, OLD)
        assert others <= names(server, OLD)
        assert [head.conversation_id for head in store.list("history")] == ["history"]
        assert len(store.list()) == len(IDS) + (call == "fork")
        found = store.get("history")
        if call in {"set", "metadata", "fork"}:
            assert replace(found, revision=state.revision) == state
        assert {turn.id for turn in state.stored_turns} <= {turn.id for turn in found.stored_turns}
        with RedisStore(server.url, prefix="team:") as other:
            assert other.get("history") == found

    def test_deleting_leaves_no_old_key(self, server: RedisServer, store: RedisStore) -> None:
        """Neither rows nor entries in lists; under new keys, only what the conversations cost."""
        for name in IDS:
            store.delete(name)
        assert names(server, NEW) == {"kept", "counted", "calls"}
        assert {name for name in names(server, OLD) if name[0] != "l"} == {"format", "cid"}

    def test_taken_id_is_taken(self, store: RedisStore) -> None:
        """A conversation under old keys exists."""
        with pytest.raises(ConversationExistsError):
            store.create(ConversationState("empty"))

    def test_ledger_goes_on(self, server: RedisServer, store: RedisStore) -> None:
        """Earlier spending counts, and is moved with the next charge."""
        scopes = sorted(name[2:] for name in names(server, OLD) if name.startswith("l:"))
        before = [store.spending(scope).spent for scope in scopes]
        assert any(before)
        store.append("history", said("new"), charge=Charge(tuple(scopes), Decimal("0.5")))
        assert [store.spending(scope).spent for scope in scopes] == [spent + Decimal("0.5") for spent in before]
        assert not [name for name in names(server, OLD) if name.startswith("l:")]

    def test_eight_processes_move_it_together(self, server: RedisServer, store: RedisStore) -> None:
        """Each appends to the same conversation: one of them moves it, and no turn is lost."""
        before = [turn.id for turn in store.get("history").turns]
        writers = [SPAWN.Process(target=append_five, args=(server.url,)) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        assert [writer.exitcode for writer in writers] == [0] * 8
        found = [turn.id for turn in store.get("history").turns]
        assert found[: len(before)] == before
        assert len(set(found)) == len(before) + 40
        assert names(server, NEW) >= {"h:history"}
        assert "h:history" not in names(server, OLD)

    def test_everything_is_moved_at_once(self, server: RedisServer, store: RedisStore, tmp_path: Path) -> None:
        """After ``move_old_keys``, no old key is left, and all is as it was."""
        assert store.move_old_keys() == len(IDS)
        assert names(server, OLD) == set()
        assert store.move_old_keys() == 0
        with RedisStore(server.url, prefix="team:") as other:
            assert exported(other, tmp_path / "all.jsonl") == (DATA / "disk.format1.jsonl").read_bytes()


class TestLimitedToThePrefix:
    """A user without rights to the old keys never sees a part for the whole."""

    def test_old_keys_are_an_error_that_names_the_right(self, server: RedisServer) -> None:
        """For every call that would need them."""
        with limited(server) as store:
            calls: list[Callable[[], object]] = [
                store.list,
                lambda: store.get("history"),
                lambda: store.append("fresh", said("new")),
                lambda: store.spending("total"),
            ]
            for call in calls:
                with pytest.raises(
                    StoreUnavailableError, match=r"lacks a right.*ACL SETUSER limited ~team:\* ~{team:}\*"
                ):
                    call()

    def test_whole_store_once_everything_has_moved(
        self, server: RedisServer, store: RedisStore, tmp_path: Path
    ) -> None:
        """It reads and writes all of it."""
        store.move_old_keys()
        with limited(server) as own:
            assert exported(own, tmp_path / "all.jsonl") == (DATA / "disk.format1.jsonl").read_bytes()
            assert own.append("history", said("new")).turn_count == 3

    def test_fresh_prefix_is_a_store_without_a_warning(
        self, server: RedisServer, recwarn: pytest.WarningsRecorder
    ) -> None:
        """Names of keys can be seen without a right to them, so it is known that there are no old ones."""
        server.call("FLUSHALL")
        with limited(server) as store:
            store.append("a", said("one"))
        with RedisStore(server.url, prefix="team:") as other:
            assert len(other.list()) == 1
        assert [each.message for each in recwarn] == []

    def test_hidden_names_are_a_warning(self, server: RedisServer) -> None:
        """Without a right to ``SCAN``, it is unknown whether there are old keys."""
        url = server.url_of_user("limited", *LIMITED, "-scan")
        with pytest.warns(
            UserWarning, match=r"neither read nor find keys of version 0\.1 \(~{team:}\*\).*move_old_keys"
        ):
            RedisStore(url, prefix="team:").close()


def append_five(url: str) -> None:
    """Append five turns to a conversation, in a separate process."""
    with RedisStore(url, prefix="team:") as store:
        for number in range(5):
            store.append("history", said(f"{number}"))
