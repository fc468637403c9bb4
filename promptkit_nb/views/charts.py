"""Charts of cost and tokens as data: bars, ticks and labels, which a page and matplotlib draw alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from promptkit_nb.text.plain_text import counted, preview
from promptkit_nb.text.receipts import usd_text
from promptkit_nb.text.tables import MONTHS, day_text
from promptkit_nb.turns import OWN_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ORIGIN = ("source", "price_source")
"""The keys that distinguish paid amounts from list prices."""

MAX_SERIES = 7
LEAST_PERIODS = 7
"""A chart has room for at least this many periods, so that the bar of a single day is a bar."""
MOST_LABELS = 7
MOST_TICKS = 4

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


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars, one for each period in which anything was paid.

    ``table`` has a row per period and a column per series, without those of zeros; ``listed`` is the part of it that is
    a list price. ``unit`` is ``"US dollars"`` or ``"tokens"``.
    """

    title: str
    unit: str
    period: str
    table: pd.DataFrame
    listed: pd.DataFrame | None = None

    @classmethod
    def of_cost(cls, usage: pd.DataFrame, period: str, series: Sequence[str] = ()) -> BarChart:
        """Return the cost; ``usage`` has the period, the series, ``ORIGIN``, and the columns of ``usage_df``."""
        unpriced = int(usage["unpriced_turns"].sum())
        at_list = is_at_list_price(usage)
        paid_usd, listed_usd = usage.loc[~at_list, "cost_usd"].sum(), usage.loc[at_list, "cost_usd"].sum()
        title = f"Cost: ${paid_usd:,.4f}" + (f", and ${listed_usd:,.4f} at list price (hatched)" if listed_usd else "")
        title += f", and {counted(unpriced, 'turn')} without a price" if unpriced else ""
        table = _by_series(usage, period, series)
        table = table.loc[:, table.sum() > 0]
        listed = _by_series(usage[at_list], period, series, like=table) if listed_usd else None
        return cls(title, "US dollars", period, table, listed)

    @classmethod
    def of_tokens(cls, usage: pd.DataFrame, period: str) -> BarChart:
        """Return the tokens; ``usage`` has a row per period and the columns of ``usage_df``."""
        known = usage.dropna(subset=[period]).set_index(period)[[*dict.fromkeys(each for each, _ in TOKENS.values())]]
        known = known.astype("float64").fillna(0)
        table = known[[]].copy()
        for name, (column, part) in TOKENS.items():
            table[name] = known[column] - (known[part] if part else 0)
        title = f"Tokens: {int(table.to_numpy().sum()):,}"
        return cls(title, "tokens", period, table.loc[:, (table > 0).any()])

    @property
    def slots(self) -> list[int]:
        """The place of each row on the axis, from 0; periods without a row have a place, too."""
        numbers = [_number(start, self.period) for start in self.table.index]
        return [number - numbers[-1] + self.slot_count - 1 for number in numbers]

    @property
    def slot_count(self) -> int:
        """The number of places on the axis."""
        if not len(self.table):
            return LEAST_PERIODS
        first, last = (_number(start, self.period) for start in (self.table.index[0], self.table.index[-1]))
        return max(LEAST_PERIODS, last - first + 1)

    @property
    def bar_width(self) -> float:
        """The width of a bar, as a fraction of its place."""
        return 0.62 if self.slot_count <= 5 * LEAST_PERIODS else 0.9

    def labels(self) -> list[tuple[int, str]]:
        """Return the labels of the axis with their places, from the newest to the oldest, with room between them."""
        if not len(self.table):
            return []
        last, count = self.table.index[-1], self.slot_count
        step = math.ceil(count / MOST_LABELS)
        return [(slot, _period_text(last, slot - count + 1, self.period)) for slot in range(count - 1, -1, -step)]

    def ticks(self) -> list[tuple[float, str]]:
        """Return the ticks of the amounts, from 0 to at least the highest bar."""
        return ticks_of(self.highest, in_usd=self.unit != "tokens")

    @property
    def highest(self) -> float:
        """The height of the highest bar."""
        return float(self.table.sum(axis="columns").max()) if self.table.size else 0.0

    def amount_text(self, amount: float) -> str:
        """Return an amount to read."""
        return f"{amount:,.0f} tokens" if self.unit == "tokens" else usd_text(Decimal(repr(round(amount, 9))))

    def page(self) -> dict[str, Any]:
        """Return the chart for a page, in fractions of its width and height."""
        ticks = self.ticks()
        top = ticks[-1][0] or 1.0
        slots = self.slots
        last = self.table.index[-1] if len(slots) else None
        count = self.slot_count
        names = {str(slot): _period_text(last, slot - count + 1, self.period, is_whole=True) for slot in slots}
        return {
            "title": self.title,
            "slots": count,
            "width": self.bar_width,
            "ticks": [[round(amount / top, 5), text] for amount, text in ticks],
            "labels": [[slot, text] for slot, text in self.labels()],
            "names": names,
            "series": [
                {"name": preview(str(name), NAME_CHARACTERS), "color": color, "bars": [*bars]}
                for name, color, bars in self._bars(slots, top)
            ],
        }

    def _bars(self, slots: Sequence[int], top: float) -> Iterator[tuple[str, str, list[list[Any]]]]:
        """Yield each series with its color and bars: place, bottom, height, text, and the part at list price."""
        below = pd.Series(0.0, index=self.table.index)
        for color, (name, heights) in zip(COLORS, self.table.items(), strict=False):
            listed = 0 * heights if self.listed is None else self.listed[name].reindex(heights.index, fill_value=0)
            rows = zip(slots, below, heights, listed, strict=True)
            yield (
                str(name),
                color,
                [
                    [
                        slot,
                        round(bottom / top, 5),
                        round(height / top, 5),
                        self.amount_text(height),
                        round(part / height, 3),
                    ]
                    for slot, bottom, height, part in rows
                    if height > 0
                ],
            )
            below = below + heights


@dataclass(frozen=True, slots=True)
class RankChart:
    """Horizontal bars of names with their cost, the largest first."""

    title: str
    rows: tuple[tuple[str, float], ...]

    @classmethod
    def of_conversations(cls, usage: pd.DataFrame, titles: Mapping[str, str]) -> RankChart:
        """Return the most expensive conversations; ``usage`` has a row for each, ``titles`` are theirs."""
        shown = usage[usage["cost_usd"] > 0].sort_values("cost_usd", ascending=False, kind="stable").head(MAX_SERIES)
        ids = shown["conversation_id"].astype("str").fillna(KEPT_NAME)
        names = (preview(titles.get(each, each), NAME_CHARACTERS) for each in ids)
        return cls("Most expensive conversations", tuple(zip(names, map(float, shown["cost_usd"]), strict=True)))

    def page(self) -> dict[str, Any]:
        """Return the chart for a page: names, fractions of the width, and amounts."""
        most = self.rows[0][1] if self.rows else 1.0
        rows = [[name, round(usd / most, 5), usd_text(Decimal(repr(round(usd, 9))))] for name, usd in self.rows]
        return {"title": self.title, "rows": rows}


def is_at_list_price(usage: pd.DataFrame) -> pd.Series[bool]:
    """Return for each row whether its cost is a list price of imported turns, which may not have been paid."""
    return (usage["source"].astype("str") != OWN_SOURCE) & (usage["price_source"].astype("str") == "list")


def ticks_of(most: float, *, in_usd: bool) -> list[tuple[float, str]]:
    """Return at most five round amounts from 0 to ``most`` or a little more, as numbers and as text.

    >>> [text for _, text in ticks_of(0.0082, in_usd=True)]
    ['$0', '$0.0025', '$0.005', '$0.0075', '$0.01']
    >>> [text for _, text in ticks_of(2679, in_usd=False)]
    ['0', '1,000', '2,000', '3,000']
    """
    if most <= 0:
        return [(0.0, "$0" if in_usd else "0")]
    power = 10.0 ** math.floor(math.log10(most / MOST_TICKS))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power * MOST_TICKS >= most * (1 - 1e-9))
    if not in_usd:
        step = max(1.0, step)
    count = math.ceil(most / step - 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    texts = [f"{step * number:,.{digits}f}" for number in range(count + 1)]
    if not in_usd:
        return [(step * number, text.partition(".")[0]) for number, text in enumerate(texts)]
    return [(step * number, f"${_short(text)}") for number, text in enumerate(texts)]


def _short(amount: str) -> str:
    """Return dollars without needless zeros, but with whole cents."""
    whole, dot, fraction = amount.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{dot}{fraction:0<2}" if fraction else whole


def _number(start: Any, period: str) -> int:
    """Return the number of a period on its axis: the next period has the next number."""
    if period == "hour":  # an hour that clocks repeat is two
        return int(start.timestamp() // 3600)
    local = start.to_pydatetime().date()
    if period == "month":
        return int(local.year * 12 + local.month)
    return int(local.toordinal() // 7 if period == "week" else local.toordinal())


def _period_text(last: Any, offset: int, period: str, *, is_whole: bool = False) -> str:
    """Return a period as short as it is clear; ``offset`` counts periods from the last one, which names the year."""
    this_year = None if is_whole else last.year
    if period == "hour":
        start = last + timedelta(hours=offset)
        return f"{day_text(start, this_year)} {start:%H:%M}"
    if period == "month":
        year, month = divmod(last.year * 12 + last.month - 1 + offset, 12)
        return f"{MONTHS[month]} {year}" if month == 0 or is_whole or offset == 0 else MONTHS[month]
    days = offset * (7 if period == "week" else 1)
    return day_text(last.to_pydatetime().date() + timedelta(days=days), this_year)


def _by_series(
    usage: pd.DataFrame, period: str, series: Sequence[str], like: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the cost with a row per period and a column per series, sorted by size, or ordered as in ``like``."""
    known = usage.dropna(subset=[period, "cost_usd"])
    if not series:
        table = known.groupby(period, observed=True)[["cost_usd"]].sum()
        return table if like is None else table.reindex(index=like.index, columns=like.columns, fill_value=0)
    missing = KEPT_NAME if series[0] == "conversation_id" else UNKNOWN
    named = known.assign(**{series[0]: known[series[0]].astype("str").fillna(missing)})
    table = named.pivot_table(index=period, columns=series[0], values="cost_usd", aggfunc="sum", fill_value=0)
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
