"""What conversations cost, in a widget: filters, pictures, tables, and the dearest conversations to open."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from html import escape
from math import isnan
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd

from promptkit_nb.errors import ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.rendering.history import History
from promptkit_nb.rendering.plain_text import one_line
from promptkit_nb.rendering.receipts import usd_text
from promptkit_nb.views.plots import PERIODS, plot_cost, plot_tokens
from promptkit_nb.views.usage import usage_df

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments

_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
DEAREST = 20
ROWS = 8


def usage_dashboard(store: StateStore) -> UsageDashboard:
    """Return a widget that shows what was paid: by period and model, by user, by conversation.

    Its filters narrow everything; choosing one of the dearest conversations shows what was said in it. A notebook that
    is read without widgets shows the picture of cost. Needs matplotlib (``MissingDependencyError``).

    >>> from promptkit_nb import MemoryStore
    >>> usage_dashboard(MemoryStore()).total.value
    '0 turns · 0 tokens · $0.00'
    """
    return UsageDashboard(store)


class UsageDashboard(widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """The widget of ``usage_dashboard``; ``refresh()`` reads the store again."""

    def __init__(self, store: StateStore) -> None:
        """Show all of a store."""
        self._store = store
        self.user = widgets.Dropdown(description="User", options=self._choices("user_id"))
        self.model = widgets.Dropdown(description="Model", options=self._choices("model"))
        self.since = widgets.DatePicker(description="Since")
        self.until = widgets.DatePicker(description="Until")
        self.period = widgets.Dropdown(description="By", options=PERIODS, value="day")
        self.total = widgets.Label()
        self.cost = widgets.Image(format="png")
        self.tokens = widgets.Image(format="png")
        self.tables = widgets.HTML()
        self.dearest = widgets.Select(description="Open", rows=ROWS, layout={"width": "auto"})
        self.opened = widgets.HTML()
        self._static = b""
        filters = [self.user, self.model, self.since, self.until, self.period]
        super().__init__(
            [
                widgets.HBox(filters, layout={"flex_flow": "row wrap"}),
                self.total,
                widgets.HBox([self.cost, self.tokens], layout={"flex_flow": "row wrap"}),
                self.tables,
                self.dearest,
                self.opened,
            ]
        )
        self.refresh()
        for each in filters:
            each.observe(self.refresh, "value")
        self.dearest.observe(self._open, "value")

    def refresh(self, *_: object) -> None:
        """Show what the store holds now, as far as the filters let it through."""
        try:
            self._show()
        except InvalidArgumentError as error:
            self.total.value = one_line(str(error))

    def _show(self) -> None:
        filters = self._filters()
        (total,) = usage_df(self._store, by=[], **filters).to_dict("records")
        unpriced = f" + {total['unpriced_turns']:,} without a price" if total["unpriced_turns"] else ""
        cost_text = _usd(total["cost_usd"])
        self.total.value = f"{total['turns']:,} turns · {total['total_tokens']:,} tokens · {cost_text}{unpriced}"
        cost = plot_cost(self._store, by=(self.period.value, "model"), **filters)
        tokens = plot_tokens(self._store, by=self.period.value, **filters)
        self._static = cost._repr_png_()
        self.cost.value, self.tokens.value = cost.png_for_any_theme(), tokens.png_for_any_theme()
        by_model, by_user = (usage_df(self._store, by=key, **filters) for key in ("model", "user_id"))
        self.tables.value = f"{_table(by_model, 'model', 'model')}{_table(by_user, 'user_id', 'user')}"
        self.dearest.options = self._dearest(usage_df(self._store, by=["conversation_id", "user_id"], **filters))
        self.dearest.value = None

    def _filters(self) -> FilterArguments:
        return {
            "user_id": self.user.value,
            "model": self.model.value,
            "since": self.since.value,
            "until": self.until.value,
        }

    def _dearest(self, usage: pd.DataFrame) -> list[tuple[str, str]]:
        largest = usage.sort_values(["cost_usd", "total_tokens"], ascending=False, kind="stable").head(DEAREST)
        return [
            (one_line(f"{row['conversation_id']} · {row['user_id']} · {_usd(row['cost_usd'])}"), row["conversation_id"])
            for row in largest.to_dict("records")
        ]

    def _open(self, _: object) -> None:
        chosen = self.dearest.value
        if chosen is None:
            self.opened.value = ""
            return
        try:
            history = History.of(self._store.get(chosen))
            self.opened.value = history._repr_html_()
        except ConversationNotFoundError as error:
            self.opened.value = escape(str(error))

    def _choices(self, key: str) -> list[tuple[str, str | None]]:
        found = usage_df(self._store, by=key)[key].dropna().tolist()
        return [("all", None), *((one_line(name), name) for name in found)]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": self.total.value, "image/png": b64encode(self._static).decode()}


def _usd(cost_usd: float) -> str:
    return usd_text(None if isnan(cost_usd) else Decimal(str(cost_usd)))


def _table(usage: pd.DataFrame, key: str, heading: str) -> str:
    """Return what was paid by this key, the dearest first."""
    usage = usage.sort_values(["cost_usd", "total_tokens"], ascending=False, kind="stable").head(DEAREST)
    names = (heading, "turns", "input", "cached", "output", "reasoning", "cost")
    rows = [
        (
            one_line(str(row[key])) if isinstance(row[key], str) else "unknown",
            *(_count(row[name]) for name in ("turns", *_TOKENS)),
            _usd(row["cost_usd"]),
        )
        for row in usage.to_dict("records")
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _count(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:,}"
