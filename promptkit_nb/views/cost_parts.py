"""What was paid, split into what was paid for: where the next dollar goes, if it goes as those before."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.pricing import check_prices
from promptkit_nb.token_prices import TokenPrices, prices_given, prices_listed
from promptkit_nb.turns import Usage
from promptkit_nb.views.batches import dollars_of, money_of, names_of
from promptkit_nb.views.filters import Filters, frame_of, is_meant
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import COST_PARTS, described_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import Unpack

    import pandas as pd

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments

    Prices = Mapping[str, tuple[float, float]]

FEWEST_TOKENS = 32_000
STEP_TOKENS = 1_000
"""Lists raise some prices with the length of the input, at 32,000 tokens or later: requests are told apart by these."""

PRICED_MINUTES = 30
"""Lists change some prices with the time of day, at full or half hours."""

_NAMES = ("model", "requested_model", "price_source")
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_SUMS = (*_TOKENS, "cost", "unpriced")
_ZERO = Decimal(0)


@described_by(COST_PARTS)
def cost_parts_df(
    store: StateStore, *, prices: Prices | None = None, **filters: Unpack[FilterArguments]
) -> pd.DataFrame:
    """Return what each model was paid, split by what was paid for; the dearest model first.

    ::

    {columns}

    A cost is split in proportion to what its tokens cost at the prices of that model and time: by the price list that
    comes with the package, or, where the user's own prices were paid, by ``prices`` (dollars per million tokens, in and
    out). Where neither knows them, the cost is in ``unsplit_usd``. The parts of a row add up to its ``cost_usd``;
    without any known cost all of them are missing. What counts, the filters and what they raise are those of
    ``usage_df``; prices that are none raise ``InvalidArgumentError``, too.

    >>> from promptkit_nb import MemoryStore, Message, Turn, Usage
    >>> store = MemoryStore()
    >>> asked, cost = (Message("user", "Hi"),), Decimal("0.00045")
    >>> _ = store.append("a", Turn(messages=asked, usage=Usage(1000, 500), cost=cost, model="gpt-4o-mini"))
    >>> cost_parts_df(store)[["model", "input_usd", "output_usd", "cost_usd"]]
             model  input_usd  output_usd  cost_usd
    0  gpt-4o-mini    0.00015      0.0003   0.00045
    """
    check_prices(prices or {})
    checked = Filters.of(**filters)
    of_model: dict[str | None, Parts] = {}
    for group in _groups(store, checked):
        parts = of_model.setdefault(group["model"], Parts())
        parts.add(group, _token_prices(group, prices or {}))
    dearest = sorted(of_model.items(), key=lambda item: (-item[1].cost, item[0] or ""))
    return frame_of(_table(dearest), COST_PARTS)


@dataclass(slots=True)
class Parts:
    """US dollars by what they were paid for; ``priced`` counts groups whose cost is known."""

    input: Decimal = _ZERO
    cached: Decimal = _ZERO
    output: Decimal = _ZERO
    reasoning: Decimal = _ZERO
    unsplit: Decimal = _ZERO
    cache_saved: Decimal = _ZERO
    priced: int = 0
    unpriced_turns: int = 0

    @property
    def cost(self) -> Decimal:
        """All of it."""
        return self.input + self.cached + self.output + self.reasoning + self.unsplit

    def add(self, group: Mapping[str, Any], prices: TokenPrices | None) -> None:
        """Add the sums of calls that were paid at the same prices."""
        self.unpriced_turns += group["unpriced"]
        cost: Decimal | None = group["cost"]
        if cost is None:
            return
        self.priced += 1
        tokens_in, tokens_out, cached, reasoning = (int(group[name] or 0) for name in _TOKENS)
        usage = Usage(tokens_in, tokens_out, cached, reasoning)
        listed = (_ZERO,) * 4 if prices is None else prices.parts_of(usage)
        if prices is None or not sum(listed):
            self.unsplit += cost
            return
        share = cost / sum(listed)
        self.input += listed[0] * share
        self.cached += listed[1] * share
        self.output += listed[2] * share
        self.reasoning += cost - sum(listed[:3]) * share
        self.cache_saved += prices.cache_saved_of(usage) * share


def _groups(store: StateStore, filters: Filters) -> Iterator[dict[str, Any]]:
    """Yield the sums of the calls that were paid at the same prices."""
    keys = (*_NAMES, "at", "size")
    partial = [_summed(_paid(batch.turns, filters), keys) for batch in batches_of(store, filters)]
    yield from _summed(pa.concat_tables(partial), keys).to_pylist()


def _paid(turns: pa.RecordBatch, filters: Filters) -> pa.Table:
    steps = pc.ceil(pc.divide(pc.cast(turns["input_tokens"], pa.float64()), STEP_TOKENS))
    columns = {name: pc.cast(turns[name], pa.string()) for name in _NAMES}
    columns["at"] = pc.floor_temporal(turns["created_at"], PRICED_MINUTES, "minute")
    columns["size"] = pc.cast(pc.max_element_wise(steps, FEWEST_TOKENS // STEP_TOKENS), pa.int64())
    columns |= {name: turns[name] for name in _SUMS}
    columns["is_priced"] = pc.is_valid(turns["cost"])
    return pa.table(columns).filter(pc.and_(is_meant(turns, filters), pc.greater(turns["paid"], 0)))


def _summed(calls: pa.Table, keys: Iterable[str]) -> pa.Table:
    names = [*keys, "is_priced"]
    summed = calls.group_by(names, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    return pa.table({key: summed[key] for key in names} | {name: summed[f"{name}_sum"] for name in _SUMS})


def _token_prices(group: Mapping[str, Any], prices: Prices) -> TokenPrices | None:
    """Return the prices that were paid, as far as anybody knows: asked in the order in which a call is priced."""
    model, requested, source = (group[name] for name in _NAMES)
    at: datetime | None = group["at"]
    if group["cost"] is None or model is None or at is None:
        return None
    if source == "user":
        return prices_given(prices, requested or model) or prices_given(prices, model)
    size = group["size"] * STEP_TOKENS
    return prices_listed(model, size, at) or prices_listed(requested or model, size, at) or prices_given(prices, model)


def _table(dearest: Iterable[tuple[str | None, Parts]]) -> pa.Table:
    found = list(dearest)

    def dollars(name: str) -> pa.ChunkedArray:
        return dollars_of(
            pa.chunked_array([money_of([getattr(parts, name) if parts.priced else None for _, parts in found])])
        )

    columns = {"model": names_of(model for model, _ in found)}
    columns |= {
        column.name: dollars(column.name.removesuffix("_usd")) for column in COST_PARTS if column.name.endswith("_usd")
    }
    columns["unpriced_turns"] = pa.array([parts.unpriced_turns for _, parts in found], pa.int64())
    return pa.table(columns)
