"""How a store finds, reads, and writes the rows of its conversations, and caches them.

A cached value is used only if its row still holds the same bytes, so changes, deletions and damage by others are always
noticed. To check that, the rows are read each time; only if the backend's change counter has not moved, the newest
turns are not read at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial, wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from msgspec import structs

from promptkit_nb.characters import composed, equal_forms, terminal_text, without_lone_surrogates
from promptkit_nb.codec import check_size, decode, decode_json, decode_turn, encode, encode_json, encode_turn
from promptkit_nb.errors import StoreError, StoreUnavailableError
from promptkit_nb.ids import check_conversation_id, check_own_user
from promptkit_nb.plain import plain
from promptkit_nb.stores import ledger
from promptkit_nb.stores.checks import check_scopes, incomplete, not_found, ttl_s_of, turn_unknown
from promptkit_nb.stores.index import notebook_entries, turn_entries, turn_entry
from promptkit_nb.stores.layout import Frame, HeadFrame, Record, frame_of, head_of, record_of, rows_of, state_of
from promptkit_nb.text.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from promptkit_nb.errors import StoreCorruptedError
    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.backend import AccountChange, Backend
    from promptkit_nb.stores.base import Charge, Duration, PeriodicCleanup
    from promptkit_nb.turns import Turn

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="RowAccess")


R = TypeVar("R", bound="RowAccess")
Reopening = tuple[Callable[[Callable[[], R], str | None], R], tuple[Callable[[], R], str | None]]
"""The result of ``__reduce__`` of a store."""


def reopened(reopen: Callable[[], R], user_id: str | None) -> R:
    """Restore a pickled store: opened again, and narrowed to its user."""
    store = reopen()
    store.user_id = user_id
    return store


def deleting(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that may write."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.backend.run(partial(method, self, *map(plain, args), **kwargs), write=True)

    return run


def writing(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that stores something; refuse it if the server might evict it."""

    @deleting
    @wraps(method)
    def checked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_keeps()
        return method(self, *args, **kwargs)

    return checked


_TTL = "shortest_ttl_s"
NO_LINES: Mapping[str, bytes] = MappingProxyType({})

MOST_REPORTS = 10
MOST_CONVERSATIONS = 1000
MOST_BYTES = 4 * 2**20
"""How much JSON of turns is cached; decoded, it takes about four times as much memory."""


class CachedConversation(NamedTuple):
    """A conversation's record, and its frame: whenever a frame changes, its record changes, too.

    Metadata is kept as JSON, so that each reader gets values of its own. ``counter`` is the backend's change counter
    when both were read, ``None`` if unknown.
    """

    stored: bytes
    record: Record
    frame: Frame
    metadata: bytes
    counter: object

    @classmethod
    def of(cls, stored: bytes, record: Record, frame: Frame, counter: object = None) -> CachedConversation:
        """Return the cached form of a record and its frame."""
        return cls(stored, record, frame, encode_json(frame.metadata), counter)


class ReadCache:
    """Decoded conversations and turns of one handle.

    It has no lock, because a forked child could never release one that was held; threads that write at the same time
    just decode something twice.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._conversations: dict[str, CachedConversation] = {}
        self._turns: dict[int, dict[int, tuple[bytes, Turn, object]]] = {}
        self._bytes = 0

    def conversation(self, conversation_id: str) -> CachedConversation | None:
        """Return a cached conversation; it is valid if the change counter or its record's bytes are the same."""
        return self._conversations.get(conversation_id)

    def take(self, conversation_id: str) -> CachedConversation | None:
        """Return a cached conversation and forget it, because it is about to change."""
        return self._conversations.pop(conversation_id, None)

    def keep(self, conversation_id: str, found: CachedConversation) -> None:
        """Cache a stored conversation; call this only after the transaction that read or wrote it."""
        if len(self._conversations) >= MOST_CONVERSATIONS:
            self._conversations.clear()
        self._conversations[conversation_id] = found

    def keep_turn(self, cid: int, place: int, line: bytes, turn: Turn, counter: object = None) -> None:
        """Cache a turn with the bytes of its row."""
        self._bytes += len(line)
        if self._bytes > MOST_BYTES:
            self._turns.clear()
            self._bytes = len(line)
        self._turns.setdefault(cid, {})[place] = line, turn, counter

    def unchanged_turns(self, cid: int, places: Iterable[int], counter: object) -> dict[int, Turn] | None:
        """Return the turns at these places if all of them are cached under this change counter."""
        if counter is None:
            return None
        cached = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        for place in places:
            found = cached.get(place)
            if found is None or found[2] != counter:
                return None
            turns[place] = found[1]
        return turns

    def turns_of(
        self, cid: int, lines: Mapping[int, bytes], conversation_id: str, counter: object = None
    ) -> dict[int, Turn]:
        """Return the turns of these rows by place; ``StoreCorruptedError`` if one cannot be read.

        If they are too many to be cached, none of them is.
        """
        cached = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        fresh: list[int] = []
        for place, line in lines.items():
            found = cached.get(place)
            if found is not None and found[0] == line:
                turns[place] = found[1]
                if found[2] != counter:
                    cached[place] = found[0], found[1], counter
                continue
            turns[place] = decode_turn(line, conversation_id)
            fresh.append(place)
        if fresh and sum(map(len, lines.values())) <= MOST_BYTES:
            for place in fresh:
                self.keep_turn(cid, place, lines[place], turns[place], counter)
        return turns

    def forget(self, conversation_id: str, cid: int) -> None:
        """Forget a conversation that is deleted."""
        self._conversations.pop(conversation_id, None)
        self._bytes -= sum(len(line) for line, _, _ in [*self._turns.pop(cid, {}).values()])


class RowAccess:
    """Finds, reads and writes the rows of conversations; all within one transaction of the backend."""

    user_id: str | None = None

    def __init__(self, backend: Backend, ttl: Duration | None, clock: Callable[[], datetime]) -> None:
        """Store conversations in the rows of this backend."""
        self.backend = backend
        self.ttl_s = ttl_s_of(ttl)
        self._clock = clock
        self._cleanups: list[PeriodicCleanup] = []
        self._cache = ReadCache()
        self._reported: set[str] = set()
        if self.ttl_s is not None:
            self._announce_ttl(self.ttl_s)

    def __copy__(self) -> Self:
        """Return another handle of the same store; pickling opens it again instead."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def now(self) -> datetime:
        """Return the time by the store's clock, which is used for ages and budget days."""
        return self._clock()

    def _find(self, conversation_id: str, *, erase_expired: bool = False) -> Record | None:
        """Return the record of a conversation of any user, unless it has expired."""
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        record = record_of(stored, conversation_id)
        if not self._is_expired(record):
            return record
        if erase_expired:
            self._erase_expired(conversation_id, record)
        return None

    def stored_id(self, conversation_id: str) -> str:
        """Return an id in its stored form: as given, or a canonically equivalent one; new ids are composed."""
        return self._read_form(conversation_id, self._stored_id)

    def stored_user(self, user_id: str) -> str:
        """Return a user id in its stored form."""
        return self._read_form(user_id, self._stored_user)

    def stored_prefix(self, prefix: str) -> str:
        """Return a prefix in its stored form."""
        return self._read_form(prefix, self._stored_prefix)

    def _read_form(self, text: str, stored_form: Callable[[str], str]) -> str:
        """Return the stored form of a text; a text with only one form is not looked up."""
        return text if len(equal_forms(text)) == 1 else self.backend.run(partial(stored_form, text), write=False)

    def _stored_id(self, conversation_id: str) -> str:
        return self._stored_form(conversation_id, lambda form: self._find(form) is not None)

    def _stored_user(self, user_id: str) -> str:
        return self._stored_form(user_id, lambda form: any(True for _ in self.backend.records("", form)))

    def _stored_prefix(self, prefix: str) -> str:
        return self._stored_form(prefix, lambda form: any(True for _ in self.backend.records(form, self.user_id)))

    def _stored_form(self, text: str, is_stored: Callable[[str], bool]) -> str:
        forms = equal_forms(text)
        return text if len(forms) == 1 else next(filter(is_stored, forms), composed(text))

    def _visible(self, conversation_id: str) -> Record:
        stored = self.backend.record(check_conversation_id(conversation_id))
        record = None if stored is None else record_of(stored, conversation_id)
        if record is None or self._is_expired(record) or self._is_hidden(record):
            raise not_found(conversation_id)
        return record

    def _visible_with_frame(self, conversation_id: str) -> tuple[Record, Frame]:
        return self._visible(conversation_id), self._frame(conversation_id)

    def _is_hidden(self, record: Record) -> bool:
        """Return whether this store is narrowed to another user than the conversation's."""
        return self.user_id not in (None, record.user_id)

    def _is_expired(self, record: Record) -> bool:
        if record.expires_at is None and self.ttl_s is None:
            return False
        now = self._clock()
        expiry = record.expiry(now, self.ttl_s)
        return expiry is not None and expiry <= now

    def _cached(self, conversation_id: str) -> CachedConversation | None:
        """Return a conversation of any user; only rows that may have changed since the last time are read."""
        counter = self.backend.change_counter()
        found = self._cache.conversation(conversation_id)
        if found is None or counter is None or found.counter != counter:
            found = self._refreshed(conversation_id, found, counter)
        return None if found is None or self._is_expired(found.record) else found

    def _refreshed(
        self, conversation_id: str, previous: CachedConversation | None, counter: object
    ) -> CachedConversation | None:
        stored = self.backend.record(conversation_id)
        if stored is None:
            return None
        if previous is not None and previous.stored == stored:
            return previous._replace(counter=counter)
        record = record_of(stored, conversation_id)
        return CachedConversation.of(stored, record, self._frame(conversation_id), counter)

    def _with_new_ttl(self, conversation_id: str) -> CachedConversation:
        """Return a conversation, and restart its TTL."""
        found = self._cached(conversation_id)
        if found is None or self._is_hidden(found.record):
            raise not_found(conversation_id)
        if self.ttl_s is None or not self._may_touch():
            return found
        record, stored = self._put_used(conversation_id, found.record)
        return found._replace(stored=stored, record=record)

    def _frame(self, conversation_id: str) -> Frame:
        stored = self.backend.frame(conversation_id)
        if stored is None:
            raise self._incomplete(conversation_id)
        return frame_of(stored, conversation_id)

    def _head_at(self, conversation_id: str, record: Record, stored: bytes | None = None) -> Head:
        """Return a head; ``stored`` is the frame, if it was read."""
        stored = stored or self.backend.frame(conversation_id)
        if stored is None:
            raise self._incomplete(conversation_id)
        frame = decode(stored, HeadFrame, conversation_id)
        return head_of(conversation_id, record, frame.settings, frame.metadata)

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
        return incomplete(conversation_id, self.backend.where)

    def _place_of(self, conversation_id: str, record: Record, turn_id: object) -> int:
        is_text = isinstance(turn_id, str) and without_lone_surrogates(turn_id) == turn_id
        place = self.backend.place_of(record.cid, str(turn_id)) if is_text else None
        if place is None:
            raise turn_unknown(conversation_id, turn_id)
        return place

    def _counted(self, record: Record) -> Record:
        """Return the record after one more change."""
        return record.counted(self._clock())

    def _used(self, conversation_id: str, record: Record) -> Record:
        """Return the record after a read or write: its TTL starts again. Warn of times far in the future."""
        now = self._clock()
        record = record.used(now, self.ttl_s)
        if record.noticed_at is not None:
            self._report_ahead(conversation_id, record, now)
        return record

    def _report_ahead(self, conversation_id: str, record: Record, now: datetime) -> None:
        """Warn once per conversation of a time that counts as now, and only for the first few conversations."""
        if conversation_id in self._reported or len(self._reported) >= MOST_REPORTS:
            return
        self._reported.add(conversation_id)
        is_last = len(self._reported) == MOST_REPORTS
        latest = max(record.updated_at, record.expires_at or record.updated_at)
        warnings.warn(
            f"A time of the conversation {conversation_id!r} in {self.backend.where} is more than a day ahead "
            f"({latest:%Y-%m-%d %H:%M} UTC, now is {now:%Y-%m-%d %H:%M}), so it counts as now. A clock is or was "
            "wrong: check the clocks of the machines that use this store."
            + " Further conversations are not reported."
            * is_last,
            stacklevel=2,
        )

    def _announce_ttl(self, ttl_s: float) -> None:
        """Warn if a first or shorter TTL makes conversations of this store expire at once.

        The TTL is noted, so that later openings do not check again.
        """
        noted = self.backend.run(partial(self.backend.note, _TTL), write=False)
        if noted is not None and float(noted) <= ttl_s:
            return
        expired, total = self.backend.run(self._count_expired, write=False)
        if expired:
            warnings.warn(
                f"{expired} of {counted(total, 'conversation')} in {self.backend.where} were last used more than "
                f"{timedelta(seconds=ttl_s)} ago and expire at once, because the store is opened with this TTL. "
                "To see them, open it without ttl; cleanup() deletes them.",
                stacklevel=2,
            )
        with suppress(StoreUnavailableError):  # reading works if writing does not
            self.backend.run(partial(self._note_ttl, ttl_s), write=True)

    def _count_expired(self) -> tuple[int, int]:
        """Return how many conversations without a stored expiry expire at once, and the number of all conversations."""
        expired = total = 0
        for conversation_id, stored in self.backend.records("", None):
            with suppress(StoreError):  # a damaged one is reported by the calls that need it
                record = record_of(stored, conversation_id)
                expired += record.expires_at is None and self._is_expired(record)
            total += 1
        return expired, total

    def _note_ttl(self, ttl_s: float) -> None:
        self._check_keeps()
        self.backend.put_note(_TTL, str(ttl_s).encode())

    def _check_keeps(self) -> None:
        """Raise ``StoreUnavailableError`` if a conversation that is about to be written may be evicted."""

    def _may_touch(self) -> bool:
        """Return whether reading may restart the TTL."""
        return True

    def _lifetime_s(self, record: Record) -> float | None:
        """Return the seconds until a record that is written now expires, ``None`` for never."""
        if record.expires_at is None:
            return None
        now = self._clock()
        return ((record.expiry(now, self.ttl_s) or now) - now).total_seconds()

    def _put_used(self, conversation_id: str, record: Record) -> tuple[Record, bytes]:
        """Write the record after a read or write; return the written record, and its bytes."""
        record = self._used(conversation_id, record)
        return record, self._put_record(conversation_id, record)

    def _put_record(self, conversation_id: str, record: Record) -> bytes:
        """Write the record; return its bytes."""
        stored = encode(record)
        self.backend.put_record(conversation_id, record.user_id, stored)
        return stored

    def _save(self, conversation_id: str, record: Record, frame: Frame | None = None) -> Head:
        """Write the record, and the frame if it changed; return the head."""
        self._put_used(conversation_id, record)
        if frame is None:
            return self._head_at(conversation_id, record)
        self._put_frame(conversation_id, frame)
        return head_of(conversation_id, record, frame.settings, frame.metadata)

    def _put_frame(self, conversation_id: str, frame: Frame) -> None:
        stored = encode(frame)
        check_size("Settings, metadata, and summaries are", stored)
        self.backend.put_frame(conversation_id, stored)

    def _put_turn(self, conversation_id: str, record: Record, place: int, turn: Turn, line: bytes) -> None:
        """Write a turn, and its entry in the index if it may also answer in another notebook."""
        check_size("This turn is", line)
        self.backend.put_turn(record.cid, place, turn.id, line)
        entry = None if record.notebook is None else turn_entry(conversation_id, record, place, turn)
        if entry is not None:
            self.backend.put_entry(entry, self._lifetime_s(record))

    def _write(
        self,
        state: ConversationState,
        revision: int,
        previous: Record | None = None,
        lines: Mapping[str, bytes] = NO_LINES,
    ) -> CachedConversation:
        """Write a whole conversation with the expiry of a ``previous`` record; ``lines`` are known lines by turn id."""
        record, frame, turns = rows_of(state, self.backend.next_cid(), revision)
        if previous is not None:
            record = structs.replace(record, expires_at=previous.expires_at, ttl_s=previous.ttl_s)
        record = record.used(self._clock(), self.ttl_s)  # its times were given, so they are not reported
        for place, turn in turns.items():
            self._put_turn(state.conversation_id, record, place, turn, lines.get(turn.id) or encode_turn(turn))
        for entry in notebook_entries(state.conversation_id, record):
            self.backend.put_entry(entry, None)  # never expires: reading extends the conversation's expiry
        stored = self._put_record(state.conversation_id, record)
        self._put_frame(state.conversation_id, frame)
        return CachedConversation.of(stored, record, frame)

    def _erase_expired(self, conversation_id: str, record: Record) -> None:
        self._erase(conversation_id, record)

    def _erase(self, conversation_id: str, record: Record) -> None:
        for entry in notebook_entries(conversation_id, record):
            self.backend.drop_entry(entry)
        if record.notebook is not None:
            for entry in turn_entries(conversation_id, record, self.backend.turns(record.cid).items()):
                self.backend.drop_entry(entry)
        self.backend.erase(conversation_id, record.cid, record.user_id)
        self._cache.forget(conversation_id, record.cid)

    def _head(self, conversation_id: str, found: CachedConversation) -> Head:
        return head_of(conversation_id, found.record, found.frame.settings, decode_json(found.metadata))

    def _enter(self, charge: Charge | None) -> None:
        """Write a charge to the ledger."""
        self._put_accounts(self._changes_by(charge))

    def _changes_by(self, charge: Charge | None) -> Sequence[AccountChange]:
        if charge is None:
            return ()
        return ledger.changes_by_charging(charge, self.backend.accounts(ledger.charged_scopes(charge)))

    def _put_accounts(self, changes: Iterable[AccountChange]) -> None:
        for scope, _, changed in changes:
            self.backend.put_account(scope, changed)

    def _check_charge(self, charge: Charge | None) -> None:
        if charge is None:
            return
        ledger.check_charge(charge)
        self._checked_scopes(charge.scopes)
        if charge.reservation is not None:
            self._checked_scopes(charge.reservation.scopes)

    def _checked_scopes(self, scopes: Sequence[str]) -> tuple[str, ...]:
        """Return the scopes; ``InvalidArgumentError`` if one is not text, or another user's in a narrowed store."""
        found = check_scopes(scopes)
        if self.user_id is not None:
            ledger.check_visible(self.user_id, found)
        return found

    def _described(self, *details: str) -> str:
        """Return the class, whether the store is closed, these details, and the user that it is narrowed to."""
        closed = ["closed"] if self.backend.closed else []
        user = [] if self.user_id is None else [f"narrowed to {self.user_id!r}"]
        words = ", ".join((*closed, *details, *user))
        return terminal_text(f"<{type(self).__name__}{words and ': '}{words}>")

    def _owner_of(self, user_id: str) -> str:
        """Return the user that a conversation is created for."""
        if self.user_id is None:
            return user_id
        if user_id != "default":  # the default value, so it was most likely not given
            check_own_user(self.user_id, user_id)
        return self.user_id
