"""Budgets, and what calls spend under them, entered in the store's ledger.

A call reserves its estimate before it is sent. Its cost is charged in the transaction that stores its turn, so
processes that spend at the same time stay under a limit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import get_args

from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError, StoreError
from promptkit_nb.frontend import typed
from promptkit_nb.plain import plain
from promptkit_nb.stores.base import Charge, Reservation, StateStore
from promptkit_nb.stores.kept_usage import KeptUsage
from promptkit_nb.stores.ledger import Account, Per, scopes_of
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.turns import Usage, utc_now

LEASE = timedelta(minutes=15)
"""No call takes longer, retries included; a reservation that is not settled by then is shown as unconfirmed."""

_PER_WORDS = {"conversation": "per conversation", "user": "per user", "day": "per day (UTC)", "total": "in total"}
_NOTHING = Decimal(0)
_MARK = Decimal(1)


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """US dollars that may be spent per conversation, per user, per UTC day or in total; 0 allows free calls only.

    ``usd`` may be a number or text and is kept exactly. ``warn_at`` is the fraction of it, above 0 and up to 1, at
    which one warning is given. Raises ``InvalidArgumentError`` for anything else.

    >>> from promptkit_nb import Budget
    >>> Budget(0.1, per="day").usd
    Decimal('0.1')
    >>> str(Budget("0.5"))
    '$0.50 per conversation'
    """

    usd: Decimal
    per: Per = "conversation"
    warn_at: float = 0.8

    def __init__(self, usd: Decimal | float | str, per: Per = "conversation", warn_at: float = 0.8) -> None:
        """Check the values, and keep the dollars as a ``Decimal``."""
        if per not in get_args(Per):
            raise InvalidArgumentError(f"Budget(per={per!r}) is unknown: use one of {', '.join(get_args(Per))}.")
        if isinstance(warn_at, bool) or not isinstance(warn_at, (int, float)) or not 0 < warn_at <= 1:
            raise InvalidArgumentError(
                f"Budget(warn_at={warn_at!r}) is not a fraction: give a number above 0 and up to 1, such as 0.8."
            )
        object.__setattr__(self, "usd", _exact_usd(usd))
        object.__setattr__(self, "per", per)
        object.__setattr__(self, "warn_at", warn_at)

    @property
    def warns_at_usd(self) -> Decimal:
        """The spending, in US dollars, at which the warning is given."""
        return self.usd * Decimal(str(self.warn_at))

    def __str__(self) -> str:
        """Return the amount and its scope."""
        return f"{amount_text(self.usd)} {_PER_WORDS[self.per]}"


def parse_budget(text: str) -> Budget:
    """Parse a budget in a magic's option: dollars, and its scope after a slash.

    Raises ``InvalidArgumentError`` for anything else.

    >>> str(parse_budget("5/day")), str(parse_budget("$0.50"))
    ('$5.00 per day (UTC)', '$0.50 per conversation')
    """
    amount, slash, per = text.partition("/")
    try:
        found: Per = next(each for each in get_args(Per) if each == per.strip()) if slash else "conversation"
        return Budget(amount.strip().removeprefix("$"), found)
    except (StopIteration, InvalidArgumentError) as error:
        raise InvalidArgumentError(
            f"{text!r} is not a budget: give US dollars, and optionally a scope after a slash, such as 5, 0.50/user, "
            "5/day or 20/total."
        ) from error


def budget_line(budget: Budget, account: Account, *, user_id: str, now: datetime, unpriced_turns: int = 0) -> str:
    """Return the spent part of a budget, as one line for receipts and tables of usage.

    >>> from datetime import UTC, datetime
    >>> from promptkit_nb.stores.ledger import Account
    >>> at = datetime(2026, 3, 1, tzinfo=UTC)
    >>> budget_line(Budget(1, per="day"), Account(Decimal("0.42")), user_id="alice", now=at, unpriced_turns=3)
    'budget $0.42 of $1.00 today (UTC) · + 3 turns without a price'
    """
    parts = [f"budget {spent_of(budget, account, user_id)}", *open_amounts(account, now)]
    if unpriced_turns:
        parts.append(f"+ {counted(unpriced_turns, 'turn')} without a price")
    return " · ".join(parts)


def spent_of(budget: Budget, account: Account, user_id: str) -> str:
    """Return how much of a budget is spent, such as ``$0.42 of $1.00 today (UTC)``."""
    return f"{amount_text(account.spent)} of {amount_text(budget.usd)} {scope_words(budget.per, user_id)}"


def open_amounts(account: Account, now: datetime) -> list[str]:
    """Return what calls under way may cost, and what calls that never reported may have cost; nothing for zero."""
    unconfirmed = account.unconfirmed(now)
    amounts = {"reserved": account.reserved - unconfirmed, "unconfirmed": unconfirmed}
    return [f"{amount_text(usd)} {name}" for name, usd in amounts.items() if usd]


def scope_words(per: Per, user_id: str) -> str:
    """Return where a budget applies, in words.

    >>> scope_words("user", "alice")
    "for user 'alice'"
    """
    words = {"conversation": "in this conversation", "user": f"for user {user_id!r}", "day": "today (UTC)"}
    return words.get(per, "in total")


def _exact_usd(usd: object) -> Decimal:
    usd = plain(usd)
    if isinstance(usd, (int, float, Decimal, str)) and not isinstance(usd, bool):
        try:
            amount = Decimal(str(usd))  # through text, so that 0.1 is a tenth
        except InvalidOperation:
            amount = Decimal("NaN")
        if amount.is_finite() and amount >= 0:
            return amount.copy_abs()  # drops the sign of -0
    raise InvalidArgumentError(
        f'Budget({usd!r}) is not an amount: give US dollars from 0, as in Budget(5) or Budget("0.50", per="day").'
    )


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """What was spent of a budget, as a line and in percent."""

    line: str
    percent: int


class Spending:
    """What calls spend, entered in a store's ledger.

    Each call counts in four scopes (its conversation, its user, the UTC day, the total), with a budget or without, so
    that a budget set later knows what was spent. Of several budgets of one kind, the lowest is the limit.

    >>> from promptkit_nb import MemoryStore
    >>> store = MemoryStore()
    >>> spending = Spending(store, [Budget(1)])
    >>> call = spending.open("first", "alice", Decimal("0.03"), "gpt-4o-mini")
    >>> call.settle(Decimal("0.02"))
    >>> spending.lines("first", "alice")
    ('budget $0.02 of $1.00 in this conversation',)
    """

    def __init__(
        self, store: StateStore, budgets: Sequence[Budget] = (), *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """Spend under these budgets; ``clock`` returns the time."""
        self._store = store
        self._budgets = tuple(budgets)
        self._limits = {each.per: each for each in sorted(budgets, key=lambda each: each.usd, reverse=True)}
        self._clock = clock

    @property
    def has_budgets(self) -> bool:
        """Whether a budget is set, so that calls need an estimate."""
        return bool(self._budgets)

    def open(self, conversation_id: str, user_id: str, estimate_usd: Decimal | None, model: str) -> OpenCall:
        """Reserve what a call may cost, in US dollars, before it is sent; 0 is always allowed.

        ``None`` is an unknown price, which is fine without a budget: the call is charged once its cost is known.

        Raises:
            BudgetExceededError: The call could exceed a budget; nothing stays reserved.
            InvalidArgumentError: There is a budget and the price is unknown.
            StoreUnavailableError: The answer could not be stored, because the store's server may evict it.
        """
        check_keeps = getattr(self._store, "check_keeps", None)  # of stores on a server
        if check_keeps is not None:
            check_keeps()
        if estimate_usd is None and self._budgets:
            raise InvalidArgumentError(
                f"The price of {model!r} is unknown, so a budget cannot be enforced; nothing was sent. Give dollars "
                f"per million tokens, in and out: in a cell %chat_setup --price {model}=0.15/0.60, in Python "
                f"OpenAIProvider(prices={{{model!r}: (0.15, 0.60)}}). Or remove the budget: in a cell "
                "%chat_setup --budget none."
            )
        call = OpenCall(
            store=self._store,
            budgets=self._budgets,
            conversation_id=conversation_id,
            user_id=user_id,
            opened_at=self._clock(),
            unknown_usd=(estimate_usd or _NOTHING) if self._budgets else _NOTHING,
        )
        if estimate_usd:
            call.reservation = self._reserve(call.scopes, estimate_usd, user_id)
        return call

    def lines(self, conversation_id: str, user_id: str, *, unpriced_turns: int = 0) -> tuple[str, ...]:
        """Return one line for each budget: what was spent of it, what is reserved, how many turns have no price."""
        return tuple(each.line for each in self.spent(conversation_id, user_id, unpriced_turns=unpriced_turns))

    def spent(self, conversation_id: str, user_id: str, *, unpriced_turns: int = 0) -> tuple[SpentBudget, ...]:
        """Return what was spent of each budget."""
        now = self._clock()
        scopes = scopes_of(conversation_id, user_id, now)
        found = []
        for budget in self._budgets:
            account = self._store.spending(scopes[budget.per])
            line = budget_line(budget, account, user_id=user_id, now=now, unpriced_turns=unpriced_turns)
            percent = round(100 * account.spent / budget.usd) if budget.usd else 100
            found.append(SpentBudget(line, percent))
        return tuple(found)

    def _reserve(self, scopes: Mapping[Per, str], usd: Decimal, user_id: str) -> Reservation:
        limits = {scopes[per]: budget.usd for per, budget in self._limits.items()}
        try:
            return self._store.reserve(tuple(scopes.values()), usd, limit=limits or None, lease=LEASE)
        except BudgetExceededError as error:
            raise self._exceeded(scopes, usd, user_id) from error

    def _exceeded(self, scopes: Mapping[Per, str], usd: Decimal, user_id: str) -> BudgetExceededError:
        """Return the error for the first budget that has no room for the call."""
        accounts = {per: self._store.spending(scopes[per]) for per in self._limits}
        full = (per for per, at in accounts.items() if at.spent + at.reserved + usd > self._limits[per].usd)
        per = next(full, next(iter(accounts)))  # another process may have settled in between
        budget, account = self._limits[per], accounts[per]
        parts = [f"{amount_text(account.spent)} spent", *open_amounts(account, self._clock())]
        return BudgetExceededError(
            f"The budget of {amount_text(budget.usd)} {scope_words(budget.per, user_id)} would be exceeded: "
            f"{', '.join(parts)}, and this call may cost {amount_text(usd)}. It was not sent; raise the budget, "
            f"lift it with {typed('budget=None')}, or ask for less with {typed('max_output_tokens')} or a "
            "cheaper model."
        )


@dataclass(slots=True, kw_only=True)
class OpenCall:
    """A call under way, from ``Spending.open``: its cost is charged with its turn, or settled without one.

    ``unknown_usd`` is what it counts as if its cost is unknown.
    """

    store: StateStore
    budgets: Sequence[Budget]
    conversation_id: str
    user_id: str
    opened_at: datetime
    unknown_usd: Decimal
    reservation: Reservation | None = None
    is_settled: bool = False

    @property
    def scopes(self) -> Mapping[Per, str]:
        """The scopes of the ledger that the call is charged to; the day is that of its start."""
        return scopes_of(self.conversation_id, self.user_id, self.opened_at)

    def charge(self, cost_usd: Decimal | None) -> Charge | None:
        """Return the ledger entry to write with the turn or summary, ``None`` if there is nothing to enter.

        An unknown cost (``None``) counts as the estimate under a budget, and is not counted without one.
        """
        usd = self.unknown_usd if cost_usd is None else cost_usd
        if self.is_settled or not (usd or self.reservation):
            return None
        return Charge(tuple(self.scopes.values()), usd, self.reservation)

    def charged(self) -> tuple[str, ...]:
        """Close the call after its charge was written, and return warnings; calling it again does nothing."""
        if self.is_settled:
            return ()
        self.is_settled = True
        return tuple(self._warnings())

    def settle(self, cost_usd: Decimal | None, paid: KeptUsage | None = None) -> None:
        """Record the cost and usage of a call that left no turn; calling it again does nothing.

        A call that was never sent costs ``Decimal(0)``. Warnings are left to the next call. A ledger that fails is not
        reported: the error of the call itself matters more.
        """
        charge = self.charge(cost_usd)
        if charge is None and paid is not None and not self.is_settled:  # nothing to charge, but usage to keep
            charge = Charge(tuple(self.scopes.values()), _NOTHING)
        with suppress(StoreError):
            if charge is not None:
                held = self.reservation or self.store.reserve(charge.scopes, charge.usd, limit=None, lease=LEASE)
                keeps = paid is not None and hasattr(self.store, "kept_usage")
                self.store.settle(held, charge.usd, **({"kept": paid} if keeps else {}))
            self.is_settled = True

    def settle_used(self, usage: Usage, cost_usd: Decimal | None, *, provider: str, model: str) -> None:
        """Settle a call that left no turn, with its usage; it counts for the day on which it started."""
        paid = KeptUsage.of(usage, cost_usd, user_id=self.user_id, at=self.opened_at, provider=provider, model=model)
        self.settle(cost_usd, paid)

    def _warnings(self) -> Iterator[str]:
        scopes = self.scopes if self.budgets else {}
        for budget in self.budgets:
            scope = scopes[budget.per]
            account = self.store.spending(scope)
            is_due = budget.usd and account.spent >= budget.warns_at_usd
            if is_due and _is_first_to_warn(self.store, budget, scope):
                how_far = "nearly spent" if account.spent < budget.usd else "spent"
                yield f"The budget is {how_far}: {spent_of(budget, account, self.user_id)}."


def _is_first_to_warn(store: StateStore, budget: Budget, scope: str) -> bool:
    """Return whether no process has warned of this budget yet: the ledger lets only one set the mark."""
    mark = f"warned:{budget.warns_at_usd.normalize()}:{budget.usd.normalize()}:{scope}"
    if store.spending(mark).spent:
        return False
    try:
        reservation = store.reserve([mark], _MARK, limit=_MARK, lease=LEASE)
    except BudgetExceededError:
        return False
    store.settle(reservation, _MARK)
    return True
