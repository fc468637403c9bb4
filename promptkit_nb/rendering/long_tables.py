"""Shortens the tables of a Markdown text that is too long to format: their first rows say most."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_CELLS = 1_000

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_DELIMITERS = frozenset(" \t>|:-")


def with_short_tables(text: str) -> str:
    r"""Return the text with at most 1,000 cells of each table, and a line that says how many rows it has.

    >>> print(with_short_tables("|a|\n|-|\n" + "|1|\n" * 1200).rpartition("|1|")[2].strip())
    *The first 500 of 1,200 rows.*
    """
    return "\n".join(_shortened(text.split("\n"))) if "|" in text else text


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    fence, at = "", 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        end = at + 1 if fence else _end_of_table(lines, at)
        most = 2 + max(1, MAX_CELLS // max(1, lines[at].count("|")))
        yield from lines[at : min(end, at + most)]
        if end > at + most:
            yield from ("", f"*The first {most - 2:,} of {end - at - 2:,} rows.*", "")
        at = end


def _end_of_table(lines: Sequence[str], start: int) -> int:
    """Return the line after the table that starts here, or the next line if none does."""
    at = start + 1
    if "|" not in lines[start] or at == len(lines) or not _is_delimiter(lines[at]):
        return at
    while at < len(lines) and lines[at].strip(" \t>") and not _FENCE.match(lines[at]):
        at += 1
    return at


def _is_delimiter(line: str) -> bool:
    return "|" in line and "-" in line and _DELIMITERS.issuperset(line)
