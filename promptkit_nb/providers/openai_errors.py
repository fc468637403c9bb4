"""Errors of OpenAI-compatible servers and of the network, mapped to ours.

Servers quote the key they reject. So their messages are redacted before they are shortened, and a cause that quotes the
key is not chained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptkit_nb import errors
from promptkit_nb.text.plain_text import preview, without_key

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size|limit)|maximum (?:context|prompt|model) length|context the overflows|n_keep"
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
    r"(?:allowed|<=|n_ctx)\D{0,16}?([0-9][0-9,]*)",
    r"\bLimit ([0-9][0-9,]*)",
    r"([0-9][0-9,]*) maximum context length",
    r"> ?([0-9][0-9,]*)",
)
_REQUESTS = (
    r"(?:contains|has)(?: at least)? ([0-9][0-9,]*)(?: input)? tokens",
    r"requested(?: about| tokens)? \(?([0-9][0-9,]*)\b(?! output)",
    r"(?:resulted in|too long:|keep the first) ([0-9][0-9,]*)",
    r"(?:request|token count|n_keep|prompt) \((?:length )?([0-9][0-9,]*)",
    r"n_prompt_tokens ([0-9][0-9,]*)",
    r"limit: ([0-9][0-9,]*) \+",
    r"Given: ([0-9][0-9,]*)",
)

_MESSAGE_LENGTH = 300
_LLAMA_CPP_COUNTS = ("n_prompt_tokens", "n_ctx")  # fields beside its message
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

    @property
    def is_quota_exhausted(self) -> bool:
        """Whether the quota is used up, so that waiting does not help."""
        return self.code in _QUOTA_CODES or self.status == 402  # noqa: PLR2004 (Payment Required)

    @property
    def is_too_long(self) -> bool:
        """Whether the request does not fit the model's context window."""
        return self.status not in {401, 402, 403, 429} and exceeds_context_window(self.code, self.message)

    @classmethod
    def from_body(cls, body: object, *, status: int | None = None) -> ErrorResponse:
        """Read the formats in use: OpenAI's, vLLM's flat one, FastAPI's ``detail``, plain text.

        Without an HTTP status (an error in the middle of a stream) the status follows from the error's code, else it is
        500.

        >>> ErrorResponse.from_body({"error": {"message": "No such key", "code": "invalid_api_key"}})
        ErrorResponse(status=401, message='No such key', code='invalid_api_key')
        """
        error = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return cls(status or 500, _as_text(error))
        codes = [str(error[name]) for name in ("code", "type") if error.get(name) not in (None, "")]
        message = _as_text(next((error[name] for name in ("message", "detail", "error") if error.get(name)), error))
        message += "".join(f", {name} {error[name]}" for name in _LLAMA_CPP_COUNTS if isinstance(error.get(name), int))
        known = next((_STATUS_OF_CODE[code] for code in codes if code in _STATUS_OF_CODE), None)
        numeric = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
        quota_code = next((code for code in codes if code in _QUOTA_CODES), None)
        return cls(status or known or numeric or 500, message, quota_code or (codes[0] if codes else ""))


@dataclass(frozen=True, slots=True)
class ErrorMapper:
    """Maps the errors of one server to ours. Neither its ``repr`` nor any error shows the key."""

    base_url: str = field(repr=False)
    key: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """The host, with the port if the URL has one."""
        return urlsplit(self.base_url).netloc

    def redact(self, text: str) -> str:
        """Return the text without the key, and without anything that looks like a key."""
        return without_key(text, self.key)

    def quote(self, text: str, length: int = _MESSAGE_LENGTH) -> str:
        """Return a server's text on one line, redacted, then shortened, and without control characters."""
        return preview(self.redact(text), length)

    def from_response(
        self, response: ErrorResponse, *, model: str, retry_after_s: float | None = None, partial: str = ""
    ) -> RequestError:
        """Return the error for a server's error response; ``retry_after_s`` is the wait it asked for."""
        message = self.quote(response.message).rstrip(".") or "no explanation"
        said = f"{self.host} answered with HTTP {response.status}: {message}."
        if response.is_too_long:
            limit, requested = token_counts_in(response.message)
            remedy = f"It is too long for {model!r}: set max_tokens, or shorten it with truncate() or summarize()."
            return errors.ContextWindowExceededError(
                f"{said} {remedy}", limit_tokens=limit, request_tokens=requested, partial=partial
            )
        kind, remedy = _kind_and_remedy(response, model=model, retry_after_s=retry_after_s)
        error = kind(f"{said} {remedy}", partial=partial)
        if isinstance(error, errors.RateLimitError):
            error.retry_after_s = retry_after_s
        return error

    def unreadable(self, received: str, *, partial: str = "") -> errors.ProviderError:
        """Return the error for a reply that is not a chat answer."""
        beginning = self.quote(received, 80)
        what = repr(beginning) if beginning else "an empty reply"
        return errors.ProviderUnavailableError(
            f"{self.host} sent {what} instead of a chat answer. Check base_url ({shown_url(self.base_url)}): it "
            "usually ends in /v1.",
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
            f"{self.host} was silent for {timeout_s:g} s. Try again, or give the provider a longer timeout=."
        )

    def unreachable(self, reason: str) -> errors.ProviderError:
        """Return the error for a connection that failed."""
        return errors.ProviderUnavailableError(
            f"{self.host} cannot be reached ({self.quote(reason)}). Check the network and base_url "
            f"({shown_url(self.base_url)})."
        )

    def chained(self, error: RequestError, cause: BaseException) -> RequestError:
        """Return the error with its cause, unless the cause, or a cause of it, quotes the key."""
        link: BaseException | None = cause
        while link is not None:
            shown = f"{link!s} {link!r} {vars(link)!r}"
            if self.redact(shown) != shown:
                return error
            link = link.__cause__ or link.__context__
        error.__cause__ = cause
        return error


def shown_url(base_url: str) -> str:
    """Return the URL without its query, which holds the key for some servers."""
    return base_url.partition("?")[0]


def json_or_text(text: str) -> object:
    """Return the JSON value of a reply, or its text if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_error(chunk: Mapping[str, object]) -> bool:
    """Whether a chunk of a stream is an error: ``{"error": …}``, or vLLM's ``{"object": "error", …}``."""
    return bool(chunk.get("error")) or chunk.get("object") == "error"


def _kind_and_remedy(  # noqa: PLR0911 - one line for each kind
    response: ErrorResponse, *, model: str, retry_after_s: float | None
) -> tuple[type[errors.ProviderError], str]:
    status = response.status
    if status in {401, 403}:
        return errors.AuthenticationError, "Check OPENAI_API_KEY (or api_key=), and that the key may use this model."
    if response.is_quota_exhausted:
        return errors.RateLimitError, "The quota is used up: waiting does not help, see the provider's billing page."
    if status == 429:  # noqa: PLR2004 (Too Many Requests)
        return errors.RateLimitError, _try_again(retry_after_s)
    if status == 408:  # noqa: PLR2004 (Request Timeout)
        return errors.ProviderTimeoutError, "Try again."
    if status >= 500 or status < 400:  # noqa: PLR2004 (the HTTP classes)
        return errors.ProviderUnavailableError, _try_again(retry_after_s)
    if status == 404:  # noqa: PLR2004 (Not Found)
        return errors.BadRequestError, f"Check the model's name ({model!r}) and base_url."
    return errors.BadRequestError, "Change the request."


def _try_again(retry_after_s: float | None) -> str:
    return "Try again later." if retry_after_s is None else f"Try again in {retry_after_s:g} s."


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
