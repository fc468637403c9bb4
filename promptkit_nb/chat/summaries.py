"""Which summaries stand for turns in a request, and which turns a new summary would cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from promptkit_nb.context_hash import context_hashes_of
from promptkit_nb.state import Summary
from promptkit_nb.text.plain_text import counted
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptkit_nb.state import ConversationState

SUMMARY_TOKENS = 500


@dataclass(frozen=True, slots=True)
class AppliedSummary:
    """A summary that serves, and the positions of the turns that it stands for: from ``start``, up to before ``stop``.

    Both are 0 where its turns are in the conversation no more.
    """

    summary: Summary
    start: int = 0
    stop: int = 0

    @property
    def note(self) -> Message:
        r"""What the model is told: how many turns this stands for, and what was said in them.

        >>> from promptkit_nb.state import Summary
        >>> AppliedSummary(Summary("a", "b", "The user is Alice."), 0, 2).note.content
        'Summary of 2 earlier turns of this conversation:\n\nThe user is Alice.'
        """
        first, last = self.summary.first_turn, self.summary.last_turn
        count = self.stop - self.start
        if not count and isinstance(first, int) and isinstance(last, int):
            count = last - first + 1
        turns = counted(count, "earlier turn") if count else "earlier turns"
        return Message("system", f"Summary of {turns} of this conversation:\n\n{self.summary.text}")

    def overlaps(self, other: AppliedSummary) -> bool:
        """Return whether both stand for a turn, as far as that can be told of turns that are gone."""
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


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """What a new summary is to be made of: the turns, oldest first, and the summaries that it folds in.

    ``first_turn`` and ``last_turn`` are the ids of the first and the last turn that it will stand for, ``max_tokens``
    the most that it may have. ``context_hashes`` are the hashes of the conversation up to and including each of the
    turns, the last of them up to ``last_turn``; empty if they are not known.
    """

    turns: tuple[Turn, ...]
    former: tuple[Summary, ...]
    first_turn: str
    last_turn: str
    max_tokens: int = SUMMARY_TOKENS
    context_hashes: tuple[str, ...] = ()

    @property
    def context_hash(self) -> str | UnsetType:
        """The hash of all that was said up to the last of the turns."""
        return self.context_hashes[len(self.turns) - 1] if self.context_hashes else UNSET

    def after(self, count: int, summary: Summary) -> SummaryPlan:
        """Return what is left to do once the first ``count`` turns are in this summary."""
        return replace(self, turns=self.turns[count:], former=(summary,), context_hashes=self.context_hashes[count:])


def find_applied_summaries(
    state: ConversationState, before: int | None = None, context_hashes: Sequence[str] | None = None
) -> tuple[AppliedSummary, ...]:
    """Return the summaries that serve the turn at this position, by default the next one, oldest first.

    A summary serves as long as the turns it stands for are current, stand before that position, and say what they said
    when it was made; where that was not kept, as long as none of them is newer. It serves, too, where its turns were
    dropped by hand: then they are stored nowhere in the conversation. Of two that stand for the same turns, the newer
    one serves. ``context_hashes`` are those of ``context_hashes_of``, as far as they are known already.
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
        if _says_the_same(applied, state, context_hashes):
            found.append(applied)
    oldest_first = found[::-1]  # those whose turns are gone stay in this order
    return tuple(sorted(oldest_first, key=lambda applied: (applied.start, applied.stop)))


def uncovered(turns: Sequence[Turn], applied_summaries: Sequence[AppliedSummary]) -> tuple[Turn, ...]:
    """Return the turns that no summary stands for."""
    start = 0
    left: list[Turn] = []
    for applied in applied_summaries:
        left.extend(turns[start : applied.start])
        start = max(start, applied.stop)
    return (*left, *turns[start:])


def plan_summary(
    turns: Sequence[Turn], applied_summaries: Sequence[AppliedSummary], stop: int, context_hashes: Sequence[str] = ()
) -> SummaryPlan | None:
    """Return how to summarise the turns before position ``stop``; ``None`` where summaries stand for all of them.

    The summaries of turns among them are folded into the new one. ``context_hashes`` are those of
    ``context_hashes_of`` for the turns.
    """
    folded = [applied for applied in applied_summaries if applied.start < min(stop, applied.stop)]
    stop = max([stop, *(applied.stop for applied in folded)])
    new = uncovered(turns[:stop], folded)
    if not new:
        return None
    first: str | int = turns[0].id
    if folded and isinstance(folded[0].summary.first_turn, str) and folded[0].start == 0:
        first = folded[0].summary.first_turn  # it may stand for turns that are gone
    link_after = {turn.id: link for turn, link in zip(turns, context_hashes[1:], strict=False)}
    last = turns[stop - 1]  # where summaries stand for the end, it is behind the last of the new ones
    return SummaryPlan(
        new,
        tuple(applied.summary for applied in folded),
        str(first),
        last.id,
        context_hashes=tuple(link_after[turn.id] for turn in (*new[:-1], last)) if link_after else (),
    )


def _says_the_same(applied: AppliedSummary, state: ConversationState, context_hashes: Sequence[str]) -> bool:
    """Return whether the turns that a summary stands for are still those that it was made of.

    Clocks of several machines disagree, and a former version that was restored is old: only the hash tells surely. It
    tells nothing where the first of them was dropped by hand.
    """
    summary, turns = applied.summary, state.turns[applied.start : applied.stop]
    if summary.context_hash is not UNSET and turns and turns[0].id == summary.first_turn:
        return summary.context_hash == context_hashes[applied.stop]
    return all(turn.created_at <= summary.created_at for turn in turns)


def _applied_by_position(summary: Summary, state: ConversationState) -> AppliedSummary | None:
    """Positions are those at the time of the summary, so turns that left since, or returned, make it unusable."""
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
