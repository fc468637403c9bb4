"""Errors of OpenAI-compatible servers and of the network, mapped to ours.

Servers quote the key they reject. So their messages are redacted before they are shortened, and a cause that quotes the
key is not chained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, AnyStr
from urllib.parse import urlsplit

from promptkit_nb import errors
from promptkit_nb.endings import ending_of
from promptkit_nb.frontend import typed
from promptkit_nb.providers.client_environment import proxy_for
from promptkit_nb.secret import Secret, StreamHider, without_frames
from promptkit_nb.text.plain_text import preview, without_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.providers.base import ChatRequest

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size|limit)|maximum (?:context|prompt|model) length|context the overflows|n_keep"
    r"|model token limit"
    r"|too many tokens|prompt(?: is)? too long|input token count|input tokens exceed"
    r"|maximum number of tokens allowed|max_new_tokens`? must be <="
    r"|reduce the length of the (?:messages|prompt|input)|request too large for model",
    re.IGNORECASE,
)
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})

# From certain to merely likely; the first match of each list is used.
_LIMITS = (
    r"\+ [0-9,]+ > ([0-9][0-9,]*)",
    r"(?:maximum|context|configured) (?:\w+ )?(?:length|limit|window|size)\D{0,16}?([0-9][0-9,]*)",
    r"(?:allowed|<=|n_ctx|token limit)\D{0,16}?([0-9][0-9,]*)",
    r"\bLimit ([0-9][0-9,]*)",
    r"([0-9][0-9,]*) maximum context length",
    r"> ?([0-9][0-9,]*)",
)
_REQUESTS = (
    r"(?:contains|has)(?: at least)? ([0-9][0-9,]*)(?: input)? tokens",
    r"requested(?: about| tokens|:)? \(?([0-9][0-9,]*)\b(?! output)",
    r"(?:resulted in|too long:|keep the first) ([0-9][0-9,]*)",
    r"(?:request|token count|n_keep|prompt) \((?:length )?([0-9][0-9,]*)",
    r"n_prompt_tokens ([0-9][0-9,]*)",
    r"limit: ([0-9][0-9,]*) \+",
    r"Given: ([0-9][0-9,]*)",
)

_MESSAGE_LENGTH = 300
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|title)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]*\S[^<]*)</title>", re.IGNORECASE)
_TLS_MIXED_UP = re.compile(
    r"wrong.version.number|record layer failure|plain HTTP request was sent to HTTPS|HTTP request to an HTTPS server"
    r"|illegal (?:request|status) line",  # a TLS alert, read as HTTP
    re.IGNORECASE,
)
_MODEL_UNKNOWN = re.compile(
    r"model\b.{0,120}(?:not found|not exist|unknown|not available|invalid|not a valid|no such)"
    r"|(?:no such|unknown|invalid|not a valid) model|no models? (?:is |are )?loaded",
    re.IGNORECASE | re.DOTALL,
)
_KEY_REFUSED = re.compile(
    r"api.key (?:not valid|is invalid|expired)|(?:incorrect|invalid|no valid) api.key", re.IGNORECASE
)
_NO_MONEY = re.compile(
    r"(?:balance|credits?) (?:is |are )?(?:too low|insufficient)|insufficient (?:account )?(?:balance|credit|fund)"
    r"|(?:budget|credits?) (?:has|have) been (?:exceeded|used)|more credits",
    re.IGNORECASE,
)
_VERSION_PATH = re.compile(r"/v\d")
_LIMIT_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_CODE_FIELDS = ("code", "type", "status_code")
_MESSAGE_FIELDS = ("message", "detail", "error", "status_msg", "msg", "error_msg", "errors")
_NO_TOOLS = re.compile(r"\btools?\b[^.]{0,40}\bnot supported|(?:not|n't) support[^.]{0,20}\btools?\b", re.IGNORECASE)
_LLAMA_CPP_COUNTS = ("n_prompt_tokens", "n_ctx")  # fields next to its message
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "timeout": 408,
}

RequestError = errors.ProviderError | errors.ContextWindowExceededError


def exceeds_context_window(code: str, message: str) -> bool:
    """Return whether an error says that the request does not fit the model's context window.

    >>> exceeds_context_window("", "the request exceeds the available context size")
    True
    """
    return code in _TOO_LONG_CODES or bool(_TOO_LONG.search(message))


def token_counts_in(message: str) -> tuple[int | None, int | None]:
    """Return the context window and the size of the request, in tokens; ``None`` if the message does not say.

    >>> token_counts_in("request (5000 tokens) exceeds the available context size (4096 tokens)")
    (4096, 5000)
    """
    return _first_number(_LIMITS, message), _first_number(_REQUESTS, message)


def _first_number(patterns: tuple[str, ...], message: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, message, re.IGNORECASE):
            return int(found[1].replace(",", ""))
    return None


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error as the server sent it; ``code`` is its ``code``, else its ``type``, else empty."""

    status: int
    message: str
    code: str = ""
    parameter: str = ""
    is_json: bool = True

    @property
    def is_quota_exhausted(self) -> bool:
        """Whether the quota is used up, so that waiting does not help."""
        is_said = self.status in {400, 403, 429} and bool(_NO_MONEY.search(self.message))
        return is_said or self.code in _QUOTA_CODES or self.status == 402  # noqa: PLR2004 (Payment Required)

    @property
    def is_too_long(self) -> bool:
        """Whether the request does not fit the model's context window."""
        return self.status not in {401, 402, 403, 429} and exceeds_context_window(self.code, self.message)

    @property
    def is_key_refused(self) -> bool:
        """Whether the key is wrong, or may not use the model; some servers answer HTTP 400 for that."""
        return self.status in {401, 403} or (self.status == 400 and bool(_KEY_REFUSED.search(self.message)))  # noqa: PLR2004 (Bad Request)

    @property
    def is_model_unknown(self) -> bool:
        """Whether the server does not know the model."""
        return self.code == "model_not_found" or (
            self.status in {400, 404} and bool(_MODEL_UNKNOWN.search(self.message))
        )

    @classmethod
    def from_body(cls, body: object, *, status: int | None = None) -> ErrorResponse:
        """Read any of the common formats: OpenAI's, Gemini's in a list, vLLM's, FastAPI's, MiniMax's, plain text.

        An error of a gateway (OpenRouter) includes the vendor's message.

        Without an HTTP status (an error in the middle of a stream) the status follows from the error's code, else it is
        500.

        >>> ErrorResponse.from_body({"error": {"message": "No such key", "code": "invalid_api_key"}})
        ErrorResponse(status=401, message='No such key', code='invalid_api_key', parameter='', is_json=True)
        """
        if isinstance(body, list) and len(body) == 1:
            (body,) = body
        error = (body.get("error") or body.get("base_resp") or body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return cls(status or 500, _as_text(error), is_json=isinstance(body, dict))
        codes = [str(error[name]) for name in _CODE_FIELDS if error.get(name) not in (None, "")]
        message = _as_text(next((error[name] for name in _MESSAGE_FIELDS if error.get(name)), error))
        metadata = error.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
            message += f" ({metadata['raw']})"
        message += "".join(f", {name} {error[name]}" for name in _LLAMA_CPP_COUNTS if isinstance(error.get(name), int))
        known = next((_STATUS_OF_CODE[code] for code in codes if code in _STATUS_OF_CODE), None)
        numeric = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
        quota_code = next((code for code in codes if code in _QUOTA_CODES), None)
        code = quota_code or (codes[0] if codes else "")
        return cls(status or known or numeric or 500, message, code, str(error.get("param") or ""))


@dataclass(frozen=True, slots=True)
class ErrorMapper:
    """Maps the errors of one server to ours; neither its ``repr`` nor any error shows a secret."""

    base_url: str
    secrets: tuple[Secret, ...] = ()
    key_variable: str = "OPENAI_API_KEY"

    @property
    def host(self) -> str:
        """The host, with the port if the URL has one."""
        return urlsplit(self.base_url).netloc

    def redact(self, text: str) -> str:
        """Return the text without the secrets, or anything that looks like a key."""
        for secret in self.secrets:
            text = secret.hidden_in(text)
        return without_keys(text)

    def hider(self, empty: AnyStr) -> StreamHider[AnyStr]:
        """Return a ``StreamHider`` for the secrets."""
        return StreamHider(self.secrets, empty)

    def quote(self, text: str, length: int = _MESSAGE_LENGTH) -> str:
        """Return a server's text on one line, redacted and shortened; an HTML page is reduced to its title."""
        title = _TITLE.search(text) if _HTML.match(text) else None
        return preview(self.redact(f"the page {title[1].strip()!r}" if title else text), length)

    def read(self, body: str, status: int) -> ErrorResponse:
        """Return an error response, redacted."""
        return ErrorResponse.from_body(json_or_text(self.redact(body)), status=status)

    def from_response(
        self, response: ErrorResponse, request: ChatRequest, *, retry_after_s: float | None = None, partial: str = ""
    ) -> RequestError:
        """Return the error for a server's error response; ``retry_after_s`` is the wait it asked for."""
        message = self.quote(response.message).rstrip(".") or "no explanation"
        said = f"{self.host} answered with HTTP {response.status}: {message}{'' if message[-1] in '?!…' else '.'}"
        if response.is_too_long:
            limit, requested = token_counts_in(response.message)
            return errors.ContextWindowExceededError(
                f"{said} {_too_long_remedy(request)}", limit_tokens=limit, request_tokens=requested, partial=partial
            )
        proxy = self._refusing_proxy(response)
        if proxy is not None:
            return errors.ProviderUnavailableError(f"{said} {proxy}", partial=partial)
        kind, remedy = self._kind_and_remedy(response, request, retry_after_s)
        error = kind(f"{said} {remedy}{self._hint(response)}", partial=partial)
        if isinstance(error, errors.RateLimitError):
            error.retry_after_s = retry_after_s
            error.is_quota_exhausted = response.is_quota_exhausted
        return error

    def unreadable(self, received: str, *, partial: str = "") -> errors.ProviderError:
        """Return the error for a reply that is not a chat answer."""
        beginning = self.quote(received, 80)
        what = repr(beginning) if beginning else "an empty reply"
        return errors.ProviderUnavailableError(
            f"{self.host} sent {what} instead of a chat answer. Check base_url ({self.base_url}): it usually ends in "
            "/v1.",
            partial=partial,
        )

    def incomplete(self, *, partial: str = "") -> errors.ProviderError:
        """Return the error for an answer that stopped before its end."""
        return errors.ProviderUnavailableError(
            f"The answer from {self.host} stopped before its end. Send the message again; the text that arrived is in "
            ".partial.",
            partial=partial,
        )

    def timed_out(self, timeout_s: float) -> errors.ProviderError:
        """Return the error for a silence longer than the timeout."""
        return errors.ProviderTimeoutError(
            f"{self.host} sent nothing for {timeout_s:g} s. Try again, or wait longer: %chat_setup --timeout 600, or "
            "timeout= in Python."
        )

    def unreachable(self, reason: str) -> errors.ProviderError:
        """Return the error for a connection that failed."""
        proxy = proxy_for(self.base_url)
        if proxy is not None:
            name, address = proxy
            remedy = f"The request uses the proxy {address} from {name}: correct it, or set NO_PROXY={self.host}."
        elif _TLS_MIXED_UP.search(reason):
            remedy = f"Check whether base_url ({self.base_url}) begins with {_other_scheme(self.base_url)} instead."
        else:
            remedy = f"Check the network and base_url ({self.base_url})."
        return errors.ProviderUnavailableError(f"{self.host} cannot be reached ({self.quote(reason)}). {remedy}")

    def no_models(self, reason: str) -> errors.ProviderError:
        """Return the error for a server that does not list its models."""
        return errors.ProviderUnavailableError(
            f"{self.host} does not list its models ({self.quote(reason, 120)}). Its documentation names them; choose "
            "one with %chat_setup --model NAME."
        )

    def chained(self, error: RequestError, cause: BaseException) -> RequestError:
        """Return the error with its cause, unless that or one of its own causes quotes a secret."""
        link: BaseException | None = cause
        while link is not None:
            shown = f"{link!s} {link!r} {vars(link)!r}"
            if self.redact(shown) != shown:
                return error
            link = link.__cause__ or link.__context__
        error.__cause__ = without_frames(cause)
        return error

    def _kind_and_remedy(  # noqa: PLR0911 - one line for each kind
        self, response: ErrorResponse, request: ChatRequest, retry_after_s: float | None
    ) -> tuple[type[errors.ProviderError], str]:
        status = response.status
        if status not in {401, 429} and ending_of(response.code) == "filtered":
            return errors.ContentFilteredError, "The provider's filter refused it. Rephrase the message."
        if response.is_quota_exhausted:
            return (
                errors.RateLimitError,
                "The quota is used up, so waiting does not help: see the provider's billing page.",
            )
        if response.is_key_refused:
            remedy = f"Check {self.key_variable} (or api_key=), and that the key may use this model."
            return errors.AuthenticationError, remedy
        if status == 429:  # noqa: PLR2004 (Too Many Requests)
            return errors.RateLimitError, _try_again(retry_after_s)
        if status == 408:  # noqa: PLR2004 (Request Timeout)
            return errors.ProviderTimeoutError, "Try again."
        if status >= 500 or status < 400:  # noqa: PLR2004 (the HTTP classes)
            return errors.ProviderUnavailableError, _try_again(retry_after_s)
        return errors.BadRequestError, _remedy(response, request)

    def _refusing_proxy(self, response: ErrorResponse) -> str | None:
        """Return the remedy if a proxy refused the request: with status 407, or 403 if the body is not JSON."""
        is_407 = response.status == 407  # noqa: PLR2004 (Proxy Authentication Required)
        proxy = proxy_for(self.base_url)
        if not is_407 and not (proxy and response.status == 403 and not response.is_json):  # noqa: PLR2004 (Forbidden)
            return None
        which = f"the proxy {proxy[1]} of {proxy[0]}" if proxy else "a proxy"
        return (
            f"This answer came from {which}, not from the server: correct HTTP_PROXY and HTTPS_PROXY, or set "
            f"NO_PROXY={self.host}."
        )

    def _hint(self, response: ErrorResponse) -> str:
        if _TLS_MIXED_UP.search(response.message):
            return f" base_url ({self.base_url}) may have to begin with {_other_scheme(self.base_url)}."
        if response.status == 404 and not _VERSION_PATH.search(urlsplit(self.base_url).path):  # noqa: PLR2004
            return f" base_url ({self.base_url}) does not end in /v1, as most do."
        return ""


def _too_long_remedy(request: ChatRequest) -> str:
    if any(message.role == "assistant" for message in request.messages):
        return (
            f"It is too long for {request.model!r}: set {typed('max_tokens')}, or shorten it with "
            f"{typed('truncate()')} or {typed('summarize()')}."
        )
    return (
        f"This message alone is too long for {request.model!r}, so {typed('truncate()')} and {typed('summarize()')} "
        "cannot help: send less, or choose a model with a larger window."
    )


def _other_scheme(base_url: str) -> str:
    return "https://" if base_url.lower().startswith("http:") else "http://"


def json_or_text(text: str) -> object:
    """Return the JSON value of a reply, or its text if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def is_error(chunk: Mapping[str, object]) -> bool:
    """Whether a chunk of a stream is an error: ``{"error": …}``, ``{"object": "error", …}`` (vLLM), and the like.

    >>> is_error({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}), is_error({"choices": []})
    (True, False)
    """
    if chunk.get("error") or "error" in (chunk.get("object"), chunk.get("type"), chunk.get("status")):
        return True
    base_resp = chunk.get("base_resp")
    if isinstance(base_resp, dict) and base_resp.get("status_code"):
        return True
    is_failure = str(chunk.get("code") or 0) not in {"0", "200"}
    return "choices" not in chunk and any(
        chunk.get(name) and (is_failure or name not in {"message", "msg"}) for name in _MESSAGE_FIELDS
    )


def _remedy(response: ErrorResponse, request: ChatRequest) -> str:
    """Return what to change in a request: the model, or the parameter that the error names or may mean."""
    is_not_found = response.status == 404  # noqa: PLR2004 (Not Found)
    said = f"{response.message} {response.parameter}"
    named = [name for name in request.parameters if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)]
    if not is_not_found and any(name in said for name in _LIMIT_NAMES):
        return "Lower or remove the output limit: --max-output-tokens N, or max_output_tokens= in Python."
    if not is_not_found and named:
        option = " (in a cell: leave out -t)" if named[0] == "temperature" else ""
        return f"Remove {named[0]!r} from parameters={{…}} and from the pack{option}."
    if is_not_found or response.is_model_unknown:
        return f"Check the model's name ({request.model!r}) and base_url."
    for_tools = _remedy_for_tools(response) if request.tools else None
    if for_tools is None and request.parameters:
        return f"The request has the parameters {', '.join(request.parameters)}: remove the unsupported ones."
    return for_tools or "%chat_context, or context() in Python, shows what is sent."


def _remedy_for_tools(response: ErrorResponse) -> str | None:
    """Return what to do if tools are the reason why a request was refused, else ``None``."""
    if response.code == "tool_use_failed":  # Groq
        return "The model wrote a tool call that its server could not read: ask again, or choose another model."
    if _NO_TOOLS.search(response.message):
        return "Choose a model that can call tools (--model NAME, or model= in Python), or ask without tools."
    return None


def _try_again(retry_after_s: float | None) -> str:
    return "Try again later." if retry_after_s is None else f"Try again in {retry_after_s:g} s."


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
