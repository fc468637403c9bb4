"""A writer that is killed within a call of a store: until then, it works, and keeps a journal of what it pays.

Each line of a journal is an intent, or the acknowledgment of the one before it. It is written with one system call, so
it survives the writer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.stores.base import Charge, Reservation
from promptkit_nb.turns import NO_USAGE, Turn
from storing import said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
OLD = "-old"
"""Part of the ids of conversations that whoever cleans up deletes."""
SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a writer was about to do; ``names`` are ids of conversations, ``key`` that of a turn or a reservation."""

    verb: str
    names: tuple[str, ...]
    key: str = ""
    usd: str = "0"
    target: str = ""


def paid_turn(key: str, usd: str) -> Turn:
    """Return the turn with this id; it is the same each time."""
    return said(key, id=key, cost=Decimal(usd))


class Writer:
    """Calls verbs on its own conversations, and appends to one that it shares with the others."""

    def __init__(self, store: StateStore, journal: Path, name: str, seed: int) -> None:
        """Write to this store and this journal, under a unique name."""
        self.store = store
        self.name = name
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._number = 0
        self._victim = ""
        self._killed_in = threading.Event()

    def run(self, verb: str) -> None:
        """Work until killed with signal 9, at a random moment after a call of this verb has begun."""
        calls, delay_s = self._random.randrange(1, 6), 0.003 * self._random.random() ** 3
        threading.Thread(target=self._kill, args=(delay_s,), daemon=True).start()
        while True:
            for each in [*VERBS][: self._random.randrange(3)]:
                self._call(each)
            calls -= 1
            self._victim = verb if calls <= 0 else ""
            self._call(verb)
            self.append(SHARED)

    def _call(self, verb: str) -> None:
        """Call a verb on a conversation that has a few turns."""
        conversation = self._fresh("c")
        for _ in range(3):
            repeated = Entry("append", (conversation,), self._fresh("t"), self._price())
            self._do(repeated, partial(repeat, self.store, repeated, self.name))
        VERBS[verb](self, conversation)

    def _kill(self, delay_s: float) -> None:
        self._killed_in.wait()
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGKILL)

    def append(self, conversation: str) -> None:
        """Append a turn and charge what it cost."""
        key, usd = self._fresh("t"), self._price()
        entry = Entry("append", (conversation,), key, usd)
        self._do(entry, lambda: repeat(self.store, entry, self.name))

    def create(self, _conversation: str) -> None:
        """Create another conversation."""
        new = self._fresh("new")
        self._do(Entry("create", (new,)), lambda: self.store.create(ConversationState(new, self.name)))

    def replace(self, conversation: str) -> None:
        """Answer a turn again."""
        target = self.store.recent(conversation, 1)[0].id
        entry = Entry("replace", (conversation,), self._fresh("t"), self._price(), target)
        self._do(entry, lambda: repeat(self.store, entry, self.name))

    def archive_and_restore(self, conversation: str) -> None:
        """Move turns to a branch, and back."""
        branch = self._fresh("b")
        entry = Entry("archive", (conversation,))
        self._do(entry, lambda: self.store.archive(conversation, 1, 3, as_branch=branch))
        self._do(replace(entry, verb="restore"), lambda: self.store.restore(conversation, branch))

    def add_summary(self, conversation: str) -> None:
        """Summarize, and charge what that cost."""
        key, usd = self._fresh("s"), self._price()
        summary = Summary(0, 0, key, cost=Decimal(usd), usage=NO_USAGE)
        charge = charge_of(self.name, usd)
        entry = Entry("add_summary", (conversation,), key, usd)
        self._do(entry, lambda: self.store.add_summary(conversation, summary, charge=charge))

    def set(self, conversation: str) -> None:
        """Write the conversation without its last turn."""
        state = self.store.get(conversation)
        shorter = replace(state, turns=state.turns[:-1])
        self._do(Entry("set", (conversation,), state.turns[-1].id), lambda: self.store.set(shorter))

    def update_metadata(self, conversation: str) -> None:
        """Change the metadata."""
        self._do(Entry("update_metadata", (conversation,)), lambda: self.store.update_metadata(conversation, n=1))

    def fork(self, conversation: str) -> None:
        """Copy the conversation."""
        new = self._fresh("f")
        self._do(Entry("fork", (new, conversation)), lambda: self.store.fork(conversation, new))

    def delete(self, conversation: str) -> None:
        """Delete it."""
        self._do(Entry("delete", (conversation,)), lambda: self.store.delete(conversation))

    def delete_prefix(self, conversation: str) -> None:
        """Delete it, and another that begins with its id."""
        other = f"{conversation}:more"
        self.append(other)
        entry = Entry("delete_prefix", (conversation, other))
        self._do(entry, lambda: self.store.delete_prefix(conversation))

    def cleanup(self, _conversation: str) -> None:
        """Clean up a conversation that was last used long ago."""
        old = self._fresh("old")
        state = ConversationState(old, self.name, created_at=LONG_AGO, updated_at=LONG_AGO)
        self._do(Entry("create", (old,)), lambda: self.store.create(state))
        self._do(Entry("cleanup", (old,)), lambda: self.store.cleanup(timedelta(days=3650)))

    def reserve_and_settle(self, _conversation: str) -> None:
        """Reserve an amount, and settle a part of it."""
        usd, scopes = self._price(), scopes_of(self.name)
        reserved: list[Reservation] = []

        def reserve() -> None:
            reserved.append(self.store.reserve(scopes, Decimal(1), limit=None, lease=60))

        self._do(Entry("reserve", ()), reserve)
        entry = Entry("settle", (), reserved[0].id, usd)
        self._do(entry, lambda: self.store.settle(reserved[0], Decimal(usd)))

    def read(self, conversation: str) -> None:
        """Read it, which starts its TTL again."""
        self._do(Entry("get", (conversation,)), lambda: self.store.get(conversation))
        self._do(Entry("recent", (conversation,)), lambda: self.store.recent(conversation, 2))

    def _do(self, entry: Entry, call: Callable[[], object]) -> None:
        os.write(self._journal, json.dumps(asdict(entry)).encode() + b"\n")
        if entry.verb == self._victim:
            self._killed_in.set()
        call()
        os.write(self._journal, b"{}\n")

    def _fresh(self, kind: str) -> str:
        self._number += 1
        return f"{self.name}-{kind}{self._number}"

    def _price(self) -> str:
        return f"0.{self._random.randrange(1, 10_000):04}"


VERBS: dict[str, Callable[[Writer, str], None]] = {
    "append": Writer.append,
    "create": Writer.create,
    "replace": Writer.replace,
    "archive": Writer.archive_and_restore,
    "restore": Writer.archive_and_restore,
    "add_summary": Writer.add_summary,
    "set": Writer.set,
    "update_metadata": Writer.update_metadata,
    "fork": Writer.fork,
    "delete": Writer.delete,
    "delete_prefix": Writer.delete_prefix,
    "cleanup": Writer.cleanup,
    "reserve": Writer.reserve_and_settle,
    "settle": Writer.reserve_and_settle,
    "get": Writer.read,
    "recent": Writer.read,
}


def scopes_of(name: str) -> tuple[str, str]:
    """Return the scopes of the ledger that a writer charges."""
    return "total", f"user:{name}"


def charge_of(name: str, usd: str) -> Charge:
    """Return the charge of a call."""
    return Charge(scopes_of(name), Decimal(usd))


def repeat(store: StateStore, entry: Entry, name: str) -> None:
    """Repeat a call that has no further effect if it succeeded already."""
    (conversation,) = entry.names or ("",)
    if entry.verb == "append":
        user = "everyone" if conversation == SHARED else name
        turn, charge = paid_turn(entry.key, entry.usd), charge_of(name, entry.usd)
        store.append(conversation, turn, user_id=user, charge=charge)
    elif entry.verb == "replace":
        store.replace(conversation, entry.target, paid_turn(entry.key, entry.usd), charge=charge_of(name, entry.usd))
    elif entry.verb == "settle":
        store.settle(Reservation(entry.key, scopes_of(name), Decimal(1)), Decimal(entry.usd))


def read_journal(path: Path) -> tuple[list[Entry], Entry | None]:
    """Return the acknowledged calls, and the one that was not acknowledged when the writer died."""
    done: list[Entry] = []
    begun: Entry | None = None
    for line in path.read_bytes().splitlines() if path.exists() else ():
        found: dict[str, Any] = json.loads(line)
        if found:
            begun = Entry(**{**found, "names": tuple(found["names"])})
        elif begun is not None:
            done.append(begun)
            begun = None
    return done, begun
