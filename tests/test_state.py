"""The state: its messages, and its totals, which never fall and never count unknown as zero."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.state import Branch, ConversationState, Summary, Totals, carry_totals
from promptkit_nb.turns import Message, Turn, Usage

AT = datetime(2026, 3, 1, tzinfo=UTC)
COSTS = st.none() | st.decimals(0, 100, places=6)
TURNS = st.lists(
    st.builds(
        Turn,
        messages=st.just((Message("user", "hi"), Message("assistant", "hello"))),
        usage=st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6)),
        cost=COSTS,
        replayed=st.booleans(),
        inherited=st.booleans(),
    ),
    max_size=6,
).map(tuple)
SUMMARIES = st.lists(
    st.builds(Summary, st.just("a"), st.just("b"), st.text(max_size=5), st.just(Usage(3, 1)), COSTS), max_size=2
).map(tuple)
STATES = st.builds(
    lambda turns, previous, left, summaries: ConversationState(
        "a",
        turns=turns,
        versions={turns[0].id: previous} if turns else {},
        branches=(Branch(id="b", turns=left, start=0),),
        summaries=summaries,
    ),
    TURNS,
    TURNS,
    TURNS,
    SUMMARIES,
)


def turn(cost: str | None = "0.001", **fields: bool) -> Turn:
    """Return a turn of ten tokens with this cost in dollars."""
    messages = (Message("user", "hi"), Message("assistant", "hello"))
    return Turn(messages=messages, usage=Usage(8, 2), cost=None if cost is None else Decimal(cost), **fields)  # type: ignore[arg-type]  # fields of Turn


def test_system_message_comes_first_where_there_is_one() -> None:
    """Then the messages of the turns; an empty system prompt counts as one."""
    state = ConversationState("a", turns=(turn(), turn()))
    assert [message.role for message in state.messages] == ["user", "assistant"] * 2
    with_prompt = replace(state, system_prompt="You help.")
    assert with_prompt.messages == (Message("system", "You help."), *state.messages)
    assert replace(state, system_prompt="").messages[0] == Message("system", "")


def test_new_conversation_has_spent_nothing() -> None:
    """Zero is known: no turn, no missing price."""
    state = ConversationState("a")
    assert (state.token_count, state.total_cost, state.unpriced_turns) == (0, Decimal(0), 0)


@pytest.mark.parametrize(
    ("costs", "expected", "unpriced"),
    [
        (["0.1", "0.2"], Decimal("0.3"), 0),
        ([None], None, 1),
        ([None, None], None, 2),
        ([None, "0.2"], Decimal("0.2"), 1),
        ([None, "0"], Decimal(0), 1),
    ],
)
def test_unknown_cost_is_never_zero(costs: list[str | None], expected: Decimal | None, unpriced: int) -> None:
    """``None`` if no turn has a price, else the known sum and the number of missing prices."""
    state = ConversationState("a", turns=tuple(turn(cost) for cost in costs))
    assert (state.total_cost, state.unpriced_turns) == (expected, unpriced)
    assert state.token_count == 10 * len(costs)


def test_replayed_and_inherited_turns_cost_nothing_here() -> None:
    """They were paid before or elsewhere, so their missing price does not count."""
    state = ConversationState("a", turns=(turn(replayed=True), turn(inherited=True), turn(None, inherited=True)))
    assert (state.token_count, state.total_cost, state.unpriced_turns) == (0, Decimal(0), 0)


def test_versions_branches_and_summaries_were_paid_too() -> None:
    """Four turns and a summary: 10 tokens each, and 6."""
    current = turn()
    state = ConversationState(
        "a",
        turns=(current,),
        versions={current.id: (turn(), turn(None))},
        branches=(Branch(id="b", turns=(turn(),), start=1),),
        summaries=(Summary("x", "y", "text", Usage(5, 1), Decimal("0.002")),),
    )
    assert (state.token_count, state.total_cost, state.unpriced_turns) == (46, Decimal("0.005"), 1)


def test_money_is_exact() -> None:
    """A thousand times a tenth of a cent is a dollar."""
    assert ConversationState("a", turns=(turn("0.001"),) * 1000).total_cost == Decimal(1)


@given(STATES, st.data())
def test_what_is_forgotten_stays_in_the_totals(previous: ConversationState, data: st.DataObject) -> None:
    """Whatever part of a state is overwritten, tokens, cost and missing prices include everything spent."""
    keep = data.draw(st.integers(0, len(previous.turns)))
    versions = dict(previous.versions) if keep and data.draw(st.booleans()) else {}
    branches = previous.branches if data.draw(st.booleans()) else ()
    summaries = previous.summaries[: data.draw(st.integers(0, 2))]
    shorter = replace(previous, turns=previous.turns[:keep], versions=versions, branches=branches, summaries=summaries)
    assert carry_totals(shorter, previous).totals == previous.totals


@given(STATES, TURNS)
def test_totals_never_fall_and_grow_by_what_is_new(previous: ConversationState, new: tuple[Turn, ...]) -> None:
    """Dropping twice, and adding in between."""
    second = carry_totals(ConversationState("a", turns=new), previous)
    third = carry_totals(ConversationState("a"), second)
    assert second.totals == third.totals == previous.totals.plus_paid(new)
    assert third.token_count >= previous.token_count


def test_same_summary_twice_was_paid_once() -> None:
    """Overwriting a state with itself adds nothing."""
    state = ConversationState("a", turns=(turn(),), summaries=(Summary("x", "y", "s", Usage(5, 1), None, "m", AT),))
    assert carry_totals(state, state).totals == state.totals == Totals(16, Decimal("0.001"), 1, 1)


def test_revision_and_forgotten_totals_are_no_part_of_a_comparison() -> None:
    """They belong to the store; all other fields count."""
    state = ConversationState("a", created_at=AT, updated_at=AT)
    assert state == replace(state, revision=7, dropped=Totals(5))
    assert state != replace(state, system_prompt="x")


@pytest.mark.parametrize(
    ("value", "field"),
    [(ConversationState("a"), "turns"), (Totals(), "tokens"), (Branch(id="b", turns=(), start=0), "id")],
)
def test_values_are_frozen(value: object, field: str) -> None:
    """Nothing can change without the store."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, "x")
