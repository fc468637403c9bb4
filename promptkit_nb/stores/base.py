"""The contract of every store, and the argument checks that its siblings share.

A store keeps conversations by id. Every call is atomic, also between threads and processes; what a call acknowledged
stays. What goes in and what comes out are values of the caller's own: changing one changes nothing stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol, Self

from promptkit_nb.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from promptkit_nb.state import Branch, ConversationState, Head, Summary
    from promptkit_nb.stores.cleanup import PeriodicCleanup
    from promptkit_nb.stores.ledger import Account

SortKey = Literal["updated_at", "created_at", "conversation_id"]
Duration = timedelta | float | int


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

    def list(  # noqa: PLR0917 - filters, order and page: the signature is old and short to type
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
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
