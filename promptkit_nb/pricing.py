"""Actual and estimated costs of calls in US dollars: the user's own prices first, then the list of genai-prices.

The price list is part of the installed package: nothing is downloaded. An unknown price is ``None``, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import ceil, isfinite
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.turns import Turn, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.providers.base import Provider

_PRICES_HINT = 'Give dollars per million tokens, in and out, as in prices={"my-model": (0.15, 0.60)}.'


@dataclass(frozen=True, slots=True)
class Price:
    """The cost of a call in US dollars and the price list it comes from; both ``None`` if unknown.

    >>> Price(Decimal("0.00045"), "user").usd
    Decimal('0.00045')
    """

    usd: Decimal | None
    source: str | None


def price_of(
    model: str, usage: Usage, *, at: datetime, prices: Mapping[str, tuple[float, float]] | None = None
) -> Price:
    """Return the cost of this usage with this model, at the prices of that time.

    ``prices`` maps exact model names to dollars per million tokens (input, output); cached input costs the full input
    price. These prices take precedence over the price list. ``source`` is ``"user"`` or ``"genai-prices"`` and its
    version. An unknown model, or contradictory usage, gives ``Price(None, None)``.

    >>> from datetime import UTC, datetime
    >>> from promptkit_nb.turns import Usage
    >>> price_of("gpt-4o-mini", Usage(1000, 500), at=datetime(2026, 1, 1, tzinfo=UTC)).usd
    Decimal('0.00045')
    >>> price_of("mine", Usage(1000, 500), at=datetime(2026, 1, 1, tzinfo=UTC), prices={"mine": (1, 2)})
    Price(usd=Decimal('0.002000'), source='user')
    """
    if prices is not None and model in prices:
        return Price(_usd(usage, *prices[model]), "user")
    listed = _listed_usd(model, usage, at)
    if listed is None and "/" in model:
        listed = _listed_usd(model.rpartition("/")[2], usage, at)  # "openai/gpt-4o-mini", as resellers call it
    if listed is None:
        return Price(None, None)
    return Price(listed, f"genai-prices {_list_version()}")


def check_prices(prices: Mapping[str, tuple[float, float]]) -> None:
    """Raise ``InvalidArgumentError`` unless every model name has two finite prices that are not negative.

    >>> check_prices({"my-model": (0.15, 0.60)})
    """
    for model, pair in prices.items():
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"prices has the key {model!r}, which is not a model name. {_PRICES_HINT}")
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004 - in and out
            raise InvalidArgumentError(f"prices[{model!r}] is {pair!r}, not a pair. {_PRICES_HINT}")
        if not all(map(_is_price, pair)):
            raise InvalidArgumentError(
                f"prices[{model!r}] is {pair!r}; both must be finite numbers of at least 0. {_PRICES_HINT}"
            )


def _is_price(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _usd(usage: Usage, per_million_in: float, per_million_out: float) -> Decimal:
    # Through text, so that 0.15 is exactly fifteen hundredths and not the nearest binary fraction.
    micro_usd = usage.input_tokens * Decimal(str(per_million_in)) + usage.output_tokens * Decimal(str(per_million_out))
    return micro_usd.scaleb(-6)


def _listed_usd(model: str, usage: Usage, at: datetime) -> Decimal | None:
    import genai_prices  # noqa: PLC0415 - 0.2 s, not needed with own prices or without calls

    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cached_tokens
    )
    try:
        listed = genai_prices.calc_price(tokens, model, genai_request_timestamp=at)
    except (LookupError, ValueError):  # a model that is not listed; more cached tokens than input
        return None
    # A model priced by the hour or by the image has no price per token: zero would be wrong.
    if usage.input_tokens and getattr(listed.model_price, "input_mtok", None) is None:
        return None
    if usage.output_tokens and getattr(listed.model_price, "output_mtok", None) is None:
        return None
    return listed.total_price


def _list_version() -> str:
    import genai_prices  # noqa: PLC0415 - already imported when this is called

    return genai_prices.__version__


RECENT_TURNS = 20
# The expected length of an answer without a limit, unless the conversation has longer ones.
USUAL_OUTPUT_TOKENS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """The possible cost of a call in US dollars; both are ``None`` if the price is unknown.

    ``input_tokens`` is what was counted offline. ``output_tokens`` is the longest answer, or the usual one if nothing
    limits it (``is_limited`` is false).

    >>> print(CostRange(low_usd=Decimal("0.0003"), high_usd=Decimal("0.0021"), input_tokens=412, output_tokens=1000))
    between $0.0003 and $0.0021 (412 tokens in, at most 1,000 out)
    """

    low_usd: Decimal | None
    high_usd: Decimal | None
    input_tokens: int
    output_tokens: int
    is_limited: bool = True

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
    """Return the possible cost of a call at that time.

    The lowest cost is that of the input and one token. The highest is that of the input and ``max_output_tokens`` or,
    if that is ``None``, of the longest recent answer with this model, at least 1,000 tokens. The highest cost is also
    at least that of each recent turn with this model, in proportion if its answer was longer than this one can be.

    Args:
        provider: The provider, for its prices.
        model: The requested model.
        input_tokens: The offline count.
        max_output_tokens: The limit of the answer, in tokens.
        turns: The turns of the conversation; the newest 20 are used.
        at: The time of the call.
        factor: How many input tokens the server reports per counted token.
    """
    recent = [turn for turn in turns[-RECENT_TURNS:] if model in (turn.requested_model, turn.model)]
    output_tokens = max_output_tokens or max([USUAL_OUTPUT_TOKENS, *(turn.usage.output_tokens for turn in recent)])
    fewest, most = ceil(input_tokens * min(factor, 1.0)), ceil(input_tokens * max(factor, 1.0))
    low_usd = provider.price(model, Usage(fewest, 1), at).usd
    high_usd = provider.price(model, Usage(most, output_tokens), at).usd
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
    )


def _cost_again(turn: Turn, provider: Provider, model: str, output_tokens: int, at: datetime) -> Decimal | None:
    """Return the cost of a turn, reduced in proportion to its tokens if its answer was longer than the limit."""
    usage = turn.usage
    if turn.cost is None or usage.output_tokens <= output_tokens:
        return turn.cost
    whole = provider.price(model, usage, at).usd
    part = provider.price(model, Usage(usage.input_tokens, output_tokens, cached_tokens=usage.cached_tokens), at).usd
    return turn.cost * part / whole if whole and part is not None else turn.cost
