"""What all widgets share: their script, their style, and a static output for front ends without widgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
from IPython.display import display

from promptkit_nb.frontend import can_use_widgets

_SHARED = Path(__file__).parent
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def script_of(*files: Path) -> str:
    """Return one script: what all widgets share, then these files."""
    return _joined(_SHARED / "widget.js", *files)


def style_of(*files: Path) -> str:
    """Return one style sheet: the colors that all widgets share, then these files."""
    return _joined(_SHARED / "widget.css", *files)


def _joined(*files: Path) -> str:
    return "\n".join(file.read_text("utf-8") for file in files)


def _subshell_of_the_page(_: object, subshell_id: str | None) -> str | None:
    """Return the subshell that the page named in its message; it reads while a cell or a tool runs."""
    return subshell_id


class NotebookWidget(anywidget.AnyWidget):
    """A widget that leaves a static output below it in the saved notebook; a batch run gets the static output alone."""

    _saved: Any = None  # IPython's DisplayHandle
    output_metadata: dict[str, Any] = {}  # noqa: RUF012 - replaced as a whole
    """The metadata of the output that stays in the saved notebook."""

    def open(self) -> None:
        """Connect to the pages. A batch run has none, and would save the widget's state in the notebook's metadata."""
        if can_use_widgets():
            super().open()
            # ipykernel 7.4 delivers a page's message where the widget last sent from, which may be a busy main thread.
            if hasattr(self.comm, "_reply_subshell_for"):
                self.comm._reply_subshell_for = _subshell_of_the_page  # noqa: SLF001 - ipykernel looks it up by name

    def _static_output(self) -> dict[str, object]:
        """Return the output of a batch run, by MIME type."""
        raise NotImplementedError

    def _saved_output(self) -> dict[str, object]:
        """Return the output that the notebook keeps below the widget."""
        return self._static_output()

    def _view_output(self) -> dict[str, object]:
        return {_WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        view = self._view_output() if can_use_widgets() else {}
        return self._static_output() | view, {}

    def _ipython_display_(self, **_: object) -> None:
        if not can_use_widgets():
            display(self._static_output(), raw=True)  # type: ignore[no-untyped-call]  # IPython has no annotations
            return
        hint = f"{self!r} needs a running kernel: run this cell again to continue."
        display({"text/plain": hint} | self._view_output(), raw=True)  # type: ignore[no-untyped-call]  # as above
        self._saved = display(  # type: ignore[no-untyped-call]  # as above
            self._saved_output(), metadata=self.output_metadata, raw=True, display_id=True
        )
