"""The contract of every store, and the values of its calls.

A store keeps conversations by id. Every call is atomic, across threads and processes too, and acknowledged writes are
durable. Arguments and results belong to the caller: changing one changes nothing that is stored.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol, Self
from unicodedata import normalize

from promptkit_nb.errors import ConversationChangedError
from promptkit_nb.ids import check_own_user, check_user_id
from promptkit_nb.turns import INTERRUPTED, Turn, utc_now

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from promptkit_nb.state import Branch, ConversationState, Head, NotebookNote, Settings, Summary
    from promptkit_nb.stores.kept_usage import KeptUsage
    from promptkit_nb.stores.ledger import Account

SortKey = Literal["updated_at", "created_at", "conversation_id"]
Duration = timedelta | float | int


class StateStore(Protocol):
    """Where conversations are kept.

    Ids are text (``InvalidConversationIdError`` if blank). A call that needs a conversation raises
    ``ConversationNotFoundError`` if there is none; any call raises ``StoreUnavailableError`` after ``close()``.

    >>> from promptkit_nb import ConversationState, MemoryStore, Message, StateStore, Turn
    >>> def say_hello(store: StateStore) -> int:
    ...     return store.append("hello", Turn(messages=(Message("user", "Hello"),))).turn_count
    >>> say_hello(MemoryStore())
    1

    Subclass it to inherit ``for_user``. Your store must then honor ``self.user_id`` in every call;
    ``promptkit_nb.testing.check_state_store`` lists the calls that do not.
    """

    user_id: str | None = None
    """The user that this store is narrowed to; ``None`` for the whole store."""

    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken. Of two callers, one succeeds.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> store.create(ConversationState("hello", "alice")).turn_count
        0
        """
        ...

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", "alice"))
        >>> store.get("hello").user_id
        'alice'
        """
        ...

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write exactly this state, replacing the stored one; anything that it lacks is deleted.

        ``ConversationChangedError`` if ``expected_revision`` is given and differs from the stored one (0: none).

        >>> from dataclasses import replace
        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello"))
        >>> state = store.get("hello")
        >>> store.set(replace(state, user_id="alice"), expected_revision=state.revision).user_id
        'alice'
        """
        ...

    def append(
        self,
        conversation_id: str,
        turn: Turn,
        *,
        user_id: str = "default",
        create: bool = True,
        charge: Charge | None = None,
    ) -> Head:
        """Add one turn at the end, at a cost that does not grow with the history.

        The conversation is created if it is missing, unless ``create`` is false: for ``user_id``, or for the user that
        the store is narrowed to. Appending the same turn (by its id) again changes nothing.

        ``charge`` is entered in the ledger in the same transaction, and only if the turn was added.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> store.append("hello", turn).turn_count, store.append("hello", turn).turn_count
        (1, 1)
        """
        ...

    def replace(self, conversation_id: str, turn_id: str, turn: Turn, *, charge: Charge | None = None) -> Head:
        """Replace a turn; the previous one is kept as a version. ``charge`` as in ``append``.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> better = Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello, Alice")))
        >>> _ = store.replace("hello", turn.id, better)
        >>> store.get("hello").turns == (better,), store.get("hello").versions[better.id] == (turn,)
        (True, True)
        """
        ...

    def add_version(self, conversation_id: str, turn_id: str, turn: Turn, *, charge: Charge | None = None) -> Head:
        """Add a turn to the versions of another, which stays current. ``charge`` as in ``append``.

        This default makes two calls; the stores of this package write once.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> other = Turn(messages=(Message("user", "Hi"), Message("assistant", "Hi there")))
        >>> _ = store.add_version("hello", turn.id, other)
        >>> store.get("hello").turns == (turn,), store.get("hello").versions[turn.id] == (other,)
        (True, True)
        """
        self.replace(conversation_id, turn_id, turn, charge=charge)
        return self.restore(conversation_id, turn_id)

    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        """Move the turns from position ``start`` up to ``stop`` (excluded) to a branch with this id.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> store.archive("hello", 0, 1, as_branch="first-try").turn_count
        0
        >>> [branch.id for branch in store.get("hello").branches]
        ['first-try']
        """
        ...

    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        """Restore a previous version or a branch, given as a value or by its id; what it replaces is kept.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn), store.archive("hello", 0, 1, as_branch="first-try")
        >>> store.restore("hello", "first-try").turn_count
        1
        """
        ...

    def add_summary(self, conversation_id: str, summary: Summary, *, charge: Charge | None = None) -> Head:
        """Add a summary and its cost to the totals; ``charge`` as in ``append``.

        >>> from promptkit_nb import MemoryStore, Message, Summary, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn), store.add_summary("hello", Summary(0, 0, "They greeted."))
        >>> [summary.text for summary in store.get("hello").summaries]
        ['They greeted.']
        """
        ...

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> [found.text for found in store.recent("hello", 3)]
        ['Hello']
        """
        ...

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", metadata={"topic": "tea"}))
        >>> store.head("hello").metadata
        {'topic': 'tea'}
        """
        ...

    def list(  # noqa: PLR0917 - filters, order and page: the signature is old and short to type
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
        limit: int | None = None,
        offset: int = 0,
    ) -> builtins.list[Head]:  # a class with a method ``list`` hides the type of that name
        """Return the heads in a total and stable order; equal times are ordered by id.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = [store.create(ConversationState(name)) for name in ("user:alice:1", "user:bob:1")]
        >>> [head.conversation_id for head in store.list(prefix="user:alice:")]
        ['user:alice:1']
        """
        ...

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", metadata={"topic": "tea"}))
        >>> store.update_metadata("hello", keep=True).metadata
        {'topic': 'tea', 'keep': True}
        """
        ...

    def update_settings(
        self,
        conversation_id: str,
        settings: Settings,
        *,
        system_prompt: str | None,
        expected_revision: int | None = None,
    ) -> Head:
        """Replace the settings and the system prompt; ``expected_revision`` as in ``set``.

        This default rewrites the whole conversation; the stores of this package leave the turns alone.

        >>> from dataclasses import replace
        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello"))
        >>> settings = replace(store.get("hello").settings, variables={"city": "Porto"})
        >>> store.update_settings("hello", settings, system_prompt="You live in Porto.").revision
        2
        """
        state = self.get(conversation_id)
        expected = state.revision if expected_revision is None else expected_revision
        changed = replace(state, settings=settings, system_prompt=system_prompt)
        return self.set(changed, expected_revision=expected)

    def fork(self, conversation_id: str, new_id: str) -> Head:
        """Copy a conversation; the copy's turns are inherited. ``ConversationExistsError`` if the id is taken.

        A fork of an imported conversation can be continued (``Settings.as_own``).

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> store.fork("hello", "another-try").turn_count
        1
        """
        ...

    def fork_with_metadata(self, conversation_id: str, new_id: str, /, **changes: object) -> Head:
        """Copy a conversation as ``fork`` does, and merge JSON values into the metadata of the copy.

        This default makes two calls; the stores of this package write both at once.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", metadata={"title": "Hello"}))
        >>> store.fork_with_metadata("hello", "another-try", forked_from="hello").metadata
        {'title': 'Hello', 'forked_from': 'hello'}
        """
        self.fork(conversation_id, new_id)
        return self.update_metadata(new_id, **changes)

    def set_notebook(self, conversation_id: str, notebook: NotebookNote | None) -> Head:
        """Record the notebook that the conversation belongs to; this is not part of ``metadata``.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> from promptkit_nb.state import NotebookNote
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello"))
        >>> head = store.set_notebook("hello", NotebookNote("/work/eda.ipynb", host="here"))
        >>> head.notebook.path, head.metadata
        ('/work/eda.ipynb', {})
        """
        while True:
            state = self.get(conversation_id)
            with suppress(ConversationChangedError):
                return self.set(replace(state, notebook=notebook), expected_revision=state.revision)

    def find_notebooks(
        self, *, user_id: str, path: str | None = None, kernel: str | None = None
    ) -> builtins.list[Head]:
        """Return the heads of a user's notebook conversations with this path or this kernel, oldest first.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> from promptkit_nb.state import NotebookNote
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", "alice", notebook=NotebookNote("/work/eda.ipynb")))
        >>> [head.conversation_id for head in store.find_notebooks(user_id="alice", path="/work/eda.ipynb")]
        ['hello']
        """
        noted = self.list(user_id=user_id, sort_by="created_at", descending=False)
        return [
            head
            for head in noted
            if head.notebook is not None
            and (
                head.notebook.kernel == kernel
                if path is None
                else normalize("NFC", head.notebook.path) == normalize("NFC", path)
            )
        ]

    def find_answers(self, replay_key: str, *, provider: str, user_id: str, limit: int = 10) -> tuple[Turn, ...]:
        """Return up to ``limit`` turns of a user's notebooks that answer exactly this request, oldest first.

        Interrupted answers and conversations without a notebook (``set_notebook``) are left out.

        >>> from promptkit_nb import ConversationState, MemoryStore, Message, Turn
        >>> from promptkit_nb.state import NotebookNote
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello", notebook=NotebookNote("/work/eda.ipynb")))
        >>> _ = store.append("hello", Turn(messages=(Message("user", "Hi"),), provider="demo", replay_key="5f2a"))
        >>> [turn.user_text for turn in store.find_answers("5f2a", provider="demo", user_id="default")]
        ['Hi']
        """
        noted = {head.conversation_id for head in self.list(user_id=user_id) if head.notebook is not None}
        found = [
            each.turn
            for each in self.iter_turns(user_id=user_id)
            if each.conversation_id in noted
            and (each.turn.replay_key, each.turn.provider) == (replay_key, provider)
            and each.turn.finish_reason != INTERRUPTED
        ]
        return tuple(sorted(found, key=lambda turn: (turn.created_at, turn.id))[:limit])

    def delete(self, conversation_id: str, *, keep_spending: bool = True, expected_revision: int | None = None) -> None:
        """Delete the conversation permanently.

        Its cost is kept, without ids and text: see ``kept_usage``. ``keep_spending=False`` deletes it, too, and so
        lowers the figures of past days; budget accounts never fall.

        Raises ``ConversationChangedError`` if ``expected_revision`` is given and differs from the stored one.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("hello"))
        >>> store.delete("hello")
        >>> store.list()
        []
        """
        ...

    def delete_prefix(self, prefix: str, *, keep_spending: bool = True) -> tuple[str, ...]:
        """Delete the conversations whose id has the prefix, permanently; return their ids, sorted.

        ``keep_spending`` as in ``delete``.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = [store.create(ConversationState(name)) for name in ("user:alice:1", "user:bob:1")]
        >>> store.delete_prefix("user:bob:")
        ('user:bob:1',)
        """
        ...

    def cleanup(self, older_than: Duration | datetime, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what was last updated before then, and what has expired; return the ids, sorted.

        It works in batches, between which others can write. The cost of the conversations is kept.

        >>> from datetime import UTC, datetime
        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.create(ConversationState("old", updated_at=datetime(2026, 1, 1, tzinfo=UTC)))
        >>> store.cleanup(older_than=datetime(2026, 2, 1, tzinfo=UTC), dry_run=True), len(store.list())
        (('old',), 1)
        """
        ...

    def start_cleanup(self, every: Duration, older_than: Duration | datetime) -> PeriodicCleanup:
        """Clean up periodically on a background thread, until its ``stop()`` or ``close()``.

        >>> from datetime import timedelta
        >>> from promptkit_nb import MemoryStore
        >>> cleanup = MemoryStore().start_cleanup(every=timedelta(hours=1), older_than=timedelta(days=7))
        >>> cleanup.stop()
        """
        ...

    def reserve(
        self, scopes: Sequence[str], usd: Decimal, *, limit: Decimal | Mapping[str, Decimal] | None, lease: Duration
    ) -> Reservation:
        """Reserve US dollars in every scope of the ledger, or in none.

        ``limit`` is one amount for every scope, or a mapping from scopes to amounts; scopes that it leaves out have no
        limit. ``BudgetExceededError`` if spent and reserved amounts of a scope would exceed its limit. A reservation
        that is not settled within its lease still counts, as unconfirmed.

        >>> from decimal import Decimal
        >>> from promptkit_nb import MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.reserve(["user:alice"], Decimal("0.03"), limit=Decimal(1), lease=600)
        >>> store.spending("user:alice").reserved
        Decimal('0.03')
        """
        ...

    def settle(self, reservation: Reservation, usd: Decimal, *, kept: KeptUsage | None = None) -> None:
        """Replace the reserved amount by what the call cost; settling again changes nothing.

        ``kept`` is the usage of a call that left no turn, such as a refused summary: ``kept_usage`` returns it.

        >>> from decimal import Decimal
        >>> from promptkit_nb import MemoryStore
        >>> store = MemoryStore()
        >>> reservation = store.reserve(["user:alice"], Decimal("0.03"), limit=Decimal(1), lease=600)
        >>> store.settle(reservation, Decimal("0.01"))
        >>> store.spending("user:alice").spent, store.spending("user:alice").reserved
        (Decimal('0.01'), Decimal('0'))
        """
        ...

    def spending(self, scope: str) -> Account:
        """Return what was spent and is reserved in a scope of the ledger.

        >>> from promptkit_nb import MemoryStore
        >>> MemoryStore().spending("user:alice").spent
        Decimal('0')
        """
        ...

    def kept_usage(self, *, user_id: str | None = None) -> tuple[KeptUsage, ...]:
        """Return what was paid for turns that are not stored any more, for one user or all users.

        It covers conversations that were deleted, cleaned up, or have expired, and calls that left no turn. A turn is
        removed from it when it is stored again, for example from an export. Imported, inherited, and replayed turns are
        never included.

        >>> from decimal import Decimal
        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"),), cost=Decimal("0.01"), model="small")
        >>> _ = store.append("hello", turn), store.delete("hello")
        >>> [(kept.model, kept.calls, kept.cost) for kept in store.kept_usage()]
        [('small', 1, Decimal('0.01'))]
        """
        check_own_user(self.user_id, user_id)
        return ()

    def iter_turns(self, *, prefix: str | None = None, user_id: str | None = None) -> Iterator[StoredTurn]:
        """Yield every stored turn, conversation by conversation, sorted by id.

        >>> from promptkit_nb import MemoryStore, Message, Turn
        >>> store, turn = MemoryStore(), Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")))
        >>> _ = store.append("hello", turn)
        >>> [(found.conversation_id, found.status) for found in store.iter_turns()]
        [('hello', 'current')]
        """
        ...

    def for_user(self, user_id: str) -> Self:
        """Return this store, narrowed to one user: other users' conversations seem not to exist.

        Reading another user's conversation raises ``ConversationNotFoundError``, creating its id
        ``ConversationExistsError``, and naming another user or a scope of theirs ``InvalidArgumentError``. Closing a
        narrowed store leaves the store open.

        >>> from promptkit_nb import ConversationState, MemoryStore
        >>> store = MemoryStore()
        >>> _ = [store.create(ConversationState(name, name)) for name in ("alice", "bob")]
        >>> [head.conversation_id for head in store.for_user("alice").list()]
        ['alice']
        """
        user_id = check_user_id(user_id)
        check_own_user(self.user_id, user_id)
        if self.user_id == user_id:
            return self
        narrowed = copy(self)
        narrowed.user_id = user_id
        return narrowed

    def close(self) -> None:
        """Close files and connections; closing again is fine.

        >>> from promptkit_nb import MemoryStore
        >>> with MemoryStore() as store:  # closes it, too
        ...     store.list()
        []
        """
        ...

    def __enter__(self) -> Self:
        """Return the store; it is closed at the end of the block."""
        ...

    def __exit__(self, *exc_info: object) -> None:
        """Close the store."""
        ...


def clock_of(store: StateStore, clock: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return the store's own clock for ages and budget days, unless a clock other than this machine's was given."""
    return getattr(store, "now", clock) if clock is utc_now else clock


@dataclass(frozen=True, slots=True)
class Reservation:
    """US dollars set aside in the ledger for one call, until it is settled."""

    id: str
    scopes: tuple[str, ...]
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call cost, entered in the ledger in the same transaction that stores its turn or summary.

    ``usd`` is added to what was spent in each of ``scopes``; ``reservation`` is closed wherever it is open.
    """

    scopes: tuple[str, ...]
    usd: Decimal
    reservation: Reservation | None = None


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn and its status: current, a previous version (``replaced``), or on a branch (``archived``)."""

    conversation_id: str
    user_id: str
    turn: Turn
    status: Literal["current", "replaced", "archived"]

    @classmethod
    def all_of(cls, state: ConversationState) -> Iterator[StoredTurn]:
        """Yield every turn of a state: the current ones in order, then previous versions, then branches."""
        for turn in state.turns:
            yield cls(state.conversation_id, state.user_id, turn, "current")
        for previous in state.versions.values():
            for turn in previous:
                yield cls(state.conversation_id, state.user_id, turn, "replaced")
        for branch in state.branches:
            for turn in branch.turns:
                yield cls(state.conversation_id, state.user_id, turn, "archived")


logger = logging.getLogger(__name__)


class PeriodicCleanup:
    """Calls ``clean`` periodically on a background thread; errors are logged, and the next round still runs."""

    def __init__(self, clean: Callable[[], object], every_s: float) -> None:
        """Start; the first round runs at once."""
        self._clean = clean
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="promptkit-cleanup", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a round that is running; stopping again is fine."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._clean()
            except Exception:
                logger.exception("Cleaning up failed; it will be tried again in %g s.", self._every_s)
            self._stopped.wait(self._every_s)
