"""Decides how an answer ended, and whether it is whole.

Servers use many finish reasons. An answer is whole only if its reason is a known one and no error came with it. Replay,
summaries, and ``--code`` use only such answers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from promptkit_nb.errors import ContentFilteredError, ProviderUnavailableError
from promptkit_nb.turns import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptkit_nb.errors import ProviderError

Ending = Literal["whole", "cut", "unknown", "filtered", "broken", "interrupted"]

UNKNOWN = "unknown"
"""The finish reason to store if the server gave none."""

USUAL_REASONS = ("stop", "tool_calls")
"""OpenAI's finish reasons for whole answers, which need no further check."""

_WHOLE = frozenset(
    {
        *(
            *USUAL_REASONS,
            "stopped",
            "stop_sequence",
            "eos",
            "eos_token",
            "eos_found",
            "end",
            "end_turn",
            "done",
            "finish",
        ),
        *("finished", "complete", "completed", "normal", "tool_call", "tool_use", "function_call"),
        "function_calls",
    }
)
_CUT = re.compile(r"length|max_?(?:output_|new_|completion_)?tokens|token_limit|context_window|context_length")
_FILTERED = re.compile(
    r"filter|sensitive|safety|refusal|moderation|prohibited|blocklist|blocked|recitation|\bspii\b|guardrail|toxic|policy|inspection"
)
_BROKEN = re.compile(
    r"error|fail|abort|cancel|exception|network|overload|unavailable|timeout|timed_out|insufficient|exhausted|malformed"
    r"|disconnect"
)
_WORST_FIRST: tuple[Ending, ...] = ("broken", "filtered", "cut")


@lru_cache(maxsize=256)
def ending_of(finish_reason: str | None) -> Ending:
    """Return how an answer with this finish reason ended; a stored turn without a reason counts as whole.

    Vendors' synonyms are known: ``end_turn`` and ``COMPLETE`` are ``stop``, ``MAX_TOKENS`` is ``length``.

    >>> [ending_of(reason) for reason in (None, "stop", "MAX_TOKENS", "network_error", "because")]
    ['whole', 'whole', 'cut', 'broken', 'unknown']
    """
    if finish_reason is None:
        return "whole"
    if finish_reason == INTERRUPTED:
        return "interrupted"
    words = re.sub(r"[\s-]+", "_", finish_reason.strip()).casefold().removeprefix("finish_reason_")
    if words in _WHOLE:
        return "whole"
    # Filters come first, because of reasons such as "ERROR_TOXIC".
    patterns: tuple[tuple[Ending, re.Pattern[str]], ...] = (
        ("filtered", _FILTERED),
        ("broken", _BROKEN),
        ("cut", _CUT),
    )
    return next((ending for ending, pattern in patterns if pattern.search(words)), "unknown")


def is_whole(finish_reason: str | None) -> bool:
    """Return whether the answer is complete, so that it may be used as a summary, a value, or code."""
    return ending_of(finish_reason) == "whole"


def is_replayable(finish_reason: str | None) -> bool:
    """Return whether the answer may be replayed: it is whole, or cut at the output limit."""
    return ending_of(finish_reason) in ("whole", "cut")


def decisive_reason(finish_reason: str, vendor_reasons: Iterable[str]) -> str:
    """Return the decisive finish reason: a gateway may report ``stop`` although the vendor reports a failure.

    >>> decisive_reason("stop", ["network_error"]), decisive_reason("stop", ["STOP_REASON_EOS"])
    ('network_error', 'stop')
    """
    reasons = [reason for reason in (finish_reason, *vendor_reasons) if reason]
    for ending in _WORST_FIRST:
        found = next((reason for reason in reasons if ending_of(reason) == ending), None)
        if found is not None:
            return found
    return reasons[0] if reasons else UNKNOWN


def failure_of(finish_reason: str | None, text: str, source: str) -> ProviderError | None:
    """Return the error for an answer that failed, or that a filter refused; ``None`` if it can be stored.

    ``source`` names the host or the provider.
    """
    ending = ending_of(finish_reason)
    if ending == "broken":
        return ProviderUnavailableError(
            f"The answer from {source} broke off ({finish_reason}). Send the message again; the text that arrived is "
            "in .partial.",
            partial=text,
        )
    if ending == "filtered" and not text.strip():
        return ContentFilteredError(
            f"The provider's filter refused this answer ({source}: {finish_reason}). Rephrase the message, or remove "
            "from the conversation what the filter objects to."
        )
    return None


def ending_words(finish_reason: str | None) -> str:
    """Return a short reason why an answer is not whole; empty if it is.

    >>> ending_words("max_tokens"), ending_words("stop")
    ('cut at the output limit', '')
    """
    ending = ending_of(finish_reason)
    if ending == "cut":
        return "cut at the output limit"
    if ending == "filtered":
        return "cut by the provider's filter"
    if finish_reason == UNKNOWN:
        return "the server gave no finish reason"
    return "" if ending == "whole" else finish_reason or ""


def ending_warning(finish_reason: str) -> str | None:
    """Return the warning to store with an answer that is not whole; ``None`` if it is, or if the user stopped it."""
    ending = ending_of(finish_reason)
    if ending == "cut":
        return "The answer is not whole: it was cut at the output limit. Raise max_output_tokens, or ask to continue."
    if ending == "filtered":
        return "The answer is not whole: the provider's filter cut it. It is not replayed."
    if ending == "unknown":
        known = "no finish reason" if finish_reason == UNKNOWN else f"the unknown finish reason {finish_reason!r:.60}"
        return f"The server gave {known}, so the answer may not be whole; it is not replayed."
    return None
