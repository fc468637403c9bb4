"""Ctrl-C in a chat cell, told in one line."""

from __future__ import annotations


class StoppedByUser(KeyboardInterrupt):
    """Ctrl-C during an answer: the cell ends, and the cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
