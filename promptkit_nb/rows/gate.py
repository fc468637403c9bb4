"""How many requests are under way at once: fewer, and later, if the server says that there are too many."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT_S = 600.0
"""If a server asks for a longer wait, the run stops, and the user decides."""

MOST_LIMITS_IN_A_ROW = 12
_GOOD_ANSWERS_PER_STEP = 20
_FIRST_WAIT_S = 1.0
_LONGEST_BACKOFF_S = 60.0


class Pause(NamedTuple):
    """A wait in seconds, and how many requests may be under way at once before and after it."""

    seconds: float
    before: int
    after: int


class Gate:
    """Lets the requests of a run pass, shared by its workers.

    The first request goes alone, because it may show that none can be answered. If the server limits the rate, all wait
    together, and half as many may be under way at once; one more is allowed after every 20 good answers.

    >>> gate = Gate(8)
    >>> gate.enter(), gate.answered(), gate.allowed
    (1, None, 8)
    >>> _ = gate.limited(gate.enter(), retry_after_s=2.0)
    >>> gate.allowed
    4
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Let at most so many requests be under way at once."""
        self.most = most
        self.allowed = 1
        self.is_stopped = False
        self._clock = clock
        self._turnstile = threading.Condition()
        self._active = 0
        self._tickets = 0
        self._last_before_cut = 0
        self._last_before_end = 0
        self._not_before_s = 0.0
        self._good = 0
        self._limits_in_a_row = 0
        self._has_begun = False

    def enter(self) -> int | None:
        """Wait until a request may be sent, and return its ticket; ``None`` if the run is stopped."""
        with self._turnstile:
            while not self.is_stopped:
                wait_s = self._not_before_s - self._clock()
                if self._active < self.allowed and wait_s <= 0:
                    self._active += 1
                    self._tickets += 1
                    return self._tickets
                self._turnstile.wait(wait_s if wait_s > 0 else None)
            return None

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return self._active

    def answered(self) -> None:
        """Note a good answer."""
        with self._turnstile:
            if not self._has_begun:
                self._has_begun, self.allowed = True, self.most
            self._limits_in_a_row = 0
            self._good += 1
            if self._good % _GOOD_ANSWERS_PER_STEP == 0:
                self.allowed = min(self.allowed + 1, self.most)
            self._end()

    def failed(self) -> None:
        """Note a request that failed for a reason of its own."""
        with self._turnstile:
            self._end()

    def limited(self, ticket: int, retry_after_s: float | None) -> Pause | None:
        """Note that the server limits the rate; return the wait, ``None`` if waiting does not help.

        Requests that were sent before the last cut belong to the same burst: they do not cut again.
        """
        with self._turnstile:
            before = self.allowed
            if ticket > self._last_before_cut:
                self._cut()
                self._limits_in_a_row += 1
            backoff_s = min(_FIRST_WAIT_S * 2.0 ** (self._limits_in_a_row - 1), _LONGEST_BACKOFF_S)
            wait_s = backoff_s if retry_after_s is None else retry_after_s
            self._not_before_s = max(self._not_before_s, self._clock() + wait_s)
            self._end()
            is_hopeless = wait_s > LONGEST_WAIT_S or self._limits_in_a_row > MOST_LIMITS_IN_A_ROW
            return None if is_hopeless else Pause(wait_s, before, self.allowed)

    def short_of_money(self, ticket: int) -> bool:
        """Note that a budget has no room beside what is reserved; return whether it may have once others are done.

        It may have already if a request has ended since this one entered, because that gave its reservation back.
        """
        with self._turnstile:
            may_have_room = self._active > 1 or self._last_before_end >= ticket
            self._cut()
            self._leave()
            return may_have_room

    def pause(self, seconds: float) -> bool:
        """Wait, outside of the gate, before a request is sent again; return false if the run is stopped meanwhile."""
        until_s = self._clock() + seconds
        with self._turnstile:
            while not self.is_stopped and (left_s := until_s - self._clock()) > 0:
                self._turnstile.wait(left_s)
            return not self.is_stopped

    def stop(self) -> None:
        """Let no further request pass."""
        with self._turnstile:
            self.is_stopped = True
            self._turnstile.notify_all()

    def _cut(self) -> None:
        self.allowed = max(1, self.allowed // 2)
        self._last_before_cut = self._tickets
        self._good = 0

    def _end(self) -> None:
        self._last_before_end = self._tickets
        self._leave()

    def _leave(self) -> None:
        self._active -= 1
        self._turnstile.notify_all()
