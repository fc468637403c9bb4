"""A thread that does one job after the other, so that nothing which only they touch has to be locked."""

from __future__ import annotations

import threading
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Job = tuple["Callable[[], None]", Context | None]


class Worker:
    """A daemon thread that begins with the first job; between the jobs it looks around.

    ``patience_s`` tells after how many seconds without a job it looks again, ``None`` if it need not; ``failed`` gets
    what a job or a look raises.
    """

    def __init__(
        self,
        *,
        look: Callable[[], None],
        patience_s: Callable[[], float | None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do nothing yet."""
        self._look = look
        self._patience_s = patience_s
        self._failed = failed
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._context = copy_context()
        self._starting = threading.Lock()
        self.thread: threading.Thread | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no job waits."""
        return self._jobs.empty()

    def post(self, job: Callable[[], None], context: Context | None = None) -> None:
        """Have a job done, from any thread; with a context, it and all that follows is done in that one."""
        self._jobs.put((job, context))
        with self._starting:
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="promptkit-panel", daemon=True)
                self.thread.start()

    def close(self) -> None:
        """End the thread once the jobs that wait are done."""
        self._jobs.put(None)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._patience_s())
            except Empty:
                pass
            else:
                if job is None:
                    return
                work, context = job
                self._context = context or self._context
                self._context.run(self._guarded, work)
            self._context.run(self._guarded, self._look)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave nobody to work
            self._failed(error)
