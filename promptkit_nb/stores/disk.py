"""The default store: conversations in a directory, in an SQLite database. Not for network file systems.

The database is that of diskcache, deliberately used in our own way: rows are read and written with SQL on
diskcache's own table, its triggers are off, and nothing is pickled, evicted, or kept in separate files. diskcache
opens the database, makes its schema and gives each thread and each forked child its connection, and its tools can read
the file. What it would do beyond that is either unsafe (a pickle in the file would be executed), or costs every write
time that no one asks for (counters, expiry). ``disk_backend`` has the SQL, ``disk_cache`` how diskcache is opened.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from promptkit_nb.codec import FORMAT_VERSION, check_format
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.stores.checks import path_of
from promptkit_nb.stores.disk_backend import DiskBackend
from promptkit_nb.stores.disk_cache import DATABASE, peek
from promptkit_nb.stores.row_access import Reopening, reopened
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptkit_nb.stores.base import Duration


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
        self._timeout_s = timeout_s
        initialized = _prepare(self.directory)
        _check_is_store(self.directory, timeout_s, initialized=initialized)
        super().__init__(DiskBackend(self.directory, timeout_s), ttl, clock)
        _write_marker(self.directory)

    def __repr__(self) -> str:
        """Return where it is."""
        return self._described(str(self.directory))

    def __reduce__(self) -> Reopening[DiskStore]:
        """Return how another process opens the same store."""
        reopen = partial(type(self), self.directory, self.ttl_s, clock=self._clock, timeout_s=self._timeout_s)
        return reopened, (reopen, self.user_id)


def _chosen_directory(directory: str | os.PathLike[str] | None) -> Path:
    if directory is not None and not str(directory).strip():
        raise InvalidArgumentError('DiskStore(directory="") names no directory; leave it out for the default one.')
    if directory is not None:
        return _absolute(path_of("directory", directory))
    home = os.environ.get("PROMPTKIT_HOME")
    if home:
        return _absolute(Path(home))
    try:
        return _absolute(user_data_path("promptkit_nb") / "conversations")
    except RuntimeError as error:  # newer versions of platformdirs; older ones return a path that begins with "~"
        raise _no_home("The default directory") from error


def _absolute(path: Path) -> Path:
    expanded = os.path.expanduser(path)  # noqa: PTH111 - pathlib raises for unknown users
    if expanded.startswith("~"):
        raise _no_home(str(path))
    return Path(expanded).absolute()


def _no_home(path: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{path} cannot be found: the home directory is unknown (no HOME, no entry in passwd). Set PROMPTKIT_HOME to a "
        'directory that you may write to, or name one, as in DiskStore("conversations").'
    )


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


def _check_is_store(directory: Path, timeout_s: float, *, initialized: bool) -> None:
    """Raise if the database is not a store of this package, or has a newer format, before anything is changed."""
    has_rows, stored = peek(directory, "format", timeout_s)
    if isinstance(stored, bytes) and stored.isdigit():
        check_format(int(stored), f"The store in {directory}")
    elif initialized:
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
