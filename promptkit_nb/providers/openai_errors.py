"""What a server or the network said instead of an answer, told as our errors: whose words, which status, what to do.

Servers quote the key they refuse, so everything they say is redacted before it is shortened, and a cause that still
quotes the key is not chained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptkit_nb.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from promptkit_nb.text.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size|limit)|maximum (?:context|prompt|model) length|context the overflows|n_keep"
    r"|too many tokens|prompt(?: is)? too long|input token count|input tokens exceed"
    r"|maximum number of tokens allowed|max_new_tokens`? must be <="
    r"|reduce the length of the (?:messages|prompt|input)|request too large for model",
    re.IGNORECASE,
)
_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})

# From what is certain to what is merely likely; of each list the first that is found counts.
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


def is_too_long(code: str, words: str) -> bool:
    """Return whether a refusal says that the request does not fit the model's context window.

    >>> is_too_long("", "the request exceeds the available context size")
    True
    """
    return code in _CODES or bool(_TOO_LONG.search(words))


def figures_in(words: str) -> tuple[int | None, int | None]:
    """Return the window and the size of the request in tokens, each ``None`` where the words do not tell.

    >>> figures_in("request (5000 tokens) exceeds the available context size (4096 tokens)")
    (4096, 5000)
    """
    return _first(_LIMITS, words), _first(_REQUESTS, words)


def _first(patterns: tuple[str, ...], words: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, words, re.IGNORECASE):
            return int(found[1].replace(",", ""))
    return None


Refused = ProviderError | ContextWindowExceededError

_WORDS_LENGTH = 300
_SHORTEST_SECRET = 6
_ANY_KEY = re.compile(r"\bsk-[\w-]{6,}")
_LLAMA_FIGURES = ("n_prompt_tokens", "n_ctx")  # beside its message
_USED_UP = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the server put it; ``code`` is its ``code``, else its ``type``, else empty."""

    status: int
    words: str
    code: str = ""

    @property
    def is_used_up(self) -> bool:
        """Whether the quota is gone, so that waiting does not help."""
        return self.code in _USED_UP or self.status == 402  # noqa: PLR2004 (Payment Required)

    @property
    def is_too_long(self) -> bool:
        """Whether the request does not fit the model's context window."""
        return self.status not in {401, 402, 403, 429} and is_too_long(self.code, self.words)

    @classmethod
    def of_body(cls, body: object, *, status: int | None = None) -> Refusal:
        """Read the shapes in use: OpenAI's, vLLM's flat one, FastAPI's ``detail``, plain text.

        Without an HTTP status (an error in the middle of a stream) the error's own code gives it, else it is 500.

        >>> Refusal.of_body({"error": {"message": "No such key", "code": "invalid_api_key"}})
        Refusal(status=401, words='No such key', code='invalid_api_key')
        """
        error = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return cls(status or 500, _as_text(error))
        codes = [str(error[name]) for name in ("code", "type") if error.get(name) not in (None, "")]
        words = _as_text(next((error[name] for name in ("message", "detail", "error") if error.get(name)), error))
        words += "".join(f", {name} {error[name]}" for name in _LLAMA_FIGURES if isinstance(error.get(name), int))
        known = next((_STATUS_OF_CODE[code] for code in codes if code in _STATUS_OF_CODE), None)
        numeric = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
        used_up = next((code for code in codes if code in _USED_UP), None)
        return cls(status or known or numeric or 500, words, used_up or (codes[0] if codes else ""))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server we talk to, and how its failures are told. Neither its ``repr`` nor any text shows the key."""

    base_url: str = field(repr=False)
    key: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """Host, and port where the URL gives one."""
        return urlsplit(self.base_url).netloc

    @property
    def shown_url(self) -> str:
        """The base URL without its query, where some servers want the key."""
        return self.base_url.partition("?")[0]

    def redact(self, text: str) -> str:
        """Return the text without the key, and without anything that looks like one."""
        if len(self.key) >= _SHORTEST_SECRET:
            text = text.replace(self.key, "[key]")
        return _ANY_KEY.sub("[key]", text)

    def quote(self, words: str, length: int = _WORDS_LENGTH) -> str:
        """Return foreign words on one line, redacted, then shortened; nothing in them steers a terminal."""
        line = one_line(self.redact(words))
        return line if len(line) <= length else line[: length - 1] + "…"

    def refused(self, refusal: Refusal, *, model: str, wait_s: float | None = None, partial: str = "") -> Refused:
        """Return the error for what the server said; ``wait_s`` is the wait it asked for."""
        words = self.quote(refusal.words).rstrip(".") or "no explanation"
        said = f"{self.host} answered with HTTP {refusal.status}: {words}."
        if refusal.is_too_long:
            limit, requested = figures_in(refusal.words)
            remedy = f"It is too long for {model!r}: set max_tokens, or shorten it with truncate() or summarize()."
            return ContextWindowExceededError(
                f"{said} {remedy}", limit_tokens=limit, request_tokens=requested, partial=partial
            )
        kind, remedy = _kind_and_remedy(refusal, model=model, wait_s=wait_s)
        error = kind(f"{said} {remedy}", partial=partial)
        if isinstance(error, RateLimitError):
            error.retry_after_s = wait_s
        return error

    def unreadable(self, came: str, *, partial: str = "") -> ProviderError:
        """Return the error for a reply that is no answer at all."""
        beginning = self.quote(came, 80)
        what = f"no chat answer but {beginning!r}" if beginning else "an empty reply"
        return ProviderUnavailableError(
            f"{self.host} sent {what}. Check base_url ({self.shown_url}): it usually ends in /v1.", partial=partial
        )

    def cut(self, *, partial: str = "") -> ProviderError:
        """Return the error for an answer that stopped in the middle."""
        return ProviderUnavailableError(
            f"{self.host} broke off in the middle of the answer. Send it again; what came is in .partial.",
            partial=partial,
        )

    def timed_out(self, timeout_s: float) -> ProviderError:
        """Return the error for a silence longer than the timeout."""
        return ProviderTimeoutError(
            f"{self.host} was silent for {timeout_s:g} s. Try again, or give the provider a longer timeout=."
        )

    def unreachable(self, why: str) -> ProviderError:
        """Return the error for a connection that failed."""
        return ProviderUnavailableError(
            f"{self.host} cannot be reached ({self.quote(why)}). Check the network and base_url ({self.shown_url})."
        )

    def chained(self, error: Refused, cause: BaseException) -> Refused:
        """Return the error with its cause, unless the cause, or a cause of it, quotes the key."""
        link: BaseException | None = cause
        while link is not None:
            shown = f"{link!s} {link!r} {vars(link)!r}"
            if self.redact(shown) != shown:
                return error
            link = link.__cause__ or link.__context__
        error.__cause__ = cause
        return error


def _kind_and_remedy(refusal: Refusal, *, model: str, wait_s: float | None) -> tuple[type[ProviderError], str]:  # noqa: PLR0911 - a line a kind
    status = refusal.status
    if status in {401, 403}:
        return AuthenticationError, "Check OPENAI_API_KEY (or api_key=), and that the key may use this model."
    if refusal.is_used_up:
        return RateLimitError, "The quota is used up: waiting does not help, see the provider's billing page."
    if status == 429:  # noqa: PLR2004 (Too Many Requests)
        return RateLimitError, "Try again later." if wait_s is None else f"Try again in {wait_s:g} s."
    if status == 408:  # noqa: PLR2004 (Request Timeout)
        return ProviderTimeoutError, "Try again."
    if status >= 500 or status < 400:  # noqa: PLR2004 (the HTTP classes)
        return ProviderUnavailableError, "Try again later." if wait_s is None else f"Try again in {wait_s:g} s."
    if status == 404:  # noqa: PLR2004 (Not Found)
        return BadRequestError, f"Check the model's name ({model!r}) and base_url."
    return BadRequestError, "Change the request."


def _as_text(words: object) -> str:
    return words if isinstance(words, str) else json.dumps(words, ensure_ascii=False, default=str)


def body_of(text: str) -> object:
    """Return the reply's JSON value, else its text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def has_error(chunk: Mapping[str, object]) -> bool:
    """Whether this piece of a stream is an error: ``{"error": …}``, or vLLM's ``{"object": "error", …}``."""
    return bool(chunk.get("error")) or chunk.get("object") == "error"
