"""A figure that displays itself in a notebook under any backend; only this module and ``fonts`` import matplotlib."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from promptkit_nb.frontend import is_batch
from promptkit_nb.views.fonts import drawable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    Drawing = Callable[[Axes], object]

DPI = 100
INK = "#4d4d4d"
PAPER = "#ffffff"

# A page in a dark theme turns white paper into black, and keeps the hues.
_STYLE = (
    '<style>:is(body[data-jp-theme-light="false"],.vscode-dark) .promptkit-picture'
    "{filter:invert(.93) hue-rotate(180deg)}</style>"
)


class Picture(Figure):
    """A figure that pyplot does not manage: it is shown once, and changes neither backend nor style of the notebook.

    Its dark text is on white. A page shows it with its title as alternative text, and in a dark theme as light text on
    black. A batch run gives the image alone, whose bytes are not compared.
    """

    @property
    def alternative(self) -> str:
        """The titles of its charts, for those who do not see them."""
        return "; ".join(axes.get_title(loc="left") for axes in self.axes)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        FigureCanvasAgg(self).print_figure(file, format="png", dpi=DPI)
        return file.getvalue()

    def html(self) -> str:
        """Return the picture as HTML."""
        png = b64encode(self._repr_png_()).decode()
        source = f'alt="{escape(self.alternative)}" src="data:image/png;base64,{png}"'
        return f'{_STYLE}<img class="promptkit-picture" {source} style="max-width:100%">'

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        if not is_batch():
            return {"text/plain": self.alternative, "text/html": self.html()}
        return {"text/plain": self.alternative, "image/png": b64encode(self._repr_png_()).decode()}


def picture_of(*drawings: Drawing, size: tuple[float, float]) -> Picture:
    """Return a picture of these drawings, two per row; ``size`` is that of the whole, in inches."""
    picture = Picture(figsize=size, layout="constrained", facecolor=PAPER)
    columns = min(2, len(drawings))
    grid = picture.add_gridspec(-(-len(drawings) // columns), columns)
    for index, draw in enumerate(drawings):
        row, column = divmod(index, columns)
        is_alone = column == 0 and index == len(drawings) - 1
        axes = picture.add_subplot(grid[row, :] if is_alone else grid[row, column])
        draw(axes)
        _plain(axes)
    for text in picture.findobj(Text):
        words, families = drawable(text.get_text(), text.get_fontfamily())
        text.set(color=INK, parse_math=False, text=words, fontfamily=families)
    return picture


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
    axes.tick_params(colors=INK, length=0, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set(color=INK, visible=side == "bottom")
