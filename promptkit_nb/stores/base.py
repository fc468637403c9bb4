"""The contract of every store, and the argument checks that its siblings share.

A store keeps conversations by id. Every call is atomic, also between threads and processes; what a call acknowledged
stays. What goes in and what comes out are values of the caller's own: changing one changes nothing stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol, Self, get_args

from promptkit_nb.codec import check_values_of, checked, json_copy
from promptkit_nb.errors import (
    ConversationChangedError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
)
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.state import ConversationState
from promptkit_nb.turns import Turn, without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from promptkit_nb.state import Branch, Head, Summary
    from promptkit_nb.stores.cleanup import PeriodicCleanup
    from promptkit_nb.stores.layout import Record
    from promptkit_nb.stores.ledger import Account

SortKey = Literal["updated_at", "created_at", "conversation_id"]
Duration = timedelta | float | int
LONGEST_DURATION_S = 100 * 365 * 86400  # what is added to a time must stay in the calendar


class StateStore(Protocol):
    """Where conversations are kept.

    All ids are text (``InvalidConversationIdError`` where one is blank); ``ConversationNotFoundError`` where a call
    needs a conversation that is not there; ``StoreUnavailableError`` after ``close()``.
    """

    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken, of two callers by one of them."""
        ...

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        ...

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write the state exactly as it is given, in place of what is there; what it lacks is really gone.

        ``ConversationChangedError`` where ``expected_revision`` is given and the stored one differs (0: not there).
        """
        ...

    def append(self, conversation_id: str, turn: Turn, *, user_id: str = "default", create: bool = True) -> Head:
        """Add one turn at the end, in the same time however long the history is.

        The conversation is created for ``user_id`` if it is missing, unless ``create`` is false. The same turn (by its
        id), appended again, is once.
        """
        ...

    def replace(self, conversation_id: str, turn_id: str, turn: Turn) -> Head:
        """Let a turn answer in place of another, which is kept as a former version."""
        ...

    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        """Let the turns from position ``start`` to before ``stop`` leave the conversation as a branch of this id."""
        ...

    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        """Bring back a former version or a branch, given as such or by its id; what it displaces is kept."""
        ...

    def add_summary(self, conversation_id: str, summary: Summary) -> Head:
        """Add a summary; what it cost is in the totals."""
        ...

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        ...

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""
        ...

    def list(
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        *,
        descending: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Head]:
        """Return the heads in a total and stable order; equal times are ordered by id."""
        ...

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        ...

    def fork(self, conversation_id: str, new_id: str) -> Head:
        """Copy a conversation; the copy's turns are inherited. ``ConversationExistsError`` if the id is taken."""
        ...

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation for good."""
        ...

    def delete_prefix(self, prefix: str) -> tuple[str, ...]:
        """Delete the conversations whose id begins so, for good; return their ids, sorted."""
        ...

    def cleanup(self, older_than: Duration | datetime, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what was last updated before then, and what has expired; return the ids, sorted."""
        ...

    def start_cleanup(self, every: Duration, older_than: Duration | datetime) -> PeriodicCleanup:
        """Clean up again and again on a thread of its own, until its ``stop()``, or ``close()``."""
        ...

    def reserve(self, scopes: Sequence[str], usd: Decimal, *, limit: Decimal | None, lease: Duration) -> Reservation:
        """Reserve US dollars in every scope of the ledger, or in none.

        ``BudgetExceededError`` where what was spent and reserved in one of them would pass the limit. A reservation
        that nobody settles counts on after its lease, as unconfirmed.
        """
        ...

    def settle(self, reservation: Reservation, usd: Decimal) -> None:
        """Put what the call did cost in place of what was reserved; a second time changes nothing."""
        ...

    def spending(self, scope: str) -> Account:
        """Return what was spent and is reserved in a scope of the ledger."""
        ...

    def iter_turns(self, *, prefix: str | None = None, user_id: str | None = None) -> Iterator[StoredTurn]:
        """Yield every stored turn, conversation by conversation in the order of their ids."""
        ...

    def close(self) -> None:
        """Let go of files and connections; calling it again is fine."""
        ...

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        ...


def not_found(conversation_id: str) -> ConversationNotFoundError:
    """Return the error of a conversation that is not there."""
    return ConversationNotFoundError(
        f"There is no conversation {conversation_id!r}. Its id may be misspelt, or it was deleted or has expired; "
        "list_conversations(), or %chat_list, shows what is there."
    )


def exists_already(conversation_id: str) -> ConversationExistsError:
    """Return the error of an id that is taken."""
    return ConversationExistsError(
        f"The conversation {conversation_id!r} exists already; nothing was changed. "
        "Open it with get_conversation(), or choose another id."
    )


def check_revision(conversation_id: str, stored: int, expected: int | None) -> None:
    """Raise ``ConversationChangedError`` unless the stored revision is the expected one (``None``: any)."""
    if expected is None or stored == expected:
        return
    raise ConversationChangedError(
        f"The conversation {conversation_id!r} is at revision {stored}, not {expected}: somebody else wrote it. "
        "Nothing was changed; get() it again and repeat the change."
    )


def checked_state(state: ConversationState) -> ConversationState:
    """Return the state as it will be read back, sharing nothing that can change with what was given.

    Raises ``InvalidConversationIdError`` for its id, ``InvalidArgumentError`` for anything else that cannot be stored.
    """
    if not isinstance(state, ConversationState):
        raise InvalidArgumentError(f'A {type(state).__name__} is no state; give ConversationState("id", ...).')
    check_conversation_id(state.conversation_id)
    check_user_id(state.user_id)
    settings = replace(
        state.settings,
        parameters=json_copy(state.settings.parameters, "settings.parameters"),
        prompt=json_copy(state.settings.prompt, "settings.prompt"),
        variables=json_copy(state.settings.variables, "settings.variables"),
    )
    found = checked(replace(state, settings=settings, metadata=json_copy(state.metadata, "metadata")))
    for turn in found.stored_turns:
        check_values_of(turn)
    if found.created_at.tzinfo is None or found.updated_at.tzinfo is None:
        raise InvalidArgumentError("A conversation's time has no time zone: give aware ones, as datetime.now(UTC) is.")
    standing = {turn.id for turn in found.turns}.union(turn.id for branch in found.branches for turn in branch.turns)
    if unknown := found.versions.keys() - standing:
        raise InvalidArgumentError(
            f"versions has the turn {min(unknown)!r}, which is neither a current turn nor on a branch: "
            "leave its versions out too, or keep the turn on a branch."
        )
    return found


def check_filters(prefix: str | None, user_id: str | None) -> None:
    """Raise ``InvalidArgumentError`` unless the filters of ``list`` are text, or ``None`` for all."""
    for name, value in (("prefix", prefix), ("user_id", user_id)):
        if value is not None and (not isinstance(value, str) or without_lone_surrogates(value) != value):
            raise InvalidArgumentError(f"{name}={value!a} is no text; leave it out to list all conversations.")


def check_count(name: str, value: int) -> None:
    """Raise ``InvalidArgumentError`` unless the value is a whole number from 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return
    raise InvalidArgumentError(f"{name}={value!r} is out of range: give a whole number from 0.")


def seconds_of(name: str, duration: Duration) -> float:
    """Return a duration (a ``timedelta`` or seconds) in seconds.

    Raises ``InvalidArgumentError`` unless it is positive.

    >>> seconds_of("ttl", timedelta(hours=24))
    86400.0
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_DURATION_S:
        return float(seconds)
    raise InvalidArgumentError(
        f"{name}={duration!r} is no duration: give a positive number of seconds or a timedelta, of 100 years at most."
    )


def sorted_page(
    found: Iterable[tuple[str, Record]], sort_by: SortKey, *, descending: bool, limit: int | None, offset: int
) -> list[tuple[str, Record]]:
    """Return one page of ids and records in their total order."""
    if sort_by not in get_args(SortKey):
        raise InvalidArgumentError(f"sort_by={sort_by!r} is unknown: use one of {', '.join(get_args(SortKey))}.")
    if limit is not None:
        check_count("limit", limit)
    check_count("offset", offset)

    def order(each: tuple[str, Record]) -> tuple[datetime | str, str]:
        conversation_id, record = each
        return conversation_id if sort_by == "conversation_id" else getattr(record, sort_by), conversation_id

    ordered = sorted(found, key=order, reverse=descending)
    return ordered[offset : None if limit is None else offset + limit]


def turn_unknown(conversation_id: str, turn_id: object) -> InvalidArgumentError:
    """Return the error of a turn that the conversation does not have."""
    return InvalidArgumentError(
        f"The conversation {conversation_id!r} has no turn and no branch {turn_id!a}; nothing was changed. "
        "Its turns, versions and branches are in get()."
    )


def check_branch_id(branch_id: str, taken: Sequence[str]) -> None:
    """Raise ``InvalidArgumentError`` unless the text can be the id of one more branch."""
    if not isinstance(branch_id, str) or not branch_id.strip() or without_lone_surrogates(branch_id) != branch_id:
        raise InvalidArgumentError(f"as_branch={branch_id!a} is no id of a branch: give any text, such as 'before'.")
    if branch_id in taken:
        raise InvalidArgumentError(f"There is a branch {branch_id!r} already; nothing was changed. Choose another id.")


def check_range(start: int, stop: int, turn_count: int) -> None:
    """Raise ``InvalidArgumentError`` unless both are positions of turns, in order."""
    check_count("start", start)
    check_count("stop", stop)
    if not start <= stop <= turn_count:
        raise InvalidArgumentError(
            f"start={start}, stop={stop} is no range of the {turn_count} turns: give 0 ≤ start ≤ stop ≤ {turn_count}."
        )


def check_usd(name: str, usd: Decimal) -> None:
    """Raise ``InvalidArgumentError`` unless the value is a finite ``Decimal`` from 0."""
    if isinstance(usd, Decimal) and usd.is_finite() and usd >= 0:
        return
    raise InvalidArgumentError(f'{name}={usd!r} is no amount: give US dollars from 0, as in Decimal("0.03").')


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of the ledger; ``InvalidArgumentError`` unless each is text."""
    if not isinstance(scopes, str):
        found = tuple(scopes)
        if all(isinstance(scope, str) and scope and without_lone_surrogates(scope) == scope for scope in found):
            return found
    raise InvalidArgumentError(f'scopes={scopes!a} are no scopes: give several texts, as in ("total", "user:alice").')


def cutoff_of(name: str, older_than: Duration | datetime, now: datetime) -> datetime:
    """Return the moment before which something is older than that; a ``datetime`` must be aware."""
    if not isinstance(older_than, datetime):
        return now - timedelta(seconds=seconds_of(name, older_than))
    if older_than.tzinfo is None:
        raise InvalidArgumentError(f"{name}={older_than!r} has no time zone: give an aware datetime, such as UTC.")
    return older_than


@dataclass(frozen=True, slots=True)
class Reservation:
    """US dollars set aside in the ledger for one call, until it is settled."""

    id: str
    scopes: tuple[str, ...]
    usd: Decimal


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn and where it is: current, a former version (``replaced``), or on a branch (``archived``)."""

    conversation_id: str
    user_id: str
    turn: Turn
    status: Literal["current", "replaced", "archived"]

    @classmethod
    def all_of(cls, state: ConversationState) -> Iterator[StoredTurn]:
        """Yield every turn of a state: the current ones in their order, then former versions, then branches."""
        for turn in state.turns:
            yield cls(state.conversation_id, state.user_id, turn, "current")
        for former in state.versions.values():
            for turn in former:
                yield cls(state.conversation_id, state.user_id, turn, "replaced")
        for branch in state.branches:
            for turn in branch.turns:
                yield cls(state.conversation_id, state.user_id, turn, "archived")
