"""Asking the model within a conversation: each question becomes an inquiry, and its answer a turn of the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from promptkit_nb.conversation_log import ConversationLog
from promptkit_nb.inquiries import Inquiry, Prepared
from promptkit_nb.providers.base import Provider
from promptkit_nb.replays import ReplayMode, check_replay, no_recording, recorded, recorded_model, replayable
from promptkit_nb.requests import terms_of
from promptkit_nb.streaming import ResponseStream
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from promptkit_nb.running_cell import CellCall
    from promptkit_nb.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an answer goes: behind all turns, in place of a turn, or behind position ``branch_from`` of the turns.

    In the last case the turns from there on become a branch.
    """

    in_place_of: Turn | None = None
    branch_from: int | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who is asked, and what may answer instead: the conversation's own turns, and those of a recording."""

    log: ConversationLog
    provider: Provider
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
            prepare=self._prepare,
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
        is_replaying = mode != "off" and not options.fresh
        stored = (*replayable(state, own), *self.recording) if is_replaying else ()
        terms = terms_of(
            state,
            model=options.model or state.settings.model or self.provider.model or recorded_model(question, stored),
            parameters=options.parameters,
            max_output_tokens=options.max_output_tokens,
            max_tokens=options.max_tokens,
        )
        context_hash, replay_key = terms.hashes(question, snapshot.links[position])
        answer = None
        if is_replaying:
            answer = recorded(replay_key, stored)
            if answer is None and mode == "strict":
                raise no_recording(question, terms.model, stored)
        return Inquiry(
            state=state,
            question=question,
            terms=terms,
            turns=state.turns[:position],
            context_hash=context_hash,
            replay_key=replay_key,
            own=own,
            recorded=answer,
            cell=cell,
        )

    def _prepare(self, inquiry: Inquiry) -> Prepared:
        said = (message for turn in inquiry.turns for message in turn.messages)
        system_prompt = inquiry.terms.system_prompt
        system = () if system_prompt is None else (Message("system", system_prompt),)
        return Prepared(request=inquiry.terms.request([*system, *said, inquiry.question]))

    def _keep(self, turn: Turn, place: Place, inquiry: Inquiry) -> int:
        self.log.check_is_still(inquiry.state)
        if place.in_place_of is not None:
            return self.log.replace(place.in_place_of.id, turn)
        if place.branch_from is not None:
            first = inquiry.state.turns[len(inquiry.turns)]  # its position may be another one by now
            return self.log.branch_off(first, turn)
        return self.log.append(turn, inquiry.cell)


def _position(snapshot: Snapshot, place: Place) -> int:
    if place.in_place_of is not None:
        return snapshot.place_of(place.in_place_of)
    return len(snapshot.state.turns) if place.branch_from is None else snapshot.place_of(place.branch_from)
