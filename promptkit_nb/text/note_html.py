r"""Small lines of our own in HTML outputs, such as receipts: escaped, and out of MathJax's reach.

JupyterLab typesets ``$…$`` in HTML outputs, and MathJax's ``\href`` makes ``javascript:`` links. The ids, model names
and warnings in these lines come from models, servers and files.
"""

from __future__ import annotations

from html import escape

MATH_OFF = 'class="mathjax_ignore tex2jax_ignore"'
SMALL_STYLE = "color:var(--jp-ui-font-color2,#666);font-size:85%"


def note_html(line: str, style: str = "") -> str:
    """Return a line as a small gray ``<div>``; ``style`` is added to its style."""
    return f'<div {MATH_OFF} style="{SMALL_STYLE}{style and ";" + style}">{escape(line)}</div>'
