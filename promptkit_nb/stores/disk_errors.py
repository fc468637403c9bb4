"""What SQLite and the file system raise, as errors of ours that say what to do."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from promptkit_nb.errors import StoreCorruptedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "cache.db"


@contextmanager
def translating(directory: Path, timeout_s: float) -> Iterator[None]:
    """Raise our errors where SQLite or the file system raises its own."""
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


def _remedy(words: str, timeout_s: float) -> str:
    if "locked" in words:
        return f"Another process has been writing for {timeout_s:g} s; try again when it is done."
    if "full" in words:
        return "Make room on the disk; what was stored before is safe."
    return (
        'Choose a directory that you may write to, as in DiskStore("conversations"); a store that may only be read is '
        "read from a copy of its directory."
    )
