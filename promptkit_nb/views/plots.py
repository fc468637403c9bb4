"""Charts of cost and tokens, drawn by matplotlib, identical on every run.

Matplotlib is required by the extra ``plots`` only, and imported with the first chart.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from promptkit_nb.errors import InvalidArgumentError, MissingDependencyError
from promptkit_nb.text.plain_text import preview
from promptkit_nb.views.charts import COLORS, NAME_CHARACTERS, ORIGIN, BarChart, RankChart, ticks_of
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.zones import PERIODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Drawing, Picture


def plot_cost(
    store: StateStore, by: str | Sequence[str] = ("day", "model"), **filters: Unpack[FilterArguments]
) -> Picture:
    """Return a figure of the cost in US dollars: stacked bars, one per period.

    Args:
        store: The store that holds the conversations.
        by: A period (``hour``, ``day``, ``week``, ``month``) and optionally another key of ``usage_df``, which
            splits the bars into series.
        filters: Those of ``usage_df``.

    There is room for at least seven periods. Turns without a known price are not drawn; the title has their number.
    Costs of imported turns that were computed from the price list are hatched: the price actually paid, for example for
    a subscription, is unknown. With more than eight series, all but the seven largest are drawn as one, ``others``.
    Raises ``MissingDependencyError`` without matplotlib, and ``InvalidArgumentError`` for other keys.

    >>> from promptkit_nb import MemoryStore, plot_cost
    >>> plot_cost(MemoryStore(), by="month").axes[0].get_ylabel()
    'US dollars'
    """
    period, series = _keys(by)
    usage = usage_df(store, [*dict.fromkeys([period, *series, *ORIGIN])], **filters)
    return figure_of(partial(draw_bars, chart=BarChart.of_cost(usage, period, series)))


def plot_tokens(store: StateStore, by: str = "day", **filters: Unpack[FilterArguments]) -> Picture:
    """Return a figure of the tokens that were paid for: stacked bars of input, cached input, output and reasoning.

    Args:
        store: The store that holds the conversations.
        by: The period of a bar: ``hour``, ``day``, ``week`` or ``month``.
        filters: Those of ``usage_df``.

    ``input`` excludes cached input and ``output`` excludes reasoning, so the four add up to the total. Raises
    ``MissingDependencyError`` without matplotlib, and ``InvalidArgumentError`` for another key.

    >>> from promptkit_nb import MemoryStore, plot_tokens
    >>> plot_tokens(MemoryStore()).axes[0].get_ylabel()
    'tokens'
    """
    period, series = _keys(by)
    if series:
        raise InvalidArgumentError(f"by={by!r} is not a single period: use one of {', '.join(PERIODS)}.")
    usage = usage_df(store, [period], **filters)
    return figure_of(partial(draw_bars, chart=BarChart.of_tokens(usage, period)))


def _keys(by: str | Sequence[str]) -> tuple[str, list[str]]:
    """Return the period and the other keys."""
    keys = [key.strip() for key in by.split(",")] if isinstance(by, str) else list(by)
    periods = [key for key in keys if key in PERIODS]
    others = [key for key in keys if key not in PERIODS]
    if len(periods) != 1 or len(others) > 1:
        raise InvalidArgumentError(
            f"by={by!r:.80} cannot be drawn: give one of {', '.join(PERIODS)}, and at most one other key of usage_df."
        )
    return periods[0], others


def draw_bars(axes: Axes, chart: BarChart) -> None:
    """Draw stacked bars; the part of each bar that is at list price is hatched."""
    from promptkit_nb.views.pictures import add_legend, say_nothing_was_paid  # noqa: PLC0415 - an extra

    axes.set_title(chart.title, loc="left")
    axes.set_ylabel(chart.unit)
    if not chart.table.size:
        say_nothing_was_paid(axes)
        return
    below: Any = 0
    handles = []
    slots, width = chart.slots, chart.bar_width
    for color, (name, heights) in zip(COLORS, chart.table.items(), strict=False):
        handles.append(axes.bar(slots, heights, width, bottom=below, label=name, color=color))
        below = below + heights
        parts = None if chart.listed is None else chart.listed[name]
        if parts is not None and (parts > 0).any():
            axes.bar(slots, parts, width, bottom=below - parts, color="none", edgecolor="white", hatch="////")
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlim(-0.5, chart.slot_count - 0.5)
    axes.set_xticks(*zip(*chart.labels(), strict=True))
    axes.set_yticks(*zip(*chart.ticks(), strict=True))
    if len(handles) > 1:
        add_legend(axes, handles, [preview(str(name), NAME_CHARACTERS) for name in chart.table.columns])


def draw_ranks(axes: Axes, chart: RankChart) -> None:
    """Draw names with horizontal bars."""
    from promptkit_nb.views.fonts import drawable  # noqa: PLC0415 - matplotlib, an extra
    from promptkit_nb.views.pictures import say_nothing_was_paid  # noqa: PLC0415 - an extra

    axes.set_title(chart.title, loc="left")
    if not chart.rows:
        say_nothing_was_paid(axes)
        return
    names, amounts = zip(*chart.rows, strict=True)
    axes.barh(range(len(names)), amounts, 0.62, color=COLORS[0])
    axes.set_yticks(range(len(names)), [drawable(name)[0] for name in names])
    axes.set_xticks(*zip(*ticks_of(max(amounts), in_usd=True), strict=True))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("US dollars")


def figure_of(*drawings: Drawing, size: tuple[float, float] = (8, 3.5)) -> Picture:
    """Return a picture of these drawings, two per row; ``size`` is that of the whole, in inches."""
    try:
        from promptkit_nb.views.pictures import picture_of  # noqa: PLC0415 - matplotlib, an extra
    except ImportError as error:
        raise MissingDependencyError("Charts need matplotlib: pip install 'promptkit-nb[plots]'.") from error
    return picture_of(*drawings, size=size)
