"""What the views read of a store: conversations as lines of JSON, undecoded, and only what changed since the last read.

Turns are written once and never changed, and each change of a conversation changes its record. So a reader that kept
what it read compares the records, and reads only what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.codec import decode_turn
from promptkit_nb.errors import StoreError
from promptkit_nb.stores.layout import Frame, Record, frame_of, record_of

if TYPE_CHECKING:
    from promptkit_nb.errors import StoreCorruptedError
    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.row_store import RowStore
    from promptkit_nb.turns import Turn


class ReadPosition(NamedTuple):
    """How far a conversation was read."""

    stored_record: bytes
    frame_digest: bytes
    cid: int
    next_place: int
    next_aside: int
    turn_count: int

    def was_appended_to(self, later: ReadPosition) -> bool:
        """Return whether all that happened up to the later position is that turns were appended."""
        return (self.cid, self.next_aside, self.frame_digest) == (later.cid, later.next_aside, later.frame_digest)


@dataclass(frozen=True, slots=True)
class ConversationRows:
    """The rows of a conversation; ``lines`` are its turns by place, without those that were read up to ``since``."""

    conversation_id: str
    record: Record
    frame: Frame
    lines: Mapping[int, bytes]
    position: ReadPosition
    since: ReadPosition | None = None


class RowReader:
    """Reads the rows of conversations; it touches no TTL, because showing a table should keep nothing alive."""

    def __init__(self, store: RowStore) -> None:
        """Read from this store."""
        self._store = store
        self._backend = store.backend

    def records(self, prefix: str | None, user_id: str | None) -> dict[str, bytes]:
        """Return the stored records of conversations that have not expired, sorted by id."""
        found = self._backend.run(partial(self._records, prefix or "", user_id), write=False)
        return {each: stored for each, stored in sorted(found) if not self._is_known_to_be_expired(each, stored)}

    def record(self, conversation_id: str) -> bytes | None:
        """Return the stored record of one conversation, or ``None`` if there is none."""
        stored = self._backend.run(partial(self._backend.record, conversation_id), write=False)
        return None if stored is None or self._is_expired(conversation_id, stored) else stored

    def read(
        self, conversation_ids: Sequence[str], positions: Mapping[str, ReadPosition], user_id: str | None
    ) -> list[ConversationRows]:
        """Return these conversations as of one moment, without those that are gone or have another user.

        If a conversation has a position and was only appended to since, just its new turns are read.
        """
        return self._backend.run(partial(self._read, conversation_ids, positions, user_id), write=False)

    def state(self, conversation_id: str) -> ConversationState | None:
        """Return a conversation as an object, or ``None`` if it is gone."""
        find = self._store._find_state  # noqa: SLF001 - of the same package
        return self._backend.run(partial(find, conversation_id), write=False)

    def turns_of(self, conversation_id: str, user_id: str | None, *, at_once: int) -> Iterator[Turn]:
        """Yield the turns that were appended to a user's conversation, oldest first, reading so many at once."""
        place = 0
        while True:
            lines = self._backend.run(partial(self._lines, conversation_id, user_id, place, at_once), write=False)
            yield from (decode_turn(line, conversation_id) for line in lines if line is not None)
            if len(lines) < at_once:
                return
            place += at_once

    def opening(self, conversation_id: str, most: int) -> list[Turn]:
        """Return the first current turns of a conversation, so many at most, without reading the others."""
        lines = self._backend.run(partial(self._opening, conversation_id, most), write=False)
        return [decode_turn(line, conversation_id) for line in lines if line is not None]

    @property
    def where(self) -> str:
        """Where the store is, for messages."""
        return self._backend.where

    def incomplete(self, conversation_id: str) -> StoreCorruptedError:
        """Return the error of a conversation that lacks a row."""
        return self._store._incomplete(conversation_id)  # noqa: SLF001 - as above

    def _records(self, prefix: str, user_id: str | None) -> list[tuple[str, bytes]]:
        return list(self._backend.records(prefix, user_id))

    def _lines(self, conversation_id: str, user_id: str | None, place: int, most: int) -> list[bytes | None]:
        stored = self._backend.record(conversation_id)
        record = None if stored is None else record_of(stored, conversation_id)
        if record is None or user_id not in (None, record.user_id):
            return []
        return self._backend.turns_at(record.cid, range(place, min(place + most, record.next_place)))

    def _opening(self, conversation_id: str, most: int) -> list[bytes | None]:
        record = self._store._find(conversation_id)  # noqa: SLF001 - as above
        if record is None or self._store._is_hidden(record):  # noqa: SLF001 - as above
            return []
        stored_frame = self._backend.frame(conversation_id)
        if stored_frame is None:
            raise self.incomplete(conversation_id)
        rows = frame_of(stored_frame, conversation_id).current_rows(record.next_place)
        return self._backend.turns_at(record.cid, rows[:most])

    def _read(
        self, conversation_ids: Iterable[str], positions: Mapping[str, ReadPosition], user_id: str | None
    ) -> list[ConversationRows]:
        found = (self._rows_of(each, positions.get(each), user_id) for each in conversation_ids)
        return [rows for rows in found if rows is not None]

    def _rows_of(
        self, conversation_id: str, before: ReadPosition | None, user_id: str | None
    ) -> ConversationRows | None:
        stored = self._backend.record(conversation_id)
        record = None if stored is None else record_of(stored, conversation_id)
        if stored is None or record is None or user_id not in (None, record.user_id):
            return None
        stored_frame = self._backend.frame(conversation_id)
        if stored_frame is None:
            raise self.incomplete(conversation_id)
        frame = frame_of(stored_frame, conversation_id)
        digest = blake2b(stored_frame, digest_size=16).digest()
        now = ReadPosition(stored, digest, record.cid, record.next_place, record.next_aside, record.turn_count)
        if before is None or not before.was_appended_to(now):
            return ConversationRows(conversation_id, record, frame, dict(self._backend.turns(record.cid)), now)
        new = range(before.next_place, record.next_place)
        lines = zip(new, self._backend.turns_at(record.cid, new), strict=True)
        found = {place: line for place, line in lines if line is not None}
        return ConversationRows(conversation_id, record, frame, found, now, since=before)

    def _is_known_to_be_expired(self, conversation_id: str, stored: bytes) -> bool:
        with suppress(StoreError):  # a damaged one is reported when it is read
            return self._is_expired(conversation_id, stored)
        return False

    def _is_expired(self, conversation_id: str, stored: bytes) -> bool:
        if b'"expires_at"' not in stored and self._store.ttl_s is None:
            return False
        return self._store._is_expired(record_of(stored, conversation_id))  # noqa: SLF001 - as above
