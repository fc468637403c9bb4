"""The default store: conversations in a directory, in an SQLite database. Not for network file systems.

The database is that of diskcache, held in a way of our own, deliberately: rows are read and written with SQL on
diskcache's own table, its triggers are off, and nothing is pickled, evicted or kept in a file of its own. diskcache
opens the database, makes its schema and gives each thread and each forked child its connection, and its tools can read
the file. What it would do beyond that is either unsafe (a pickle in the file would be executed), or costs every write
time that no one asks for (counters, expiry). ``disk_table`` has the SQL, ``disk_cache`` how diskcache is opened.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from platformdirs import user_data_path

from promptkit_nb.codec import FORMAT_VERSION, check_format
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.stores.checks import path_of
from promptkit_nb.stores.disk_cache import DATABASE, peek
from promptkit_nb.stores.disk_table import Row, Table
from promptkit_nb.stores.layout import PLACE_BITS
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.stores.backend import Appending
    from promptkit_nb.stores.base import Duration

T = TypeVar("T")


class DiskBackend(Table):
    """A table whose rows are conversations and accounts."""

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the table, and make an empty one a store."""
        super().__init__(directory, timeout_s)
        self.where = str(directory)
        if self.run(self._is_empty, write=False):  # only an empty one is written to, and waits for other writers
            self.run(self._initialize, write=True)

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record is still the former one and the turn is new; return whether it was appended."""
        conversation_id, user_id, former, record, cid, place, turn_id, line, accounts = appending
        head = Row(f"h:{conversation_id}", record, f"u:{user_id}")
        turn = Row(_key_of(cid, place), line, f"t:{turn_id}")
        if not self.swap(head, former, turn, *_bounds_of(cid)):
            return False
        for scope, _, changed in accounts:
            self.put(f"l:{scope}", changed, counts=False)
        return True

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        return self.get(f"h:{conversation_id}")

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self.put(f"h:{conversation_id}", value, tag=f"u:{user_id}")

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id has the prefix, of one user or of all."""
        if user_id is None:
            rows = self.between(f"h:{prefix}", after_prefix(f"h:{prefix}"))
        else:
            rows = self.tagged(f"u:{user_id}")
        for key, value in rows:
            conversation_id = str(key).removeprefix("h:")
            if conversation_id.startswith(prefix):
                yield conversation_id, value

    def ids(self) -> list[str]:
        """Return the ids of all conversations, even if a record cannot be read."""
        return [key.removeprefix("h:") for key in self.texts_between("h:", after_prefix("h:"))]

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        return self.get(f"a:{conversation_id}")

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self.put(f"a:{conversation_id}", value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:  # noqa: ARG002 - the record says it here
        """Delete a conversation: record, frame and turns."""
        self.delete_between(*_bounds_of(cid))
        self.delete(f"a:{conversation_id}")
        self.delete(f"h:{conversation_id}")

    def next_cid(self) -> int:
        """Return a number that was never used for a conversation."""
        stored = self.get("c:cid")
        if stored is None or not stored.isdigit():  # counting from 1 again would overwrite what is stored
            raise StoreCorruptedError(
                f"The store in {self.where} has lost count of its conversations. Nothing was changed; "
                f"restore {DATABASE} from a backup."
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
        wanted = list(places)
        first = _key_of(cid, wanted[0]) if wanted else 0
        if wanted == list(range(wanted[0], wanted[-1] + 1) if wanted else ()):
            found = dict(self.between(first, first + len(wanted)))
            return [found.get(key) for key in range(first, first + len(wanted))]
        return [self.get(_key_of(cid, place)) for place in wanted]

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        low, high = _bounds_of(cid)
        key = self.key_of_tag(f"t:{turn_id}", low, high)
        return None if key is None else int(key) - low

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self.add(_key_of(cid, place), value, tag=f"t:{turn_id}")

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        low, high = _bounds_of(cid)
        self.copy_between(low, high, _key_of(new_cid, 0) - low)

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes of the ledger, in their order."""
        found = self.values_of([f"l:{scope}" for scope in scopes])
        return [found.get(f"l:{scope}") for scope in scopes]

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        self.put(f"l:{scope}", value, counts=False)

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


def _bounds_of(cid: int) -> tuple[int, int]:
    """Return the range of the keys of a conversation's turns: the first, and the first after them."""
    return _key_of(cid, 0), _key_of(cid + 1, 0)


MARKER = "promptkit-store.json"


class DiskStore(RowStore):
    """Keeps conversations in a directory, for all processes of one machine.

    Args:
        directory: The directory; by default ``PROMPTKIT_HOME``, else the user's data directory. Missing directories
            are created with mode 0700, files with 0600.
        ttl: A ``timedelta`` or seconds; a conversation that was neither read nor written for as long expires. ``None``
            or 0 keeps it.
        clock: Returns the current time; tests set it.
        timeout_s: How long to wait for another process that is writing, in seconds.

    Raises ``StoreUnavailableError`` if the directory cannot be used or has a newer format, and ``StoreCorruptedError``
    if its database is damaged. It never shows an empty history instead.

    >>> import tempfile
    >>> from promptkit_nb import ConversationState, DiskStore
    >>> with DiskStore(tempfile.mkdtemp()) as store:
    ...     store.create(ConversationState("a", "alice")).user_id
    'alice'
    """

    backend: DiskBackend

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        ttl: Duration | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        timeout_s: float = 60,
    ) -> None:
        """Open the store, or create it."""
        self.directory = _chosen_directory(directory)
        initialised = _prepare(self.directory)
        _check_is_store(self.directory, timeout_s, initialised=initialised)
        super().__init__(DiskBackend(self.directory, timeout_s), ttl, clock)
        _write_marker(self.directory)

    def __repr__(self) -> str:
        """Return where it is."""
        return self._described(str(self.directory))


def _chosen_directory(directory: str | os.PathLike[str] | None) -> Path:
    if directory is not None and not str(directory).strip():
        raise InvalidArgumentError('DiskStore(directory="") names no directory; leave it out for the default one.')
    if directory is not None:
        return path_of("directory", directory).expanduser().absolute()
    home = os.environ.get("PROMPTKIT_HOME")
    return Path(home).expanduser().absolute() if home else user_data_path("promptkit_nb") / "conversations"


def _prepare(directory: Path) -> bool:
    """Make the directory and the database file, private to the user; return whether there was a store before."""
    try:
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        for each in reversed(missing):  # mkdir(parents=True) would make the parents readable by everyone
            each.mkdir(mode=0o700, exist_ok=True)
        marker = directory / MARKER
        database = directory / DATABASE
        if marker.exists():
            check_format(_format_of(marker), f"The store in {directory}")
            if not database.exists() or database.stat().st_size == 0:  # SQLite would create an empty one
                raise _lost(directory)
            return True
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"The store in {directory} cannot be opened: {error.strerror or error}. Choose a directory that you may "
            'write to, as in DiskStore("conversations"), or set PROMPTKIT_HOME.'
        ) from error
    return False


def _check_is_store(directory: Path, timeout_s: float, *, initialised: bool) -> None:
    """Raise if the database is not a store of this package, or has a newer format, before anything is changed."""
    has_rows, stored = peek(directory, "format", timeout_s)
    if isinstance(stored, bytes) and stored.isdigit():
        check_format(int(stored), f"The store in {directory}")
    elif initialised:
        raise _lost(directory)
    elif has_rows:
        raise StoreUnavailableError(
            f"{directory} has a cache of another program; nothing was changed. Choose another directory, "
            'as in DiskStore("conversations").'
        )


def _lost(directory: Path) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"The store in {directory} has lost its contents: {DATABASE} is not the database that was written there. "
        "Nothing was changed; restore it from a backup, or choose another directory."
    )


def _format_of(marker: Path) -> int:
    try:
        return int(json.loads(marker.read_text("utf-8"))["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptedError(f"{marker} is damaged ({error}); restore it from a backup.") from error


def _write_marker(directory: Path) -> None:
    marker = directory / MARKER
    if marker.exists():
        return
    descriptor, partial = tempfile.mkstemp(dir=directory, prefix=f"{MARKER}.")  # its mode is 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT_VERSION, "written_by": "promptkit_nb"}, file)
    Path(partial).replace(marker)
