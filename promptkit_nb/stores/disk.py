"""The default store: conversations in a directory, on diskcache (SQLite). Not for network file systems."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from platformdirs import user_data_path

from promptkit_nb.codec import (
    FORMAT_VERSION,
    check_format,
    checked_turn,
    decode,
    decode_turn,
    encode,
    encode_turn,
    json_copy,
)
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.state import ConversationState, Head, carry_totals
from promptkit_nb.stores.base import (
    Duration,
    SortKey,
    check_count,
    check_filters,
    check_revision,
    checked_state,
    exists_already,
    not_found,
    seconds_of,
    sorted_page,
)
from promptkit_nb.stores.layout import (
    Frame,
    MetadataOnly,
    Record,
    behind_prefix,
    bounds_of,
    head_of,
    key_of,
    rows_of,
    state_of,
)
from promptkit_nb.stores.rows import DATABASE, Rows, look_into
from promptkit_nb.turns import Turn, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType


MARKER = "promptkit-store.json"


class DiskStore:
    """Keeps conversations in a directory, for all processes of one machine.

    Args:
        directory: Where; without one ``PROMPTKIT_HOME``, else the user's data directory. It is made with mode 0700,
            its files with 0600.
        ttl: A ``timedelta`` or seconds after which a conversation that was neither read nor written expires; ``None``
            keeps it.
        clock: Where the time comes from; tests set it.
        timeout_s: How long to wait for another process that is writing, in seconds.

    Raises ``StoreUnavailableError`` where the directory cannot be used or a newer format wrote it, and
    ``StoreCorruptedError`` where its database is damaged: never an empty history instead.

    >>> import tempfile
    >>> with DiskStore(tempfile.mkdtemp()) as store:
    ...     store.create(ConversationState("a", "alice")).user_id
    'alice'
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        ttl: Duration | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        timeout_s: float = 60,
    ) -> None:
        """Open the store, creating it where there is none."""
        self._ttl_s = seconds_of("ttl", ttl)
        self._clock = clock
        self.directory = _chosen_directory(directory)
        initialised = _prepare(self.directory)
        _check_ours(self.directory, timeout_s, initialised=initialised)
        self._rows = Rows(self.directory, timeout_s)
        self._initialise()

    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken."""
        state = checked_state(state)
        with self._rows.transaction(write=True):
            former = self._find(state.conversation_id, forget_expired=True)
            if former is not None:
                raise exists_already(state.conversation_id)
            return self._write(state, revision=1)

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        check_conversation_id(conversation_id)
        with self._reading():
            record = self._live(conversation_id)
            self._touch(conversation_id, record)
            return self._state(conversation_id, record)

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write the state exactly as it is given, in place of what is there."""
        state = checked_state(state)
        conversation_id = state.conversation_id
        with self._rows.transaction(write=True):
            record = self._find(conversation_id, forget_expired=True)
            revision = 0 if record is None else record.revision
            check_revision(conversation_id, revision, expected_revision)
            if record is None:
                return self._write(state, revision + 1)
            carried = carry_totals(state, self._state(conversation_id, record))
            self._rows.delete_between(*bounds_of(record.cid))
            return self._write(carried, revision + 1)

    def append(self, conversation_id: str, turn: Turn, *, user_id: str = "default", create: bool = True) -> Head:
        """Add one turn at the end; the same turn, appended again, is once."""
        check_conversation_id(conversation_id)
        turn = checked_turn(turn)
        with self._rows.transaction(write=True):
            record = self._find(conversation_id, forget_expired=True)
            if record is None:
                if not create:
                    raise not_found(conversation_id)
                check_user_id(user_id)
                self._write(ConversationState(conversation_id, user_id, created_at=self._clock()), revision=1)
                record = self._live(conversation_id)
            if not self._rows.has_tag(f"t:{turn.id}", *bounds_of(record.cid)):
                self._rows.put(key_of(record.cid, record.next_place), encode_turn(turn), tag=f"t:{turn.id}")
                record = self._changed(
                    record,
                    turn_count=record.turn_count + 1,
                    next_place=record.next_place + 1,
                    totals=record.totals.plus_turns([turn]),
                )
            self._put_record(conversation_id, record)
            return head_of(conversation_id, record, self._metadata(conversation_id))

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        check_conversation_id(conversation_id)
        check_count("n", n)
        with self._reading():
            record = self._live(conversation_id)
            self._touch(conversation_id, record)
            frame = self._frame(conversation_id)
            if frame.is_plain:
                start = max(0, record.next_place - n)
                rows = self._rows.between(key_of(record.cid, start), key_of(record.cid, record.next_place))
                self._check_complete(conversation_id, len(rows), record.next_place - start)
                return tuple(decode_turn(value) for _, value in rows)
            newest = frame.current_rows(record.next_place)[-n:] if n else []
            return tuple(self._turn(conversation_id, record, row) for row in newest)

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""
        check_conversation_id(conversation_id)
        with self._rows.transaction():
            record = self._live(conversation_id)
            return head_of(conversation_id, record, self._metadata(conversation_id))

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
        """Return the heads in a total and stable order."""
        check_filters(prefix, user_id)
        with self._rows.transaction():
            heads = [
                head_of(conversation_id, record, {})
                for conversation_id, record in self._records(prefix or "", user_id)
                if not self._is_expired(record)
            ]
            page = sorted_page(heads, sort_by, descending=descending, limit=limit, offset=offset)
            return [replace(head, metadata=self._metadata(head.conversation_id)) for head in page]

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        check_conversation_id(conversation_id)
        copied = json_copy(changes, "metadata")
        with self._rows.transaction(write=True):
            record = self._live(conversation_id)
            frame = self._frame(conversation_id)
            merged = {**frame.metadata, **copied}
            if copied:
                self._rows.put(f"a:{conversation_id}", encode(replace(frame, metadata=merged)))
                record = self._changed(record)
            self._put_record(conversation_id, record)
            return head_of(conversation_id, record, merged)

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation for good."""
        check_conversation_id(conversation_id)
        with self._rows.transaction(write=True):
            self._erase(conversation_id, self._live(conversation_id))

    def close(self) -> None:
        """Let go of the files; calling it again is fine."""
        self._rows.close()

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<DiskStore: {'closed, ' if self._rows.closed else ''}{self.directory}>"

    def _reading(self) -> AbstractContextManager[None]:
        # Reading keeps a conversation alive, so with a TTL it writes.
        return self._rows.transaction(write=self._ttl_s is not None)

    def _find(self, conversation_id: str, *, forget_expired: bool = False) -> Record | None:
        stored = self._rows.get(f"h:{conversation_id}")
        if stored is None:
            return None
        record = self._decoded(stored, conversation_id)
        if not self._is_expired(record):
            return record
        if forget_expired:
            self._erase(conversation_id, record)
        return None

    def _live(self, conversation_id: str) -> Record:
        record = self._find(conversation_id)
        if record is None:
            raise not_found(conversation_id)
        return record

    def _is_expired(self, record: Record) -> bool:
        return record.expires_at is not None and record.expires_at <= self._clock()

    def _decoded(self, stored: bytes, conversation_id: str) -> Record:
        record = decode(stored, Record)
        check_format(record.format, f"The conversation {conversation_id!r}")
        return record

    def _records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, Record]]:
        if user_id is None:
            rows = self._rows.between(f"h:{prefix}", behind_prefix(f"h:{prefix}"))
        else:
            rows = self._rows.tagged(f"u:{user_id}")
        for key, value in rows:
            conversation_id = str(key).removeprefix("h:")
            if conversation_id.startswith(prefix):
                yield conversation_id, self._decoded(value, conversation_id)

    def _frame(self, conversation_id: str) -> Frame:
        stored = self._rows.get(f"a:{conversation_id}")
        if stored is None:
            raise _incomplete(conversation_id, self.directory)
        return decode(stored, Frame)

    def _metadata(self, conversation_id: str) -> Mapping[str, object]:
        stored = self._rows.get(f"a:{conversation_id}")
        if stored is None:
            raise _incomplete(conversation_id, self.directory)
        return decode(stored, MetadataOnly).metadata

    def _turn(self, conversation_id: str, record: Record, place: int) -> Turn:
        stored = self._rows.get(key_of(record.cid, place))
        if stored is None:
            raise _incomplete(conversation_id, self.directory)
        return decode_turn(stored)

    def _state(self, conversation_id: str, record: Record) -> ConversationState:
        low, high = bounds_of(record.cid)
        turns = {int(key) - low: decode_turn(value) for key, value in self._rows.between(low, high)}
        try:
            state = state_of(conversation_id, record, self._frame(conversation_id), turns)
        except KeyError as error:
            raise _incomplete(conversation_id, self.directory) from error
        self._check_complete(conversation_id, len(state.turns), record.turn_count)
        return state

    def _check_complete(self, conversation_id: str, found: int, expected: int) -> None:
        if found != expected:
            raise _incomplete(conversation_id, self.directory)

    def _changed(self, record: Record, **changes: object) -> Record:
        return replace(record, revision=record.revision + 1, updated_at=self._clock(), **changes)  # type: ignore[arg-type]  # fields of Record

    def _touch(self, conversation_id: str, record: Record) -> None:
        if self._ttl_s is not None:
            self._put_record(conversation_id, record)

    def _put_record(self, conversation_id: str, record: Record) -> None:
        ttl_s = self._ttl_s  # without one, what another store's TTL said is over: nobody asked for it here
        expires_at = None if ttl_s is None else self._clock() + timedelta(seconds=ttl_s)
        record = replace(record, expires_at=expires_at)
        self._rows.put(f"h:{conversation_id}", encode(record), tag=f"u:{record.user_id}")

    def _write(self, state: ConversationState, revision: int) -> Head:
        cid = self._next_cid()
        record, frame, turns = rows_of(state, cid, revision)
        for place, turn in turns.items():
            self._rows.put(key_of(cid, place), encode_turn(turn), tag=f"t:{turn.id}")
        self._rows.put(f"a:{state.conversation_id}", encode(frame))
        self._put_record(state.conversation_id, record)
        return head_of(state.conversation_id, record, state.metadata)

    def _next_cid(self) -> int:
        stored = self._rows.get("c:cid")
        if stored is None or not stored.isdigit():  # counting from 1 again would write over what is there
            raise StoreCorruptedError(
                f"The store in {self.directory} has lost count of its conversations. Nothing was changed; "
                f"restore {DATABASE} from a backup."
            )
        cid = int(stored) + 1
        self._rows.put("c:cid", str(cid).encode())
        return cid

    def _erase(self, conversation_id: str, record: Record) -> None:
        self._rows.delete_between(*bounds_of(record.cid))
        self._rows.delete(f"a:{conversation_id}")
        self._rows.delete(f"h:{conversation_id}")

    def _initialise(self) -> None:
        """Make an empty database a store."""
        with self._rows.transaction(write=True):
            if self._rows.get("format") is None:
                self._rows.put("format", str(FORMAT_VERSION).encode())
                self._rows.put("c:cid", b"0")
        _write_marker(self.directory)


def _chosen_directory(directory: str | os.PathLike[str] | None) -> Path:
    if directory is not None and not str(directory).strip():
        raise InvalidArgumentError('DiskStore(directory="") names no directory; leave it out for the default one.')
    if directory is not None:
        return Path(directory).expanduser().absolute()
    home = os.environ.get("PROMPTKIT_HOME")
    return Path(home).expanduser().absolute() if home else user_data_path("promptkit_nb") / "conversations"


def _prepare(directory: Path) -> bool:
    """Make the directory and the database file, readable by nobody else; return whether a store was there before."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def _incomplete(conversation_id: str, directory: Path) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"The conversation {conversation_id!r} in {directory} is incomplete: rows of it are missing. "
        f"Nothing was changed; restore {DATABASE} from a backup."
    )
