"""What a call costs, in US dollars, by model name: the user's own prices first, then those of genai-prices.

The price data ships inside the installed package: nothing is fetched, and nothing updates itself. A price that nobody
knows is ``None``, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptkit_nb.turns import Usage

_PRICES_HINT = 'Give dollars per million tokens, in and out, as in prices={"my-model": (0.15, 0.60)}.'


@dataclass(frozen=True, slots=True)
class Price:
    """What a call cost in US dollars, and whose price list says so; both ``None`` where nobody knows.

    >>> Price(Decimal("0.00045"), "user").usd
    Decimal('0.00045')
    """

    usd: Decimal | None
    source: str | None


def price_of(
    model: str, usage: Usage, *, at: datetime, prices: Mapping[str, tuple[float, float]] | None = None
) -> Price:
    """Return what the usage costs with this model, at the prices of that time.

    ``prices`` maps exact model names to dollars per million tokens (input, output), cached input at the full input
    price; they win over the price list. ``source`` is ``"user"`` or ``"genai-prices"`` and its version. An unknown
    model, or a usage that contradicts itself, gives ``Price(None, None)``.

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
        listed = _listed_usd(model.rpartition("/")[2], usage, at)  # "openai/gpt-4o-mini", as resellers name it
    if listed is None:
        return Price(None, None)
    return Price(listed, f"genai-prices {_list_version()}")


def check_prices(prices: Mapping[str, tuple[float, float]]) -> None:
    """Raise ``InvalidArgumentError`` unless every model name has two finite prices that are not negative.

    >>> check_prices({"my-model": (0.15, 0.60)})
    """
    for model, pair in prices.items():
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"prices has the key {model!r}, which is no model name. {_PRICES_HINT}")
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004 - in and out
            raise InvalidArgumentError(f"prices[{model!r}] is {pair!r}, not a pair. {_PRICES_HINT}")
        if not all(map(_is_price, pair)):
            raise InvalidArgumentError(
                f"prices[{model!r}] is {pair!r}; both must be finite numbers of at least 0. {_PRICES_HINT}"
            )


def _is_price(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _usd(usage: Usage, per_million_in: float, per_million_out: float) -> Decimal:
    # By way of text, so that 0.15 is fifteen hundredths and not the nearest binary fraction.
    micro_usd = usage.input_tokens * Decimal(str(per_million_in)) + usage.output_tokens * Decimal(str(per_million_out))
    return micro_usd.scaleb(-6)


def _listed_usd(model: str, usage: Usage, at: datetime) -> Decimal | None:
    import genai_prices  # noqa: PLC0415 - 0.2 s, and not needed by who has their own prices or calls no model

    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cached_tokens
    )
    try:
        listed = genai_prices.calc_price(tokens, model, genai_request_timestamp=at)
    except (LookupError, ValueError):  # a model that is not listed; more cached tokens than input
        return None
    # A model listed by the hour or by the image has no price per token: its zero would be a lie.
    if usage.input_tokens and getattr(listed.model_price, "input_mtok", None) is None:
        return None
    if usage.output_tokens and getattr(listed.model_price, "output_mtok", None) is None:
        return None
    return listed.total_price


def _list_version() -> str:
    import genai_prices  # noqa: PLC0415 - imported already where this is asked

    return genai_prices.__version__
