r"""Our own small lines in HTML outputs, such as receipts: escaped, and left alone by MathJax.

JupyterLab typesets ``$…$`` in HTML outputs, and MathJax's ``\href`` makes ``javascript:`` links: the ids, model names
and warnings in these lines are foreign text.
"""

from __future__ import annotations

from html import escape

MATH_OFF = 'class="mathjax_ignore tex2jax_ignore"'
_SMALL = "color:var(--jp-ui-font-color2,#666);font-size:85%"


def note_html(line: str, style: str = "") -> str:
    """Return one line as a small grey ``<div>``; ``style`` adds to how it looks."""
    return f'<div {MATH_OFF} style="{_SMALL}{style and ";" + style}">{escape(line)}</div>'
