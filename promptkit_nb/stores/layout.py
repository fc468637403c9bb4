"""How a conversation lies in rows: the format that ``DiskStore`` users keep for years.

::

    "format"             the format's version, as text
    "c:cid"              the last conversation number given out
    "h:" + id            Record: who owns it, counts, totals, times           tag "u:" + user id
    "a:" + id            Frame: system prompt, settings, metadata, summaries; which turns are current
    (cid << 24) | place  one turn, written once and never changed             tag "t:" + turn id

Turns that were said one after the other have places from 0 on. A former version, or a turn that a ``set`` found on a
branch, has a place from ``ASIDE`` on. ``Frame.order`` says which places are current: half-open ranges, the last one
open; ``versions`` says for a place which rows were answers there, oldest first, the last one being current; a branch
names the ranges that left with it. So nothing that was said is ever moved or rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Literal

from promptkit_nb.state import Branch, ConversationState, Head, Settings, Summary, Totals
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn

PLACE_BITS = 24
ASIDE = 1 << (PLACE_BITS - 1)

Range = tuple[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The row that every write changes, kept small. ``next_place`` and ``next_aside`` are the next free places."""

    cid: int
    user_id: str
    created_at: datetime
    updated_at: datetime
    revision: int
    turn_count: int = 0
    next_place: int = 0
    next_aside: int = ASIDE
    totals: Totals = field(default_factory=Totals)
    expires_at: datetime | None = None
    format: int = 1


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
    format: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether the current turns are simply all rows: nothing was ever replaced or moved to a branch."""
        return self.order == ((0, None),) and not self.versions

    def current_rows(self, next_place: int) -> list[int]:
        """Return the places of the rows that hold the current turns, in order."""
        return [self.row_at(place) for place in _places(self.order, next_place)]

    def row_at(self, place: int) -> int:
        """Return where the current answer of a place stands."""
        rows = self.versions.get(str(place))
        return rows[-1] if rows else place


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOnly:
    """What ``list`` needs of a ``Frame``, decoded without the rest."""

    metadata: Mapping[str, object] = field(default_factory=dict)


def key_of(cid: int, place: int) -> int:
    """Return the key of a turn's row."""
    return (cid << PLACE_BITS) | place


def behind_prefix(prefix: str) -> str:
    """Return the first text that sorts behind all those which begin with the prefix.

    >>> behind_prefix("h:user:alice:")
    'h:user:alice;'
    """
    kept = prefix.rstrip(chr(0x10FFFF))
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004 - past the surrogates


def bounds_of(cid: int) -> tuple[int, int]:
    """Return the keys between which a conversation's turns stand: the first, and the first behind them."""
    return key_of(cid, 0), key_of(cid + 1, 0)


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
        place = place_of[turn_id]
        turns.update(enumerate(former, aside))
        versions[str(place)] = (*range(aside, aside + len(former)), place)
        aside += len(former)
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
        turns=tuple(turns[frame.row_at(place)] for place in _places(record.ranges, 0)),
        start=record.start,
        kind=record.kind,
        context_hash=record.context_hash,
        created_at=record.created_at,
    )


def _places(ranges: tuple[Range, ...], end: int) -> chain[int]:
    return chain.from_iterable(range(start, end if stop is None else stop) for start, stop in ranges)
