"""The ledger of spending: what was spent and what is reserved, by scope; no text, and no delete touches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from promptkit_nb.errors import BudgetExceededError


@dataclass(frozen=True, slots=True)
class OpenReservation:
    """US dollars that a call may cost, until it says what it did cost; ``expires_at`` is the end of its lease."""

    usd: Decimal
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """One scope: what was settled, and what is still open by reservation id."""

    spent: Decimal = Decimal(0)
    open: Mapping[str, OpenReservation] = field(default_factory=dict)

    @property
    def reserved(self) -> Decimal:
        """What the open reservations may cost; one whose lease is over still counts, as its call may have been paid."""
        return sum((each.usd for each in self.open.values()), Decimal(0))

    def unconfirmed(self, now: datetime) -> Decimal:
        """The part of ``reserved`` whose lease is over: nobody will settle it any more."""
        return sum((each.usd for each in self.open.values() if each.expires_at <= now), Decimal(0))


def reserved(
    account: Account, scope: str, reservation_id: str, opened: OpenReservation, *, limit: Decimal | None
) -> Account:
    """Return the account with one more reservation; ``BudgetExceededError`` where that would pass the limit."""
    committed = account.spent + account.reserved
    if limit is not None and committed + opened.usd > limit:
        raise BudgetExceededError(
            f"The limit of ${limit:f} for {scope!r} would be passed: ${account.spent:f} spent, "
            f"${account.reserved:f} reserved, and ${opened.usd:f} more is asked for. Nothing was reserved; raise the "
            "limit, or ask for less."
        )
    return replace(account, open={**account.open, reservation_id: opened})


def settled(account: Account, reservation_id: str, usd: Decimal) -> Account:
    """Return the account with the reservation replaced by what the call did cost; a second time it is as it was."""
    if reservation_id not in account.open:
        return account
    still_open = {key: value for key, value in account.open.items() if key != reservation_id}
    return Account(account.spent + usd, still_open)
