"""What a backend does: it keeps a few kinds of rows in transactions. All stores build on it in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from promptkit_nb.stores.base import SortKey
    from promptkit_nb.stores.index import Entry

T = TypeVar("T")

KeptKind = Literal["kept", "counted", "calls", "imported"]
"""Amounts of deleted turns by user and day, hashes of these turns, their single amounts, and what exports added."""


class AccountChange(NamedTuple):
    """A change of one account of the ledger; ``previous`` is ``None`` if it is new."""

    scope: str
    previous: bytes | None
    changed: bytes


class Appending(NamedTuple):
    """What an append changes: a conversation's record, the row and entry of one turn, and accounts of the ledger."""

    conversation_id: str
    user_id: str
    previous: bytes
    record: bytes
    cid: int
    place: int
    turn_id: str
    line: bytes
    accounts: Sequence[AccountChange] = ()
    lifetime_s: float | None = None
    """Seconds until the conversation expires; ``None`` if it never does."""
    entry: Entry | None = None


class Backend(Protocol):
    """Rows of bytes. All calls except ``run`` and ``close`` are made inside a ``run``.

    A conversation has a record and a frame (by its id), and turns (by its number, the ``cid``, and a place). A backend
    raises ``StoreUnavailableError`` if it cannot be used at present, and ``StoreCorruptedError`` if it is damaged.
    """

    @property
    def where(self) -> str:
        """The location of the rows, for error messages; it never contains a password."""
        ...

    def run(self, work: Callable[[], T], *, write: bool) -> T:
        """Run the work as one transaction: it sees one state of all rows, and all of its writes are kept, or none.

        The work may be run again from its beginning. Calls are never nested.
        """
        ...

    def change_counter(self) -> object:
        """Return a value that changes whenever any row changes, or ``None``: this backend has none.

        It may stay the same if this handle itself calls ``append`` or ``put_account``.
        """
        ...

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record and the accounts are unchanged and the turn is new; else change nothing.

        Return whether it was appended.
        """
        ...

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        ...

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        ...

    def records(self, prefix: str, user_id: str | None) -> Iterable[tuple[str, bytes]]:
        """Return id and record of the conversations whose id has the prefix, of one user or of all."""
        ...

    def records_of(self, conversation_ids: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        """Return id and record of each of these conversations that exists."""
        ...

    def sorted_records(
        self, sort_by: SortKey, prefix: str, user_id: str | None, *, descending: bool, most: int | None
    ) -> Iterable[tuple[str, bytes]]:
        """Yield the same as ``records``, ordered by a key and then by id; a backend may read only what is consumed."""
        ...

    def ids(self, prefix: str = "", user_id: str | None = None) -> Iterable[str]:
        """Return the ids that have the prefix, even if a record cannot be read or has just expired."""
        ...

    def ids_from(self, conversation_id: str, user_id: str | None = None) -> tuple[list[str], bool]:
        """Return ids from this one on, and whether there may be more; a backend may return only the first, in order."""
        ...

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        ...

    def frames(self, conversation_ids: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the frames of conversations by id; ``StoreCorruptedError`` if another program wrote one of them."""
        ...

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        ...

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:
        """Delete a conversation of this user: record, frame, and turns. Long ones may be deleted in several steps.

        It cannot be read any more after this call; ``erase_rest`` deletes the remaining turns.
        """
        ...

    def erase_rest(self) -> bool:
        """Delete some remaining turns of deleted conversations; return whether any are left."""
        ...

    def next_cid(self) -> int:
        """Return a number that was never used for a conversation."""
        ...

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by place."""
        ...

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places."""
        ...

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        ...

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        ...

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        ...

    def accounts(self, scopes: Sequence[str]) -> Sequence[bytes | None]:
        """Return the accounts of these scopes of the ledger, in their order."""
        ...

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        ...

    def note(self, name: str) -> bytes | None:
        """Return the store's own note of this name."""
        ...

    def put_note(self, name: str, value: bytes) -> None:
        """Save a note of the store under this name."""
        ...

    def entries(self, key: str) -> Sequence[Entry]:
        """Return the entries of a key of the index, oldest first."""
        ...

    def put_entry(self, entry: Entry, lifetime_s: float | None) -> None:
        """Write an entry of the index, which may be dropped after ``lifetime_s``."""
        ...

    def drop_entry(self, entry: Entry) -> None:
        """Delete an entry of the index, if it is there."""
        ...

    def checkpoint(self) -> bool:
        """Do work that later commits would otherwise do after large changes; called between transactions.

        Return False if further large changes should wait, because this work has to.
        """
        ...

    def kept_rows(self, kind: KeptKind, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
        """Return the rows of this kind by name, or those with these names; deleting conversations leaves them alone."""
        ...

    def put_kept_row(self, kind: KeptKind, name: str, value: bytes | None) -> None:
        """Write a row, or delete it if the value is ``None``."""
        ...

    def close(self) -> None:
        """Close files and connections; closing again is fine."""
        ...

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        ...
