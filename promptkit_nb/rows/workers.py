"""The threads that ask: each takes the next question, and asks it until it is answered or cannot be."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from promptkit_nb import errors
from promptkit_nb.rendering.responses import Response
from promptkit_nb.rows.gate import Gate
from promptkit_nb.rows.template import RowNotAskedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from promptkit_nb.chat.stream import ResponseStream

MOST_ATTEMPTS = 6
"""How often a question is sent if the server fails, is not reached, or breaks off."""

FAILED_IN_A_ROW = 10
"""After so many failed questions without an answer between them, the run stops."""

_ATTEMPTS_AFTER_A_FAILURE = 2
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0

_OF_THE_ROW = (
    RowNotAskedError,
    errors.SchemaError,
    errors.BadRequestError,
    errors.ContentFilteredError,
    errors.ContextWindowExceededError,
    errors.ProviderTimeoutError,
    errors.ProviderUnavailableError,
)
"""Errors that say nothing about other rows; all others stop the run."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A question was answered."""

    number: int
    response: Response


@dataclass(frozen=True, slots=True)
class Failed:
    """A question cannot be answered now."""

    number: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Paused:
    """The server limits the rate; all workers wait, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """No question can be answered now."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker has ended."""


WorkerEvent = Answered | Failed | Paused | Stopped | Ended


class Workers:
    """Asks questions in threads; what happens is in ``events``.

    They are daemons, so that a process can end although a server does not answer.
    """

    def __init__(self, ask: Callable[[int], ResponseStream], numbers: Iterable[int], count: int) -> None:
        """Start the threads; ``ask`` returns the answer to a question as it will arrive."""
        self.events: SimpleQueue[WorkerEvent] = SimpleQueue()
        self.gate = Gate(count)
        self.count = count
        self._ask = ask
        self._numbers = iter(numbers)
        self._lock = threading.Lock()
        self._streams: set[ResponseStream] = set()
        self._failed_in_a_row = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"promptkit_nb-rows-{at}", daemon=True) for at in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def are_alive(self) -> bool:
        """Whether any worker may still add to ``events``."""
        return any(thread.is_alive() for thread in self._threads)

    def abandon(self) -> None:
        """Stop at once: store what has arrived of the answers under way."""
        self.gate.stop()
        for stream in [*self._streams]:
            stream.abandon()

    def _work(self) -> None:
        try:
            while not self.gate.is_stopped:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                self._answer(number)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that called ask_rows
            self.gate.stop()
            self.events.put(Stopped(error))
        finally:
            self.events.put(Ended())

    def _answer(self, number: int) -> None:
        """Ask one question; raise what stops the run."""
        failures = 0
        while (ticket := self.gate.enter()) is not None:
            try:
                response = self._response_to(number)
            except errors.RateLimitError as error:
                self._wait_for_rate(ticket, error)
            except errors.BudgetExceededError:  # room may come back from what others have reserved
                if not self.gate.short_of_money(ticket):
                    raise
            except _OF_THE_ROW as error:
                self.gate.failed()
                failures += 1
                if self._may_try_again(error, failures):
                    continue
                if not self.gate.is_stopped:
                    self._fail(number, error)
                return
            except BaseException:
                self.gate.stop()
                self.gate.failed()
                raise
            else:
                self.gate.answered()
                self._failed_in_a_row = 0
                self.events.put(Answered(number, response))
                return

    def _fail(self, number: int, error: Exception) -> None:
        """Note a failed question; after several in a row, raise its error, which stops the run."""
        self.events.put(Failed(number, error))
        with self._lock:
            self._failed_in_a_row += 1
            is_hopeless = self._failed_in_a_row >= FAILED_IN_A_ROW
        if is_hopeless:
            raise error

    def _response_to(self, number: int) -> Response:
        stream = self._ask(number)
        self._streams.add(stream)
        try:
            for _ in stream:
                pass
        finally:
            self._streams.discard(stream)
        if stream.response is None:
            raise errors.InvalidArgumentError(
                "The provider ended its stream without a Completion, so the row has no answer; nothing was stored."
            )
        return stream.response

    def _wait_for_rate(self, ticket: int, error: errors.RateLimitError) -> None:
        if error.is_quota_exhausted:
            self.gate.stop()
        pause = self.gate.limited(ticket, error.retry_after_s)
        if error.is_quota_exhausted or pause is None:
            raise error
        self.events.put(Paused(f"429: waiting {pause.seconds:.3g} s, {pause.before} → {pause.after} at once"))

    def _may_try_again(self, error: Exception, failures: int) -> bool:
        """Wait before the next attempt; return whether there is one: only failures of the server may be temporary."""
        most = _ATTEMPTS_AFTER_A_FAILURE if self._failed_in_a_row else MOST_ATTEMPTS
        if not isinstance(error, errors.ProviderUnavailableError) or failures >= most:
            return False
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (failures - 1))
        return self.gate.pause(wait_s * (1 - 0.25 * random.random()))  # noqa: S311 - not for secrets
