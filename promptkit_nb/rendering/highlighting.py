"""Code in answers, colored by Pygments with the colors of the notebook's theme."""

from __future__ import annotations

import html
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pygments.formatters import HtmlFormatter
    from pygments.token import _TokenType

MAX_HIGHLIGHTED_CHARS = 20_000
MAX_HIGHLIGHTING_S = 0.2

# For such a line or gap some lexers take quadratic time, in one step that cannot be interrupted.
_UNLIKE_CODE = re.compile(r"[^\n]{1000}|\s{200}")

# The colors of JupyterLab's editor, each with a fallback that is legible on white and on near black.
_COLORS = {
    "Comment": "var(--jp-mirror-editor-comment-color,#7c7c7c)",
    "Keyword": "var(--jp-mirror-editor-keyword-color,#0a8a0a)",
    "Operator.Word": "var(--jp-mirror-editor-keyword-color,#0a8a0a)",
    "String": "var(--jp-mirror-editor-string-color,#cf4848)",
    "Number": "var(--jp-mirror-editor-number-color,#1f8a5f)",
    "Name.Builtin": "var(--jp-mirror-editor-builtin-color,#1f8a3f)",
    "Name.Function": "var(--jp-mirror-editor-def-color,#3b7fdd)",
    "Name.Class": "var(--jp-mirror-editor-def-color,#3b7fdd)",
    "Name.Decorator": "var(--jp-mirror-editor-meta-color,#a94fd8)",
    "Name.Tag": "var(--jp-mirror-editor-tag-color,#1f8a3f)",
    "Name.Attribute": "var(--jp-mirror-editor-attribute-color,#3b7fdd)",
    "Generic.Deleted": "var(--jp-mirror-editor-error-color,#e04040)",
    "Generic.Inserted": "var(--jp-mirror-editor-string-2-color,#1f8a3f)",
}


@lru_cache(maxsize=256)
def highlighted(code: str, language: str) -> str:
    """Return the code as escaped HTML, colored by ``<span style="…">`` if Pygments knows the language (lower case).

    Not colored: more than 20,000 characters, a line of 1,000 characters, 200 blanks in a row, and code that takes
    Pygments more than 0.2 s. Cached, because a streaming answer is rendered again and again.

    >>> highlighted("x < 1", "no such language")
    'x &lt; 1'
    """
    if language not in _languages() or len(code) > MAX_HIGHLIGHTED_CHARS or _UNLIKE_CODE.search(code):
        return html.escape(code)
    from pygments import format as write  # noqa: PLC0415 - imported when first used
    from pygments.lexers import get_lexer_by_name  # noqa: PLC0415 - imported when first used

    lexer = get_lexer_by_name(language, stripnl=False)
    try:
        return str(write(_with_deadline(lexer.get_tokens(code)), _formatter()))
    except TimeoutError:
        return html.escape(code)


def highlight_styles() -> set[str]:
    """Return every value of a ``style`` attribute in the output of ``highlighted``."""
    return {f"color: {color}" for color in _COLORS.values()}


def _with_deadline(tokens: Iterable[tuple[_TokenType, str]]) -> Iterator[tuple[_TokenType, str]]:
    """Yield the tokens until the deadline, in CPU time of this thread: the load of the machine does not count."""
    deadline = time.thread_time() + MAX_HIGHLIGHTING_S
    for token in tokens:
        if time.thread_time() > deadline:
            raise TimeoutError
        yield token


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    """Return the names of Pygments' own languages: a model must not be able to import plugins."""
    from pygments.lexers import get_all_lexers  # noqa: PLC0415 - imported when first used

    return frozenset(alias for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases)


@lru_cache(maxsize=1)
def _formatter() -> HtmlFormatter[str]:
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415 - imported when first used
    from pygments.style import Style  # noqa: PLC0415 - imported when first used
    from pygments.token import string_to_tokentype  # noqa: PLC0415 - imported when first used

    class NotebookStyle(Style):
        styles = {string_to_tokentype(kind): color for kind, color in _COLORS.items()}  # noqa: RUF012 - Pygments' way

    return HtmlFormatter(style=NotebookStyle, noclasses=True, nowrap=True)
