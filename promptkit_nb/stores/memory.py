"""A store in this process's memory: for tests, demonstrations and conversations nobody wants to keep."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from promptkit_nb.codec import checked_turn, decode, encode, json_copy
from promptkit_nb.errors import StoreUnavailableError
from promptkit_nb.ids import check_conversation_id
from promptkit_nb.state import ConversationState, Head, Settings, Totals, carry_totals
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
from promptkit_nb.turns import Turn, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


@dataclass(slots=True)
class _Record:
    """A conversation as it is kept: the turns apart, in a list that grows in place."""

    frame: ConversationState
    turns: list[Turn]
    totals: Totals
    revision: int
    expires_at: datetime | None = None
    turn_ids: set[str] = field(default_factory=set)


class MemoryStore:
    """Keeps conversations until the process ends.

    Args:
        ttl: A ``timedelta`` or seconds after which a conversation that was neither read nor written expires; ``None``
            keeps it.
        clock: Where the time comes from; tests set it.

    >>> store = MemoryStore()
    >>> store.create(ConversationState("a", "alice")).turn_count
    0
    >>> [head.user_id for head in store.list()]
    ['alice']
    """

    def __init__(self, ttl: Duration | None = None, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Start empty."""
        self._ttl_s = seconds_of("ttl", ttl)
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._closed = False

    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken."""
        state = checked_state(state)
        with self._opened():
            if self._find(state.conversation_id) is not None:
                raise exists_already(state.conversation_id)
            return self._write(state, revision=1)

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        check_conversation_id(conversation_id)
        with self._opened():
            record = self._live(conversation_id)
            self._touch(record)
            return _copied(_state(record))

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write the state exactly as it is given, in place of what is there."""
        state = checked_state(state)
        with self._opened():
            record = self._find(state.conversation_id)
            revision = 0 if record is None else record.revision
            check_revision(state.conversation_id, revision, expected_revision)
            carried = state if record is None else carry_totals(state, _state(record))
            return self._write(carried, revision + 1)

    def append(self, conversation_id: str, turn: Turn, *, user_id: str = "default", create: bool = True) -> Head:
        """Add one turn at the end; the same turn, appended again, is once."""
        check_conversation_id(conversation_id)
        turn = checked_turn(turn)
        with self._opened():
            record = self._find(conversation_id)
            if record is None:
                if not create:
                    raise not_found(conversation_id)
                self.create(ConversationState(conversation_id, user_id, created_at=self._clock()))
                record = self._live(conversation_id)
            if turn.id not in record.turn_ids:
                record.turns.append(turn)
                record.turn_ids.add(turn.id)
                record.totals = record.totals.plus_turns([turn])
                self._change(record)
            self._touch(record)
            return _head(record)

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first."""
        check_conversation_id(conversation_id)
        check_count("n", n)
        with self._opened():
            record = self._live(conversation_id)
            self._touch(record)
            return tuple(record.turns[-n:]) if n else ()

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""
        check_conversation_id(conversation_id)
        with self._opened():
            return _head(self._live(conversation_id))

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
        with self._opened():
            heads = [
                _head(record)
                for conversation_id in list(self._records)
                if conversation_id.startswith(prefix or "")
                and (record := self._find(conversation_id)) is not None
                and user_id in (None, record.frame.user_id)
            ]
        return sorted_page(heads, sort_by, descending=descending, limit=limit, offset=offset)

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        check_conversation_id(conversation_id)
        copied = json_copy(changes, "metadata")
        with self._opened():
            record = self._live(conversation_id)
            if copied:
                record.frame = replace(record.frame, metadata={**record.frame.metadata, **copied})
                self._change(record)
            self._touch(record)
            return _head(record)

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation for good."""
        check_conversation_id(conversation_id)
        with self._opened():
            self._live(conversation_id)
            del self._records[conversation_id]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._records.clear()

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        """Say how many conversations are there."""
        return f"<MemoryStore: {'closed' if self._closed else f'{len(self._records)} conversations'}>"

    def _opened(self) -> threading.RLock:
        if self._closed:
            raise StoreUnavailableError("This MemoryStore is closed; make a new one.")
        return self._lock

    def _find(self, conversation_id: str) -> _Record | None:
        record = self._records.get(conversation_id)
        if record is None or record.expires_at is None or record.expires_at > self._clock():
            return record
        del self._records[conversation_id]
        return None

    def _live(self, conversation_id: str) -> _Record:
        record = self._find(conversation_id)
        if record is None:
            raise not_found(conversation_id)
        return record

    def _touch(self, record: _Record) -> None:
        if self._ttl_s is not None:
            record.expires_at = self._clock() + timedelta(seconds=self._ttl_s)

    def _change(self, record: _Record) -> None:
        record.revision += 1
        record.frame = replace(record.frame, updated_at=self._clock())

    def _write(self, state: ConversationState, revision: int) -> Head:
        record = _Record(
            frame=replace(state, turns=()),
            turns=list(state.turns),
            totals=state.totals,
            revision=revision,
            turn_ids={turn.id for turn in state.stored_turns},
        )
        self._touch(record)
        self._records[state.conversation_id] = record
        return _head(record)


def _state(record: _Record) -> ConversationState:
    return replace(record.frame, turns=tuple(record.turns), revision=record.revision)


def _copied(state: ConversationState) -> ConversationState:
    return replace(
        state,
        settings=decode(encode(state.settings), Settings),
        metadata=json_copy(dict(state.metadata), "metadata"),
        versions=dict(state.versions),
    )


def _head(record: _Record) -> Head:
    frame = record.frame
    return Head(
        conversation_id=frame.conversation_id,
        user_id=frame.user_id,
        turn_count=len(record.turns),
        token_count=record.totals.tokens,
        total_cost=record.totals.known_cost,
        unpriced_turns=record.totals.unpriced,
        created_at=frame.created_at,
        updated_at=frame.updated_at,
        metadata=json_copy(dict(frame.metadata), "metadata"),
        revision=record.revision,
    )
