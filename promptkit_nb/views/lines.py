"""Lines of JSON to be shown, each a turn, with whose they are and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptkit_nb.codec import decode_json, encode_json, encode_turn
from promptkit_nb.state import Totals
from promptkit_nb.stores.layout import ASIDE, places_of
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.stores.feed import ConversationRows

DROPPED = "dropped"
"""The status of what was paid for turns that the store was told to forget: in usage, and in no other view."""


@dataclass(slots=True)
class Lines:
    """Lines and what is known beside them, in lists of equal length that grow conversation by conversation."""

    lines: list[bytes] = field(default_factory=list)
    conversation_ids: list[str] = field(default_factory=list)
    user_ids: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    branches: list[str | None] = field(default_factory=list)
    are_inherited: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.lines)

    def of(self, conversation_id: str, user_id: str) -> LinesOfOne:
        """Return what adds lines of one conversation."""
        return LinesOfOne(self, conversation_id, user_id)

    def add_state(self, state: ConversationState) -> None:
        """Add the current turns in their order, then former versions, branches, summaries and what was dropped."""
        own = self.of(state.conversation_id, state.user_id)
        own.add(map(encode_turn, state.turns), "current", position=0)
        for former in state.versions.values():
            own.add(map(encode_turn, former), "replaced")
        for branch in state.branches:
            own.add(map(encode_turn, branch.turns), "archived", branch=branch.id)
        own.add_rest(state.summaries, state.dropped)

    def add_stored(self, conversation: ConversationRows) -> None:
        """Add the same from rows, or what was appended since; ``KeyError`` where a row is missing."""
        record, frame = conversation.record, conversation.frame
        own = self.of(conversation.conversation_id, record.user_id)
        has_inherited = frame.inherited_places > 0 or frame.inherited_aside > ASIDE

        def add(rows: Sequence[int], status: str, *, position: int | None = None, branch: str | None = None) -> None:
            said = [conversation.lines[row] for row in rows]
            inherited = [frame.is_inherited(row) for row in rows] if has_inherited else None
            own.add(said, status, position=position, branch=branch, are_inherited=inherited)

        before = conversation.since
        current = frame.current_rows(record.next_place) if before is None else [*conversation.lines]
        already = 0 if before is None else before.turn_count
        if already + len(current) != record.turn_count:
            raise KeyError(record.turn_count)
        add(current, "current", position=already)
        if before is not None:
            return
        for rows in frame.versions.values():
            add(rows[:-1], "replaced")
        for branch in frame.branches:
            add([frame.row_at(place) for place in places_of(branch.ranges, 0)], "archived", branch=branch.id)
        own.add_rest(frame.summaries, frame.dropped)


@dataclass(frozen=True, slots=True)
class LinesOfOne:
    """Adds lines of one conversation."""

    to: Lines
    conversation_id: str
    user_id: str

    def add(
        self,
        lines: Iterable[bytes],
        status: str,
        *,
        position: int | None = None,
        branch: str | None = None,
        are_inherited: Sequence[bool] | None = None,
    ) -> None:
        """Add lines that follow each other; ``position`` is that of the first, if they stand in the conversation."""
        to = self.to
        before = len(to)
        to.lines += lines
        count = len(to) - before
        to.conversation_ids += [self.conversation_id] * count
        to.user_ids += [self.user_id] * count
        to.statuses += [status] * count
        to.positions += [None] * count if position is None else range(position, position + count)
        to.branches += [branch] * count
        to.are_inherited += [False] * count if are_inherited is None else are_inherited

    def add_rest(self, summaries: Iterable[Summary], dropped: Totals) -> None:
        """Add what is no turn: summaries, and the sum of what turns cost that are kept no more."""
        self.add(map(_line_of_summary, summaries), "summary")
        if dropped != Totals():
            self.add([_line_of_dropped(dropped)], DROPPED)


def _line_of_summary(summary: Summary) -> bytes:
    """Return a summary as the line of a turn in which the model said it."""
    turn = Turn(
        id="",
        messages=(Message("assistant", summary.text),),
        usage=summary.usage,
        cost=summary.cost,
        model=summary.model,
        created_at=summary.created_at,
    )
    return encode_json(decode_json(encode_turn(turn)) | {"_paid": int(summary.counts)})


def _line_of_dropped(dropped: Totals) -> bytes:
    """Return what is known as a sum alone as the line of a turn: neither when it was said, nor by whom."""
    known: dict[str, object] = {
        "messages": [],
        "_total_tokens": dropped.tokens,
        "_paid": dropped.priced + dropped.unpriced,
        "_unpriced": dropped.unpriced,
    }
    return encode_json(known if dropped.known_cost is None else known | {"cost": str(dropped.known_cost)})
