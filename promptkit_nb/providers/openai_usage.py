"""What a server reports of tokens and cost: numbers, numbers as text, nulls, nonsense, or nothing at all."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.turns import Message

# No tokeniser reads ordinary text in tokens as long as this; counting exactly would take longer than the request.
_LONGEST_TOKENS_CHARACTERS = 10
_USUAL_TOKENS_CHARACTERS = 4
# No server's context window is smaller: what is shorter was not cut, whatever a server counts.
_SMALLEST_WINDOW_TOKENS = 1000


def reported_usage(reported: dict[str, object]) -> Usage | None:
    """The usage if both its numbers are there and can be true: no request has no input."""
    input_tokens, output_tokens = _count(reported.get("prompt_tokens")), _count(reported.get("completion_tokens"))
    if not input_tokens or output_tokens is None:
        return None
    cached = _detail(reported.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _detail(reported.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(
        input_tokens,
        output_tokens,
        cached_tokens=min(cached, input_tokens),
        reasoning_tokens=min(reasoning, output_tokens),
    )


def cut_prompt_warnings(messages: Sequence[Message], usage: Usage | None) -> tuple[str, ...]:
    """Warn where the server counted far less than was sent: some cut a long prompt without a word."""
    if usage is None:
        return ()
    characters = sum(len(message.content) for message in messages)
    sent_tokens = characters // _USUAL_TOKENS_CHARACTERS
    if sent_tokens < _SMALLEST_WINDOW_TOKENS or characters <= _LONGEST_TOKENS_CHARACTERS * usage.input_tokens:
        return ()
    warning = (
        f"The server read {usage.input_tokens} tokens where about {sent_tokens} were sent: it seems to have cut the "
        "conversation. Raise its context window (num_ctx in Ollama), or go on in a new one."
    )
    return (warning,)


def _detail(details: object, name: str) -> int:
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def reported_cost_usd(value: object) -> Decimal | None:
    """The dollars that the server says the call cost, by way of its digits and not of their binary neighbour."""
    try:
        dollars = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return Decimal(str(value)) if math.isfinite(dollars) and dollars >= 0 else None
