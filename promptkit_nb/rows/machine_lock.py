"""A lock among the processes of one machine, which a process that is stopped or asleep still holds."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from platformdirs import user_data_path

if TYPE_CHECKING:
    from pathlib import Path

_PRIMARY = 0xFF  # the bits of an extended error code of SQLite that name the kind of error


class MachineLock:
    """Held by one owner at a time; the operating system frees it once the process has ended, however it ended.

    It is a lock of SQLite on an empty file in the user's data directory, and works on every system.

    >>> mine, other = MachineLock("labels"), MachineLock("labels")
    >>> mine.take(), other.take(), mine.release(), other.take(), other.release()
    (True, False, None, True, None)
    """

    def __init__(self, name: str, directory: Path | None = None) -> None:
        """Hold nothing yet; ``directory`` is by default that of the user's data."""
        self._directory = directory
        self._file_name = f"run-{sha256(name.encode()).hexdigest()[:32]}.lock"
        self._held: sqlite3.Connection | None = None
        self._file: Path | None = None

    def take(self) -> bool:
        """Take it, unless another owner holds it; return whether none does.

        If the file cannot be locked at all, as in a home directory that is read-only, nobody holds it.
        """
        try:
            directory = self._directory or user_data_path("promptkit_nb")
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = directory / self._file_name
            while self._held is None:
                before = _identity(file)
                held = _locked(file)
                if before is not None and before == _identity(file):
                    self._held, self._file = held, file
                else:  # the file is new, or was removed by its last owner meanwhile
                    held.close()
        except sqlite3.OperationalError as error:
            return error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY
        except (OSError, RuntimeError):  # platformdirs raises the latter if there is no home directory
            return True
        return True

    def release(self) -> None:
        """Let others take it, and remove the file."""
        held, self._held = self._held, None
        if held is not None and self._file is not None:
            with suppress(OSError):  # Windows does not remove open files
                self._file.unlink()
            held.close()


def _locked(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = MEMORY")  # else a second file would appear
        connection.execute("BEGIN EXCLUSIVE")
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what tells this file from a later one of the same name, ``None`` if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
