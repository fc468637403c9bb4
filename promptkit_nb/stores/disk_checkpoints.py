"""Decides when SQLite's log is moved into the database: regularly, but not while the directory is being copied.

A copy of the database and its log, made one after the other, is consistent unless the log was moved into the database,
or overwritten, in between. While a program that opened one of the files may still be copying, the log grows instead.
Only Linux reports opened files; on other systems, and after ``HELD_BYTES``, the log is moved anyway: in the background,
and if that cannot keep up with the writers, while they wait.
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
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import finalize

from promptkit_nb.stores.disk_cache import lock_held_by_forks

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP_BYTES = 4000 * 4096  # fewer checkpoints make the slowest writes much faster
SOME_BYTES = 4 * 2**20  # after a part of a large change; most of the time that a move takes is for each move
LONG_BYTES = 2 * STEP_BYTES
HELD_BYTES = 512 * 2**20
MOST_BYTES = 2 * HELD_BYTES
HELD_S = 15.0
LOCK_TIMEOUT_S = 0.5
TRY_S = 0.005  # SQLite itself tries again after up to 0.1 s
RETRY_S = 1.0
LARGE_S = 5.0
CUT_BYTES = 32 * 2**20
PAUSE_S = 0.03
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24

_OF_PARENTS: list[sqlite3.Connection] = []  # a forked child may not even close them

# SQLite writes nothing for an UPDATE that changes nothing.
_REWRITE = "REPLACE INTO Settings SELECT key, value FROM Settings WHERE key = 'eviction_policy'"

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class Checkpoints:
    """The checkpoints that one process makes of a database, on connections of its own: others can write meanwhile.

    Most of the log is moved while others write, and only what they wrote in that time while they wait. So the log is
    moved completely, however much is written, and begins anew. Its file is then shortened step by step: SQLite would
    shorten it at once, which blocks all writers for a quarter of a second at ``HELD_BYTES``.
    """

    def __init__(self, database: Path) -> None:
        """Start watching the database, which must exist."""
        self._database = database
        self._log = database.with_name(f"{database.name}-wal")
        self.due_bytes = STEP_BYTES
        self._long_bytes = LONG_BYTES
        self._long_since_s: float | None = None
        self._held_until = 0.0
        self._large_until_s = 0.0
        self._waits_for_writers = False
        self._lock = lock_held_by_forks()
        self._closed = False
        self._open()

    def _open(self) -> None:
        """Open the connections, before the watch, which would report them."""
        self._pid = os.getpid()
        self._timer: threading.Timer | None = None
        connections = [_connected(self._database) for _ in range(3)]
        self._reader, self._mover, self._writer = connections  # the reader keeps the log from being overwritten
        self._writer.execute("PRAGMA busy_timeout = 0")
        self._release = finalize(self, _close_all, connections)
        self._log_file = LogFile(self._log)
        self._opened = OpenedFiles(self._database)

    def move_for_large_change(self, log_bytes: int) -> bool:
        """Do the same as ``move``; until the next call, within ``LARGE_S``, no other thread waits to move the log."""
        self._large_until_s = time.monotonic() + LARGE_S
        if log_bytes < SOME_BYTES:
            return True
        self._log_file.sync(log_bytes)
        return self.move(log_bytes)

    def move_after_commit(self, log_bytes: int) -> None:
        """Have a log of this size moved in the background, unless a large change moves it; let a move begin."""
        if self._waits_for_writers:
            time.sleep(2 * TRY_S)
        elif log_bytes >= MOST_BYTES:
            self.move(log_bytes)
        elif log_bytes >= HELD_BYTES or time.monotonic() >= self._large_until_s:
            self.due_bytes = log_bytes + STEP_BYTES
            self._move_in(0)

    def move(self, log_bytes: int) -> bool:
        """Move a log of this size into the database, unless another program may be copying both; set ``due_bytes``.

        Return False if large changes should wait, because the log is long and could not be moved.
        """
        self.due_bytes = log_bytes + STEP_BYTES
        if not self._lock.acquire(blocking=log_bytes >= MOST_BYTES):
            return log_bytes < self._long_bytes  # another thread is moving it
        try:
            with suppress(sqlite3.Error, OSError):  # all writes are safe in the log
                if not self._closed and self._has_moved(log_bytes):
                    return True
            return self._may_grow(log_bytes)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Stop watching; closing again is fine."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._opened.close()
            self._log_file.close()
            self._release()

    def _has_moved(self, log_bytes: int) -> bool:
        """Move the log, and start one of at least ``STEP_BYTES`` anew; return whether that was possible.

        So others wait for one in some moves during a large change, which makes many.
        """
        must_move = log_bytes >= HELD_BYTES
        if os.getpid() != self._pid:
            self._begin_anew()
        if self._waits() and not must_move:
            return False
        self._let_go()
        is_held = False
        try:
            for locks_others in (False, False, True) if log_bytes >= STEP_BYTES else (False,):
                if locks_others:
                    self._lock_others()
                is_complete = self._move_once()
                if not locks_others:
                    _sync_opened(self._database)
                is_held = self._waits() and not must_move
                if is_held:
                    return False
        finally:
            if not is_held:
                self._let_go()
            self._writer.rollback()
        if log_bytes < STEP_BYTES:
            self.due_bytes = STEP_BYTES
            return True
        if is_complete:
            self._shrink()
            self._long_bytes = LONG_BYTES
        self.due_bytes = self._log.stat().st_size + STEP_BYTES
        return is_complete

    def _shrink(self) -> None:
        """Start a log that was moved anew, and make its file shorter, unless another writer or a reader prevents it.

        The file's header says then that what is cut off is not valid any more. Meanwhile, the reader keeps others from
        starting the log again.
        """
        self._lock_others()
        try:
            self._writer.execute(_REWRITE)
            self._writer.execute("COMMIT")
            self._read()
            is_longer = True
            while is_longer:
                time.sleep(PAUSE_S)  # for others, who waited for the last move, too
                is_longer = self._cut()
        finally:
            self._writer.rollback()
            self._let_go()

    def _cut(self) -> bool:
        """Cut off up to ``CUT_BYTES`` of the log's file that are not used; return whether there may be more."""
        self._lock_others()
        try:
            _, frames, _ = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            (page_bytes,) = self._mover.execute("PRAGMA page_size").fetchone()
            used = LOG_HEADER_BYTES + frames * (page_bytes + FRAME_HEADER_BYTES)
            unused = self._log.stat().st_size - used
            if frames > 0 and unused > 0:
                os.truncate(self._log, used + max(unused - CUT_BYTES, 0))
            return bool(frames > 0 and unused > CUT_BYTES)
        finally:
            self._writer.rollback()

    def _lock_others(self) -> None:
        """Keep others from writing; threads of this process that write all the time pause until then."""
        self._waits_for_writers, due_bytes, self.due_bytes = True, self.due_bytes, 0
        give_up_s = time.monotonic() + LOCK_TIMEOUT_S
        try:
            while not self._writer.in_transaction:
                try:
                    self._writer.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    if time.monotonic() >= give_up_s:
                        raise
                    time.sleep(TRY_S)
        finally:
            self._waits_for_writers, self.due_bytes = False, due_bytes

    def _move_once(self) -> bool:
        """Move what was written until now; from then on, the log is not overwritten. Return whether it is complete.

        A reader that finds everything moved would not keep the log, so the previous one stays unless there is more.
        """
        if self._reader.in_transaction and self._is_moved():
            return True
        self._let_go()
        self._read()
        return self._is_moved()

    def _read(self) -> None:
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT 1 FROM Cache LIMIT 1").fetchone()

    def _is_moved(self) -> bool:
        """Move what no reader needs in the log; return whether that is all of it."""
        _, written, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(written == moved)

    def _begin_anew(self) -> None:
        """Open new connections and a new watch in a forked child, which must not use those of its parent."""
        self._release.detach()
        _OF_PARENTS.extend((self._reader, self._mover, self._writer))
        self._opened.close()
        self._log_file.close()
        self._open()

    def _waits(self) -> bool:
        """Return whether another program may be copying; the log is then moved in the background afterwards."""
        if self._opened.since_last_time():
            self._held_until = time.monotonic() + HELD_S
        left_s = self._held_until - time.monotonic()
        if left_s > 0:
            self._move_in(left_s)
        return left_s > 0

    def _move_in(self, seconds: float) -> None:
        """Move the log after so many seconds, if that is not planned already; ``0`` replaces a later attempt."""
        planned = self._timer
        if planned is not None and not seconds:
            planned.cancel()
        if planned is None or not seconds:
            self._timer = threading.Timer(seconds, self._move_later)
            self._timer.daemon = True
            self._timer.start()

    def _move_later(self) -> None:
        """Move the log, and try again soon if another connection prevents it; not if the files are gone."""
        with self._lock:
            self._timer = None
            if self._closed:
                return
            try:
                has_moved = self._has_moved(self._log.stat().st_size)
            except sqlite3.Error:
                has_moved = False
            except OSError:
                return
            if not has_moved:
                self._move_in(RETRY_S)

    def _may_grow(self, log_bytes: int) -> bool:
        """Return whether a log that cannot be moved now is short, or has been long for more than twice ``HELD_S``."""
        if log_bytes < self._long_bytes:
            self._long_since_s = None
        elif self._long_since_s is None:
            self._long_since_s = time.monotonic()
        elif time.monotonic() > self._long_since_s + 2 * HELD_S:  # copies are made one after the other
            self._long_bytes = log_bytes + LONG_BYTES
        return log_bytes < self._long_bytes

    def _let_go(self) -> None:
        self._reader.rollback()


def _connected(database: Path) -> sqlite3.Connection:
    """Return a connection that any thread may use, with its files open."""
    connection = sqlite3.connect(database, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    return connection


def _close_all(connections: Sequence[sqlite3.Connection]) -> None:
    for each in connections:
        each.close()


def _sync_opened(path: Path) -> None:
    """Write a file that SQLite has open to the disk: it does so at the end of a move only, while all writers wait.

    This uses SQLite's own descriptor: closing another one would release SQLite's locks on the file.
    """
    wanted = path.stat()
    for each in Path("/proc/self/fd").glob("*"):  # only Linux has it
        with suppress(OSError):  # closed in the meantime, or a descriptor that only watches the file
            if os.path.samestat(each.stat(), wanted):
                os.fdatasync(int(each.name))
                return


class LogFile:
    """Writes a growing log to the disk in parts: moving it would write all of it at once, while all writers wait.

    Only Linux has logs that grow. SQLite has no locks on this file, which closing the descriptor would release.
    """

    def __init__(self, log: Path) -> None:
        """Open the log, which must exist."""
        self._synced_bytes = 0
        self._descriptor = -1
        if sys.platform == "linux":
            self._descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
            self._release = finalize(self, os.close, self._descriptor)

    def sync(self, log_bytes: int) -> None:
        """Write a log of this size to the disk, if it has become longer by ``SOME_BYTES``, or begun anew."""
        if self._descriptor >= 0 and not 0 <= log_bytes - self._synced_bytes < SOME_BYTES:
            with suppress(OSError):  # another thread has just closed it
                os.fdatasync(self._descriptor)
            self._synced_bytes = log_bytes

    def close(self) -> None:
        """Close the file; closing again is fine."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self._release()


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
