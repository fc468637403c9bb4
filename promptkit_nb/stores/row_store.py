"""What all stores do alike: conversations as a few rows each, whatever keeps the rows.

A sibling brings its rows (``Backend``) and nothing else, so that all behave alike to the last edge.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec import structs

from promptkit_nb.codec import encode, turn_and_line
from promptkit_nb.context_hash import chain_of
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.json_values import json_copy
from promptkit_nb.state import ConversationState, Head, carry_totals
from promptkit_nb.stores.backend import Appending
from promptkit_nb.stores.base import PeriodicCleanup, StoredTurn
from promptkit_nb.stores.cache import CachedConversation
from promptkit_nb.stores.checks import (
    check_branch_id,
    check_count,
    check_filters,
    check_range,
    check_revision,
    checked_state,
    checked_summary,
    cutoff_of,
    exists_already,
    not_found,
    seconds_of,
    sorted_page,
)
from promptkit_nb.stores.layout import (
    Record,
    archived,
    forked,
    head_of,
    inherited,
    replaced,
    restored_branch,
    restored_version,
)
from promptkit_nb.stores.ledger import LedgerRows
from promptkit_nb.stores.row_access import RowAccess, is_hidden, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    from promptkit_nb.state import Branch, Summary
    from promptkit_nb.stores.base import Duration, SortKey
    from promptkit_nb.turns import Turn

T = TypeVar("T")


class TurnRows(RowAccess):
    """Appends and reads turns, knowing what this handle wrote or read last; the docstrings of ``StateStore`` hold."""

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        check_conversation_id(conversation_id)

        def get() -> tuple[ConversationState, CachedConversation]:
            opened = self._kept_alive(conversation_id)
            return self._state(conversation_id, opened.record), opened

        return self._remembering(conversation_id, get, write=self.ttl_s is not None)

    def append(self, conversation_id: str, turn: Turn, *, user_id: str = "default", create: bool = True) -> Head:
        """Add one turn at the end, in one step where nobody else wrote since; the same turn twice is once."""
        check_conversation_id(conversation_id)
        turn, line = turn_and_line(turn)

        def append() -> tuple[Head, CachedConversation]:
            known = self._cache.take(conversation_id)
            opened = None if known is None else self._appended_to_known(conversation_id, known, turn, line)
            if opened is None:
                opened = self._appended(conversation_id, turn, line, user_id, create=create)
            return self._head(conversation_id, opened), opened

        return self._remembering(conversation_id, append, write=True)

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        check_conversation_id(conversation_id)
        check_count("n", n)

        def recent() -> tuple[tuple[Turn, ...], CachedConversation]:
            opened = self._kept_alive(conversation_id)
            return self._newest(conversation_id, opened, n), opened

        return self._remembering(conversation_id, recent, write=self.ttl_s is not None)

    def _remembering(self, conversation_id: str, work: Callable[[], tuple[T, CachedConversation]], *, write: bool) -> T:
        """Run the work, and remember the conversation as it left it."""
        result, opened = self.rows.run(work, write=write)
        self._cache.keep_opened(conversation_id, opened)
        return result

    def _appended_to_known(
        self, conversation_id: str, known: CachedConversation, turn: Turn, line: bytes
    ) -> CachedConversation | None:
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
        self._cache.keep_turn(cid, place, line, turn, known.look)
        return CachedConversation(stored, record, known.frame, known.metadata, known.look)

    def _appended(
        self, conversation_id: str, turn: Turn, line: bytes, user_id: str, *, create: bool
    ) -> CachedConversation:
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

    def _begun(self, conversation_id: str, turn: Turn, user_id: str, *, create: bool) -> CachedConversation:
        """Append to a conversation that is not there."""
        self._find(conversation_id, forget_expired=True)
        if not create:
            raise not_found(conversation_id)
        check_user_id(user_id)
        now = self._clock()
        state = ConversationState(conversation_id, user_id, (turn,), created_at=now, updated_at=now)
        return self._write(state, revision=1)

    def _newest(self, conversation_id: str, opened: CachedConversation, n: int) -> tuple[Turn, ...]:
        record, frame = opened.record, opened.frame
        places = frame.newest_rows(record.next_place, n)
        seen = self._cache.turns_seen(record.cid, places, opened.look)
        if seen is not None and len(seen) == min(n, record.turn_count):
            return tuple(inherited(seen, frame).values())
        stored = zip(places, self.rows.turns_at(record.cid, places), strict=True)
        lines = {place: line for place, line in stored if line is not None}
        if not len(lines) == len(places) == min(n, record.turn_count):
            raise self._incomplete(conversation_id)
        turns = self._cache.turns_of(record.cid, lines, conversation_id, opened.look)
        return tuple(inherited(turns, frame).values())


class RowStore(TurnRows, LedgerRows):
    """A store over any ``Backend``; the docstrings of ``StateStore`` hold."""

    @writing
    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken."""
        state = checked_state(state)
        if self._find(state.conversation_id, forget_expired=True) is not None:
            raise exists_already(state.conversation_id)
        return self._head(state.conversation_id, self._write(state, revision=1))

    @writing
    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write the state exactly as it is given, in place of what is there."""
        state = checked_state(state)
        conversation_id = state.conversation_id
        record = self._find(conversation_id, forget_expired=True)
        if record is not None and is_hidden(record):
            raise not_found(conversation_id)
        revision = 0 if record is None else record.revision
        check_revision(conversation_id, revision, expected_revision)
        if record is not None:
            state = carry_totals(state, self._state(conversation_id, record))
            self._erase(conversation_id, record)
        return self._head(conversation_id, self._write(state, revision + 1))

    @writing
    def replace(self, conversation_id: str, turn_id: str, turn: Turn) -> Head:
        """Let a turn answer in place of another, which is kept as a former version."""
        record, frame = self._opened(conversation_id)
        turn, line = turn_and_line(turn)
        row = self._row_of(conversation_id, record, turn_id)
        if self.rows.place_of(record.cid, turn.id) is not None:
            return self._kept(conversation_id, record)
        record, frame, new_row = replaced(record, frame, row, turn)
        self.rows.put_turn(record.cid, new_row, turn.id, line)
        return self._kept(conversation_id, self._changed(record), frame)

    @writing
    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        """Let the turns from position ``start`` to before ``stop`` leave the conversation as a branch of this id."""
        record, frame = self._opened(conversation_id)
        check_range(start, stop, record.turn_count)
        check_branch_id(as_branch, [branch.id for branch in frame.branches])
        if start == stop:
            return self._kept(conversation_id, record)
        leaving = self._state(conversation_id, record).turns[start:stop]
        chain = chain_of(leaving, frame.context_hash)
        now = self._clock()
        record, frame = archived(record, frame, start, stop, branch_id=as_branch, chain=chain, now=now)
        return self._kept(conversation_id, self._changed(record), frame)

    @writing
    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        """Bring back a former version or a branch, given as such or by its id; what it displaces is kept."""
        record, frame = self._opened(conversation_id)
        wanted = getattr(version_or_branch, "id", version_or_branch)
        branch = next((each for each in frame.branches if each.id == wanted), None)
        if branch is not None:
            record, frame = restored_branch(record, frame, branch, self._clock())
            return self._kept(conversation_id, self._changed(record), frame)
        restored = restored_version(frame, self._row_of(conversation_id, record, wanted))
        if restored is frame:
            return self._kept(conversation_id, record)
        return self._kept(conversation_id, self._changed(record), restored)

    @writing
    def add_summary(self, conversation_id: str, summary: Summary) -> Head:
        """Add a summary; what it cost is in the totals."""
        record, frame = self._opened(conversation_id)
        summary = checked_summary(summary)
        record = structs.replace(record, totals=record.totals.plus_paid([summary]))
        return self._kept(conversation_id, self._changed(record), replace(frame, summaries=(*frame.summaries, summary)))

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""

        def head() -> Head:
            return head_of(conversation_id, self._live(conversation_id), self._metadata(conversation_id))

        return self.rows.run(head, write=False)

    def list(  # noqa: PLR0917 - filters, order and page: the signature is old and short to type
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Head]:
        """Return the heads in a total and stable order."""
        check_filters(prefix, user_id)

        def page() -> list[Head]:
            found = (each for each in self._records(prefix, user_id) if not self._is_expired(each[1]))
            chosen = sorted_page(found, sort_by, descending=descending, limit=limit, offset=offset)
            return [head_of(each, record, self._metadata(each)) for each, record in chosen]

        return self.rows.run(page, write=False)

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        check_conversation_id(conversation_id)
        return self._update_metadata(conversation_id, json_copy(changes, "metadata"))

    @writing
    def fork(self, conversation_id: str, new_id: str) -> Head:
        """Copy a conversation; the copy's turns are inherited. ``ConversationExistsError`` if the id is taken."""
        record, frame = self._opened(conversation_id)
        if self._find(check_conversation_id(new_id), forget_expired=True) is not None:
            raise exists_already(new_id)
        copy, inherited = forked(record, frame, cid=self.rows.next_cid(), now=self._clock())
        self.rows.copy_turns(record.cid, copy.cid)
        self._touch(conversation_id, record)
        return self._kept(new_id, copy, inherited)

    @writing
    def delete(self, conversation_id: str) -> None:
        """Delete the conversation for good."""
        record = self._live(conversation_id)
        self._erase(conversation_id, record)

    def delete_prefix(self, prefix: str) -> tuple[str, ...]:
        """Delete the conversations whose id begins so, for good; return their ids."""
        check_conversation_id(prefix)
        return self._erase_where(prefix, lambda _: True)

    def cleanup(self, older_than: Duration | datetime, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what was last updated before then, and what has expired; return the ids, sorted."""
        cutoff = cutoff_of("older_than", older_than, self._clock())
        return self._erase_where("", lambda record: record.updated_at < cutoff, dry_run=dry_run)

    def start_cleanup(self, every: Duration, older_than: Duration | datetime) -> PeriodicCleanup:
        """Clean up again and again on a thread; its ``stop()``, or ``close()``, ends it."""
        self.cleanup(older_than, dry_run=True)  # what could not be done now would only fail in the background
        self._cleanups.append(PeriodicCleanup(lambda: self.cleanup(older_than), seconds_of("every", every)))
        return self._cleanups[-1]

    def conversation_ids(self) -> tuple[str, ...]:
        """Return the ids of all conversations, sorted; unlike ``list`` also where one of them is damaged."""
        return self.rows.run(lambda: tuple(sorted(set(self.rows.ids()))), write=False)

    def iter_turns(self, *, prefix: str | None = None, user_id: str | None = None) -> Iterator[StoredTurn]:
        """Yield every stored turn, conversation by conversation in the order of their ids."""
        for head in self.list(prefix, user_id, "conversation_id", descending=False):
            state = self._state_or_none(head.conversation_id)
            if state is not None and state.user_id == head.user_id:  # neither deleted nor taken over since
                yield from StoredTurn.all_of(state)

    def close(self) -> None:
        """Let go of files and connections, and end what cleans up; calling it again is fine."""
        for cleanup in self._cleanups:
            cleanup.stop()
        self.rows.close()

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    @writing
    def _update_metadata(self, conversation_id: str, changes: Mapping[str, object]) -> Head:
        record, frame = self._opened(conversation_id)
        if not changes:
            return self._kept(conversation_id, record)
        frame = replace(frame, metadata={**frame.metadata, **changes})
        return self._kept(conversation_id, self._changed(record), frame)

    @writing
    def _erase_where(
        self, prefix: str, is_meant: Callable[[Record], bool], *, dry_run: bool = False
    ) -> tuple[str, ...]:
        meant = {
            conversation_id: record
            for conversation_id, record in self._records(prefix, None)
            if self._is_expired(record) or is_meant(record)
        }
        if not dry_run:
            for conversation_id, record in meant.items():
                self._erase(conversation_id, record)
        return tuple(sorted(meant))
