"""``usage_dashboard``: what conversations cost, in a widget with filters, and the dearest conversations to open."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Unpack

import anywidget
from IPython.display import display
from traitlets import Dict, Int, List, Unicode

from promptkit_nb.errors import PromptKitError
from promptkit_nb.rendering.frontend import WIDGET_VIEW, can_use_widgets, widget_view
from promptkit_nb.rendering.history import History
from promptkit_nb.rendering.note_html import note_html
from promptkit_nb.rendering.plain_text import one_line
from promptkit_nb.rendering.widget_page import script_of, style_of
from promptkit_nb.views.plots import PERIODS
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.usage_report import UsageReport

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.cost_parts import Prices
    from promptkit_nb.views.filters import FilterArguments

_HERE = Path(__file__).parent

SERIES = {"model": "model", "user": "user_id", "conversation": "conversation_id"}
NEWEST_TURNS = 50
"""How many turns of a conversation are opened."""

_ON_PAGE = ("user_id", "model", "prefix", "since", "until")
_AS_AT_FIRST = {"by": "day", "series": "model"}


def usage_dashboard(
    store: StateStore, *, prices: Prices | None = None, **filters: Unpack[FilterArguments]
) -> UsageDashboard:
    """Return a widget that shows what was paid: over time, by model, user and conversation, and for which tokens.

    Args:
        store: Where the conversations are.
        prices: Your own dollars per million tokens, in and out, by model, as a provider takes them: what was paid at
            them can only be split into input and output where they are given here, too.
        filters: Those of ``usage_df``, to begin with; they are changed in the widget.

    Choosing one of the most expensive conversations shows what was said in it. The saved notebook keeps a picture.
    Needs matplotlib (``MissingDependencyError``); raises ``InvalidArgumentError`` for a filter that cannot be meant.

    >>> from promptkit_nb import MemoryStore, usage_dashboard
    >>> usage_dashboard(MemoryStore()).total
    '0 turns · 0 tokens · $0.00'
    """
    return UsageDashboard(store, prices=prices, **filters)


class UsageDashboard(anywidget.AnyWidget):
    """The widget of ``usage_dashboard``; ``refresh()`` reads the store again."""

    _esm = script_of(_HERE / "dashboard.js")
    _css = style_of(_HERE / "dashboard.css")

    choices = Dict().tag(sync=True)
    filters = Dict().tag(sync=True)
    """As the page has them: texts, empty where everything is let through."""
    asked = Int().tag(sync=True)
    """How often a page asked for something, and by ``answered`` what of it was done."""
    answered = Int().tag(sync=True)
    total = Unicode().tag(sync=True)
    next_dollar = Unicode().tag(sync=True)
    problem = Unicode().tag(sync=True)
    pictures = List(Dict()).tag(sync=True)
    tables = List(Dict()).tag(sync=True)
    chosen = Unicode().tag(sync=True)
    """The id of the conversation that is open, empty without one."""
    opened = Dict().tag(sync=True)

    def __init__(self, store: StateStore, *, prices: Prices | None = None, **filters: Unpack[FilterArguments]) -> None:
        """Show what the filters let through."""
        self._store = store
        self._prices = prices
        self._conversation_id = filters.get("conversation_id")
        self._lock = Lock()
        self._saved: Any = None  # IPython's DisplayHandle
        report = UsageReport.of(store, prices=prices, **filters)
        content = _content_of(report)  # fails without matplotlib, before there is a widget
        super().__init__()
        self._report = report
        self.filters = _AS_AT_FIRST | {name: str(filters.get(name) or "") for name in _ON_PAGE}
        self._show(content)
        self.observe(self._on_asked, "asked")
        self.observe(self._on_chosen, "chosen")

    def refresh(self) -> None:
        """Show what the store holds now; what fails is said, and leaves what was there."""
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

    def open(self) -> None:
        """Connect with the pages; a batch run has none, and would save what is here in the notebook's metadata."""
        if can_use_widgets():
            super().open()

    def __repr__(self) -> str:
        """Say what is shown."""
        return f"UsageDashboard({self.total!r})"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        static = _static_png(self._report)
        if not can_use_widgets():
            return static, {}
        return {**static, WIDGET_VIEW: widget_view(self.model_id)}, {}

    def _ipython_display_(self, **_: object) -> None:
        if not can_use_widgets():
            display(_static_png(self._report), raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types
            return
        hint = "The dashboard needs a running kernel: run this cell again."
        display({"text/plain": hint, WIDGET_VIEW: widget_view(self.model_id)}, raw=True)  # type: ignore[no-untyped-call]  # as above
        self._saved = display(_static_html(self._report), raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as above

    def _read(self) -> UsageReport:
        typed = {name: text or None for name, text in self.filters.items() if name in _ON_PAGE}
        return UsageReport.of(
            self._store,
            period=self.filters["by"],
            series=SERIES.get(self.filters["series"], "model"),
            prices=self._prices,
            conversation_id=self._conversation_id,
            **typed,
        )

    def _show(self, content: dict[str, Any]) -> None:
        named = usage_df(self._store, by=["user_id", "model"])
        names = {key: sorted(named[key].dropna().unique()) for key in ("user_id", "model")}
        self.choices = {**names, "by": list(PERIODS), "series": list(SERIES)}
        for name, value in content.items():
            setattr(self, name, value)

    def _on_asked(self, _: object) -> None:
        self.refresh()

    def _on_chosen(self, _: object) -> None:
        """Open the conversation that was chosen, or say why it cannot be."""
        if not self.chosen:
            self.opened = {}
            return
        try:
            state = self._store.get(self.chosen)
        except PromptKitError as error:
            self.opened = {"id": self.chosen, "note": one_line(str(error)), "html": ""}
            return
        left_out = max(0, len(state.turns) - NEWEST_TURNS)
        note = f"The newest {NEWEST_TURNS} turns of {len(state.turns):,}." if left_out else ""
        shown = History.of(replace(state, turns=state.turns[left_out:]))
        self.opened = {"id": self.chosen, "note": note, "html": shown._repr_html_()}


def _content_of(report: UsageReport) -> dict[str, Any]:
    return {
        "total": report.total(),
        "next_dollar": report.next_dollar(),
        "pictures": [
            {"title": picture.axes[0].get_title(loc="left"), "png": picture._repr_png_()}
            for picture in report.pictures()
        ],
        "tables": [asdict(table) for table in report.tables()],
    }


def _static_text(report: UsageReport) -> str:
    return "\n".join(filter(None, [report.total(), report.next_dollar()]))


def _static_png(report: UsageReport) -> dict[str, object]:
    """Return what a batch run shows: in its HTML nothing may depend on how a picture is drawn."""
    png = b64encode(report.whole_picture()._repr_png_()).decode()
    return {"text/plain": _static_text(report), "image/png": png}


def _static_html(report: UsageReport) -> dict[str, object]:
    """Return the same as HTML, which the page knows to be the saved picture, and hides while the widget runs."""
    png = b64encode(report.whole_picture()._repr_png_()).decode()
    words = "".join(note_html(line) for line in _static_text(report).splitlines())
    image = f'<img alt="{escape(report.total())}" src="data:image/png;base64,{png}" style="max-width:100%">'
    return {"text/plain": _static_text(report), "text/html": f'<div class="promptkit-usage">{words}{image}</div>'}
