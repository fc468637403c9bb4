"""Replacing, archiving and restoring turns: what changes in a conversation's record and frame. Rows never move."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import structs

from promptkit_nb.state import Totals
from promptkit_nb.stores.layout import BranchRecord, Frame, Range, Record, next_free, places_of
from promptkit_nb.turns import NO_USAGE, Turn, new_turn_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime


def replaced(record: Record, frame: Frame, row: int, turn: Turn) -> tuple[Record, Frame, int]:
    """Let ``turn`` answer in place of what stands in ``row``; return also the row that the turn goes to."""
    place, rows = versions_at(frame, row)
    new_row = record.next_aside
    record = structs.replace(record, next_aside=next_free(new_row), totals=record.totals.plus_paid([turn]))
    return record, replace(frame, versions={**frame.versions, str(place): (*rows, new_row)}), new_row


def restored_version(frame: Frame, row: int) -> Frame:
    """Let the former version in ``row`` be current again; what was current becomes a former version."""
    place, rows = versions_at(frame, row)
    if rows[-1] == row:
        return frame  # it is the current one
    reordered = (*(each for each in rows if each != row), row)
    return replace(frame, versions={**frame.versions, str(place): reordered})


def versions_at(frame: Frame, row: int) -> tuple[int, tuple[int, ...]]:
    """Return the place that a row belongs to, and all rows that were answers there, the current one last."""
    for place, rows in frame.versions.items():
        if row in rows:
            return int(place), rows
    return row, (row,)


def archived(
    record: Record, frame: Frame, start: int, stop: int, *, branch_id: str, chain: str, now: datetime
) -> tuple[Record, Frame]:
    """Let the turns at these positions leave as a branch.

    ``chain`` is the hash of the context up to ``stop``: turns that leave at the front are still in the context that
    the others were answered in.
    """
    places = current_places(record, frame)
    leaves_tail = stop == len(places)
    branch = BranchRecord(
        id=branch_id,
        ranges=_ranges_of(places[start:stop]),
        start=start,
        kind="tail" if leaves_tail else "head",
        context_hash=frame.context_hash,
        created_at=now,
    )
    others = frame.branches
    if not leaves_tail and start == 0:
        others = _behind(others, stop, by=-stop, former=frame.context_hash, now=chain)
        frame = replace(frame, context_hash=chain)
    elif not leaves_tail:
        others = _shifted(others, start, start - stop)
    elif start == 0:
        frame = replace(frame, context_hash=None)  # nothing is left: what comes next stands behind nothing
    return _arranged(record, frame, places[:start] + places[stop:], (*others, branch))


def restored_branch(record: Record, frame: Frame, branch: BranchRecord, now: datetime) -> tuple[Record, Frame]:
    """Bring a branch back: a tail changes places with what stands there now, other turns go in where they were."""
    places = current_places(record, frame)
    back = list(places_of(branch.ranges, 0))
    others = tuple(each for each in frame.branches if each.id != branch.id)
    start = min(max(branch.start, 0), len(places))
    former = frame.context_hash
    if start == 0:
        frame = replace(frame, context_hash=branch.context_hash)
    if branch.kind == "head" and start == 0:
        others = _behind(others, 0, by=len(back), former=former, now=branch.context_hash)
    elif branch.kind == "head":
        others = _shifted(others, start, len(back))
    if branch.kind == "head":
        return _arranged(record, frame, places[:start] + back + places[start:], others)
    leaving = places[start:]
    if leaving:
        left = BranchRecord(
            id=new_turn_id(), ranges=_ranges_of(leaving), start=start, context_hash=former, created_at=now
        )
        others = (*others, left)
    return _arranged(record, frame, places[:start] + back, others)


def forked(record: Record, frame: Frame, *, cid: int, now: datetime) -> tuple[Record, Frame]:
    """Return record and frame of an independent copy: its turns are inherited, and in no total of its own."""
    summaries = tuple(replace(summary, usage=NO_USAGE, cost=Decimal(0)) for summary in frame.summaries)
    copy = structs.replace(
        record, cid=cid, created_at=now, updated_at=now, revision=1, totals=Totals(), expires_at=None
    )
    inherited = replace(
        frame,
        summaries=summaries,
        dropped=Totals(),
        inherited_places=record.next_place,
        inherited_aside=record.next_aside,
    )
    return copy, inherited


def current_places(record: Record, frame: Frame) -> list[int]:
    """Return the places of the current turns, in order."""
    return list(places_of(frame.order, record.next_place))


def _arranged(
    record: Record, frame: Frame, places: Sequence[int], branches: Iterable[BranchRecord]
) -> tuple[Record, Frame]:
    """Return both with these places current; what is appended next comes behind them."""
    ranges = list(_ranges_of(places))
    if ranges and ranges[-1][1] == record.next_place:
        ranges[-1] = (ranges[-1][0], None)
    else:
        ranges.append((record.next_place, None))
    return (
        structs.replace(record, turn_count=len(places)),
        replace(frame, order=tuple(ranges), branches=tuple(branches)),
    )


def _ranges_of(places: Sequence[int]) -> tuple[Range, ...]:
    ranges: list[Range] = []
    for place in places:
        if ranges and ranges[-1][1] == place:
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((place, place + 1))
    return tuple(ranges)


def _shifted(branches: Iterable[BranchRecord], at: int, by: int) -> tuple[BranchRecord, ...]:
    """Return the branches where they belong after ``by`` turns came (or left, if negative) at a position."""
    return tuple(
        replace(branch, start=max(branch.start + by, at)) if branch.start >= at else branch for branch in branches
    )


def _behind(
    branches: Iterable[BranchRecord], at: int, *, by: int, former: str | None, now: str | None
) -> tuple[BranchRecord, ...]:
    """Return the branches where they belong after ``by`` turns came (or left, if negative) at the front.

    Those from position ``at`` on stand behind what has the hash ``now`` instead of ``former``. A start below 0 means
    that turns before it left, too, and is counted back when they return.
    """
    return tuple(
        replace(
            branch,
            start=branch.start + by,
            context_hash=now if branch.start >= at and branch.context_hash == former else branch.context_hash,
        )
        for branch in branches
    )
