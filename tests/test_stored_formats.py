"""Stores that an earlier version wrote open unchanged: every call reads what is there, and writing continues.

``data/disk.format1`` is a directory of format 1, ``data/redis.format1.jsonl`` a prefix of a Redis server (key, type and
value, with bytes as Latin-1), and ``data/disk.format1.jsonl`` what ``export_store`` wrote for either of them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import redis

from promptkit_nb.exports.archives import export_store
from promptkit_nb.stores.base import Charge, Reservation
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.redis import RedisStore
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.stores.base import StateStore

DATA = Path(__file__).parent / "data"
IDS = ["copy", "empty", "history", "user:alice:session:1"]


@pytest.fixture(params=["disk", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    """A copy of each store of format 1, opened by this version."""
    if request.param == "disk":
        shutil.copytree(DATA / "disk.format1", tmp_path / "store")
        with DiskStore(tmp_path / "store") as opened:
            yield opened
        return
    url, prefix = request.getfixturevalue("redis_url"), f"{uuid4()}:"
    load_dump(url, prefix)
    with RedisStore(url, prefix=prefix) as opened:
        yield opened


def load_dump(url: str, prefix: str) -> None:
    """Write the dump to a server, under another prefix."""
    client = redis.Redis.from_url(url)
    for line in (DATA / "redis.format1.jsonl").read_text("utf-8").splitlines():
        key, kind, value = json.loads(line)
        name = key.replace("{promptkit:}", f"{{{prefix}}}").encode("latin-1")
        if kind == "string":
            client.set(name, value.encode("latin-1"))
        elif kind == "hash":
            client.hset(name, mapping={field: each.encode("latin-1") for field, each in value.items()})
        elif kind == "set":
            client.sadd(name, *[each.encode("latin-1") for each in value])
        else:
            client.zadd(name, {each.encode("latin-1"): 0 for each in value})
    client.close()


def test_every_conversation_is_exported_byte_for_byte(store: StateStore, tmp_path: Path) -> None:
    """Turns, versions, branches, summaries, settings, metadata and times."""
    export_store(store, tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_bytes() == (DATA / "disk.format1.jsonl").read_bytes()


def test_heads_and_lists_are_the_same(store: StateStore) -> None:
    """Counts, totals, revisions and metadata, listed as a whole, by user, by prefix, and one by one."""
    heads = store.list(sort_by="conversation_id", descending=False)
    assert [
        (head.conversation_id, head.user_id, head.turn_count, head.token_count, head.total_cost, head.revision)
        for head in heads
    ] == [
        ("copy", "bob", 3, 10, Decimal("0.001"), 2),
        ("empty", "default", 0, 0, Decimal(0), 1),
        ("history", "bob", 2, 56, Decimal("0.007"), 9),
        ("user:alice:session:1", "alice", 2, 26, Decimal("0.0038"), 1),
    ]
    assert [head.unpriced_turns for head in heads] == [0, 0, 0, 1]
    assert heads[2].metadata == {"topic": "numbers", "tags": ["a", {"b": None}]}
    assert [store.head(each) for each in IDS] == heads
    assert store.list("user:") == store.list(user_id="alice") == heads[3:]
    assert store.for_user("alice").list() == heads[3:]


def test_turns_are_the_same(store: StateStore) -> None:
    """The newest ones, and all of them as a stream; what a fork copied is inherited."""
    assert texts(store.recent("copy", 2)) == ["three", "five"]
    assert [turn.inherited for turn in store.get("copy").turns] == [True, True, False]
    assert [(each.conversation_id, each.turn.user_text, each.status) for each in store.iter_turns(user_id="bob")] == [
        ("copy", "two again", "current"),
        ("copy", "three", "current"),
        ("copy", "five", "current"),
        ("copy", "two", "replaced"),
        ("copy", "one", "archived"),
        ("copy", "four", "archived"),
        ("history", "two again", "current"),
        ("history", "three", "current"),
        ("history", "two", "replaced"),
        ("history", "one", "archived"),
        ("history", "four", "archived"),
    ]


def test_ledger_is_the_same(store: StateStore) -> None:
    """Amounts that were spent, and a reservation that is still open and can be closed by a charge."""
    assert amounts_of(store) == [(Decimal("0.25"), Decimal("0.125")), (Decimal("0.25"), Decimal(0))]
    (reservation_id,) = store.spending("total").open
    reservation = Reservation(reservation_id, ("total",), Decimal("0.125"))
    store.append("history", said("five"), charge=Charge(("total", "user:bob"), Decimal("0.1"), reservation))
    assert amounts_of(store) == [(Decimal("0.35"), Decimal(0)), (Decimal("0.35"), Decimal(0))]


def amounts_of(store: StateStore) -> list[tuple[Decimal, Decimal]]:
    """Return what was spent and is reserved in the scopes of the dumps."""
    accounts = [store.spending(scope) for scope in ("total", "user:bob")]
    return [(account.spent, account.reserved) for account in accounts]


def test_writing_continues(store: StateStore) -> None:
    """A new turn, restored turns and a new conversation find their places."""
    five, previous = said("five"), store.get("history")
    assert store.append("history", five).revision == 10
    assert texts(store.get("history").turns) == ["two again", "three", "five"]
    store.restore("history", "head-1")
    assert texts(store.get("history").turns) == ["one", "two again", "three", "five"]
    store.restore("history", "tail-1")
    assert texts(store.get("history").turns)[-1] == "four"
    again = replace(previous, conversation_id="again")
    store.create(again)
    assert store.get("again") == again
    store.delete("copy")
    assert texts(store.get("history").turns)[0] == "one"
