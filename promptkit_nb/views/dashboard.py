"""``usage_dashboard``: usage and cost in a widget with filters, and the most expensive conversations to open."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
from traitlets import Dict, Int, List, Unicode

from promptkit_nb.characters import visible
from promptkit_nb.errors import ConversationNotFoundError, PromptKitError
from promptkit_nb.rendering.conversations import History
from promptkit_nb.rendering.widgets import NotebookWidget, script_of, style_of
from promptkit_nb.text.plain_text import counted, one_line
from promptkit_nb.text.receipts import note_html, total_text, usd_text
from promptkit_nb.turns import OWN_SOURCE
from promptkit_nb.views.plots import (
    KEPT_NAME,
    ORIGIN,
    UNKNOWN,
    draw_cost,
    draw_most_expensive,
    draw_tokens,
    figure_of,
    is_at_list_price,
)
from promptkit_nb.views.schemas import USAGE
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.zones import PERIODS

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Drawing, Picture

MAX_ROWS = 20
"""The number of rows of a table; the most expensive ones are shown."""

SMALL = (6.4, 2.9)
WHOLE = (12, 6)
"""Sizes of figures, in inches."""

_FIGURES = [column.name for column in USAGE]
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; ``opens`` has the id of the conversation that each row opens, ``""`` for none."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    opens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage, read from a store in one pass; ``period`` and ``series`` are the groups of its cost chart."""

    usage: pd.DataFrame
    period: str
    series: str

    @classmethod
    def of(
        cls, store: StateStore, *, period: str = "day", series: str = "model", **filters: Unpack[FilterArguments]
    ) -> UsageReport:
        """Read a store; raise ``InvalidArgumentError`` for invalid filters."""
        usage = usage_df(store, [period, "conversation_id", "user_id", "model", *ORIGIN], **filters)
        return cls(usage, period, series)

    def total(self) -> str:
        """Return turns, tokens and cost on one line."""
        turns, tokens = (int(self.usage[name].sum()) for name in ("turns", "total_tokens"))
        at_list = is_at_list_price(self.usage)
        paid = self.usage["cost_usd"][~at_list]
        cost_usd = paid.sum(min_count=0 if at_list.any() else 1) if turns else 0.0
        cost_text = _cost_of({"cost_usd": cost_usd, "unpriced_turns": self.usage["unpriced_turns"].sum()})
        if at_list.any():
            cost_text += f" · {usd_text(Decimal(repr(float(self.usage['cost_usd'][at_list].sum()))))} at list price"
        return f"{counted(turns, 'turn', grouped=True)} · {tokens:,} tokens · {cost_text}"

    def pictures(self) -> list[Picture]:
        """Return charts of cost over time, tokens over time, and the most expensive conversations."""
        return [figure_of(draw, size=SMALL) for draw in self._drawings()]

    def combined_picture(self) -> Picture:
        """Return the same charts in one figure."""
        return figure_of(*self._drawings(), size=WHOLE)

    def tables(self) -> tuple[Table, ...]:
        """Return usage and cost by model, by user, by source if any turn is imported, and by conversation."""
        kinds = (self.usage["source"].astype("str") != OWN_SOURCE).any()
        sources = [self._by("Sources", "source"), self._by("Prices", "price_source")] if kinds else []
        return (self._by("Models", "model"), self._by("Users", "user_id"), *sources, self._conversations())

    def _drawings(self) -> list[Drawing]:
        return [
            partial(
                draw_cost,
                usage=self._grouped(self.period, self.series, *ORIGIN),
                period=self.period,
                series=[self.series],
            ),
            partial(draw_tokens, usage=self._grouped(self.period), period=self.period),
            partial(draw_most_expensive, usage=self._grouped("conversation_id")),
        ]

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

    def _conversations(self) -> Table:
        rows_by_cost = self._by_cost("conversation_id", "user_id")[:MAX_ROWS]
        rows = tuple(
            (
                _name(row["conversation_id"], KEPT_NAME),
                one_line(row["user_id"]),
                _count(row["turns"]),
                _count(row["total_tokens"]),
                _cost_of(row),
            )
            for row in rows_by_cost
        )
        columns = ("conversation", "user", "turns", "tokens", "cost")
        opens = tuple(row["conversation_id"] if isinstance(row["conversation_id"], str) else "" for row in rows_by_cost)
        return Table("Most expensive conversations", columns, rows, opens)

    def _by(self, name: str, key: str) -> Table:
        rows = tuple(
            (_name(row[key]), *(_count(row[each]) for each in ("turns", *_TOKENS)), _cost_of(row))
            for row in self._by_cost(key)[:MAX_ROWS]
        )
        return Table(
            name, (key.removesuffix("_id"), "turns", "input", "of it cached", "output", "of it reasoning", "cost"), rows
        )


def _cost_of(row: dict[str, Any]) -> str:
    """Return a cost as text, with the number of turns that have no price."""
    cost_usd = row["cost_usd"]
    if pd.isna(cost_usd):
        return "price unknown"
    return total_text(Decimal(repr(float(cost_usd))), int(row["unpriced_turns"]))


def _name(value: object, missing: str = UNKNOWN) -> str:
    return one_line(value) if isinstance(value, str) else missing


def _count(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:,}"


_HERE = Path(__file__).parent

SERIES = {
    "model": "model",
    "user": "user_id",
    "source": "source",
    "price": "price_source",
    "conversation": "conversation_id",
}
NEWEST_TURNS = 50
"""The number of turns that are shown of an opened conversation."""

_PAGE_FILTERS = ("user_id", "model", "source", "price_source", "prefix", "since", "until")
_DEFAULT_FILTERS = {"by": "day", "series": "model"}


def usage_dashboard(store: StateStore, **filters: Unpack[FilterArguments]) -> UsageDashboard:
    """Return a widget that shows usage and cost over time, by model, by user and by conversation.

    Args:
        store: The store that holds the conversations.
        filters: The initial filters, those of ``usage_df``; the widget can change them.

    Click one of the most expensive conversations to read it. The saved notebook keeps a picture.
    Raises ``MissingDependencyError`` without matplotlib, and ``InvalidArgumentError`` for an invalid filter.

    >>> from promptkit_nb import MemoryStore, usage_dashboard
    >>> usage_dashboard(MemoryStore()).total
    '0 turns · 0 tokens · $0.00'
    """
    return UsageDashboard(store, **filters)


class UsageDashboard(NotebookWidget):
    """The widget of ``usage_dashboard``; ``refresh()`` reads the store again."""

    _esm = script_of(_HERE / "dashboard.js")
    _css = style_of(_HERE / "dashboard.css")

    choices = Dict().tag(sync=True)
    filters = Dict().tag(sync=True)
    """The filters as the page shows them: texts, empty if everything is selected."""
    asked = Int().tag(sync=True)
    """The number of requests from pages; ``answered`` is how many of them were answered."""
    answered = Int().tag(sync=True)
    total = Unicode().tag(sync=True)
    problem = Unicode().tag(sync=True)
    pictures = List(Dict()).tag(sync=True)
    tables = List(Dict()).tag(sync=True)
    chosen = Unicode().tag(sync=True)
    """The id of the open conversation, empty if none is."""
    opened = Dict().tag(sync=True)

    def __init__(self, store: StateStore, **filters: Unpack[FilterArguments]) -> None:
        """Show the usage that the filters select."""
        self._store = store
        self._conversation_id = filters.get("conversation_id")
        self._tz = filters.get("tz")
        self._lock = Lock()
        report = UsageReport.of(store, **filters)
        content = _content_of(report)  # raises without matplotlib, before the widget exists
        super().__init__()
        self._report = report
        self.filters = _DEFAULT_FILTERS | {name: str(filters.get(name) or "") for name in _PAGE_FILTERS}
        self._show(content)
        self.observe(self._on_asked, "asked")
        self.observe(self._on_chosen, "chosen")

    def refresh(self) -> None:
        """Read the store again; on an error, show it and keep the previous contents."""
        with self._lock, self.hold_sync():
            try:
                self._report = self._read()
                self._show(_content_of(self._report))
                self.problem = ""
            except PromptKitError as error:
                self.problem = one_line(str(error))
            self.answered = self.asked
        if self._saved is not None:
            self._saved.update(_static_html(self._report), raw=True)

    def __repr__(self) -> str:
        """Return the totals as text."""
        return f"UsageDashboard({self.total!r})"

    def _static_output(self) -> dict[str, object]:
        return _static_png(self._report)

    def _saved_output(self) -> dict[str, object]:
        return _static_html(self._report)

    def _read(self) -> UsageReport:
        typed = {name: text or None for name, text in self.filters.items() if name in _PAGE_FILTERS}
        return UsageReport.of(
            self._store,
            period=self.filters["by"],
            series=SERIES.get(self.filters["series"], "model"),
            conversation_id=self._conversation_id,
            tz=self._tz,
            **typed,
        )

    def _show(self, content: dict[str, Any]) -> None:
        named = usage_df(self._store, by=["user_id", "model", *ORIGIN])
        names = {key: sorted(named[key].dropna().unique()) for key in ("user_id", "model", *ORIGIN)}
        self.choices = {**names, "by": list(PERIODS), "series": list(SERIES)}
        for name, value in content.items():
            setattr(self, name, value)

    def _on_asked(self, _: object) -> None:
        self.refresh()

    def _on_chosen(self, _: object) -> None:
        """Open the chosen conversation, or show why that failed."""
        if not self.chosen:
            self.opened = {}
            return
        try:
            state = self._chosen_state()
        except PromptKitError as error:
            self.opened = {"id": self.chosen, "note": one_line(str(error)), "html": ""}
            return
        left_out = max(0, len(state.turns) - NEWEST_TURNS)
        note = f"The newest {NEWEST_TURNS} turns of {len(state.turns):,}." if left_out else ""
        shown = History.of(replace(state, turns=state.turns[left_out:]))
        self.opened = {"id": self.chosen, "note": note, "html": shown._repr_html_()}

    def _chosen_state(self) -> ConversationState:
        """Return the chosen conversation; frames, and so the table, show control characters of its id as marks."""
        try:
            return self._store.get(self.chosen)
        except ConversationNotFoundError:
            heads = (head.conversation_id for head in self._store.list())
            shown = next((each for each in heads if visible(each) == self.chosen), None)
            if shown is None:
                raise
            return self._store.get(shown)


def _content_of(report: UsageReport) -> dict[str, Any]:
    return {
        "total": report.total(),
        "pictures": [
            {"title": picture.axes[0].get_title(loc="left"), "png": picture._repr_png_()}
            for picture in report.pictures()
        ],
        "tables": [asdict(table) for table in report.tables()],
    }


def _static_png(report: UsageReport) -> dict[str, object]:
    """Return the output of a batch run, whose HTML must not depend on how a chart is drawn."""
    png = b64encode(report.combined_picture()._repr_png_()).decode()
    return {"text/plain": report.total(), "image/png": png}


def _static_html(report: UsageReport) -> dict[str, object]:
    """Return the same as HTML; the page recognizes it as the saved picture and hides it while the widget runs."""
    png = b64encode(report.combined_picture()._repr_png_()).decode()
    words = note_html(report.total())
    image = f'<img alt="{escape(report.total())}" src="data:image/png;base64,{png}" style="max-width:100%">'
    return {"text/plain": report.total(), "text/html": f'<div class="promptkit-usage">{words}{image}</div>'}
