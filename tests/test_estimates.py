"""Estimates: the possible cost of a call before it is sent, never below the cost of similar calls."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import Message, OpenAIProvider, Turn, Usage
from promptkit_nb.pricing import CostRange, cost_range

if TYPE_CHECKING:
    from collections.abc import Sequence

AT = datetime(2026, 3, 1, tzinfo=UTC)
PROVIDER = OpenAIProvider("mine", api_key="none", prices={"mine": (1, 10), "free": (0, 0)})


def turn(output_tokens: int, cost: str | None = "0.001", model: str = "mine", **fields: Any) -> Turn:
    """Return a turn with this many output tokens and this cost."""
    usage = Usage(100, output_tokens)
    dollars = None if cost is None else Decimal(cost)
    return Turn(messages=(Message("user", "Hi"),), usage=usage, cost=dollars, model=model, **fields)


def estimate(
    model: str = "mine",
    input_tokens: int = 2000,
    max_output_tokens: int | None = None,
    turns: Sequence[Turn] = (),
    factor: float = 1.0,
) -> CostRange:
    """Return the range at 1 dollar per million input tokens and 10 per million output tokens."""
    return cost_range(
        PROVIDER,
        model,
        input_tokens=input_tokens,
        max_output_tokens=max_output_tokens,
        turns=turns,
        at=AT,
        factor=factor,
    )


def test_range_is_from_one_token_to_the_most_that_is_allowed() -> None:
    """2,000 input tokens cost 0.002; one output token costs 0.00001, and 500 cost 0.005."""
    found = estimate(max_output_tokens=500)
    assert (found.low_usd, found.high_usd) == (Decimal("0.00201"), Decimal("0.007"))
    assert (found.input_tokens, found.output_tokens, found.is_limited) == (2000, 500, True)


def test_listed_price_is_that_of_the_time() -> None:
    """o3 cost five times as much before June 2025."""
    options: dict[str, Any] = {"input_tokens": 1_000_000, "max_output_tokens": 1_000_000, "turns": ()}
    assert cost_range(PROVIDER, "o3", at=AT, **options).high_usd == Decimal(10)
    assert cost_range(PROVIDER, "o3", at=datetime(2025, 5, 1, tzinfo=UTC), **options).high_usd == Decimal(50)


def test_answer_without_a_limit_has_a_thousand_tokens_at_least() -> None:
    """Earlier short answers do not lower the estimate."""
    assert estimate(turns=[turn(40)]).output_tokens == 1000
    assert estimate().high_usd == Decimal("0.012")
    assert not estimate().is_limited


def test_answer_without_a_limit_may_be_as_long_as_the_longest_recent_one() -> None:
    """Of this model, as requested or by its dated name; other models do not count."""
    turns = [turn(3000), turn(2500, requested_model="other"), turn(9000, model="other")]
    assert estimate(turns=turns).output_tokens == 3000
    assert estimate(turns=[turn(4000, model="mine-2026", requested_model="mine")]).output_tokens == 4000


def test_only_recent_turns_are_looked_at() -> None:
    """An answer 20 turns ago is ignored."""
    assert estimate(turns=[turn(5000), *[turn(10)] * 19]).output_tokens == 5000
    assert estimate(turns=[turn(5000), *[turn(10)] * 20]).output_tokens == 1000


def test_limit_holds_however_long_answers_were() -> None:
    """A limited answer cannot be longer."""
    assert estimate(max_output_tokens=10, turns=[turn(3000)]).output_tokens == 10


def test_server_that_counts_more_makes_the_high_estimate_higher() -> None:
    """By half more: 3,000 input tokens; the low estimate and the displayed count stay."""
    found = estimate(max_output_tokens=500, factor=1.5)
    assert (found.low_usd, found.high_usd, found.input_tokens) == (Decimal("0.00201"), Decimal("0.008"), 2000)


def test_server_that_counts_less_makes_the_low_estimate_lower() -> None:
    """By half: 1,000 input tokens; the high estimate stays on the safe side."""
    found = estimate(max_output_tokens=500, factor=0.5)
    assert (found.low_usd, found.high_usd) == (Decimal("0.00101"), Decimal("0.007"))


def test_high_estimate_is_never_below_what_a_recent_turn_did_cost() -> None:
    """A server's own figure may be far above ours again; unknown costs and other models do not count."""
    turns = [turn(10, "0.5"), turn(10, "0.2"), turn(10, None), turn(10, "9", model="other")]
    assert estimate(max_output_tokens=500, turns=turns).high_usd == Decimal("0.5")


def test_unknown_price_is_unknown() -> None:
    """Not zero, and not the cost of another model; the tokens are known nevertheless."""
    found = estimate("llama3.2", turns=[turn(10, "0.5", model="llama3.2")])
    assert (found.low_usd, found.high_usd, found.output_tokens) == (None, None, 1000)


def test_free_is_what_the_user_says_is_free() -> None:
    """Its range is zero."""
    found = estimate("free", max_output_tokens=10)
    assert (found.low_usd, found.high_usd) == (Decimal(0), Decimal(0))
    assert str(found) == "$0.00 (2,000 tokens in, at most 10 out)"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            CostRange(low_usd=Decimal("0.0003"), high_usd=Decimal("0.0021"), input_tokens=412, output_tokens=1000),
            "between $0.0003 and $0.0021 (412 tokens in, at most 1,000 out)",
        ),
        (
            CostRange(
                low_usd=Decimal("0.000012"), high_usd=Decimal(2), input_tokens=9, output_tokens=10, is_limited=False
            ),
            "between $0.000012 and $2.00 (9 tokens in, usually at most 10 out)",
        ),
        (
            CostRange(low_usd=None, high_usd=None, input_tokens=412, output_tokens=1000),
            "price unknown (412 tokens in, at most 1,000 out)",
        ),
    ],
)
def test_range_reads_as_dollars_and_tokens(found: CostRange, text: str) -> None:
    """For a dry run; it says if the answer has no limit."""
    assert str(found) == text


@given(
    st.integers(0, 200_000),
    st.integers(1, 20_000),
    st.floats(0.1, 8),
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 20_000), st.decimals(0, 5, places=6)), max_size=5),
)
def test_call_within_the_factor_never_costs_more_than_the_high_estimate(
    input_tokens: int, max_output_tokens: int, factor: float, share: float, earlier: list[tuple[int, Decimal]]
) -> None:
    """Whatever the conversation: counts up to the factor and answers up to the limit are covered."""
    turns = [turn(output, str(cost)) for output, cost in earlier]
    found = estimate("mine", input_tokens, max_output_tokens, turns, factor)
    used = Usage(int(input_tokens * factor), 1 + int((max_output_tokens - 1) * share))
    cost = PROVIDER.price("mine", used, AT).usd
    assert cost is not None
    assert found.low_usd is not None
    assert found.high_usd is not None
    assert cost <= found.high_usd
    assert found.low_usd <= found.high_usd
