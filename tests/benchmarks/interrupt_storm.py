"""SIGINTs from another process during a store's writes: ``python tests/benchmarks/interrupt_storm.py [HITS]``.

It goes on until so many of them came while a transaction was open (1,000 without a number), and exits with 1 if an
acknowledged write was lost, a turn is there twice, or the store wedged.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING

from promptkit_nb import ConversationState, DiskStore, Message, Turn
from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.stores.disk_backend import InterruptsHeld

if TYPE_CHECKING:
    from types import FrameType

# It asks, one byte a signal, so that no signal comes before the last one was dealt with.
_SENDER = """
import os, random, signal, sys, time
while sys.stdin.buffer.read(1):
    until = time.perf_counter() + random.uniform(0, 0.0012)
    while time.perf_counter() < until:
        pass
    os.kill(int(sys.argv[1]), signal.SIGINT)
"""


class Storm:
    """Writes to a store while it is interrupted, and records what was acknowledged."""

    def __init__(self, store: DiskStore) -> None:
        """Begin with one conversation of one turn."""
        self.store = store
        self.hits = 0
        self.counts: Counter[str] = Counter()
        self.said: set[str] = set()
        self.forks: dict[str, bool | None] = {}  # by id: there, deleted, or unknown
        store.create(ConversationState("a", turns=(_turn("first"),)))

    def note_hits(self) -> None:
        """Count the interrupts that come while a transaction is open, and so are delayed."""
        hold = InterruptsHeld._hold
        table = self.store.backend

        def held(interrupts: InterruptsHeld, number: int, frame: FrameType | None) -> None:
            self.hits += table._connection.in_transaction
            hold(interrupts, number, frame)

        InterruptsHeld._hold = held  # type: ignore[assignment, method-assign]  # to look on

    def write(self, number: int) -> None:
        """Do one of the four calls, and record it as soon as it is acknowledged."""
        name = random.choice(("append", "replace", "fork", "delete"))  # noqa: S311 - a storm needs no secrecy
        match name:
            case "append":
                self.store.append("a", _turn(str(number)), create=False)
                self.said.add(str(number))
            case "replace":
                (last,) = self.store.recent("a", 1)
                self.store.replace("a", last.id, _turn(str(number)))
                self.said.add(str(number))
            case "fork":
                self.store.fork("small", f"fork {number}")
                self.forks[f"fork {number}"] = True
            case "delete":
                present = [fork for fork, there in self.forks.items() if there]
                if not present:
                    return
                self.forks[present[0]] = None  # an interrupted delete may have succeeded unnoticed
                self.store.delete(present[0])
                self.forks[present[0]] = False
        self.counts[name] += 1

    def losses(self) -> list[str]:
        """Return what is wrong with the store, in words; an empty list if nothing is."""
        state = self.store.get("a")
        found = [turn.user_text for turn in state.stored_turns]
        wrong = [f"{text} was lost" for text in self.said - set(found)]
        wrong += [f"{text} is there {times} times" for text, times in Counter(found).items() if times > 1]
        wrong += [f"{fork} was lost" for fork, there in self.forks.items() if there and not self._holds(fork)]
        wrong += [f"{fork} is back" for fork, there in self.forks.items() if there is False and self._holds(fork)]
        return wrong

    def _holds(self, conversation_id: str) -> bool:
        try:
            return len(self.store.get(conversation_id).turns) == 1
        except ConversationNotFoundError:
            return False


def _turn(text: str) -> Turn:
    return Turn(messages=(Message("user", text), Message("assistant", "x" * 500)))


def main(wanted: int = 1000) -> int:
    """Run the storm until this many interrupts have hit an open transaction."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
        storm = Storm(store)
        store.create(ConversationState("small", turns=(_turn("small"),)))
        storm.note_hits()
        sender = subprocess.Popen([sys.executable, "-c", _SENDER, str(os.getpid())], stdin=subprocess.PIPE, bufsize=0)
        assert sender.stdin is not None
        started, sent, number, unheard = time.monotonic(), 0, 0, None
        while storm.hits < wanted:
            try:
                sender.stdin.write(b"!")
                sent += 1
                while True:
                    number += 1
                    storm.write(number)
            except KeyboardInterrupt as error:
                unheard = error  # notebooks keep the last one, with its traceback
        sender.stdin.close()
        sender.wait()
        wrong = storm.losses()
        seconds = time.monotonic() - started
        integrity = store.backend.run(lambda: store.backend._connection.execute("PRAGMA integrity_check"), write=False)
        wrong += [word for (word,) in integrity.fetchall() if word != "ok"]
    del unheard
    done = ", ".join(f"{times} {name}s" for name, times in sorted(storm.counts.items()))
    print(f"{sent} interrupts in {seconds:.0f} s, {storm.hits} of them into an open transaction, among {done}:")
    print("\n".join(wrong) or "nothing lost, nothing torn, nothing wedged")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
