"""The ``openai`` client at work: one post with its retries, and either a reply to read or the reason for none."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from promptkit_nb.providers.openai_errors import Refusal, Refused, body_of
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import httpx2
    import openai

    from promptkit_nb.providers.openai_errors import Endpoint

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


_FORK_WAIT_S = 10.0
_start_lock = threading.Lock()
_is_import_started = False


def start_importing_client() -> None:
    """Import the client in a daemon thread, once per process, so that the first request finds it imported.

    If that fails, the first request imports it again, and raises. A fork waits for the import: the child process would
    inherit import locks that none of its threads releases.
    """
    global _is_import_started  # noqa: PLW0603 - once per process
    import logging  # noqa: F401, PLC0415 - the client needs it, and it must not add fork hooks while a fork waits

    with _start_lock:
        if _is_import_started:
            return
        _is_import_started = True
    thread = threading.Thread(target=_import_client, name="promptkit_nb-openai", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no threads on this platform, or no more of them
        return
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lambda: thread.join(_FORK_WAIT_S))


def _import_client() -> None:
    with suppress(Exception):
        import httpcore2  # noqa: F401, PLC0415 - making a client imports it
        import openai  # noqa: F401, PLC0415 - half a second


_NO_KEY = "no-key"  # for servers that want none: the client refuses to send nothing


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a post brought no reply to read.

    ``error`` is what to raise, ``reason`` a few words for who waits, ``is_passing`` whether sending the same again may
    help, ``asked_wait_s`` the wait that the server asked for, ``refusal`` its words, if it was the server that spoke.
    """

    error: Refused
    reason: str
    is_passing: bool
    asked_wait_s: float | None = None
    refusal: Refusal | None = None


class Connection:
    """A client of one server; safe to share between threads, and not between processes."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        """Build the client; nothing is sent yet."""
        import openai  # noqa: PLC0415 - half a second, and not needed to look at old answers

        self.endpoint = endpoint
        self._process_id = os.getpid()
        self._timeout_s = timeout_s
        self._client = openai.OpenAI(
            api_key=endpoint.key or _NO_KEY,
            base_url=endpoint.base_url,
            timeout=timeout_s,
            max_retries=0,  # its waits are silent, and it sends an exhausted quota again
        )

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked since: on its parent's sockets it would read the parent's answers."""
        return self._process_id != os.getpid()

    def post(self, body: bytes, *, model: str) -> httpx2.Response | Failure:
        """Send a chat request; return the reply with its body still to come, or why there is none."""
        import httpx2  # noqa: PLC0415 - it comes with the client
        import openai  # noqa: PLC0415 - imported already, with the client

        try:
            # Asked for a response the client gives it as it is, though its types say Stream.
            reply = self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=body,
                stream=True,
                stream_cls=openai.Stream[object],
            )
            return cast("httpx2.Response", reply)
        except openai.APIStatusError as error:
            return self._refused(error, model)
        except (openai.APITimeoutError, httpx2.TimeoutException) as error:
            return self._timed_out(error)
        except (openai.APIError, httpx2.HTTPError, OSError) as error:
            return self._unreachable(error)

    def received(self, reply: httpx2.Response) -> Iterator[bytes]:
        """Yield the bytes of the reply; raises a ``ProviderError`` where the connection fails meanwhile."""
        import httpx2  # noqa: PLC0415 - it comes with the client

        try:
            yield from reply.iter_bytes()
        except httpx2.TimeoutException as error:
            raise self.endpoint.timed_out(self._timeout_s) from error
        except (httpx2.HTTPError, OSError) as error:
            raise self.endpoint.cut() from error

    def _refused(self, error: openai.APIStatusError, model: str) -> Failure:
        refusal = Refusal.of_body(body_of(error.response.text), status=error.status_code)
        wait_s = asked_wait_s(error.response.headers)
        return Failure(
            self.endpoint.chained(self.endpoint.refused(refusal, model=model, wait_s=wait_s), error),
            reason=f"{self.endpoint.host} answered with HTTP {refusal.status}",
            is_passing=is_passing(refusal.status) and not (refusal.is_used_up or refusal.is_too_long),
            asked_wait_s=wait_s,
            refusal=refusal,
        )

    def _timed_out(self, error: Exception) -> Failure:
        # Waiting as long as the timeout was enough: it is not sent again.
        reason = f"{self.endpoint.host} was silent for {self._timeout_s:g} s"
        return Failure(self.endpoint.chained(self.endpoint.timed_out(self._timeout_s), error), reason, is_passing=False)

    def _unreachable(self, error: Exception) -> Failure:
        reason = f"{self.endpoint.host} cannot be reached"
        failure = self.endpoint.unreachable(_bottom(error))
        return Failure(self.endpoint.chained(failure, error), reason, is_passing=True)


def _bottom(error: BaseException) -> str:
    """The words of what lies at the bottom: the client itself says just "Connection error."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
