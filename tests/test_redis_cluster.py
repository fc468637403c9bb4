"""A cluster of three Redis nodes: a store is on one of them, found from any, and followed when it moves."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import redis

from promptkit_nb.errors import StoreUnavailableError
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.testing import check_state_store
from redis_server import RedisClusterServers, RedisServer
from storing import said, texts
from test_stored_formats import IDS, load_dump

if TYPE_CHECKING:
    from collections.abc import Iterator

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    """A cluster for all tests of this module; each test uses its own prefixes."""
    with RedisClusterServers(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def node_of(cluster: RedisClusterServers, prefix: str) -> RedisServer:
    """Return the node that has the keys of a prefix."""
    return next(node for node in cluster.nodes if node.call("KEYS", f"{prefix}{{{prefix}}}*"))


def test_client_of_the_cluster_has_a_whole_store(cluster: RedisClusterServers) -> None:
    """Every call of the contract works with a ``RedisCluster``, whichever nodes the prefixes are on."""
    number = iter(range(1_000_000))
    with closing(cluster.client()) as client:
        check_state_store(lambda: RedisStore(client=client, prefix=f"contract-{next(number)}:"))
        assert client.ping()


def test_url_may_name_any_node(cluster: RedisClusterServers) -> None:
    """The store finds the node that serves its prefix, and says which it is."""
    for number, node in enumerate(cluster.nodes):
        with RedisStore(node.url, prefix="any:") as store:
            store.append("a", said(f"{number}"))
            assert texts(store.get("a").turns) == ["0", "1", "2"][: number + 1]
            assert repr(store) == f"<RedisStore: 127.0.0.1:{node_of(cluster, 'any:').port}/0>"


def test_client_of_a_wrong_node_is_an_error_that_says_what_to_give(cluster: RedisClusterServers) -> None:
    """A plain client that was given is not replaced by another."""
    RedisStore(cluster.nodes[0].url, prefix="wrong:").close()
    wrong = next(node for node in cluster.nodes if node is not node_of(cluster, "wrong:"))
    with (
        closing(redis.Redis.from_url(wrong.url)) as client,
        pytest.raises(StoreUnavailableError, match=r"any node or client=RedisCluster\(…\)"),
    ):
        RedisStore(client=client, prefix="wrong:")


@pytest.mark.parametrize("kind", ["url", "client"])
def test_open_store_follows_its_slot(cluster: RedisClusterServers, kind: str) -> None:
    """When another node takes over, calls continue there; nothing is lost, and nothing is stored twice."""
    prefix = f"moving-{kind}:"
    with closing(cluster.client()) as client:
        given = client if kind == "client" else None
        with RedisStore(cluster.nodes[0].url, client=given, prefix=prefix) as store:
            store.append("a", said("one"))
            for number in range(3):
                before = node_of(cluster, prefix)
                cluster.move_slot(f"{prefix}{{{prefix}}}h:a")
                assert node_of(cluster, prefix) is not before
                store.append("a", said(f"{number}"))
                assert texts(store.get("a").turns) == ["one", "0", "1", "2"][: number + 2]


def test_old_keys_move_within_their_slot(cluster: RedisClusterServers) -> None:
    """A store of version 0.1 is in the same slot, so its conversations move in one transaction each."""
    with RedisStore(cluster.nodes[0].url, prefix="probe:") as probe:
        url = f"redis://{probe.backend.where}"
        probe.append("a", said("one"))
    node = node_of(cluster, "probe:")
    node.call("FLUSHALL")
    load_dump(url, "probe:")
    with closing(cluster.client()) as client, RedisStore(client=client, prefix="probe:") as store:
        assert sorted(head.conversation_id for head in store.list()) == IDS
        store.append("history", said("new"))
        assert node.call("EXISTS", "probe:{probe:}h:history", "{probe:}h:history") == 1
        assert store.move_old_keys() == len(IDS) - 1


def test_eight_processes_lose_nothing(cluster: RedisClusterServers) -> None:
    """Half of them with a url, half with a ``RedisCluster``, all on one conversation."""
    writers = [SPAWN.Process(target=append_ten, args=(cluster.nodes[0].port, f"{each}")) for each in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 8
    with RedisStore(cluster.nodes[0].url, prefix="many:") as store:
        found = texts(store.get("a").turns)
        assert sorted(found) == sorted(f"{each}:{number}" for each in range(8) for number in range(10))
        for each in range(8):
            assert [text for text in found if text.startswith(f"{each}:")] == [f"{each}:{n}" for n in range(10)]
        assert store.head("a").revision == 80


def append_ten(port: int, name: str) -> None:
    """Append ten turns to one conversation, in a separate process."""
    client = redis.RedisCluster(host="127.0.0.1", port=port) if int(name) % 2 else None
    with RedisStore(f"redis://127.0.0.1:{port}/0", client=client, prefix="many:") as store:
        for number in range(10):
            store.append("a", said(f"{name}:{number}"))
