"""The cost of ``DiskStore`` relative to plain SQLite, and how its calls grow with what is stored.

The reference is what one would write without a store: one table with an index on the conversation, WAL, synchronous
NORMAL, one row per turn. It dumps the same JSON for each append and loads it into dicts for each read; ``DiskStore``
also checks the turn, detects duplicates, counts tokens and cost, defers Ctrl-C, and returns typed values.

If openai-agents is installed, its ``SQLiteSession`` is compared too, with synchronous NORMAL.

Reads are of turns that this handle wrote or read before, as in a kernel with an active conversation: they are not
decoded again, and the newest are not even read while SQLite reports no other writes. "For the first time" is the time
of a new handle.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from promptkit_nb import ConversationState, DiskStore
from promptkit_nb.codec import encode, encode_turn
from promptkit_nb.stores.layout import rows_of
from promptkit_nb.stores.row_access import ReadCache
from ratio import Ratio, medians_ms
from typical_turn import typical_turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from promptkit_nb import Turn

ROUNDS = 400
SESSION_ROUNDS = 2000
RUN = 20
READS = 30
LONG = 100_000
CREATE = "CREATE TABLE turns (id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, json TEXT NOT NULL)"
INSERT = "INSERT INTO turns (conversation, json) VALUES (?, ?)"
NEWEST = "SELECT json FROM turns WHERE conversation = ? ORDER BY id DESC LIMIT ?"
ALL = "SELECT json FROM turns WHERE conversation = ? ORDER BY id"


def measure() -> list[Ratio]:
    """Return the ratios of appending, reading, listing and size."""
    with tempfile.TemporaryDirectory() as directory:
        ratios = [*_turns(Path(directory)), *_conversations(Path(directory)), *_bytes(Path(directory))]
        if find_spec("agents") is None:
            print("openai-agents is not installed: its SQLiteSession is not compared.")
            return ratios
        return [*ratios, *_session(Path(directory))]


def _turns(directory: Path) -> Iterator[Ratio]:
    with DiskStore(directory / "turns") as store:
        for name, length in {"of 10": 10, "of 1,000": 1000, "of 100,000": LONG}.items():
            fill(store, [ConversationState(name)], turns=length)
        raw = _raw(directory / "raw.db")
        lines = iter([json.loads(encode_turn(typical_turn(number))) for number in range(ROUNDS)])

        def append(name: str) -> Callable[[], object]:
            turns = iter([_newer_turn(number) for number in range(ROUNDS)])
            return lambda: store.append(name, next(turns))

        def raw_append() -> None:
            raw.execute("BEGIN IMMEDIATE")
            raw.execute(INSERT, ("appended", json.dumps(next(lines))))
            raw.execute("COMMIT")

        short_ms, long_ms, raw_ms = medians_ms(ROUNDS, append("of 10"), append("of 100,000"), raw_append)
        yield Ratio("append to 100,000 turns / to 10", long_ms, short_ms, 1.3)
        yield Ratio("append / raw SQLite", short_ms, raw_ms, 3)
        recent_ms, raw_ms = medians_ms(
            READS * 5, lambda: store.recent("of 100,000", 20), lambda: _loaded(raw, NEWEST, "of 1,000", 20)
        )
        yield Ratio("recent 20 of 100,000 / raw SQLite", recent_ms, raw_ms, 1.6)
        get_ms, raw_ms = medians_ms(READS, lambda: store.get("of 1,000"), lambda: _loaded(raw, ALL, "of 1,000"))
        yield Ratio("load 1,000 / raw SQLite", get_ms, raw_ms, 1.3)
        first_ms, raw_ms = medians_ms(READS, _first_load(store), lambda: _loaded(raw, ALL, "of 1,000"))
        yield Ratio("load 1,000 for the first time / raw SQLite", first_ms, raw_ms, 1.3)
        raw.close()


def _newer_turn(number: int) -> Turn:
    """Return a turn that is newer than the last write, as each turn of a chat is."""
    turn = typical_turn(number)
    return replace(turn, created_at=turn.created_at + timedelta(days=1, seconds=number))


def _first_load(store: DiskStore) -> Callable[[], object]:
    """Return a function that reads like a new handle."""

    def load() -> None:
        store._cache = ReadCache()
        store.get("of 1,000")

    return load


def _conversations(directory: Path) -> Iterator[Ratio]:
    with DiskStore(directory / "few") as few, DiskStore(directory / "many") as many:
        for store, conversations in ((few, 10_000), (many, 100_000)):
            ids = (f"user:{number // 10}:session:{number % 10}" for number in range(conversations))
            fill(store, (ConversationState(each, each.split(":")[1]) for each in ids), turns=0)
        many_ms, few_ms = medians_ms(
            READS * 5, lambda: many.list("user:777:", limit=20), lambda: few.list("user:777:", limit=20)
        )
    yield Ratio("list a user's prefix among 100,000 / among 10,000", many_ms, few_ms, 1.5)


def _bytes(directory: Path) -> Iterator[Ratio]:
    with DiskStore(directory / "size") as store:
        turns = [typical_turn(number) for number in range(2000)]
        for number, turn in enumerate(turns):
            store.append(f"c{number % 20}", turn)
    on_disk = sum(path.stat().st_size for path in (directory / "size").iterdir())
    yield Ratio("bytes on disk / of JSON, in kB", on_disk / 1000, sum(map(len, map(encode_turn, turns))) / 1000, 1.4)


def _session(directory: Path) -> list[Ratio]:
    return asyncio.run(_beside_session(directory))


async def _beside_session(directory: Path) -> list[Ratio]:
    """Compare both as a notebook would call them: theirs awaited on a running loop, ours called; inputs made before.

    Appends continue until both write into a log of full length: the first thousand are slower while it grows.
    """
    agents = import_module("agents")  # heavy, and optional

    class Normal(agents.SQLiteSession):  # type: ignore[misc, name-defined]  # unknown if it is not installed
        @staticmethod
        def _configure_connection(conn: sqlite3.Connection) -> None:
            agents.SQLiteSession._configure_connection(conn)
            conn.execute("PRAGMA synchronous = NORMAL")

    theirs, others = (Normal(name, directory / "session.db") for name in "ab")
    turns = iter([typical_turn(number) for number in range(SESSION_ROUNDS)])
    items = iter([_items(number) for number in range(SESSION_ROUNDS)])
    with DiskStore(directory / "beside") as store:
        fill(store, [ConversationState("a")], turns=1000)
        await theirs.add_items([item for number in range(1000) for item in _items(number)])
        append = await _awaited_ms(
            SESSION_ROUNDS, lambda: store.append("b", next(turns)), lambda: others.add_items(next(items))
        )
        recent = await _awaited_ms(READS * 5, lambda: store.recent("a", 20), lambda: theirs.get_items(40))
        load = await _awaited_ms(READS, lambda: store.get("a"), theirs.get_items)
        theirs.close()
        others.close()
    return [
        Ratio("append / SQLiteSession", *append, 1 / 2),
        Ratio("recent 20 / SQLiteSession", *recent, 1 / 5),
        Ratio("load 1,000 / SQLiteSession", *load, 1 / 1.8),
    ]


def _items(number: int) -> list[Any]:  # their type is unknown if they are not installed
    """Return what their runner stores for a turn of the same text: 1.1 kB of JSON, in two items."""
    question, answer = typical_turn(number).messages
    content = [{"annotations": [], "text": answer.content, "type": "output_text", "logprobs": []}]
    said = {
        "id": f"msg_{number:032}",
        "content": content,
        "role": "assistant",
        "status": "completed",
        "type": "message",
    }
    asked = {"content": question.content, "role": "user"}
    return [asked, said]


async def _awaited_ms(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], Awaitable[object]]
) -> tuple[float, float]:
    """Return the median times of a call and of an awaited call, measured in alternating short runs.

    If single calls alternated, ours would also pay for theirs, which awaits a thread and leaves cold caches.
    """
    ours_ms: list[float] = []
    theirs_ms: list[float] = []
    for _ in range(0, rounds, RUN):
        for _ in range(RUN):
            started = time.perf_counter()
            ours()
            ours_ms.append((time.perf_counter() - started) * 1000)
        for _ in range(RUN):
            started = time.perf_counter()
            await theirs()
            theirs_ms.append((time.perf_counter() - started) * 1000)
    return median(ours_ms), median(theirs_ms)


def fill(store: DiskStore, states: Iterator[ConversationState] | list[ConversationState], turns: int) -> None:
    """Write conversations with this many turns in one transaction: appending them would take minutes."""

    def work() -> None:
        for state in states:
            record, frame, _ = rows_of(state, store.backend.next_cid(), revision=1)
            for place in range(turns):
                turn = typical_turn(place)
                record = record.appended(turn, state.created_at)
                store.backend.put_turn(record.cid, place, turn.id, encode_turn(turn))
            store.backend.put_record(state.conversation_id, state.user_id, encode(record))
            store.backend.put_frame(state.conversation_id, encode(frame))

    store.backend.run(work, write=True)


def _raw(path: Path) -> sqlite3.Connection:
    """Return the reference: a conversation to append to, and one of 1,000 turns."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(CREATE)
    connection.execute("CREATE INDEX by_conversation ON turns (conversation, id)")
    connection.execute("BEGIN")
    connection.executemany(INSERT, (("of 1,000", encode_turn(typical_turn(number)).decode()) for number in range(1000)))
    connection.execute("COMMIT")
    return connection


def _loaded(raw: sqlite3.Connection, select: str, *arguments: object) -> list[object]:
    return [json.loads(line) for (line,) in raw.execute(select, arguments)]
