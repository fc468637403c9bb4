"""Imports against the least work there is: a log against a pass over its lines, Redis against reading its keys.

The logs of Claude Code have 100 MB, of which 99.6 % are lines to skip, as in real ones; most of these lines contain the
messages of sub-agents or outputs of commands; the short ones are those that hooks write. The service has 2,000
conversations of 20 messages, on a real server. A run with nothing new reads 1,000 files before.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from other_tools import claude_log
from promptkit_nb import DiskStore, MemoryStore, import_chats
from ratio import Ratio, medians_ms
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_BYTES = 100 * 2**20
SKIPPED_BYTES = (420, 1000, 2000, 4000)
ANSWERED_EVERY_BYTES = 2**20
ANSWER = "The next one is the answer to that. " * 100
FILES = 1000
CONVERSATIONS = 2000
ROUNDS = 3


def measure() -> list[Ratio]:
    """Return the ratios."""
    with tempfile.TemporaryDirectory() as directory:
        return [
            *(_log(Path(directory), size) for size in SKIPPED_BYTES),
            _nothing_new(Path(directory)),
            *_service(Path(directory)),
        ]


def _log(directory: Path, line_bytes: int) -> Ratio:
    log = claude_log(directory / f"large-{line_bytes}")
    log.add("progress", data={"type": "hook_progress", "text": ""})
    progress = log.lines.pop().replace('"text": "', '"text": "' + "Reading the next file. " * (line_bytes // 23))
    progress = progress[: line_bytes - 3] + progress[-3:]
    while len(log.lines) * line_bytes < LOG_BYTES:
        log.ask("What is next?")
        log.answer(ANSWER)
        log.lines += [progress] * (ANSWERED_EVERY_BYTES // line_bytes)
    log.write()

    def pass_over() -> int:
        with log.path.open("rb") as file:
            return sum(1 for _ in file)

    import_chats(log.path, MemoryStore())  # loads modules that are imported when used
    ours_ms, plain_ms = medians_ms(ROUNDS, lambda: import_chats(log.path, MemoryStore()), pass_over)
    return Ratio(f"import of a log of 100 MB, lines of {line_bytes:,} bytes / a pass over them", ours_ms, plain_ms, 1.5)


def _nothing_new(directory: Path) -> Ratio:
    for number in range(FILES):
        log = claude_log(directory / "many", f"session-{number}")
        for _ in range(10):
            log.ask("What is next?")
            log.answer("The next one. " * 20)
        log.write()
    with DiskStore(directory / "store") as store:
        run = partial(import_chats, directory / "many", store)
        (first_ms,) = medians_ms(1, run)
        (again_ms,) = medians_ms(ROUNDS, run)
    return Ratio("import with nothing new, 1,000 files / the first one", again_ms, first_ms, 0.02)


def _service(directory: Path) -> list[Ratio]:
    name = f"import of {CONVERSATIONS:,} Go conversations"
    stores = iter(range(ROUNDS))

    def to_disk() -> None:
        with DiskStore(directory / f"service-{next(stores)}") as store:
            import_chats(client, store)

    with _server(directory) as client:
        memory_ms, disk_ms, plain_ms = medians_ms(
            ROUNDS, lambda: import_chats(client, MemoryStore()), to_disk, lambda: _read(client)
        )
    return [
        Ratio(f"{name} to memory / reading their keys", memory_ms, plain_ms, 3),
        Ratio(f"{name} to disk / reading their keys", disk_ms, plain_ms, 3),
    ]


@contextmanager
def _server(directory: Path) -> Iterator[redis.Redis]:
    """Start a server with conversations as PromptKit's Go service writes them."""
    cost = {"input_tokens": 42, "output_tokens": 7, "total_cost_usd": 0.00048, "provider_name": "openai"}
    with RedisServer(directory) as server, redis.Redis.from_url(server.url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(CONVERSATIONS):
            key = f"promptkit:conversation:user:{number}"
            pipe.set(f"{key}:meta", json.dumps({"id": f"user:{number}", "user_id": f"user-{number % 100}"}))
            for minute in range(10):
                at = f"2026-03-02T10:{minute:02}:01.123456789Z"
                asked = {"role": "user", "timestamp": at, "content": "Where is the harbor painting? " * 3}
                said = {"role": "assistant", "timestamp": at, "cost_info": cost, "content": "In room 4. " * 40}
                pipe.rpush(f"{key}:messages", json.dumps(asked), json.dumps(said))
        pipe.execute()
        yield client


def _read(client: redis.Redis) -> int:
    """Read the same keys with redis-py, as Go's ``Load`` does, and decode them with ``json``."""
    count = 0
    for meta in client.scan_iter(match="promptkit:conversation:*:meta", count=1000):
        key = meta.removesuffix(b":meta")
        lists = [client.lrange(key + part, 0, -1) for part in (b":messages", b":summaries")]
        found = [client.get(meta) or b"{}", *lists[0], *lists[1], *client.hgetall(key + b":metadata").values()]
        count += len([json.loads(each) for each in found])
    return count
