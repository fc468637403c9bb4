"""Where things stand in a JSON text: the line and column of a pointer, and keys that stand there twice.

Parsers forget both. The text is read once more, token by token, only where there is something to tell.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptkit_nb.packs.schema import keys_of, pointer_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]|[^\s"{}\[\],:]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text; line and column count from 1."""

    offset: int
    line: int
    column: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"line {self.line}, column {self.column}"


def positions_of(text: str, pointers: Iterable[str]) -> dict[str, Position]:
    r"""Return where the pointers are in valid JSON: at the key of a member, at the first character of an item.

    A pointer to what is not there gets the place of the nearest thing around it.

    >>> places = positions_of('{"a": [1,\n 2]}', ["/a/1", "/a/7"])
    >>> str(places["/a/1"]), str(places["/a/7"])
    ('line 2, column 2', 'line 1, column 2')
    """
    wanted = set(pointers)
    root = _Place(max(text.find("{"), 0))
    for pointer in wanted:
        root.add(keys_of(pointer))
    _find(root, text)
    line_starts = _line_starts(text)
    return {pointer: _position(line_starts, root.offset_of(keys_of(pointer))) for pointer in wanted}


def repeated_keys(text: str) -> Iterator[tuple[str, str, Position, Position]]:
    """Yield pointer, key, first and second place of every key that its object in valid JSON has already."""
    line_starts = _line_starts(text)
    seen: list[dict[str | int, int]] = []
    for path, offset in _entries(text):
        del seen[len(path) :]
        seen += ({} for _ in range(len(path) - len(seen)))
        key = path[-1]
        first = seen[-1].setdefault(key, offset)
        if first != offset:
            yield pointer_to("", *path), str(key), _position(line_starts, first), _position(line_starts, offset)


@dataclass(slots=True)
class _Place:
    """What is asked for, or leads to it; ``offset`` is ``None`` until it is found."""

    offset: int | None = None
    children: dict[str, _Place] = field(default_factory=dict)

    def add(self, keys: list[str]) -> None:
        place = self
        for key in keys:
            place = place.children.setdefault(key, _Place())

    def offset_of(self, keys: list[str]) -> int:
        place, offset = self, self.offset or 0
        for key in keys:
            place = place.children[key]
            if place.offset is None:
                break
            offset = place.offset
        return offset


def _find(root: _Place, text: str) -> None:
    """Set the offsets of all places under the root."""
    open_places: list[_Place | None] = [root]
    for path, offset in _entries(text):
        depth = len(path)
        del open_places[depth:]
        if len(open_places) < depth:
            outer = open_places[-1]
            open_places.append(outer.children.get(str(path[-2])) if outer else None)
        around = open_places[-1]
        place = around.children.get(str(path[-1])) if around else None
        if place is not None:
            place.offset = offset


def _entries(text: str) -> Iterator[tuple[list[str | int], int]]:
    """Yield the path and the offset of every member and item in valid JSON; the path is the same list each time."""
    path: list[str | int] = []
    is_object: list[bool] = []
    awaits_entry = False  # whether the next token is a key or an item
    for found in _TOKEN.finditer(text):
        piece = found[0]
        if piece in "}]":
            is_object.pop()
            path.pop()
            awaits_entry = False
            continue
        if piece == ",":
            awaits_entry = True
            continue
        if awaits_entry:
            awaits_entry = False
            if is_object[-1]:
                path[-1] = json.loads(piece) if "\\" in piece else piece[1:-1]
                yield path, found.start()
                continue
            path[-1] = int(path[-1]) + 1
            yield path, found.start()
        if piece in "{[":
            is_object.append(piece == "{")
            path.append(-1)
            awaits_entry = True


def _line_starts(text: str) -> list[int]:
    return [0, *(found.end() for found in re.finditer("\n", text))]


def _position(line_starts: list[int], offset: int) -> Position:
    line = bisect_right(line_starts, offset)
    return Position(offset, line, offset - line_starts[line - 1] + 1)
