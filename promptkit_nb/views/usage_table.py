"""Usage as ``%chat_usage`` shows it: a DataFrame with budgets, a total, and only the columns that have something."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import bar_html, note_html, usd_text
from promptkit_nb.text.tables import Cell, day_text, html_table
from promptkit_nb.text.text_frame import TextFrame
from promptkit_nb.views.schemas import USAGE
from promptkit_nb.views.zones import PERIODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.chat.budgets import SpentBudget

MAX_ROWS = 100

_ALWAYS = {"turns": "turns", "input_tokens": "input", "output_tokens": "output"}
_PARTS = {"cached_tokens": "cached", "cache_write_tokens": "written to cache", "reasoning_tokens": "reasoning"}
_UNPRICED = {"unpriced_turns": "without a price"}
_FIGURES = frozenset(column.name for column in USAGE)


class UsageTable(TextFrame):
    """A DataFrame of ``usage_df`` that a notebook shows with a total; what is computed from it is like its rows."""

    _metadata = ["budgets"]  # noqa: RUF012 - pandas' name for attributes that are not columns

    def __init__(self, usage: pd.DataFrame, budgets: Sequence[SpentBudget] = ()) -> None:
        """Show this usage, and above it what is spent of these budgets."""
        super().__init__(usage)
        self.budgets = tuple(budgets)

    @property
    def _constructor(self) -> type[TextFrame]:
        return TextFrame

    def __repr__(self) -> str:
        """Return a line for each budget, and the frame as pandas shows it."""
        return "\n".join([*(each.line for each in self.budgets), pd.DataFrame(self).__repr__()])

    def _repr_html_(self) -> str:
        bars = "".join(note_html(each.line) + bar_html(each.percent, each.line) for each in self.budgets)
        shown = self.tail(MAX_ROWS)
        rows = [self._cells(row) for row in shown.to_dict("records")]
        if len(self) > 1:
            rows.append([Cell(text, look="total") for text in self._total_texts()])
        notes = [f"the last {MAX_ROWS} of {len(self):,} rows"] if len(shown) < len(self) else []
        table = html_table([*self._keys, *self._figures.values()], rows, numbers=[*self._figures.values()])
        return "".join([bars, table, *map(note_html, notes)])

    @property
    def _keys(self) -> list[str]:
        return [str(name) for name in self.columns if name not in _FIGURES]

    @property
    def _figures(self) -> dict[str, str]:
        """The columns of figures and their headings: parts of tokens, and turns without a price, only if there are."""
        parts, unpriced = (
            {name: heading for name, heading in each.items() if (self[name].fillna(0) > 0).any()}
            for each in (_PARTS, _UNPRICED)
        )
        return _ALWAYS | parts | {"cost_usd": "cost"} | unpriced

    def _cells(self, row: dict[Any, Any]) -> list[Cell]:
        keys = [self._key_cell(name, row[name]) for name in self._keys]
        return [*keys, *(Cell(_figure_text(name, row[name])) for name in self._figures)]

    def _key_cell(self, name: str, value: Any) -> Cell:
        if pd.isna(value):
            return Cell("")
        if name not in PERIODS:
            return Cell(one_line(str(value)), look="name")
        newest = self[name].max()
        return Cell(_period_text(name, value, newest.year), f"{value:%Y-%m-%d %H:%M %Z}", "name")

    def _total_texts(self) -> list[str]:
        first, *others = self._keys or [""]
        sums = pd.DataFrame(self)[[*self._figures]].sum(min_count=1)
        texts = [_figure_text(name, sums[name]) for name in self._figures]
        return [*(["total"] if first else []), *("" for _ in others), *texts]


def _figure_text(name: str, value: Any) -> str:
    if name == "cost_usd":
        return usd_text(None if pd.isna(value) else Decimal(repr(float(value))))
    return "" if pd.isna(value) else f"{int(value):,}"


def _period_text(period: str, start: Any, this_year: int) -> str:
    """Return the beginning of a period as short as it is clear."""
    day = day_text(start, this_year)
    if period == "month":
        return f"{day_text(start).partition(' ')[2]}"
    return f"{day} {start:%H:%M}" if period == "hour" else day
