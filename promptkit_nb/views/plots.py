"""Pictures of cost and tokens, by matplotlib: what most notebooks draw with, and the same picture on every run.

It is asked for by the extra ``plots`` alone, and imported when the first picture is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from promptkit_nb.errors import InvalidArgumentError, MissingDependencyError
from promptkit_nb.rendering.plain_text import counted
from promptkit_nb.views.usage import usage_df

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Picture

PERIODS = ("hour", "day", "week", "month")
MOST_SERIES = 7
UNKNOWN = "unknown"
OTHERS = "others"

# Okabe and Ito's colours, told apart by people who see few, and on white as on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

TOKENS = {
    "input": ("input_tokens", "cached_tokens"),
    "cached": ("cached_tokens", None),
    "output": ("output_tokens", "reasoning_tokens"),
    "reasoning": ("reasoning_tokens", None),
}


def plot_cost(
    store: StateStore, by: str | Sequence[str] = ("day", "model"), **filters: Unpack[FilterArguments]
) -> Picture:
    """Return a figure of what was paid, in US dollars: stacked bars, one a period.

    Args:
        store: Where the conversations are.
        by: A period (``hour``, ``day``, ``week``, ``month``), and what the bars are made of: any other key of
            ``usage_df``, or nothing.
        filters: Those of ``usage_df``.

    What has no known price is in no bar; the title says how many turns that are. The eighth series and those after it
    are one, ``others``. Needs matplotlib (``MissingDependencyError``); ``InvalidArgumentError`` for other keys.

    >>> from promptkit_nb import MemoryStore
    >>> plot_cost(MemoryStore(), by="month").axes[0].get_ylabel()
    'US dollars'
    """
    period, series = _keys(by)
    usage = usage_df(store, [period, *series], **filters)
    table = _by_series(usage, period, series, "cost_usd")
    unpriced = int(usage["unpriced_turns"].sum())
    title = f"Cost: ${usage['cost_usd'].sum():,.4f}" + (
        f", and {counted(unpriced, 'turn')} without a price" if unpriced else ""
    )
    return _figure(table, title, "US dollars", period)


def plot_tokens(store: StateStore, by: str = "day", **filters: Unpack[FilterArguments]) -> Picture:
    """Return a figure of the tokens that were paid for: stacked bars of input, cached input, output and reasoning.

    Args:
        store: Where the conversations are.
        by: The period of a bar: ``hour``, ``day``, ``week`` or ``month``.
        filters: Those of ``usage_df``.

    ``input`` is what was not cached, ``output`` what was no reasoning: together they are all. Needs matplotlib
    (``MissingDependencyError``); ``InvalidArgumentError`` for another key.

    >>> from promptkit_nb import MemoryStore
    >>> plot_tokens(MemoryStore()).axes[0].get_ylabel()
    'tokens'
    """
    period, series = _keys(by)
    if series:
        raise InvalidArgumentError(f"by={by!r} is more than a period: use one of {', '.join(PERIODS)}.")
    usage = usage_df(store, [period], **filters).dropna(subset=[period]).set_index(period).astype("float64")
    table = usage[[]].copy()
    for name, (column, part) in TOKENS.items():
        table[name] = usage[column] - (usage[part] if part else 0)
    return _figure(table, f"Tokens: {int(table.to_numpy().sum()):,}", "tokens", period)


def _keys(by: str | Sequence[str]) -> tuple[str, list[str]]:
    """Return the period and what else was asked by."""
    keys = [key.strip() for key in by.split(",")] if isinstance(by, str) else list(by)
    periods = [key for key in keys if key in PERIODS]
    others = [key for key in keys if key not in PERIODS]
    if len(periods) != 1 or len(others) > 1:
        raise InvalidArgumentError(
            f"by={by!r:.80} cannot be drawn: give one of {', '.join(PERIODS)}, and at most one other key of usage_df."
        )
    return periods[0], others


def _by_series(usage: pd.DataFrame, period: str, series: Sequence[str], figure: str) -> pd.DataFrame:
    """Return the figure with a row a period and a column a series, the largest series first."""
    known = usage.dropna(subset=[period])
    if not series:
        return known.set_index(period)[[figure]].fillna(0)
    named = known.assign(**{series[0]: known[series[0]].astype("str").fillna(UNKNOWN)})
    table = named.pivot_table(index=period, columns=series[0], values=figure, aggfunc="sum", fill_value=0)
    table = table[table.sum().sort_values(ascending=False, kind="stable").index]
    if len(table.columns) <= MOST_SERIES + 1:
        return table
    largest = table.iloc[:, :MOST_SERIES].copy()
    largest[OTHERS] = table.iloc[:, MOST_SERIES:].sum(axis="columns")
    return largest


def _figure(table: pd.DataFrame, title: str, label: str, period: str) -> Picture:
    figure = _new_figure()
    axes = figure.add_subplot()
    _draw_bars(axes, table, WIDTHS_DAYS[period])
    axes.set_title(title, loc="left")
    axes.set_ylabel(label)
    return figure


WIDTHS_DAYS: Mapping[str, float] = {"hour": 0.8 / 24, "day": 0.8, "week": 5.6, "month": 24}


def _new_figure() -> Picture:
    try:
        from promptkit_nb.views.pictures import new_picture  # noqa: PLC0415 - matplotlib, an extra
    except ImportError as error:
        raise MissingDependencyError("Pictures need matplotlib: pip install 'promptkit-nb[plots]'.") from error
    return new_picture()


def _draw_bars(axes: Axes, table: pd.DataFrame, width_days: float) -> None:
    below: Any = 0
    for colour, (name, heights) in zip(COLOURS, table.items(), strict=False):
        axes.bar(table.index.to_numpy(), heights, width_days, bottom=below, label=name, color=colour, align="edge")
        below = below + heights
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    if len(table.columns) > 1 and len(table):
        axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    if not len(table):
        axes.text(0.5, 0.5, "nothing was paid", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
    else:
        axes.figure.autofmt_xdate(rotation=30)
