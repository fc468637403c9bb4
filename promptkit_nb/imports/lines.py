"""Reads files line by line: memory is bounded by the longest line, and skipped lines are never decoded."""

from __future__ import annotations

import io
import re
from itertools import compress, repeat
from operator import itemgetter, ne
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from promptkit_nb.imports.records import DamagedRecordError, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import msgspec

T = TypeVar("T")

LONGEST_LINE_BYTES = 32 * 2**20
"""Longer lines are not decoded; the longest line seen in real logs has 13 million characters."""

BLOCK_BYTES = 2**16
"""What fits in a processor's cache is read much faster."""

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
        return io.BufferedReader(raw, BLOCK_BYTES)
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra; only compressed files need it
    except ImportError as error:
        raw.close()
        raise DamagedRecordError("reading compressed files needs pyarrow: pip install 'promptkit-nb[arrow]'") from error
    return io.BufferedReader(pa.CompressedInputStream(io.BufferedReader(raw, BLOCK_BYTES), "zstd"), BLOCK_BYTES)


def skipping(*types: str) -> re.Pattern[bytes]:
    """Return a pattern that finds these types of records in JSON, with and without a space."""
    return re.compile(rb'"type": ?"(?:%s)"' % b"|".join(re.escape(name.encode()) for name in types))


def lines_of(file: BinaryIO, skipped: re.Pattern[bytes] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and bytes of each line that is not blank; records of the ``skipped`` types are left out.

    Of a line longer than ``LONGEST_LINE_BYTES``, only the beginning is yielded, which ``decode_line`` refuses. Most
    lines of a log have the same type in the same place, which is compared for many lines at once.
    """
    number = 1
    usual, start = b"\n", 0
    for lines in _lists_of_lines(file):
        others: Iterable[tuple[int, bytes]] = enumerate(lines, number)
        heads = b"".join(map(itemgetter(slice(1, start)), lines))
        if b"{" not in heads:  # no type is that of a nested object
            types = [*map(itemgetter(slice(start, start + len(usual))), lines)]
            is_all_usual = types.count(usual) == len(types)
            others = () if is_all_usual else compress(others, map(ne, types, repeat(usual)))
        for place, line in others:
            found = skipped and skipped.search(line, 0, HEAD_BYTES)
            if found and line.find(b"{", 1, found.start()) < 0:
                usual, start = found[0], found.start()
            elif not line.isspace():
                yield place, line
        number += len(lines)


def _lists_of_lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of a file, many at a time; of a long line only its beginning."""
    held = bytearray()
    while block := file.read(BLOCK_BYTES):
        lines = io.BytesIO(block).readlines()
        held += lines[0]
        del held[LONGEST_LINE_BYTES:]
        if len(lines) == 1 and not block.endswith(b"\n"):
            continue
        lines[0] = bytes(held)
        held = bytearray(b"" if block.endswith(b"\n") else lines.pop())
        yield lines
    if held:
        yield [bytes(held)]


def check_length(line: bytes) -> None:
    """Raise ``DamagedRecordError`` if this is only the beginning of a line that is too long."""
    if len(line) == LONGEST_LINE_BYTES:
        raise DamagedRecordError(f"a line of more than {LONGEST_LINE_BYTES // 2**20} MB is not read")


def decode_line(line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a line; raise ``DamagedRecordError`` if it is too long, or does not match the decoder."""
    check_length(line)
    try:
        return decode_record(line, decoder)
    except DamagedRecordError as error:
        if line.endswith(b"\n"):
            raise
        raise DamagedRecordError(f"{error}; the last line is not complete, and is read again next time") from error
