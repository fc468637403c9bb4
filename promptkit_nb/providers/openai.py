"""OpenAI, and every server that speaks its chat format: Azure, Ollama, LM Studio, vLLM, OpenRouter and others.

The ``openai`` client carries keys, proxies and certificates. Encoding, waiting and reading the stream are done beside
it: it would copy a long conversation field by field, wait without a word, and take half an answer for a whole one.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptkit_nb.errors import AuthenticationError, InvalidArgumentError
from promptkit_nb.pricing import check_prices, price_of
from promptkit_nb.providers.base import Retrying, Waiting
from promptkit_nb.providers.openai_answer import Answer
from promptkit_nb.providers.openai_client import Connection, Failure, RetryPolicy, start_importing_client
from promptkit_nb.providers.openai_errors import Endpoint
from promptkit_nb.providers.openai_request import Dialect, encode_request

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

    import httpx2

    from promptkit_nb.pricing import Price
    from promptkit_nb.providers.base import ChatRequest, StreamEvent
    from promptkit_nb.turns import Usage

DEFAULT_MODEL = "gpt-5.4-mini"
"""The model where neither the argument nor ``PROMPTKIT_MODEL`` names one."""

OPENAI_BASE_URL = "https://api.openai.com/v1"

_NEW_LIMIT_HOSTS = ("api.openai.com", ".azure.com")


class OpenAIProvider:
    """Answers from an OpenAI-compatible server.

    ``model``, ``api_key`` and ``base_url`` default to ``PROMPTKIT_MODEL``, ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``,
    then to ``DEFAULT_MODEL`` and OpenAI's own server. ``timeout`` is the longest silence in seconds, ``max_retries``
    how often a request that failed for the moment is sent again, ``prices`` maps model names to dollars per million
    tokens, in and out. Raises ``InvalidArgumentError`` for a value that cannot be; a missing key is an
    ``AuthenticationError`` at the first call only, since looking at old answers needs none.

    >>> from promptkit_nb import OpenAIProvider
    >>> OpenAIProvider("llama3.2", base_url="http://localhost:11434/v1", prices={"llama3.2": (0, 0)})
    OpenAIProvider('llama3.2', base_url='http://localhost:11434/v1')
    """

    name = "openai"

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 60,
        max_retries: int = 2,
        prices: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Check the arguments and start importing the client in the background; nothing is connected yet."""
        _check_text("model", model)
        _check_text("api_key", api_key)
        _check_text("base_url", base_url)
        if model == "":
            raise InvalidArgumentError("model is empty; name a model, or leave it out for the default one.")
        self.model = model or os.environ.get("PROMPTKIT_MODEL") or DEFAULT_MODEL
        self.base_url = _checked_url(
            os.environ.get("OPENAI_BASE_URL") or OPENAI_BASE_URL if base_url is None else base_url
        )
        self.timeout_s = _checked_timeout(timeout)
        self.prices = _checked_prices(prices)
        self.retries = RetryPolicy(_checked_retries(max_retries))
        self._api_key = api_key
        self._dialect = Dialect("max_completion_tokens" if self._host.endswith(_NEW_LIMIT_HOSTS) else "max_tokens")
        self._connected: Connection | None = None
        self._connection_lock = threading.Lock()
        start_importing_client()

    def __repr__(self) -> str:
        """Show what tells two providers apart, and never the key."""
        return f"OpenAIProvider({self.model!r}, base_url={Endpoint(self.base_url).shown_url!r})"

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Send the request and yield the answer as it comes, a ``Completion`` last.

        What fails for the moment is sent again, after a ``Waiting`` and a ``Retrying`` event, unless the answer has
        begun. Closing the iterator drops the connection. Raises a ``ProviderError``, with ``partial`` set where some
        text had arrived.
        """
        connection = self._connection()
        reply = yield from self._opened(connection, request)
        with closing(reply):
            yield from Answer(connection.endpoint, request).events(connection.received(reply))

    def price(self, model: str, usage: Usage, at: datetime) -> Price:
        """Return what the usage costs at that time: by ``prices``, else by the price list."""
        return price_of(model, usage, at=at, prices=self.prices)

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    def _connection(self) -> Connection:
        """Return the one connection of this process, made at its first call."""
        with self._connection_lock:
            if self._connected is None or self._connected.is_inherited:
                self._connected = Connection(Endpoint(self.base_url, self._key()), timeout_s=self.timeout_s)
            return self._connected

    def _key(self) -> str:
        """Return the key, empty where the server is not OpenAI's and none is set."""
        key = (os.environ.get("OPENAI_API_KEY", "") if self._api_key is None else self._api_key).strip()
        if not key and self._host == urlsplit(OPENAI_BASE_URL).hostname:
            raise AuthenticationError(
                "There is no API key for OpenAI. Set OPENAI_API_KEY (or pass api_key=), "
                "or try without one: %chat_setup --provider demo"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise AuthenticationError(
                "The API key holds characters that no key has (blanks, line breaks or letters beyond ASCII). "
                "Copy it again into OPENAI_API_KEY (or api_key=)."
            )
        return key

    def _opened(
        self, connection: Connection, request: ChatRequest
    ) -> Generator[Waiting | Retrying, None, httpx2.Response]:
        """Send the request, again where that may help, and return the reply with its body still to come."""
        retry = 0
        while True:
            dialect = self._dialect
            reply = connection.post(encode_request(request, dialect), model=request.model)
            if not isinstance(reply, Failure):
                return reply
            other_dialect = dialect.after(reply.refusal)
            if other_dialect is not None:
                self._dialect = other_dialect
                continue
            wait_s = self.retries.wait_s(retry, reply.asked_wait_s)
            if not reply.is_passing or wait_s is None:
                raise reply.error
            yield Waiting(wait_s, reply.reason)
            self.retries.sleep(wait_s)
            yield Retrying()
            retry += 1


def _check_text(name: str, value: object) -> None:
    """Raise for what is no text; its value, which may be a key, is not told."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is of type {type(value).__name__}; give text, or leave it out.")


def _checked_url(base_url: str) -> str:
    if "@" in base_url:
        raise InvalidArgumentError("base_url holds a user name or password; pass a key as api_key= instead.")
    try:
        parts = urlsplit(base_url)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        is_whole = False
    if not is_whole:
        raise InvalidArgumentError(f"base_url is {base_url!r}; give a whole URL, such as http://localhost:11434/v1.")
    return base_url


def _checked_timeout(timeout_s: float) -> float:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < math.inf:
        raise InvalidArgumentError(f"timeout is {timeout_s!r}; give seconds, more than 0.")
    return timeout_s


def _checked_retries(max_retries: int) -> int:
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise InvalidArgumentError(f"max_retries is {max_retries!r}; give a whole number, 0 or more.")
    return max_retries


def _checked_prices(prices: Mapping[str, tuple[float, float]] | None) -> dict[str, tuple[float, float]] | None:
    if prices is None:
        return None
    if not isinstance(prices, Mapping):
        raise InvalidArgumentError(f'prices is {prices!r}; give a mapping such as {{"my-model": (0.15, 0.60)}}.')
    check_prices(prices)
    return dict(prices)
