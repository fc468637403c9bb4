"""How a conversation is stored in rows: a record that every write changes, a frame, and one row per turn.

A row of a turn is numbered by its place. Appended turns have places from 0; previous versions, and turns that ``set``
found on a branch, have places from ``ASIDE``. ``Frame.order`` has the current places as half-open ranges, of which the
last is open-ended. ``Frame.versions`` maps a place to the rows of all its answers, oldest first; the last is current. A
branch has the ranges that were moved to it. So no turn is ever moved or rewritten. In a fork, the places below
``inherited_places`` (and from ``ASIDE``, those below ``inherited_aside``) were copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import structs

from promptkit_nb.codec import (
    NEWEST_FORMAT,
    SALVAGE,
    are_absurd_totals,
    check_format,
    decode,
    format_of,
    summary_as_read,
    totals_as_read,
)
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError
from promptkit_nb.state import (
    Branch,
    ConversationKind,
    ConversationState,
    Head,
    NotebookNote,
    Settings,
    Summary,
    Totals,
)
from promptkit_nb.turns import OWN_SOURCE, Turn, utc_now

if TYPE_CHECKING:
    from promptkit_nb.stores.base import SortKey

PLACE_BITS = 24
ASIDE = 1 << (PLACE_BITS - 1)

Range = tuple[int, int | None]

AHEAD = timedelta(days=1)
"""A stored time that is further ahead than this comes from a wrong clock, and counts as now."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The row that every write changes, kept small; ``next_place`` and ``next_aside`` are the next free places.

    It is read, changed and written with every turn; a dataclass would take three times as long for that.

    Times never go back, so a writer with a slow clock cannot make a conversation look old or expire. ``noticed_at`` is
    when a time far in the future was last noticed; the conversation ages from that moment. ``ttl_s`` is the TTL in
    seconds from which ``expires_at`` was computed.
    """

    cid: int
    user_id: str
    created_at: datetime
    updated_at: datetime
    revision: int
    turn_count: int = 0
    next_place: int = 0
    next_aside: int = ASIDE
    totals: Totals = msgspec.field(default_factory=Totals)
    expires_at: datetime | None = None
    notebook: NotebookNote | None = None
    format: int = 1
    ttl_s: float | None = None
    noticed_at: datetime | None = None

    def last_used(self, now: datetime) -> datetime:
        """Return when the conversation was last written, or, if that is far in the future, when it was noticed."""
        return self.updated_at if self.updated_at <= now + AHEAD else self._noticed(now)

    def expiry(self, now: datetime, ttl_s: float | None) -> datetime | None:
        """Return when the conversation expires; the TTL of the store applies if no expiry is stored."""
        if self.expires_at is None:
            return None if ttl_s is None else self.last_used(now) + timedelta(seconds=ttl_s)
        after = timedelta(seconds=self.ttl_s or 0)
        return self.expires_at if self.expires_at <= now + after + AHEAD else self._noticed(now) + after

    def is_ahead(self, now: datetime) -> bool:
        """Return whether one of its times is far in the future."""
        latest = self.updated_at
        if self.expires_at is not None:
            latest = max(latest, self.expires_at - timedelta(seconds=self.ttl_s or 0))
        return latest > now + AHEAD

    def used(self, now: datetime, ttl_s: float | None) -> Record:
        """Return the record after a read or write by a store with this TTL; without one, the stored TTL applies."""
        noticed_at = now if self.is_ahead(now) else None
        ttl_s = self.ttl_s if ttl_s is None else ttl_s
        if ttl_s is None:
            return self if noticed_at == self.noticed_at else structs.replace(self, noticed_at=noticed_at)
        expires_at = now + timedelta(seconds=ttl_s)
        if self.expires_at is not None:
            expires_at = max(self.expires_at, expires_at)
        return structs.replace(self, expires_at=expires_at, ttl_s=ttl_s, noticed_at=noticed_at)

    def counted(self, now: datetime) -> Record:
        """Return the record after one more change."""
        return structs.replace(self, revision=self.revision + 1, updated_at=max(self.updated_at, now))

    def _noticed(self, now: datetime) -> datetime:
        return now if self.noticed_at is None else min(self.noticed_at, now)

    def appended(self, turn: Turn, now: datetime) -> Record:
        """Return the record with one more turn."""
        return structs.replace(
            self,
            updated_at=max(self.updated_at, now),
            revision=self.revision + 1,
            turn_count=self.turn_count + 1,
            next_place=next_free(self.next_place),
            totals=self.totals.plus(turn.usage, turn.cost) if turn.counts else self.totals,
            format=max(self.format, format_of([turn])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRecord:
    """A branch, as the ranges of places that were moved to it."""

    id: str
    ranges: tuple[Range, ...]
    start: int
    kind: Literal["head", "tail"] = "tail"
    context_hash: str | None = None
    created_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """All of a conversation except its turns; written only when it changes."""

    system_prompt: str | None = None
    settings: Settings = field(default_factory=Settings)
    metadata: Mapping[str, object] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()
    dropped: Totals = field(default_factory=Totals)
    context_hash: str | None = None
    order: tuple[Range, ...] = ((0, None),)
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    branches: tuple[BranchRecord, ...] = ()
    inherited_places: int = 0
    inherited_aside: int = ASIDE
    format: int = 1

    def current_rows(self, next_place: int) -> list[int]:
        """Return the rows of the current turns, in order."""
        places = places_of(self.order, next_place)
        if sum((next_place if stop is None else stop) - start for start, stop in self.order) > 2 * ASIDE:
            raise KeyError(self.order)  # no rows are stored in this order
        return [self.row_at(place) for place in places] if self.versions else [*places]

    def newest_rows(self, next_place: int, n: int) -> list[int]:
        """Return the last ``n`` of ``current_rows``, at a cost that does not grow with the others."""
        newest: list[int] = []
        for start, stop in reversed(self.order):
            end = next_place if stop is None else stop
            newest += (self.row_at(place) for place in range(end - 1, max(start, end - n + len(newest)) - 1, -1))
        return newest[::-1]

    def is_inherited(self, row: int) -> bool:
        """Return whether the turn of this row was copied from another conversation by a fork."""
        return row < self.inherited_places or ASIDE <= row < self.inherited_aside

    def row_at(self, place: int) -> int:
        """Return the row of the current answer at a place."""
        rows = self.versions.get(str(place))
        return rows[-1] if rows else place


class KindOnly(msgspec.Struct, frozen=True, kw_only=True):
    """The part of ``Settings`` that ``list`` needs."""

    kind: ConversationKind = "chat"
    source: str = OWN_SOURCE


class HeadFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a ``Frame`` that ``list`` needs, decoded without the rest; a dataclass would take twice the time."""

    metadata: Mapping[str, object] = msgspec.field(default_factory=dict)
    settings: KindOnly = msgspec.field(default_factory=KindOnly)


def record_of(stored: bytes, conversation_id: str) -> Record:
    """Return a record; ``StoreUnavailableError`` if a newer version of this package wrote it."""
    record = decode(stored, Record, conversation_id)
    check_format(record.format, f"The conversation {conversation_id!r}", NEWEST_FORMAT)
    counts = record.turn_count, record.next_place, record.next_aside - ASIDE, record.revision
    if min(counts) < 0 or max(counts[:3]) > ASIDE:
        raise StoreCorruptedError(
            f"A stored Record of the conversation {conversation_id!r} has absurd numbers: {record!r:.300}. {SALVAGE}"
        )
    if are_absurd_totals(record.totals):
        record = structs.replace(record, totals=totals_as_read(record.totals))
    if record.expires_at is None or record.ttl_s is not None:
        return record
    # version 0.1 did not store the TTL; this is its upper bound
    longest_s = max(0.0, (record.expires_at - record.updated_at).total_seconds())
    return structs.replace(record, ttl_s=longest_s)


def frame_of(stored: bytes, conversation_id: str) -> Frame:
    """Return a frame, with absurd values made unknown."""
    frame = decode(stored, Frame, conversation_id)
    summaries = tuple(map(summary_as_read, frame.summaries))
    dropped = totals_as_read(frame.dropped)
    if summaries == frame.summaries and dropped is frame.dropped:
        return frame
    return replace(frame, summaries=summaries, dropped=dropped)


def sorted_records(
    found: Iterable[tuple[str, bytes]], sort_by: SortKey, *, descending: bool
) -> list[tuple[str, bytes]]:
    """Return ids and stored records ordered by a key and then by id, without decoding the records."""
    if sort_by == "conversation_id":
        return sorted(found, key=itemgetter(0), reverse=descending)
    mark = time_mark(sort_by)
    return sorted(found, key=lambda each: (stored_time(each[1], mark), each[0]), reverse=descending)


TIME_BYTES = 27
"""The length of ``2026-03-01T12:00:00.123456Z``."""


def time_mark(name: Literal["created_at", "updated_at"]) -> bytes:
    """Return the bytes before a time in a stored record; they cannot occur in text, because its quotes are escaped."""
    return f'"{name}":"'.encode()


def stored_time(record: bytes, mark: bytes) -> bytes:
    """Return the time after the mark, such that times sort as bytes; ``TIMES`` in disk_backend.py is the same in SQL.

    The ``Z`` is cut, so that a time without a fraction, which ``"`` follows, sorts before times with one.
    """
    start = record.find(mark) + len(mark)
    return record[start : start + TIME_BYTES].replace(b"Z", b"")


def next_free(place: int) -> int:
    """Return the place after this one, which is about to be used; ``InvalidArgumentError`` if none is left."""
    if place + 1 in (ASIDE, 2 * ASIDE):
        raise _full()
    return place + 1


def head_of(
    conversation_id: str, record: Record, settings: Settings | KindOnly, metadata: Mapping[str, object]
) -> Head:
    """Return the public head."""
    return Head(
        conversation_id=conversation_id,
        user_id=record.user_id,
        turn_count=record.turn_count,
        token_count=record.totals.tokens,
        total_cost=record.totals.known_cost,
        unpriced_turns=record.totals.unpriced,
        created_at=record.created_at,
        updated_at=record.updated_at,
        metadata=metadata,
        revision=record.revision,
        notebook=record.notebook,
        kind=settings.kind,
        source=settings.source,
    )


def state_of(conversation_id: str, record: Record, frame: Frame, turns: Mapping[int, Turn]) -> ConversationState:
    """Return the whole state from its rows; ``turns`` maps places to turns. ``KeyError`` if one is missing."""
    turns = inherited(turns, frame)
    current = [turns[row] for row in frame.current_rows(record.next_place)]
    branches = tuple(_branch_of(branch, frame, turns) for branch in frame.branches)
    versions = {turns[rows[-1]].id: tuple(turns[row] for row in rows[:-1]) for rows in frame.versions.values()}
    return ConversationState(
        conversation_id=conversation_id,
        user_id=record.user_id,
        turns=tuple(current),
        system_prompt=frame.system_prompt,
        summaries=frame.summaries,
        versions=versions,
        branches=branches,
        settings=frame.settings,
        metadata=frame.metadata,
        created_at=record.created_at,
        updated_at=record.updated_at,
        dropped=frame.dropped,
        context_hash=frame.context_hash,
        revision=record.revision,
        notebook=record.notebook,
    )


def inherited(turns: Mapping[int, Turn], frame: Frame) -> Mapping[int, Turn]:
    """Return the turns, of which those that a fork copied are marked as inherited."""
    if not frame.inherited_places and frame.inherited_aside == ASIDE:
        return turns
    return {row: replace(turn, inherited=True) if frame.is_inherited(row) else turn for row, turn in turns.items()}


def rows_of(state: ConversationState, cid: int, revision: int) -> tuple[Record, Frame, dict[int, Turn]]:
    """Return the rows of a whole state: its record, its frame, and the turns by place."""
    turns = dict(enumerate(state.turns))
    branches, aside = [], ASIDE
    for branch in state.branches:
        turns.update(enumerate(branch.turns, aside))
        branches.append(_stored_branch(branch, aside))
        aside += len(branch.turns)
    place_of = {turn.id: place for place, turn in turns.items()}
    versions: dict[str, tuple[int, ...]] = {}
    for turn_id, previous in state.versions.items():
        place = place_of.get(turn_id)
        if place is None:
            raise InvalidArgumentError(f"versions has the turn {turn_id!r}, which is neither in turns nor in a branch.")
        turns.update(enumerate(previous, aside))
        versions[str(place)] = (*range(aside, aside + len(previous)), place)
        aside += len(previous)
    if len(state.turns) >= ASIDE or aside >= 2 * ASIDE:
        raise _full()
    record = Record(
        cid=cid,
        user_id=state.user_id,
        created_at=state.created_at.astimezone(UTC),  # stored times are compared as text
        updated_at=state.updated_at.astimezone(UTC),
        revision=revision,
        turn_count=len(state.turns),
        next_place=len(state.turns),
        next_aside=aside,
        totals=state.totals,
        notebook=state.notebook,
        format=format_of([*turns.values(), *state.summaries]),
    )
    frame = Frame(
        system_prompt=state.system_prompt,
        settings=state.settings,
        metadata=state.metadata,
        summaries=state.summaries,
        dropped=state.dropped,
        context_hash=state.context_hash,
        versions=versions,
        branches=tuple(branches),
    )
    return record, frame, turns


def _stored_branch(branch: Branch, first: int) -> BranchRecord:
    """Return a branch whose turns have the places from ``first``."""
    return BranchRecord(
        id=branch.id,
        ranges=((first, first + len(branch.turns)),),
        start=branch.start,
        kind=branch.kind,
        context_hash=branch.context_hash,
        created_at=branch.created_at,
    )


def _branch_of(record: BranchRecord, frame: Frame, turns: Mapping[int, Turn]) -> Branch:
    return Branch(
        id=record.id,
        turns=tuple(turns[frame.row_at(place)] for place in places_of(record.ranges, 0)),
        start=record.start,
        kind=record.kind,
        context_hash=record.context_hash,
        created_at=record.created_at,
    )


def _full() -> InvalidArgumentError:
    return InvalidArgumentError(
        f"This conversation would have more than {ASIDE - 1} turns, or as many versions; nothing was changed. "
        "Continue in a new conversation."
    )


def places_of(ranges: tuple[Range, ...], end: int) -> chain[int]:
    """Return the places of half-open ranges; an open one ends before ``end``."""
    return chain.from_iterable(range(start, end if stop is None else stop) for start, stop in ranges)
