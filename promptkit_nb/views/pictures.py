"""A figure that shows itself in a notebook, whatever backend is chosen there; this module alone imports matplotlib."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100


class Picture(Figure):
    """A figure that pyplot does not know: nothing is shown twice, and no backend or style of the notebook changes."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        FigureCanvasAgg(self).print_figure(file, format="png", dpi=DPI)
        return file.getvalue()
