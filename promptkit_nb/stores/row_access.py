"""How conversations are found in rows, read from them and written to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from msgspec import structs

from promptkit_nb.codec import SALVAGE, check_format, decode, decode_json, encode, encode_turn
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.ids import check_conversation_id
from promptkit_nb.stores.cache import CachedConversation, ReadCache
from promptkit_nb.stores.checks import not_found, ttl_s_of, turn_unknown
from promptkit_nb.stores.layout import Frame, MetadataOnly, Record, head_of, rows_of, state_of
from promptkit_nb.stores.ledger import Ledger
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
    """Finds, reads and writes the rows of single conversations, all within one transaction of the backend."""

    user_id: str | None = None

    def __init__(self, backend: Backend, ttl: Duration | None, clock: Callable[[], datetime]) -> None:
        """Keep conversations in the rows of this backend."""
        self.backend = backend
        self.ttl_s = ttl_s_of(ttl)
        self._clock = clock
        self._cleanups: list[PeriodicCleanup] = []
        self._cache = ReadCache()
        self._ledger = Ledger(backend)

    def _find(self, conversation_id: str, *, forget_expired: bool = False) -> Record | None:
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        record = _record_of(stored, conversation_id)
        if not self._is_expired(record):
            return record
        if forget_expired:
            self._erase(conversation_id, record)
        return None

    def _live(self, conversation_id: str) -> Record:
        record = self._find(check_conversation_id(conversation_id))
        if record is None or self._is_hidden(record):
            raise not_found(conversation_id)
        return record

    def _is_hidden(self, record: Record) -> bool:
        """Return whether this store is narrowed to another user than the conversation's."""
        return self.user_id not in (None, record.user_id)

    def _opened(self, conversation_id: str) -> tuple[Record, Frame]:
        record = self._live(conversation_id)
        return record, self._frame(conversation_id)

    def _reopened(self, conversation_id: str) -> CachedConversation | None:
        """Return the conversation, or ``None``; reading no more of it than may have changed since it was read last."""
        look = self._cache.look(self.backend.version())
        opened = self._cache.opened(conversation_id)
        if opened is None or look is None or opened.look != look:
            opened = self._opened_anew(conversation_id, opened, look)
        return None if opened is None or self._is_expired(opened.record) else opened

    def _kept_alive(self, conversation_id: str) -> CachedConversation:
        """Return the conversation, whose TTL begins anew."""
        opened = self._reopened(conversation_id)
        if opened is None or self._is_hidden(opened.record):
            raise not_found(conversation_id)
        if self.ttl_s is None:
            return opened
        record, stored = self._put_record(conversation_id, opened.record)
        return opened._replace(stored=stored, record=record)

    def _opened_anew(
        self, conversation_id: str, former: CachedConversation | None, look: int | None
    ) -> CachedConversation | None:
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        if former is not None and former.stored == stored:
            return former._replace(look=look)
        record = _record_of(stored, conversation_id)
        return CachedConversation.of(stored, record, self._frame(conversation_id), look)

    def _erase(self, conversation_id: str, record: Record) -> None:
        self.backend.erase(conversation_id, record.cid, record.user_id)
        self._cache.forget(conversation_id, record.cid)

    def _is_expired(self, record: Record) -> bool:
        return record.expires_at is not None and record.expires_at <= self._clock()

    def _records(self, prefix: str | None, user_id: str | None) -> Iterator[tuple[str, Record]]:
        for conversation_id, stored in self.backend.records(prefix or "", user_id):
            yield conversation_id, _record_of(stored, conversation_id)

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

    def _state_or_none(self, conversation_id: str) -> ConversationState | None:
        def state() -> ConversationState | None:
            record = self._find(conversation_id)
            return None if record is None or self._is_hidden(record) else self._state(conversation_id, record)

        return self.backend.run(state, write=False)

    def _incomplete(self, conversation_id: str) -> StoreCorruptedError:
        where = self.backend.where
        return StoreCorruptedError(
            f"The conversation {conversation_id!r} in {where} is incomplete: rows of it are missing. {SALVAGE}"
        )

    def _row_of(self, conversation_id: str, record: Record, turn_id: object) -> int:
        is_text = isinstance(turn_id, str) and without_lone_surrogates(turn_id) == turn_id
        row = self.backend.place_of(record.cid, str(turn_id)) if is_text else None
        if row is None:
            raise turn_unknown(conversation_id, turn_id)
        return row

    def _changed(self, record: Record) -> Record:
        return structs.replace(record, revision=record.revision + 1, updated_at=self._clock())

    def _touch(self, conversation_id: str, record: Record) -> None:
        if self.ttl_s is not None:
            self._put_record(conversation_id, record)

    def _put_record(self, conversation_id: str, record: Record) -> tuple[Record, bytes]:
        """Write the record; return it as it is written, and its line."""
        record = self._lasting(record)
        stored = encode(record)
        self.backend.put_record(conversation_id, record.user_id, stored)
        return record, stored

    def _lasting(self, record: Record) -> Record:
        # Without a TTL, what another store's TTL said is over: nobody asked for it here.
        expires_at = None if self.ttl_s is None else self._clock() + timedelta(seconds=self.ttl_s)
        return record if record.expires_at == expires_at else structs.replace(record, expires_at=expires_at)

    def _kept(self, conversation_id: str, record: Record, frame: Frame | None = None) -> Head:
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
        return CachedConversation.of(stored, record, frame, None)

    def _head(self, conversation_id: str, opened: CachedConversation) -> Head:
        return head_of(conversation_id, opened.record, decode_json(opened.metadata))


def _record_of(stored: bytes, conversation_id: str) -> Record:
    record = decode(stored, Record, conversation_id)
    check_format(record.format, f"The conversation {conversation_id!r}")
    return record
