"""The rows of ``DiskStore``: bytes by key, in transactions, in diskcache's database.

Everything that uses diskcache's internals (its table, its connection) is here and in ``disk_cache``. So diskcache is
pinned below 6, and a test fails if they change.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]  # typeshed leaves it out
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from weakref import finalize

from promptkit_nb.codec import FORMAT_VERSION
from promptkit_nb.errors import StoreCorruptedError, StoreUnavailableError
from promptkit_nb.stores import disk_cache
from promptkit_nb.stores.disk_checkpoints import Checkpoints
from promptkit_nb.stores.index import Entry
from promptkit_nb.stores.layout import PLACE_BITS, sorted_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from promptkit_nb.stores.backend import Appending, KeptKind
    from promptkit_nb.stores.base import SortKey


class InterruptsHeld:
    """A context that delays SIGINT to the end of its block. Not reentrant.

    Only the main thread runs signal handlers, so other threads have nothing to delay. A handler that was not set from
    Python could not be restored, and is left alone. The functions are those that the module ``signal`` wraps: in Python
    3.11, its wrappers look up each handler by its number, which takes a tenth of an append.
    """

    def __enter__(self) -> Self:
        """Start to delay SIGINT."""
        self._pending: FrameType | None = None
        self._came = False
        self._former: Callable[[int, FrameType | None], object] | None = None
        if threading.get_ident() == threading.main_thread().ident:
            previous = getsignal(SIGINT)
            if callable(previous):
                self._former = previous
                signal(SIGINT, self._hold)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Restore the previous handler, and deliver an interrupt that was delayed."""
        if self._former is None:
            return
        signal(SIGINT, self._former)
        if self._came:
            self._former(SIGINT, self._pending)

    def _hold(self, _number: int, frame: FrameType | None) -> None:
        self._came = True
        self._pending = frame


class WatchedFile:
    """A file that exists now, to notice when it is deleted or moved.

    On Linux it is watched through an ``O_PATH`` descriptor: a check by path takes several times as long, and closing an
    ordinary descriptor would release SQLite's locks on the file.
    """

    def __init__(self, path: Path) -> None:
        """Start to watch the file."""
        self._path = path
        self._held: int | str = str(path)
        if hasattr(os, "O_PATH"):
            self._held = os.open(path, os.O_PATH)
            self._release = finalize(self, os.close, self._held)
            self._release.atexit = False  # a thread may still be storing an answer then
        self._inode = os.stat(self._held).st_ino  # noqa: PTH116 - a descriptor is not a path

    def check_is_there(self) -> None:
        """Raise ``StoreUnavailableError`` if the file was deleted."""
        self._check(self._held)

    def check_is_at_its_path(self) -> None:
        """Raise ``StoreUnavailableError`` if its path now leads to another file, or to none."""
        self._check(str(self._path))

    def _check(self, held: int | str) -> None:
        try:
            found = os.stat(held)  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or found.st_nlink == 0 or found.st_ino != self._inode:
            raise StoreUnavailableError(
                f"The store in {self._path.parent} was deleted or moved while it was open; nothing was stored. "
                "Open it again."
            )

    def close(self) -> None:
        """Stop watching; closing again is fine."""
        if hasattr(os, "O_PATH"):
            self._release()


T = TypeVar("T")

_COPIED = "raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
_COLUMNS = "key, raw, mode, filename, value"
_GET = "SELECT raw, mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
# Each row is written with raw = 1, mode = 1 and no file name: see StrictDisk. If a key is taken, the whole transaction
# fails, so SQLite need not prepare to undo that statement alone. No index has the columns that _CHANGE changes.
_ADD = "INSERT OR FAIL INTO Cache(key, raw, store_time, tag, mode, filename, value) VALUES (?, 1, ?, ?, 1, NULL, ?)"
_PUT = (
    "INSERT INTO Cache(key, raw, store_time, tag, mode, filename, value) VALUES (?, 1, ?, ?, 1, NULL, ?) "
    "ON CONFLICT(key, raw) DO UPDATE SET "
    "tag = excluded.tag, mode = excluded.mode, filename = excluded.filename, value = excluded.value"
)
_CHANGE = "UPDATE Cache SET mode = 1, filename = NULL, value = ? WHERE key = ? AND raw = 1 AND tag IS ?"
_SWAP = (
    "UPDATE Cache SET value = ? WHERE key = ? AND raw = 1 AND tag = ? AND value = ? "
    "AND NOT EXISTS (SELECT 1 FROM Cache WHERE tag = ? AND key >= ? AND key < ?)"
)


ERASED_AT_ONCE = 2000
"""How many turns are deleted in one transaction, during which other writers wait."""

IDS_AT_ONCE = 10_000
"""How many ids are read in one transaction, during which other threads wait."""

TRY_MS = 10
"""How long SQLite tries to begin before this package calls it again: the longer it waits, the longer it sleeps."""


class Row(NamedTuple):
    """A row with a tag."""

    key: disk_cache.Key
    value: bytes
    tag: str


class Table:
    """Rows of a database in a directory; values are bytes, keys text or whole numbers (which sort before text).

    All calls are made inside a ``run()``. Raises ``StoreUnavailableError`` if the file cannot be used at present, with
    SQLite's own words, and ``StoreCorruptedError`` if it is damaged.
    """

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the database, or create it."""
        self._directory = directory
        self._log = f"{directory / disk_cache.DATABASE}-wal"
        self._timeout_s = timeout_s
        self._lock = disk_cache.lock_held_by_forks()
        self._closers = threading.local()
        self._closed = False
        with disk_cache.translating(directory, timeout_s), self._lock:
            self._cache: Any = disk_cache.QuietCache(
                str(directory), timeout=timeout_s, disk=disk_cache.StrictDisk, **disk_cache.SETTINGS
            )
            self._disk: disk_cache.StrictDisk = self._cache.disk
            self._take(self._cache._con)  # noqa: SLF001 - see the module's docstring
            self._file = WatchedFile(directory / disk_cache.DATABASE)
            self._switches = 0  # between connections: each thread has its own
            self._uncounted = 0  # changes that the change counter leaves out
            disk_cache.simplify_schema(self._connection)
            disk_cache.check_settings(self._cache, directory)
            self._checkpoints = Checkpoints(directory / disk_cache.DATABASE)

    def run(self, work: Callable[[], T], *, write: bool) -> T:
        """Run the work as one transaction of SQLite; all of its writes are kept, or none. Calls are never nested.

        Ctrl-C is delayed until its end, even if it only reads: an interrupt could leave the lock held.
        """
        give_up_s = None
        while True:
            try:
                with InterruptsHeld():
                    with self._lock:
                        connection = self._begin(write=write)
                        try:
                            result = work()  # only its first statement can find the database busy
                            connection.execute("COMMIT")
                        finally:
                            if connection.in_transaction:
                                connection.rollback()
                    if write and (log_bytes := self._log_bytes()) > self._checkpoints.due_bytes:
                        self._checkpoints.move_after_commit(log_bytes)
                    return result
            except (sqlite3.Error, OSError) as error:
                give_up_s = give_up_s or time.monotonic() + self._timeout_s
                if not disk_cache.is_busy(error) or time.monotonic() >= give_up_s:
                    raise disk_cache.translated(error, self._directory, self._timeout_s) from error

    def change_counter(self) -> tuple[int, int, int]:
        """Return a value that changes whenever any row changes, and whenever another thread uses this table.

        SQLite counts the commits of other connections and the changes of this one; each thread has its own connection.
        Changes by ``swap`` and those with ``counts=False`` are left out.
        """
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()
        return self._switches, others, self._connection.total_changes - self._uncounted

    def get(self, key: disk_cache.Key) -> bytes | None:
        """Return the value of one row, or ``None``."""
        row = self._connection.execute(_GET, (key,)).fetchone()
        if row is None:
            return None
        _, mode, filename, value = row
        if mode == disk_cache.MODE_RAW and filename is None and type(value) is bytes:
            return value
        return self._disk.row(key, *row)[1]  # raises: another program wrote it

    def values_of(self, keys: Sequence[disk_cache.Key]) -> dict[disk_cache.Key, bytes]:
        """Return the values of those rows that exist."""
        marks = ", ".join("?" * len(keys))
        select = f"SELECT {_COLUMNS} FROM Cache WHERE key IN ({marks}) AND raw = 1"  # noqa: S608 - only placeholders
        return dict(self._disk.row(*row) for row in self._connection.execute(select, keys))

    def put(self, key: disk_cache.Key, value: bytes, tag: str | None = None, *, counts: bool = True) -> None:
        """Write one row, replacing the one that has the key; the change counter stays the same unless it ``counts``."""
        disk_cache.check_row(key, value)
        if self._connection.execute(_CHANGE, (value, key, tag)).rowcount == 0:
            self._connection.execute(_PUT, (key, time.time(), tag, value))
        self._uncounted += not counts

    def add(self, key: disk_cache.Key, value: bytes, tag: str | None = None, *, counts: bool = True) -> None:
        """Write one row with a new key; if a row has it already, the store is damaged, and that row stays."""
        if type(value) is not bytes or type(key) not in (str, int):
            disk_cache.check_row(key, value)  # raises: that would be a bug of ours
        self._connection.execute(_ADD, (key, time.time(), tag, value))
        self._uncounted += not counts

    def swap(self, row: Row, previous: bytes, new: Row, low: disk_cache.Key, high: disk_cache.Key) -> bool:
        """Write one row and add a new one, if the first is unchanged and no ``low <= key < high`` has the new tag.

        Return whether that was the case; if not, nothing was changed.
        """
        asked = (row.value, row.key, row.tag, previous, new.tag, low, high)
        if self._connection.execute(_SWAP, asked).rowcount == 0:
            return False
        self._connection.execute(_ADD, (new.key, time.time(), new.tag, new.value))
        self._uncounted += 2
        return True

    def between(
        self, low: disk_cache.Key, high: disk_cache.Key, *, strict: bool = True
    ) -> list[tuple[disk_cache.Key, bytes]]:
        """Return the rows with ``low <= key < high``, ordered by key; foreign ones are empty unless ``strict``."""
        select = f"SELECT {_COLUMNS} FROM Cache WHERE key >= ? AND key < ? ORDER BY key"  # noqa: S608 - a constant
        return self._read(select, low, high, strict=strict)

    def texts_between(self, low: str, high: str, tag: str | None = None, *, most: int = -1) -> list[str]:
        """Return the first keys with ``low <= key < high``, of one tag or all tags, including unreadable rows."""
        where = "key >= ? AND key < ? AND raw = 1 AND typeof(key) = 'text'"
        tagged = "" if tag is None else "AND tag = ?"
        select = f"SELECT key FROM Cache WHERE {where} {tagged} ORDER BY key LIMIT ?"  # noqa: S608 - constants
        arguments = (low, high, most) if tag is None else (low, high, tag, most)
        return [key for (key,) in self._connection.execute(select, arguments)]

    def in_order(
        self, order: Sequence[str], where: str, *arguments: disk_cache.Key, descending: bool
    ) -> Iterator[tuple[disk_cache.Key, bytes]]:
        """Yield rows in the order of some expressions, foreign ones empty; rows are read as they are consumed."""
        terms = ", ".join(f"{term} {'DESC' if descending else 'ASC'}" for term in order)
        select = f"SELECT {_COLUMNS} FROM Cache WHERE {where} ORDER BY {terms}"  # noqa: S608 - constants
        with closing(self._connection.execute(select, arguments)) as rows:
            for row in rows:
                try:
                    yield self._disk.row(*row)
                except StoreCorruptedError:  # another program wrote it
                    yield row[0], b""

    def tagged(self, tag: str, *, strict: bool = True) -> list[tuple[disk_cache.Key, bytes]]:
        """Return the rows with this tag; foreign ones are empty unless ``strict``."""
        return self._read(f"SELECT {_COLUMNS} FROM Cache WHERE tag = ?", tag, strict=strict)  # noqa: S608 - a constant

    def key_at(self, low: disk_cache.Key, high: disk_cache.Key, position: int) -> disk_cache.Key | None:
        """Return the key at a position among those with ``low <= key < high``, or ``None`` if there are too few."""
        select = "SELECT key FROM Cache WHERE key >= ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?"
        row = self._connection.execute(select, (low, high, position)).fetchone()
        return None if row is None else row[0]

    def delete(self, key: disk_cache.Key) -> None:
        """Delete one row, if it is there."""
        self._connection.execute("DELETE FROM Cache WHERE key = ?", (key,))

    def delete_between(self, low: disk_cache.Key, high: disk_cache.Key) -> None:
        """Delete the rows with ``low <= key < high``."""
        self._connection.execute("DELETE FROM Cache WHERE key >= ? AND key < ?", (low, high))

    def checkpoint(self) -> bool:
        """Move the log into the database while others write; return False if large changes should wait until then."""
        with disk_cache.translating(self._directory, self._timeout_s), InterruptsHeld():
            return self._closed or self._checkpoints.move_for_large_change(self._log_bytes())

    def close(self) -> None:
        """Move the log into the database and close it, so that no deleted text stays in a file."""
        with disk_cache.translating(self._directory, self._timeout_s), InterruptsHeld():
            self._checkpoints.close()
            with self._lock:
                if self._closed:
                    return
                self._closed = True
                try:
                    connection = self._connected()
                    connection.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    self._cache.close()
                    self._file.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def _read(self, select: str, *arguments: disk_cache.Key, strict: bool = True) -> list[tuple[disk_cache.Key, bytes]]:
        with closing(self._connection.execute(select, arguments)) as rows:  # a traceback may keep it open
            return [
                (key, value)
                if raw
                and mode == disk_cache.MODE_RAW
                and filename is None
                and type(value) is bytes
                and type(key) in (str, int)
                else self._disk.row(key, raw, mode, filename, value)  # raises: another program wrote it
                if strict
                else (key, b"")
                for key, raw, mode, filename, value in rows
            ]

    def _connected(self) -> sqlite3.Connection:
        """Return the connection of this thread and process, which is closed when the thread ends."""
        connection: sqlite3.Connection = self._cache._con  # noqa: SLF001 - see the module's docstring
        closer = getattr(self._closers, "mine", None)
        if closer is None or closer.connection is not connection:
            self._closers.mine = disk_cache.Closer(connection)
            connection.execute(f"PRAGMA busy_timeout = {min(TRY_MS, int(self._timeout_s * 1000))}")
        return connection

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 - three times as fast as Path.stat
        except OSError:
            return 0

    def _take(self, connection: sqlite3.Connection) -> None:
        """Set up a new connection of this thread; ``Checkpoints`` decides when the log is moved."""
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection = connection

    def _begin(self, *, write: bool) -> sqlite3.Connection:
        """Begin a transaction on this thread's connection."""
        if self._closed:
            raise StoreUnavailableError(f"This store in {self._directory} is closed; open it again.")
        if write:
            self._file.check_is_there()
        connection = self._connected()
        if connection is not self._connection:
            self._file.check_is_at_its_path()
            self._take(connection)
            self._switches += 1
        if connection.in_transaction:  # left open by an interrupt at the worst moment
            connection.rollback()
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        return connection


class DiskBackend(Table):
    """A table whose rows are conversations and accounts, by key.

    ::

        "format"             the format's version
        "c:cid"              the last conversation number given out
        "h:" + id            record                             tag "u:" + user id
        "a:" + id            frame
        (cid << 24) | place  a turn                             tag "t:" + turn id
        "l:" + scope         account of the ledger
        "s:" + name          a note of the store itself
        "k:" + key + …       entry of the index: a conversation's id
        "e:" + cid           a deleted conversation with turns that are still to be deleted
        "kept:" + name       amounts of deleted turns, by day and user
        "counted:" + name    hashes of these turns
        "calls:" + name      the amounts of each of them
        "imported:" + name   kept amounts that were added from an export
    """

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the table, and initialize an empty one."""
        super().__init__(directory, timeout_s)
        self.where = str(directory)
        if self.run(self._is_empty, write=False):  # only an empty one is written to, and waits for other writers
            self.run(self._initialize, write=True)

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record is unchanged and the turn is new; return whether it was appended."""
        conversation_id, user_id, previous, record, cid, place, turn_id, line, accounts, _, entry = appending
        head = Row(f"h:{conversation_id}", record, f"u:{user_id}")
        turn = Row(_key_of(cid, place), line, f"t:{turn_id}")
        if not self.swap(head, previous, turn, *_bounds_of(cid)):
            return False
        for scope, _, changed in accounts:
            self.put(f"l:{scope}", changed, counts=False)
        if entry is not None:
            self.add(_key_of_entry(entry), entry.conversation_id.encode(), counts=False)
        return True

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        return self.get(f"h:{conversation_id}")

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self.put(f"h:{conversation_id}", value, tag=f"u:{user_id}")

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id has the prefix, of one user or of all."""
        low, tag = f"h:{prefix}", f"u:{user_id}"
        everyone = user_id is None
        rows = self.between(low, after_prefix(low), strict=False) if everyone else self.tagged(tag, strict=False)
        for key, value in rows:
            conversation_id = str(key).removeprefix("h:")
            if conversation_id.startswith(prefix):
                yield conversation_id, value

    def records_of(self, conversation_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of each of these conversations that exists."""
        for each in conversation_ids:
            try:
                found = self.record(each)
            except StoreCorruptedError:  # another program wrote it
                found = b""
            if found is not None:
                yield each, found

    def sorted_records(
        self, sort_by: SortKey, prefix: str, user_id: str | None, *, descending: bool, most: int | None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the same as ``records``, ordered by a key and then by id, reading only what is consumed."""
        del most  # rows are read as they are consumed
        tags = () if user_id is None else (f"u:{user_id}",)
        if sort_by == "conversation_id":
            low = f"h:{prefix}"
            where = "key >= ? AND key < ?" + (" AND tag = ?" if tags else "")
            rows = self.in_order(["key"], where, low, after_prefix(low), *tags, descending=descending)
        elif prefix:  # the index by time has no prefixes
            yield from sorted_records(self.records(prefix, user_id), sort_by, descending=descending)
            return
        else:
            by_user = " AND +tag = ?" if tags else ""  # the plus keeps the planner from the index by tag
            where = disk_cache.IS_RECORD + by_user
            rows = self.in_order([disk_cache.TIMES[sort_by], "key"], where, *tags, descending=descending)
        for key, value in rows:
            yield str(key).removeprefix("h:"), value

    def ids(self, prefix: str = "", user_id: str | None = None) -> list[str]:
        """Return the ids that have the prefix, even if a record cannot be read."""
        low = f"h:{prefix}"
        tag = None if user_id is None else f"u:{user_id}"
        return [key.removeprefix("h:") for key in self.texts_between(low, after_prefix(low), tag)]

    def ids_from(self, conversation_id: str, user_id: str | None = None) -> tuple[list[str], bool]:
        """Return the next ids from this one on, and whether there may be more."""
        tag = None if user_id is None else f"u:{user_id}"
        found = self.texts_between(f"h:{conversation_id}", after_prefix("h:"), tag, most=IDS_AT_ONCE)
        return [key.removeprefix("h:") for key in found], len(found) == IDS_AT_ONCE

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        return self.get(f"a:{conversation_id}")

    def frames(self, conversation_ids: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the frames of conversations by id, read at once."""
        found = self.values_of([f"a:{each}" for each in conversation_ids])
        return {str(key).removeprefix("a:"): value for key, value in found.items()}

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self.put(f"a:{conversation_id}", value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:  # noqa: ARG002 - the record says it here
        """Delete a conversation: record, frame, and turns; ``erase_rest`` deletes the turns of long ones."""
        self.delete(f"a:{conversation_id}")
        self.delete(f"h:{conversation_id}")
        if self._erase_turns(cid):
            self.put(f"e:{cid}", b"")

    def erase_rest(self) -> bool:
        """Delete some remaining turns of deleted conversations; return whether any are left."""
        for key in self.texts_between("e:", after_prefix("e:")):
            if self._erase_turns(int(key.removeprefix("e:"))):
                return True
            self.delete(key)
        return False

    def next_cid(self) -> int:
        """Return a number that was never used for a conversation."""
        stored = self.get("c:cid")
        if stored is None or not stored.isdigit():  # counting from 1 again would overwrite what is stored
            raise StoreCorruptedError(
                f"The store in {self.where} has lost count of its conversations. Nothing was changed; "
                f"restore {disk_cache.DATABASE} from a backup."
            )
        cid = int(stored) + 1
        self.put("c:cid", str(cid).encode())
        return cid

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by place."""
        low, high = _bounds_of(cid)
        return {int(key) - low: value for key, value in self.between(low, high)}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places; adjacent ones are read at once."""
        keys = [_key_of(cid, place) for place in places]
        if not keys or keys != [*range(keys[0], keys[0] + len(keys))]:
            return [self.get(key) for key in keys]
        found = dict(self.between(keys[0], keys[-1] + 1))
        return [found.get(key) for key in keys]

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        low, high = _bounds_of(cid)
        select = "SELECT key FROM Cache WHERE tag = ? AND key >= ? AND key < ? LIMIT 1"
        row = self._connection.execute(select, (f"t:{turn_id}", low, high)).fetchone()
        return None if row is None else int(row[0]) - low

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self.add(_key_of(cid, place), value, tag=f"t:{turn_id}")

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        low, high = _bounds_of(cid)
        copied = f"INSERT INTO Cache(key, {_COPIED}) SELECT key + ?, {_COPIED} FROM Cache WHERE key >= ? AND key < ?"  # noqa: S608 - a constant
        self._connection.execute(copied, (_key_of(new_cid, 0) - low, low, high))

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes of the ledger, in their order."""
        found = self.values_of([f"l:{scope}" for scope in scopes])
        return [found.get(f"l:{scope}") for scope in scopes]

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        self.put(f"l:{scope}", value, counts=False)

    def note(self, name: str) -> bytes | None:
        """Return the store's own note of this name."""
        return self.get(f"s:{name}")

    def put_note(self, name: str, value: bytes) -> None:
        """Save a note of the store under this name."""
        self.put(f"s:{name}", value)

    def entries(self, key: str) -> list[Entry]:
        """Return the entries of a key of the index, oldest first."""
        low = f"k:{key}:"
        found = [(str(name).split(":"), value) for name, value in self.between(low, after_prefix(low))]
        return [Entry(key, int(at), int(cid), int(place), value.decode()) for (_, _, at, cid, place), value in found]

    def put_entry(self, entry: Entry, lifetime_s: float | None) -> None:  # noqa: ARG002 - deleted with its conversation
        """Write an entry of the index."""
        self.put(_key_of_entry(entry), entry.conversation_id.encode())

    def drop_entry(self, entry: Entry) -> None:
        """Delete an entry of the index, if it is there."""
        self.delete(_key_of_entry(entry))

    def kept_rows(self, kind: KeptKind, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
        """Return the rows of this kind by name, or those with these names."""
        low = f"{kind}:"
        if names is None:
            found = self.between(low, after_prefix(low))
        else:
            found = [*self.values_of([low + name for name in names]).items()]
        return {str(key).removeprefix(low): value for key, value in found}

    def put_kept_row(self, kind: KeptKind, name: str, value: bytes | None) -> None:
        """Write a row, or delete it if the value is ``None``."""
        if value is None:
            self.delete(f"{kind}:{name}")
        else:
            self.put(f"{kind}:{name}", value)

    def _erase_turns(self, cid: int) -> bool:
        """Delete the first turns of a conversation; return whether any are left."""
        low, high = _bounds_of(cid)
        last = self.key_at(low, high, ERASED_AT_ONCE)
        self.delete_between(low, high if last is None else last)
        return last is not None

    def _is_empty(self) -> bool:
        return self.get("format") is None

    def _initialize(self) -> None:
        if self._is_empty():
            self.put("format", str(FORMAT_VERSION).encode())
            self.put("c:cid", b"0")


def after_prefix(prefix: str) -> str:
    """Return the first text that sorts after all texts with the prefix.

    >>> after_prefix("h:user:alice:")
    'h:user:alice;'
    """
    kept = prefix.rstrip(chr(0x10FFFF))
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004 - past the surrogates


def _key_of(cid: int, place: int) -> int:
    return (cid << PLACE_BITS) | place


def _key_of_entry(entry: Entry) -> str:
    """Return the key of an entry's row; it sorts by age."""
    return f"k:{entry.key}:{entry.at_us:020d}:{entry.cid}:{entry.place}"


def _bounds_of(cid: int) -> tuple[int, int]:
    """Return the range of the keys of a conversation's turns: the first, and the first after them."""
    return _key_of(cid, 0), _key_of(cid + 1, 0)
