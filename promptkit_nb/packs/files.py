"""Reading a pack's JSON from a file or a dict, with errors that say where in it the trouble is."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from promptkit_nb.errors import InvalidArgumentError, PackError, PackNotFoundError, PackValidationError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.findings import Finding, Findings
from promptkit_nb.packs.schema import keys_of, pointer_to
from promptkit_nb.text.near_names import similar_names

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


PackSource = str | os.PathLike[str] | Mapping[str, object]

# What parsers take and JSON cannot hold, or may be that: names, long numbers, halves of a character.
_DOUBTFUL = re.compile(r"NaN|Infinity|\d{18}|[eE]\+?\d{3}|\\u[dD][89a-fA-F]")
_MAX_DEPTH = 100  # what checks it needs room on Python's stack
_SHOWN_FILES = 5


@dataclass(frozen=True, slots=True)
class PackFile:
    """A pack's JSON object as it was read, a copy of its own.

    ``where`` names it in messages; ``text`` is what it was parsed from, and ``stem`` the file's name without
    ``.pack.json``: both are ``""`` where it was given as a dict.
    """

    data: dict[str, Any]
    where: str
    text: str = ""
    stem: str = ""


def read_pack(source: PackSource) -> PackFile:
    """Return the pack's JSON object.

    A byte order mark is accepted. Raises ``PackNotFoundError``, or ``PackValidationError`` for what is no JSON object:
    with line and column where the text is to blame.

    >>> read_pack({"id": "mine"}).data
    {'id': 'mine'}
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.path.abspath(source))  # noqa: PTH100 - an absolute path without following links
        where, text = str(path), _text_of(path)
        stem = path.name.removesuffix(".json").removesuffix(".pack")
        data = _parsed(text, where)
    else:
        where, text, stem = "The pack", "", ""
        data = dict(source) if isinstance(source, Mapping) else source
    if not isinstance(data, dict):
        _refuse(where, "PP003", f"is no valid pack: a pack is a JSON object, this is {data!r:.60}.")
    try:
        is_plain = text and not _DOUBTFUL.search(text)
        data = data if is_plain else json_copy(data, "pack")
    except InvalidArgumentError as error:
        _refuse(where, "PP003", f"is no valid pack: {error}", error)
    if _is_too_deep(data):
        _refuse(where, "PP003", f"is no valid pack: it is nested more than {_MAX_DEPTH} levels deep.")
    return PackFile(data, where, text, stem)


def _is_too_deep(data: dict[str, Any]) -> bool:
    level: list[dict[str, Any] | list[Any]] = [data]
    for _ in range(_MAX_DEPTH):
        insides = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for inside in insides for item in inside if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _refuse(where: str, code: str, problem: str, cause: Exception | None = None, **place: int) -> NoReturn:
    findings = Findings([Finding(code, "error", "", problem, **place)], where)  # type: ignore[arg-type]  # line, column
    raise PackValidationError(f"{where} {problem}", findings=findings) from cause


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            problem = f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8."
            _refuse(str(path), "PP001", problem, error)
        raise PackNotFoundError(f"There is no pack file at {path}. {_what_is_near(path)}") from error
    except OSError as error:
        raise PackError(f"The pack {path} cannot be read: {error.strerror}.") from error


def _what_is_near(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except (OSError, ValueError):
        return f"There is no folder {folder} either, or it cannot be read."
    packs = [name for name in names if name.endswith(".pack.json")]
    near = similar_names(path.name, names) or packs[:_SHOWN_FILES]
    if not near:
        return f"There is no pack in {folder}."
    return f"In {folder} there is {', '.join(near)}."


def _parsed(text: str, where: str) -> object:
    repeated: list[bool] = []
    try:
        data = json.loads(text, object_pairs_hook=partial(_object, repeated))
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}."
        _refuse(where, "PP001", problem, error, line=error.lineno, column=error.colno)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        _refuse(where, "PP003", f"is no JSON that can be read: {error}.", error)
    if repeated:
        _refuse_repeated_keys(text, where)
    return data


def _object(repeated: list[bool], pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Parsers keep the last of equal keys and drop the others silently: here it is noted."""
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated.append(True)
    return made


def _refuse_repeated_keys(text: str, where: str) -> NoReturn:
    findings = [
        Finding(
            "PP002",
            "error",
            pointer,
            f"the key {key!r} twice in one object: at {first} and at {second}",
            second.line,
            second.column,
            hint="remove one",
        )
        for pointer, key, first, second in repeated_keys(text)
    ]
    more = f" There are {len(findings) - 1} more such keys." if len(findings) > 1 else ""
    raise PackValidationError(
        f"{where} has {findings[0].message}. Remove one.{more}", findings=Findings(findings, where)
    )
