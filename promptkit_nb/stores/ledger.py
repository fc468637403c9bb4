"""The ledger of spending: its scopes, its accounts, and the store's verbs for it. No text, and no delete touches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from promptkit_nb.codec import decode, encode
from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError
from promptkit_nb.stores.base import Reservation
from promptkit_nb.stores.checks import check_scopes, check_usd, seconds_of
from promptkit_nb.stores.row_access import RowAccess, writing
from promptkit_nb.turns import new_turn_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.stores.base import Duration

Per = Literal["conversation", "user", "day", "total"]


def scopes_of(conversation_id: str, user_id: str, now: datetime) -> dict[Per, str]:
    """Return the four scopes that a call spends in; the day is that of UTC.

    Ids may hold any text: ``:`` in them is escaped, so that no scope is another's. A conversation's scope names its
    user, as another user may take the id once it is deleted.

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


def is_visible_to(user_id: str, scope: str) -> bool:
    """Return whether a scope says nothing of another user: it is this one's, or everybody's.

    >>> [is_visible_to("alice", scope) for scope in ("user:alice", "conversation:bob:eda", "total")]
    [True, False, True]
    """
    kind, _, rest = scope.partition(":")
    return kind not in {"user", "conversation"} or rest.partition(":")[0] == _part(user_id)


def _part(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A")


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


class LedgerRows(RowAccess):
    """Reserves and settles amounts in the rows of a store; the docstrings of ``StateStore`` hold."""

    @writing
    def reserve(self, scopes: Sequence[str], usd: Decimal, *, limit: Decimal | None, lease: Duration) -> Reservation:
        """Reserve US dollars in every scope, or in none: ``BudgetExceededError`` where one would pass the limit."""
        check_usd("usd", usd)
        if limit is not None:
            check_usd("limit", limit)
        reservation = Reservation(id=new_turn_id(), scopes=check_scopes(scopes), usd=usd)
        opened = OpenReservation(usd, self._clock() + timedelta(seconds=seconds_of("lease", lease)))
        accounts = {
            scope: reserved(self._account(scope), scope, reservation.id, opened, limit=limit)
            for scope in reservation.scopes
        }
        for scope, account in accounts.items():
            self.rows.put_account(scope, encode(account))
        return reservation

    @writing
    def settle(self, reservation: Reservation, usd: Decimal) -> None:
        """Put what the call did cost in place of what was reserved; a second time changes nothing."""
        if not isinstance(reservation, Reservation):
            raise InvalidArgumentError(f"{reservation!r:.80} is no reservation: give what reserve() returned.")
        check_usd("usd", usd)
        for scope in reservation.scopes:
            self.rows.put_account(scope, encode(settled(self._account(scope), reservation.id, usd)))

    def spending(self, scope: str) -> Account:
        """Return what was spent and is reserved in a scope of the ledger."""
        return self.rows.run(lambda: self._account(scope), write=False)

    def _account(self, scope: str) -> Account:
        stored = self.rows.account(scope)
        return Account() if stored is None else decode(stored, Account)
