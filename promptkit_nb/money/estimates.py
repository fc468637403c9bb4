"""What a call may cost, before it is sent: for a budget's reservation and for a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from promptkit_nb.rendering.receipts import amount_text
from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptkit_nb.providers.base import Provider
    from promptkit_nb.turns import Turn

RECENT_TURNS = 20
# What an answer of a model that nobody limited may have, where the conversation shows nothing longer.
USUAL_OUTPUT_TOKENS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """What a call may cost, in US dollars; both are ``None`` where the price is unknown.

    ``input_tokens`` is what was counted offline. ``output_tokens`` is the most that the answer may have, or, where
    nothing limits it (``is_limited`` is false), what is usual. ``counted_usd`` is the most that it may cost
    going by the request alone, whatever this conversation saw.

    >>> print(CostRange(low_usd=Decimal("0.0003"), high_usd=Decimal("0.0021"), input_tokens=412, output_tokens=1000))
    between $0.0003 and $0.0021 (412 tokens in, at most 1,000 out)
    """

    low_usd: Decimal | None
    high_usd: Decimal | None
    input_tokens: int
    output_tokens: int
    is_limited: bool = True
    counted_usd: Decimal | None = None

    def __str__(self) -> str:
        """Return the range in words."""
        most = "at most" if self.is_limited else "usually at most"
        tokens = f"({self.input_tokens:,} tokens in, {most} {self.output_tokens:,} out)"
        if self.low_usd is None or self.high_usd is None:
            return f"price unknown {tokens}"
        if self.low_usd == self.high_usd:
            return f"{amount_text(self.low_usd)} {tokens}"
        return f"between {amount_text(self.low_usd)} and {amount_text(self.high_usd)} {tokens}"


def cost_range(
    provider: Provider,
    model: str,
    *,
    input_tokens: int,
    max_output_tokens: int | None,
    turns: Sequence[Turn],
    at: datetime,
    factor: float = 1.0,
) -> CostRange:
    """Return what a call may cost at that time.

    At the least it costs its input and one token; at the most its input and ``max_output_tokens``, or, where that is
    ``None``, the longest answer of the recent turns with this model, and no less than 1,000 tokens. What a recent turn
    with this model did cost is possible again, whatever was counted, but for what it was longer than this one may be.

    Args:
        provider: Who says what tokens cost.
        model: The model asked for.
        input_tokens: What was counted offline.
        max_output_tokens: The most the answer may have, in tokens.
        turns: The turns of the conversation; the newest 20 are looked at.
        at: The time of the call.
        factor: How many input tokens the server reports for each one counted.
    """
    recent = [turn for turn in turns[-RECENT_TURNS:] if model in (turn.requested_model, turn.model)]
    output_tokens = max_output_tokens or max([USUAL_OUTPUT_TOKENS, *(turn.usage.output_tokens for turn in recent)])
    fewest, most = ceil(input_tokens * min(factor, 1.0)), ceil(input_tokens * max(factor, 1.0))
    low_usd = provider.price(model, Usage(fewest, 1), at).usd
    high_usd = provider.price(model, Usage(most, output_tokens), at).usd
    counted_usd = provider.price(model, Usage(most, max_output_tokens or USUAL_OUTPUT_TOKENS), at).usd
    if low_usd is None or high_usd is None:
        low_usd = high_usd = None
    else:
        again_usd = (_cost_again(turn, provider, model, output_tokens, at) for turn in recent)
        high_usd = max([high_usd, *(usd for usd in again_usd if usd is not None)])
    return CostRange(
        low_usd=low_usd,
        high_usd=high_usd,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        is_limited=max_output_tokens is not None,
        counted_usd=counted_usd,
    )


def _cost_again(turn: Turn, provider: Provider, model: str, output_tokens: int, at: datetime) -> Decimal | None:
    """Return what a turn did cost; of one with a longer answer than that, as large a part as its tokens are."""
    usage = turn.usage
    if turn.cost is None or usage.output_tokens <= output_tokens:
        return turn.cost
    whole = provider.price(model, usage, at).usd
    part = provider.price(model, Usage(usage.input_tokens, output_tokens, cached_tokens=usage.cached_tokens), at).usd
    return turn.cost * part / whole if whole and part is not None else turn.cost
