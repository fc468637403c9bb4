"""OpenAI, and every server with its chat format: Azure, Ollama, LM Studio, vLLM, OpenRouter and others.

The ``openai`` client handles keys, proxies and certificates. Encoding, retries and parsing are ours: the client would
copy a long conversation field by field, wait without telling anyone, and accept a partial answer as a whole one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from promptkit_nb.errors import (
    AuthenticationError,
    BadRequestError,
    InvalidArgumentError,
    ProviderError,
    ProviderUnavailableError,
)
from promptkit_nb.frontend import chosen_by
from promptkit_nb.plain import plain
from promptkit_nb.pricing import UNKNOWN_COST, CallCost, Price, check_prices, price_of
from promptkit_nb.providers.base import ChatRequest, Completion, Retrying, StreamEvent, Waiting
from promptkit_nb.providers.client_environment import secret_headers
from promptkit_nb.providers.endpoints import (
    DEFAULT_MODEL,
    VENDORS,
    base_url_of,
    checked_headers,
    default_base_url,
    environment_key,
    hidden_headers,
)
from promptkit_nb.providers.openai_answer import AnswerParser
from promptkit_nb.providers.openai_client import (
    Connection,
    Endpoint,
    FailedAttempt,
    RetryPolicy,
    start_importing_client,
)
from promptkit_nb.providers.openai_request import CHAT_PATH, RESPONSES_PATH, RequestFormat, encode_request
from promptkit_nb.secret import Secret
from promptkit_nb.text.near_names import similar_names

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    import httpx2

    from promptkit_nb.turns import Usage

Dialect = Literal["auto", "chat", "responses"]

_NEW_LIMIT_HOSTS = ("api.openai.com", ".azure.com")
_COST_HEADER = "x-litellm-response-cost"
_OUTPUT_WEIGHT = 5  # in most price lists, an output token costs about as much as this many input tokens

_responses_only: set[tuple[str, str, bool]] = set()
"""Models that need ``/v1/responses``: base URL, model, and whether only requests with tools need it."""

_reported_rates: dict[tuple[str, str], Decimal] = {}
"""The highest reported costs, by base URL and model, in dollars per input token."""


class OpenAIProvider:
    """Answers from an OpenAI-compatible server.

    Args:
        model: The default model of calls; if it is not given, ``PROMPTKIT_MODEL``, else ``DEFAULT_MODEL``.
        api_key: The key; by default ``OPENAI_API_KEY``. It never appears in a repr, a traceback, or a pickle; in
            another process, an unpickled provider takes it from the environment.
        base_url: The server; by default ``OPENAI_BASE_URL``, else OpenAI's own.
        timeout: How long to wait for the next byte, in seconds.
        max_retries: How often a request is retried after a temporary failure.
        prices: Your own prices by model name: ``Price(…)``, or dollars per million input and output tokens.
        dialect: ``"chat"`` uses OpenAI's chat completions, ``"responses"`` its ``/v1/responses``, and ``"auto"`` chat
            completions until the server says that a model needs the other one, which is remembered.
        headers: Additional headers of each request; values of headers that carry secrets are hidden like the key.

    Raises ``InvalidArgumentError`` for an invalid value. A missing key raises ``AuthenticationError`` at the first call
    only, since reading stored answers needs no key.

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
        prices: Mapping[str, Price | tuple[float, float]] | None = None,
        dialect: Dialect = "auto",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Check the arguments and start importing the client in the background; nothing is connected yet."""
        key, is_text = Secret.of(api_key), api_key is None or isinstance(api_key, str)
        hidden, is_default = hidden_headers(headers), base_url is None
        address = Secret.of(base_url)
        api_key = headers = base_url = None  # tracebacks may show arguments, and a URL may contain a key
        self.dialect = _checked_dialect(dialect)
        self._set_up("openai", model, Secret(default_base_url("openai")) if is_default else address)
        if not is_text:
            raise InvalidArgumentError("api_key is not text; give a string, or leave it out.")
        self._api_key = key
        self._headers = checked_headers(hidden)
        self.timeout_s = _checked_timeout(timeout)
        self.prices = _checked_prices(prices)
        self.retries = RetryPolicy(_checked_retries(max_retries))
        start_importing_client()

    @classmethod
    def of_vendor(
        cls,
        vendor: str,
        model: str | None = None,
        *,
        base_url: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a provider for a known kind of server, with its base URL and the environment variable of its key.

        ``vendor`` is ``openai``, ``ollama``, ``lmstudio``, ``vllm``, ``llamacpp``, ``openrouter``, ``groq``,
        ``gemini``, ``azure`` or ``anthropic``, and the provider's ``name``; ``options`` are those of the constructor.

        >>> from promptkit_nb import OpenAIProvider
        >>> OpenAIProvider.of_vendor("ollama", "llama3.2")
        OpenAIProvider('llama3.2', base_url='http://localhost:11434/v1')
        """
        if vendor not in VENDORS:
            raise InvalidArgumentError(f"There is no provider {vendor!r}: use one of {', '.join(VENDORS)}.")
        is_default, address = base_url is None, Secret.of(base_url)
        base_url = None  # tracebacks may show arguments, and a URL may contain a key
        made = cls(model, base_url=VENDORS["openai"].base_url, **options)
        made._set_up(vendor, model, Secret(default_base_url(vendor)) if is_default else address)
        return made

    def _set_up(self, vendor: str, model: str | None, address: Secret | None) -> None:
        """Set what depends on the server."""
        if model is not None and not isinstance(model, str):
            raise InvalidArgumentError(f"model is of type {type(model).__name__}; give a string, or leave it out.")
        if address is None:
            raise InvalidArgumentError("base_url is not text; give a string, or leave it out.")
        if model == "":
            raise InvalidArgumentError("model is empty; give a model's name, or leave it out to use the default.")
        self.name = vendor
        default_model = DEFAULT_MODEL if vendor == "openai" else ""
        self.model = str.__str__(model or os.environ.get("PROMPTKIT_MODEL") or default_model)
        read = base_url_of(address)
        self.base_url, self._query, self.repair = read.url, read.query, read.repair
        self._format = RequestFormat(
            "max_completion_tokens" if self._host.endswith(_NEW_LIMIT_HOSTS) else "max_tokens",
            path=RESPONSES_PATH if self.dialect == "responses" else CHAT_PATH,
            may_switch=self.dialect == "auto",
        )
        self._formats: dict[str, RequestFormat] = {}  # the accepted format of each model
        self._tool_formats: dict[str, RequestFormat] = {}  # the same for requests with tools
        self._connection: Connection | None = None
        self._connection_lock = threading.Lock()

    def __repr__(self) -> str:
        """Show model and server, and never the key."""
        return f"OpenAIProvider({self.model!r}, base_url={self.base_url!r})"

    def __getstate__(self) -> dict[str, object]:
        """Return the state for a copy or a pickle: without connections, and in a pickle without the key."""
        return {name: value for name, value in vars(self).items() if name not in {"_connection", "_connection_lock"}}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore the state; after unpickling, the key comes from the environment."""
        vars(self).update(state)
        self._api_key = self._api_key or None
        self._headers = {name: value for name, value in self._headers.items() if value}
        self._connection = None
        self._connection_lock = threading.Lock()

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Send the request and yield the answer as it arrives, a ``Completion`` last.

        After a temporary failure the request is sent again, after a ``Waiting`` and a ``Retrying`` event, unless the
        answer has begun. Closing the iterator drops the connection. Raises a ``ProviderError``, with ``partial`` set if
        some text had arrived.
        """
        if not request.model:
            raise InvalidArgumentError(
                f"No model is chosen for {self.name}: %chat_models lists its models, and %chat_setup --model NAME "
                "chooses one."
            )
        yield from self._answer(self._connect(), request, self._format_for(request))

    def _format_for(self, request: ChatRequest) -> RequestFormat:
        """Return the format that the model accepted before; requests with tools may need another path."""
        plain = self._formats.get(request.model, self._format)
        learned = self._tool_formats.get(request.model, plain) if request.tools else plain
        if learned.may_switch and (self.base_url, request.model, bool(request.tools)) in _responses_only:
            return replace(learned, path=RESPONSES_PATH)
        return learned

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:
        """Return the cost of the usage at that time, by ``prices``, else by the price list.

        Models that run on the user's own machine are not in the list.
        """
        if VENDORS[self.name].is_local and model not in (self.prices or {}):
            return UNKNOWN_COST
        return price_of(model, usage, at=at, prices=self.prices, base_url=self.base_url)

    def expected_usd(self, model: str, usage: Usage) -> Decimal | None:
        """Return an estimated cost, if this server reported the cost of earlier calls with the model."""
        rate = _reported_rates.get((self.base_url, model))
        return None if rate is None else rate * (usage.input_tokens + _OUTPUT_WEIGHT * usage.output_tokens)

    def models(self) -> list[dict[str, object]]:
        """Return the server's descriptions of its models; raises a ``ProviderError`` if it does not list them."""
        return self._connect().models()

    def _noted(self, completion: Completion, request: ChatRequest) -> Completion:
        """Remember the cost of a call, and report a repaired base URL once."""
        usage, cost_usd = completion.usage, completion.cost_usd
        if cost_usd is not None and usage is not None:
            rate = cost_usd / (usage.input_tokens + _OUTPUT_WEIGHT * usage.output_tokens)
            place = self.base_url, request.model
            _reported_rates[place] = max(rate, _reported_rates.get(place, rate))
        if not self.repair:
            return completion
        said, self.repair = f"The {self.repair}.", ""
        return replace(completion, warnings=(*completion.warnings, said))

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    def _connect(self) -> Connection:
        """Return the connection of this process, made at the first call."""
        with self._connection_lock:
            if self._connection is None or self._connection.is_inherited:
                self._connection = Connection(self._endpoint())
            return self._connection

    def _endpoint(self) -> Endpoint:
        """Return the server with its key; the key may be empty if the server needs none."""
        variable = VENDORS[self.name].key_variable
        key = environment_key(self.name) if self._api_key is None else self._api_key
        is_openai = self._host == urlsplit(VENDORS["openai"].base_url).hostname
        if not key and (is_openai if self.name == "openai" else VENDORS[self.name].needs_key):
            raise AuthenticationError(
                f"There is no API key for {'OpenAI' if is_openai else self.name}. Set {variable} (or pass api_key=), "
                "or try without one: %chat_setup --provider demo"
            )
        text = key.reveal  # the method itself, so that no variable holds the key
        if not (text().isascii() and text().isprintable()) or " " in text():
            raise AuthenticationError(
                "The API key contains characters that no key has (spaces, line breaks or letters outside ASCII). "
                f"Copy it again into {variable} (or api_key=)."
            )
        return Endpoint(
            base_url=self.base_url,
            key=key,
            query=self._query,
            headers=self._headers,
            other_secrets=tuple(secret_headers()),
            key_variable=variable,
            timeout_s=self.timeout_s,
        )

    def _answer(
        self, connection: Connection, request: ChatRequest, request_format: RequestFormat
    ) -> Generator[StreamEvent, None, None]:
        """Send the request and yield the answer. If the stream is empty, send it once more without streaming."""
        reply, request_format = yield from self._send(connection, request, request_format)
        kind = _parser_of(request_format)
        parser = kind(connection.errors, request, header_cost=reply.headers.get(_COST_HEADER))
        with closing(reply):
            try:
                for event in parser.events(connection.iter_bytes(reply)):
                    yield self._learned(event, request, request_format) if isinstance(event, Completion) else event
            except ProviderUnavailableError:
                if not (parser.is_empty and request_format.is_streamed):
                    raise
        if parser.is_empty:
            yield from self._answer(connection, request, request_format.without_stream())

    def _learned(self, completion: Completion, request: ChatRequest, request_format: RequestFormat) -> Completion:
        """Remember the format that the model accepted, and report once if it has no system role."""
        completion = self._noted(completion, request)
        previous = self._format_for(request)
        formats = self._tool_formats if request.tools else self._formats
        formats[request.model] = request_format
        if request_format.path != self._format.path:
            _responses_only.add((self.base_url, request.model, bool(request.tools)))
        if request_format.has_system_role or not previous.has_system_role:
            return completion
        said = f"{request.model} has no system role: the system prompt is sent with the first user message."
        return replace(completion, warnings=(*completion.warnings, said))

    def _send(
        self, connection: Connection, request: ChatRequest, request_format: RequestFormat
    ) -> Generator[Waiting | Retrying, None, tuple[httpx2.Response, RequestFormat]]:
        """Send the request, with retries; return the reply, before its body is read, and the accepted format."""
        retry = 0
        while True:
            encode = _encoder_of(request_format)
            reply = connection.post(request_format.path, encode(request, request_format), request)
            if not isinstance(reply, FailedAttempt):
                return reply, request_format
            adapted = request_format.adapted_to(reply.response, is_typed=request.answer_schema is not None)
            if adapted is not None:
                request_format = adapted
                continue
            wait_s = self.retries.wait_s(retry, reply.retry_after_s)
            if not reply.is_transient or wait_s is None:
                raise self._with_near_models(reply, connection, request)
            yield Waiting(wait_s, reply.reason)
            self.retries.sleep(wait_s)
            yield Retrying()
            retry += 1

    def _with_near_models(self, failed: FailedAttempt, connection: Connection, request: ChatRequest) -> Exception:
        """Return the error; if the model is unknown, with near matches among the models of the server."""
        response = failed.response
        if response is None or not response.is_model_unknown or not isinstance(failed.error, BadRequestError):
            return failed.error
        offered: list[str] = []
        with suppress(ProviderError):
            offered = [str(model.get("id", model.get("name"))) for model in connection.models()]
        near = similar_names(request.model, offered)
        if not near:
            return failed.error
        error = BadRequestError(f"{failed.error} Did you mean {' or '.join(map(repr, near))}?{chosen_by(near[0])}")
        error.__cause__ = failed.error.__cause__
        return error


def _parser_of(request_format: RequestFormat) -> type[AnswerParser]:
    if request_format.path == CHAT_PATH:
        return AnswerParser
    from promptkit_nb.providers.responses_answer import ResponsesParser  # noqa: PLC0415 - imported when used

    return ResponsesParser


def _encoder_of(request_format: RequestFormat) -> Callable[[ChatRequest, RequestFormat], bytes]:
    if request_format.path == CHAT_PATH:
        return encode_request
    from promptkit_nb.providers.responses_request import encode_responses_request  # noqa: PLC0415 - as above

    return encode_responses_request


def _checked_timeout(timeout_s: float) -> float:
    timeout_s = plain(timeout_s)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < inf:
        raise InvalidArgumentError(f"timeout is {timeout_s!r}; give a number of seconds above 0.")
    return timeout_s


def _checked_retries(max_retries: int) -> int:
    max_retries = plain(max_retries)
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise InvalidArgumentError(f"max_retries is {max_retries!r}; give a whole number, 0 or more.")
    return max_retries


def _checked_prices(prices: Mapping[str, Price | tuple[float, float]] | None) -> dict[str, Price] | None:
    if prices is None:
        return None
    if not isinstance(prices, Mapping):
        raise InvalidArgumentError(f'prices is {prices!r:.80}; give a mapping such as {{"my-model": (0.15, 0.60)}}.')
    return check_prices(prices)


def _checked_dialect(dialect: Dialect) -> Dialect:
    if dialect not in get_args(Dialect):
        raise InvalidArgumentError(f'dialect={dialect!r:.40} is unknown: use "auto", "chat" or "responses".')
    return dialect
