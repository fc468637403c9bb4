"""How diskcache is opened: nothing is evicted or pickled, its schema is simplified, and forks wait for its users."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from diskcache import Cache, Disk

from promptkit_nb.errors import StoreCorruptedError, StoreUnavailableError
from promptkit_nb.stores.layout import TIME_BYTES, time_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATABASE = "cache.db"


@contextmanager
def translating(directory: Path, timeout_s: float) -> Iterator[None]:
    """Raise our errors for those of SQLite and the file system."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translated(error, directory, timeout_s) from error


def translated(error: Exception, directory: Path, timeout_s: float) -> StoreCorruptedError | StoreUnavailableError:
    """Return our error for one of SQLite or the file system, with its own words and what to do."""
    where = f"The store in {directory}"
    if isinstance(error, OSError):
        return StoreUnavailableError(f"{where} cannot be used: {error.strerror or error}. {_remedy('', timeout_s)}")
    if not isinstance(error, sqlite3.OperationalError):
        return StoreCorruptedError(
            f"{where} is damaged ({error}). Nothing was changed; restore {DATABASE} from a backup, or save what "
            f"can be read with: sqlite3 {DATABASE} .recover"
        )
    if "no such table" in str(error):
        return StoreCorruptedError(f"{where} is damaged ({error}); restore {DATABASE} from a backup.")
    return StoreUnavailableError(f"{where} cannot be used: {error}. {_remedy(str(error), timeout_s)}")


def is_busy(error: Exception) -> bool:
    """Return whether another process is using the database, so that trying again may help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _remedy(words: str, timeout_s: float) -> str:
    if "locked" in words:
        return f"Another process has been writing for {timeout_s:g} s; try again when it has finished."
    if "full" in words:
        return "Free some space on the disk; stored conversations are safe."
    return (
        'Choose a directory that you may write to, as in DiskStore("conversations"); to read a read-only store, copy '
        "its directory."
    )


MODE_RAW = 1

Key = str | int


def check_row(key: Key, value: bytes) -> None:
    """Raise ``TypeError`` if this cannot be a row: that would be a bug of this package, not of its caller."""
    if type(key) not in (str, int):
        raise TypeError(f"A row's key is text or a whole number, not {type(key).__name__}.")
    if type(value) is not bytes:
        raise TypeError(f"A row's value is bytes, not {type(value).__name__}.")


class StrictDisk(Disk):  # type: ignore[misc]  # diskcache ships no types
    """Keys are text or whole numbers, values are bytes; anything else is refused, also when read."""

    def put(self, key: Key) -> tuple[Key, bool]:
        """Return the key in its stored form."""
        check_row(key, b"")
        return key, True

    def get(self, key: Key, raw: bool) -> Key:  # noqa: FBT001 - diskcache's signature
        """Return a stored key."""
        if raw and type(key) in (str, int):
            return key
        raise _foreign("a key that is neither text nor a number")

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, memoryview]:  # noqa: ARG002, FBT001 - diskcache's signature
        """Return the columns size, mode, filename and value: always inline, always bytes."""
        if read:
            raise TypeError("A row's value is bytes, not a file.")
        check_row("", value)
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:  # noqa: FBT001 - diskcache's signature
        """Return a stored value."""
        if read:
            raise _foreign("a file")
        return self.row("", True, mode, filename, value)[1]  # noqa: FBT003 - a column of diskcache's

    def row(self, key: Key, raw: object, mode: int, filename: str | None, value: object) -> tuple[Key, bytes]:
        """Return key and value of a stored row."""
        if not raw or type(key) not in (str, int):
            raise _foreign("a key that is neither text nor a number")
        if mode == MODE_RAW and filename is None and isinstance(value, bytes):
            return key, value
        raise _foreign(f"a value that is a pickle or in another file, in the row {key!a:.200}")

    def remove(self, file_path: str) -> None:
        """Refuse to delete a file, because this store has none."""
        raise _foreign(f"the file name {file_path!r}")


def _foreign(what: str) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"The store has {what}, which promptkit_nb never writes: another program wrote it. "
        "It was neither executed nor followed. Restore the store from a backup you trust, or save what can be read "
        "with: export_store(store, path, on_damaged=print)"
    )


SETTINGS: dict[str, str | int] = {
    "eviction_policy": "none",  # the default deletes rows beyond 1 GiB
    "cull_limit": 0,  # a set() may delete nothing
    "statistics": 0,
    "tag_index": 0,  # the one of disk_backend.py is narrower
    "disk_min_file_size": 2**31 - 1,  # no files next to the database
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 1,  # NORMAL: acknowledged writes survive a crash of the process
    "sqlite_secure_delete": 1,  # deleted data is overwritten
    "sqlite_wal_autocheckpoint": 4000,  # pages; fewer checkpoints make the slowest writes much faster
}

_SETS = ("INSERT OR REPLACE INTO Settings", "INSERT OR IGNORE INTO Settings", "UPDATE Settings SET value = ?")


def connected(directory: Path, timeout_s: float) -> sqlite3.Connection:
    """Return a connection to the database."""
    return sqlite3.connect(directory / DATABASE, timeout=timeout_s)  # a second positional argument warns from 3.13 on


def peek(directory: Path, key: Key, timeout_s: float) -> tuple[bool, object]:
    """Return whether the database has any rows, and the value of one of them, without changing anything.

    diskcache writes its settings when it opens a database, and so would change the cache of another program.
    """
    with translating(directory, timeout_s), closing(connected(directory, timeout_s)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "Cache" not in tables:
            return bool(tables - {"Settings"}), None  # another process may be creating it
        has_rows = connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone() is not None
        row = connection.execute("SELECT value FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
        return has_rows, row and row[0]


class Closer:
    """Closes a connection when this object is deleted, which happens in its own thread when that ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Close this connection on deletion; closing it twice is fine."""
        self.connection = connection

    def __del__(self) -> None:
        """Close the connection: Python 3.13 warns of connections that are not closed."""
        with suppress(sqlite3.Error):  # the connection belongs to a thread that is still running
            self.connection.close()


class QuietCache(Cache):  # type: ignore[misc]  # diskcache ships no types
    """A ``Cache`` that writes its settings only if they differ.

    Writing them each time it is opened would wait for other writers, and fail on a full disk, although the rows can be
    read there.
    """

    @property
    def _sql_retry(self) -> Callable[..., Any]:
        execute = super()._sql_retry

        def unless_set(statement: str, arguments: tuple[object, ...] = ()) -> Any:
            if statement.startswith(_SETS):
                key, value = arguments[::-1] if statement.startswith("UPDATE") else arguments
                found = execute("SELECT value FROM Settings WHERE key = ?", (key,)).fetchall()
                if found == [(value,)] or (found and "OR IGNORE" in statement):
                    return None
            return execute(statement, arguments)

        return unless_set


_INDEX_BY_TAG = "CREATE INDEX IF NOT EXISTS Promptkit_tag ON Cache(tag, key) WHERE tag IS NOT NULL"
IS_RECORD = "typeof(tag) = 'text' AND substr(tag, 1, 2) = 'u:'"  # as the index has it, so that the planner uses that
# The same as stored_time in layout.py, in SQL.
TIMES = {
    name: f"replace(CAST(substr(value, instr(value, x'{mark.hex()}') + {len(mark)}, {TIME_BYTES}) AS TEXT), 'Z', '')"
    for name, mark in (("created_at", time_mark("created_at")), ("updated_at", time_mark("updated_at")))
}
_INDEXES_BY_TIME = {
    f"Promptkit_{name}": f"CREATE INDEX Promptkit_{name} ON Cache({time}, key, tag) WHERE {IS_RECORD}"
    for name, time in TIMES.items()
}
_SLOW = (
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql NOT LIKE '%WHEN 0%' "
    "OR name = 'Cache_expire_time' AND sql NOT LIKE '%WHERE%'"
)


def simplify_schema(connection: sqlite3.Connection) -> None:
    """Make writes touch as few pages as possible.

    diskcache counts rows and bytes with triggers and indexes all rows by expiry time; this store uses neither. It
    would create both again if their names were free, so they are replaced by triggers that never fire and an index
    without rows. (Some builds of SQLite also reject how its triggers quote text.)
    """
    execute = connection.execute
    execute(_INDEX_BY_TAG)
    found = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    for name in _INDEXES_BY_TIME.keys() - found:
        with suppress(sqlite3.OperationalError):  # e.g. on a full disk; listing then only takes longer
            execute(_INDEXES_BY_TIME[name])
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


def check_settings(cache: Cache, directory: Path) -> None:
    """Raise ``StoreUnavailableError`` unless an opened cache has our settings."""
    wrong = [name for name, value in SETTINGS.items() if getattr(cache, name) != value]
    if wrong:
        raise StoreUnavailableError(
            f"The store in {directory} did not accept the settings {', '.join(wrong)}: use a directory on a local disk."
        )


_LOCKS: WeakSet[Any] = WeakSet()  # Python has no public type of such locks
_held: list[Any] = []


def lock_held_by_forks() -> Any:  # as above
    """Return a reentrant lock that ``os.fork()`` waits for and holds: a thread inside SQLite would block the child."""
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _before_fork() -> None:
    _held.extend(_LOCKS)
    for lock in _held:
        lock.acquire()


def _after_fork() -> None:
    for lock in _held:
        lock.release()
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
