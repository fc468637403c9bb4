"""LaTeX formulas in answers, as MathML."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from xml.etree.ElementTree import tostring

MAX_FORMULA_CHARS = 2_000

# Macros that call each other can expand forever.
_MACRO = re.compile(r"\\(?:(?:re)?newcommand|providecommand|[gex]?def|(?:re)?newenvironment|DeclareMathOperator)")
_ARG = re.compile(r"\\arg(?![A-Za-z])")  # a common function that latex2mathml does not know


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
