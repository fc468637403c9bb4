"""The connection to an OpenAI-compatible server, by way of the ``openai`` client, and when to retry a request."""

from __future__ import annotations

import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from promptkit_nb.providers.client_environment import check_environment, client_error
from promptkit_nb.providers.openai_errors import ErrorMapper, ErrorResponse, RequestError
from promptkit_nb.secret import Secret, hide_in_logs, without_frames
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from datetime import datetime

    import httpx2
    import openai

    from promptkit_nb.providers.base import ChatRequest

LONGEST_WAIT_S = 60.0
"""If a server asks for a longer wait than this, the error is raised and the user decides."""

_FIRST_WAIT_S = 0.5
_LONGEST_BACKOFF_S = 8.0
_TRANSIENT_STATUSES = frozenset({408, 409, 429})
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed request is sent again, and after which wait.

    >>> RetryPolicy(random=lambda: 0.0).wait_s(1)
    1.0
    """

    max_retries: int = 2
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random

    def wait_s(self, retry: int, retry_after_s: float | None = None) -> float | None:
        """Return the wait in seconds before retry number ``retry`` (from 0), or ``None`` for no further retry.

        ``retry_after_s`` is the wait that the server asked for; it is kept if it is at most a minute. Without it, waits
        double from 0.5 s, each shortened by up to a quarter at random.
        """
        if retry >= self.max_retries:
            return None
        if retry_after_s is not None:
            return retry_after_s if retry_after_s <= LONGEST_WAIT_S else None
        return min(_LONGEST_BACKOFF_S, _FIRST_WAIT_S * 2.0**retry) * (1 - 0.25 * self.random())


def is_transient(status: int) -> bool:
    """Whether a request that failed with this HTTP status may succeed a moment later."""
    return status in _TRANSIENT_STATUSES or status >= _FIRST_SERVER_ERROR


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the wait in seconds that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks for, if any.

    The names in ``headers`` are in lower case. A time in the past is a wait of 0; other text is ignored.

    >>> retry_after_s({"retry-after": "7"})
    7.0
    """
    wait_ms = _seconds(headers.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    value = headers.get("retry-after", "")
    wait_s = _seconds(value)
    return wait_s if wait_s is not None else _seconds_until(value, now or utc_now())


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


_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+\b")
_SAID = re.compile(rf"(?:try again|retry)[\w ]{{0,20}} (?:in|after) ({_DURATION.pattern})", re.IGNORECASE)
_LIMITED = ("requests", "tokens")


def rate_limit_wait_s(headers: Mapping[str, str], message: str) -> float | None:
    """Return the wait in seconds that an answer with HTTP 429 names in other ways than ``retry-after``, if any.

    The message may say it, as OpenAI's does; else it is the longest reset of a limit of which nothing is left.

    >>> rate_limit_wait_s({}, "Rate limit reached. Please try again in 1m0.5s.")
    60.5
    >>> rate_limit_wait_s({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "172ms"}, "Slow down")
    0.172
    """
    if said := _SAID.search(message):
        return _duration_s(said[1])
    used_up = (name for name in _LIMITED if headers.get(f"x-ratelimit-remaining-{name}") == "0")
    resets = [headers.get(f"x-ratelimit-reset-{name}", "") for name in used_up]
    return max((_duration_s(reset) for reset in resets if _DURATION.fullmatch(reset)), default=None)


def _duration_s(text: str) -> float:
    """Return the seconds of a duration as Go writes it, such as ``6m0s``."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[dhms])", text.lower())
    return round(sum(float(number) * _UNITS_S[unit] for number, unit in parts), 6)


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


_NO_KEY = "no-key"  # for servers that need none: the client insists on a key
_LOGGERS = ("httpx2", *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))
_OVERRIDING = frozenset({"authorization", "api-key"})  # the client sets these itself, unless they are given
_LIST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: its base URL, and the parameters and headers of each request.

    ``query`` and ``headers`` are parameters of the URL and headers, by name; both may hold keys.
    """

    base_url: str
    key: Secret
    query: Mapping[str, Secret] = field(default_factory=dict)
    headers: Mapping[str, Secret | str] = field(default_factory=dict)
    other_secrets: tuple[Secret, ...] = ()
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 60

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets, which no output may show."""
        headers = (value for value in self.headers.values() if isinstance(value, Secret))
        return self.key, *self.query.values(), *headers, *self.other_secrets


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A request that got no reply to read.

    ``error`` is what to raise; ``reason`` says in a few words why a retry waits; ``is_transient`` is whether sending
    the request again may help; ``retry_after_s`` is the wait that the server asked for; ``response`` is its error
    response, if it sent one.
    """

    error: RequestError
    reason: str
    is_transient: bool
    retry_after_s: float | None = None
    response: ErrorResponse | None = None


class Connection:
    """A client of one server; threads may share it, processes may not."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Build the client; nothing is sent yet. Raises a ``ProviderError`` if an environment variable prevents it."""
        self.errors = ErrorMapper(endpoint.base_url, endpoint.secrets, endpoint.key_variable)
        self._process_id = os.getpid()
        self._timeout_s = endpoint.timeout_s
        hide_in_logs(endpoint.secrets, _LOGGERS)
        check_environment()
        try:
            self._client = _client_of(endpoint)
        except Exception as error:
            raise client_error(without_frames(error)) from error

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked since: on the inherited sockets it would read its parent's answers."""
        return self._process_id != os.getpid()

    def post(self, path: str, body: bytes, request: ChatRequest) -> httpx2.Response | FailedAttempt:
        """Send a chat request to this path; return the reply, its body not read yet, or the failed attempt."""
        import httpx2  # noqa: PLC0415 - it comes with the client
        import openai  # noqa: PLC0415 - imported already, with the client

        try:
            # With cast_to=Response the client returns the response itself, though its types say Stream.
            reply = self._client.post(
                path,
                cast_to=httpx2.Response,
                content=body,
                stream=True,
                stream_cls=openai.Stream[object],
            )
            return cast("httpx2.Response", reply)
        except openai.APIStatusError as error:
            return self._rejected(error, request)
        except (openai.APITimeoutError, httpx2.TimeoutException) as error:
            return self._timed_out(error)
        except (openai.APIError, httpx2.HTTPError, OSError) as error:
            return self._unreachable(error, is_transient=True)
        except Exception as error:  # noqa: BLE001 - a header or a URL that the client cannot send
            return self._unreachable(error, is_transient=False)

    def models(self) -> list[dict[str, object]]:
        """Return the list from ``GET /models``; raises a ``ProviderError`` if the server does not have one."""
        import openai  # noqa: PLC0415 - imported already, with the client

        try:
            found = self._client.with_options(timeout=_LIST_TIMEOUT_S).get("/models", cast_to=object)
        except openai.APIConnectionError as error:
            raise self.errors.unreachable(_root_cause(error)) from without_frames(error)
        except Exception as error:  # noqa: BLE001 - whatever the server sends instead
            raise self.errors.no_models(_root_cause(error)) from without_frames(error)
        listed = found.get("data", found.get("models")) if isinstance(found, dict) else found
        models = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return [model for model in models if isinstance(model.get("id", model.get("name")), str)]

    def iter_bytes(self, reply: httpx2.Response) -> Iterator[bytes]:
        """Yield the bytes of the reply; raises a ``ProviderError`` if the connection fails meanwhile."""
        import httpx2  # noqa: PLC0415 - it comes with the client

        try:
            hide = self.errors.hider(b"")
            yield from map(hide, reply.iter_bytes())
            yield hide.rest()
        except httpx2.TimeoutException as error:
            raise self.errors.timed_out(self._timeout_s) from without_frames(error)
        except Exception as error:  # noqa: BLE001 - also a reply that cannot be decompressed
            raise self.errors.incomplete() from without_frames(error)

    def _rejected(self, error: openai.APIStatusError, request: ChatRequest) -> FailedAttempt:
        response = self.errors.read(error.response.text, error.status_code)
        wait_s = retry_after_s(error.response.headers)
        if wait_s is None and response.status == 429:  # noqa: PLR2004 (Too Many Requests)
            wait_s = rate_limit_wait_s(error.response.headers, response.message)
        return FailedAttempt(
            self.errors.chained(self.errors.from_response(response, request, retry_after_s=wait_s), error),
            reason=f"{self.errors.host} answered with HTTP {response.status}",
            is_transient=is_transient(response.status) and not (response.is_quota_exhausted or response.is_too_long),
            retry_after_s=wait_s,
            response=response,
        )

    def _timed_out(self, error: Exception) -> FailedAttempt:
        # The user has waited as long as the timeout: no retry.
        reason = f"{self.errors.host} sent nothing for {self._timeout_s:g} s"
        timed_out = self.errors.timed_out(self._timeout_s)
        return FailedAttempt(self.errors.chained(timed_out, error), reason, is_transient=False)

    def _unreachable(self, error: Exception, *, is_transient: bool) -> FailedAttempt:
        reason = f"{self.errors.host} cannot be reached"
        unreachable = self.errors.unreachable(_root_cause(error))
        return FailedAttempt(self.errors.chained(unreachable, error), reason, is_transient=is_transient)


def _client_of(endpoint: Endpoint) -> openai.OpenAI:
    """Return a client without its own retries, which wait silently, even if the quota is used up."""
    import openai  # noqa: PLC0415 - half a second, usually spent in the background already

    headers = {name: value if isinstance(value, str) else value.reveal() for name, value in endpoint.headers.items()}
    overriding = {name: headers.pop(name) for name in endpoint.headers if name.lower() in _OVERRIDING}
    return openai.OpenAI(
        api_key=endpoint.key.reveal() or _NO_KEY,
        base_url=endpoint.base_url,
        timeout=endpoint.timeout_s,
        max_retries=0,
        default_query={name: value.reveal() for name, value in endpoint.query.items()},
        default_headers=overriding,
        http_client=openai.DefaultHttpxClient(headers=headers, timeout=endpoint.timeout_s) if headers else None,
    )


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost cause: the client's own is just "Connection error."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
