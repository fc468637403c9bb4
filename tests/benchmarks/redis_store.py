"""The cost of an append to ``RedisStore``: late relative to early in a conversation, and relative to the raw client."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from promptkit_nb import ConversationState, Message, RedisStore, Turn, Usage
from promptkit_nb.codec import encode_turn
from ratio import Ratio, medians_ms

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, MANY = 10, 10_000
ROUNDS = 300
SERVER = Path(__file__).parent.parent / "redis_server.py"


def measure() -> list[Ratio]:
    """Return the ratios, measured on a separate server without persistence."""
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        with server.stdin:  # the server ends with its input
            return _measured(server.stdout.readline().strip())


def _measured(url: str) -> list[Ratio]:
    with RedisStore(url) as store, closing(Redis.from_url(url)) as client:
        for turns in (FEW, MANY):
            store.create(ConversationState(str(turns), turns=tuple(_turn() for _ in range(turns))))
        few_ms, many_ms, raw_ms = medians_ms(
            ROUNDS,
            lambda: store.append(str(FEW), _turn()),
            lambda: store.append(str(MANY), _turn()),
            _raw_append(client),
        )
    return [
        Ratio(f"RedisStore.append after {MANY} turns / after {FEW}", many_ms, few_ms, 1.3),
        Ratio("RedisStore.append / raw redis-py transaction of the same bytes", few_ms, raw_ms, 2.5),
    ]


def _turn() -> Turn:
    return Turn(
        messages=(Message("user", "Question? " * 10), Message("assistant", "Answer. " * 20)),
        usage=Usage(100, 50),
        model="gpt-4o-mini",
        provider="openai",
    )


def _raw_append(client: Redis) -> Callable[[], None]:
    """Return a function that writes a record, a turn and its position by id in one transaction, as a store must."""
    line = encode_turn(_turn())
    record = b"r" * 260

    def append() -> None:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.set("record", record)
            pipeline.hset("turns", "10", line)
            pipeline.hset("places", "0123456789abcdef0123456789abcdef", "10")
            pipeline.execute()

    return append
