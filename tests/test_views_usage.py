"""The view of usage: exact sums of what was paid for, by any keys."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from promptkit_nb import (
    ConversationState,
    InvalidArgumentError,
    MemoryStore,
    Message,
    Summary,
    Turn,
    Usage,
    conversations_df,
    turns_df,
    usage_df,
)
from promptkit_nb.state import Branch
from storing import START, rich_state, said

if TYPE_CHECKING:
    from storing import OpenStore

NANO_USD = Decimal("1e-9")
FIGURES = ["turns", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "total_tokens"]


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """Return rows as tuples, with ``None`` for missing values."""
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame[list(columns)].to_numpy(object)]


class TestGroups:
    """One row per group."""

    def test_days_are_in_utc(self) -> None:
        """A turn belongs to its day in UTC, shown as the start of that day."""
        store = MemoryStore()
        for hour in (23, 25):
            store.append("a", said("x", model="m", created_at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour)))
        assert rows(usage_df(store), "day", "model", "turns") == [
            (pd.Timestamp("2026-03-01", tz="UTC"), "m", 1),
            (pd.Timestamp("2026-03-02", tz="UTC"), "m", 1),
        ]

    @pytest.mark.parametrize(
        ("by", "begin"),
        [("hour", "2026-03-05T07:00"), ("day", "2026-03-05"), ("week", "2026-03-02"), ("month", "2026-03-01")],
    )
    def test_periods_are_shown_as_their_start(self, by: str, begin: str) -> None:
        """Thursday, March 5, 2026, belongs to the week of Monday, March 2."""
        store = MemoryStore()
        store.append("a", said("x", created_at=datetime(2026, 3, 5, 7, 30, tzinfo=UTC)))
        assert usage_df(store, by=by)[by].tolist() == [pd.Timestamp(begin, tz="UTC")]

    @pytest.mark.parametrize("by", [["user_id", "model"], ("user_id", "model"), "user_id,model", "user_id, model"])
    def test_keys_come_as_a_list_or_as_text(self, by: Any) -> None:
        """Key columns come first, in the given order, and sort the rows."""
        store = MemoryStore()
        for user, model in (("bob", "m"), ("alice", "n"), ("alice", "m"), ("alice", "m")):
            store.append(f"{user}'s", said("x", model=model), user_id=user)
        found = usage_df(store, by=by)
        assert list(found.columns[:2]) == ["user_id", "model"]
        assert rows(found, "user_id", "model", "turns") == [("alice", "m", 2), ("alice", "n", 1), ("bob", "m", 1)]

    @pytest.mark.parametrize("by", ["conversation_id", "provider", "cell_id", "finish_reason", "status"])
    def test_every_key_can_be_grouped_by(self, by: str) -> None:
        """Missing values are a group of their own, at the end."""
        store = MemoryStore()
        store.append("a", said("x", provider="p", cell_id="p", finish_reason="p"))
        store.append("p", said("y"))
        found = usage_df(store, by=by)
        assert found["turns"].sum() == 2
        assert str(found[by].dtype) == "category"

    @pytest.mark.parametrize(
        ("by", "message"),
        [
            ("year", "by='year' is unknown: use any of hour, day, week, month, conversation_id"),
            (["day", 5], "by=5 is unknown"),
            (["day", "day"], "names something twice"),
            ("", "by='' is unknown"),
            (5, "by=5 is not a list: give one or several of hour, day"),
            ([["day"]], r"by=\['day'\] is unknown"),
        ],
    )
    def test_unknown_key_is_refused(self, by: Any, message: str) -> None:
        """The error names the key and the valid ones."""
        with pytest.raises(InvalidArgumentError, match=message):
            usage_df(MemoryStore(), by=by)

    def test_without_keys_there_is_one_row(self) -> None:
        """The total of an empty store is a row of zeros."""
        total = usage_df(MemoryStore(), by=[])
        assert rows(total, *FIGURES, "cost_usd", "unpriced_turns") == [(0, 0, 0, 0, 0, 0, 0.0, 0)]


class TestWhatCounts:
    """Everything that was paid for counts, and nothing else."""

    def test_replaced_archived_and_summaries_count(self) -> None:
        """Replaced and archived turns and summaries count; replays and inherited turns do not."""
        store = MemoryStore()
        store.create(rich_state())
        assert rows(usage_df(store, by="status"), "status", "turns", "total_tokens", "cost_usd", "unpriced_turns") == [
            ("archived", 1, 10, 0.001, 0),
            ("current", 2, 20, 0.001, 1),
            ("replaced", 2, 20, 0.002, 0),
            ("summary", 1, 6, 0.002, 0),
        ]

    def test_unknown_prices_are_counted_and_not_guessed(self) -> None:
        """A group without known prices has no cost; otherwise it has their sum and the number of unknown ones."""
        store = MemoryStore()
        store.append("a", said("x", model="mine", cost=None))
        store.append("a", said("y", model="ours", cost=None))
        store.append("a", said("z", model="ours", cost=Decimal("0.5")))
        assert rows(usage_df(store, by="model"), "model", "cost_usd", "unpriced_turns") == [
            ("mine", None, 1),
            ("ours", 0.5, 1),
        ]

    def test_dropped_turns_count_without_day_and_model(self) -> None:
        """Turns that a ``set`` removed count; their day and model are unknown."""
        store = MemoryStore()
        store.create(ConversationState("a", turns=(said("x", model="m"), said("y", cost=None))))
        store.set(replace(store.get("a"), turns=(said("z", model="m"),)))
        assert rows(
            usage_df(store), "model", "turns", "input_tokens", "total_tokens", "cost_usd", "unpriced_turns"
        ) == [
            ("m", 1, 8, 10, 0.001, 0),
            (None, 2, None, 20, 0.001, 1),
        ]
        assert usage_df(store, by=[], since="2020-01-01")["turns"].tolist() == [1]

    def test_fork_costs_nothing(self) -> None:
        """A forked copy is not in the usage."""
        store = MemoryStore()
        store.append("a", said("x"))
        before = usage_df(store, by=[])
        store.fork("a", "b")
        pd.testing.assert_frame_equal(usage_df(store, by=[]), before)


COSTS = st.none() | st.decimals(0, 100, allow_nan=False, places=12)


@settings(max_examples=50)
@given(st.lists(COSTS, max_size=30))
def test_sums_match_the_store(costs: list[Decimal | None]) -> None:
    """The sum is the floating-point number nearest to the store's own total."""
    store = MemoryStore()
    store.create(ConversationState("a", turns=tuple(said("x", cost=cost) for cost in costs)))
    head = store.head("a")
    assert rows(usage_df(store, by=[]), "cost_usd", "unpriced_turns", "total_tokens") == [
        (None if head.total_cost is None else float(head.total_cost), head.unpriced_turns, head.token_count)
    ]


@settings(
    max_examples=3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],  # a seed has nothing to shrink
)
@given(seed=st.integers(0, 2**32))
def test_ten_thousand_turns_agree_to_the_nano_dollar(open_store: OpenStore, seed: int) -> None:
    """This includes unknown prices, replays, interruptions, versions, branches, forks and summaries."""
    store, chance = open_store(), random.Random(seed)  # noqa: S311 - no secret
    for number in range(50):
        store.create(_random_state(f"c{number}", chance))
    store.fork("c1", "fork")
    store.append("fork", _random_turn(chance))
    heads = store.list(sort_by="conversation_id", descending=False)
    paid_usd = sum((head.total_cost for head in heads if head.total_cost is not None), Decimal(0))
    turns = turns_df(store, status="all")
    assert len(turns) >= 10_000
    assert turns["interrupted"].sum() > 4000
    assert turns["cost_usd"].isna().sum() > 500
    assert turns["replayed"].sum() > 500
    usage = usage_df(store, by=["conversation_id", "model", "day", "status"])
    total = usage_df(store, by=[]).iloc[0]
    for frame in (total, usage):
        assert abs(_sum_of(frame["cost_usd"]) - paid_usd) < NANO_USD
    assert total["total_tokens"] == usage["total_tokens"].sum() == sum(head.token_count for head in heads)
    unpriced_turns = sum(head.unpriced_turns for head in heads)
    for frame in (total, usage):
        assert frame["unpriced_turns"].sum() == unpriced_turns
    assert rows(conversations_df(store), "cost_usd") == [
        (None if head.total_cost is None else float(head.total_cost),) for head in heads
    ]


def _sum_of(costs_usd: Any) -> Decimal:
    """Return the exact sum of the known costs."""
    return sum((Decimal(cost) for cost in pd.Series(costs_usd).dropna()), Decimal(0))


def _random_state(conversation_id: str, chance: random.Random) -> ConversationState:
    def turns(count: int) -> tuple[Turn, ...]:
        return tuple(_random_turn(chance) for _ in range(count))

    current = turns(150)
    return ConversationState(
        conversation_id,
        chance.choice(["alice", "bob"]),
        turns=current,
        versions={current[each].id: turns(2) for each in range(10)},
        branches=(Branch(id="b", turns=turns(31), start=3),),
        summaries=(Summary(0, 5, "So far.", Usage(50, 5), _random_cost(chance), "m", START),),
    )


def _random_turn(chance: random.Random) -> Turn:
    replayed = chance.random() < 0.1
    return Turn(
        messages=(Message("user", "Hi"), Message("assistant", "Hello")),
        usage=Usage(chance.randrange(1000), chance.randrange(1000)),
        cost=Decimal(0) if replayed else _random_cost(chance),
        model=chance.choice(["gpt-4o-mini", "o4-mini", "mine", ""]),
        finish_reason=chance.choice(["stop", "interrupted"]),
        created_at=START + timedelta(hours=chance.randrange(1000)),
        replayed=replayed,
        inherited=chance.random() < 0.05,
    )


def _random_cost(chance: random.Random) -> Decimal | None:
    return None if chance.random() < 0.1 else Decimal(chance.randrange(10**9)).scaleb(-chance.choice([9, 10, 12]))
