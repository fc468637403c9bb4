"""The panel's threads: one that runs its commands, and one for each answer that streams."""

from __future__ import annotations

import threading
import time
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from promptkit_nb.frontend import TYPED_IN
from promptkit_nb.text.waiting import Retry, waiting_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.panel.panel_tools import PanelToolHost
    from promptkit_nb.turns import Turn

Job = tuple["Callable[[], None]", Context | None]


class Worker:
    """A daemon thread that starts with the first job, runs jobs in order, and polls after each and between them.

    ``poll_interval_s`` returns the seconds to wait for a job before polling, or None to wait without polling.
    ``on_error`` receives what a job or a poll raises.
    """

    def __init__(
        self,
        *,
        poll: Callable[[], None],
        poll_interval_s: Callable[[], float | None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Prepare the worker; the thread does not run yet."""
        self._poll = poll
        self._poll_interval_s = poll_interval_s
        self._on_error = on_error
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._context = copy_context()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, job: Callable[[], None], context: Context | None = None) -> None:
        """Queue a job, from any thread. A context is used for this job and all later ones without their own."""
        self._jobs.put((job, context))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="promptkit-panel", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread after the queued jobs."""
        self._jobs.put(None)

    def _run(self) -> None:
        while True:
            try:
                queued = self._jobs.get(timeout=self._poll_interval_s())
            except Empty:
                pass
            else:
                if queued is None:
                    return
                job, context = queued
                self._context = context or self._context
                self._context.run(self._call, job)
            self._context.run(self._call, self._poll)

    def _call(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - an error must not end the thread
            self._on_error(error)


class AnswerThread:
    """A question, and as much of its answer as has arrived.

    ``replaces`` tells the page which turns the answer replaces: ``{"replaces_turn": turn id}`` or
    ``{"replaces_from": position}``, or nothing.
    """

    def __init__(
        self,
        stream: Callable[[Callable[[float, str], None]], ResponseStream],
        on_end: Callable[[AnswerThread], None],
        *,
        conversation_id: str,
        question: str,
        unsent: str,
        replaces: dict[str, object],
        page: str,
        tools: PanelToolHost | None = None,
    ) -> None:
        """Prepare the call; nothing is sent yet.

        ``stream`` starts the call and is given the callback for waits; ``on_end`` is called on the thread. If nothing
        is stored, ``unsent``, the text that was typed, goes back to ``page``. ``tools`` runs the tools, if any.
        """
        self.conversation_id = conversation_id
        self.question = question
        self.unsent = unsent
        self.replaces = replaces
        self.page = page
        self.tools = tools
        self.error: Exception | None = None
        self.is_interrupted = False
        self._start_stream = stream
        self._on_end = on_end
        self._stream: ResponseStream | None = None
        self._is_stopped = False
        self._since_s = time.monotonic()
        self._retry: Retry | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Send the question."""
        threading.Thread(target=self._run, name="promptkit-answer", daemon=True).start()

    @property
    def text(self) -> str:
        """The text so far."""
        return "" if self._stream is None else self._stream.text

    @property
    def reasoning(self) -> str:
        """The model's thinking so far."""
        return "" if self._stream is None else self._stream.reasoning

    @property
    def thinking_ms(self) -> float | None:
        """How long the model has been thinking, or thought before its text; ``None`` if it does not show thinking."""
        return None if self._stream is None else self._stream.thinking_ms

    @property
    def waiting(self) -> str:
        """The status until the first text, with its duration; empty in the first second, and after the first text.

        While tools run, it is theirs.
        """
        if self.tools is not None and (status := self.tools.status):
            return status
        waited_s = time.monotonic() - self._since_s
        if self.text or (waited_s < 1 and self._retry is None):
            return ""
        words = waiting_words(waited_s, self.thinking_ms, self._retry)
        return words[:1].upper() + words[1:]

    @property
    def calls_html(self) -> str:
        """The tool calls so far, a line each."""
        return "" if self.tools is None else "".join([*self.tools.html.values()])

    @property
    def question_id(self) -> str:
        """The id of the question whether a tool may run, if one is asked."""
        return "" if self.tools is None else self.tools.question.get("id", "")

    @property
    def is_stored(self) -> bool:
        """Whether the answer was stored."""
        return self._stream is not None and self._stream.response is not None

    @property
    def turn(self) -> Turn | None:
        """The turn that was stored."""
        return None if self._stream is None or self._stream.response is None else self._stream.response.turn

    def stop(self) -> None:
        """Store the text so far. The thread ends when the provider returns, and changes nothing after that."""
        with self._starting:
            self._is_stopped = True
            stream = self._stream
        if stream is not None:
            stream.abandon()
        if self.tools is not None:
            self.tools.stop()

    def _run(self) -> None:
        TYPED_IN.set("panel")
        try:
            stream = self._start_stream(self._wait)
            with self._starting:
                if self._is_stopped:
                    return
                self._stream = stream
            for _ in stream:
                pass
        except KeyboardInterrupt:  # the kernel was interrupted while a tool ran
            self.is_interrupted = True
        except Exception as error:  # noqa: BLE001 - the panel shows any error
            self.error = error
        finally:
            self._on_end(self)

    def _wait(self, seconds: float, reason: str) -> None:
        self._retry = Retry(seconds, reason)
