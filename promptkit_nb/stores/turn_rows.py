"""The verbs of a store that are called with every turn: they read and write no more than the turn makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from promptkit_nb.codec import encode, turn_and_line
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.state import ConversationState, Head
from promptkit_nb.stores.checks import check_count, not_found
from promptkit_nb.stores.conversation_rows import ConversationRows, is_hidden
from promptkit_nb.stores.layout import inherited
from promptkit_nb.stores.remembered import Opened
from promptkit_nb.stores.rows import Appending

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.turns import Turn

T = TypeVar("T")


class TurnRows(ConversationRows):
    """Appends and reads turns, knowing what this handle wrote or read last; the docstrings of ``StateStore`` hold."""

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        check_conversation_id(conversation_id)

        def get() -> tuple[ConversationState, Opened]:
            opened = self._kept_alive(conversation_id)
            return self._state(conversation_id, opened.record), opened

        return self._remembering(conversation_id, get, write=self.ttl_s is not None)

    def append(self, conversation_id: str, turn: Turn, *, user_id: str = "default", create: bool = True) -> Head:
        """Add one turn at the end, in one step where nobody else wrote since; the same turn twice is once."""
        check_conversation_id(conversation_id)
        turn, line = turn_and_line(turn)

        def append() -> tuple[Head, Opened]:
            known = self._remembered.take(conversation_id)
            opened = None if known is None else self._appended_to_known(conversation_id, known, turn, line)
            if opened is None:
                opened = self._appended(conversation_id, turn, line, user_id, create=create)
            return self._head(conversation_id, opened), opened

        return self._remembering(conversation_id, append, write=True)

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        check_conversation_id(conversation_id)
        check_count("n", n)

        def recent() -> tuple[tuple[Turn, ...], Opened]:
            opened = self._kept_alive(conversation_id)
            return self._newest(conversation_id, opened, n), opened

        return self._remembering(conversation_id, recent, write=self.ttl_s is not None)

    def _remembering(self, conversation_id: str, work: Callable[[], tuple[T, Opened]], *, write: bool) -> T:
        """Run the work, and remember the conversation as it left it."""
        result, opened = self.rows.run(work, write=write)
        self._remembered.keep_opened(conversation_id, opened)
        return result

    def _appended_to_known(self, conversation_id: str, known: Opened, turn: Turn, line: bytes) -> Opened | None:
        """Append if the record is still the one that is known; ``None`` if not, or if the turn is there already.

        Also ``None`` where the conversation was last written by a store that lets it expire and this one does not, or
        the reverse: then more than the rows of one turn change.
        """
        former = known.record
        if self._is_expired(former) or is_hidden(former) or (former.expires_at is None) != (self.ttl_s is None):
            return None
        record = self._lasting(former.appended(turn, self._clock()))
        stored = encode(record)
        cid, place = former.cid, former.next_place
        appending = Appending(conversation_id, former.user_id, known.stored, stored, cid, place, turn.id, line)
        if not self.rows.append(appending):
            return None
        self._remembered.keep_turn(cid, place, line, turn, known.look)
        return Opened(stored, record, known.frame, known.metadata, known.look)

    def _appended(self, conversation_id: str, turn: Turn, line: bytes, user_id: str, *, create: bool) -> Opened:
        """Append to what the rows hold now."""
        opened = self._reopened(conversation_id)
        if opened is None:
            return self._begun(conversation_id, turn, user_id, create=create)
        record = opened.record
        if self.rows.place_of(record.cid, turn.id) is None:
            self.rows.put_turn(record.cid, record.next_place, turn.id, line)
            record = record.appended(turn, self._clock())
        record, stored = self._put_record(conversation_id, record)
        return opened._replace(stored=stored, record=record)

    def _begun(self, conversation_id: str, turn: Turn, user_id: str, *, create: bool) -> Opened:
        """Append to a conversation that is not there."""
        self._find(conversation_id, forget_expired=True)
        if not create:
            raise not_found(conversation_id)
        check_user_id(user_id)
        now = self._clock()
        state = ConversationState(conversation_id, user_id, (turn,), created_at=now, updated_at=now)
        return self._write(state, revision=1)

    def _newest(self, conversation_id: str, opened: Opened, n: int) -> tuple[Turn, ...]:
        record, frame = opened.record, opened.frame
        places = frame.newest_rows(record.next_place, n)
        seen = self._remembered.turns_seen(record.cid, places, opened.look)
        if seen is not None and len(seen) == min(n, record.turn_count):
            return tuple(inherited(seen, frame).values())
        stored = zip(places, self.rows.turns_at(record.cid, places), strict=True)
        lines = {place: line for place, line in stored if line is not None}
        if not len(lines) == len(places) == min(n, record.turn_count):
            raise self._incomplete(conversation_id)
        turns = self._remembered.turns_of(record.cid, lines, conversation_id, opened.look)
        return tuple(inherited(turns, frame).values())
