"""Hold Ctrl-C back while something is written, so that it is written whole or not at all."""

from __future__ import annotations

import threading
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]  # typeshed leaves it out
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType


class InterruptsHeld:
    """A context in which SIGINT waits; it is delivered at the end of the block. Not reentrant.

    Only the main thread runs signal handlers, so elsewhere there is nothing to hold. A handler that was not set from
    Python cannot be put back, and is left alone. The functions are those behind the module ``signal``, which in Python
    3.11 looks each handler up among its names for numbers, and takes a tenth of an append for that.
    """

    def __enter__(self) -> Self:
        """Begin to hold SIGINT back."""
        self._pending: FrameType | None = None
        self._came = False
        self._former: Callable[[int, FrameType | None], object] | None = None
        if threading.get_ident() == threading.main_thread().ident:
            former = getsignal(SIGINT)
            if callable(former):
                self._former = former
                signal(SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handler back, and deliver what came."""
        if self._former is None:
            return
        signal(SIGINT, self._former)
        if self._came:
            self._former(SIGINT, self._pending)

    def _hold(self, _number: int, frame: FrameType | None) -> None:
        self._came = True
        self._pending = frame
