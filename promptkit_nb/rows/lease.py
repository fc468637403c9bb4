"""Who answers the rows of a conversation: one kernel at a time, so that nothing is paid twice."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.errors import BudgetExceededError, StoreError
from promptkit_nb.stores.base import Reservation, StateStore, clock_of
from promptkit_nb.stores.ledger import scopes_of
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from promptkit_nb.rows.machine_lock import MachineLock
    from promptkit_nb.stores.ledger import Account

LASTS_S = 15.0
"""How long the lease lasts after its holder was last alive, in seconds."""

_ONE = Decimal(1)


class LeaseLostError(Exception):
    """Another run may have taken over, because this one did not run for a while. It never reaches users."""


class RunLease:
    """The right to send requests for a conversation's rows, held by one run at a time.

    It is a reservation in the store's ledger, in a scope of its own that no budget sees: atomic in every store, and
    free again a few seconds after the process that holds it was last alive. On one machine, ``lock`` prevents that it
    is taken over from a process that is only stopped, whose requests under way would be sent twice.

    >>> from promptkit_nb import MemoryStore
    >>> store = MemoryStore()
    >>> mine, other = (RunLease(store, "rows:labels", "default") for _ in range(2))
    >>> mine.take(), other.take(), mine.release(), other.take()
    (True, False, None, True)
    """

    def __init__(
        self,
        store: StateStore,
        conversation_id: str,
        user_id: str,
        *,
        lock: MachineLock | None = None,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Hold nothing yet; ``clock`` returns the time of this machine."""
        self._store = store
        self._lock = lock
        self._scope = f"{scopes_of(conversation_id, user_id, utc_now())['conversation']}:run"
        self._lasts = timedelta(seconds=LASTS_S)
        self._clock = clock
        self._store_clock = clock_of(store, clock)
        self._sleep = sleep
        self._held: Reservation | None = None
        self._holds_until: datetime | None = None

    @contextmanager
    def held(self, on_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lease in the block, and renew it; wait for it first, which ``on_waiting`` is called for once."""
        if not self.take():
            on_waiting()
            self.wait()
        is_over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(is_over,), name="promptkit_nb-rows-lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            is_over.set()
            beating.join()
            self.release()

    def take(self) -> bool:
        """Take the lease if no living run holds it; return whether it is held now."""
        if self._lock is not None and not self._lock.take():
            return False
        is_held = False
        try:
            is_held = self._take_in_store()
        finally:
            if not is_held:
                self._unlock()
        return is_held

    def _take_in_store(self) -> bool:
        account = self._account()
        if account.reserved > account.unconfirmed(self._store_clock()):
            return False
        for dead in account.open:
            self._store.settle(Reservation(dead, (self._scope,), _ONE), Decimal(0))
        try:
            self._hold(limit=_ONE)
        except BudgetExceededError:  # another run was faster
            return False
        return True

    def wait(self) -> None:
        """Take the lease as soon as it is free."""
        while not self.take():
            self._sleep(min(1.0, self._lasts.total_seconds() / 4))

    def check(self) -> None:
        """Raise ``LeaseLostError`` if the lease was not renewed in time; this asks no store."""
        if self._holds_until is None or self._clock() >= self._holds_until:
            raise LeaseLostError

    def renew(self) -> None:
        """Let the lease last longer, unless it is lost already."""
        held = self._held
        if held is None or held.id not in self._account().open:
            self._holds_until = None
            return
        with suppress(LeaseLostError):
            self.check()
            self._hold(limit=2 * _ONE)
            self._store.settle(held, Decimal(0))

    def release(self) -> None:
        """Let others take it."""
        held, self._held, self._holds_until = self._held, None, None
        if held is not None:
            with suppress(StoreError):  # it ends by itself
                self._store.settle(held, Decimal(0))
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _beat(self, is_over: threading.Event) -> None:
        while not is_over.wait(self._lasts.total_seconds() / 4):
            with suppress(StoreError):  # the lease may end meanwhile, and the next answer cannot be stored either
                self.renew()

    def _hold(self, *, limit: Decimal) -> None:
        until = self._clock() + self._lasts
        self._held = self._store.reserve((self._scope,), _ONE, limit=limit, lease=self._lasts)
        self._holds_until = until

    def _account(self) -> Account:
        return self._store.spending(self._scope)
