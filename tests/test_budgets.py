"""Budgets as values: amounts, scopes, parsing, and display."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import Budget, InvalidArgumentError
from promptkit_nb.chat.budgets import budget_line, parse_budget, scope_words
from promptkit_nb.stores.ledger import Account, OpenReservation, scopes_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


class TestBudget:
    """An amount, its scope, and the warning threshold."""

    @pytest.mark.parametrize(
        ("given_usd", "kept"),
        [(5, "5"), (0.1, "0.1"), ("0.50", "0.50"), (Decimal("1E-7"), "1E-7"), (0, "0"), (-0.0, "0.0")],
    )
    def test_dollars_are_kept_exactly(self, given_usd: float | str | Decimal, kept: str) -> None:
        """Numbers and text keep their digits: 0.1 is exactly a tenth."""
        assert str(Budget(given_usd).usd) == kept

    def test_budget_is_per_conversation_and_warns_at_four_fifths(self) -> None:
        """By default."""
        budget = Budget(5)
        assert (budget.per, budget.warn_at, budget.warns_at_usd) == ("conversation", 0.8, Decimal(4))

    @pytest.mark.parametrize("usd", [-1, "-0.01", float("nan"), float("inf"), "five", "", "$5", True, None, [5]])
    def test_invalid_amount_is_refused(self, usd: object) -> None:
        """The error names the value and shows a valid one."""
        with pytest.raises(InvalidArgumentError) as caught:
            Budget(usd)  # type: ignore[arg-type]  # as a user may mistype it
        assert str(caught.value) == (
            f'Budget({usd!r}) is not an amount: give US dollars from 0, as in Budget(5) or Budget("0.50", per="day").'
        )

    def test_unknown_kind_is_refused(self) -> None:
        """The error lists all four."""
        with pytest.raises(InvalidArgumentError) as caught:
            Budget(5, per="week")  # type: ignore[arg-type]  # as above
        assert str(caught.value) == "Budget(per='week') is unknown: use one of conversation, user, day, total."

    @pytest.mark.parametrize("warn_at", [0, -0.1, 1.01, 80, float("nan"), True, "0.8", None])
    def test_fraction_to_warn_at_is_above_0_and_up_to_1(self, warn_at: object) -> None:
        """80 is not a fraction."""
        with pytest.raises(InvalidArgumentError) as caught:
            Budget(5, warn_at=warn_at)  # type: ignore[arg-type]  # as above
        assert f"Budget(warn_at={warn_at!r}) is not a fraction" in str(caught.value)

    def test_budget_is_a_frozen_value(self) -> None:
        """Equal budgets are equal, whatever the type of the amount; they can be pickled and copied with changes."""
        budget = Budget("5", per="day")
        assert budget == Budget(5.0, "day") == pickle.loads(pickle.dumps(budget))  # noqa: S301 - our own bytes
        assert replace(budget, per="total") == Budget(5, "total")
        with pytest.raises(FrozenInstanceError):
            budget.usd = Decimal(6)  # type: ignore[misc]  # that it cannot be set is the point

    @pytest.mark.parametrize(
        ("budget", "text"),
        [
            (Budget(5), "$5.00 per conversation"),
            (Budget("0.031", "user"), "$0.031 per user"),
            (Budget(1.5, "day"), "$1.50 per day (UTC)"),
            (Budget(1234, "total"), "$1234.00 in total"),
        ],
    )
    def test_budget_prints_amount_and_kind(self, budget: Budget, text: str) -> None:
        """``str`` is for people."""
        assert str(budget) == text


class TestParsing:
    """The value of a magic's option."""

    @pytest.mark.parametrize(
        ("text", "budget"),
        [
            ("5", Budget(5)),
            ("$5", Budget(5)),
            ("0.50/user", Budget("0.5", "user")),
            ("5/day", Budget(5, "day")),
            ("20/total", Budget(20, "total")),
            (" $ 1 / conversation ", Budget(1)),
            ("0", Budget(0)),
        ],
    )
    def test_amount_and_kind(self, text: str, budget: Budget) -> None:
        """Dollars, with or without a dollar sign, and the scope after a slash."""
        assert parse_budget(text) == budget

    @pytest.mark.parametrize("text", ["", "day", "/day", "5/", "5/week", "-5", "5 USD", "nan", "5/day/user", "$$5"])
    def test_anything_else_is_refused(self, text: str) -> None:
        """The error names the text and shows the accepted forms."""
        with pytest.raises(InvalidArgumentError) as caught:
            parse_budget(text)
        assert str(caught.value) == (
            f"{text!r} is not a budget: give US dollars, and optionally a scope after a slash, such as 5, 0.50/user, "
            "5/day or 20/total."
        )


class TestLine:
    """One line for receipts and tables."""

    def test_line_separates_spent_reserved_unconfirmed_and_unpriced(self) -> None:
        """An unconfirmed amount is not shown as reserved as well."""
        open_calls = {
            "a": OpenReservation(Decimal("0.03"), NOW + timedelta(seconds=1)),
            "b": OpenReservation(Decimal("0.02"), NOW),
        }
        line = budget_line(
            Budget(1, "day"), Account(Decimal("0.42"), open_calls), user_id="alice", now=NOW, unpriced_turns=3
        )
        assert line == (
            "budget $0.42 of $1.00 today (UTC) · $0.03 reserved · $0.02 unconfirmed · + 3 turns without a price"
        )

    def test_zero_amounts_are_left_out(self) -> None:
        """Nothing is spent yet."""
        assert (
            budget_line(Budget(1), Account(), user_id="alice", now=NOW) == "budget $0.00 of $1.00 in this conversation"
        )

    def test_one_turn_is_singular(self) -> None:
        """In words."""
        line = budget_line(Budget(1, "total"), Account(), user_id="alice", now=NOW, unpriced_turns=1)
        assert line == "budget $0.00 of $1.00 in total · + 1 turn without a price"

    def test_user_id_is_shown_safely(self) -> None:
        """A user id may be any text, and the line stays one line."""
        assert scope_words("user", "al\nice") == r"for user 'al\nice'"


class TestScopes:
    """The names under which the ledger stores amounts."""

    def test_each_call_has_four_scopes(self) -> None:
        """Conversation, user, day, total."""
        assert scopes_of("first", "alice", NOW) == {
            "conversation": "conversation:alice:first",
            "user": "user:alice",
            "day": "day:2026-03-01",
            "total": "total",
        }

    def test_day_is_in_utc(self) -> None:
        """Whatever the time zone of the clock."""
        tokyo = timezone(timedelta(hours=9))
        assert scopes_of("a", "b", datetime(2026, 3, 2, 8, 59, tzinfo=tokyo))["day"] == "day:2026-03-01"
        assert scopes_of("a", "b", datetime(2026, 3, 2, 9, 0, tzinfo=tokyo))["day"] == "day:2026-03-02"

    @given(ids, ids, ids, ids)
    def test_ids_never_collide(self, one: str, owner: str, other: str, other_owner: str) -> None:
        """Different ids have different scopes, whatever characters they contain."""
        first, second = scopes_of(one, owner, NOW), scopes_of(other, other_owner, NOW)
        assert (first["conversation"] == second["conversation"]) == ((one, owner) == (other, other_owner))
        assert (first["user"] == second["user"]) == (owner == other_owner)
        assert len(set(first.values())) == len(first)

    def test_colons_in_ids_are_escaped(self) -> None:
        """User ``a:b`` with ``c`` is not user ``a`` with ``b:c``; a user whose id looks like a scope is not a scope."""
        assert scopes_of("c", "a:b", NOW)["conversation"] == "conversation:a%3Ab:c"
        assert scopes_of("b:c", "a", NOW)["conversation"] == "conversation:a:b%3Ac"
        assert scopes_of("b%3Ac", "a", NOW)["conversation"] == "conversation:a:b%253Ac"
        assert scopes_of("a", "day:2026-03-01", NOW)["user"] == "user:day%3A2026-03-01"
