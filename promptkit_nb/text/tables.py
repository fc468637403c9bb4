"""Small tables of texts, as plain text and as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, ClassVar, TypeVar

from promptkit_nb.characters import terminal_text
from promptkit_nb.text.receipts import MATH_OFF, note_html

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns.

    >>> text_table([["model", "price"], ["gpt-4o-mini", "$0.15"]])
    ['model        price', 'gpt-4o-mini  $0.15']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def html_table(heading: Sequence[str], rows: Sequence[Sequence[str]], tooltips: Sequence[str] = ()) -> str:
    """Return a table as HTML; the texts are escaped. ``tooltips`` are those of the first cell of each row.

    >>> html_table(["model"], [["<b>"]]).partition("<tbody>")[2]
    '<tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    names = "".join(f"<th>{escape(name)}</th>" for name in heading)
    titles = [f' title="{escape(each)}"' if each else "" for each in tooltips] or [""] * len(rows)
    body = "".join(
        f"<tr><td{title}>{'</td><td>'.join(map(escape, row))}</td></tr>"
        for row, title in zip(rows, titles, strict=True)
    )
    return f"<table {MATH_OFF}><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


class ListTable(list[T]):
    """A list that a notebook shows as a table, in text and in HTML; ``_EMPTY`` is shown if it is empty."""

    _EMPTY: ClassVar[str]

    def __repr__(self) -> str:
        """Return the table as text."""
        if not self:
            return self._EMPTY
        return terminal_text("\n".join([*text_table([self._heading(), *self._cells()]), *self._notes()]))

    def _repr_html_(self) -> str:
        if not self:
            return note_html(self._EMPTY)
        return "".join([html_table(self._heading(), self._cells()), *map(note_html, self._notes())])

    def _heading(self) -> Sequence[str]:
        raise NotImplementedError

    def _cells(self) -> list[list[str]]:
        raise NotImplementedError

    def _notes(self) -> list[str]:
        """Return the lines below the table."""
        return []
