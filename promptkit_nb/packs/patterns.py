r"""Regular expressions of packs: Python's syntax, matched in bounded time.

Python's own engine can take years for ``(a|aa)+$``. The Rust engine that jsonschema-rs uses for JSON Schema takes time
in proportion to the text, limits the steps of patterns with lookaround or backreferences, and limits the size of a
compiled pattern. It reads JavaScript's syntax, so patterns are translated: ``\d``, ``\w`` and ``.`` mean the same as in
Python.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

MAX_CHARACTERS = 10_000
MAX_STEPS = 1_000_000
"""The step limit of patterns with lookaround or backreferences, about a tenth of a second."""

_TOKEN = re.compile(
    r"""
      \\(?P<escape>.)
    | \[(?P<negation>\^?)(?P<members>\]?(?:\\.|[^\]\\])*)\]
    | \(\?P=(?P<group>\w+)\)
    | (?P<comment>\(\?\#[^)]*\))
    | (?P<repeat>\{\d*,?\d*\})
    | (?P<brace>\{)
    | (?P<dot>\.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = r"\p{L}\p{N}_"
_ESCAPES = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": f"[{_WORD}]", "W": f"[^{_WORD}]", "Z": r"\z"} | {
    "0": r"\x00",
    "a": r"\x07",
}
_IN_CLASS = {**_ESCAPES, "w": _WORD, "b": r"\x08"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def problem_of(pattern: str) -> str:
    """Return the reason why a pattern is not a valid regular expression, ``""`` if it is valid.

    >>> problem_of("^[a-z]+$"), problem_of("(")
    ('', 'missing ), unterminated subpattern at position 0')
    """
    if len(pattern) > MAX_CHARACTERS:
        return f"it has {len(pattern):,} characters, more than {MAX_CHARACTERS:,}"
    try:
        _compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return ""


def is_found(pattern: str, text: str) -> bool:
    """Return whether a valid pattern occurs in the text; raise ``OverflowError`` if the check would take too long.

    >>> is_found("b+", "abc"), is_found("^b", "abc")
    (True, False)
    """
    from jsonschema_rs import ValidationErrorKind  # noqa: PLC0415 - 40 ms, for a pack with patterns

    for error in _matcher(pattern).iter_errors(text):
        if isinstance(error.kind, ValidationErrorKind.Pattern):
            return False
        raise OverflowError(f"it takes more than {MAX_STEPS:,} steps to match")
    return True


@lru_cache(maxsize=100)
def _matcher(pattern: str) -> Draft202012Validator:
    """Return a schema for texts that match this pattern; ``OverflowError`` if the engine does not support it."""
    from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ValidationError  # noqa: PLC0415 - as above

    try:
        return Draft202012Validator(
            {"pattern": _translated(pattern)}, pattern_options=FancyRegexOptions(backtrack_limit=MAX_STEPS)
        )
    except ValidationError as error:
        raise OverflowError("it is too large, or has syntax that is not supported here") from error


def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # of nested sets, such as "[[a]"
        return re.compile(pattern)


def _translated(pattern: str) -> str:
    compiled = _compiled(pattern)

    def translated(found: re.Match[str]) -> str:
        escape, members, group, repeat = found.group("escape", "members", "group", "repeat")
        if escape:
            return _escaped(escape, _ESCAPES)
        if members is not None:
            return _class_of(found["negation"], members)
        if group:
            return f"\\{compiled.groupindex[group]}"
        if repeat and any(map(str.isdigit, repeat)):
            return repeat.replace("{,", "{0,")
        if found["dot"]:
            return r"[\s\S]" if compiled.flags & re.DOTALL else r"[^\n]"
        return "" if found["comment"] else found[0].replace("{", r"\{")

    return _TOKEN.sub(translated, pattern)


def _escaped(character: str, escapes: dict[str, str]) -> str:
    return escapes.get(character, f"\\{character}" if character.isascii() else character)


def _class_of(negation: str, members: str) -> str:
    r"""Return a character class; ``\W`` in it becomes an alternative, because the engine does not nest classes."""
    others = members.replace(r"\W", "")
    translated = _ESCAPE.sub(lambda found: _escaped(found[1], _IN_CLASS), others)
    if len(others) == len(members):
        return f"[{negation}{translated}]"
    if negation:
        return f"(?:(?![{translated}])[{_WORD}])" if others else f"[{_WORD}]"
    return f"(?:[{translated}]|[^{_WORD}])" if others else f"[^{_WORD}]"
