"""The verbs of a store that concern its ledger of spending; they touch no conversation, and no delete touches them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptkit_nb.codec import decode, encode
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.stores.base import Reservation
from promptkit_nb.stores.checks import check_scopes, check_usd, seconds_of
from promptkit_nb.stores.conversation_rows import ConversationRows, writing
from promptkit_nb.stores.ledger import Account, OpenReservation, reserved, settled
from promptkit_nb.turns import new_turn_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from promptkit_nb.stores.base import Duration


class LedgerRows(ConversationRows):
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
