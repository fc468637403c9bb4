"""When to try again: what the server asks for, else a growing wait with jitter; never silently, never for long."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

LONGEST_WAIT_S = 60.0
"""A server that asks for more than this is not waited for: the user decides."""

_FIRST_WAIT_S = 0.5
_LONGEST_BACKOFF_S = 8.0
_PASSING_STATUSES = frozenset({408, 409, 429})
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is tried again, and how long it waits before.

    >>> RetryPolicy(random=lambda: 0.0).wait_s(1)
    1.0
    """

    max_retries: int = 2
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random

    def wait_s(self, retry: int, asked_s: float | None = None) -> float | None:
        """Return the wait in seconds before retry number ``retry`` (from 0), ``None`` if there shall be none.

        What the server asked for (``asked_s``) counts, up to a minute; else it doubles from 0.5 s, up to a quarter
        shorter at random.
        """
        if retry >= self.max_retries:
            return None
        if asked_s is not None:
            return asked_s if asked_s <= LONGEST_WAIT_S else None
        return min(_LONGEST_BACKOFF_S, _FIRST_WAIT_S * 2.0**retry) * (1 - 0.25 * self.random())


def is_passing(status: int) -> bool:
    """Whether a refusal with this HTTP status may be gone a moment later."""
    return status in _PASSING_STATUSES or status >= _FIRST_SERVER_ERROR


def asked_wait_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the wait, in seconds, that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks for, if any.

    ``headers`` are read in lower case. A moment in the past is no wait, text that is neither is not a wish.

    >>> asked_wait_s({"retry-after": "7"})
    7.0
    """
    wait_ms = _seconds(headers.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    wish = headers.get("retry-after", "")
    wait_s = _seconds(wish)
    return wait_s if wait_s is not None else _seconds_until(wish, now or utc_now())


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=now.tzinfo)
    return max(0.0, (moment - now).total_seconds())
