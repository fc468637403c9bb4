"""What was paid, split into input, cached input, output and reasoning, at the prices that were paid."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import InvalidArgumentError, MemoryStore, OpenAIProvider, Usage
from promptkit_nb.token_prices import prices_listed
from promptkit_nb.views.cost_parts import cost_parts_df
from promptkit_nb.views.next_dollar import PARTS, cents_of
from promptkit_nb.views.schemas import COST_PARTS, table_of
from storing import START, rich_state, said

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn

FULL = Usage(1000, 500, cached_tokens=400, reasoning_tokens=100)


def paid(usage: Usage, model: str = "gpt-4o-mini", at: datetime = START) -> Turn:
    """Return a turn that was paid at the price list."""
    price = OpenAIProvider(model, api_key="k").price(model, usage, at)
    return said("x", usage=usage, model=model, cost=price.usd, price_source=price.source, created_at=at)


def parts_of(*turns: Turn, prices: dict[str, tuple[float, float]] | None = None) -> list[dict[str, float | None]]:
    """Return the rows of the parts, with ``None`` where something is missing."""
    store = MemoryStore()
    for turn in turns:
        store.append("a", turn)
    rows = cost_parts_df(store, prices=prices).drop(columns=["model"]).to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def row(**dollars: float) -> dict[str, float]:
    """Return a row in which everything else is nothing."""
    names = [column.name for column in COST_PARTS if column.name != "model"]
    return dict.fromkeys(names, 0.0) | {"unpriced_turns": 0} | dollars


def test_columns_are_those_of_the_schema() -> None:
    """Whether there are rows or none; ``help()`` shows their meaning."""
    expected = {column.name: column.dtype for column in COST_PARTS}
    store = MemoryStore()
    for _ in range(2):
        assert {str(name): str(dtype) for name, dtype in cost_parts_df(store).dtypes.items()} == expected
        store.create(rich_state()) if not store.list() else None
    lines = [line.strip() for line in str(cost_parts_df.__doc__).splitlines()]
    assert set(table_of(COST_PARTS).splitlines()) <= set(lines)


def test_cost_is_split_at_the_price_list() -> None:
    """600 tokens at 0.15, 400 at 0.075, 400 and 100 at 0.60 dollars a million; a cache halves the price of input."""
    assert parts_of(paid(FULL)) == [
        row(
            input_usd=0.00009,
            cached_usd=0.00003,
            output_usd=0.00024,
            reasoning_usd=0.00006,
            cost_usd=0.00042,
            cache_saved_usd=0.00003,
        )
    ]


def test_cost_is_split_at_the_users_own_prices() -> None:
    """Cached input costs as much as other input there."""
    turn = said("x", usage=FULL, model="mine", cost=Decimal(2), price_source="user")
    assert parts_of(turn, prices={"mine": (1, 2)}) == [
        row(input_usd=0.6, cached_usd=0.4, output_usd=0.8, reasoning_usd=0.2, cost_usd=2.0)
    ]


def test_users_price_is_looked_up_by_the_name_asked_for() -> None:
    """As when the call was priced, however the server calls the model that answered."""
    turn = said(
        "x", usage=Usage(1, 1), model="mine-2026-03-01", requested_model="mine", cost=Decimal(1), price_source="user"
    )
    assert parts_of(turn, prices={"mine": (1, 1)}) == [row(input_usd=0.5, output_usd=0.5, cost_usd=1.0)]


def test_users_price_is_not_taken_from_the_list() -> None:
    """Who paid something else for a listed model gets no split by guess."""
    turn = said("x", usage=FULL, model="gpt-4o-mini", cost=Decimal(1), price_source="user")
    assert parts_of(turn) == [row(unsplit_usd=1.0, cost_usd=1.0)]


def test_prices_that_are_none_are_refused() -> None:
    """The error names the model, and what to give."""
    with pytest.raises(InvalidArgumentError, match=r"prices\['mine'\] is 5, not a pair"):
        cost_parts_df(MemoryStore(), prices={"mine": 5})  # type: ignore[dict-item]  # what is tested


def test_usage_that_contradicts_itself_has_no_part_below_nothing() -> None:
    """More cached tokens than input: the cost is split all the same, and adds up."""
    turn = said("x", usage=Usage(100, 100, cached_tokens=300), model="mine", cost=Decimal(1), price_source="user")
    assert parts_of(turn, prices={"mine": (1, 1)}) == [row(cached_usd=0.75, output_usd=0.25, cost_usd=1.0)]


def test_unknown_price_stays_unknown() -> None:
    """It is counted, and no part of it is nothing; beside known costs of the same model it is counted, too."""
    unknown = said("x", usage=FULL, model="mine", cost=None)
    assert parts_of(unknown) == [dict.fromkeys(row()) | {"unpriced_turns": 1}]
    known = paid(Usage(1000, 0))
    both = parts_of(known, said("y", usage=FULL, model="gpt-4o-mini", cost=None))
    assert both == [row(input_usd=0.00015, cost_usd=0.00015, unpriced_turns=1)]


def test_what_has_no_listed_price_is_not_split() -> None:
    """A provider said what it cost: the dollars are there, for what is not known."""
    assert parts_of(said("x", usage=FULL, model="unlisted", cost=Decimal("0.5"))) == [
        row(unsplit_usd=0.5, cost_usd=0.5)
    ]


def test_free_turns_have_no_parts() -> None:
    """Nothing was paid."""
    assert parts_of(said("x", usage=FULL, model="demo", cost=Decimal(0))) == [row()]


def test_replays_and_forks_are_left_out() -> None:
    """They paid for nothing."""
    store = MemoryStore()
    store.append("a", paid(FULL))
    store.append("a", said("again", cost=Decimal(0), replayed=True, saved=Decimal(1), model="gpt-4o-mini"))
    store.fork("a", "b")
    assert cost_parts_df(store)["cost_usd"].tolist() == [0.00042]


def test_long_requests_are_split_at_their_own_price() -> None:
    """This model's input costs twice as much, its output one and a half times, from 200,000 tokens on."""
    short, long = paid(Usage(100_000, 10_000), "gemini-2.5-pro"), paid(Usage(300_000, 10_000), "gemini-2.5-pro")
    assert parts_of(short, long) == [row(input_usd=0.875, output_usd=0.25, cost_usd=1.125)]


def test_price_is_that_of_its_time() -> None:
    """A model that became cheaper is split at each time's prices."""
    early, late = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
    assert prices_listed("o3", 1000, early) != prices_listed("o3", 1000, late)
    (found,) = parts_of(paid(Usage(1000, 0), "o3", early), paid(Usage(0, 1000), "o3", late))
    assert (found["input_usd"], found["output_usd"]) == (0.01, 0.008)


def test_filters_are_those_of_usage() -> None:
    """User, model and time narrow what is split."""
    store = MemoryStore()
    store.append("a", paid(FULL), user_id="alice")
    store.append("b", paid(FULL, "gpt-4o"), user_id="bob")
    assert list(cost_parts_df(store)["model"]) == ["gpt-4o", "gpt-4o-mini"]
    assert list(cost_parts_df(store, user_id="alice")["model"]) == ["gpt-4o-mini"]
    assert list(cost_parts_df(store, model="gpt-4o")["model"]) == ["gpt-4o"]
    assert len(cost_parts_df(store, since="2026-04-01")) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["gpt-4o-mini", "o4-mini", "mine"]), *[st.integers(0, 100_000)] * 4), max_size=10
    )
)
def test_parts_add_up_to_the_cost(calls: list[tuple[str, int, int, int, int]]) -> None:
    """To the nano-dollar, and none is negative."""
    turns = [
        paid(Usage(fresh + cached, said_ + thought, cached, thought), model)
        for model, fresh, cached, said_, thought in calls
    ]
    for parts in parts_of(*turns):
        if parts["cost_usd"] is not None:
            dollars = [parts[name] or 0.0 for name in PARTS.values()]
            assert min(dollars) >= 0
            assert sum(dollars) == pytest.approx(parts["cost_usd"], abs=1e-9)


def test_cents_are_of_all_and_of_each_model() -> None:
    """A model named ``all`` is no total; without any cost there is no row."""
    store = MemoryStore()
    store.append("a", paid(Usage(4000, 0)))
    store.append("a", said("x", model="all", cost=Decimal("0.0006")))
    store.append("a", said("x", model="mine", cost=None))
    found = [(name, cents["input"], cents["prices not known here"]) for name, cents in cents_of(cost_parts_df(store))]
    assert found == [("all", 50.0, 50.0), ("all", 0.0, 100.0), ("gpt-4o-mini", 100.0, 0.0)]
    assert cents_of(cost_parts_df(MemoryStore())) == []
