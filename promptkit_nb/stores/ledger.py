"""The ledger of spending: its scopes, and how its accounts change. It holds no text, and deletions do not change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from promptkit_nb.codec import decode, encode_json
from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError
from promptkit_nb.stores.backend import AccountChange
from promptkit_nb.stores.base import Charge, Reservation
from promptkit_nb.stores.checks import check_usd

Per = Literal["conversation", "user", "day", "total"]


def scopes_of(conversation_id: str, user_id: str, now: datetime) -> dict[Per, str]:
    """Return the four scopes that a call is charged to; days are in UTC.

    ``:`` in ids is escaped, so that scopes cannot collide. A conversation's scope names its user, because another user
    may take the id once the conversation is deleted.

    >>> list(scopes_of("eda:1", "alice", datetime(2026, 3, 1, tzinfo=UTC)).values())
    ['conversation:alice:eda%3A1', 'user:alice', 'day:2026-03-01', 'total']
    """
    owner = _part(user_id)
    return {
        "conversation": f"conversation:{owner}:{_part(conversation_id)}",
        "user": f"user:{owner}",
        "day": f"day:{now.astimezone(UTC).date().isoformat()}",
        "total": "total",
    }


def check_visible(user_id: str, scopes: Iterable[str]) -> None:
    """Raise ``InvalidArgumentError`` if a scope belongs to another user than this one."""
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        if kind in {"user", "conversation"} and rest.partition(":")[0] != _part(user_id):
            raise InvalidArgumentError(f"The scope {scope!r} is another user's: this store is narrowed to {user_id!r}.")


def _part(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A")


@dataclass(frozen=True, slots=True)
class OpenReservation:
    """US dollars that a call may cost; ``expires_at`` is the end of its lease."""

    usd: Decimal
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """One scope: what was spent in US dollars, and what is reserved, by reservation id."""

    spent: Decimal = Decimal(0)
    open: Mapping[str, OpenReservation] = field(default_factory=dict)

    def charged(self, usd: Decimal, reservation_id: str) -> Account:
        """Return the account with one more amount spent, and without this reservation."""
        return Account(self.spent + usd, {key: value for key, value in self.open.items() if key != reservation_id})

    @property
    def reserved(self) -> Decimal:
        """The sum of the open reservations; expired ones count, as their calls may have been paid for."""
        return sum((each.usd for each in self.open.values()), Decimal(0))

    def unconfirmed(self, now: datetime) -> Decimal:
        """The part of ``reserved`` whose lease has expired."""
        return sum((each.usd for each in self.open.values() if each.expires_at <= now), Decimal(0))


def account_of(stored: bytes | None) -> Account:
    """Return a stored account; one that was never written is empty."""
    return Account() if stored is None else decode(stored, Account)


def changes_by_reserving(
    reservation: Reservation, expires_at: datetime, limits: Mapping[str, Decimal], stored: Sequence[bytes | None]
) -> list[AccountChange]:
    """Return how a reservation changes its scopes' accounts; ``BudgetExceededError`` if one would exceed its limit."""
    changes = []
    opened = OpenReservation(reservation.usd, expires_at)
    for scope, previous in zip(reservation.scopes, stored, strict=True):
        account = account_of(previous)
        _check_limit(scope, account, reservation.usd, limits.get(scope))
        changed = Account(account.spent, {**account.open, reservation.id: opened})
        changes.append(AccountChange(scope, previous, encode_json(changed)))
    return changes


def changes_by_settling(reservation: Reservation, usd: Decimal, stored: Sequence[bytes | None]) -> list[AccountChange]:
    """Return how settling changes the accounts in which the reservation is still open."""
    changes = []
    for scope, previous in zip(reservation.scopes, stored, strict=True):
        account = account_of(previous)
        if reservation.id in account.open:
            changes.append(AccountChange(scope, previous, encode_json(account.charged(usd, reservation.id))))
    return changes


def charged_scopes(charge: Charge) -> tuple[str, ...]:
    """Return the scopes whose accounts a charge may change: none if it has neither amount nor reservation."""
    if not (charge.usd or charge.reservation):
        return ()
    reserved = () if charge.reservation is None else charge.reservation.scopes
    return tuple(dict.fromkeys((*charge.scopes, *reserved)))


def changes_by_charging(charge: Charge, stored: Sequence[bytes | None]) -> list[AccountChange]:
    """Return how a charge changes the accounts of its ``charged_scopes``."""
    changes = []
    reservation_id = "" if charge.reservation is None else charge.reservation.id
    for scope, previous in zip(charged_scopes(charge), stored, strict=True):
        account = account_of(previous)
        usd = charge.usd if scope in charge.scopes else Decimal(0)
        if usd or reservation_id in account.open:
            changes.append(AccountChange(scope, previous, encode_json(account.charged(usd, reservation_id))))
    return changes


def limits_of(limit: Decimal | Mapping[str, Decimal] | None, scopes: Sequence[str]) -> Mapping[str, Decimal]:
    """Return the limit of each scope that has one; ``InvalidArgumentError`` for a wrong amount or an unknown scope."""
    if limit is None:
        return {}
    if not isinstance(limit, Mapping):
        check_usd("limit", limit)
        return dict.fromkeys(scopes, limit)
    for scope, usd in limit.items():
        if scope not in scopes:
            raise InvalidArgumentError(f"limit has the scope {scope!r:.80}, which is not in scopes={scopes!r}.")
        check_usd(f"limit[{scope!r}]", usd)
    return limit


def check_reservation(reservation: Reservation) -> None:
    """Raise ``InvalidArgumentError`` unless this is what ``reserve()`` returned."""
    if not isinstance(reservation, Reservation):
        raise InvalidArgumentError(f"{reservation!r:.80} is not a reservation; give what reserve() returned.")


def check_charge(charge: Charge) -> None:
    """Raise ``InvalidArgumentError`` unless this is a charge with a valid amount and reservation."""
    if not isinstance(charge, Charge):
        raise InvalidArgumentError(f"charge={charge!r:.80} is not a charge; give Charge(scopes, usd, reservation).")
    check_usd("charge.usd", charge.usd)
    if charge.reservation is not None:
        check_reservation(charge.reservation)


def _check_limit(scope: str, account: Account, usd: Decimal, limit: Decimal | None) -> None:
    if limit is None or account.spent + account.reserved + usd <= limit:
        return
    raise BudgetExceededError(
        f"The limit of ${limit:f} for {scope!r} would be exceeded: ${account.spent:f} spent, ${account.reserved:f} "
        f"reserved, ${usd:f} requested. Nothing was reserved; raise the limit or request less."
    )
