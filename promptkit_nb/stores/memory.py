"""A store in the memory of this process: for tests, demonstrations and short-lived conversations."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn, TypeVar

from promptkit_nb.errors import InvalidArgumentError, StoreUnavailableError
from promptkit_nb.stores.layout import sorted_records
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.stores.backend import Appending, KeptKind
    from promptkit_nb.stores.base import Duration, SortKey
    from promptkit_nb.stores.index import Entry

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class MemoryStore(RowStore):
    """Keeps conversations until the process ends.

    Args:
        ttl: A ``timedelta`` or seconds; a conversation that was neither read nor written for as long expires. ``None``
            or 0 keeps it.
        clock: Returns the current time; tests set it.

    >>> from promptkit_nb import ConversationState, MemoryStore
    >>> store = MemoryStore()
    >>> store.create(ConversationState("a", "alice")).turn_count
    0
    >>> [head.user_id for head in store.list()]
    ['alice']
    """

    def __init__(self, ttl: Duration | None = None, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Start empty."""
        super().__init__(MemoryBackend(), ttl, clock)

    def __repr__(self) -> str:
        """Return the description of the store."""
        return self._described()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise InvalidArgumentError(
            "A MemoryStore cannot be pickled, because other processes cannot access its memory; use "
            "DiskStore(directory), which other processes open again."
        )


class MemoryBackend:
    """Rows in dicts; the writes of a failing transaction are undone."""

    where = "memory"

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._undo: list[Callable[[], object]] = []
        self._records: dict[str, tuple[str, bytes]] = {}
        self._frames: dict[str, bytes] = {}
        self._turns: dict[int, dict[int, bytes]] = {}
        self._places: dict[int, dict[str, int]] = {}
        self._accounts: dict[str, bytes] = {}
        self._notes: dict[str, bytes] = {}
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._kept: dict[KeptKind, dict[str, bytes]] = {"kept": {}, "counted": {}, "calls": {}, "imported": {}}
        self._last_cid = 0
        self._closed = False

    def run(self, work: Callable[[], T], *, write: bool) -> T:  # noqa: ARG002 - it makes no difference here
        """Run the work while no other thread does."""
        with self._lock:
            if self._closed:
                raise StoreUnavailableError("This MemoryStore is closed; make a new one.")
            self._undo.clear()
            try:
                return work()
            except BaseException:
                for undo in reversed(self._undo):
                    undo()
                raise

    def change_counter(self) -> None:
        """Return None: this backend has no change counter."""

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record is unchanged and the turn is new; return whether it was appended."""
        conversation_id, user_id, previous, record, cid, place, turn_id, line, accounts, _, entry = appending
        if self.record(conversation_id) != previous or self.place_of(cid, turn_id) is not None:
            return False
        self.put_turn(cid, place, turn_id, line)
        self.put_record(conversation_id, user_id, record)
        for scope, _, changed in accounts:
            self.put_account(scope, changed)
        if entry is not None:
            self.put_entry(entry, None)
        return True

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        found = self._records.get(conversation_id)
        return None if found is None else found[1]

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._put(self._records, conversation_id, (user_id, value))

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id has the prefix, of one user or of all."""
        for conversation_id, (owner, value) in self._records.items():
            if conversation_id.startswith(prefix) and user_id in (None, owner):
                yield conversation_id, value

    def records_of(self, conversation_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of each of these conversations that exists."""
        for each in conversation_ids:
            if each in self._records:
                yield each, self._records[each][1]

    def sorted_records(
        self, sort_by: SortKey, prefix: str, user_id: str | None, *, descending: bool, most: int | None
    ) -> list[tuple[str, bytes]]:
        """Return the same as ``records``, ordered by a key and then by id."""
        del most  # all are at hand
        return sorted_records(self.records(prefix, user_id), sort_by, descending=descending)

    def ids(self, prefix: str = "", user_id: str | None = None) -> list[str]:
        """Return the ids that have the prefix."""
        return [each for each, _ in self.records(prefix, user_id)]

    def ids_from(self, conversation_id: str, user_id: str | None = None) -> tuple[list[str], bool]:
        """Return the ids from this one on; there are no more."""
        return [each for each in self.ids("", user_id) if each >= conversation_id], False

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        return self._frames.get(conversation_id)

    def frames(self, conversation_ids: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the frames of conversations by id."""
        return {each: self.frame(each) for each in conversation_ids}

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._put(self._frames, conversation_id, value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:  # noqa: ARG002 - the record says it here
        """Delete a conversation: record, frame and turns."""
        self._drop(self._records, conversation_id)
        self._drop(self._frames, conversation_id)
        self._drop(self._turns, cid)
        self._drop(self._places, cid)

    def erase_rest(self) -> bool:
        """Return False: ``erase`` deletes all turns at once."""
        return False

    def next_cid(self) -> int:
        """Return a number that was never used for a conversation."""
        self._last_cid += 1
        return self._last_cid

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by place."""
        return self._turns.get(cid, {})

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places."""
        turns = self.turns(cid)
        return [turns.get(place) for place in places]

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        return self._places.get(cid, {}).get(turn_id)

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._put(self._turns.setdefault(cid, {}), place, value)
        self._put(self._places.setdefault(cid, {}), turn_id, place)

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        self._put(self._turns, new_cid, dict(self._turns.get(cid, {})))
        self._put(self._places, new_cid, dict(self._places.get(cid, {})))

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes of the ledger, in their order."""
        return [self._accounts.get(scope) for scope in scopes]

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        self._put(self._accounts, scope, value)

    def note(self, name: str) -> bytes | None:
        """Return the store's own note of this name."""
        return self._notes.get(name)

    def put_note(self, name: str, value: bytes) -> None:
        """Save a note of the store under this name."""
        self._put(self._notes, name, value)

    def entries(self, key: str) -> list[Entry]:
        """Return the entries of a key of the index, oldest first."""
        return sorted(self._entries.get(key, ()))

    def put_entry(self, entry: Entry, lifetime_s: float | None) -> None:  # noqa: ARG002 - deleted with its conversation
        """Write an entry of the index."""
        self.drop_entry(entry)
        self._put(self._entries, entry.key, (*self._entries.get(entry.key, ()), entry))

    def drop_entry(self, entry: Entry) -> None:
        """Delete an entry of the index, if it is there."""
        kept = tuple(each for each in self._entries.get(entry.key, ()) if each != entry)
        if kept:
            self._put(self._entries, entry.key, kept)
        else:
            self._drop(self._entries, entry.key)

    def checkpoint(self) -> bool:
        """Return True: no work is postponed."""
        return True

    def kept_rows(self, kind: KeptKind, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
        """Return the rows of this kind by name, or those with these names."""
        rows = self._kept[kind]
        return dict(rows) if names is None else {name: rows[name] for name in names if name in rows}

    def put_kept_row(self, kind: KeptKind, name: str, value: bytes | None) -> None:
        """Write a row, or delete it if the value is ``None``."""
        if value is None:
            self._drop(self._kept[kind], name)
        else:
            self._put(self._kept[kind], name, value)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            for rows in (self._records, self._frames, self._turns, self._places, self._accounts, self._notes):
                rows.clear()
            self._entries.clear()
            for kept in self._kept.values():
                kept.clear()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def _put(self, rows: dict[K, V], key: K, value: V) -> None:
        if key in rows:
            previous = rows[key]
            self._undo.append(lambda: rows.__setitem__(key, previous))
        else:
            self._undo.append(lambda: rows.pop(key))
        rows[key] = value

    def _drop(self, rows: dict[K, V], key: K) -> None:
        if key in rows:
            previous = rows.pop(key)
            self._undo.append(lambda: rows.__setitem__(key, previous))
