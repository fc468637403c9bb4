"""One answer under way, on a thread of its own: whoever waits for a model cannot be interrupted, only left."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.asking.streaming import ResponseStream


class Answering:
    """A question, and as much of its answer as has arrived.

    ``place`` says for the page what it will stand in place of: ``{"instead_of": turn id}`` or ``{"from": position}``.
    """

    def __init__(
        self,
        start: Callable[[Callable[[float, str], None]], ResponseStream],
        ended: Callable[[Answering], None],
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
