"""Code in answers: coloured where Pygments knows the language, always escaped, never slow."""

from __future__ import annotations

import time

import pytest

from promptkit_nb.rendering.markdown import highlight_styles, highlighted

KEYWORD = '<span style="color: var(--jp-mirror-editor-keyword-color,#0a8a0a)">'


def test_known_code_is_coloured() -> None:
    """Keywords take the editor's colour, names none."""
    assert highlighted("import os\n", "python") == f"{KEYWORD}import</span> os\n"


@pytest.mark.parametrize("language", ["", "no such language", '"><img src=x>'])
def test_unknown_code_is_escaped(language: str) -> None:
    """A language that Pygments does not know leaves the code as it is."""
    assert highlighted("a < b", language) == "a &lt; b"


def test_leading_blank_lines_and_indentation_are_kept() -> None:
    """What is shown is what would be copied."""
    assert highlighted("\n\n    x\n", "python") == "\n\n    x\n"


@pytest.mark.parametrize("code", ["x = 1\n" * 4000, "x" * 1000, "x = 1" + "\n" * 200])
def test_code_out_of_bounds_has_no_colours(code: str) -> None:
    """More than 20,000 characters, a line of 1,000, 200 blanks in a row: shown without colours."""
    assert highlighted(code, "python") == code


def test_a_lexer_that_takes_too_long_is_stopped() -> None:
    """Java's lexer needs time that grows with the square of this; half a second is what it gets."""
    started = time.thread_time()
    assert highlighted("a\n" * 9_999, "java") == "a\n" * 9_999
    assert time.thread_time() - started < 3


def test_only_the_stated_styles_are_written() -> None:
    """The sanitiser lets exactly these values pass."""
    assert "color: var(--jp-mirror-editor-keyword-color,#0a8a0a)" in highlight_styles()
    assert all(style.startswith("color: var(--jp-mirror-editor-") for style in highlight_styles())
