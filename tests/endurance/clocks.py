"""Two machines whose clocks are two days apart, on one store: libfaketime gives each process the clock of its machine.

On Redis, ages are those of the server's clock, so even short TTLs hold. On disk each machine believes its own clock,
so the TTL is longer than the difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from endurance.report import Report
from programs import require_program
from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.redis import RedisStore
from redis_server import RedisServer
from storing import said, texts

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore

APART = timedelta(days=2)
SHORT_S, LONG_S = 3600.0, 10 * 86400.0
DAY_S = 86400.0
REPLY = timedelta(seconds=1)
"""How late a machine may read the server's answer what time it is: by so much, it believes the server to be behind."""


def open_store(address: str, ttl_s: float | None) -> StateStore:
    """Open a store by its URL or directory."""
    return RedisStore(address, ttl=ttl_s) if address.startswith("redis:") else DiskStore(address, ttl_s)


def serve(address: str, ttl_s: float) -> None:
    """Act as a machine: write turns for lines of input, and answer with what is stored, until the input ends."""
    warnings.simplefilter("ignore")
    with open_store(address, ttl_s) as store:
        for line in sys.stdin:
            text = line.strip()
            store.append("shared", said(text))
            store.append(f"own:{text}", said(text))
            recent = texts(store.recent("shared", 2))
            cleaned = store.cleanup(ttl_s)
            seen = len(store.list())
            today = datetime.now(UTC).date().isoformat()
            print(json.dumps([recent, cleaned, seen, today]), flush=True)


class Machine:
    """A process with its own clock."""

    def __init__(self, offset: str, address: str, ttl_s: float) -> None:
        """Start it; the offset of its clock is given in the syntax of ``faketime``."""
        command = [require_program("faketime"), "-f", offset, sys.executable, __file__, address, str(ttl_s)]
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), str(root / "tests")])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )

    def write(self, text: str) -> tuple[list[str], list[str], int, str]:
        """Write a turn; return the newest two turns, what a cleanup deleted, how many were listed, and its date."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        found: Any = json.loads(self._process.stdout.readline())
        return found[0], found[1], found[2], found[3]

    def __enter__(self) -> Self:
        """Return the machine, which runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and wait for it."""
        self._process.communicate()


def run(kind: str, directory: Path, rounds: int) -> Report:
    """Let three machines, one with the right time and two with others, write in turns; then look at what is there."""
    report = Report(f"clocks two days apart, {kind}")
    ttl_s = SHORT_S if kind == "redis" else LONG_S
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(directory)) if kind == "redis" else None
        address = server.url if server else str(directory / "store")
        machines = [stack.enter_context(Machine(offset, address, ttl_s)) for offset in ("+0d", "-2d", "+2d")]
        written: list[str] = []
        dates = set()
        for number in range(rounds):
            for index, machine in enumerate(machines):
                written.append(f"{number}-{index}")
                recent, cleaned, seen, date = machine.write(written[-1])
                dates.add(date)
                report.expect(true=recent == written[-2:], otherwise=f"newest {recent}, not {written[-2:]}")
                report.expect(true=cleaned == [], otherwise=f"{cleaned} was cleaned up by the clock of {date}")
                report.expect(true=seen == len(written) + 1, otherwise=f"{seen} of {len(written) + 1} are listed")
        with open_store(address, None) as store:
            _check(report, store, written, ttl_s)
            if server:
                _check_expiry(report, server, store)
    report.expect(true=len(dates) >= 3, otherwise=f"all machines had the dates {dates}")
    report.figures = {"turns": len(written), "conversations": len(written) + 1, "dates": sorted(dates)}
    return report


def _check(report: Report, store: StateStore, written: list[str], ttl_s: float) -> None:
    found = texts(store.get("shared").turns)
    report.expect(true=found == written, otherwise=f"the order of {len(found)} turns is not that of writing")
    listed = {head.conversation_id: head.updated_at for head in store.list("own:")}
    report.expect(true=len(listed) == len(written), otherwise=f"{len(written) - len(listed)} expired early")
    if isinstance(store, RedisStore):
        at = [listed[name] for text in written if (name := f"own:{text}") in listed]
        is_ordered = all(later >= earlier - REPLY for earlier, later in zip(accumulate(at, max), at, strict=True))
        report.expect(true=is_ordered, otherwise="the times are not in the order of writing")
        newest_first = sorted(at, reverse=True)
        report.expect(true=[*listed.values()] == newest_first, otherwise="the list is not in the order of its times")
    times = [head.updated_at for head in store.list("shared")]
    latest = datetime.now(UTC) + (timedelta(seconds=60) if isinstance(store, RedisStore) else APART + timedelta(60))
    report.expect(true=all(each <= latest for each in times), otherwise=f"{times} are ahead")
    report.expect(true=store.cleanup(ttl_s) == (), otherwise="a cleanup deleted what was just written")


def _check_expiry(report: Report, server: RedisServer, store: StateStore) -> None:
    """Check that the server will drop each conversation when its TTL ends by the server's clock, and does."""
    for key in server.call("KEYS", "*h:*"):
        left_s = server.call("PTTL", key) / 1000
        report.expect(true=SHORT_S - 300 < left_s <= SHORT_S, otherwise=f"{key!r} expires in {left_s} s")
    with open_store(server.url, 1) as brief:
        brief.append("brief", said("x"))
        time.sleep(1.1)
        try:
            store.get("brief")
        except ConversationNotFoundError:
            return
    report.expect(true=False, otherwise="a conversation did not expire")


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
