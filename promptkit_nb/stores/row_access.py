"""How a store finds, reads and writes the rows of its conversations."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from msgspec import structs

from promptkit_nb.codec import SALVAGE, decode, decode_json, encode, encode_turn
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.ids import check_conversation_id
from promptkit_nb.stores.cache import CachedConversation, ReadCache
from promptkit_nb.stores.checks import not_found, ttl_s_of, turn_unknown
from promptkit_nb.stores.layout import Frame, MetadataOnly, Record, head_of, record_of, rows_of, state_of
from promptkit_nb.turns import without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.backend import Backend
    from promptkit_nb.stores.base import Duration, PeriodicCleanup

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="RowAccess")


def writing(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that may write."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.backend.run(partial(method, self, *args, **kwargs), write=True)

    return run


class RowAccess:
    """Finds, reads and writes the rows of conversations; all within one transaction of the backend."""

    user_id: str | None = None

    def __init__(self, backend: Backend, ttl: Duration | None, clock: Callable[[], datetime]) -> None:
        """Keep conversations in the rows of this backend."""
        self.backend = backend
        self.ttl_s = ttl_s_of(ttl)
        self._clock = clock
        self._cleanups: list[PeriodicCleanup] = []
        self._cache = ReadCache()

    def _find(self, conversation_id: str, *, erase_expired: bool = False) -> Record | None:
        """Return the record of a conversation, of whichever user, unless it has expired."""
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        record = record_of(stored, conversation_id)
        if not self._is_expired(record):
            return record
        if erase_expired:
            self._erase(conversation_id, record)
        return None

    def _visible(self, conversation_id: str) -> Record:
        record = self._find(check_conversation_id(conversation_id))
        if record is None or self._is_hidden(record):
            raise not_found(conversation_id)
        return record

    def _visible_with_frame(self, conversation_id: str) -> tuple[Record, Frame]:
        return self._visible(conversation_id), self._frame(conversation_id)

    def _is_hidden(self, record: Record) -> bool:
        """Return whether this store is narrowed to another user than the conversation's."""
        return self.user_id not in (None, record.user_id)

    def _is_expired(self, record: Record) -> bool:
        return record.expires_at is not None and record.expires_at <= self._clock()

    def _cached(self, conversation_id: str) -> CachedConversation | None:
        """Return a conversation, of whichever user; only rows that may have changed since the last time are read."""
        counter = self.backend.change_counter()
        found = self._cache.conversation(conversation_id)
        if found is None or counter is None or found.counter != counter:
            found = self._refreshed(conversation_id, found, counter)
        return None if found is None or self._is_expired(found.record) else found

    def _refreshed(
        self, conversation_id: str, former: CachedConversation | None, counter: object
    ) -> CachedConversation | None:
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        if former is not None and former.stored == stored:
            return former._replace(counter=counter)
        record = record_of(stored, conversation_id)
        return CachedConversation.of(stored, record, self._frame(conversation_id), counter)

    def _with_new_ttl(self, conversation_id: str) -> CachedConversation:
        """Return a conversation that is being read, which restarts its TTL."""
        found = self._cached(conversation_id)
        if found is None or self._is_hidden(found.record):
            raise not_found(conversation_id)
        if self.ttl_s is None:
            return found
        record, stored = self._put_record(conversation_id, found.record)
        return found._replace(stored=stored, record=record)

    def _records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, Record]]:
        for conversation_id, stored in self.backend.records(prefix, user_id):
            yield conversation_id, record_of(stored, conversation_id)

    def _frame(self, conversation_id: str) -> Frame:
        stored = self.backend.frame(conversation_id)
        if stored is None:
            raise self._incomplete(conversation_id)
        return decode(stored, Frame, conversation_id)

    def _metadata(self, conversation_id: str) -> Mapping[str, object]:
        stored = self.backend.frame(conversation_id)
        if stored is None:
            raise self._incomplete(conversation_id)
        return decode(stored, MetadataOnly, conversation_id).metadata

    def _state(self, conversation_id: str, record: Record) -> ConversationState:
        turns = self._cache.turns_of(record.cid, self.backend.turns(record.cid), conversation_id)
        try:
            state = state_of(conversation_id, record, self._frame(conversation_id), turns)
        except KeyError as error:
            raise self._incomplete(conversation_id) from error
        if len(state.turns) != record.turn_count:
            raise self._incomplete(conversation_id)
        return state

    def _find_state(self, conversation_id: str) -> ConversationState | None:
        record = self._find(conversation_id)
        return None if record is None or self._is_hidden(record) else self._state(conversation_id, record)

    def _incomplete(self, conversation_id: str) -> StoreCorruptedError:
        where = self.backend.where
        return StoreCorruptedError(
            f"The conversation {conversation_id!r} in {where} is incomplete: rows of it are missing. {SALVAGE}"
        )

    def _place_of(self, conversation_id: str, record: Record, turn_id: object) -> int:
        is_text = isinstance(turn_id, str) and without_lone_surrogates(turn_id) == turn_id
        place = self.backend.place_of(record.cid, str(turn_id)) if is_text else None
        if place is None:
            raise turn_unknown(conversation_id, turn_id)
        return place

    def _counted(self, record: Record) -> Record:
        """Return the record after one more change."""
        return structs.replace(record, revision=record.revision + 1, updated_at=self._clock())

    def _expiring(self, record: Record) -> Record:
        """Return the record with this store's TTL; without one it never expires, whatever another store set."""
        expires_at = None if self.ttl_s is None else self._clock() + timedelta(seconds=self.ttl_s)
        return record if record.expires_at == expires_at else structs.replace(record, expires_at=expires_at)

    def _put_record(self, conversation_id: str, record: Record) -> tuple[Record, bytes]:
        """Write the record; return it as it was written, and its bytes."""
        record = self._expiring(record)
        stored = encode(record)
        self.backend.put_record(conversation_id, record.user_id, stored)
        return record, stored

    def _save(self, conversation_id: str, record: Record, frame: Frame | None = None) -> Head:
        """Write the record, and the frame if it changed; return the head."""
        self._put_record(conversation_id, record)
        if frame is None:
            return head_of(conversation_id, record, self._metadata(conversation_id))
        self.backend.put_frame(conversation_id, encode(frame))
        return head_of(conversation_id, record, frame.metadata)

    def _write(self, state: ConversationState, revision: int) -> CachedConversation:
        """Write a whole conversation."""
        record, frame, turns = rows_of(state, self.backend.next_cid(), revision)
        for place, turn in turns.items():
            self.backend.put_turn(record.cid, place, turn.id, encode_turn(turn))
        record, stored = self._put_record(state.conversation_id, record)
        self.backend.put_frame(state.conversation_id, encode(frame))
        return CachedConversation.of(stored, record, frame)

    def _erase(self, conversation_id: str, record: Record) -> None:
        self.backend.erase(conversation_id, record.cid, record.user_id)
        self._cache.forget(conversation_id, record.cid)

    def _head(self, conversation_id: str, found: CachedConversation) -> Head:
        return head_of(conversation_id, found.record, decode_json(found.metadata))
