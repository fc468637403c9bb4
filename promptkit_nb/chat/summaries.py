"""Which summaries replace turns in a request, and which turns a new summary would cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from promptkit_nb.context_hash import context_hashes_of
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.text.plain_text import counted
from promptkit_nb.thinking import split_thinking
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


SUMMARY_TOKENS = 500


@dataclass(frozen=True, slots=True)
class AppliedSummary:
    """A summary in use, and the range of turns that it covers: from ``start`` up to, but not including, ``stop``.

    Both are 0 if its turns are no longer in the conversation.
    """

    summary: Summary
    start: int = 0
    stop: int = 0

    @property
    def note(self) -> Message:
        r"""The message for the model: how many turns the summary covers, and its text.

        >>> from promptkit_nb.state import Summary
        >>> AppliedSummary(Summary("a", "b", "The user is Alice."), 0, 2).note.content
        'Summary of 2 earlier turns of this conversation:\n\nThe user is Alice.'
        """
        first, last = self.summary.first_turn, self.summary.last_turn
        count = self.stop - self.start
        if not count and isinstance(first, int) and isinstance(last, int):
            count = last - first + 1
        turns = counted(count, "earlier turn") if count else "earlier turns"
        return Message("system", f"Summary of {turns} of this conversation:\n\n{text_of(self.summary)}")

    def overlaps(self, other: AppliedSummary) -> bool:
        """Return whether both cover the same turn; for turns that are gone, by their ids or positions."""
        if self.start < other.stop and other.start < self.stop:
            return True
        if self.start or other.start:
            return False
        ours, theirs = self.summary, other.summary
        if isinstance(ours.first_turn, int) and isinstance(ours.last_turn, int):
            return (
                isinstance(theirs.first_turn, int)
                and isinstance(theirs.last_turn, int)
                and ours.first_turn <= theirs.last_turn
                and theirs.first_turn <= ours.last_turn
            )
        # Ids begin with the time, so they compare by age.
        return str(ours.first_turn) <= str(theirs.last_turn) and str(theirs.first_turn) <= str(ours.last_turn)


def text_of(summary: Summary) -> str:
    """Return the text of a summary without the thinking that version 0.1 stored in it."""
    return split_thinking(summary.text)[1] or summary.text


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """The input of a new summary: turns, oldest first, and previous summaries to fold in.

    ``first_turn`` and ``last_turn`` are the ids of the first and last turn that it will cover, ``max_tokens`` is its
    maximum length. ``context_hashes`` are the hashes after each of the turns, the last one after ``last_turn``; empty
    if unknown.
    """

    turns: tuple[Turn, ...]
    previous: tuple[Summary, ...]
    first_turn: str
    last_turn: str
    max_tokens: int = SUMMARY_TOKENS
    context_hashes: tuple[str, ...] = ()

    @property
    def context_hash(self) -> str | UnsetType:
        """The hash of the conversation up to and including the last of the turns."""
        return self.context_hashes[len(self.turns) - 1] if self.context_hashes else UNSET

    def after(self, count: int, summary: Summary) -> SummaryPlan:
        """Return the rest of the plan once ``summary`` covers the first ``count`` turns."""
        return replace(self, turns=self.turns[count:], previous=(summary,), context_hashes=self.context_hashes[count:])


def find_applied_summaries(
    state: ConversationState, before: int | None = None, context_hashes: Sequence[str] | None = None
) -> tuple[AppliedSummary, ...]:
    """Return the summaries that apply to the turn at position ``before``, by default the next one, oldest first.

    A summary applies as long as its turns are current, come before that position, and have the text that was
    summarized; if their hash was not stored, as long as none of them is newer than the summary. It also applies if its
    turns were removed by hand and are no longer stored in the conversation. Of two summaries that cover the same turns,
    the newer one applies. ``context_hashes`` are those of ``context_hashes_of``, if known already.
    """
    if not state.summaries:
        return ()
    before = len(state.turns) if before is None else before
    context_hashes = (
        tuple(context_hashes_of(state.turns[:before], state.context_hash)) if context_hashes is None else context_hashes
    )
    places = {turn.id: at for at, turn in enumerate(state.turns)}
    found: list[AppliedSummary] = []
    for summary in reversed(state.summaries):
        applied = _applied_by_position(summary, state) or _applied_by_id(summary, state, places)
        if applied is None or applied.stop > before or any(applied.overlaps(newer) for newer in found):
            continue
        if _is_unchanged(applied, state, context_hashes):
            found.append(applied)
    oldest_first = found[::-1]  # summaries of removed turns stay in this order
    return tuple(sorted(oldest_first, key=lambda applied: (applied.start, applied.stop)))


def uncovered(turns: Sequence[Turn], applied_summaries: Sequence[AppliedSummary]) -> tuple[Turn, ...]:
    """Return the turns that no summary covers."""
    start = 0
    left: list[Turn] = []
    for applied in applied_summaries:
        left.extend(turns[start : applied.start])
        start = max(start, applied.stop)
    return (*left, *turns[start:])


def plan_summary(
    turns: Sequence[Turn], applied_summaries: Sequence[AppliedSummary], stop: int, context_hashes: Sequence[str] = ()
) -> SummaryPlan | None:
    """Return the plan to summarize the turns before position ``stop``; ``None`` if summaries cover all of them.

    Existing summaries of these turns are folded into the new one. ``context_hashes`` are those of ``context_hashes_of``
    for the turns.
    """
    folded = [applied for applied in applied_summaries if applied.start < min(stop, applied.stop)]
    stop = max([stop, *(applied.stop for applied in folded)])
    new = uncovered(turns[:stop], folded)
    if not new:
        return None
    first = turns[0].id
    if folded and isinstance(folded[0].summary.first_turn, str) and folded[0].start == 0:
        first = folded[0].summary.first_turn  # it may cover turns that were removed
    hash_after = {turn.id: value for turn, value in zip(turns, context_hashes[1:], strict=False)}
    last = turns[stop - 1]  # after the last of the new turns if a summary covers the end
    return SummaryPlan(
        new,
        tuple(applied.summary for applied in folded),
        first,
        last.id,
        context_hashes=tuple(hash_after[turn.id] for turn in (*new[:-1], last)) if hash_after else (),
    )


def _is_unchanged(applied: AppliedSummary, state: ConversationState, context_hashes: Sequence[str]) -> bool:
    """Return whether the turns that a summary covers still have the text that was summarized.

    Only the hash is certain: the clocks of several machines differ, and a restored version is old. If the first turn
    was removed by hand, there is no hash to compare.
    """
    summary, turns = applied.summary, state.turns[applied.start : applied.stop]
    if summary.context_hash is not UNSET and turns and turns[0].id == summary.first_turn:
        return summary.context_hash == context_hashes[applied.stop]
    return all(turn.created_at <= summary.created_at for turn in turns)


def _applied_by_position(summary: Summary, state: ConversationState) -> AppliedSummary | None:
    """Apply a summary with positions: they refer to the time of the summary, so later branches make it unusable."""
    first, last = summary.first_turn, summary.last_turn
    if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last):
        return None
    if any(branch.created_at > summary.created_at for branch in state.branches):
        return None
    return AppliedSummary(summary, first, last + 1) if last < len(state.turns) else AppliedSummary(summary)


def _applied_by_id(summary: Summary, state: ConversationState, places: Mapping[str, int]) -> AppliedSummary | None:
    first, last = summary.first_turn, summary.last_turn
    if not (isinstance(first, str) and isinstance(last, str)):
        return None
    gone = {first, last} - places.keys()
    if any(turn.id in gone for turn in (state.stored_turns if gone else ())):
        return None
    if last not in places:
        return AppliedSummary(summary) if first not in places else None
    start = places.get(first, 0)
    return AppliedSummary(summary, start, places[last] + 1) if start <= places[last] else None
