"""Code in answers: colored if Pygments knows the language, always escaped, never slow."""

from __future__ import annotations

import time

import pytest

from promptkit_nb.rendering.highlighting import highlight_styles, highlighted

KEYWORD = '<span style="color: var(--jp-mirror-editor-keyword-color,#0a8a0a)">'


def test_known_language_is_colored() -> None:
    """Keywords have the editor's color, names none."""
    assert highlighted("import os\n", "python") == f"{KEYWORD}import</span> os\n"


@pytest.mark.parametrize("language", ["", "no such language", '"><img src=x>'])
def test_unknown_language_is_escaped(language: str) -> None:
    """Code in a language that Pygments does not know is not colored."""
    assert highlighted("a < b", language) == "a &lt; b"


def test_leading_blank_lines_and_indentation_are_kept() -> None:
    """The shown code is the code to copy."""
    assert highlighted("\n\n    x\n", "python") == "\n\n    x\n"


@pytest.mark.parametrize("code", ["x = 1\n" * 4000, "x" * 1000, "x = 1" + "\n" * 200])
def test_code_over_a_limit_is_not_colored(code: str) -> None:
    """The limits: 20,000 characters, a line of 1,000, 200 blanks in a row."""
    assert highlighted(code, "python") == code


def test_slow_lexer_is_stopped() -> None:
    """Java's lexer takes quadratic time for this code; it is stopped after half a second."""
    started = time.thread_time()
    assert highlighted("a\n" * 9_999, "java") == "a\n" * 9_999
    assert time.thread_time() - started < 3


def test_only_the_stated_styles_are_written() -> None:
    """The sanitizer allows exactly these values."""
    assert "color: var(--jp-mirror-editor-keyword-color,#0a8a0a)" in highlight_styles()
    assert all(style.startswith("color: var(--jp-mirror-editor-") for style in highlight_styles())
