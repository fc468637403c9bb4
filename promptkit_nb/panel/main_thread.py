"""Work for the kernel's main thread, posted by another thread, which waits for its result."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from promptkit_nb.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

Result = TypeVar("Result")

_RESEND_AFTER_S = 0.02

_IN_ANOTHER_THREAD = (
    "The panel's tools run in the main thread, but this kernel's event loop is in another one: ask in a cell, with "
    "%%chat --tools NAMES."
)


class MainThreadCall(Generic[Result]):
    """One piece of work: a callback for the main thread's event loop, and a result for the thread that waits.

    While the work runs, an interrupt of the kernel raises ``KeyboardInterrupt`` in it, as in a cell; Jupyter ignores
    interrupts between cells.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        """Prepare the work, which starts when the main thread calls this object."""
        self._work = work
        self._changing = threading.Lock()
        self._has_begun = False
        self._is_over = threading.Event()
        self._is_interruptible = self._is_interrupted = False
        self._outcome: tuple[Result] | None = None
        self._error: BaseException = KeyboardInterrupt()

    def __call__(self) -> None:
        """Do the work, unless it was stopped before."""
        if threading.current_thread() is not threading.main_thread():  # Stop could not interrupt the work
            self._error = ToolError(_IN_ANOTHER_THREAD)
            self._is_over.set()
            return
        previous = signal.getsignal(signal.SIGINT)
        try:
            signal.signal(signal.SIGINT, self._interrupt)
            with self._changing:
                if self._is_over.is_set():
                    return
                self._has_begun = True
            self._attempt()
        finally:
            with self._changing:  # no interrupt of stop() is on its way now
                try:  # None is a handler that Python cannot set
                    signal.signal(signal.SIGINT, signal.default_int_handler if previous is None else previous)
                finally:
                    self._is_over.set()

    @property
    def has_begun(self) -> bool:
        """Whether the main thread has started the work."""
        return self._has_begun

    def wait(self) -> Result:
        """Wait for the end of the work; return its result, or raise its error, ``KeyboardInterrupt`` if stopped."""
        self._is_over.wait()
        if self._outcome is None:
            raise self._error
        return self._outcome[0]

    def stop(self) -> None:
        """Interrupt the work if it runs; if it has not started, it never will."""
        with self._changing:
            if not self._has_begun:
                self._is_over.set()
            elif not self._is_over.is_set():
                threading.Thread(target=self._keep_interrupting, name="promptkit-stop", daemon=True).start()

    def _attempt(self) -> None:
        try:
            self._is_interruptible = True
            if self._is_interrupted:
                raise KeyboardInterrupt  # noqa: TRY301 - it came a moment too early for the handler to raise it
            self._outcome = (self._work(),)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            self._is_interruptible = False

    def _keep_interrupting(self) -> None:
        """Send the signal until its handler has run: a sleep that begins at the same moment would miss it."""
        while not (self._is_interrupted or self._is_over.wait(_RESEND_AFTER_S)):
            with self._changing:
                if not self._is_over.is_set():
                    _interrupt_main_thread()

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        self._is_interrupted = True
        if self._is_interruptible:
            raise KeyboardInterrupt


def _interrupt_main_thread() -> None:
    """Send the main thread the signal of Ctrl-C, which also ends a sleep, except on Windows."""
    if hasattr(signal, "pthread_kill"):
        ident = threading.main_thread().ident
        assert ident is not None  # noqa: S101 - it has started
        signal.pthread_kill(ident, signal.SIGINT)
    else:
        import _thread  # noqa: PLC0415 - only on Windows

        _thread.interrupt_main()
