"""Read a pack's JSON from a file or a dict, and find the positions of its values."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from promptkit_nb.errors import InvalidArgumentError, PackError, PackNotFoundError, PackValidationError
from promptkit_nb.json_values import json_copy, reason_of
from promptkit_nb.packs.findings import Finding, Findings
from promptkit_nb.packs.schema import keys_of, pointer_to
from promptkit_nb.regular_files import read_file
from promptkit_nb.text.near_names import similar_names

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]|[^\s"{}\[\],:]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a text; line and column count from 1."""

    offset: int
    line: int
    column: int

    def __str__(self) -> str:
        """Return line and column in words."""
        return f"line {self.line}, column {self.column}"


def positions_of(text: str, pointers: Iterable[str]) -> dict[str, Position]:
    r"""Return the positions of JSON pointers in valid JSON: of the key for a member, of the value for an array item.

    A pointer to a missing value has the position of the innermost value around it.

    >>> places = positions_of('{"a": [1,\n 2]}', ["/a/1", "/a/7"])
    >>> str(places["/a/1"]), str(places["/a/7"])
    ('line 2, column 2', 'line 1, column 2')
    """
    pointers = set(pointers)
    wanted = {""}  # including their parents
    for pointer in pointers:
        outer = pointer
        while outer not in wanted:
            wanted.add(outer)
            outer = outer.rpartition("/")[0]
    offsets = {"": max(text.find("{"), 0)}
    offsets.update((pointer, offset) for _, pointer, offset in _entries(text) if pointer in wanted)
    line_starts = _line_starts(text)
    return {pointer: _position(line_starts, _offset_of(pointer, offsets)) for pointer in pointers}


def _offset_of(pointer: str, offsets: Mapping[str, int]) -> int:
    while pointer not in offsets:
        pointer = pointer.rpartition("/")[0]
    return offsets[pointer]


def repeated_keys(text: str) -> Iterator[tuple[str, str, Position, Position]]:
    """Yield pointer, key, first and second position of every key that occurs twice in one object of valid JSON."""
    line_starts = _line_starts(text)
    seen: list[dict[str, int]] = []
    for depth, pointer, offset in _entries(text):
        del seen[depth:]
        seen += ({} for _ in range(depth - len(seen)))
        first = seen[-1].setdefault(pointer, offset)
        if first != offset:
            yield pointer, keys_of(pointer)[-1], _position(line_starts, first), _position(line_starts, offset)


def _entries(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield depth, pointer and offset of every member and item of valid JSON."""
    around: list[tuple[str, Iterator[int] | None]] = []  # pointers, and the next indices of arrays
    pointer = ""
    awaits_entry = False  # whether the next token is a key or an item
    for found in _TOKEN.finditer(text):
        piece = found[0]
        if piece in "}]":
            around.pop()
        elif awaits_entry:
            parent, indices = around[-1]
            key = next(indices) if indices else json.loads(piece) if "\\" in piece else piece[1:-1]
            pointer = pointer_to(parent, key)
            yield len(around), pointer, found.start()
        if piece in "{[":
            around.append((pointer, count() if piece == "[" else None))
        awaits_entry = piece in "{[,"


def _line_starts(text: str) -> list[int]:
    return [0, *(found.end() for found in re.finditer("\n", text))]


def _position(line_starts: list[int], offset: int) -> Position:
    line = bisect_right(line_starts, offset)
    return Position(offset, line, offset - line_starts[line - 1] + 1)


PackSource = str | os.PathLike[str] | Mapping[str, object]

# Python's parser accepts more than JSON allows: special floats, long numbers, lone surrogates. This may match them.
_DOUBTFUL = re.compile(r"NaN|Infinity|\d{18}|[eE]\+?\d{3}|\\u[dD][89a-fA-F]")
MAX_BYTES = 10_000_000
_MAX_DEPTH = 100  # the checks are recursive
_MAX_KEY_CHARACTERS = 1000  # a value's pointer contains the keys of all its parents
_SHOWN_FILES = 5
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class PackFile:
    """The JSON object of a pack.

    ``where`` names the pack in messages, ``text`` is the file's text, ``stem`` the file name without ``.pack.json``;
    the last two are ``""`` for a dict.
    """

    data: dict[str, Any]
    where: str
    text: str = ""
    stem: str = ""


def read_pack(source: PackSource) -> PackFile:
    """Return the pack's JSON object.

    A byte order mark is accepted. Raises ``PackNotFoundError``, or ``PackValidationError`` with line and column if the
    source is not a JSON object.

    >>> read_pack({"id": "mine"}).data
    {'id': 'mine'}
    """
    if isinstance(source, (str, os.PathLike)):
        path = _path_of(os.fspath(source))
        where, text = str(path), _text_of(path)
        stem = path.name.removesuffix(".json").removesuffix(".pack")
        data = _parsed(text, where)
    else:
        where, text, stem = "The pack", "", ""
        data = dict(source) if isinstance(source, Mapping) else source
    if not isinstance(data, dict):
        _refuse(where, "PP003", f"is not a valid pack: expected a JSON object, found {data!r:.60}.")
    try:
        is_plain = text and not _DOUBTFUL.search(text)
        data = data if is_plain else json_copy(data, "pack")
    except InvalidArgumentError as error:
        _refuse(where, "PP003", f"is not a valid pack: {error}", error)
    if problem := _problem_of_shape(data):
        _refuse(where, "PP003", f"is not a valid pack: {problem}.")
    return PackFile(data, where, text, stem)


def _problem_of_shape(data: dict[str, Any]) -> str:
    """Return the reason why the checks of a pack could take too long, ``""`` if there is none."""
    level: list[dict[str, Any] | list[Any]] = [data]
    for _ in range(_MAX_DEPTH):
        keys = (key for value in level if isinstance(value, dict) for key in value)
        if any(len(key) > _MAX_KEY_CHARACTERS for key in keys):
            return f"it has a key of more than {_MAX_KEY_CHARACTERS:,} characters"
        insides = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for inside in insides for item in inside if isinstance(item, (dict, list))]
        if not level:
            return ""
    return f"it is nested more than {_MAX_DEPTH} levels deep"


def _refuse(where: str, code: str, problem: str, cause: Exception | None = None, **place: int) -> NoReturn:
    findings = Findings([Finding(code, "error", "", problem, **place)], where)  # type: ignore[arg-type]  # line, column
    raise PackValidationError(f"{where} {problem}", findings=findings) from cause


def _path_of(source: str) -> Path:
    """Return the absolute path, without resolving links."""
    if isinstance(source, str) and _URL.match(source):
        raise PackNotFoundError(f"{source} is a URL, and load_pack reads files: download it, and give the file's path.")
    return Path(os.path.abspath(os.path.expanduser(source)))  # noqa: PTH100, PTH111 - pathlib raises for unknown users


def _text_of(path: Path) -> str:
    try:
        return read_file(path, MAX_BYTES).decode("utf-8-sig")
    except IsADirectoryError as error:
        raise PackNotFoundError(f"{path} is a folder, not a pack file. {_what_is_near(path)}") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            problem = f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8."
            _refuse(str(path), "PP001", problem, error)
        raise PackNotFoundError(f"There is no pack file at {path}. {_what_is_near(path)}") from error
    except OSError as error:
        raise PackError(f"The pack {path} cannot be read: {error.strerror or error}.") from error


def _what_is_near(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except (OSError, ValueError):
        return f"The folder {folder} does not exist or cannot be read."
    packs = [name for name in names if name.endswith(".pack.json")]
    if near := similar_names(path.name, names):
        return f"Similar names in {folder}: {', '.join(near)}."
    if packs:
        return f"Packs in {folder}: {', '.join(packs[:_SHOWN_FILES])}."
    return f"There are no packs in {folder}."


def _parsed(text: str, where: str) -> object:
    repeated: list[bool] = []
    try:
        data = json.loads(text, object_pairs_hook=partial(_object, repeated))
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}."
        _refuse(where, "PP001", problem, error, line=error.lineno, column=error.colno)
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; very deep nesting
        _refuse(where, "PP003", f"cannot be parsed: {reason_of(error)}.", error)
    if repeated:
        _refuse_repeated_keys(text, where)
    return data


def _object(repeated: list[bool], pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Record that a key is repeated: the parser silently keeps only the last value."""
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
            f"the key {key!r} twice in one object, at {first} and {second}",
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
