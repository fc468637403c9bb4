"""Charts of cost and tokens, drawn by matplotlib, identical on every run.

Matplotlib is required by the extra ``plots`` only, and imported with the first chart.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from promptkit_nb.errors import InvalidArgumentError, MissingDependencyError
from promptkit_nb.text.plain_text import counted, preview
from promptkit_nb.turns import OWN_SOURCE
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.zones import PERIODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.pictures import Drawing, Picture

ORIGIN = ("source", "price_source")
"""The keys that distinguish paid amounts from list prices."""

MAX_SERIES = 7
UNKNOWN = "unknown"
OTHERS = "others"
KEPT_NAME = "(no longer stored)"
NAME_CHARACTERS = 28

# Okabe and Ito's colors: distinct for color-blind people, on white and on black.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

TOKENS = {
    "input": ("input_tokens", "cached_tokens"),
    "cached": ("cached_tokens", None),
    "output": ("output_tokens", "reasoning_tokens"),
    "reasoning": ("reasoning_tokens", None),
}

WIDTHS_DAYS: Mapping[str, float] = {"hour": 0.8 / 24, "day": 0.8, "week": 5.6, "month": 24}


def plot_cost(
    store: StateStore, by: str | Sequence[str] = ("day", "model"), **filters: Unpack[FilterArguments]
) -> Picture:
    """Return a figure of the cost in US dollars: stacked bars, one per period.

    Args:
        store: The store that holds the conversations.
        by: A period (``hour``, ``day``, ``week``, ``month``) and optionally another key of ``usage_df``, which
            splits the bars into series.
        filters: Those of ``usage_df``.

    Turns without a known price are not drawn; the title has their number. Costs of imported turns that were computed
    from the price list are hatched: the price actually paid, for example for a subscription, is unknown. With more
    than eight series, all but the seven largest are drawn as one, ``others``. Raises ``MissingDependencyError``
    without matplotlib, and ``InvalidArgumentError`` for other keys.

    >>> from promptkit_nb import MemoryStore, plot_cost
    >>> plot_cost(MemoryStore(), by="month").axes[0].get_ylabel()
    'US dollars'
    """
    period, series = _keys(by)
    usage = usage_df(store, [*dict.fromkeys([period, *series, *ORIGIN])], **filters)
    return figure_of(partial(draw_cost, usage=usage, period=period, series=series))


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
    return figure_of(partial(draw_tokens, usage=usage, period=period))


def draw_cost(axes: Axes, usage: pd.DataFrame, period: str, series: Sequence[str] = ()) -> None:
    """Draw the cost; ``usage`` has the period, the series, ``ORIGIN``, and the columns of ``usage_df``."""
    unpriced = int(usage["unpriced_turns"].sum())
    at_list = is_at_list_price(usage)
    paid_usd, listed_usd = usage.loc[~at_list, "cost_usd"].sum(), usage.loc[at_list, "cost_usd"].sum()
    title = f"Cost: ${paid_usd:,.4f}" + (f", and ${listed_usd:,.4f} at list price (hatched)" if listed_usd else "")
    title += f", and {counted(unpriced, 'turn')} without a price" if unpriced else ""
    table = _by_series(usage, period, series, "cost_usd")
    _draw_bars(axes, table, period, hatched=_by_series(usage[at_list], period, series, "cost_usd", like=table))
    axes.set_title(title, loc="left")
    axes.set_ylabel("US dollars")


def is_at_list_price(usage: pd.DataFrame) -> pd.Series[bool]:
    """Return for each row whether its cost is a list price of imported turns, which may not have been paid."""
    return (usage["source"].astype("str") != OWN_SOURCE) & (usage["price_source"].astype("str") == "list")


def draw_tokens(axes: Axes, usage: pd.DataFrame, period: str) -> None:
    """Draw the tokens; ``usage`` has a row per period and the columns of ``usage_df``."""
    known = usage.dropna(subset=[period]).set_index(period)[[*dict.fromkeys(each for each, _ in TOKENS.values())]]
    known = known.astype("float64").fillna(0)
    table = known[[]].copy()
    for name, (column, part) in TOKENS.items():
        table[name] = known[column] - (known[part] if part else 0)
    _draw_bars(axes, table, period)
    axes.set_title(f"Tokens: {int(table.to_numpy().sum()):,}", loc="left")
    axes.set_ylabel("tokens")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def draw_most_expensive(axes: Axes, usage: pd.DataFrame) -> None:
    """Draw the most expensive conversations; ``usage`` has a row per conversation and the columns of ``usage_df``."""
    from promptkit_nb.views.pictures import say_nothing_was_paid  # noqa: PLC0415 - matplotlib, an extra

    axes.set_title("Most expensive conversations", loc="left")
    shown = usage[usage["cost_usd"] > 0].sort_values("cost_usd", ascending=False, kind="stable").head(MAX_SERIES)
    if not len(shown):
        say_nothing_was_paid(axes)
        return
    axes.barh(range(len(shown)), shown["cost_usd"], 0.7, color=COLORS[0])
    axes.set_yticks(
        range(len(shown)),
        [preview(name, NAME_CHARACTERS) for name in shown["conversation_id"].astype("str").fillna(KEPT_NAME)],
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("US dollars")


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


def _by_series(
    usage: pd.DataFrame, period: str, series: Sequence[str], figure: str, like: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return one figure with a row per period and a column per series, sorted by size, or ordered as in ``like``."""
    known = usage.dropna(subset=[period, figure])
    if not series:
        return known.groupby(period, observed=True)[[figure]].sum()
    missing = KEPT_NAME if series[0] == "conversation_id" else UNKNOWN
    named = known.assign(**{series[0]: known[series[0]].astype("str").fillna(missing)})
    table = named.pivot_table(index=period, columns=series[0], values=figure, aggfunc="sum", fill_value=0)
    if like is not None:
        others = [name for name in table.columns if name not in like.columns]
        table = table.assign(**({OTHERS: table[others].sum(axis="columns")} if others else {}))
        return table.reindex(index=like.index, columns=like.columns, fill_value=0)
    table = table[table.sum().sort_values(ascending=False, kind="stable").index]
    if len(table.columns) <= MAX_SERIES + 1:
        return table
    largest = table.iloc[:, :MAX_SERIES].copy()
    largest[OTHERS] = table.iloc[:, MAX_SERIES:].sum(axis="columns") + largest.get(
        OTHERS, 0
    )  # a series may have that name
    return largest


def _draw_bars(axes: Axes, table: pd.DataFrame, period: str, hatched: pd.DataFrame | None = None) -> None:
    """Draw stacked bars; the part of each bar that is in ``hatched`` is hatched."""
    from promptkit_nb.views.pictures import add_legend, label_periods, say_nothing_was_paid  # noqa: PLC0415 - an extra

    if not len(table):
        say_nothing_was_paid(axes)
        return
    below: Any = 0
    handles = []
    for color, (name, heights) in zip(COLORS, table.items(), strict=False):
        begins, width = table.index.to_numpy(), WIDTHS_DAYS[period]
        handles.append(axes.bar(begins, heights, width, bottom=below, label=name, color=color, align="edge"))
        below = below + heights
        if hatched is not None and len(hatched) and (hatched[name] > 0).any():
            parts = hatched[name].reindex(table.index, fill_value=0)
            bottom = below - parts
            axes.bar(begins, parts, width, bottom=bottom, align="edge", color="none", edgecolor="white", hatch="////")
    axes.grid(axis="y", alpha=0.3)
    label_periods(axes, table.index.tz)
    if len(handles) > 1:
        add_legend(axes, handles, [preview(str(name), NAME_CHARACTERS) for name in table.columns])


def figure_of(*drawings: Drawing, size: tuple[float, float] = (8, 3.5)) -> Picture:
    """Return a picture of these drawings, two per row; ``size`` is that of the whole, in inches."""
    try:
        from promptkit_nb.views.pictures import picture_of  # noqa: PLC0415 - matplotlib, an extra
    except ImportError as error:
        raise MissingDependencyError("Charts need matplotlib: pip install 'promptkit-nb[plots]'.") from error
    return picture_of(*drawings, size=size)
