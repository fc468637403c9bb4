"""Reads regular files with a size limit, and replaces them atomically; refuses devices, pipes, and directories."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING

from promptkit_nb.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; ``OSError`` if it is not a regular file. It never waits for the writer of a pipe."""
    with open(path, "rb", opener=_open_at_once) as file:
        _check_is_regular(os.fstat(file.fileno()).st_mode)
        yield file


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the contents of a file; ``OSError`` if it is larger than that, or not a regular file."""
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most_bytes and len(data := file.read(most_bytes + 1)) <= most_bytes:
            return data
    raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes")


def lines_of(file: IO[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield the remaining lines of an open file; ``OSError`` if one is longer than that."""
    while line := file.readline(most_bytes + 1):
        if len(line) > most_bytes:
            raise OSError(errno.EFBIG, f"it has a line of more than {most_bytes:,} bytes")
        yield line


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file, readable by its owner only, that replaces ``path`` when everything is written.

    If the path is a symbolic link, its target is replaced. Raises ``StoreUnavailableError`` if that is not a regular
    file, or cannot be written.
    """
    target = path.absolute()
    try:
        with suppress(FileNotFoundError):
            _check_is_regular(target.stat().st_mode)
        target = Path(os.path.realpath(target))
        file = NamedTemporaryFile(dir=target.parent, prefix=f".{target.name:.60}.", delete=False)  # noqa: SIM115 - entered below
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink()
            raise
    except OSError as error:
        raise StoreUnavailableError(
            f"{target} cannot be written: {error.strerror or error}. Choose a directory you can write to."
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # not on Windows, which has no such pipes


def _check_is_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
