"""What a token of each kind costs, in US dollars: what splits the cost of a call into its parts."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from promptkit_nb.pricing import price_of
from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """US dollars per million tokens: input that was not cached, cached input, output with reasoning.

    >>> TokenPrices(Decimal("0.15"), Decimal("0.075"), Decimal("0.6")).parts_of(Usage(1000, 500, cached_tokens=400))
    (Decimal('0.00009'), Decimal('0.00003'), Decimal('0.0003'), Decimal('0.0'))
    """

    input: Decimal
    cached: Decimal
    output: Decimal

    def parts_of(self, usage: Usage) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        """Return what input, cached input, output and reasoning cost; none is in another, and none below zero."""
        return (
            self.input * max(0, usage.input_tokens - usage.cached_tokens) / _MILLION,
            self.cached * usage.cached_tokens / _MILLION,
            self.output * max(0, usage.output_tokens - usage.reasoning_tokens) / _MILLION,
            self.output * usage.reasoning_tokens / _MILLION,
        )

    def cache_saved_of(self, usage: Usage) -> Decimal:
        """Return what the cached input would have cost more without a cache."""
        return (self.input - self.cached) * usage.cached_tokens / _MILLION


def prices_given(prices: Mapping[str, tuple[float, float]], model: str) -> TokenPrices | None:
    """Return the user's own prices, cached input at the full one; ``None`` where there is none of this model."""
    if model not in prices:
        return None
    per_million_in, per_million_out = (Decimal(str(price)) for price in prices[model])
    return TokenPrices(per_million_in, per_million_in, per_million_out)


@lru_cache(maxsize=4096)
def prices_listed(model: str, input_tokens: int, at: datetime) -> TokenPrices | None:
    """Return the prices of the list for a request of this length at that time; ``None`` where it is not listed.

    >>> from datetime import UTC, datetime
    >>> prices_listed("gpt-4o-mini", 1000, datetime(2026, 1, 1, tzinfo=UTC)) == TokenPrices(
    ...     Decimal("0.15"), Decimal("0.075"), Decimal("0.6"))
    True
    """
    size = max(1, input_tokens)
    fresh, cached, both = (
        price_of(model, usage, at=at).usd for usage in (Usage(size, 0), Usage(size, 0, size), Usage(size, size))
    )
    if fresh is None or cached is None or both is None:
        return None
    return TokenPrices(*(usd * _MILLION / size for usd in (fresh, cached, both - fresh)))
