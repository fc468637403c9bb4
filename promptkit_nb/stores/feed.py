"""What the views read of a store: whole conversations as lines of JSON, undecoded, and what changed since.

Turns are written once and never changed, and each change to a conversation changes its record. So who kept what was
read compares records, and reads what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.codec import check_format, decode
from promptkit_nb.stores.layout import Frame, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from promptkit_nb.errors import StoreCorruptedError
    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.row_store import RowStore


class Seen(NamedTuple):
    """How far a conversation was read."""

    stored_record: bytes
    frame_digest: bytes
    cid: int
    next_place: int
    next_aside: int
    turn_count: int

    def goes_on_in(self, later: Seen) -> bool:
        """Return whether nothing happened since but that turns were appended."""
        return (self.cid, self.next_aside, self.frame_digest) == (later.cid, later.next_aside, later.frame_digest)


@dataclass(frozen=True, slots=True)
class ConversationRows:
    """A conversation as it lies in its rows; ``lines`` are its turns by their rows, those of ``since`` left out."""

    conversation_id: str
    record: Record
    frame: Frame
    lines: Mapping[int, bytes]
    seen: Seen
    since: Seen | None = None


class Feed:
    """Reads conversations from a store of rows. It touches no TTL: looking at a table keeps nothing alive."""

    def __init__(self, store: RowStore) -> None:
        """Read from this store."""
        self._store = store

    def records(self, prefix: str | None, user_id: str | None) -> dict[str, bytes]:
        """Return the records of the conversations that are there, as they are stored, in the order of their ids."""
        rows = self._store.backend
        found = rows.run(lambda: list(rows.records(prefix or "", user_id)), write=False)
        return {each: stored for each, stored in sorted(found) if not self._is_expired(each, stored)}

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of one conversation, as it is stored, ``None`` where it is not there."""
        rows = self._store.backend
        stored = rows.run(lambda: rows.record(conversation_id), write=False)
        return None if stored is None or self._is_expired(conversation_id, stored) else stored

    def read(
        self, conversation_ids: Sequence[str], seen: Mapping[str, Seen], user_id: str | None
    ) -> list[ConversationRows]:
        """Return these conversations, as they are at one moment; those that are gone, or another user's, are left out.

        Of one that was ``seen`` and only appended to, the new turns alone are read.
        """
        rows = self._store.backend
        return rows.run(lambda: list(self._read(conversation_ids, seen, user_id)), write=False)

    def state(self, conversation_id: str) -> ConversationState | None:
        """Return a conversation as an object, ``None`` where it is gone."""
        return self._store._state_or_none(conversation_id)  # noqa: SLF001 - of the same layer

    def incomplete(self, conversation_id: str) -> StoreCorruptedError:
        """Return the error of a conversation of which a row is missing."""
        return self._store._incomplete(conversation_id)  # noqa: SLF001 - of the same layer

    def _read(
        self, conversation_ids: Iterable[str], seen: Mapping[str, Seen], user_id: str | None
    ) -> Iterator[ConversationRows]:
        rows = self._store.backend
        for each in conversation_ids:
            stored = rows.record(each)
            record = None if stored is None else record_of(stored, each)
            if stored is None or record is None or user_id not in (None, record.user_id):
                continue
            stored_frame = rows.frame(each)
            if stored_frame is None:
                raise self.incomplete(each)
            frame = decode(stored_frame, Frame, each)
            digest = blake2b(stored_frame, digest_size=16).digest()
            now = Seen(stored, digest, record.cid, record.next_place, record.next_aside, record.turn_count)
            before = seen.get(each)
            if before is None or not before.goes_on_in(now):
                yield ConversationRows(each, record, frame, dict(rows.turns(record.cid)), now)
                continue
            new = range(before.next_place, record.next_place)
            lines = zip(new, rows.turns_at(record.cid, new), strict=True)
            found = {row: line for row, line in lines if line is not None}
            yield ConversationRows(each, record, frame, found, now, since=before)

    def _is_expired(self, conversation_id: str, stored: bytes) -> bool:
        if b'"expires_at"' not in stored:
            return False
        return self._store._is_expired(record_of(stored, conversation_id))  # noqa: SLF001 - of the same layer


def record_of(stored: bytes, conversation_id: str) -> Record:
    """Return a record; ``StoreUnavailableError`` where a newer version of this package wrote it."""
    record = decode(stored, Record, conversation_id)
    check_format(record.format, f"The conversation {conversation_id!r}")
    return record
