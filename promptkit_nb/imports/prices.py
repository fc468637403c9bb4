"""Costs of single calls: recorded by the source, or computed from the user's prices or the list prices of that day.

Each call is priced separately, because prices depend on the length of a request. A lookup in the price list takes a
third of a millisecond, so the prices of a model are cached per day, once they gave the same result as the lookup.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from promptkit_nb.pricing import UNKNOWN_COST, CallCost, check_prices, listed_prices, price_list_version, price_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from promptkit_nb.imports.building import Call
    from promptkit_nb.imports.notes import Notes
    from promptkit_nb.pricing import Price


class CallPrices:
    """Prices the calls of one import."""

    def __init__(self, notes: Notes, prices: Mapping[str, Price | tuple[float, float]] | None) -> None:
        """Check the user's prices."""
        self._notes = notes
        self._own = {} if prices is None else check_prices(prices)
        self._listed: dict[tuple[str, date], Any] = {}

    def of(self, call: Call, at: datetime) -> CallCost:
        """Return the cost of a call at the prices of that time, and note a model without a price."""
        if call.cost is not None:
            return CallCost(call.cost, "reported")
        found = UNKNOWN_COST if call.is_unpriceable or not call.has_usage else self._computed(call, at)
        if found.usd is not None:
            return CallCost(_shortest(found.usd), found.source, found.price_list)
        if call.has_usage:
            self._notes.add_unpriced(call.model)
        return found

    def _computed(self, call: Call, at: datetime) -> CallCost:
        if call.model in self._own or call.cached_tokens + call.cache_write_tokens > call.input_tokens:
            return self._exactly(call, at)
        key = call.model, at.date()
        if key not in self._listed:
            exact = self._exactly(call, at)
            listed = None if exact.usd is None else listed_prices(call.model, call.usage, at)
            is_same = listed is not None and _usd_of(call, listed) == exact.usd
            self._listed[key] = listed if is_same else None
            return exact
        listed = self._listed[key]
        usd = None if listed is None else _usd_of(call, listed)
        return self._exactly(call, at) if usd is None else CallCost(usd, "list", price_list_version())

    def _exactly(self, call: Call, at: datetime) -> CallCost:
        return price_of(
            call.model, call.usage, at=at, prices=self._own, cache_write_1h_tokens=call.cache_write_1h_tokens
        )


def _shortest(usd: Decimal) -> Decimal:
    """Return an amount without trailing zeros: equal costs must be stored as equal text to be recognized as unchanged.

    >>> _shortest(Decimal("0.000450")), _shortest(Decimal("100.0"))
    (Decimal('0.00045'), Decimal('100'))
    """
    return usd.normalize() + 0  # which writes 1E+2 as 100


def _usd_of(call: Call, listed: Any) -> Decimal | None:
    """Return the cost of a call from prices per million tokens, ``None`` if a kind of its tokens has no price."""
    input_mtok, output_mtok = (_at_length(getattr(listed, name), call) for name in ("input_mtok", "output_mtok"))
    if (call.input_tokens and input_mtok is None) or (call.output_tokens and output_mtok is None):
        return None
    plain = input_mtok or Decimal(0)
    cached, written, kept = (
        _at_length(getattr(listed, name), call)
        for name in ("cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok")
    )
    written = plain if written is None else written
    micro_usd = (
        (call.input_tokens - call.cached_tokens - call.cache_write_tokens) * plain
        + call.cached_tokens * (plain if cached is None else cached)
        + (call.cache_write_tokens - call.cache_write_1h_tokens) * written
        + call.cache_write_1h_tokens * (written if kept is None else kept)
        + call.output_tokens * (output_mtok or Decimal(0))
    )
    return micro_usd.scaleb(-6)


def _at_length(price: Any, call: Call) -> Decimal | None:
    """Return the price for a request of this length: above a threshold, another price applies to all of its tokens."""
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if call.input_tokens > tier.start]
    found: Decimal = reached[-1] if reached else price.base
    return found
