"""The status of a Redis server: its time, and whether it may evict the keys of a store."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import exceptions

from promptkit_nb.errors import StoreUnavailableError

VALID_S = 1.0
"""How long an answer is reused, in seconds: a burst of writes asks once; a changed setting is noticed soon."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's time and settings, and this machine's clocks when they arrived.

    Clocks of machines differ, so only the time since then is measured on this machine, with two clocks. If they
    disagree, one of them was set, or the machine was suspended.
    """

    time: datetime
    maxmemory: int
    policy: str
    monotonic_s: float
    wall_s: float

    @property
    def age_s(self) -> float | None:
        """The age in seconds, or ``None`` if it is unknown or too old to be used."""
        by_monotonic, by_wall = time.monotonic() - self.monotonic_s, time.time() - self.wall_s
        return by_monotonic if 0 <= by_monotonic < VALID_S and abs(by_wall - by_monotonic) < VALID_S else None

    def may_evict(self, *, expiring: bool) -> bool:
        """Return whether keys with or without an expiry may be evicted."""
        evicted = ("allkeys-", "volatile-") if expiring else ("allkeys-",)
        return self.maxmemory > 0 and self.policy.startswith(evicted)


class ServerStatus:
    """The last answer of a server; calls ask it again if the answer is too old."""

    def __init__(self, where: str) -> None:
        """Start without an answer; ``where`` is the server's address, for messages."""
        self._where = where
        self._answer: Answer | None = None
        self._may_ask_for_policy = True

    def now(self, reader: Any) -> datetime:
        """Return the server's time."""
        answer, age_s = self._current(reader)
        return answer.time + timedelta(seconds=age_s)

    def keeps(self, reader: Any, *, expiring: bool) -> bool:
        """Return whether the server keeps keys, with or without an expiry, or is not known to evict them."""
        return not self._current(reader)[0].may_evict(expiring=expiring)

    def check_keeps(self, reader: Any, *, expiring: bool) -> None:
        """Raise ``StoreUnavailableError`` if the server may evict a key that is written, with or without an expiry."""
        answer, _ = self._current(reader)
        if answer.may_evict(expiring=expiring):
            raise StoreUnavailableError(
                f"The Redis server at {self._where} may evict conversations to free memory (maxmemory "
                f"{answer.maxmemory}, maxmemory-policy {answer.policy}), so nothing was stored. Reading, exporting and "
                "deleting work. Change the setting: CONFIG SET maxmemory-policy noeviction"
            )

    def _current(self, reader: Any) -> tuple[Answer, float]:
        answer = self._answer
        age_s = None if answer is None else answer.age_s
        if answer is None or age_s is None:
            answer, age_s = self._asked(reader), 0.0
            self._answer = answer
        return answer, age_s

    def _asked(self, reader: Any) -> Answer:
        maxmemory, policy = self._policy(reader)
        seconds, microseconds = reader.time()
        now = _EPOCH + timedelta(seconds=int(seconds), microseconds=int(microseconds))
        return Answer(now, maxmemory, policy, time.monotonic(), time.time())

    def _policy(self, reader: Any) -> tuple[int, str]:
        """Return ``maxmemory`` and its policy; warn once if they cannot be read."""
        if self._may_ask_for_policy:
            try:
                memory = reader.info("memory")
                return int(memory["maxmemory"]), str(memory["maxmemory_policy"])
            except (exceptions.ResponseError, KeyError, TypeError, ValueError) as error:
                self._may_ask_for_policy = False
                words = "NOPERM" if isinstance(error, exceptions.NoPermissionError) else type(error).__name__
                warnings.warn(
                    f"The memory settings of the Redis server at {self._where} cannot be read ({words}). If it may "
                    "evict keys, conversations can be lost: set maxmemory-policy noeviction, and allow INFO (+info) so "
                    "that this can be checked.",
                    stacklevel=2,
                )
        return 0, ""
