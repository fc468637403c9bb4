"""Spending: calls reserve their estimate and settle at their cost, in every scope, under every budget."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from promptkit_nb import Budget, BudgetExceededError, InvalidArgumentError
from promptkit_nb.chat.budgets import LEASE, OpenCall, Spending
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.ledger import scopes_of
from promptkit_nb.stores.memory import MemoryBackend, MemoryStore
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.testing.expectations import together
from storing import START, Clock, said

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore

CENT = Decimal("0.01")
NOTHING = [Decimal(0)] * 4
START_TIMEOUT_S = 60


def open_call(spending: Spending, usd: str | None, conversation_id: str = "talk", user_id: str = "alice") -> OpenCall:
    """Open a call with this estimate."""
    return spending.open(conversation_id, user_id, None if usd is None else Decimal(usd), "gpt-4o-mini")


def settled(call: OpenCall, usd: Decimal | None) -> tuple[str, ...]:
    """Settle a call; return the warnings that are due, none if nothing was entered."""
    charge = call.charge(usd)
    call.settle(usd)
    return tuple(call._warnings()) if charge is not None and charge.usd else ()


def spent(store: StateStore, conversation_id: str = "talk", user_id: str = "alice") -> list[Decimal]:
    """Return the amounts spent in the conversation, by the user, on the first day, and in total."""
    return [store.spending(scope).spent for scope in scopes_of(conversation_id, user_id, START).values()]


def reserved(store: StateStore) -> list[Decimal]:
    """Return the amounts reserved in the same scopes."""
    return [store.spending(scope).reserved for scope in scopes_of("talk", "alice", START).values()]


class TestLedger:
    """The entries of the ledger, in every store."""

    @pytest.mark.parametrize("budgets", [[], [Budget(1)], [Budget(1, "day"), Budget(9, "total")]])
    def test_call_reserves_its_estimate_and_settles_at_its_cost(
        self, store: StateStore, clock: Clock, budgets: list[Budget]
    ) -> None:
        """In all four scopes, with budgets and without."""
        call = open_call(Spending(store, budgets, clock=clock), "0.03")
        assert (spent(store), reserved(store)) == (NOTHING, [Decimal("0.03")] * 4)
        assert settled(call, Decimal("0.0123")) == ()
        assert (spent(store), reserved(store)) == ([Decimal("0.0123")] * 4, NOTHING)

    def test_settling_again_changes_nothing(self, store: StateStore, clock: Clock) -> None:
        """Whatever the cost is then; also if nothing was reserved."""
        for usd in ("0.03", None):
            call = open_call(Spending(store, clock=clock), usd, user_id=f"of {usd}")
            call.settle(CENT)
            assert settled(call, Decimal(5)) == ()
            assert store.spending(f"user:of {usd}").spent == CENT

    def test_each_call_counts_in_its_scopes(self, store: StateStore, clock: Clock) -> None:
        """Conversations, users and days are separate; the total includes everything."""
        spending = Spending(store, clock=clock)
        open_call(spending, "0.01").settle(CENT)
        open_call(spending, "0.01", "other").settle(CENT)
        open_call(spending, "0.01", user_id="bob").settle(CENT)
        clock.pass_s(86400)
        open_call(spending, "0.01").settle(CENT)
        assert spent(store) == [2 * CENT, 3 * CENT, 3 * CENT, 4 * CENT]

    def test_refusal_of_the_store_shows_amounts_in_digits(self, store: StateStore) -> None:
        """A direct reservation sees what was spent, however small."""
        store.reserve(["total"], Decimal("9E-7"), limit=None, lease=60)
        with pytest.raises(BudgetExceededError) as caught:
            store.reserve(["total"], Decimal("2E-7"), limit=Decimal("1E-6"), lease=60)
        assert str(caught.value) == (
            "The limit of $0.000001 for 'total' would be exceeded: $0 spent, $0.0000009 reserved, $0.0000002 "
            "requested. Nothing was reserved; raise the limit or request less."
        )

    def test_the_longest_ids_fit_into_scopes(self, store: StateStore, clock: Clock) -> None:
        """And have no special characters that are not escaped."""
        for last in "%:":
            open_call(Spending(store, clock=clock), "0.01", ":" * 999 + last, ":" * 999 + last).settle(CENT)
        assert spent(store, ":" * 1000, ":" * 1000) == [CENT, CENT, 2 * CENT, 2 * CENT]

    def test_call_over_midnight_counts_on_the_day_it_began(self, store: StateStore, clock: Clock) -> None:
        """Its reservation fit into the budget."""
        call = open_call(Spending(store, clock=clock), "0.02")
        clock.pass_s(12 * 3600)
        call.settle(CENT)
        assert (store.spending("day:2026-03-01").spent, store.spending("day:2026-03-02").spent) == (CENT, Decimal(0))

    @pytest.mark.parametrize("cost", [None, Decimal(0)])
    def test_free_and_unpriced_calls_leave_no_trace_without_a_budget(self, cost: Decimal | None) -> None:
        """The store is not called."""
        store = MemoryStore()
        store.close()
        for estimate in ("0", None):
            assert settled(open_call(Spending(store), estimate), cost) == ()

    def test_cost_reported_by_the_answer_is_charged(self, store: StateStore, clock: Clock) -> None:
        """Some servers report the cost of a call."""
        open_call(Spending(store, clock=clock), None).settle(CENT)
        assert (spent(store), reserved(store)) == ([CENT] * 4, NOTHING)

    def test_unknown_cost_counts_as_the_estimate_under_a_budget(self, store: StateStore, clock: Clock) -> None:
        """A budget errs on the safe side; without a budget an unknown cost is not counted."""
        open_call(Spending(store, [Budget(1)], clock=clock), "0.03").settle(None)
        open_call(Spending(store, clock=clock), "0.03").settle(None)
        assert (spent(store), reserved(store)) == ([Decimal("0.03")] * 4, NOTHING)

    def test_unsent_call_releases_its_reservation(self, store: StateStore, clock: Clock) -> None:
        """It settles at zero."""
        spending = Spending(store, [Budget("0.03")], clock=clock)
        open_call(spending, "0.03").settle(Decimal(0))
        open_call(spending, "0.03")
        assert spent(store) == NOTHING

    def test_budget_set_later_includes_former_spending(self, store: StateStore, clock: Clock) -> None:
        """Of each kind; deleting the conversation does not refund it."""
        open_call(Spending(store, clock=clock), "0.9").settle(Decimal("0.9"))
        store.append("talk", said("x"), user_id="alice")
        store.delete("talk")
        for per in ("conversation", "user", "day", "total"):
            with pytest.raises(BudgetExceededError, match=r"\$0\.90 spent"):
                open_call(Spending(store, [Budget(1, per)], clock=clock), "0.11")


class TestLimits:
    """Over the limit nothing is sent."""

    def test_spending_up_to_the_limit_is_allowed(self, store: StateStore, clock: Clock) -> None:
        """A millionth of a cent above it, it is refused."""
        spending = Spending(store, [Budget(1)], clock=clock)
        open_call(spending, "0.4").settle(Decimal("0.5"))
        open_call(spending, "0.5").settle(Decimal(0))
        with pytest.raises(BudgetExceededError):
            open_call(spending, "0.50000001")

    def test_error_lists_spent_reserved_and_unconfirmed(self, store: StateStore, clock: Clock) -> None:
        """And the estimate of the call, the budget, and what to do."""
        spending = Spending(store, [Budget(1, "day")], clock=clock)
        open_call(spending, "0.02")
        clock.now += LEASE
        open_call(spending, "0.03")
        open_call(spending, "0.93").settle(Decimal("0.93"))
        with pytest.raises(BudgetExceededError) as caught:
            open_call(spending, "0.0212")
        assert str(caught.value) == (
            "The budget of $1.00 today (UTC) would be exceeded: $0.93 spent, $0.03 reserved, $0.02 unconfirmed, and "
            "this call may cost $0.0212. It was not sent; raise the budget, lift it with budget=None, or ask for less "
            "with max_output_tokens or a cheaper model."
        )

    @pytest.mark.parametrize(
        ("budget", "words"),
        [
            (Budget(1), r"The budget of \$1\.00 in this conversation would"),
            (Budget(1, "user"), r"The budget of \$1\.00 for user 'alice' would"),
            (Budget(1, "total"), r"The budget of \$1\.00 in total would"),
        ],
    )
    def test_error_names_the_budget(self, store: StateStore, clock: Clock, budget: Budget, words: str) -> None:
        """In words."""
        with pytest.raises(BudgetExceededError, match=words):
            open_call(Spending(store, [Budget(5, "day"), budget], clock=clock), "2")

    @pytest.mark.parametrize("tight", [0, 1, 2])
    def test_refused_call_reserves_nothing(self, store: StateStore, clock: Clock, tight: int) -> None:
        """Whichever of several budgets refused it."""
        budgets = [Budget(9), Budget(9, "user"), Budget(9, "total")]
        budgets[tight] = Budget(1, budgets[tight].per)
        with pytest.raises(BudgetExceededError):
            open_call(Spending(store, budgets, clock=clock), "2")
        assert (spent(store), reserved(store)) == (NOTHING, NOTHING)

    def test_the_tighter_of_two_budgets_applies(self, store: StateStore, clock: Clock) -> None:
        """And a call is counted once in their scope."""
        spending = Spending(store, [Budget(1, "day"), Budget(3, "day")], clock=clock)
        open_call(spending, "0.6").settle(Decimal("0.6"))
        assert spent(store) == [Decimal("0.6")] * 4
        with pytest.raises(BudgetExceededError, match=r"of \$1\.00"):
            open_call(spending, "0.6")

    def test_daily_budget_is_reset_on_the_next_day(self, store: StateStore, clock: Clock) -> None:
        """At midnight, UTC."""
        spending = Spending(store, [Budget(1, "day")], clock=clock)
        open_call(spending, "1").settle(Decimal(1))
        clock.pass_s(12 * 3600 - 1)
        with pytest.raises(BudgetExceededError):
            open_call(spending, "0.01")
        clock.pass_s(1)
        open_call(spending, "1").settle(Decimal(1))

    def test_users_have_separate_budgets(self, store: StateStore, clock: Clock) -> None:
        """Nor with one conversation's, even if another user takes its id after a deletion."""
        spending = Spending(store, [Budget(1), Budget(1, "user")], clock=clock)
        open_call(spending, "1").settle(Decimal(1))
        open_call(spending, "1", user_id="bob").settle(Decimal(1))
        with pytest.raises(BudgetExceededError):
            open_call(spending, "0.01", "another")

    def test_free_call_is_never_refused(self, store: StateStore, clock: Clock) -> None:
        """It cannot exceed a budget, not even one that is used up or zero."""
        open_call(Spending(store, clock=clock), "2").settle(Decimal(2))
        for budget in (Budget(1), Budget(0)):
            assert settled(open_call(Spending(store, [budget], clock=clock), "0"), Decimal(0)) == ()
            with pytest.raises(BudgetExceededError):
                open_call(Spending(store, [budget], clock=clock), "0.01")

    def test_reservation_of_a_killed_process_still_counts(self, store: StateStore, clock: Clock) -> None:
        """At its estimate: the call may have been billed."""
        spending = Spending(store, [Budget(1)], clock=clock)
        open_call(spending, "0.6")
        clock.now += LEASE + timedelta(days=30)
        with pytest.raises(BudgetExceededError, match=r"\$0\.00 spent, \$0\.60 unconfirmed, and this call may cost"):
            open_call(spending, "0.5")
        assert spending.lines("talk", "alice") == ("budget $0.00 of $1.00 in this conversation · $0.60 unconfirmed",)

    def test_model_without_a_price_is_refused_under_a_budget(self, store: StateStore, clock: Clock) -> None:
        """The error says how to set the price, whatever the size of the budget."""
        with pytest.raises(InvalidArgumentError) as caught:
            Spending(store, [Budget(1)], clock=clock).open("talk", "alice", None, "llama3.2")
        assert str(caught.value) == (
            "The price of 'llama3.2' is unknown, so a budget cannot be enforced; nothing was sent. Give dollars per "
            "million tokens, in and out: in a cell %chat_setup --price llama3.2=0.15/0.60, in Python "
            "OpenAIProvider(prices={'llama3.2': (0.15, 0.60)}). Or remove the budget: in "
            "a cell %chat_setup --budget none."
        )

    def test_failing_store_keeps_no_reservation(self, clock: Clock) -> None:
        """A store that fails in the middle of a reservation rolls it back in all scopes."""
        store = RowStore(FailsAtTheTotal(), None, clock)
        with pytest.raises(ZeroDivisionError):
            open_call(Spending(store, [Budget(1)], clock=clock), "0.5")
        assert reserved(store) == NOTHING

    def test_narrowed_store_uses_the_same_ledger(self, store: StateStore, clock: Clock) -> None:
        """A narrowed store writes to the same ledger."""
        view = Spending(store.for_user("alice"), [Budget(1, "total")], clock=clock)
        open_call(Spending(store, clock=clock), "0.5", user_id="bob").settle(Decimal("0.5"))
        open_call(view, "0.25").settle(Decimal("0.25"))
        with pytest.raises(BudgetExceededError):
            open_call(view, "0.3")
        assert spent(store) == [Decimal("0.25"), Decimal("0.25"), Decimal("0.75"), Decimal("0.75")]


class TestWarnings:
    """At a fraction of the budget one warning is given, once."""

    def test_call_that_reaches_the_fraction_warns(self, store: StateStore, clock: Clock) -> None:
        """The next one has none."""
        spending = Spending(store, [Budget(1)], clock=clock)
        assert settled(open_call(spending, "0.1"), Decimal("0.79")) == ()
        assert settled(open_call(spending, "0.1"), CENT) == (
            "The budget is nearly spent: $0.80 of $1.00 in this conversation.",
        )
        assert settled(open_call(spending, "0.1"), CENT) == ()

    def test_call_that_uses_up_a_budget_warns(self, store: StateStore, clock: Clock) -> None:
        """It may cost more than estimated, and more than was left."""
        (warning,) = settled(open_call(Spending(store, [Budget(1, "total")], clock=clock), "0.5"), Decimal("1.25"))
        assert warning == "The budget is spent: $1.25 of $1.00 in total."

    def test_one_of_two_kernels_warns(self, store: StateStore, clock: Clock) -> None:
        """Of concurrent calls, only the one that settles past the fraction warns."""
        first, second = (Spending(store, [Budget(1, "day", warn_at=0.5)], clock=clock) for _ in range(2))
        calls = [open_call(first, "0.3"), open_call(second, "0.3"), open_call(first, "0.3")]
        assert [len(settled(call, Decimal("0.3"))) for call in calls] == [0, 1, 0]

    def test_one_of_many_threads_warns(self, store: StateStore, clock: Clock) -> None:
        """Twenty calls settle at once, and all of them may see that the fraction is reached."""
        spending = Spending(store, [Budget(1)], clock=clock)
        calls = [open_call(spending, "0.05") for _ in range(20)]
        warned: list[str] = []
        assert together([lambda call=call: warned.extend(settled(call, Decimal("0.05"))) for call in calls]) == []  # type: ignore[misc]
        assert len(warned) == 1

    def test_budget_that_is_mostly_spent_warns_at_the_next_call(self, store: StateStore, clock: Clock) -> None:
        """No warning was given before."""
        open_call(Spending(store, clock=clock), "0.9").settle(Decimal("0.9"))
        spending = Spending(store, [Budget(1, "user")], clock=clock)
        assert settled(open_call(spending, "0.01"), CENT) == (
            "The budget is nearly spent: $0.91 of $1.00 for user 'alice'.",
        )

    def test_another_budget_warns_again(self, store: StateStore, clock: Clock) -> None:
        """A raised budget, at its own fraction; the same amount written differently is the same budget."""
        assert len(settled(open_call(Spending(store, [Budget(1)], clock=clock), "0.9"), Decimal("0.9"))) == 1
        for budget, count in ((Budget("1.00"), 0), (Budget(2), 0), (Budget("1.05"), 1), (Budget(1.05), 0)):
            assert len(settled(open_call(Spending(store, [budget], clock=clock), "0.01"), CENT)) == count

    def test_each_budget_and_day_warns_separately(self, store: StateStore, clock: Clock) -> None:
        """Two reached at once give two warnings; a new day has a new budget."""
        spending = Spending(store, [Budget(1, "day"), Budget(2, "total", warn_at=0.4)], clock=clock)
        assert settled(open_call(spending, "0.9"), Decimal("0.9")) == (
            "The budget is nearly spent: $0.90 of $1.00 today (UTC).",
            "The budget is nearly spent: $0.90 of $2.00 in total.",
        )
        clock.pass_s(86400)
        assert len(settled(open_call(spending, "0.9"), Decimal("0.9"))) == 1

    def test_free_call_does_not_warn(self, store: StateStore, clock: Clock) -> None:
        """It spent nothing."""
        open_call(Spending(store, clock=clock), "0.9").settle(Decimal("0.9"))
        assert settled(open_call(Spending(store, [Budget(1)], clock=clock), "0"), Decimal(0)) == ()


class TestLines:
    """The lines of ``%chat_usage`` and receipts."""

    def test_each_budget_has_its_line(self, store: StateStore, clock: Clock) -> None:
        """In the given order; without a budget there is none."""
        spending = Spending(store, [Budget(1, "day"), Budget(5, "total")], clock=clock)
        open_call(spending, "0.42").settle(Decimal("0.42"))
        open_call(spending, "0.03")
        assert spending.lines("talk", "alice", unpriced_turns=3) == (
            "budget $0.42 of $1.00 today (UTC) · $0.03 reserved · + 3 turns without a price",
            "budget $0.42 of $5.00 in total · $0.03 reserved · + 3 turns without a price",
        )
        assert Spending(store, clock=clock).lines("talk", "alice") == ()


class TestProcesses:
    """Processes that spend at the same time stay under the limit together."""

    @pytest.mark.parametrize(("kind", "processes"), [("disk", 10), ("redis", 4)])
    def test_exactly_the_budget_is_spent(
        self, tmp_path: Path, request: pytest.FixtureRequest, kind: str, processes: int
    ) -> None:
        """With calls of 3 cents, known in advance, 33 fit into a dollar, whichever process makes them."""
        store_of = _store_of(kind, tmp_path, request)
        assert sum(_spend_together(store_of, processes, estimate="0.03")) == 33
        with store_of() as store:
            account = store.spending("total")
        assert (account.spent, account.reserved) == (Decimal("0.99"), Decimal(0))

    def test_they_stop_only_if_open_estimates_leave_no_room(
        self, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """Calls of 3 cents, estimated at 5, are refused only if the spent and reserved amounts leave no room."""
        store_of = _store_of("disk", tmp_path, request)
        calls = sum(_spend_together(store_of, 10, estimate="0.05"))
        with store_of() as store:
            account = store.spending("total")
        assert (account.spent, account.reserved) == (calls * Decimal("0.03"), Decimal(0))
        assert 1 - 10 * Decimal("0.05") < account.spent <= 1


class FailsAtTheTotal(MemoryBackend):
    """Cannot write the account of the total."""

    def put_account(self, scope: str, value: bytes) -> None:
        """Raise for the total."""
        if scope == "total":
            raise ZeroDivisionError
        super().put_account(scope, value)


def _store_of(kind: str, path: Path, request: pytest.FixtureRequest) -> Callable[[], StateStore]:
    if kind == "disk":
        return partial(DiskStore, path)
    return partial(RedisStore, request.getfixturevalue("redis_url"), prefix=f"{uuid4()}:")


def _spend_together(store_of: Callable[[], StateStore], processes: int, *, estimate: str) -> list[int]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _wait_for_all, (context.Barrier(processes),)) as pool:
        return pool.map(partial(_spend, estimate=Decimal(estimate)), [store_of] * processes, chunksize=1)


def _wait_for_all(barrier: Barrier) -> None:
    barrier.wait(START_TIMEOUT_S)


def _spend(store_of: Callable[[], StateStore], estimate: Decimal) -> int:
    """Make calls of 3 cents until one is refused; return how many succeeded."""
    calls = 0
    with store_of() as store:
        spending = Spending(store, [Budget(1, "total")])
        while True:
            try:
                call = spending.open(f"talk {calls}", "alice", estimate, "gpt-4o-mini")
            except BudgetExceededError:
                return calls
            call.settle(Decimal("0.03"))
            calls += 1
