r"""LaTeX in a model's answer: finds formulas by their delimiters and converts them to MathML, which needs no script."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from xml.etree.ElementTree import tostring

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline

MAX_FORMULA_CHARS = 2_000

_CLOSERS = {"$$": "$$", r"\[": r"\]"}
# Macros that call each other can expand forever.
_MACRO = re.compile(r"\\(?:(?:re)?newcommand|providecommand|[gex]?def|(?:re)?newenvironment|DeclareMathOperator)")
_ARG = re.compile(r"\\arg(?![A-Za-z])")  # a common function that latex2mathml does not know


def add_math(parser: MarkdownIt) -> None:
    r"""Make the parser recognize ``$…$``, ``$$…$$``, ``\(…\)`` and ``\[…\]``.

    The tokens are ``math_inline``, ``math_inline_double`` (display style within a paragraph) and ``math_block``.
    Amounts of money are not formulas: "$5 or $6" stays text.
    """
    from mdit_py_plugins.dollarmath import dollarmath_plugin  # noqa: PLC0415 - imported when first used

    parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    # The plugin's block rule does not know `\[` and does not interrupt a paragraph, which models expect.
    parser.block.ruler.at("math_block", _display, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math_parentheses", _parentheses)


def _display(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    begin = state.bMarks[start_line] + state.tShift[start_line]
    closer = _CLOSERS.get(state.src[begin : begin + 2])
    if closer is None or state.is_code_block(start_line):
        return False
    close = state.src.find(closer, begin + 2, begin + 2 + MAX_FORMULA_CHARS)
    last = start_line
    while close > state.eMarks[last] and last + 1 < end_line:
        last += 1
        if state.sCount[last] < state.blkIndent and not state.isEmpty(last):
            return False  # the list item ends before the formula does
    if close < 0 or state.src[close + 2 : state.eMarks[last]].strip():
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content = state.getLines(start_line, last + 1, state.blkIndent, keepLastLF=False).strip()[2:-2]
        token.block, token.map, token.markup = True, [start_line, last + 1], closer
    state.line = last + 1
    return True


def _parentheses(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    if not state.src.startswith(r"\(", state.pos):
        return False
    close = state.src.find(r"\)", state.pos + 2, state.pos + 2 + MAX_FORMULA_CHARS)
    if close < 0:
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content, token.markup = state.src[state.pos + 2 : close], r"\("
    state.pos = close + 2
    return True


@lru_cache(maxsize=256)
def to_mathml(latex: str, *, display: bool = False) -> str:
    r"""Return the formula as a ``<math>`` element, or its escaped source in ``<code>``.

    The source is returned for broken LaTeX, LaTeX that defines macros, and more than 2,000 characters. Cached, because
    a streaming answer is rendered again and again.

    >>> to_mathml("x^2")
    '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    from latex2mathml.converter import convert_to_element  # noqa: PLC0415 - imported when first used

    source = f"<code>{html.escape(latex)}</code>"
    if len(latex) > MAX_FORMULA_CHARS or _MACRO.search(latex):
        return source
    try:
        root = convert_to_element(_ARG.sub(r"\\operatorname{arg}", latex), display="block" if display else "inline")
    except Exception:  # noqa: BLE001 - on broken LaTeX the library raises all kinds of errors
        return source
    del root.attrib["xmlns"]
    for element in root.iter():
        element.text = html.unescape(element.text or "")  # the library writes symbols as character references
    return tostring(root, encoding="unicode", short_empty_elements=False)
