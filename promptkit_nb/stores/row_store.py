"""What all stores have in common: each conversation is a few rows of a ``Backend``.

A store adds only its backend, so that all of them behave alike.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from sys import maxsize
from typing import TYPE_CHECKING, Self

from promptkit_nb.codec import decode_turn, encode, turn_and_line
from promptkit_nb.errors import (
    InvalidArgumentError,
    InvalidConversationIdError,
    PromptKitError,
    StoreCorruptedError,
    StoreError,
)
from promptkit_nb.ids import check_conversation_id, check_own_user, check_user_id
from promptkit_nb.state import ConversationState, Head, carry_totals
from promptkit_nb.stores import checks, ledger
from promptkit_nb.stores.backend import Appending
from promptkit_nb.stores.base import Charge, Duration, Reservation, SortKey, StateStore, StoredTurn
from promptkit_nb.stores.damage import Damage
from promptkit_nb.stores.index import Entry, answer_key, notebook_entries, notebook_key, turn_entry
from promptkit_nb.stores.kept_usage import KeptUsage, PaidCalls, check_kept
from promptkit_nb.stores.layout import Record, inherited
from promptkit_nb.stores.row_access import CachedConversation, writing
from promptkit_nb.stores.row_edits import RowEdits
from promptkit_nb.turns import Turn, new_turn_id

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HEADS_AT_ONCE = 200


class RowStore(RowEdits, StateStore):
    """A store over any ``Backend``; the docstrings of ``StateStore`` apply."""

    def get(self, conversation_id: str) -> ConversationState:
        """Return the whole conversation."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        state, found = self.backend.run(partial(self._get, conversation_id), write=self.ttl_s is not None)
        self._cache.keep(conversation_id, found)
        return state

    def append(
        self,
        conversation_id: str,
        turn: Turn,
        *,
        user_id: str = "default",
        create: bool = True,
        charge: Charge | None = None,
    ) -> Head:
        """Add one turn at the end; appending the same turn again changes nothing."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        turn, line = turn_and_line(turn)
        user_id = self._owner_of(user_id)
        self._check_charge(charge)
        append = partial(self._append, conversation_id, turn, line, user_id, create=create, charge=charge)
        found = self.backend.run(append, write=True)
        self._cache.keep(conversation_id, found)  # only after the transaction has succeeded
        return self._head(conversation_id, found)

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        """Return the newest ``n`` turns, oldest first, without reading the rest."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        checks.check_count("n", n)
        turns, found = self.backend.run(partial(self._recent, conversation_id, n), write=self.ttl_s is not None)
        self._cache.keep(conversation_id, found)
        return turns

    @writing
    def create(self, state: ConversationState) -> Head:
        """Store a new conversation; ``ConversationExistsError`` if the id is taken."""
        (found,) = self._create_each([state])
        if isinstance(found, Head):
            return found
        raise found

    @writing
    def create_each(self, states: Sequence[ConversationState]) -> builtins.list[Head | PromptKitError]:
        """Store new conversations in one transaction; return the head of each, or the error if it was refused."""
        return self._create_each(states)

    @writing
    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        """Write exactly this state, replacing the stored one."""
        state, lines = checks.checked_state(state)
        state = self._as_stored(state)
        check_own_user(self.user_id, state.user_id)
        conversation_id = state.conversation_id
        record = self._find(conversation_id, erase_expired=True)
        is_taken = record is not None and self._is_hidden(record)
        revision = 0 if record is None or is_taken else record.revision
        checks.check_revision(conversation_id, revision, expected_revision)
        if is_taken:
            raise checks.exists_already(conversation_id)
        if record is not None:
            state = carry_totals(state, self._state(conversation_id, record))
            self._erase(conversation_id, record)
        self._count_again(PaidCalls.of_state(state).calls)
        return self._head(conversation_id, self._write(state, revision + 1, record, lines))

    def head(self, conversation_id: str) -> Head:
        """Return counts, totals and metadata, without the turns."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))

        def head() -> Head:
            return self._head_at(conversation_id, self._visible(conversation_id))

        return self.backend.run(head, write=False)

    def list(  # noqa: PLR0917 - filters, order and page: the signature is old and short to type
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Head]:
        """Return the heads in a total and stable order; warn of conversations that cannot be read."""
        heads, damage = self.readable_heads(prefix, user_id, sort_by, descending=descending, limit=limit, offset=offset)
        damage.warn(self.backend.where)
        return heads

    def readable_heads(
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        *,
        descending: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[builtins.list[Head], Damage]:
        """Return the same as ``list``, and the conversations that are left out of it."""
        prefix, user_id = checks.checked_filters(prefix, user_id)
        check_own_user(self.user_id, user_id)
        prefix = self.stored_prefix(prefix or "")
        user_id = self.user_id or (None if user_id is None else self.stored_user(user_id))

        checks.check_page(sort_by, limit, offset)

        def page() -> tuple[list[Head], Damage]:
            damage = Damage()
            most = None if limit is None else offset + limit
            records = self.backend.sorted_records(sort_by, prefix, user_id, descending=descending, most=most)
            live = (each for each in damage.readable(records) if not self._is_expired(each[1]))
            end = maxsize if limit is None else min(offset + limit, maxsize)
            chosen = islice(live, min(offset, maxsize), end)
            return [*self._heads(chosen, damage)], damage

        return self.backend.run(page, write=False)

    def find_notebooks(
        self, *, user_id: str, path: str | None = None, kernel: str | None = None
    ) -> builtins.list[Head]:
        """Return the heads of a user's notebook conversations with this path or this kernel, oldest first."""
        check_own_user(self.user_id, user_id)
        user_id = self.stored_user(user_id)
        key = notebook_key(user_id, path=path, kernel=kernel)
        found = self.backend.run(partial(self._find_notebooks, key, user_id), write=False)
        gone = [entry for entry, head in found if head is None]
        if gone:  # they expired, or a server evicted them
            with suppress(StoreError):  # the lookup succeeded without it
                self.backend.run(partial(self._drop_gone, gone, user_id), write=True)
        return [head for _, head in found if head is not None]

    def find_answers(self, replay_key: str, *, provider: str, user_id: str, limit: int = 10) -> tuple[Turn, ...]:
        """Return turns of a user's notebooks that answer exactly this request, oldest first."""
        check_own_user(self.user_id, user_id)
        checks.check_count("limit", limit)
        user_id = self.stored_user(user_id)
        key = answer_key(user_id, provider, replay_key)
        return self.backend.run(partial(self._find_answers, key, replay_key, user_id, limit), write=False)

    def reserve(
        self, scopes: Sequence[str], usd: Decimal, *, limit: Decimal | Mapping[str, Decimal] | None, lease: Duration
    ) -> Reservation:
        """Reserve US dollars in every scope, or in none."""
        checks.check_usd("usd", usd)
        scopes = tuple(dict.fromkeys(self._checked_scopes(scopes)))
        limits = ledger.limits_of(limit, scopes)
        expires_at = self._clock() + timedelta(seconds=checks.seconds_of("lease", lease))
        reservation = Reservation(new_turn_id(), scopes, usd)
        try:
            self.backend.run(partial(self._reserve, reservation, expires_at, limits), write=True)
        except KeyboardInterrupt:  # it may come after the reservation was written
            with suppress(StoreError):
                self.settle(reservation, Decimal(0))
            raise
        return reservation

    @writing
    def settle(self, reservation: Reservation, usd: Decimal, *, kept: KeptUsage | None = None) -> None:
        """Replace the reserved amount with what the call cost; ``kept`` is the usage of a call without a turn."""
        ledger.check_reservation(reservation)
        checks.check_usd("usd", usd)
        if kept is not None:
            check_kept(kept)
            check_own_user(self.user_id, kept.user_id)
        scopes = self._checked_scopes(reservation.scopes)
        changes = ledger.changes_by_settling(reservation, usd, self.backend.accounts(scopes))
        self._put_accounts(changes)
        if kept is not None and changes:
            self._keep_amounts([kept])

    def spending(self, scope: str) -> ledger.Account:
        """Return the spent and reserved amounts in a scope of the ledger."""
        (scope,) = self._checked_scopes([scope])
        (stored,) = self.backend.run(partial(self.backend.accounts, [scope]), write=False)
        return ledger.account_of(stored)

    def iter_turns(self, *, prefix: str | None = None, user_id: str | None = None) -> Iterator[StoredTurn]:
        """Yield every stored turn, conversation by conversation, sorted by id."""
        check_own_user(self.user_id, user_id)
        heads, damage = self.readable_heads(prefix, user_id, "conversation_id", descending=False)
        for head in heads:
            try:
                state = self.backend.run(partial(self._find_state, head.conversation_id), write=False)
            except StoreCorruptedError as error:
                damage.add(head.conversation_id, error)
                continue
            if state is not None and state.user_id == head.user_id:  # neither deleted nor another user's since
                yield from StoredTurn.all_of(state)
        damage.warn(self.backend.where, stacklevel=2)

    def close(self) -> None:
        """Close files and connections and stop cleaning up; a narrowed store leaves the store open."""
        if self.user_id is not None:
            return
        for cleanup in self._cleanups:
            cleanup.stop()
        self.backend.close()

    def __enter__(self) -> Self:
        """Return the store; it is closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the store."""
        self.close()

    def for_user(self, user_id: str) -> Self:
        """Return this store, narrowed to one user."""
        return super().for_user(self.stored_user(check_user_id(user_id)))

    def _as_stored(self, state: ConversationState) -> ConversationState:
        """Return a state with ids in their stored form; new ids are composed."""
        conversation_id, user_id = self._stored_id(state.conversation_id), self._stored_user(state.user_id)
        if (conversation_id, user_id) == (state.conversation_id, state.user_id):
            return state
        return replace(state, conversation_id=conversation_id, user_id=user_id)

    def _heads(self, records: Iterable[tuple[str, Record]], damage: Damage) -> Iterator[Head]:
        """Yield the heads of conversations, of which some hundred are read at once."""
        remaining = iter(records)
        while part := [*islice(remaining, HEADS_AT_ONCE)]:
            frames: Mapping[str, bytes | None] = {}
            with suppress(StoreCorruptedError):  # the loop finds out which one
                frames = self.backend.frames([each for each, _ in part])
            for conversation_id, record in part:
                try:
                    yield self._head_at(conversation_id, record, frames.get(conversation_id))
                except StoreCorruptedError as error:
                    damage.add(conversation_id, error)

    def _create_each(self, states: Sequence[ConversationState]) -> builtins.list[Head | PromptKitError]:
        """Check all states before the first write, because a transaction need not see what it has written."""
        taken: builtins.set[str] = set()
        checked = [self._checked_new(state, taken) for state in states]
        new = [found for found in checked if not isinstance(found, PromptKitError)]
        if any(state.turns for state, _ in new):
            self._keep_dropped()  # one of these turns may be among them
        self._count_again([call for state, _ in new for call in PaidCalls.of_state(state).calls])
        return [found if isinstance(found, PromptKitError) else self._head_of_new(*found) for found in checked]

    def _checked_new(
        self, state: ConversationState, taken: builtins.set[str]
    ) -> tuple[ConversationState, Mapping[str, bytes]] | PromptKitError:
        """Return a state as it will be stored, with the lines of its turns; an error if it is refused."""
        try:
            state, lines = checks.checked_state(state)
            state = self._as_stored(state)
            check_own_user(self.user_id, state.user_id)
        except (InvalidArgumentError, InvalidConversationIdError) as error:
            return error
        if state.conversation_id in taken or self._find(state.conversation_id, erase_expired=True) is not None:
            return checks.exists_already(state.conversation_id)
        taken.add(state.conversation_id)
        return state, lines

    def _head_of_new(self, state: ConversationState, lines: Mapping[str, bytes]) -> Head:
        return self._head(state.conversation_id, self._write(state, revision=1, lines=lines))

    def _get(self, conversation_id: str) -> tuple[ConversationState, CachedConversation]:
        found = self._with_new_ttl(conversation_id)
        return self._state(conversation_id, found.record), found

    def _append(
        self, conversation_id: str, turn: Turn, line: bytes, user_id: str, *, create: bool, charge: Charge | None
    ) -> CachedConversation:
        """Append in one step if the conversation is unchanged since this handle read it, else read it first."""
        self._check_keeps()
        known = self._cache.take(conversation_id)
        if known is not None and self._can_append_to(known.record, turn):
            previous = known.record
            record = self._used(conversation_id, previous.appended(turn, self._clock()))
            stored = encode(record)
            cid, place = previous.cid, previous.next_place
            changes, lifetime_s = self._changes_by(charge), self._lifetime_s(record)
            row = (cid, place, turn.id, line)
            entry = None if previous.notebook is None else turn_entry(conversation_id, previous, place, turn)
            if self.backend.append(
                Appending(conversation_id, previous.user_id, known.stored, stored, *row, changes, lifetime_s, entry)
            ):
                self._cache.keep_turn(cid, place, line, turn, known.counter)
                return CachedConversation(stored, record, known.frame, known.metadata, known.counter)
        found = self._cached(conversation_id)
        if found is not None and self._is_hidden(found.record):
            raise checks.exists_already(conversation_id) if create else checks.not_found(conversation_id)
        if found is not None:
            return self._append_to_stored(conversation_id, found, turn, line, charge)
        self._find(conversation_id, erase_expired=True)
        if not create:
            raise checks.not_found(conversation_id)
        user_id = self._stored_user(check_user_id(user_id))
        now = self._clock()
        self._enter(charge)
        self._count_turn_again(user_id, turn)
        state = ConversationState(conversation_id, user_id, (turn,), created_at=now, updated_at=now)
        return self._write(state, revision=1, lines={turn.id: line})

    def _reserve(self, reservation: Reservation, expires_at: datetime, limits: Mapping[str, Decimal]) -> None:
        self._check_keeps()
        stored = self.backend.accounts(reservation.scopes)
        self._put_accounts(ledger.changes_by_reserving(reservation, expires_at, limits, stored))

    def _can_append_to(self, known: Record, turn: Turn) -> bool:
        """Return whether the known conversation is current, and only the rows of one turn would change.

        A turn older than the last write may have been deleted elsewhere; its kept amounts would then change, too.
        """
        if turn.created_at < known.updated_at:
            return False
        return not self._is_expired(known) and not self._is_hidden(known)

    def _append_to_stored(
        self, conversation_id: str, found: CachedConversation, turn: Turn, line: bytes, charge: Charge | None
    ) -> CachedConversation:
        record = found.record
        if self.backend.place_of(record.cid, turn.id) is None:
            self._put_turn(conversation_id, record, record.next_place, turn, line)
            self._enter(charge)
            self._count_turn_again(record.user_id, turn)
            record = record.appended(turn, self._clock())
        record, stored = self._put_used(conversation_id, record)
        return found._replace(stored=stored, record=record)

    def _recent(self, conversation_id: str, n: int) -> tuple[tuple[Turn, ...], CachedConversation]:
        found = self._with_new_ttl(conversation_id)
        return self._newest(conversation_id, found, n), found

    def _newest(self, conversation_id: str, found: CachedConversation, n: int) -> tuple[Turn, ...]:
        record, frame = found.record, found.frame
        places = frame.newest_rows(record.next_place, n)
        seen = self._cache.unchanged_turns(record.cid, places, found.counter)
        if seen is not None and len(seen) == min(n, record.turn_count):
            return tuple(inherited(seen, frame).values())
        stored = zip(places, self.backend.turns_at(record.cid, places), strict=True)
        lines = {place: line for place, line in stored if line is not None}
        if not len(lines) == len(places) == min(n, record.turn_count):
            raise self._incomplete(conversation_id)
        turns = self._cache.turns_of(record.cid, lines, conversation_id, found.counter)
        return tuple(inherited(turns, frame).values())

    def _find_notebooks(self, key: str, user_id: str) -> builtins.list[tuple[Entry, Head | None]]:
        """Return each entry with the head of its conversation, ``None`` if that was deleted."""
        found: builtins.list[tuple[Entry, Head | None]] = []
        for entry in self.backend.entries(key):
            conversation_id, record = entry.conversation_id, self._followed(entry, user_id)
            is_gone = record is None or entry not in notebook_entries(conversation_id, record)
            head = None if record is None else self._head_at(conversation_id, record)
            found.append((entry, None if is_gone else head))
        return found

    def _drop_gone(self, entries: Iterable[Entry], user_id: str) -> None:
        for entry in entries:
            if self._followed(entry, user_id) is None:
                self.backend.drop_entry(entry)

    def _find_answers(self, key: str, replay_key: str, user_id: str, limit: int) -> tuple[Turn, ...]:
        found: builtins.list[Turn] = []
        for entry in self.backend.entries(key):
            if len(found) == limit:
                break
            (line,) = self.backend.turns_at(entry.cid, [entry.place]) if self._followed(entry, user_id) else (None,)
            if line is None:
                continue
            with suppress(StoreCorruptedError):  # a damaged conversation of another notebook has no answers
                turn = decode_turn(line, entry.conversation_id)
                found += [turn] if turn.replay_key == replay_key else []
        return tuple(found)

    def _followed(self, entry: Entry, user_id: str) -> Record | None:
        """Return the record of an index entry's conversation, unless it is deleted or damaged."""
        with suppress(StoreCorruptedError):
            record = self._find(entry.conversation_id)
            if record is not None and record.notebook and (record.cid, record.user_id) == (entry.cid, user_id):
                return record
        return None
