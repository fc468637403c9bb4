"""The panel's threads: one for its jobs, one for each answer that is being streamed."""

from __future__ import annotations

import threading
import time
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.chat.stream import ResponseStream

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


class AnswerThread:
    """A question, and as much of its answer as has arrived.

    ``place`` says for the page what it will stand in place of: ``{"instead_of": turn id}`` or ``{"from": position}``.
    """

    def __init__(
        self,
        start: Callable[[Callable[[float, str], None]], ResponseStream],
        ended: Callable[[AnswerThread], None],
        *,
        conversation_id: str,
        question: str,
        unsent: str,
        place: dict[str, object],
        view: str,
    ) -> None:
        """Ask nothing yet. ``start`` gets what to call when the provider waits, ``ended`` is called on the thread.

        ``unsent`` is what was typed, to be given back to the ``view`` where that was if there is no answer.
        """
        self.conversation_id = conversation_id
        self.question = question
        self.unsent = unsent
        self.place = place
        self.view = view
        self.stream: ResponseStream | None = None
        self.error: Exception | None = None
        self._start = start
        self._ended = ended
        self._is_stopped = False
        self._waiting = ""
        self._waits_until = 0.0
        self._starting = threading.Lock()

    def begin(self) -> None:
        """Ask."""
        threading.Thread(target=self._run, name="promptkit-answer", daemon=True).start()

    @property
    def text(self) -> str:
        """What has arrived."""
        return "" if self.stream is None else self.stream.text

    @property
    def waiting(self) -> str:
        """What the provider waits for before it tries again, and for how long; empty when it does not."""
        return self._waiting if time.monotonic() < self._waits_until else ""

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing was stored."""
        return self.stream is None or self.stream.response is None

    def stop(self) -> None:
        """Keep what has arrived, and leave the thread to end when the provider lets it; it changes nothing more."""
        with self._starting:
            self._is_stopped = True
            stream = self.stream
        if stream is not None:
            stream.abandon()

    def _run(self) -> None:
        try:
            stream = self._start(self._wait)
            with self._starting:
                if self._is_stopped:
                    return
                self.stream = stream
            for _ in stream:
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the panel shows it
            self.error = error
        finally:
            self._ended(self)

    def _wait(self, seconds: float, reason: str) -> None:
        self._waiting = f"Waiting {seconds:.1f} s: {reason}"
        self._waits_until = time.monotonic() + seconds
