"""Time limits of tools, enforced by a signal in the main thread; Python cannot stop functions in other threads."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType


class TimeLimitReached(BaseException):
    """A tool ran longer than its limit."""


def can_limit_time() -> bool:
    """Return whether a function can be stopped: only in the main thread, and not on Windows."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeLimitReached`` in the block after this many seconds; a running timer continues afterwards."""
    if seconds is None or not can_limit_time():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeLimitReached

    former_handler = signal.signal(signal.SIGALRM, stop)
    former_delay_s, former_interval_s = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, former_delay_s, former_interval_s)
        signal.signal(signal.SIGALRM, former_handler)


def run(function: Callable[..., object], arguments: Mapping[str, object]) -> object:
    """Call a function in this thread, and return its result; a coroutine is run in its own event loop."""
    result = function(**arguments)
    return _awaited(result) if inspect.isawaitable(result) else result


def _awaited(awaitable: Any) -> object:
    """Run an awaitable in a separate thread, because a notebook's main thread has a running event loop."""
    outcome: list[object] = []
    raised: list[BaseException] = []

    async def wait() -> object:
        return await awaitable

    def work() -> None:
        try:
            outcome.append(asyncio.run(wait()))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            raised.append(error)

    worker = threading.Thread(target=work, name="promptkit-tool", daemon=True)
    worker.start()
    worker.join()
    if raised:
        raise raised[0]
    return outcome[0]
