"""A cluster of three nodes whose slots move, and a node of which is killed, while eight processes write."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import redis

from endurance.report import Report
from promptkit_nb.errors import StoreUnavailableError
from promptkit_nb.stores.redis import RedisStore
from redis_server import RedisClusterServers
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Event
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
WRITERS = 8
PREFIX = "endurance:"


def write(port: int, number: int, acknowledged: Path, stop: Event) -> None:
    """Append numbered turns, each until it is acknowledged; half of the writers use a client of the whole cluster."""
    client = redis.RedisCluster(host="127.0.0.1", port=port) if number % 2 else None
    url = f"redis://127.0.0.1:{port}/0"
    with RedisStore(url, client=client, prefix=PREFIX) as store, acknowledged.open("w") as file:
        count = 0
        while not stop.is_set():
            turn = said(f"{number}:{count}")
            _until_acknowledged(partial(store.append, "shared", turn))
            file.write(f"{turn.user_text}\n")
            file.flush()
            count += 1


def _until_acknowledged(call: Callable[[], object]) -> None:
    while True:
        try:
            call()
        except StoreUnavailableError:
            time.sleep(0.05)
        else:
            return


def run(directory: Path, moves: int) -> Report:
    """Move the store's slot from node to node this often while eight processes write, then look at what is there."""
    report = Report("cluster of three nodes")
    with RedisClusterServers(directory) as cluster:
        port = cluster.nodes[0].port
        with RedisStore(f"redis://127.0.0.1:{port}/0", prefix=PREFIX) as store:
            store.append("other", said("x"))
        stop, logs = FORK.Event(), [directory / f"{number}.log" for number in range(WRITERS)]
        writers = [FORK.Process(target=write, args=(port, number, log, stop)) for number, log in enumerate(logs)]
        for writer in writers:
            writer.start()
        served = set()
        for _ in range(moves):
            time.sleep(0.3)
            served.add(cluster.move_slot(f"{PREFIX}{{{PREFIX}}}format"))
        time.sleep(0.3)
        stop.set()
        for writer in writers:
            writer.join(60)
            report.expect(true=writer.exitcode == 0, otherwise=f"a writer ended with {writer.exitcode}")
        acknowledged = [log.read_text().split() for log in logs]
        with closing(cluster.client()) as client, RedisStore(client=client, prefix=PREFIX) as store:
            found = texts(store.get("shared").turns)
            revision = store.head("shared").revision
    report.expect(true=sorted(found) == sorted(chain(*acknowledged)), otherwise="not each turn is there once")
    for number, log in enumerate(acknowledged):
        own = [text for text in found if text.startswith(f"{number}:")]
        report.expect(true=own == log, otherwise=f"the turns of writer {number} are out of order")
    report.expect(true=revision == len(found), otherwise=f"revision {revision} after {len(found)} appends")
    report.figures = {"turns": len(found), "moves": moves, "nodes": len(served), "processes": WRITERS}
    return report
