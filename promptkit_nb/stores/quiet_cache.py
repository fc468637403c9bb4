"""How diskcache's database is set up and opened: nothing is ever evicted, and opening writes no more than it must."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from diskcache import Cache

from promptkit_nb.stores.disk_errors import DATABASE, translating

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.strict_disk import Key

SETTINGS: dict[str, str | int] = {
    "eviction_policy": "none",  # the default deletes rows beyond 1 GiB
    "cull_limit": 0,  # a set() may delete nothing
    "statistics": 0,
    "tag_index": 0,  # the one of disk_table.py is narrower
    "disk_min_file_size": 2**31 - 1,  # never a file beside the database
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 1,  # NORMAL: what was acknowledged outlives the process
    "sqlite_secure_delete": 1,  # what is deleted is overwritten
    "sqlite_wal_autocheckpoint": 4000,  # pages; fewer, larger pauses: the slowest writes get much faster
}

_SETS = ("INSERT OR REPLACE INTO Settings", "INSERT OR IGNORE INTO Settings", "UPDATE Settings SET value = ?")


def look_into(directory: Path, key: Key, timeout_s: float) -> tuple[bool, object]:
    """Return whether the database holds anything, and the value of one row, without changing anything.

    diskcache writes its settings as it opens a database, and so would change how another program's cache works.
    """
    with translating(directory, timeout_s), closing(sqlite3.connect(directory / DATABASE, timeout_s)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "Cache" not in tables:
            return bool(tables - {"Settings"}), None  # another process may just be making it
        has_rows = connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone() is not None
        row = connection.execute("SELECT value FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
        return has_rows, row and row[0]


class QuietCache(Cache):  # type: ignore[misc]  # diskcache ships no types
    """A ``Cache`` that writes its settings only where they differ.

    Written anew at each opening, they would make it wait for whoever is writing, and fail on a full disk, where what is
    stored can well be read.
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
