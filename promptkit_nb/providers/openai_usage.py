"""What a server reports of tokens and cost: numbers, numbers as text, nulls, nonsense, or nothing at all."""

from __future__ import annotations

import math
from decimal import Decimal

from promptkit_nb.turns import Usage


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
