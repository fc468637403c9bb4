"""``usage_dashboard``: usage and cost in a widget with filters, and the most expensive conversations to open."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Unpack

from traitlets import Dict, Int, List, Unicode

from promptkit_nb.characters import visible
from promptkit_nb.errors import ConversationNotFoundError, PromptKitError
from promptkit_nb.rendering.conversations import shown_title
from promptkit_nb.rendering.history import History
from promptkit_nb.rendering.widgets import NotebookWidget, script_of, style_of
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import note_html
from promptkit_nb.views.charts import ORIGIN
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.usage_report import UsageReport
from promptkit_nb.views.zones import PERIODS

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments

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
    tiles = List(List(Unicode())).tag(sync=True)
    problem = Unicode().tag(sync=True)
    charts = List(Dict()).tag(sync=True)
    """Cost and tokens over time, and the most expensive conversations, as ``page()`` gives them."""
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
        report.picture()  # raises without matplotlib, before the widget exists
        content = _content_of(report)
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
            self.opened = {"id": self.chosen, "title": self.chosen, "note": one_line(str(error)), "html": ""}
            return
        left_out = max(0, len(state.turns) - NEWEST_TURNS)
        note = f"The newest {NEWEST_TURNS} turns of {len(state.turns):,}." if left_out else ""
        shown = History.of(replace(state, turns=state.turns[left_out:]))
        question = next((turn.user_text for turn in state.turns if turn.user_text.strip()), None)
        title = shown_title(state, question)
        self.opened = {"id": self.chosen, "title": title, "note": note, "html": shown._repr_html_()}

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
        "tiles": [[*tile] for tile in report.tiles()],
        "charts": [chart.page() for chart in report.charts()],
        "tables": [asdict(table) for table in report.tables()],
    }


def _static_png(report: UsageReport) -> dict[str, object]:
    """Return the output of a batch run, whose HTML must not depend on how a chart is drawn."""
    return {"text/plain": report.total(), "image/png": b64encode(report.picture()._repr_png_()).decode()}


def _static_html(report: UsageReport) -> dict[str, object]:
    """Return the same as HTML; the page recognizes it as the saved picture and hides it while the widget runs."""
    words = note_html(report.total())
    return {
        "text/plain": report.total(),
        "text/html": f'<div class="promptkit-usage">{words}{report.picture().html()}</div>',
    }
