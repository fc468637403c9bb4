"""The table under ``DiskStore``: rows of bytes by key, in transactions, on diskcache.

All that reaches behind diskcache's public calls (ranges of keys, its connection) is here and in ``quiet_cache``, and
nowhere else; that is why diskcache is pinned below 6, and a test fails loudly if its internals change.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]  # typeshed leaves it out
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from weakref import WeakSet, finalize

from promptkit_nb.errors import StoreUnavailableError
from promptkit_nb.stores.disk_cache import (
    DATABASE,
    SETTINGS,
    Key,
    QuietCache,
    StrictDisk,
    check_row,
    translated,
    translating,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType, TracebackType


class InterruptsHeld:
    """A context in which SIGINT waits; it is delivered at the end of the block. Not reentrant.

    Only the main thread runs signal handlers, so elsewhere there is nothing to hold. A handler that was not set from
    Python cannot be put back, and is left alone. The functions are those behind the module ``signal``, which in Python
    3.11 looks each handler up among its names for numbers, and takes a tenth of an append for that.
    """

    def __enter__(self) -> Self:
        """Begin to hold SIGINT back."""
        self._pending: FrameType | None = None
        self._came = False
        self._former: Callable[[int, FrameType | None], object] | None = None
        if threading.get_ident() == threading.main_thread().ident:
            former = getsignal(SIGINT)
            if callable(former):
                self._former = former
                signal(SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handler back, and deliver what came."""
        if self._former is None:
            return
        signal(SIGINT, self._former)
        if self._came:
            self._former(SIGINT, self._pending)

    def _hold(self, _number: int, frame: FrameType | None) -> None:
        self._came = True
        self._pending = frame


class WatchedFile:
    """A file that is there now.

    On Linux it is held by a descriptor that can only be asked about it: asking by its path takes several times as long,
    and closing an ordinary descriptor would let go of the locks that SQLite has on the file.
    """

    def __init__(self, path: Path) -> None:
        """Begin to watch the file."""
        self._path = path
        self._held: int | str = str(path)
        if hasattr(os, "O_PATH"):
            self._held = os.open(path, os.O_PATH)
            self._release = finalize(self, os.close, self._held)
            self._release.atexit = False  # a thread may be storing an answer to the end
        self._inode = os.stat(self._held).st_ino  # noqa: PTH116 - a descriptor is no path

    def check_is_there(self) -> None:
        """Raise ``StoreUnavailableError`` where the file was deleted."""
        self._check(self._held)

    def check_is_at_its_path(self) -> None:
        """Raise ``StoreUnavailableError`` where the file is not what would be opened now."""
        self._check(str(self._path))

    def _check(self, held: int | str) -> None:
        try:
            found = os.stat(held)  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or found.st_nlink == 0 or found.st_ino != self._inode:
            raise StoreUnavailableError(
                f"The store in {self._path.parent} was deleted or moved while it was open; nothing was stored. "
                "Open a store anew."
            )

    def close(self) -> None:
        """Let go of the file; calling it again is fine."""
        if hasattr(os, "O_PATH"):
            self._release()


T = TypeVar("T")

_INDEX = "CREATE INDEX IF NOT EXISTS Promptkit_tag ON Cache(tag, key) WHERE tag IS NOT NULL"
_COPIED = "raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
_COLUMNS = "key, raw, mode, filename, value"
_GET = "SELECT raw, mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
# Each row that is written has raw = 1, mode = 1 and no file name: see StrictDisk. Where a key is taken, the transaction
# fails as a whole, so SQLite need not be ready to undo the statement alone. What _CHANGE changes is in no index.
_ADD = "INSERT OR FAIL INTO Cache(key, raw, store_time, tag, mode, filename, value) VALUES (?, 1, ?, ?, 1, NULL, ?)"
_PUT = (
    "INSERT INTO Cache(key, raw, store_time, tag, mode, filename, value) VALUES (?, 1, ?, ?, 1, NULL, ?) "
    "ON CONFLICT(key, raw) DO UPDATE SET "
    "tag = excluded.tag, mode = excluded.mode, filename = excluded.filename, value = excluded.value"
)
_CHANGE = "UPDATE Cache SET mode = 1, filename = NULL, value = ? WHERE key = ? AND raw = 1 AND tag IS ?"
_SWAP = (
    "UPDATE Cache SET value = ? WHERE key = ? AND raw = 1 AND tag = ? AND value = ? "
    "AND NOT EXISTS (SELECT 1 FROM Cache WHERE tag = ? AND key >= ? AND key < ?)"
)
_SLOW = (
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql NOT LIKE '%WHEN 0%' "
    "OR name = 'Cache_expire_time' AND sql NOT LIKE '%WHERE%'"
)


class Row(NamedTuple):
    """A row with a tag."""

    key: Key
    value: bytes
    tag: str


_OPEN: WeakSet[Table] = WeakSet()


class Table:
    """Rows of a database in a directory; values are bytes, keys text or whole numbers (which sort before text).

    Every call stands in a ``run()``. Raises ``StoreUnavailableError`` where the file cannot be used now, with
    SQLite's own words, and ``StoreCorruptedError`` where it is damaged.
    """

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the database, creating it where there is none."""
        self._directory = directory
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread whose transaction is open
        self._closed = False
        with translating(directory, timeout_s), self._lock:
            self._cache: Any = QuietCache(str(directory), timeout=timeout_s, disk=StrictDisk, **SETTINGS)
            self._disk: StrictDisk = self._cache.disk
            self._connection = self._connected()
            self._file = WatchedFile(directory / DATABASE)
            self._switches = 0  # between connections, of which each thread has its own
            self._told = 0  # changes that the version does not count
            self._lighten()
            wrong = [name for name, value in SETTINGS.items() if not self._is_set(name, value)]
        _OPEN.add(self)
        if wrong:
            raise StoreUnavailableError(f"The store in {directory} did not take the settings {', '.join(wrong)}.")

    def run(self, work: Callable[[], T], *, write: bool) -> T:
        """Run the work while nobody else changes the rows; all that it writes lands, or nothing. Never nested.

        Ctrl-C waits for the end of it: also where it only reads, since the traceback of an interrupt that came between
        two steps would keep the lock.
        """
        try:
            with InterruptsHeld(), self._lock:
                return self._run(work, write=write)
        except (sqlite3.Error, OSError) as error:
            raise translated(error, self._directory, self._timeout_s) from error

    def version(self) -> tuple[int, int, int]:
        """Return what becomes another as soon as any row does, whoever wrote it, or another thread reads.

        SQLite counts what other connections commit, and what this one changes; each thread has one of its own. What
        ``swap`` changes does not count.
        """
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()
        return self._switches, others, self._connection.total_changes - self._told

    def get(self, key: Key) -> bytes | None:
        """Return the value of one row, or ``None``."""
        row = self._connection.execute(_GET, (key,)).fetchone()
        return None if row is None else self._disk.row(key, *row)[1]

    def put(self, key: Key, value: bytes, tag: str | None = None, *, counts: bool = True) -> None:
        """Write one row, replacing the one that has the key; the version stays the same unless this ``counts``."""
        check_row(key, value)
        if self._connection.execute(_CHANGE, (value, key, tag)).rowcount == 0:
            self._connection.execute(_PUT, (key, time.time(), tag, value))
        self._told += not counts

    def add(self, key: Key, value: bytes, tag: str) -> None:
        """Write one row whose key must be new: a row that has it is damage, and stays."""
        check_row(key, value)
        self._connection.execute(_ADD, (key, time.time(), tag, value))

    def swap(self, row: Row, former: bytes, new: Row, low: Key, high: Key) -> bool:
        """Write one row and add a new one, if the first has its former value, and no ``low <= key < high`` the new tag.

        Return whether both was so; if not, nothing was changed.
        """
        check_row(row.key, row.value)
        asked = (row.value, row.key, row.tag, former, new.tag, low, high)
        if self._connection.execute(_SWAP, asked).rowcount == 0:
            return False
        self.add(*new)
        self._told += 2
        return True

    def between(self, low: Key, high: Key) -> list[tuple[Key, bytes]]:
        """Return the rows with ``low <= key < high`` in the order of their keys."""
        select = f"SELECT {_COLUMNS} FROM Cache WHERE key >= ? AND key < ? ORDER BY key"  # noqa: S608 - a constant
        return self._read(select, low, high)

    def texts_between(self, low: str, high: str) -> list[str]:
        """Return the keys with ``low <= key < high``, also of rows that cannot be read."""
        select = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 AND typeof(key) = 'text' ORDER BY key"
        return [key for (key,) in self._connection.execute(select, (low, high))]

    def tagged(self, tag: str) -> list[tuple[Key, bytes]]:
        """Return the rows with this tag."""
        return self._read(f"SELECT {_COLUMNS} FROM Cache WHERE tag = ?", tag)  # noqa: S608 - a constant

    def key_of_tag(self, tag: str, low: Key, high: Key) -> Key | None:
        """Return the key of the row with ``low <= key < high`` that has this tag."""
        select = "SELECT key FROM Cache WHERE tag = ? AND key >= ? AND key < ? LIMIT 1"
        row = self._connection.execute(select, (tag, low, high)).fetchone()
        return None if row is None else row[0]

    def copy_between(self, low: int, high: int, shift: int) -> None:
        """Copy the rows with ``low <= key < high`` to keys that are greater by ``shift``."""
        self._connection.execute(
            f"INSERT INTO Cache(key, {_COPIED}) SELECT key + ?, {_COPIED} FROM Cache WHERE key >= ? AND key < ?",  # noqa: S608 - a constant
            (shift, low, high),
        )

    def delete(self, key: Key) -> None:
        """Delete one row, if it is there."""
        self._connection.execute("DELETE FROM Cache WHERE key = ?", (key,))

    def delete_between(self, low: Key, high: Key) -> None:
        """Delete the rows with ``low <= key < high``."""
        self._connection.execute("DELETE FROM Cache WHERE key >= ? AND key < ?", (low, high))

    def close(self) -> None:
        """Fold the log into the database, so that nothing deleted stays in a file, and let go of it."""
        with translating(self._directory, self._timeout_s), InterruptsHeld(), self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._cache.close()
                self._file.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def _read(self, select: str, *arguments: Key) -> list[tuple[Key, bytes]]:
        row_of = self._disk.row
        return [row_of(*row) for row in self._connection.execute(select, arguments)]

    def _connected(self) -> sqlite3.Connection:
        """Return the connection of this thread and process."""
        connection: sqlite3.Connection = self._cache._con  # noqa: SLF001 - the one file that may, see the module
        return connection

    def _run(self, work: Callable[[], T], *, write: bool) -> T:
        if self._closed:
            raise StoreUnavailableError(f"This store in {self._directory} is closed; open it again.")
        if write:
            self._file.check_is_there()
        connection = self._connected()
        if connection is not self._connection:
            self._file.check_is_at_its_path()
            self._connection = connection
            self._switches += 1
        if connection.in_transaction:  # an interrupt came at the worst moment
            connection.rollback()
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        self._owner = threading.get_ident()
        try:
            result = work()
            connection.execute("COMMIT")
        finally:
            self._owner = None
            if connection.in_transaction:
                connection.rollback()
        return result

    def _lighten(self) -> None:
        """Let a written row touch no more pages than it must.

        diskcache counts rows and bytes in triggers, and orders all rows by when they expire. Nobody here asks for
        either. It makes both again unless something bears their names: so triggers that never fire do, and an index
        of no row. (Its triggers quote text in a way that some builds of SQLite refuse, too.)
        """
        execute = self._connection.execute
        execute(_INDEX)
        if not execute(_SLOW).fetchall():
            return
        execute("BEGIN IMMEDIATE")
        for name, statement in execute(_SLOW).fetchall():
            if statement.startswith("CREATE TRIGGER"):
                execute(f"DROP TRIGGER {name}")
                execute(f"{statement[: statement.index(' BEGIN')]} WHEN 0 BEGIN SELECT 1; END")
            else:
                execute(f"DROP INDEX {name}")
                execute(f"{statement} WHERE expire_time IS NOT NULL")
        execute("COMMIT")

    def _is_set(self, name: str, value: str | int) -> bool:
        found: str | int = getattr(self._cache, name)
        return found == value


def _before_fork() -> None:
    """Let no other thread be inside SQLite while this process forks: its child would wait for that thread for ever."""
    global _held  # noqa: PLW0603 - from the one hook to the next
    mine = threading.get_ident()
    _held = [table for table in _OPEN if table._owner != mine]  # noqa: SLF001 - of this module
    for table in _held:
        table._lock.acquire()  # noqa: SLF001 - of this module


def _after_fork() -> None:
    for table in _held:
        table._lock.release()  # noqa: SLF001 - of this module
    _held.clear()


_held: list[Table] = []

if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
