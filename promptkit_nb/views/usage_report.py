"""What a dashboard of usage says: totals, tables and pictures of what the filters let through."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from promptkit_nb.rendering.plain_text import one_line
from promptkit_nb.rendering.receipts import total_text, usd_text
from promptkit_nb.views.cost_parts import cost_parts_df
from promptkit_nb.views.next_dollar import PARTS, cents_of, draw_next_dollar
from promptkit_nb.views.plots import UNKNOWN, draw_cost, draw_dearest, draw_tokens, drawn
from promptkit_nb.views.schemas import USAGE
from promptkit_nb.views.usage import usage_df

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.cost_parts import Prices
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Drawing, Picture

MOST_ROWS = 20
"""Of a table: the dearest ones."""

SMALL = (6.4, 2.9)
WHOLE = (12, 6)
"""Sizes of pictures, in inches."""

_FIGURES = [column.name for column in USAGE]
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is shown: text in every cell. ``opens`` are the conversations behind its rows, if any are."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    opens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What was paid, read from a store in two passes; ``period`` and ``series`` are what its picture of cost is by."""

    usage: pd.DataFrame
    parts: pd.DataFrame
    period: str
    series: str

    @classmethod
    def of(
        cls,
        store: StateStore,
        *,
        period: str = "day",
        series: str = "model",
        prices: Prices | None = None,
        **filters: Unpack[FilterArguments],
    ) -> UsageReport:
        """Read a store; raises ``InvalidArgumentError`` for filters that cannot be meant."""
        usage = usage_df(store, [period, "conversation_id", "user_id", "model"], **filters)
        return cls(usage, cost_parts_df(store, prices=prices, **filters), period, series)

    def total(self) -> str:
        """Return all of it on one line."""
        turns, tokens = (int(self.usage[name].sum()) for name in ("turns", "total_tokens"))
        cost_usd = self.usage["cost_usd"].sum(min_count=1) if turns else 0.0
        cost_text = _cost_of({"cost_usd": cost_usd, "unpriced_turns": self.usage["unpriced_turns"].sum()})
        return f"{turns:,} turn{'' if turns == 1 else 's'} · {tokens:,} tokens · {cost_text}"

    def next_dollar(self) -> str:
        """Return where the next dollar goes, on one line; empty where nothing was paid."""
        cents = cents_of(self.parts)
        if not cents:
            return ""
        words = ", ".join(f"{name} {share:.0f} ¢" for name, share in cents[0][1].items() if share)
        saved = self.parts["cache_saved_usd"].sum()
        return f"Of each dollar: {words}." + (f" Caching saved {_usd(saved)}." if saved else "")

    def pictures(self) -> list[Picture]:
        """Return cost over time, tokens over time, where the next dollar goes, and the most expensive conversations."""
        return [drawn(draw, size=SMALL) for draw in self._drawings()]

    def whole_picture(self) -> Picture:
        """Return the same as one picture."""
        return drawn(*self._drawings(), size=WHOLE)

    def tables(self) -> tuple[Table, ...]:
        """Return what models, users and conversations took, and for what the dollars of each model were paid."""
        return (self._by("Models", "model"), self._by("Users", "user_id"), self._parts_table(), self._conversations())

    def _drawings(self) -> list[Drawing]:
        return [
            partial(draw_cost, usage=self._grouped(self.period, self.series), period=self.period, series=[self.series]),
            partial(draw_tokens, usage=self._grouped(self.period), period=self.period),
            partial(draw_next_dollar, parts=self.parts),
            partial(draw_dearest, usage=self._grouped("conversation_id")),
        ]

    def _grouped(self, *keys: str) -> pd.DataFrame:
        return self.usage.groupby([*keys], observed=True, dropna=False)[_FIGURES].sum(min_count=1).reset_index()

    def _dearest(self, *keys: str) -> list[dict[str, Any]]:
        grouped = self._grouped(*keys).sort_values(["cost_usd", "total_tokens"], ascending=False, kind="stable")
        rows: list[dict[str, Any]] = grouped.to_dict("records")
        return rows

    def _conversations(self) -> Table:
        dearest = self._dearest("conversation_id", "user_id")[:MOST_ROWS]
        rows = tuple(
            (
                one_line(row["conversation_id"]),
                one_line(row["user_id"]),
                _count(row["turns"]),
                _count(row["total_tokens"]),
                _cost_of(row),
            )
            for row in dearest
        )
        columns = ("conversation", "user", "turns", "tokens", "cost")
        return Table("Most expensive conversations", columns, rows, tuple(row["conversation_id"] for row in dearest))

    def _by(self, name: str, key: str) -> Table:
        rows = tuple(
            (_name(row[key]), *(_count(row[each]) for each in ("turns", *_TOKENS)), _cost_of(row))
            for row in self._dearest(key)[:MOST_ROWS]
        )
        return Table(
            name, (key.removesuffix("_id"), "turns", "input", "of it cached", "output", "of it reasoning", "cost"), rows
        )

    def _parts_table(self) -> Table:
        """Return the dollars of each model by what they were paid for, as far as any were."""
        shown = {name: column for name, column in PARTS.items() if self.parts[column].any()}
        rows = tuple(
            (
                _name(row["model"]),
                *("" if pd.isna(row[each]) else _usd(row[each]) for each in shown.values()),
                _cost_of(row),
            )
            for row in self.parts.head(MOST_ROWS).to_dict("records")
        )
        return Table("Where the dollars went", ("model", *shown, "cost"), rows)


def _usd(cost_usd: float) -> str:
    return usd_text(None if pd.isna(cost_usd) else Decimal(repr(float(cost_usd))))


def _cost_of(row: dict[str, Any]) -> str:
    """Return a cost for reading, with what it lacks."""
    cost_usd = row["cost_usd"]
    if pd.isna(cost_usd):
        return "price unknown"
    return total_text(Decimal(repr(float(cost_usd))), int(row["unpriced_turns"]))


def _name(value: object) -> str:
    return one_line(value) if isinstance(value, str) else UNKNOWN


def _count(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:,}"
