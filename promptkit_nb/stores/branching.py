"""Changes of a conversation's record and frame when turns are replaced, archived, restored, or forked.

No row of a turn is moved or rewritten: ranges of places go from the frame's order to a branch and back.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import structs

from promptkit_nb.codec import format_of
from promptkit_nb.state import Totals
from promptkit_nb.stores.layout import BranchRecord, Frame, Record, next_free
from promptkit_nb.turns import NO_USAGE, new_turn_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from promptkit_nb.stores.layout import Range
    from promptkit_nb.turns import Turn


def with_answer(record: Record, frame: Frame, row: int, turn: Turn, *, is_current: bool) -> tuple[Record, Frame, int]:
    """Add ``turn`` to the answers at the place of ``row``; return record, frame, and the row for the turn.

    It becomes the current one, or the newest of the previous versions.
    """
    place, rows = versions_at(frame, row)
    new_row = record.next_aside
    record = structs.replace(
        record,
        next_aside=next_free(new_row),
        totals=record.totals.plus_paid([turn]),
        format=max(record.format, format_of([turn])),
    )
    rows = (*rows, new_row) if is_current else (*rows[:-1], new_row, rows[-1])
    return record, replace(frame, versions={**frame.versions, str(place): rows}), new_row


def restored_version(frame: Frame, row: int) -> Frame:
    """Make the previous version in ``row`` current again; the current one becomes a previous version."""
    place, rows = versions_at(frame, row)
    if rows[-1] == row:
        return frame  # it is current already
    reordered = (*(each for each in rows if each != row), row)
    return replace(frame, versions={**frame.versions, str(place): reordered})


def versions_at(frame: Frame, row: int) -> tuple[int, tuple[int, ...]]:
    """Return the place that a row belongs to, and the rows of all answers there, the current one last."""
    for place, rows in frame.versions.items():
        if row in rows:
            return int(place), rows
    return row, (row,)


def archived(
    record: Record, frame: Frame, start: int, stop: int, *, branch_id: str, chain: str | None, now: datetime
) -> tuple[Record, Frame]:
    """Move the turns at these positions to a branch; the cost does not depend on the number of other turns.

    ``chain`` is the hash of the context up to ``stop``. It is needed only if turns leave at the front and others
    follow, because those others were answered in that context.
    """
    current = _current_ranges(record, frame)
    leaves_tail = stop == record.turn_count
    branch = BranchRecord(
        id=branch_id,
        ranges=_cut(current, start, stop),
        start=start,
        kind="tail" if leaves_tail else "head",
        context_hash=frame.context_hash,
        created_at=now,
    )
    others = frame.branches
    if not leaves_tail and start == 0:
        others = _rebased(others, stop, by=-stop, previous=frame.context_hash, now=chain)
        frame = replace(frame, context_hash=chain)
    elif not leaves_tail:
        others = _shifted(others, start, start - stop)
    elif start == 0:
        frame = replace(frame, context_hash=None)  # no turn is left, so the next one has no context
    rest = (*_cut(current, 0, start), *_cut(current, stop, record.turn_count))
    return _arranged(record, frame, rest, (*others, branch))


def restored_branch(record: Record, frame: Frame, branch: BranchRecord, now: datetime) -> tuple[Record, Frame]:
    """Restore a branch: a tail is swapped with the current tail; other turns are inserted at their old position."""
    current = _current_ranges(record, frame)
    count = sum(stop - first for first, stop in branch.ranges if stop is not None)
    others = tuple(each for each in frame.branches if each.id != branch.id)
    start = min(max(branch.start, 0), record.turn_count)
    before, after = _cut(current, 0, start), _cut(current, start, record.turn_count)
    previous = frame.context_hash
    if start == 0:
        frame = replace(frame, context_hash=branch.context_hash)
    if branch.kind == "head" and start == 0:
        others = _rebased(others, 0, by=count, previous=previous, now=branch.context_hash)
    elif branch.kind == "head":
        others = _shifted(others, start, count)
    if branch.kind == "head":
        return _arranged(record, frame, (*before, *branch.ranges, *after), others)
    if after:
        left = BranchRecord(id=new_turn_id(), ranges=after, start=start, context_hash=previous, created_at=now)
        others = (*others, left)
    return _arranged(record, frame, (*before, *branch.ranges), others)


def forked(record: Record, frame: Frame, *, cid: int, now: datetime) -> tuple[Record, Frame]:
    """Return record and frame of an independent copy; its turns are inherited and not part of its totals.

    The copy does not belong to a notebook.
    """
    summaries = tuple(replace(summary, usage=NO_USAGE, cost=Decimal(0)) for summary in frame.summaries)
    new = structs.replace(record, cid=cid, created_at=now, updated_at=now, revision=1, totals=Totals(), expires_at=None)
    new = structs.replace(new, ttl_s=None, noticed_at=None, notebook=None)
    inherited = replace(
        frame,
        settings=frame.settings.as_own(),
        summaries=summaries,
        dropped=Totals(),
        inherited_places=record.next_place,
        inherited_aside=record.next_aside,
    )
    return new, inherited


def _current_ranges(record: Record, frame: Frame) -> tuple[tuple[int, int], ...]:
    """Return the places of the current turns as closed ranges, in order."""
    return tuple(_closed(frame.order, record.next_place))


def _closed(ranges: Iterable[Range], end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are not empty; an open one ends before ``end``."""
    for start, stop in ranges:
        closed = end if stop is None else stop
        if start < closed:
            yield start, closed


def _cut(ranges: Iterable[tuple[int, int]], start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of the places at positions from ``start`` up to ``stop`` (excluded).

    >>> _cut([(0, 3), (7, 9)], 2, 4)
    ((2, 3), (7, 8))
    """
    found = []
    before = 0  # the number of places in the ranges before this one
    for first, end in ranges:
        low, high = max(start - before, 0), min(stop - before, end - first)
        if low < high:
            found.append((first + low, first + high))
        before += end - first
    return tuple(found)


def _arranged(
    record: Record, frame: Frame, ranges: Iterable[Range], branches: Iterable[BranchRecord]
) -> tuple[Record, Frame]:
    """Return record and frame with these ranges as the current turns; the next turn is appended after them."""
    order: list[Range] = []
    turn_count = 0
    for start, stop in _closed(ranges, record.next_place):
        turn_count += stop - start
        adjacent = order and order[-1][1] == start
        order.append((order.pop()[0] if adjacent else start, stop))
    last = order.pop()[0] if order and order[-1][1] == record.next_place else record.next_place
    arranged = replace(frame, order=(*order, (last, None)), branches=tuple(branches))
    return structs.replace(record, turn_count=turn_count), arranged


def _shifted(branches: Iterable[BranchRecord], at: int, by: int) -> tuple[BranchRecord, ...]:
    """Return the branches with their start shifted, after ``by`` turns were inserted (or removed, if negative)."""
    return tuple(
        replace(branch, start=max(branch.start + by, at)) if branch.start >= at else branch for branch in branches
    )


def _rebased(
    branches: Iterable[BranchRecord], at: int, *, by: int, previous: str | None, now: str | None
) -> tuple[BranchRecord, ...]:
    """Return the branches after ``by`` turns were inserted (or removed, if negative) at the front.

    For those from position ``at``, the context before them now has the hash ``now`` instead of ``previous``. A start
    below 0 means that turns before the branch were removed, too; it is counted back when they return.
    """
    return tuple(
        replace(
            branch,
            start=branch.start + by,
            context_hash=now if branch.start >= at and branch.context_hash == previous else branch.context_hash,
        )
        for branch in branches
    )
