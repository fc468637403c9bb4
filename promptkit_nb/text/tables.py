"""Small tables of texts, as plain text and as HTML."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from html import escape
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

from promptkit_nb.characters import terminal_text
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import MATH_OFF_CLASSES, note_html

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

T = TypeVar("T")


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns.

    >>> text_table([["model", "price"], ["gpt-4o-mini", "$0.15"]])
    ['model        price', 'gpt-4o-mini  $0.15']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLASSES = f'class="promptkit-table {MATH_OFF_CLASSES}"'
_SCROLL = 'style="overflow-x:auto;overflow-y:hidden" tabindex="0" role="group" aria-label="table"'
Look = Literal["code", "error", "name", "soft", "total", "warning", "wide"]
_TABLE = "table.promptkit-table"
_DARK = ':is(body[data-jp-theme-light="false"],.vscode-dark)'
_RULES = {
    _TABLE: "margin:0 0 4px;border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums",
    f"{_TABLE} :is(th,td)": "padding:4px 16px 4px 0;border:0;border-bottom:1px solid rgba(128,128,128,.28);"
    "vertical-align:top;line-height:1.5;max-width:none;white-space:normal",
    f"{_TABLE} tr": "background:none!important",
    f"{_TABLE} th,{_TABLE} .pk-soft": "color:var(--jp-ui-font-color2,#767676)",
    f"{_TABLE} th": "font-weight:600;white-space:nowrap",
    f"{_TABLE} mark": "background:rgba(255,200,0,.3);color:inherit",
    f"{_TABLE} .pk-code": "font-family:var(--jp-code-font-family,ui-monospace,monospace)",
    f"{_TABLE} .pk-name": "white-space:nowrap",
    f"{_TABLE} .pk-total": "font-weight:600;border-bottom:0",
    f"{_TABLE} .pk-wide": "min-width:24em;overflow-wrap:anywhere",
    f"{_TABLE} :is(.pk-error,.pk-warning)": "font-size:12px;white-space:nowrap",
    f"{_TABLE} .pk-error": "color:#b3261e",
    f"{_TABLE} .pk-warning": "color:#9a5700",
    f"{_DARK} {_TABLE} .pk-error": "color:#ff8a80",
    f"{_DARK} {_TABLE} .pk-warning": "color:#ffb74d",
    f".jp-RenderedHTMLCommon:has({_TABLE})": "padding-right:0!important",
}
_NARROW = (
    f"@media(max-width:600px){{{_TABLE} :is(th,td){{padding-right:8px;font-size:12px}}"
    f"{_TABLE} .pk-wide{{min-width:13em}}}}"
)
TABLE_STYLE = f"<style>{''.join(f'{selector}{{{rule}}}' for selector, rule in _RULES.items())}{_NARROW}</style>"
"""The style of tables in outputs. Without it, as in a notebook that is not trusted, they look like other tables."""


class Cell(NamedTuple):
    """A cell of a table: its text, its tooltip, its look, and words to highlight."""

    text: str
    title: str = ""
    look: Look | Literal[""] = ""
    mark: Sequence[str] = ()

    def html(self, align: str) -> str:
        """Return the cell as HTML."""
        shown = marked(self.text, self.mark)
        if self.look == "code":
            shown = shown.replace("/", "/<wbr>")
        look = f' class="pk-{self.look}"' if self.look else ""
        title = f' title="{escape(self.title)}"' if self.title else ""
        return f'<td{look} style="text-align:{align}"{title}>{shown}</td>'


def html_table(heading: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, numbers: Collection[str] = ()) -> str:
    """Return a table as HTML; all texts are escaped.

    The columns named in ``numbers`` are aligned right, the others left. A table that is too wide scrolls.

    >>> html_table(["model"], [["<b>"]]).partition("<tbody>")[2]
    '<tr><td style="text-align:left">&lt;b&gt;</td></tr></tbody></table></div>'
    """
    aligns = ["right" if name in numbers else "left" for name in heading]
    names = "".join(
        f'<th style="text-align:{align}">{escape(name)}</th>' for name, align in zip(heading, aligns, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell_html, row, aligns))}</tr>" for row in rows)
    table = f"<table {_CLASSES}><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
    return f"{TABLE_STYLE}<div {_SCROLL}>{table}</div>"


def _cell_html(cell: str | Cell, align: str) -> str:
    return (Cell(cell) if isinstance(cell, str) else cell).html(align)


def marked(text: str, words: Sequence[str]) -> str:
    """Return a text as HTML with these words highlighted, in upper or lower case.

    >>> marked("Tea & more tea", ["tea"])
    '<mark>Tea</mark> &amp; more <mark>tea</mark>'
    """
    found = "|".join(map(re.escape, sorted(filter(None, words), key=len, reverse=True)))
    parts = re.split(f"({found})", text, flags=re.IGNORECASE) if found else [text]
    return "".join(f"<mark>{escape(part)}</mark>" if at % 2 else escape(part) for at, part in enumerate(parts))


_MINUTE_S, _HOUR_S, _DAY_S = 60, 60 * 60, 24 * 60 * 60
_AGO = ((_HOUR_S, _MINUTE_S, "min"), (_DAY_S, _HOUR_S, "h"), (7 * _DAY_S, _DAY_S, "day"))


def ago_text(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or its date if that is a week or more.

    >>> from datetime import timedelta
    >>> now = datetime(2026, 11, 28, 14, tzinfo=UTC)
    >>> [ago_text(now - timedelta(hours=hours), now) for hours in (0, 0.1, 3, 24, 50, 200)]
    ['just now', '6 min ago', '3 h ago', '1 day ago', '2 days ago', '20 Nov']
    """
    seconds = (now - moment).total_seconds()
    if seconds < _MINUTE_S:
        return "just now"
    for most_s, unit_s, name in _AGO:
        if seconds < most_s:
            count = int(seconds // unit_s)
            return f"{counted(count, name) if name == 'day' else f'{count} {name}'} ago"
    return day_text(moment, now.year)


def day_text(day: date, this_year: int | None = None) -> str:
    """Return a day as ``27 Nov``, with its year unless that is the current one.

    >>> day_text(date(2025, 11, 27), 2026), day_text(date(2026, 3, 1), 2026)
    ('27 Nov 2025', '1 Mar')
    """
    text = f"{day.day} {MONTHS[day.month - 1]}"
    return text if day.year == this_year else f"{text} {day.year}"


def time_cell(moment: datetime, now: datetime) -> Cell:
    """Return a cell that says how long ago a moment was, with the time in UTC in its tooltip."""
    return Cell(ago_text(moment, now), f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC", "name")


class ListTable(list[T]):
    """A list that a notebook shows as a table, in text and in HTML; ``_EMPTY`` is shown if it is empty.

    ``_NUMBERS`` are the columns to align right.
    """

    _EMPTY: ClassVar[str]
    _NUMBERS: ClassVar[Collection[str]] = ()

    def __repr__(self) -> str:
        """Return the table as text."""
        if not self:
            return self._EMPTY
        return terminal_text("\n".join([*text_table([self._heading(), *self._cells()]), *self._notes()]))

    def _repr_html_(self) -> str:
        if not self:
            return note_html(self._EMPTY)
        table = html_table(self._heading(), self._cells(), numbers=self._NUMBERS)
        return "".join([table, *map(note_html, self._notes())])

    def _heading(self) -> Sequence[str]:
        raise NotImplementedError

    def _cells(self) -> list[list[str]]:
        raise NotImplementedError

    def _notes(self) -> list[str]:
        """Return the lines below the table."""
        return []
