"""The picture of where the next dollar goes: how many cents for input, cached input, output, reasoning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from promptkit_nb.text.plain_text import preview
from promptkit_nb.views.plots import COLOURS, NAME_CHARACTERS, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PARTS = {
    "input": "input_usd",
    "cached input": "cached_usd",
    "output": "output_usd",
    "reasoning": "reasoning_usd",
    "prices not known here": "unsplit_usd",
}
_COLOURS = (*COLOURS[:4], COLOURS[-1])
_WHITE_ON = COLOURS[0]

MOST_MODELS = 5
FEWEST_CENTS = 7
"""Fewer leave no room for their number."""


def cents_of(parts: pd.DataFrame) -> list[tuple[str, dict[str, float]]]:
    """Return how the cents of a dollar are spent: for ``all`` first, then by model; those without a cost are left out.

    ``parts`` are those of ``cost_parts_df``.
    """
    dollars = parts[[*PARTS.values()]].fillna(0).to_numpy(float)
    names = [model if isinstance(model, str) else UNKNOWN for model in parts["model"]]
    rows = zip(["all", *names], [dollars.sum(axis=0), *dollars], strict=True)
    return [(name, dict(zip(PARTS, (100 * row / row.sum()).tolist(), strict=True))) for name, row in rows if row.sum()]


def draw_next_dollar(axes: Axes, parts: pd.DataFrame) -> None:
    """Draw a bar of a hundred cents for all, and for each of the dearest models."""
    from promptkit_nb.views.pictures import name_colours, say_nothing_was_paid  # noqa: PLC0415 - matplotlib, an extra

    axes.set_title("Where the next dollar goes", loc="left")
    cents = cents_of(parts)[: 1 + MOST_MODELS]
    if not cents:
        say_nothing_was_paid(axes)
        return
    rows = np.arange(len(cents))
    left = np.zeros(len(cents))
    handles: dict[str, Any] = {}
    for name, colour in zip(PARTS, _COLOURS, strict=True):
        widths = np.array([of_model[name] for _, of_model in cents])
        if widths.any():
            handles[name] = axes.barh(rows, widths, 0.7, left, color=colour, label=name)
            _write_cents(axes, handles[name], "white" if colour == _WHITE_ON else "black")
        left += widths
    axes.set_yticks(rows, [preview(name, NAME_CHARACTERS) for name, _ in cents])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("cents")
    name_colours(axes, [*handles.values()], [*handles])


def _write_cents(axes: Axes, bars: Any, colour: str) -> None:
    from promptkit_nb.views.pictures import KEEPS_COLOUR  # noqa: PLC0415 - as above

    labels = [f"{bar.get_width():.0f}" if bar.get_width() >= FEWEST_CENTS else "" for bar in bars]
    axes.bar_label(bars, labels, label_type="center", color=colour, gid=KEEPS_COLOUR)
