"""Small tables of texts, as plain text and as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.text.receipts import MATH_OFF

if TYPE_CHECKING:
    from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns.

    >>> text_table([["model", "price"], ["gpt-4o-mini", "$0.15"]])
    ['model        price', 'gpt-4o-mini  $0.15']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def html_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; the texts are escaped.

    >>> html_table(["model"], [["<b>"]]).partition("<tbody>")[2]
    '<tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    names = "".join(f"<th>{escape(name)}</th>" for name in heading)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table {MATH_OFF}><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
