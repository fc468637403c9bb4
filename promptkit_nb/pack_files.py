"""Reading a pack's JSON from a file or a dict, with errors that say where in it the trouble is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from promptkit_nb.codec import json_copy
from promptkit_nb.errors import InvalidArgumentError, PackError, PackNotFoundError, PackValidationError

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:]')
_SHOWN_FILES = 5


def read_pack(source: str | os.PathLike[str] | Mapping[str, object]) -> tuple[dict[str, Any], str]:
    """Return the pack's JSON object, a copy of its own, and the words that name it in messages.

    A byte order mark is accepted. Raises ``PackNotFoundError``, or ``PackValidationError`` for what is no JSON object:
    with line and column where the text is to blame.

    >>> read_pack({"id": "mine"})
    ({'id': 'mine'}, 'The pack')
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.path.abspath(source))  # noqa: PTH100 - an absolute path without following links
        data = _parsed(_text_of(path), str(path))
        where = str(path)
    else:
        data = dict(source) if isinstance(source, Mapping) else source
        where = "The pack"
    if not isinstance(data, dict):
        raise PackValidationError(f"{where} is no valid pack: a pack is a JSON object, this is {data!r:.60}.")
    try:
        return json_copy(data, "pack"), where
    except InvalidArgumentError as error:
        raise PackValidationError(f"{where} is no valid pack: {error}") from error
    except RecursionError as error:
        raise PackValidationError(f"{where} is no valid pack: it is nested too deep, or contains itself.") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise PackValidationError(
                f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8."
            ) from error
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
    near = get_close_matches(path.name, names, n=_SHOWN_FILES) or packs[:_SHOWN_FILES]
    if not near:
        return f"There is no pack in {folder}."
    return f"In {folder} there is {', '.join(near)}."


def _parsed(text: str, where: str) -> object:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise PackValidationError(
            f"{where} is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise PackValidationError(f"{where} is no JSON that can be read: {error}.") from error
    _refuse_duplicate_keys(text, where)
    return data


def _refuse_duplicate_keys(text: str, where: str) -> None:
    """Walk over the tokens of valid JSON: parsers keep the last of equal keys and drop the others silently."""
    open_brackets: list[dict[str, int]] = []
    before = 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "{[":
            open_brackets.append({})
        elif token[0] in "}]":
            open_brackets.pop()
        elif token[0] == ":":
            start, end = before
            key = json.loads(text[start:end])
            seen = open_brackets[-1]
            if key in seen:
                raise PackValidationError(
                    f"{where} has the key {key!r} twice in one object: at {_position(text, seen[key])} and at "
                    f"{_position(text, start)}. Remove one."
                )
            seen[key] = start
        before = token.span()


def _position(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"
