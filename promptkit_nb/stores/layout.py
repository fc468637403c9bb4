"""How a conversation lies in rows: a record that every write changes, a frame, and one row a turn.

Turns that were said one after the other have places from 0 on. A former version, or a turn that a ``set`` found on a
branch, has a place from ``ASIDE`` on. ``Frame.order`` says which places are current: half-open ranges, the last one
open; ``versions`` says for a place which rows were answers there, oldest first, the last one being current; a branch
names the ranges that left with it. So nothing that was said is ever moved or rewritten. In a fork, the places below
``inherited_places`` (and, aside, below ``inherited_aside``) were copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import structs

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.state import Branch, ConversationState, Head, Settings, Summary, Totals
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn

PLACE_BITS = 24
ASIDE = 1 << (PLACE_BITS - 1)

Range = tuple[int, int | None]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The row that every write changes, kept small. ``next_place`` and ``next_aside`` are the next free places.

    No dataclass, as it is read, changed and written with every turn: this kind takes a third of the time for it.
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
    format: int = 1

    def appended(self, turn: Turn, now: datetime) -> Record:
        """Return the record with one more turn."""
        return structs.replace(
            self,
            updated_at=now,
            revision=self.revision + 1,
            turn_count=self.turn_count + 1,
            next_place=next_free(self.next_place),
            totals=self.totals.plus(turn.usage, turn.cost) if turn.counts else self.totals,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRecord:
    """A branch, by the ranges of places that left with it."""

    id: str
    ranges: tuple[Range, ...]
    start: int
    kind: Literal["head", "tail"] = "tail"
    context_hash: str | None = None
    created_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """All of a conversation but its turns; written only when it changes."""

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
        """Return the places of the rows that hold the current turns, in order."""
        places = places_of(self.order, next_place)
        return [self.row_at(place) for place in places] if self.versions else [*places]

    def newest_rows(self, next_place: int, n: int) -> list[int]:
        """Return the last ``n`` of ``current_rows``, in a time that does not grow with the others."""
        newest: list[int] = []
        for start, stop in reversed(self.order):
            end = next_place if stop is None else stop
            newest += (self.row_at(place) for place in range(end - 1, max(start, end - n + len(newest)) - 1, -1))
        return newest[::-1]

    def is_inherited(self, row: int) -> bool:
        """Return whether the turn of this row was copied from another conversation by a fork."""
        return row < self.inherited_places or ASIDE <= row < self.inherited_aside

    def row_at(self, place: int) -> int:
        """Return where the current answer of a place stands."""
        rows = self.versions.get(str(place))
        return rows[-1] if rows else place


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOnly:
    """What ``list`` needs of a ``Frame``, decoded without the rest."""

    metadata: Mapping[str, object] = field(default_factory=dict)


def next_free(place: int) -> int:
    """Return the place behind this one, which is about to be taken; ``InvalidArgumentError`` where all are taken."""
    if place + 1 in (ASIDE, 2 * ASIDE):
        raise _full()
    return place + 1


def head_of(conversation_id: str, record: Record, metadata: Mapping[str, object]) -> Head:
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
    )


def state_of(conversation_id: str, record: Record, frame: Frame, turns: Mapping[int, Turn]) -> ConversationState:
    """Return the whole state from its rows; ``turns`` maps places to turns, ``KeyError`` where one is missing."""
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
    )


def inherited(turns: Mapping[int, Turn], frame: Frame) -> Mapping[int, Turn]:
    """Return the turns of these rows, marked where a fork brought them here."""
    if not frame.inherited_places and frame.inherited_aside == ASIDE:
        return turns
    return {row: replace(turn, inherited=True) if frame.is_inherited(row) else turn for row, turn in turns.items()}


def rows_of(state: ConversationState, cid: int, revision: int) -> tuple[Record, Frame, dict[int, Turn]]:
    """Return the rows of a whole state: its record, its frame, and the turns by place."""
    turns = dict(enumerate(state.turns))
    aside = ASIDE
    branches: list[BranchRecord] = []
    for branch in state.branches:
        turns.update(enumerate(branch.turns, aside))
        branches.append(
            BranchRecord(
                id=branch.id,
                ranges=((aside, aside + len(branch.turns)),),
                start=branch.start,
                kind=branch.kind,
                context_hash=branch.context_hash,
                created_at=branch.created_at,
            )
        )
        aside += len(branch.turns)
    place_of = {turn.id: place for place, turn in turns.items()}
    versions: dict[str, tuple[int, ...]] = {}
    for turn_id, former in state.versions.items():
        place = place_of.get(turn_id)
        if place is None:
            raise InvalidArgumentError(f"versions has the turn {turn_id!r}, which is neither in turns nor in a branch.")
        turns.update(enumerate(former, aside))
        versions[str(place)] = (*range(aside, aside + len(former)), place)
        aside += len(former)
    if len(state.turns) >= ASIDE or aside >= 2 * ASIDE:
        raise _full()
    record = Record(
        cid=cid,
        user_id=state.user_id,
        created_at=state.created_at,
        updated_at=state.updated_at,
        revision=revision,
        turn_count=len(state.turns),
        next_place=len(state.turns),
        next_aside=aside,
        totals=state.totals,
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
        f"This conversation would hold more than {ASIDE - 1} turns, or as many versions; nothing was changed. "
        "Go on in a new conversation."
    )


def places_of(ranges: tuple[Range, ...], end: int) -> chain[int]:
    """Return the places of half-open ranges; an open one ends before ``end``."""
    return chain.from_iterable(range(start, end if stop is None else stop) for start, stop in ranges)
