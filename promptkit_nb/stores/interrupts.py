"""Hold Ctrl-C back while something is written, so that it is written whole or not at all."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class InterruptsHeld:
    """A context in which SIGINT waits; it is delivered at the end of the block. Not reentrant.

    Only the main thread runs signal handlers, so elsewhere there is nothing to hold. A handler that was not set from
    Python cannot be put back, and is left alone.
    """

    def __enter__(self) -> Self:
        """Begin to hold SIGINT back."""
        self._pending: FrameType | None = None
        self._came = False
        self._former = None
        if threading.get_ident() == threading.main_thread().ident:
            former = signal.getsignal(signal.SIGINT)
            if callable(former):
                self._former = former
                signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handler back, and deliver what came."""
        if self._former is None:
            return
        signal.signal(signal.SIGINT, self._former)
        if self._came:
            self._former(signal.SIGINT, self._pending)

    def _hold(self, _number: int, frame: FrameType | None) -> None:
        self._came = True
        self._pending = frame
