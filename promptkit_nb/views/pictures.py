"""A figure that shows itself in a notebook, whatever backend is chosen there; this module alone imports matplotlib."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 100
GREY = "#808080"


class Picture(Figure):
    """A figure that pyplot does not know: nothing is shown twice, and no backend or style of the notebook changes."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        FigureCanvasAgg(self).print_figure(file, format="png", dpi=DPI)
        return file.getvalue()

    def png_for_any_theme(self) -> bytes:
        """Return the picture to be seen on white and on black: no ground of its own, words and lines in grey."""
        self.patch.set_alpha(0)
        for axes in self.axes:
            axes.patch.set_alpha(0)
            axes.tick_params(colors=GREY)
            for spine in axes.spines.values():
                spine.set_color(GREY)
        for text in self.findobj(Text):
            text.set(color=GREY)
        return self._repr_png_()


def new_picture() -> Picture:
    """Return an empty picture."""
    return Picture(figsize=(8, 3.5), layout="constrained")
