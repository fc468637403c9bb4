"""The default store: conversations in a directory, on diskcache (SQLite). Not for network file systems."""

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
from promptkit_nb.stores.disk_cache import DATABASE, look_into
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


class DiskBackend:
    """Rows in the table of a directory."""

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the table, and make an empty one a store."""
        self.where = str(directory)
        self._table = Table(directory, timeout_s)
        if self._table.run(self._is_empty, write=False):  # else nothing is written, and nobody who writes waited for
            self._table.run(self._begin, write=True)

    def run(self, work: Callable[[], T], *, write: bool) -> T:
        """Run the work as one transaction of SQLite."""
        return self._table.run(work, write=write)

    def version(self) -> object:
        """Return what becomes another as soon as any row does, but by ``append()``."""
        return self._table.version()

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record is still the former one and the turn is new; return whether it was."""
        conversation_id, user_id, former, record, cid, place, turn_id, line, accounts = appending
        head = Row(f"h:{conversation_id}", record, f"u:{user_id}")
        turn = Row(_key_of(cid, place), line, f"t:{turn_id}")
        if not self._table.swap(head, former, turn, *_bounds_of(cid)):
            return False
        for scope, _, changed in accounts:
            self.put_account(scope, changed)
        return True

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        return self._table.get(f"h:{conversation_id}")

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._table.put(f"h:{conversation_id}", value, tag=f"u:{user_id}")

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id begins so, of one user or of all."""
        if user_id is None:
            rows = self._table.between(f"h:{prefix}", behind_prefix(f"h:{prefix}"))
        else:
            rows = self._table.tagged(f"u:{user_id}")
        for key, value in rows:
            conversation_id = str(key).removeprefix("h:")
            if conversation_id.startswith(prefix):
                yield conversation_id, value

    def ids(self) -> list[str]:
        """Return the ids of all conversations, also where a record cannot be read."""
        return [key.removeprefix("h:") for key in self._table.texts_between("h:", behind_prefix("h:"))]

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        return self._table.get(f"a:{conversation_id}")

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._table.put(f"a:{conversation_id}", value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:  # noqa: ARG002 - the record says it here
        """Delete a conversation: record, frame and turns."""
        self._table.delete_between(*_bounds_of(cid))
        self._table.delete(f"a:{conversation_id}")
        self._table.delete(f"h:{conversation_id}")

    def next_cid(self) -> int:
        """Return a number that no conversation has had."""
        stored = self._table.get("c:cid")
        if stored is None or not stored.isdigit():  # counting from 1 again would write over what is there
            raise StoreCorruptedError(
                f"The store in {self.where} has lost count of its conversations. Nothing was changed; "
                f"restore {DATABASE} from a backup."
            )
        cid = int(stored) + 1
        self._table.put("c:cid", str(cid).encode())
        return cid

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by their places."""
        low, high = _bounds_of(cid)
        return {int(key) - low: value for key, value in self._table.between(low, high)}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places; many that follow each other are read at once."""
        wanted = list(places)
        first = _key_of(cid, wanted[0]) if wanted else 0
        if wanted == list(range(wanted[0], wanted[-1] + 1) if wanted else ()):
            found = dict(self._table.between(first, first + len(wanted)))
            return [found.get(key) for key in range(first, first + len(wanted))]
        return [self._table.get(_key_of(cid, place)) for place in wanted]

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        low, high = _bounds_of(cid)
        key = self._table.key_of_tag(f"t:{turn_id}", low, high)
        return None if key is None else int(key) - low

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._table.add(_key_of(cid, place), value, tag=f"t:{turn_id}")

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, places kept."""
        low, high = _bounds_of(cid)
        self._table.copy_between(low, high, _key_of(new_cid, 0) - low)

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes of the ledger, in their order."""
        return [self._table.get(f"l:{scope}") for scope in scopes]

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        self._table.put(f"l:{scope}", value, counts=False)

    def close(self) -> None:
        """Let go of the files."""
        self._table.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._table.closed

    def _is_empty(self) -> bool:
        return self._table.get("format") is None

    def _begin(self) -> None:
        if self._is_empty():
            self._table.put("format", str(FORMAT_VERSION).encode())
            self._table.put("c:cid", b"0")


def behind_prefix(prefix: str) -> str:
    """Return the first text that sorts behind all those which begin with the prefix.

    >>> behind_prefix("h:user:alice:")
    'h:user:alice;'
    """
    kept = prefix.rstrip(chr(0x10FFFF))
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004 - past the surrogates


def _key_of(cid: int, place: int) -> int:
    return (cid << PLACE_BITS) | place


def _bounds_of(cid: int) -> tuple[int, int]:
    """Return the keys between which a conversation's turns stand: the first, and the first behind them."""
    return _key_of(cid, 0), _key_of(cid + 1, 0)


MARKER = "promptkit-store.json"


class DiskStore(RowStore):
    """Keeps conversations in a directory, for all processes of one machine.

    Args:
        directory: Where; without one ``PROMPTKIT_HOME``, else the user's data directory. What is missing of it is made
            with mode 0700, its files with 0600.
        ttl: A ``timedelta`` or seconds after which a conversation that was neither read nor written expires; ``None``
            or 0 keeps it.
        clock: Where the time comes from; tests set it.
        timeout_s: How long to wait for another process that is writing, in seconds.

    Raises ``StoreUnavailableError`` where the directory cannot be used or a newer format wrote it, and
    ``StoreCorruptedError`` where its database is damaged: never an empty history instead.

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
        """Open the store, creating it where there is none."""
        self.directory = _chosen_directory(directory)
        initialised = _prepare(self.directory)
        _check_ours(self.directory, timeout_s, initialised=initialised)
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
    """Make the directory and the database file, readable by nobody else; return whether a store was there before."""
    try:
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        for each in reversed(missing):  # mkdir's own way would make the parents readable by everybody
            each.mkdir(mode=0o700, exist_ok=True)
        marker = directory / MARKER
        database = directory / DATABASE
        if marker.exists():
            check_format(_format_of(marker), f"The store in {directory}")
            if not database.exists() or database.stat().st_size == 0:  # SQLite would make an empty one
                raise _lost(directory)
            return True
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"The store in {directory} cannot be opened: {error.strerror or error}. Choose a directory that you may "
            'write to, as in DiskStore("conversations"), or set PROMPTKIT_HOME.'
        ) from error
    return False


def _check_ours(directory: Path, timeout_s: float, *, initialised: bool) -> None:
    """Refuse a database that is not a store of ours, or that a newer format wrote, before anything is changed."""
    has_rows, stored = look_into(directory, "format", timeout_s)
    if isinstance(stored, bytes) and stored.isdigit():
        check_format(int(stored), f"The store in {directory}")
    elif initialised:
        raise _lost(directory)
    elif has_rows:
        raise StoreUnavailableError(
            f"{directory} holds a cache of another program; nothing was changed. Choose another directory, "
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
