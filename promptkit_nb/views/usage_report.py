"""Usage of a store as the dashboard shows it: figures, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from promptkit_nb.errors import StoreError
from promptkit_nb.ids import is_generated_id
from promptkit_nb.rendering.conversations import shown_title, title_of
from promptkit_nb.stores.listing import first_question
from promptkit_nb.text.plain_text import counted, one_line
from promptkit_nb.text.receipts import total_text, usd_text
from promptkit_nb.turns import OWN_SOURCE
from promptkit_nb.views.charts import KEPT_NAME, ORIGIN, UNKNOWN, BarChart, RankChart, is_at_list_price
from promptkit_nb.views.plots import draw_bars, draw_ranks, figure_of
from promptkit_nb.views.schemas import USAGE
from promptkit_nb.views.usage import usage_df

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Picture

MAX_ROWS = 20
"""The number of rows of a table; the most expensive ones are shown."""

SIZE = (12, 6)
"""The size of the picture, in inches."""

_FIGURES = [column.name for column in USAGE]
_TOKENS = {
    "input_tokens": "input",
    "cached_tokens": "of it cached",
    "output_tokens": "output",
    "reasoning_tokens": "of it reasoning",
}
_PARTS = ("cached_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; ``opens`` has the id of the conversation that each row opens, ``""`` for none."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    opens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage, read from a store in one pass.

    ``period`` and ``series`` are the groups of its cost chart, ``titles`` those of the most expensive conversations.
    """

    usage: pd.DataFrame
    period: str
    series: str
    titles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, store: StateStore, *, period: str = "day", series: str = "model", **filters: Unpack[FilterArguments]
    ) -> UsageReport:
        """Read a store; raise ``InvalidArgumentError`` for invalid filters."""
        usage = usage_df(store, [period, "conversation_id", "user_id", "model", *ORIGIN], **filters)
        report = cls(usage, period, series)
        ids = (row["conversation_id"] for row in report._by_cost("conversation_id")[:MAX_ROWS])
        return cls(usage, period, series, {each: _title(store, each) for each in ids if isinstance(each, str)})

    def total(self) -> str:
        """Return turns, tokens and cost on one line."""
        turns, tokens = (int(self.usage[name].sum()) for name in ("turns", "total_tokens"))
        listed = [f"{self._listed_text()} at list price"] if self._at_list.any() else []
        costs = [_cost_of({"cost_usd": self._paid_usd(), "unpriced_turns": self.usage["unpriced_turns"].sum()})]
        return " · ".join([counted(turns, "turn", grouped=True), f"{tokens:,} tokens", *costs, *listed])

    def tiles(self) -> list[tuple[str, str]]:
        """Return the most important figures with their labels; list prices and deleted conversations apart."""
        turns, tokens, unpriced = (int(self.usage[name].sum()) for name in ("turns", "total_tokens", "unpriced_turns"))
        paid_usd = self._paid_usd()
        tiles = [("spent", "unknown" if pd.isna(paid_usd) else _usd(paid_usd))]
        if self._at_list.any():
            tiles.append(("imported, at list price", self._listed_text()))
        deleted = self.usage.loc[self.usage["conversation_id"].isna(), "cost_usd"]
        if len(deleted):
            tiles.append(
                ("of it on deleted conversations", _usd(deleted.sum()) if deleted.notna().any() else "unknown")
            )
        tiles += [("turns", f"{turns:,}"), ("tokens", f"{tokens:,}")]
        return [*tiles, ("turns without a price", f"{unpriced:,}")] if unpriced else tiles

    def charts(self) -> tuple[BarChart, BarChart, RankChart]:
        """Return cost over time, tokens over time, and the most expensive conversations."""
        cost = BarChart.of_cost(self._grouped(self.period, self.series, *ORIGIN), self.period, [self.series])
        tokens = BarChart.of_tokens(self._grouped(self.period), self.period)
        return cost, tokens, RankChart.of_conversations(self._grouped("conversation_id"), self.titles)

    def picture(self) -> Picture:
        """Return the charts in one figure."""
        cost, tokens, conversations = self.charts()
        drawings = [partial(draw_bars, chart=cost), partial(draw_bars, chart=tokens)]
        return figure_of(*drawings, partial(draw_ranks, chart=conversations), size=SIZE)

    def tables(self) -> tuple[Table, ...]:
        """Return usage and cost by model, user and source if there are several, and by conversation."""
        has_users = len(self.usage["user_id"].unique()) > 1
        users = [self._by("Users", "user_id")] if has_users else []
        kinds = (self.usage["source"].astype("str") != OWN_SOURCE).any()
        sources = [self._by("Sources", "source"), self._by("Prices", "price_source")] if kinds else []
        return (self._by("Models", "model"), *users, *sources, self._conversations(with_user=has_users))

    @property
    def _at_list(self) -> pd.Series[bool]:
        return is_at_list_price(self.usage)

    def _paid_usd(self) -> float:
        """Return what was paid, without amounts at list price; NaN if nothing is known of any turn."""
        at_list = self._at_list
        if not int(self.usage["turns"].sum()):
            return 0.0
        return float(self.usage["cost_usd"][~at_list].sum(min_count=0 if at_list.any() else 1))

    def _listed_text(self) -> str:
        return _usd(self.usage["cost_usd"][self._at_list].sum())

    def _grouped(self, *keys: str) -> pd.DataFrame:
        return (
            self.usage.groupby([*dict.fromkeys(keys)], observed=True, dropna=False)[_FIGURES]
            .sum(min_count=1)
            .reset_index()
        )

    def _by_cost(self, *keys: str) -> list[dict[str, Any]]:
        grouped = self._grouped(*keys).sort_values(["cost_usd", "total_tokens"], ascending=False, kind="stable")
        rows: list[dict[str, Any]] = grouped.to_dict("records")
        return rows

    def _conversations(self, *, with_user: bool) -> Table:
        rows_by_cost = self._by_cost("conversation_id", "user_id")[:MAX_ROWS]
        rows = []
        for row in rows_by_cost:
            users = [one_line(row["user_id"])] if with_user else []
            name = self.titles.get(row["conversation_id"]) or _name(row["conversation_id"], KEPT_NAME)
            rows.append((name, *users, _count(row["turns"]), _count(row["total_tokens"]), _cost_of(row)))
        columns = ("conversation", *(["user"] if with_user else []), "turns", "tokens", "cost")
        opens = tuple(row["conversation_id"] if isinstance(row["conversation_id"], str) else "" for row in rows_by_cost)
        return Table("Most expensive conversations", columns, tuple(rows), opens)

    def _by(self, name: str, key: str) -> Table:
        tokens = [each for each in _TOKENS if each not in _PARTS or (self.usage[each].fillna(0) > 0).any()]
        rows = tuple(
            (_name(row[key]), *(_count(row[each], each) for each in ("turns", *tokens)), _cost_of(row))
            for row in self._by_cost(key)[:MAX_ROWS]
        )
        return Table(name, (key.removesuffix("_id"), "turns", *(_TOKENS[each] for each in tokens), "cost"), rows)


def _title(store: StateStore, conversation_id: str) -> str:
    """Return the title of a conversation; frames show ids in which control characters are marks."""
    try:
        head = store.head(conversation_id)
        question = first_question(store, conversation_id) if is_generated_id(conversation_id) else None
    except StoreError:
        return title_of(conversation_id, {})
    return shown_title(head, question)


def _usd(usd: float) -> str:
    return usd_text(Decimal(repr(float(usd))))


def _cost_of(row: dict[str, Any]) -> str:
    """Return a cost as text, with the number of turns that have no price."""
    cost_usd = row["cost_usd"]
    if pd.isna(cost_usd):
        return "price unknown"
    return total_text(Decimal(repr(float(cost_usd))), int(row["unpriced_turns"]))


def _name(value: object, missing: str = UNKNOWN) -> str:
    return one_line(value) if isinstance(value, str) else missing


def _count(value: Any, figure: str = "") -> str:
    is_nothing = pd.isna(value) or (figure in _PARTS and not value)
    return "" if is_nothing else f"{value:,}"
