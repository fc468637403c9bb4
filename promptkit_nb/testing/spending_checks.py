"""Checks of the ledger: what was spent, what is reserved, and limits that hold together."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError
from promptkit_nb.testing.expectations import expect, expect_refusal, full_state, together
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore


def reservation_is_settled_once(store: StateStore) -> None:
    """What was reserved counts until it is settled at what it did cost; settling again changes nothing."""
    reservation = store.reserve(["total"], Decimal("0.5"), limit=Decimal(1), lease=60)
    expect("reserved", store.spending("total").reserved, Decimal("0.5"))
    for cost in (Decimal("0.2"), Decimal("0.3")):
        store.settle(reservation, cost)
    account = store.spending("total")
    expect("spent and reserved", (account.spent, account.reserved), (Decimal("0.2"), 0))
    expect("another scope", store.spending("other").spent, 0)


def limit_is_never_passed(store: StateStore) -> None:
    """Up to the limit is fine, above it is ``BudgetExceededError``; without one there is none."""
    store.settle(store.reserve(["total"], Decimal("0.6"), limit=Decimal(1), lease=60), Decimal("0.6"))
    store.reserve(["total"], Decimal("0.4"), limit=Decimal(1), lease=60)
    expect_refusal(
        BudgetExceededError,
        "one more cent",
        lambda: store.reserve(["total"], Decimal("0.01"), limit=Decimal(1), lease=60),
    )
    store.reserve(["total"], Decimal(9), limit=None, lease=60)
    expect("reserved", store.spending("total").reserved, Decimal("9.4"))


def scopes_are_reserved_together(store: StateStore) -> None:
    """Where one scope would pass the limit, nothing is reserved in the others."""
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


def forgotten_reservation_is_unconfirmed(store: StateStore) -> None:
    """After its lease a reservation counts on, as unconfirmed, and may still be settled."""
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


def what_is_no_amount_is_refused(store: StateStore) -> None:
    """Floats, negative and infinite amounts, a lease that is none and scopes that are one text: nothing is reserved."""
    good: dict[str, Any] = {"scopes": ["total"], "usd": Decimal(1), "limit": None, "lease": 60}
    bad: dict[str, Any]
    for bad in (
        {"usd": 0.5},
        {"usd": Decimal(-1)},
        {"usd": Decimal("NaN")},
        {"limit": 0.5},
        {"lease": None},
        {"lease": 0},
        {"scopes": "total"},
        {"scopes": [""]},
    ):
        expect_refusal(InvalidArgumentError, f"reserve({bad})", partial(store.reserve, **good | bad))
    expect("reserved", store.spending("total").reserved, 0)
    reservation = store.reserve(**good)
    expect_refusal(InvalidArgumentError, "settle(-1)", lambda: store.settle(reservation, Decimal(-1)))


CHECKS = (
    reservation_is_settled_once,
    limit_is_never_passed,
    scopes_are_reserved_together,
    many_threads_stay_under_the_limit,
    forgotten_reservation_is_unconfirmed,
    ledger_survives_deletion,
    what_is_no_amount_is_refused,
)
