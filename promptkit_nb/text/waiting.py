"""The status until the first text of an answer: waiting, thinking, or a retry, with its duration."""

from __future__ import annotations

import time

from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import seconds_text


def waiting_words(waited_s: float, thinking_ms: float | None, retry: Retry | None = None) -> str:
    """Return ``waiting 8 s`` or ``thinking 12 s``, or when a retry starts, and why.

    >>> waiting_words(8.2, None), waiting_words(20, 12_300.0)
    ('waiting 8 s', 'thinking 12 s')
    """
    if thinking_ms is not None:
        return f"thinking {thinking_ms / 1000:.0f} s"
    waited = f"waiting {waited_s:.0f} s"
    return waited if retry is None or retry.left_s <= 0 else f"{waited}, {retry.words}"


class Retry:
    """A request that will be sent again after a pause."""

    def __init__(self, pause_s: float, reason: str) -> None:
        """Start the pause."""
        self._at_s = time.monotonic() + pause_s
        self._reason = reason

    @property
    def left_s(self) -> float:
        """The seconds left of the pause; negative after it."""
        return self._at_s - time.monotonic()

    @property
    def words(self) -> str:
        """When the request is sent again, and why."""
        return one_line(f"trying again in {seconds_text(max(0.0, self.left_s))}: {self._reason}")
