"""Reads files line by line: memory is bounded by the longest line, and skipped lines are never decoded."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from promptkit_nb.imports.records import DamagedRecordError, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import msgspec

T = TypeVar("T")

LONGEST_LINE_BYTES = 32 * 2**20
"""Longer lines are not decoded; the longest line seen in real logs has 13 million characters."""

BUFFER_BYTES = 2**20
HEAD_BYTES = 400


class CountedFile(io.FileIO):
    """A file that reports how many bytes were read, without overhead for each line."""

    def __init__(self, path: Path, advance: Callable[[int], object]) -> None:
        """Open a file for reading."""
        super().__init__(path, "rb")
        self._advance = advance

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]  # a buffer
        """Read bytes, and report them."""
        count = super().readinto(buffer)
        self._advance(count or 0)
        return count


def open_counted(path: Path, advance: Callable[[int], object]) -> io.BufferedReader:
    """Open a file and report the progress of reading it; ``.zst`` files are decompressed on the fly."""
    raw = CountedFile(path, advance)
    if path.suffix != ".zst":
        return io.BufferedReader(raw, BUFFER_BYTES)
    try:
        import pyarrow as pa  # noqa: PLC0415 - not a dependency; only compressed files need it
    except ImportError as error:
        raw.close()
        raise DamagedRecordError("reading compressed files needs pyarrow: pip install pyarrow") from error
    return io.BufferedReader(pa.CompressedInputStream(io.BufferedReader(raw, BUFFER_BYTES), "zstd"), BUFFER_BYTES)


def skipping(types: Sequence[str]) -> tuple[bytes, ...]:
    """Return the JSON of a record's type, with and without a space."""
    return tuple(f'"type":{blank}"{name}"'.encode() for name in types for blank in ("", " "))


def lines_of(file: io.BufferedReader, skipped: Sequence[bytes] = ()) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and bytes of each line that is not blank; records of the ``skipped`` types are left out.

    Of a line longer than ``LONGEST_LINE_BYTES``, only the beginning is yielded, which ``decode_line`` refuses.
    """
    usual = skipped[0] if skipped else b"\n"
    for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE_BYTES), b""), 1):
        at = line.find(usual, 0, HEAD_BYTES)  # most lines of a log have the same type; one search finds it
        if at < 0:
            for other in skipped:
                at = line.find(other, 0, HEAD_BYTES)
                if at >= 0:
                    usual = other
                    break
        if len(line) == LONGEST_LINE_BYTES:
            _skip_rest(file, line)
        if at >= 0 and skipped and line.find(b"{", 1, at) < 0:  # otherwise it is the type of a nested object
            continue
        if not line.isspace():
            yield number, line


def decode_line(line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a line; raise ``DamagedRecordError`` if it is too long, or does not match the decoder."""
    if len(line) == LONGEST_LINE_BYTES:
        raise DamagedRecordError(f"a line of more than {LONGEST_LINE_BYTES // 2**20} MB is not read")
    try:
        return decode_record(line, decoder)
    except DamagedRecordError as error:
        if line.endswith(b"\n"):
            raise
        raise DamagedRecordError(f"{error}; the last line is not complete, and is read again next time") from error


def _skip_rest(file: io.BufferedReader, line: bytes) -> None:
    """Skip the rest of a long line."""
    part = line
    while part and not part.endswith(b"\n"):
        part = file.readline(BUFFER_BYTES)
