"""Cleaning up in the background, round after round, until it is stopped."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class PeriodicCleanup:
    """Calls ``clean`` every so many seconds on a thread of its own; an error is logged, the next round still runs."""

    def __init__(self, clean: Callable[[], object], every_s: float) -> None:
        """Begin; the first round runs at once."""
        self._clean = clean
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="promptkit-cleanup", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until a round that is running has ended; calling it again is fine."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._clean()
            except Exception:
                logger.exception("Cleaning up failed; it will be tried again in %g s.", self._every_s)
            self._stopped.wait(self._every_s)
