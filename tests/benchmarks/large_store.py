"""A store on disk with 100,000 conversations and 1,000,000 turns, 1.2 GB: what must not grow with it.

It is filled first, which takes some minutes; ``large-tenth`` has a tenth of it. Times that are limits by themselves are
divided by the limit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from disk_store import fill
from promptkit_nb import ConversationManager, ConversationNotFoundError, ConversationState, DemoProvider, DiskStore
from ratio import Ratio, medians_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVERSATIONS = 100_000
TURNS = 10
LONG, SHORT = 50_000, 50
READS = 5
UNDOES = 30
USERS = 97
NOW = datetime(2026, 11, 28, tzinfo=UTC)
MISTYPED_MORE_MS = 200.0
WAIT_MS = 200.0
WRITER = """
import select, sys, time
from promptkit_nb import ConversationState, DiskStore
with DiskStore(sys.argv[1]) as store:
    print("ready", flush=True)
    longest_s = number = 0
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        started_s = time.perf_counter()
        store.create(ConversationState(f"written:{number}"))
        longest_s = max(longest_s, time.perf_counter() - started_s)
        number += 1
    print(longest_s * 1000)
"""


def measure(share: float = 1) -> list[Ratio]:
    """Return the ratios of a store with this share of conversations and turns."""
    with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
        count = int(CONVERSATIONS * share)
        for start in range(0, count, 1000):
            fill(store, map(_state, range(start, min(start + 1000, count))), turns=TURNS)
        long = int(LONG * share)
        fill(store, [ConversationState("long", updated_at=NOW)], turns=long)
        fill(store, [ConversationState("short", updated_at=NOW)], turns=SHORT)
        fill(store, [ConversationState("old long", updated_at=NOW - timedelta(days=900))], turns=long)
        return [
            *_listing(store, count),
            *_near_matches(store, count),
            *_undoing(store, long),
            *_cleaning_up(store, count),
        ]


def _state(number: int) -> ConversationState:
    at = NOW - timedelta(minutes=number)
    user = f"user{number % USERS}"
    return ConversationState(f"{user}:session:{number}", user, created_at=at, updated_at=at)


def _listing(store: DiskStore, count: int) -> Iterator[Ratio]:
    ten_ms, by_user_ms, all_ms = medians_ms(
        READS, lambda: store.list(limit=10), lambda: store.list(user_id="user7", limit=10), store.list
    )
    yield Ratio(f"list(limit=10) / list() of {count:,}", ten_ms, all_ms, 0.1)
    yield Ratio("list(limit=10) of a user / list()", by_user_ms, all_ms, 0.1)
    (created_ms,) = medians_ms(READS, lambda: store.list(sort_by="created_at", limit=10))
    yield Ratio("list(sort_by='created_at', limit=10) / list()", created_ms, all_ms, 0.1)


def _near_matches(store: DiskStore, count: int) -> Iterator[Ratio]:
    manager = ConversationManager(DemoProvider(), store)

    def mistyped() -> None:
        with suppress(ConversationNotFoundError):
            manager.get_conversation("user7:sesion:7")

    mistyped_ms, found_ms = medians_ms(READS, mistyped, lambda: manager.get_conversation("user7:session:7"))
    yield Ratio(f"a mistyped id among {count:,} - a found one / 200 ms", mistyped_ms - found_ms, MISTYPED_MORE_MS, 1)


def _undoing(store: DiskStore, long: int) -> Iterator[Ratio]:
    manager = ConversationManager(DemoProvider(), store)
    in_long, in_short = manager.get_conversation("long"), manager.get_conversation("short")
    long_ms, short_ms = medians_ms(UNDOES, in_long.undo, in_short.undo)
    yield Ratio(f"undo in {long:,} turns / in {SHORT}", long_ms, short_ms, 5)
    long_ms, short_ms = medians_ms(
        UNDOES, lambda: in_long.variables.update(city="Porto"), lambda: in_short.variables.update(city="Porto")
    )
    yield Ratio(f"set a variable in {long:,} turns / in {SHORT}", long_ms, short_ms, 5)


def _cleaning_up(store: DiskStore, count: int) -> Iterator[Ratio]:
    """Delete nine tenths of the conversations while another process and another thread write all the time."""
    command = [sys.executable, "-c", WRITER, str(store.directory)]
    waits_ms: list[float] = []
    stopped = threading.Event()
    thread = threading.Thread(target=partial(_write, store, waits_ms, stopped))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        thread.start()
        started_s = time.perf_counter()
        deleted = store.cleanup(NOW - timedelta(minutes=count // 10))
        print(f"cleanup deleted {len(deleted):,} conversations in {time.perf_counter() - started_s:.0f} s")
        stopped.set()
        thread.join()
        process.stdin.close()
        longest_ms = float(process.stdout.readline())
    yield Ratio("longest wait of another process during cleanup / 200 ms", longest_ms, WAIT_MS, 1)
    yield Ratio("longest wait of another thread during cleanup / 200 ms", max(waits_ms), WAIT_MS, 1)


def _write(store: DiskStore, waits_ms: list[float], stopped: threading.Event) -> None:
    for number in range(10**9):
        if stopped.is_set():
            return
        started_s = time.perf_counter()
        store.create(ConversationState(f"threaded:{number}"))
        waits_ms.append((time.perf_counter() - started_s) * 1000)
        time.sleep(0.001)
