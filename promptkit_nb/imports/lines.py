"""Reads files line by line: memory is bounded by the longest line, and skipped lines are never decoded."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar

from promptkit_nb.imports.records import DamagedRecordError, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import msgspec

T = TypeVar("T")

LONGEST_LINE_BYTES = 32 * 2**20
"""Longer lines are not decoded; the longest line seen in real logs has 13 million characters."""

BLOCK_BYTES = 2**18
"""What fits in a processor's cache is read much faster."""

HEAD_BYTES = 400
MOST_USUAL = 16
MOST_AT_ONCE = 2**13
"""Bounds the memory for a comparison of many lines at once; blocks with more lines have only very short ones."""


Shape: TypeAlias = tuple[tuple[bytes, int], ...]
"""Texts and their places in a line; all of them have at least eight bytes."""


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


@dataclass(frozen=True, slots=True)
class Skipped:
    """Types of records that are left out; conditional ones only with a match of ``condition`` in the same object."""

    types: re.Pattern[bytes]
    condition: re.Pattern[bytes]

    def shape_of(self, line: bytes) -> Shape | None:
        """Return the shape of lines that are left out as this one is; ``None`` if it is not left out."""
        found = self.types.search(line, 0, HEAD_BYTES)
        if found is None:
            return None
        shape: Shape = ((found[0], found.start()),)
        if found.lastindex:
            condition = self.condition.search(line, 0, HEAD_BYTES)
            if condition is None:
                return None
            shape = (*shape, (condition[0], condition.start()))
        is_nested = line.find(b"{", 1, _last_place(shape)) >= 0
        return None if is_nested else shape


def _last_place(shape: Shape) -> int:
    return max(start for _, start in shape)


def skipping(*types: str, conditional: str = "", condition: bytes = b"") -> Skipped:
    """Return what finds these types of records in JSON, with and without a space.

    Records of the type ``conditional`` are left out only if their beginning matches the pattern ``condition``, outside
    nested objects.
    """
    names = [re.escape(name.encode()) for name in types]
    names += [b"(%s)" % re.escape(conditional.encode())] if conditional else []
    return Skipped(re.compile(rb'"type": ?"(?:%s)"' % b"|".join(names)), re.compile(condition))


def lines_of(
    file: BinaryIO, skipped: Skipped | None = None, usual: list[Shape] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and bytes of each line that is not blank; ``skipped`` records are left out.

    Of a line longer than ``LONGEST_LINE_BYTES``, only the beginning is yielded, which ``decode_line`` refuses. Most
    lines of a log have one of a few shapes, which are compared for many lines at once; ``usual`` keeps these for the
    next file.
    """
    number = 1
    usual = [] if usual is None else usual
    for lines in _lists_of_lines(file):
        for index in _without(usual, lines) if usual and len(lines) <= MOST_AT_ONCE else range(len(lines)):
            line = lines[index]
            shape = skipped and skipped.shape_of(line)
            if shape:
                if shape not in usual and len(usual) < MOST_USUAL:
                    usual.append(shape)
            elif not line.isspace():
                yield number + index, line
        number += len(lines)


def _without(usual: list[Shape], lines: list[bytes]) -> list[int]:
    """Return the positions of lines that have none of these shapes; shapes that no line has are removed.

    Braces are searched eight bytes at a time: each text is longer, so it has no brace in the bytes where it begins.
    """
    import numpy as np  # noqa: PLC0415 - a tenth of a second, and only for files with lines to skip

    words = max(-(-(start + len(text)) // 8) for shape in usual for text, start in shape)
    heads = np.fromiter(lines, f"S{words * 8}", len(lines)).view(np.uint8).reshape(-1, words * 8)
    heads[:, 0] = 0  # the brace of the record itself
    braces = (heads == ord("{")).view(np.uint64).ravel().astype(bool).nonzero()[0]
    is_skipped = np.zeros(len(lines), bool)
    for shape in usual.copy():
        texts = (np.ndarray(len(lines), f"S{len(text)}", heads, at, (words * 8,)) == text for text, at in shape)
        is_found = reduce(and_, texts)
        if braces.size:
            is_found[braces[braces % words * 8 < _last_place(shape)] // words] = False
        if np.count_nonzero(is_found):
            is_skipped |= is_found
        else:
            usual.remove(shape)
    return (~is_skipped).nonzero()[0].tolist()


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
