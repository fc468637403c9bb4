"""Budgets, and what calls spend under them: entered in the store's ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, get_args

from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError
from promptkit_nb.stores.base import Reservation, StateStore
from promptkit_nb.stores.ledger import Per, scopes_of
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from promptkit_nb.pricing import CostRange
    from promptkit_nb.stores.ledger import Account

_PER_WORDS = {"conversation": "per conversation", "user": "per user", "day": "per day (UTC)", "total": "in total"}


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """US dollars that may be spent per conversation, per user, per UTC day or in total; 0 lets only free calls through.

    ``usd`` may be a number or text and is kept exactly, by its digits. ``warn_at`` is the fraction of it, above 0 and
    up to 1, from which on one warning is given. Raises ``InvalidArgumentError`` for anything else.

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
                f"Budget(warn_at={warn_at!r}) is no fraction of the budget: give a number above 0 and up to 1, as 0.8."
            )
        object.__setattr__(self, "usd", _exact_usd(usd))
        object.__setattr__(self, "per", per)
        object.__setattr__(self, "warn_at", warn_at)

    @property
    def warns_at_usd(self) -> Decimal:
        """What must be spent, in US dollars, for the warning to be given."""
        return self.usd * Decimal(str(self.warn_at))

    def __str__(self) -> str:
        """Return the amount and what it is for."""
        return f"{amount_text(self.usd)} {_PER_WORDS[self.per]}"


def parse_budget(text: str) -> Budget:
    """Return the budget that a magic's line names: dollars, and after a slash what they are for.

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
            f"{text!r} is no budget: give US dollars, and after a slash what they are for, as in 5, 0.50/user, 5/day "
            "or 20/total."
        ) from error


def budget_line(budget: Budget, account: Account, *, user_id: str, now: datetime, unpriced_turns: int = 0) -> str:
    """Return what is spent of a budget, as one line: for receipts and tables of usage.

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
    """Return what was spent of a budget in words, such as ``$0.42 of $1.00 today (UTC)``."""
    return f"{amount_text(account.spent)} of {amount_text(budget.usd)} {scope_words(budget.per, user_id)}"


def open_amounts(account: Account, now: datetime) -> list[str]:
    """Return what calls under way may cost, and what calls that never reported may have cost; nothing for zero."""
    unconfirmed = account.unconfirmed(now)
    amounts = {"reserved": account.reserved - unconfirmed, "unconfirmed": unconfirmed}
    return [f"{amount_text(usd)} {name}" for name, usd in amounts.items() if usd]


def scope_words(per: Per, user_id: str) -> str:
    """Return where a budget counts, in words.

    >>> scope_words("user", "alice")
    "for user 'alice'"
    """
    words = {"conversation": "in this conversation", "user": f"for user {user_id!r}", "day": "today (UTC)"}
    return words.get(per, "in total")


def _exact_usd(usd: object) -> Decimal:
    if isinstance(usd, (int, float, Decimal, str)) and not isinstance(usd, bool):
        try:
            amount = Decimal(str(usd))  # by way of text, so that 0.1 is a tenth
        except InvalidOperation:
            amount = Decimal("NaN")
        if amount.is_finite() and amount >= 0:
            return amount.copy_abs()  # 0 has a sign, too
    raise InvalidArgumentError(
        f'Budget({usd!r}) is no amount: give US dollars from 0, as in Budget(5) or Budget("0.50", per="day").'
    )


# No call is under way for longer, retries and waits included; what is not settled by then is shown as unconfirmed.
LEASE = timedelta(minutes=15)
_NOTHING = Decimal(0)
_MARK = Decimal(1)


class Spending:
    """What calls spend, entered in a store's ledger.

    Each call is entered in four scopes (its conversation, its user, the UTC day, the total), budget or not, so that a
    budget set later knows what was spent. Of several budgets of one kind the tightest is the limit.

    >>> from promptkit_nb import MemoryStore
    >>> store = MemoryStore()
    >>> spending = Spending(store, [Budget(1)])
    >>> call = spending.open("first", "alice", Decimal("0.03"), "gpt-4o-mini")
    >>> call.settle(Decimal("0.02"))
    ()
    >>> spending.lines("first", "alice")
    ('budget $0.02 of $1.00 in this conversation',)
    """

    def __init__(
        self, store: StateStore, budgets: Sequence[Budget] = (), *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """Spend under these budgets; ``clock`` says which day it is."""
        self._store = store
        self._budgets = tuple(budgets)
        self._limits = {each.per: each for each in sorted(budgets, key=lambda each: each.usd, reverse=True)}
        self._clock = clock

    @property
    def has_budgets(self) -> bool:
        """Whether any budget is set, so that calls need an estimate."""
        return bool(self._budgets)

    def open(
        self,
        conversation_id: str,
        user_id: str,
        estimate_usd: Decimal | None,
        model: str,
        *,
        expected: CostRange | None = None,
    ) -> OpenCall:
        """Reserve what a call may cost, in US dollars, before it is sent; 0 needs no room and is always allowed.

        ``None`` stands for an unknown price: fine without a budget, the call is then entered when it is settled.
        With ``expected`` no less is reserved than what the request was counted at and the most that any call with this
        model did cost beyond that today, in whatever conversation.

        Raises:
            BudgetExceededError: The call could pass a budget; nothing stays reserved.
            InvalidArgumentError: There is a budget and the price is unknown.
        """
        if estimate_usd is None and self._budgets:
            raise InvalidArgumentError(
                f"Nobody knows the price of {model!r}, so no budget can hold for it; nothing was sent. Give dollars "
                f"per million tokens, in and out, as in OpenAIProvider(prices={{{model!r}: (0.15, 0.60)}}), or take "
                "the budget away."
            )
        scopes = scopes_of(conversation_id, user_id, self._clock())
        surprise = None
        if estimate_usd and expected is not None and expected.counted_usd is not None:
            kind = "limited" if expected.is_limited else "open"
            surprise = Surprise(self._store, f"beyond:{scopes['day']}:{kind}:{model}", expected.counted_usd)
            estimate_usd = max(estimate_usd, surprise.counted_usd + surprise.largest_usd)
        held = self._reserved(scopes, estimate_usd, user_id) if estimate_usd else ()
        on_unknown = (estimate_usd or _NOTHING) if self._budgets else _NOTHING
        return OpenCall(
            store=self._store,
            budgets=self._budgets,
            scopes=scopes,
            user_id=user_id,
            held=held,
            on_unknown_usd=on_unknown,
            surprise=surprise,
        )

    def lines(self, conversation_id: str, user_id: str, *, unpriced_turns: int = 0) -> tuple[str, ...]:
        """Return one line for each budget: what was spent of it, what is reserved, how many turns have no price."""
        now = self._clock()
        scopes = scopes_of(conversation_id, user_id, now)
        return tuple(
            budget_line(
                budget,
                self._store.spending(scopes[budget.per]),
                user_id=user_id,
                now=now,
                unpriced_turns=unpriced_turns,
            )
            for budget in self._budgets
        )

    def _reserved(self, scopes: Mapping[Per, str], usd: Decimal, user_id: str) -> tuple[Reservation, ...]:
        held: list[Reservation] = []
        try:
            for per, budget in self._limits.items():
                held.append(self._reserved_within(budget, scopes[per], usd, user_id))
            if unlimited := [scope for per, scope in scopes.items() if per not in self._limits]:
                held.append(self._store.reserve(unlimited, usd, limit=None, lease=LEASE))
        except BaseException:
            _settle_all(self._store, held, _NOTHING)
            raise
        return tuple(held)

    def _reserved_within(self, budget: Budget, scope: str, usd: Decimal, user_id: str) -> Reservation:
        try:
            return self._store.reserve([scope], usd, limit=budget.usd, lease=LEASE)
        except BudgetExceededError as error:
            account = self._store.spending(scope)
            parts = [f"{amount_text(account.spent)} spent", *open_amounts(account, self._clock())]
            raise BudgetExceededError(
                f"The budget of {amount_text(budget.usd)} {scope_words(budget.per, user_id)} would be passed: "
                f"{', '.join(parts)}, and this call may cost {amount_text(usd)}. Nothing was sent; raise the budget, "
                "or ask for less with max_output_tokens or a cheaper model."
            ) from error


@dataclass(slots=True, kw_only=True)
class OpenCall:
    """A call under way; ``settle`` ends it. Got from ``Spending.open``.

    ``held`` is what it reserved, if anything; ``on_unknown_usd`` what it counts as where nobody knows its cost;
    ``surprise`` is told what it did cost.
    """

    store: StateStore
    budgets: Sequence[Budget]
    scopes: Mapping[Per, str]
    user_id: str
    held: Sequence[Reservation]
    on_unknown_usd: Decimal
    surprise: Surprise | None = None
    is_settled: bool = False

    def settle(self, cost_usd: Decimal | None) -> tuple[str, ...]:
        """Put what the call did cost in place of what was reserved, and return warnings; a second time is nothing.

        A cost that nobody knows (``None``) counts as the estimate under a budget, and is not counted without one. A
        call that was never sent costs ``Decimal(0)``.
        """
        return tuple(self._warnings()) if self.enter(cost_usd) else ()

    def enter(self, cost_usd: Decimal | None) -> Decimal:
        """Do the same without a warning, which is left to the next call; return what was entered in US dollars."""
        if self.is_settled:
            return _NOTHING
        usd = self.on_unknown_usd if cost_usd is None else cost_usd
        if usd and not self.held:  # it is paid already: no limit can refuse it any more
            self.held = [self.store.reserve(tuple(self.scopes.values()), usd, limit=None, lease=LEASE)]
        _settle_all(self.store, self.held, usd)
        self.is_settled = True
        if self.surprise is not None:
            self.surprise.learn(usd)
        return usd

    def _warnings(self) -> Iterator[str]:
        for budget in self.budgets:
            scope = self.scopes[budget.per]
            account = self.store.spending(scope)
            is_due = budget.usd and account.spent >= budget.warns_at_usd
            if is_due and _is_first_to_warn(self.store, budget, scope):
                how_far = "nearly spent" if account.spent < budget.usd else "spent"
                yield f"The budget is {how_far}: {spent_of(budget, account, self.user_id)}."


@dataclass(frozen=True, slots=True)
class Surprise:
    """How much more than was counted for them calls did cost: an account of the ledger, so that all processes know."""

    store: StateStore
    scope: str
    counted_usd: Decimal

    @property
    def largest_usd(self) -> Decimal:
        """The largest such difference, in US dollars, that of a process included which died while it was entered."""
        account = self.store.spending(self.scope)
        return account.spent + account.reserved

    def learn(self, usd: Decimal) -> None:
        """Keep by how much a call passed what was counted for it, where that is more than any did before."""
        beyond = usd - self.counted_usd
        while (known := self.largest_usd) < beyond:
            try:
                reservation = self.store.reserve([self.scope], beyond - known, limit=beyond, lease=LEASE)
            except BudgetExceededError:  # another process learned meanwhile
                continue
            self.store.settle(reservation, beyond - known)


def _settle_all(store: StateStore, held: Sequence[Reservation], usd: Decimal) -> None:
    for reservation in held:
        store.settle(reservation, usd)


def _is_first_to_warn(store: StateStore, budget: Budget, scope: str) -> bool:
    """Return whether nobody warned of this budget yet, in any process: the ledger lets one of them set the mark."""
    mark = f"warned:{budget.warns_at_usd.normalize()}:{budget.usd.normalize()}:{scope}"
    if store.spending(mark).spent:
        return False
    try:
        reservation = store.reserve([mark], _MARK, limit=_MARK, lease=LEASE)
    except BudgetExceededError:
        return False
    store.settle(reservation, _MARK)
    return True
