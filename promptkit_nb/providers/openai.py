"""OpenAI, and every server with its chat format: Azure, Ollama, LM Studio, vLLM, OpenRouter and others.

The ``openai`` client handles keys, proxies and certificates. Encoding, retries and parsing are ours: the client would
copy a long conversation field by field, wait without telling anyone, and accept a partial answer as a whole one.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptkit_nb.errors import AuthenticationError, InvalidArgumentError
from promptkit_nb.pricing import Price, check_prices, price_of
from promptkit_nb.providers.base import ChatRequest, Retrying, StreamEvent, Waiting
from promptkit_nb.providers.openai_answer import AnswerParser
from promptkit_nb.providers.openai_client import Connection, FailedAttempt, RetryPolicy, start_importing_client
from promptkit_nb.providers.openai_errors import shown_url
from promptkit_nb.providers.openai_request import RequestFormat, encode_request

if TYPE_CHECKING:
    from datetime import datetime

    import httpx2

    from promptkit_nb.turns import Usage

DEFAULT_MODEL = "gpt-5.4-mini"
"""The model if neither the argument nor ``PROMPTKIT_MODEL`` names one."""

OPENAI_BASE_URL = "https://api.openai.com/v1"

_NEW_LIMIT_HOSTS = ("api.openai.com", ".azure.com")


class OpenAIProvider:
    """Answers from an OpenAI-compatible server.

    ``model``, ``api_key`` and ``base_url`` default to ``PROMPTKIT_MODEL``, ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``,
    then to ``DEFAULT_MODEL`` and OpenAI's own server. ``timeout`` is the longest silence in seconds; ``max_retries``
    is how often a request is sent again after a temporary failure; ``prices`` maps model names to dollars per million
    input and output tokens. Raises ``InvalidArgumentError`` for an invalid value. A missing key raises
    ``AuthenticationError`` at the first call only, since reading stored answers needs no key.

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
            raise InvalidArgumentError("model is empty; give a model's name, or leave it out to use the default.")
        self.model = model or os.environ.get("PROMPTKIT_MODEL") or DEFAULT_MODEL
        self.base_url = _checked_url(
            os.environ.get("OPENAI_BASE_URL") or OPENAI_BASE_URL if base_url is None else base_url
        )
        self.timeout_s = _checked_timeout(timeout)
        self.prices = _checked_prices(prices)
        self.retries = RetryPolicy(_checked_retries(max_retries))
        self._api_key = api_key
        self._format = RequestFormat("max_completion_tokens" if self._host.endswith(_NEW_LIMIT_HOSTS) else "max_tokens")
        self._connection: Connection | None = None
        self._connection_lock = threading.Lock()
        start_importing_client()

    def __repr__(self) -> str:
        """Show model and server, and never the key."""
        return f"OpenAIProvider({self.model!r}, base_url={shown_url(self.base_url)!r})"

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Send the request and yield the answer as it arrives, a ``Completion`` last.

        After a temporary failure the request is sent again, after a ``Waiting`` and a ``Retrying`` event, unless the
        answer has begun. Closing the iterator drops the connection. Raises a ``ProviderError``, with ``partial`` set if
        some text had arrived.
        """
        connection = self._connect()
        reply = yield from self._send(connection, request)
        with closing(reply):
            yield from AnswerParser(connection.errors, request).events(connection.iter_bytes(reply))

    def price(self, model: str, usage: Usage, at: datetime) -> Price:
        """Return what the usage costs at that time, according to ``prices``, else to the price list."""
        return price_of(model, usage, at=at, prices=self.prices)

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    def _connect(self) -> Connection:
        """Return the connection of this process, made at the first call."""
        with self._connection_lock:
            if self._connection is None or self._connection.is_inherited:
                self._connection = Connection(self.base_url, self._key(), timeout_s=self.timeout_s)
            return self._connection

    def _key(self) -> str:
        """Return the key; it may be empty if the server is not OpenAI's."""
        key = (os.environ.get("OPENAI_API_KEY", "") if self._api_key is None else self._api_key).strip()
        if not key and self._host == urlsplit(OPENAI_BASE_URL).hostname:
            raise AuthenticationError(
                "There is no API key for OpenAI. Set OPENAI_API_KEY (or pass api_key=), "
                "or try without one: %chat_setup --provider demo"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise AuthenticationError(
                "The API key contains characters that no key has (spaces, line breaks or letters outside ASCII). "
                "Copy it again into OPENAI_API_KEY (or api_key=)."
            )
        return key

    def _send(
        self, connection: Connection, request: ChatRequest
    ) -> Generator[Waiting | Retrying, None, httpx2.Response]:
        """Send the request, again if that may help, and return the reply, its body not read yet."""
        retry = 0
        while True:
            request_format = self._format
            reply = connection.post(encode_request(request, request_format), model=request.model)
            if not isinstance(reply, FailedAttempt):
                return reply
            adapted = request_format.adapted_to(reply.response)
            if adapted is not None:
                self._format = adapted
                continue
            wait_s = self.retries.wait_s(retry, reply.retry_after_s)
            if not reply.is_transient or wait_s is None:
                raise reply.error
            yield Waiting(wait_s, reply.reason)
            self.retries.sleep(wait_s)
            yield Retrying()
            retry += 1


def _check_text(name: str, value: object) -> None:
    """Raise unless the value is a string or None; the message does not quote it, since it may be a key."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is of type {type(value).__name__}; give a string, or leave it out.")


def _checked_url(base_url: str) -> str:
    if "@" in base_url:
        raise InvalidArgumentError("base_url contains a user name or password; pass a key as api_key= instead.")
    try:
        parts = urlsplit(base_url)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unclosed brackets, or a port that is not a number
        is_complete = False
    if not is_complete:
        raise InvalidArgumentError(f"base_url is {base_url!r}; give a complete URL, such as http://localhost:11434/v1.")
    return base_url


def _checked_timeout(timeout_s: float) -> float:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < math.inf:
        raise InvalidArgumentError(f"timeout is {timeout_s!r}; give a number of seconds above 0.")
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
