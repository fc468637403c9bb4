"""Actual and estimated costs of calls in US dollars: the user's own prices first, then the list of genai-prices.

The price list is part of the installed package: nothing is downloaded. An unknown price is ``None``, never zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.plain import plain
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.turns import Turn, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from genai_prices.types import ModelPrice, PriceCalculation

    from promptkit_nb.providers.base import Provider

_PRICES_HINT = (
    'Give dollars per million tokens, in and out, as in prices={"my-model": (0.15, 0.60)}, or '
    "Price(input=0.15, output=0.60, cached_input=0.075)."
)


@dataclass(frozen=True, slots=True)
class CallCost:
    """The cost of a call in US dollars, and its source; ``usd`` is ``None`` if it is unknown.

    ``source`` is ``"reported"`` (by the server), ``"list"`` (the price list, whose version is ``price_list``) or
    ``"yours"``.

    >>> CallCost(Decimal("0.00045"), "yours").usd
    Decimal('0.00045')
    """

    usd: Decimal | None
    source: str | None
    price_list: str | None = None


UNKNOWN_COST = CallCost(None, None)


@dataclass(frozen=True, slots=True, init=False)
class Price:
    """Prices of a model in US dollars per million tokens, for ``OpenAIProvider(prices={"my-model": Price(…)})``.

    ``cached_input`` is for input that the provider reads from its cache, ``cache_write`` for input that it writes to
    it; without them, both cost as much as other input. Numbers are kept exactly, as they are written. Raises
    ``InvalidArgumentError`` for anything but finite numbers of at least 0.

    >>> from promptkit_nb import Price
    >>> Price(input=0.15, output=0.60, cached_input=0.075)
    Price(input=Decimal('0.15'), output=Decimal('0.6'), cached_input=Decimal('0.075'), cache_write=None)
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None

    def __init__(
        self,
        input: Decimal | float,  # noqa: A002 - the usual word in price lists
        output: Decimal | float,
        cached_input: Decimal | float | None = None,
        cache_write: Decimal | float | None = None,
    ) -> None:
        """Check the numbers, and keep them as decimals."""
        given = {"input": input, "output": output, "cached_input": cached_input, "cache_write": cache_write}
        for name, usd in given.items():
            is_optional = name not in {"input", "output"}
            object.__setattr__(self, name, None if usd is None and is_optional else _exact_usd(name, usd))

    def cost_usd(self, usage: Usage) -> Decimal:
        """Return what the usage costs, exactly.

        >>> from promptkit_nb import Price, Usage
        >>> Price(1, 5, cached_input=0.1).cost_usd(Usage(1000, 200, cached_tokens=400))
        Decimal('0.0016400')
        """
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        micro_usd = (
            (usage.input_tokens - cached - written) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * self.output
        )
        return micro_usd.scaleb(-6)


def _exact_usd(name: str, usd: object) -> Decimal:
    usd = plain(usd)
    if isinstance(usd, (int, float, Decimal)) and not isinstance(usd, bool) and isfinite(usd) and usd >= 0:
        return Decimal(str(usd)).copy_abs()  # from text, so that 0.15 is exact
    raise InvalidArgumentError(
        f"{name}={usd!r:.80} is not a price; give US dollars per million tokens, as in Price(input=0.15, output=0.60). "
        "(A provider's price() returns CallCost(usd, source).)"
    )


def price_of(
    model: str,
    usage: Usage,
    *,
    at: datetime,
    prices: Mapping[str, Price | tuple[float, float]] | None = None,
    base_url: str | None = None,
    cache_write_1h_tokens: int = 0,
) -> CallCost:
    """Return the cost of this usage with this model, at the prices of that time.

    ``prices`` maps exact model names to ``Price`` or to dollars per million tokens (input, output); these prices take
    precedence. The price list is searched for the server at ``base_url`` first, then for the name alone, because
    servers charge different prices for the same model. A name must match as a whole, apart from its version; names of
    local or free variants, such as ``deepseek-r1:8b``, are other models. ``cache_write_1h_tokens`` is the part of the
    written tokens that the provider caches for an hour instead of minutes. An unknown model, or contradictory usage,
    gives ``CallCost(None, None)``.

    >>> from datetime import UTC, datetime
    >>> from promptkit_nb.turns import Usage
    >>> price_of("gpt-4o-mini", Usage(1000, 500), at=datetime(2026, 1, 1, tzinfo=UTC)).usd
    Decimal('0.00045')
    >>> price_of("mine", Usage(1000, 500), at=datetime(2026, 1, 1, tzinfo=UTC), prices={"mine": (1, 2)})
    CallCost(usd=Decimal('0.002000'), source='yours', price_list=None)
    """
    if usage.unknown or usage.cached_tokens + usage.cache_write_tokens > usage.input_tokens:
        return UNKNOWN_COST
    if prices is not None and model in prices:
        own = prices[model]
        return CallCost((own if isinstance(own, Price) else Price(*own)).cost_usd(usage), "yours")
    if is_local_or_free(model):
        return UNKNOWN_COST
    short = model.rpartition("/")[2]  # "openai/gpt-4o", as resellers call it, or "models/gemini-2.5-pro"
    for name, url in dict.fromkeys([(model, base_url), (short, base_url), (model, None), (short, None)]):
        listed = _listed(name, usage, at, url, cache_write_1h_tokens)
        if listed is not None:
            return CallCost(listed.total_price, "list", price_list_version())
    return UNKNOWN_COST


def listed_prices(model: str, usage: Usage, at: datetime) -> ModelPrice | None:
    """Return the list prices of a model at that time, per million tokens of each kind; ``None`` if it is not listed.

    Also ``None`` if a kind of tokens in ``usage`` has no price, or if the price depends on the time of day.
    """
    if is_local_or_free(model):
        return None
    for name in dict.fromkeys([model, model.rpartition("/")[2]]):
        listed = _listed(name, usage, at, None)
        if listed is not None:
            conditions = listed.model.prices if isinstance(listed.model.prices, list) else []
            varies = any(hasattr(each.constraint, "start_time") for each in conditions)
            return None if varies else listed.model_price
    return None


def check_prices(prices: Mapping[str, Price | tuple[float, float]]) -> dict[str, Price]:
    """Return a ``Price`` for every model name; ``InvalidArgumentError`` unless each has one, or two numbers.

    >>> check_prices({"my-model": (0.15, 0.60)})["my-model"].output
    Decimal('0.6')
    """
    return {_checked_name(model): _checked_price(model, price) for model, price in prices.items()}


def parse_price(text: str) -> Price:
    """Parse a price in a magic's option: dollars per million tokens, in and out, and the cached and written input.

    >>> parse_price("0.15/0.60")
    Price(input=Decimal('0.15'), output=Decimal('0.60'), cached_input=None, cache_write=None)
    """
    numbers = [part.strip().removeprefix("$") for part in text.split("/")]
    if len(numbers) in (2, 3, 4) and all(_AMOUNT.fullmatch(number) for number in numbers):
        return Price(*map(Decimal, numbers))
    raise InvalidArgumentError(
        f"{text!r:.80} is not a price: give US dollars per million tokens, in and out, such as 0.15/0.60; a third "
        "number is for cached input, a fourth for input written to the cache."
    )


_AMOUNT = re.compile(r"\d{1,9}(?:\.\d{1,12})?|\.\d{1,12}", re.ASCII)


def _checked_name(model: object) -> str:
    if not isinstance(model, str) or not model:
        raise InvalidArgumentError(f"prices has the key {model!r}, which is not a model name. {_PRICES_HINT}")
    return str.__str__(model)


def _checked_price(model: str, price: object) -> Price:
    if isinstance(price, Price):
        return price
    if not isinstance(price, (tuple, list)) or len(price) != 2:  # noqa: PLR2004 - in and out
        raise InvalidArgumentError(f"prices[{model!r}] is {price!r:.80}, not a pair. {_PRICES_HINT}")
    try:
        return Price(*price)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"prices[{model!r}] is {price!r:.80}; both must be finite numbers of at least 0. {_PRICES_HINT}"
        ) from error


# Tags of Ollama (a size, a quantization, or latest) and of OpenRouter's free models: these are not the listed models.
_LOCAL_OR_FREE = re.compile(
    r":(?:latest|free|e?\d+(?:\.\d+)?[bm]\b|\d+x\d+b\b|i?q\d|fp?\d|bf16|int\d|[\w.-]*-(?:i?q\d|fp\d))", re.IGNORECASE
)

# Suffixes that a listed model's name may have: a date, a version, or a stage. Any other suffix makes another model.
_VERSION = re.compile(r"(?:[-@._:]?(?:v?\d+|latest|preview|exp|experimental|beta|instruct|thinking|maas)(?![a-z]))*")
_COMPACT_DATE = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?=\D|$)")


_LITERAL_CLAUSES = frozenset({"starts_with", "contains", "ends_with"})


def is_local_or_free(model: str) -> bool:
    """Return whether a name has the tag of a local or free variant, which is not in the price list.

    >>> is_local_or_free("deepseek-r1:8b"), is_local_or_free("deepseek-r1")
    (True, False)
    """
    return _LOCAL_OR_FREE.search(model) is not None


def _is_whole_match(clause: Any, name: str) -> bool:
    """Return whether a clause of the price list matches the whole name, apart from its version and vendor."""
    if hasattr(clause, "or_"):
        return any(_is_whole_match(each, name) for each in clause.or_)
    if hasattr(clause, "and_"):
        return all(_is_whole_match(each, name) for each in clause.and_)
    if not clause.is_match(name):
        return False
    literal = next((text for kind, text in vars(clause).items() if kind in _LITERAL_CLAUSES), "")
    if not literal or literal.startswith("ft:"):  # equal to the name, an expression for it, or a fine-tuned model
        return True
    before, _, after = name.partition(literal)
    return (not before or before[-1] in "/.:@") and _VERSION.fullmatch(after) is not None


def _listed(
    model: str, usage: Usage, at: datetime, base_url: str | None, cache_write_1h_tokens: int = 0
) -> PriceCalculation | None:
    import genai_prices  # noqa: PLC0415 - 0.2 s, not needed with own prices or without calls

    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=cache_write_1h_tokens,
    )
    try:
        listed = genai_prices.calc_price(tokens, model, provider_api_url=base_url, genai_request_timestamp=at)
    except (LookupError, ValueError):  # a model that is not listed; more cached tokens than input
        return None
    name = model.lower()
    if not any(_is_whole_match(listed.model.match, each) for each in (name, _COMPACT_DATE.sub(r"-\1-\2-\3", name))):
        return None
    # A model priced by the hour or by the image has no price per token: zero would be wrong.
    if usage.input_tokens and getattr(listed.model_price, "input_mtok", None) is None:
        return None
    if usage.output_tokens and getattr(listed.model_price, "output_mtok", None) is None:
        return None
    return listed


def price_list_version() -> str:
    """Return the name and version of the price list."""
    import genai_prices  # noqa: PLC0415 - already imported when this is called

    return f"genai-prices {genai_prices.__version__}"


def usd_per_million(provider: Provider, model: str, at: datetime) -> tuple[Decimal | None, Decimal | None]:
    """Return the price of a model in US dollars per million input and output tokens, ``None`` if it is unknown.

    The price applies to short requests; some models cost more for long ones.
    """
    costs = (provider.price(model, usage, at).usd for usage in (Usage(1000, 0), Usage(0, 1000)))
    input_usd, output_usd = (None if usd is None else usd * 1000 for usd in costs)
    return input_usd, output_usd


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
    low_usd = expected_usd(provider, model, Usage(fewest, 1), at)
    high_usd = expected_usd(provider, model, Usage(most, output_tokens), at)
    if low_usd is None or high_usd is None:
        low_usd = high_usd = None
    else:
        written_usd = expected_usd(provider, model, Usage(most, output_tokens, cache_write_tokens=most), at)
        high_usd = max(high_usd, written_usd or high_usd)  # some providers charge more for cache writes
        again_usd = (_cost_again(turn, provider, model, output_tokens, at) for turn in recent)
        high_usd = max([high_usd, *(usd for usd in again_usd if usd is not None)])
    return CostRange(
        low_usd=low_usd,
        high_usd=high_usd,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        is_limited=max_output_tokens is not None,
    )


def expected_usd(provider: Provider, model: str, usage: Usage, at: datetime) -> Decimal | None:
    """Return the expected cost: by price, or else by earlier costs that the server reported."""
    known = provider.price(model, usage, at).usd
    reported = getattr(provider, "expected_usd", None)
    return reported(model, usage) if known is None and reported is not None else known


def _cost_again(turn: Turn, provider: Provider, model: str, output_tokens: int, at: datetime) -> Decimal | None:
    """Return the cost of a turn, reduced in proportion to its tokens if its answer was longer than the limit."""
    usage = turn.usage
    if turn.cost is None or usage.output_tokens <= output_tokens:
        return turn.cost
    whole = provider.price(model, usage, at).usd
    part = provider.price(model, replace(usage, output_tokens=output_tokens, reasoning_tokens=0), at).usd
    return turn.cost * part / whole if whole and part is not None else turn.cost
