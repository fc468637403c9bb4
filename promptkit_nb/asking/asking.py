"""Asking the model within a conversation: each question becomes an inquiry, and its answer a turn of the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from promptkit_nb.asking.context import Context
from promptkit_nb.asking.conversation_log import ConversationLog
from promptkit_nb.asking.inquiries import Inquiry
from promptkit_nb.asking.preparation import Preparation, window_of
from promptkit_nb.asking.replays import ReplayMode, check_replay, no_recording, recorded, recorded_model, replayable
from promptkit_nb.asking.requests import check_model, terms_of
from promptkit_nb.asking.streaming import ResponseStream
from promptkit_nb.context_hash import NOTHING_SAID
from promptkit_nb.providers.base import Provider
from promptkit_nb.turns import Message, Turn
from promptkit_nb.window.calibration import gauge_for
from promptkit_nb.window.serving_summaries import plan_summary, serving_summaries
from promptkit_nb.window.turn_ranges import older_turns, turns_until

if TYPE_CHECKING:
    from promptkit_nb.asking.requests import Terms
    from promptkit_nb.asking.running_cell import CellCall
    from promptkit_nb.asking.snapshot import Snapshot
    from promptkit_nb.money.estimates import CostRange
    from promptkit_nb.state import ConversationState, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an answer goes: behind all turns, in place of a turn, or at position ``branch_from`` of the turns.

    In the last case the turns from there on become a branch. ``archived`` is the turn that this cell has on a branch:
    asked again just so, it answers once more, and nothing is written.
    """

    in_place_of: Turn | None = None
    branch_from: int | None = None
    archived: Turn | None = None


AT_THE_END = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one call is asked to do differently; ``None`` means as the conversation does."""

    model: str | None = None
    parameters: Mapping[str, object] | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    replay: ReplayMode | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Raise ``InvalidArgumentError`` for a model that is no name; the rest is checked where it is used."""
        check_model(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who is asked, and what may answer instead: the conversation's own turns, and those of a recording."""

    log: ConversationLog
    provider: Provider
    preparation: Preparation
    replay: ReplayMode
    recording: tuple[Turn, ...]
    clock: Callable[[], datetime]

    def stream(
        self,
        question: Message,
        options: Options,
        place: Place = AT_THE_END,
        *,
        cell: CellCall | None = None,
        on_waiting: Callable[[float, str], None] | None = None,
    ) -> ResponseStream:
        """Return the answer as it will come; raise where it is clear already that none can."""
        inquiry = self.inquiry(question, options, place, cell=cell)
        return ResponseStream(
            self.provider,
            inquiry,
            prepare=self.preparation.prepared,
            keep=lambda turn: self._keep(turn, place, inquiry),
            clock=self.clock,
            on_waiting=on_waiting,
        )

    def inquiry(
        self, question: Message, options: Options, place: Place = AT_THE_END, *, cell: CellCall | None = None
    ) -> Inquiry:
        """Return the question with its context, and with the recorded answer where there is one."""
        snapshot = self.log.fresh()
        state = snapshot.state
        position = _position(snapshot, place)
        own = None if place.in_place_of is None else state.turns[position]
        mode = self.replay if options.replay is None else check_replay(options.replay)
        is_replaying = mode == "strict" or (mode == "auto" and not options.fresh)
        stored = (*replayable(state, own), *self.recording) if is_replaying else ()
        terms = self._terms(state, options, recorded_model(question, stored))
        context_hash, replay_key = terms.hashes(question, _link(snapshot, place, position))
        answer = None
        if is_replaying:
            answer = recorded(replay_key, stored)
            if answer is None and place.archived is not None:
                answer = own = _still_answering(place.archived, question, terms, snapshot)
            if answer is None and mode == "strict":
                raise no_recording(question, terms.model, stored)
        return Inquiry(
            state=state,
            question=question,
            terms=terms,
            turns=state.turns[:position],
            links=snapshot.links[: position + 1],
            context_hash=context_hash,
            replay_key=replay_key,
            own=own,
            recorded=answer,
            cell=cell,
        )

    def context(
        self, question: Message | None, options: Options, place: Place = AT_THE_END
    ) -> tuple[Context, CostRange]:
        """Return what a request at this place would carry, with this question if there is one, and what it may cost.

        What the policy "error" would refuse is left out here, and shown as such.
        """
        snapshot = self.log.fresh()
        state = snapshot.state
        position = _position(snapshot, place)
        turns, links = state.turns[:position], snapshot.links[: position + 1]
        terms = replace(self._terms(state, options), context_policy="truncate")
        gauge = gauge_for(terms.model, state.turns, terms.system_prompt)
        window = window_of(state, turns, question, terms, gauge=gauge, links=links)
        shown = Context.of(window, turns, gauge=gauge, has_question=question is not None)
        return shown, self.preparation.cost_of(terms, state.turns, window, gauge)

    def summarize(self, keep_last: int, options: Options, *, as_of: str | None = None) -> Summary | None:
        """Make a summary of the older turns, ``None`` where there is none to make."""
        snapshot = self.log.fresh()
        state, links = snapshot.state, snapshot.links
        turns = turns_until(state.turns, as_of)
        terms = self._terms(state, options)
        covers = serving_summaries(state, len(turns), links)
        plan = plan_summary(turns, covers, older_turns(turns, keep_last), links)
        if plan is None:
            return None
        gauge = gauge_for(terms.model, state.turns, terms.system_prompt)
        return self.preparation.summarizer.make(plan, gauge=gauge, max_tokens=terms.max_tokens)

    def _terms(self, state: ConversationState, options: Options, recorded_as: str = "") -> Terms:
        return terms_of(
            state,
            model=options.model or state.settings.model or self.provider.model or recorded_as,
            parameters=options.parameters,
            max_output_tokens=options.max_output_tokens,
            max_tokens=options.max_tokens,
        )

    def _keep(self, turn: Turn, place: Place, inquiry: Inquiry) -> int:
        self.log.check_is_still(inquiry.state)
        if place.in_place_of is not None:
            return self.log.replace(place.in_place_of.id, turn)
        if place.branch_from is not None:
            first = inquiry.state.turns[len(inquiry.turns)]  # its position may be another one by now
            return self.log.branch_off(first, turn)
        return self.log.append(turn, inquiry.cell)


def _still_answering(archived: Turn, question: Message, terms: Terms, snapshot: Snapshot) -> Turn | None:
    """Return the turn of a branch if it answers this question in the context where it stands."""
    link = snapshot.link_before(archived)
    return None if link is None else recorded(terms.hashes(question, link)[1], (archived,))


def _link(snapshot: Snapshot, place: Place, position: int) -> str:
    """Return the hash of what stands before the answer: nothing, where all turns there are become a branch."""
    return NOTHING_SAID if place.branch_from is not None and position == 0 else snapshot.links[position]


def _position(snapshot: Snapshot, place: Place) -> int:
    if place.in_place_of is not None:
        return snapshot.place_of(place.in_place_of)
    return len(snapshot.state.turns) if place.branch_from is None else snapshot.place_of(place.branch_from)
