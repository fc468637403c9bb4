"""Decides when SQLite's log is moved into the database: regularly, but not while the directory is being copied.

A copy of the database and its log, made one after the other, is consistent unless the log was moved into the database,
or overwritten, in between. While a program that opened one of the files may still be copying, the log grows instead.
Only Linux reports opened files; on other systems, and after ``HELD_BYTES``, the log is moved anyway.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import finalize

if TYPE_CHECKING:
    from pathlib import Path

STEP_BYTES = 4000 * 4096  # fewer checkpoints make the slowest writes much faster
HELD_BYTES = 512 * 2**20
HELD_S = 15.0

_OF_PARENTS: list[sqlite3.Connection] = []  # a forked child may not even close them

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class Checkpoints:
    """The checkpoints that one process makes of a database; it is only called while no other thread uses the store."""

    def __init__(self, database: Path) -> None:
        """Start watching the database, which must exist."""
        self._database = database
        self.due_bytes = STEP_BYTES
        self._held_until = 0.0
        self._pid = os.getpid()
        # a reader that keeps the log from being overwritten; it opens the files before the watch, which would report it
        reader = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        reader.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        self._reader = reader
        self._release_reader = finalize(self, reader.close)
        self._opened = OpenedFiles(database)

    def run(self, connection: sqlite3.Connection, log_bytes: int) -> None:
        """Move a log of this size into the database, unless another program may be copying both; set ``due_bytes``."""
        if os.getpid() != self._pid:
            self._begin_anew()
        self.due_bytes = log_bytes + STEP_BYTES
        may_wait = log_bytes < HELD_BYTES
        if self._is_held() and may_wait:
            return
        self._let_go()
        with suppress(sqlite3.Error):  # all writes are safe in the log
            self._reader.execute("BEGIN")
            self._reader.execute("SELECT 1 FROM Cache LIMIT 1").fetchone()
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if self._is_held() and may_wait:
            release = threading.Timer(HELD_S, self._let_go)
            release.daemon = True
            release.start()
            return
        self._let_go()
        self.due_bytes = STEP_BYTES  # the next write starts the log from its beginning

    def close(self) -> None:
        """Stop watching; closing again is fine."""
        self._opened.close()
        self._release_reader()

    def _begin_anew(self) -> None:
        """Open a new reader and watch in a forked child, which must not use those of its parent."""
        self._release_reader.detach()
        _OF_PARENTS.append(self._reader)
        self._opened.close()
        self.__init__(self._database)  # type: ignore[misc]  # the same database, in another process

    def _is_held(self) -> bool:
        if self._opened.since_last_time():
            self._held_until = time.monotonic() + HELD_S
        return time.monotonic() < self._held_until

    def _let_go(self) -> None:
        with suppress(sqlite3.Error):
            self._reader.rollback()


class OpenedFiles:
    """Reports whether any program opened a database or its log, if the system supports that."""

    def __init__(self, database: Path) -> None:
        """Watch the database's directory."""
        self._names = {os.fsencode(database.name), os.fsencode(f"{database.name}-wal")}
        self._descriptor = -1
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:  # the user's limit of watches is reached
            return
        self._descriptor = descriptor
        self._release = finalize(self, os.close, descriptor)
        libc.inotify_add_watch(descriptor, os.fsencode(database.parent), _IN_OPEN)

    def since_last_time(self) -> bool:
        """Return whether a file was opened since the last call, or since watching began."""
        was_opened = False
        while self._descriptor >= 0:
            try:
                events = os.read(self._descriptor, 1 << 16)
            except OSError:  # no more events
                break
            was_opened = was_opened or any(name in self._names for name in _names_in(events))
        return was_opened

    def close(self) -> None:
        """Stop watching; closing again is fine."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self._release()


def _names_in(events: bytes) -> list[bytes]:
    names, start = [], 0
    while start < len(events):
        *_, length = _EVENT.unpack_from(events, start)
        start += _EVENT.size
        names.append(events[start : start + length].rstrip(b"\0"))
        start += length
    return names
