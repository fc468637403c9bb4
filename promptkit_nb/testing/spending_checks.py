"""Checks of the ledger: what was spent, what is reserved, and limits."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import BudgetExceededError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.stores.base import Charge, StateStore
from promptkit_nb.stores.kept_usage import KeptUsage
from promptkit_nb.testing.expectations import (
    LONG_AGO,
    PRICE_USD,
    expect,
    expect_refusal,
    full_state,
    said,
    texts,
    together,
)
from promptkit_nb.turns import Usage, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable


def reservation_is_settled_once(store: StateStore) -> None:
    """A reserved amount counts until it is replaced by the cost; settling again changes nothing."""
    reservation = store.reserve(["total"], Decimal("0.5"), limit=Decimal(1), lease=60)
    expect("reserved", store.spending("total").reserved, Decimal("0.5"))
    for cost in (Decimal("0.2"), Decimal("0.3")):
        store.settle(reservation, cost)
    account = store.spending("total")
    expect("spent and reserved", (account.spent, account.reserved), (Decimal("0.2"), 0))
    expect("another scope", store.spending("other").spent, 0)


def limit_is_never_exceeded(store: StateStore) -> None:
    """Reserving more than the limit raises ``BudgetExceededError``; ``None`` means no limit."""
    store.settle(store.reserve(["total"], Decimal("0.6"), limit=Decimal(1), lease=60), Decimal("0.6"))
    store.reserve(["total"], Decimal("0.4"), limit=Decimal(1), lease=60)
    expect_refusal(
        BudgetExceededError,
        "one more cent",
        lambda: store.reserve(["total"], Decimal("0.01"), limit=Decimal(1), lease=60),
    )
    store.reserve(["total"], Decimal(9), limit=None, lease=60)
    expect("reserved", store.spending("total").reserved, Decimal("9.4"))


def each_scope_may_have_its_own_limit(store: StateStore) -> None:
    """With a mapping as the limit, one call serves several budgets; scopes that it leaves out have no limit."""
    limits = {"day": Decimal(1), "total": Decimal(2)}
    reserve = partial(store.reserve, ["day", "total", "user"], limit=limits, lease=60)
    reserve(Decimal(1))
    expect_refusal(BudgetExceededError, "one more cent", partial(reserve, Decimal("0.01")))
    for scope in ("day", "total", "user"):
        expect(f"reserved in {scope!r}", store.spending(scope).reserved, Decimal(1))
    store.reserve(["total", "user"], Decimal(1), limit={"total": Decimal(2)}, lease=60)
    expect("reserved in 'user'", store.spending("user").reserved, Decimal(2))


def scopes_are_reserved_together(store: StateStore) -> None:
    """If one scope would exceed the limit, nothing is reserved in the others."""
    store.reserve(["full"], Decimal(1), limit=Decimal(1), lease=60)
    for scopes in (["free", "full"], ["full", "free"]):
        expect_refusal(
            BudgetExceededError,
            f"reserve({scopes})",
            partial(store.reserve, scopes, Decimal("0.1"), limit=Decimal(1), lease=60),
        )
    expect("reserved in 'free'", store.spending("free").reserved, 0)


def many_threads_stay_under_the_limit(store: StateStore) -> None:
    """Of 20 threads that reserve a tenth at once, ten succeed."""
    reserve = partial(store.reserve, ["total"], Decimal("0.1"), limit=Decimal(1), lease=60)
    errors = together([reserve] * 20)
    expect("errors", [type(error) for error in errors], [BudgetExceededError] * 10)
    expect("reserved", store.spending("total").reserved, Decimal("1.0"))


def charge_is_entered_with_what_it_paid_for(store: StateStore) -> None:
    """``append``, ``replace`` and ``add_summary`` add a charge to each of its scopes and close its reservation."""
    first, second = said("first"), said("second")
    changes: tuple[Callable[..., object], ...] = (
        partial(store.append, "a", first),
        partial(store.append, "a", second),
        partial(store.replace, "a", first.id, said("again")),
        partial(store.add_summary, "a", Summary(first.id, second.id, "x")),
    )
    for number, change in enumerate(changes, 1):
        reservation = store.reserve(["total", "day"], Decimal("0.5"), limit=None, lease=60)
        store.reserve(["total"], Decimal("0.25"), limit=None, lease=60)
        change(charge=Charge(("total", "user"), Decimal("0.1"), reservation))
        found = [(store.spending(scope).spent, store.spending(scope).reserved) for scope in ("total", "user", "day")]
        spent = number * Decimal("0.1")
        expect("spent and reserved", found, [(spent, number * Decimal("0.25")), (spent, 0), (0, 0)])
    expect("turns", texts(store.get("a").turns), "again second")


def charge_without_a_reservation_counts(store: StateStore) -> None:
    """Nothing needs to be reserved before; a call that was free leaves no trace."""
    store.append("a", said("x"), charge=Charge(("total",), Decimal("0.1")))
    store.append("a", said("y"), charge=Charge(("total", "free"), Decimal(0)))
    expect("spent", (store.spending("total").spent, store.spending("free").spent), (Decimal("0.1"), 0))
    reservation = store.reserve(["total"], Decimal(1), limit=None, lease=60)
    store.append("a", said("z"), charge=Charge(("total",), Decimal(0), reservation))
    account = store.spending("total")
    expect("spent and reserved", (account.spent, account.reserved), (Decimal("0.1"), 0))


def what_changes_nothing_is_not_charged(store: StateStore) -> None:
    """The same turn again, or a change that is refused, charges nothing and leaves the reservation open."""
    turn, again = said("x"), said("again")
    store.append("a", turn)
    store.replace("a", turn.id, again)
    reservation = store.reserve(["total"], Decimal("0.5"), limit=None, lease=60)
    charge = Charge(("total",), Decimal("0.1"), reservation)
    store.append("a", turn, charge=charge)
    store.append("a", again, charge=charge)
    store.replace("a", again.id, turn, charge=charge)
    expect_refusal(
        ConversationNotFoundError, "append(create=False)", lambda: store.append("b", turn, create=False, charge=charge)
    )
    expect_refusal(
        InvalidArgumentError, "replace of an unknown turn", lambda: store.replace("a", "t", said("y"), charge=charge)
    )
    account = store.spending("total")
    expect("spent and reserved", (account.spent, account.reserved), (0, Decimal("0.5")))


def many_threads_are_charged_exactly(store: StateStore) -> None:
    """Of 20 threads that append at once to two conversations, each is charged once."""
    charge = Charge(("total", "day"), Decimal("0.1"))
    errors = together(partial(store.append, "ab"[n % 2], said(str(n)), charge=charge) for n in range(20))
    expect("errors", errors, [])
    expect("spent", [store.spending(scope).spent for scope in ("total", "day")], [Decimal("2.0")] * 2)


def forgotten_reservation_is_unconfirmed(store: StateStore) -> None:
    """After its lease a reservation still counts, as unconfirmed, and may be settled."""
    reservation = store.reserve(["total"], Decimal("0.5"), limit=None, lease=timedelta(milliseconds=1))
    store.reserve(["total"], Decimal("0.25"), limit=None, lease=60)
    time.sleep(0.002)
    account = store.spending("total")
    expect("reserved", account.reserved, Decimal("0.75"))
    expect("unconfirmed", account.unconfirmed(utc_now()), Decimal("0.5"))
    store.settle(reservation, Decimal("0.1"))
    expect("spent", store.spending("total").spent, Decimal("0.1"))


def ledger_survives_deletion(store: StateStore) -> None:
    """Deleting and cleaning up conversations leaves the ledger as it was."""
    store.set(full_state("a"))
    store.settle(store.reserve(["a"], Decimal(1), limit=None, lease=60), Decimal("0.5"))
    store.delete("a")
    store.set(full_state("a"))
    store.delete_prefix("a")
    store.set(full_state("a"))
    store.cleanup(1)
    expect("spent", store.spending("a").spent, Decimal("0.5"))


def deleted_spending_is_kept(store: StateStore) -> None:
    """What deleted conversations cost is in ``kept_usage``, by user; with ``keep_spending=False`` it is not."""
    deletions: dict[str, Callable[[], object]] = {
        "delete": lambda: store.delete("a"),
        "delete_prefix": lambda: store.delete_prefix("a"),
        "cleanup": lambda: store.cleanup(3600),
    }
    for count, (name, delete) in enumerate(deletions.items(), 1):
        turns = (said("x"), said("y", cost=None), said("z", replayed=True, cost=Decimal(0)), said("i", inherited=True))
        store.create(ConversationState("a", "alice", turns, created_at=LONG_AGO, updated_at=LONG_AGO))
        delete()
        expect(
            f"calls, tokens, cost and unpriced after {name}",
            _kept(store),
            (2 * count, 20 * count, count * PRICE_USD, count),
        )
    expect("of another user", store.kept_usage(user_id="bob"), ())
    for delete in (partial(store.delete, "a"), partial(store.delete_prefix, "a")):
        store.append("a", said("x"))
        delete(keep_spending=False)
    expect("after keep_spending=False", _kept(store), (6, 60, 3 * PRICE_USD, 3))


def turn_that_is_stored_again_counts_once(store: StateStore) -> None:
    """A deleted turn that is stored again, in any way, is no longer in ``kept_usage``."""
    store.append("a", said("x"), user_id="alice")
    state = store.get("a")
    ways: dict[str, Callable[[], object]] = {
        "create": lambda: store.create(state),
        "set": lambda: store.set(state),
        "append": lambda: store.append("a", state.turns[0], user_id="alice"),
    }
    for name, write in ways.items():
        store.delete("a")
        expect("calls after the deletion", _kept(store)[0], 1)
        write()
        expect(f"calls after {name}", _kept(store)[0], 0)


def call_without_a_turn_is_kept(store: StateStore) -> None:
    """``settle`` keeps the usage of a call that left no turn, once."""
    reservation = store.reserve(["total"], Decimal(1), limit=None, lease=60)
    kept = KeptUsage.of(Usage(8, 2), PRICE_USD, user_id="alice", at=LONG_AGO, provider="p", model="m")
    for _ in range(2):
        store.settle(reservation, PRICE_USD, kept=kept)
    expect("kept_usage()", store.kept_usage(), (kept,))


def _kept(store: StateStore) -> tuple[int, int, Decimal, int]:
    kept = store.kept_usage(user_id="alice")
    return (
        sum(each.calls for each in kept),
        sum(each.total_tokens for each in kept),
        sum((each.cost for each in kept), Decimal(0)),
        sum(each.unpriced for each in kept),
    )


def invalid_amounts_are_refused(store: StateStore) -> None:
    """Invalid amounts, leases, scopes and limits raise ``InvalidArgumentError``: nothing is reserved or charged."""
    good: dict[str, Any] = {"scopes": ["total"], "usd": Decimal(1), "limit": None, "lease": 60}
    bad: dict[str, Any]
    for bad in (
        {"usd": 0.5},
        {"usd": Decimal(-1)},
        {"usd": Decimal("NaN")},
        {"limit": 0.5},
        {"limit": {"total": 0.5}},
        {"limit": {"other": Decimal(1)}},
        {"lease": None},
        {"lease": 0},
        {"scopes": "total"},
        {"scopes": [""]},
    ):
        expect_refusal(InvalidArgumentError, f"reserve({bad})", partial(store.reserve, **good | bad))
    expect("reserved", store.spending("total").reserved, 0)
    reservation = store.reserve(**good)
    expect_refusal(InvalidArgumentError, "settle(-1)", lambda: store.settle(reservation, Decimal(-1)))
    for charge in (
        Charge(("total",), Decimal(-1)),
        Charge(("total",), 0.5),  # type: ignore[arg-type]  # a mistake of the caller
        Charge(("",), Decimal(1)),
        Charge("total", Decimal(1)),  # type: ignore[arg-type]  # same
        Decimal(1),
    ):
        append: Callable[..., object] = partial(store.append, "a", said("x"), charge=charge)  # type: ignore[arg-type]  # same
        expect_refusal(InvalidArgumentError, f"append(charge={charge})", append)
    expect("list()", store.list(), [])
    expect("spent", store.spending("total").spent, 0)


CHECKS = (
    reservation_is_settled_once,
    limit_is_never_exceeded,
    each_scope_may_have_its_own_limit,
    scopes_are_reserved_together,
    charge_is_entered_with_what_it_paid_for,
    charge_without_a_reservation_counts,
    what_changes_nothing_is_not_charged,
    many_threads_are_charged_exactly,
    many_threads_stay_under_the_limit,
    forgotten_reservation_is_unconfirmed,
    ledger_survives_deletion,
    deleted_spending_is_kept,
    turn_that_is_stored_again_counts_once,
    call_without_a_turn_is_kept,
    invalid_amounts_are_refused,
)
