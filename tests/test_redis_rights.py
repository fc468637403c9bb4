"""Users of a Redis server with few rights can use a store, and errors name missing rights."""

from __future__ import annotations

import re
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from promptkit_nb.errors import StoreUnavailableError
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.testing import check_state_store
from storing import said, texts

if TYPE_CHECKING:
    from redis_server import RedisServer

LEAST = ("~team:*", "-@all", "+@read", "+@write", "+@transaction", "+@connection", "+time")
"""The rights that the docstring of ``RedisStore`` names, without those that it calls optional."""


@pytest.fixture(autouse=True)
def server(own_redis_server: RedisServer) -> RedisServer:
    """An empty server, which has counted no calls yet."""
    own_redis_server.call("FLUSHALL")
    own_redis_server.call("CONFIG", "RESETSTAT")
    return own_redis_server


def test_user_limited_to_the_prefix_has_a_whole_store(server: RedisServer) -> None:
    """Every call of the contract works, without rights to other keys, to scripts, or to dangerous commands."""
    url = server.url_of_user("limited", *LEAST, "+info")
    number = iter(range(1_000_000))
    check_state_store(lambda: RedisStore(url, prefix=f"team:{next(number)}:"))


def test_every_key_begins_with_the_prefix(server: RedisServer) -> None:
    """Those of conversations, lists, the ledger, kept spending, and of the store itself."""
    with RedisStore(server.url, prefix="team:", ttl=60) as store:
        store.append("a", said("one"), charge=Charge(("total",), Decimal("0.1")))
    keys = server.call("KEYS", "*")
    assert len(keys) == 14
    assert all(key.startswith(b"team:{team:}") for key in keys)


def test_scripts_are_not_needed(server: RedisServer) -> None:
    """Without them, appends are ordinary transactions with the same result."""
    url = server.url_of_user("limited", *LEAST, "+info")
    with RedisStore(url, prefix="team:") as store:
        for number in range(5):
            store.append("a", said(f"{number}"), charge=Charge(("total",), Decimal("0.1")))
        assert texts(store.get("a").turns) == ["0", "1", "2", "3", "4"]
        assert store.spending("total").spent == Decimal("0.5")
    assert server.call("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"] == 0


def test_right_to_keys_is_named(server: RedisServer) -> None:
    """The error is not about the password, and says how to grant the missing right."""
    url = server.url_of_user("limited", *LEAST, "+info")
    with pytest.raises(StoreUnavailableError) as caught:
        RedisStore(url, prefix="others:")
    before, _, after = re.split(r"[()]", str(caught.value))  # the server's own words, which change
    assert (before, after) == (
        f"The Redis server at 127.0.0.1:{server.port}/0 refused a command, because its user 'limited' lacks a right ",
        ". Grant it: ACL SETUSER limited ~others:*",
    )
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("command", ["time", "zadd", "watch"])
def test_right_to_a_command_is_named(server: RedisServer, command: str) -> None:
    """At the first call that needs it."""
    url = server.url_of_user("limited", *LEAST, "+info", f"-{command}")
    with pytest.raises(StoreUnavailableError, match=rf"Grant it: ACL SETUSER limited \+{command}$"):
        RedisStore(url, prefix="team:").append("a", said("one"))


def test_nothing_is_half_written_if_a_right_is_missing(server: RedisServer) -> None:
    """A transaction of which one command is refused writes nothing."""
    url = server.url_of_user("limited", *LEAST, "+info", "-zadd")
    with RedisStore(url, prefix="team:") as store:
        before = sorted(server.call("KEYS", "*"))
        with pytest.raises(StoreUnavailableError, match=r"\+zadd"):
            store.append("a", said("one"))
    assert sorted(server.call("KEYS", "*")) == before


def test_unreadable_eviction_policy_is_a_warning(server: RedisServer) -> None:
    """It says what is at risk and how to let it be checked; the store works."""
    url = server.url_of_user("limited", *LEAST)
    with pytest.warns(UserWarning, match=r"cannot be read \(NOPERM\).*conversations can be lost.*\+info"):
        store = RedisStore(url, prefix="team:")
    with warnings.catch_warnings(), store:
        warnings.simplefilter("error")
        store.append("a", said("one"))
        assert texts(store.get("a").turns) == ["one"]


def test_user_who_may_only_read_lists_what_is_there(server: RedisServer) -> None:
    """Expired ids stay in the lists, because such a user cannot take them off."""
    with RedisStore(server.url, prefix="team:") as store:
        store.append("a", said("one"))
        store.append("b", said("two"))
    for key in server.call("KEYS", "*h:b"):
        server.call("DEL", key, key.replace(b"h:b", b"a:b"))
    url = server.url_of_user(
        "reader", "%R~team:*", "-@all", "+@read", "+@transaction", "+@connection", "+time", "+info"
    )
    with RedisStore(url, prefix="team:") as store:
        assert [head.conversation_id for head in store.list()] == ["a"]
        assert texts(store.get("a").turns) == ["one"]
        with pytest.raises(StoreUnavailableError, match="lacks a right"):
            store.append("a", said("three"))
