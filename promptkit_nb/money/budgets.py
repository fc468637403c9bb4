"""Budgets: how much may be spent, on what, and how that reads beside what was spent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, get_args

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.rendering.plain_text import counted
from promptkit_nb.rendering.receipts import amount_text
from promptkit_nb.stores.scopes import Per

if TYPE_CHECKING:
    from datetime import datetime

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
