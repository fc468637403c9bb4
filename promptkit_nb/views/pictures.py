"""A figure that displays itself in a notebook under any backend; only this module imports matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from matplotlib.axes import Axes

    Drawing = Callable[[Axes], object]

DPI = 100
GRAY = "#7f7f7f"
"""Equally far from white and from the black of dark themes."""


class Picture(Figure):
    """A figure that pyplot does not manage: it is shown once, and changes neither backend nor style of the notebook.

    It is readable on white and on black: its background is transparent, its text and lines are gray.
    """

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        FigureCanvasAgg(self).print_figure(file, format="png", dpi=DPI)
        return file.getvalue()


def picture_of(*drawings: Drawing, size: tuple[float, float]) -> Picture:
    """Return a picture of these drawings, two per row; ``size`` is that of the whole, in inches."""
    picture = Picture(figsize=size, layout="constrained")
    columns = min(2, len(drawings))
    grid = picture.add_gridspec(-(-len(drawings) // columns), columns)
    for index, draw in enumerate(drawings):
        row, column = divmod(index, columns)
        is_alone = column == 0 and index == len(drawings) - 1
        axes = picture.add_subplot(grid[row, :] if is_alone else grid[row, column])
        draw(axes)
        _plain(axes)
    picture.patch.set_alpha(0)
    for text in picture.findobj(Text):
        text.set(color=GRAY, parse_math=False)
    return picture


def label_periods(axes: Axes, zone: tzinfo) -> None:
    """Label the bars with the shortest dates that are unambiguous, in this time zone."""
    locator = AutoDateLocator(tz=zone, minticks=3, maxticks=8)  # type: ignore[no-untyped-call]  # matplotlib's has no types
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]  # as above


def add_legend(axes: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draw the legend next to the chart."""
    legend = axes.legend(
        handles, [f" {name}" for name in names], frameon=False, bbox_to_anchor=(1, 1), loc="upper left"
    )
    legend.set_in_layout(True)


def say_nothing_was_paid(axes: Axes) -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, "nothing was paid", ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _plain(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GRAY)
    for side, spine in axes.spines.items():
        spine.set(color=GRAY, visible=side in ("bottom", "left"))
