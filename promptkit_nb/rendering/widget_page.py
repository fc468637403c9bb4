"""The script and the style of a widget's page: what all widgets share, then its own, put together from plain files."""

from __future__ import annotations

from pathlib import Path

_SHARED = Path(__file__).parent


def script_of(*files: Path) -> str:
    """Return one script of these files, behind what the pages of all widgets begin with."""
    return _joined(_SHARED / "widget.js", *files)


def style_of(*files: Path) -> str:
    """Return one style sheet of these files, behind the colours that all widgets have."""
    return _joined(_SHARED / "widget.css", *files)


def _joined(*files: Path) -> str:
    return "\n".join(file.read_text("utf-8") for file in files)
