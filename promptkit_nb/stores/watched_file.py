"""Tells when the file that a store has open was deleted: SQLite writes on, and all of it is gone with the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import finalize

from promptkit_nb.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


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
