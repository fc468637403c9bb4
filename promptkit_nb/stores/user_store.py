"""A store narrowed to one user: of everybody else's conversations it knows nothing."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from promptkit_nb.codec import checked_turn
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.base import PeriodicCleanup
from promptkit_nb.stores.checks import check_revision, check_scopes, cutoff_of, not_found, seconds_of
from promptkit_nb.stores.ledger import is_visible_to
from promptkit_nb.stores.row_access import only_of
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from decimal import Decimal
    from types import TracebackType

    from promptkit_nb.state import Branch, Head, Summary
    from promptkit_nb.stores.base import Duration, Reservation, SortKey, StateStore, StoredTurn
    from promptkit_nb.stores.ledger import Account
    from promptkit_nb.turns import Turn


class UserStore:
    """What one user may see and do of a store.

    Another user's id raises ``ConversationNotFoundError``, as if it did not exist; creating it says that the id is
    taken, and no more. ``close()`` leaves the store itself open.
    """

    def __init__(self, store: StateStore, user_id: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Narrow the store."""
        self._store = store
        self._clock = clock
        self.user_id = check_user_id(user_id)

    @property
    def whole(self) -> StateStore:
        """The store that this is a part of; who reads it directly has to look at the user."""
        return self._store

    def create(self, state: ConversationState) -> Head:
        """Store a new conversation of this user; ``ConversationExistsError`` if the id is taken, by whomever."""
        self.check_user(state.user_id)
        return self._store.create(state)

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        state = self._store.get(conversation_id)
        if state.user_id != self.user_id:
            raise not_found(conversation_id)
        return state

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write the state exactly as it is given, in place of what is there."""
        self.check_user(state.user_id)
        try:
            with self._own(state.conversation_id) as store:
                return store.set(state, expected_revision=expected_revision)
        except ConversationNotFoundError:
            check_revision(state.conversation_id, 0, expected_revision)
            with self._unless_own(state.conversation_id):
                return self._store.create(state)  # says that the id is taken, where it is somebody else's
        return self.set(state, expected_revision=expected_revision)

    def append(self, conversation_id: str, turn: Turn, *, user_id: str | None = None, create: bool = True) -> Head:
        """Add one turn at the end; the conversation is created for this user if it is missing."""
        self.check_user(user_id)
        try:
            with self._own(conversation_id) as store:
                return store.append(conversation_id, turn, create=False)
        except ConversationNotFoundError:
            if not create:
                raise
            now = self._clock()
            with self._unless_own(conversation_id):
                return self._store.create(
                    ConversationState(
                        conversation_id, self.user_id, (checked_turn(turn),), created_at=now, updated_at=now
                    )
                )
        return self.append(conversation_id, turn, create=create)

    def replace(self, conversation_id: str, turn_id: str, turn: Turn) -> Head:
        """Let a turn answer in place of another, which is kept as a former version."""
        with self._own(conversation_id) as store:
            return store.replace(conversation_id, turn_id, turn)

    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        """Let the turns from position ``start`` to before ``stop`` leave the conversation as a branch of this id."""
        with self._own(conversation_id) as store:
            return store.archive(conversation_id, start, stop, as_branch=as_branch)

    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        """Bring back a former version or a branch."""
        with self._own(conversation_id) as store:
            return store.restore(conversation_id, version_or_branch)

    def add_summary(self, conversation_id: str, summary: Summary) -> Head:
        """Add a summary; what it cost is in the totals."""
        with self._own(conversation_id) as store:
            return store.add_summary(conversation_id, summary)

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        with self._own(conversation_id) as store:
            return store.recent(conversation_id, n)

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""
        head = self._store.head(conversation_id)
        if head.user_id != self.user_id:
            raise not_found(conversation_id)
        return head

    def list(  # noqa: PLR0917 - filters, order and page: the signature is old and short to type
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Head]:
        """Return the heads of this user's conversations in a total and stable order."""
        self.check_user(user_id)
        return self._store.list(prefix, self.user_id, sort_by, descending=descending, limit=limit, offset=offset)

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        with self._own(conversation_id) as store:
            return store.update_metadata(conversation_id, **changes)

    def fork(self, conversation_id: str, new_id: str) -> Head:
        """Copy a conversation; the copy's turns are inherited."""
        with self._own(conversation_id) as store:
            return store.fork(conversation_id, new_id)

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation for good."""
        with self._own(conversation_id) as store:
            store.delete(conversation_id)

    def delete_prefix(self, prefix: str) -> tuple[str, ...]:
        """Delete this user's conversations whose id begins so, for good; return their ids, sorted."""
        return self._delete(self._ids(check_conversation_id(prefix)))

    def cleanup(self, older_than: Duration | datetime, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what of this user was last updated before then; return the ids, sorted."""
        cutoff = cutoff_of("older_than", older_than, self._clock())
        old = sorted(head.conversation_id for head in self.list() if head.updated_at < cutoff)
        return tuple(old) if dry_run else self._delete(old)

    def start_cleanup(self, every: Duration, older_than: Duration | datetime) -> PeriodicCleanup:
        """Clean up again and again on a thread of its own, until its ``stop()``."""
        self.cleanup(older_than, dry_run=True)  # what could not be done now would only fail in the background
        return PeriodicCleanup(lambda: self.cleanup(older_than), seconds_of("every", every))

    def reserve(self, scopes: Sequence[str], usd: Decimal, *, limit: Decimal | None, lease: Duration) -> Reservation:
        """Reserve US dollars in every scope of the ledger, or in none; the scopes are this user's or everybody's."""
        for scope in check_scopes(scopes):
            self._check_scope(scope)
        return self._store.reserve(scopes, usd, limit=limit, lease=lease)

    def settle(self, reservation: Reservation, usd: Decimal) -> None:
        """Put what the call did cost in place of what was reserved."""
        self._store.settle(reservation, usd)

    def spending(self, scope: str) -> Account:
        """Return what was spent and is reserved in a scope of the ledger, which is this user's or everybody's."""
        self._check_scope(scope)
        return self._store.spending(scope)

    def iter_turns(self, *, prefix: str | None = None, user_id: str | None = None) -> Iterator[StoredTurn]:
        """Yield every stored turn of this user."""
        self.check_user(user_id)
        return self._store.iter_turns(prefix=prefix, user_id=self.user_id)

    def close(self) -> None:
        """Do nothing: the store is somebody else's to close."""

    def __enter__(self) -> Self:
        """Return the narrowed store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the store open."""

    def __repr__(self) -> str:
        """Say whose it is."""
        return f"<{self._store!r} of {self.user_id!r}>"

    def _check_scope(self, scope: str) -> None:
        if not is_visible_to(self.user_id, scope):
            raise InvalidArgumentError(
                f"The scope {scope!r} is somebody else's: this is the store of {self.user_id!r} alone."
            )

    @contextmanager
    def _own(self, conversation_id: str) -> Iterator[StateStore]:
        """Yield the store, for one call on a conversation of this user.

        Row stores look once more, within their transaction, should the id change hands in this moment.
        """
        self.head(conversation_id)
        with only_of(self.user_id):
            yield self._store

    @contextmanager
    def _unless_own(self, conversation_id: str) -> Iterator[None]:
        """Go on where the id turns out to be taken by this user, who was creating it at the same time."""
        try:
            yield
        except ConversationExistsError:
            with suppress(ConversationNotFoundError):
                self.head(conversation_id)
                return
            raise

    def _ids(self, prefix: str) -> Sequence[str]:
        return sorted(head.conversation_id for head in self.list(prefix))

    def _delete(self, ids: Sequence[str]) -> tuple[str, ...]:
        for conversation_id in ids:
            with suppress(ConversationNotFoundError):  # somebody was faster
                self.delete(conversation_id)
        return tuple(ids)

    def check_user(self, user_id: str | None) -> None:
        """Raise ``InvalidArgumentError`` where somebody else is named."""
        if user_id not in (None, self.user_id):
            raise InvalidArgumentError(
                f"user_id={user_id!r} is somebody else: this is the store of {self.user_id!r} alone."
            )
