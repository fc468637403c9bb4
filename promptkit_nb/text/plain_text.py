"""Text from models, servers and files as plain text: it cannot control a terminal, and it can always be encoded."""

from __future__ import annotations

import re

from promptkit_nb.characters import printable

PREVIEW_CHARACTERS = 60

_ANY_KEY = re.compile(r"\bsk-[\w-]{6,}")


def one_line(text: str) -> str:
    r"""Return the text on one line, without control characters.

    >>> one_line("first\n  second\x07")
    'first second'
    """
    return " ".join(printable(text).split())


def preview(text: str, characters: int = PREVIEW_CHARACTERS) -> str:
    r"""Return the beginning of the text on one line, with an ellipsis if it was cut.

    >>> preview("Hello,\n  world", 8)
    'Hello, …'
    """
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def without_keys(text: str) -> str:
    """Return the text without anything that looks like an API key.

    >>> without_keys("It is sk-0123456")
    'It is [key]'
    """
    return _ANY_KEY.sub("[key]", text)


def counted(count: int, noun: str, *, grouped: bool = False) -> str:
    """Return a count with its noun; ``grouped`` separates the thousands.

    >>> counted(1, "turn"), counted(1200, "turn"), counted(1200, "turn", grouped=True)
    ('1 turn', '1200 turns', '1,200 turns')
    """
    number = f"{count:,}" if grouped else f"{count}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"
