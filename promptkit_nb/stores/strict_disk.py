"""A diskcache ``Disk`` that never unpickles and never touches a file: text, numbers and bytes in the database only.

Stock diskcache unpickles what it reads, so whoever can write to the store's file could run code in its reader
(CVE-2025-69872), and a planted file name would read or delete any file. Here such rows are refused.
"""

from __future__ import annotations

import sqlite3

from diskcache import Disk

from promptkit_nb.errors import StoreCorruptedError

MODE_RAW = 1

Key = str | int


def check_row(key: Key, value: bytes) -> None:
    """Raise ``TypeError`` for what may be no row: a bug of ours, and nothing that a caller could give."""
    if type(key) not in (str, int):
        raise TypeError(f"A row's key is text or a whole number, not {type(key).__name__}.")
    if type(value) is not bytes:
        raise TypeError(f"A row's value is bytes, not {type(value).__name__}.")


class StrictDisk(Disk):  # type: ignore[misc]  # diskcache ships no types
    """Keys are text or whole numbers, values are bytes; nothing else goes in or comes out."""

    def put(self, key: Key) -> tuple[Key, bool]:
        """Return the key as it is stored."""
        check_row(key, b"")
        return key, True

    def get(self, key: Key, raw: bool) -> Key:  # noqa: FBT001 - diskcache's signature
        """Return a stored key."""
        if raw and type(key) in (str, int):
            return key
        raise _planted("a key that is neither text nor a number")

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, memoryview]:  # noqa: ARG002, FBT001 - diskcache's signature
        """Return the columns size, mode, filename and value: always inline, always bytes."""
        if read:
            raise TypeError("A row's value is bytes, not a file.")
        check_row("", value)
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:  # noqa: FBT001 - diskcache's signature
        """Return a stored value."""
        if read:
            raise _planted("a file")
        return self.row("", True, mode, filename, value)[1]  # noqa: FBT003 - a column of diskcache's

    def row(self, key: Key, raw: object, mode: int, filename: str | None, value: object) -> tuple[Key, bytes]:
        """Return key and value of a stored row."""
        if not raw or type(key) not in (str, int):
            raise _planted("a key that is neither text nor a number")
        if mode == MODE_RAW and filename is None and isinstance(value, bytes):
            return key, value
        raise _planted(f"a value that is a pickle, or stands in another file, in the row {key!a:.200}")

    def remove(self, file_path: str) -> None:
        """Refuse to delete a file: this store has none."""
        raise _planted(f"the file name {file_path!r}")


def _planted(what: str) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"The store holds {what}, which promptkit_nb never writes: somebody else wrote to it. "
        "It was neither executed nor followed. Restore the store from a backup you trust, or save what can be read "
        "with: export_store(store, path, on_damaged=print)"
    )
