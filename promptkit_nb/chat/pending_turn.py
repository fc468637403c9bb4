"""One question on its way to a stored turn: its place, its request, its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.chat.budgets import OpenCall, Spending
from promptkit_nb.chat.options import AT_THE_END, CellCall, Options, ReplayMode, Target, check_replay
from promptkit_nb.chat.preview import Context
from promptkit_nb.chat.replay import no_recording, recorded, recorded_model, replayable
from promptkit_nb.chat.request import RequestSettings, request_settings
from promptkit_nb.chat.stored_conversation import StoredConversation
from promptkit_nb.chat.stream import ResponseStream
from promptkit_nb.chat.summaries import find_applied_summaries, plan_summary
from promptkit_nb.chat.summarizer import Summarizer
from promptkit_nb.chat.token_estimates import TokenEstimator, cut_warning, token_estimator_for
from promptkit_nb.chat.window import Window, fit, older_turns, plan_to_fit, turns_until
from promptkit_nb.context_hash import EMPTY_HASH
from promptkit_nb.errors import BudgetExceededError, ContextWindowExceededError, ProviderError
from promptkit_nb.pricing import CostRange, cost_range
from promptkit_nb.providers.base import ChatRequest, Provider
from promptkit_nb.state import ConversationState
from promptkit_nb.text.plain_text import counted
from promptkit_nb.tokens import count_message_tokens
from promptkit_nb.turns import Message, Turn, Usage

if TYPE_CHECKING:
    from promptkit_nb.chat.snapshot import Snapshot
    from promptkit_nb.pricing import CostRange
    from promptkit_nb.state import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question at a place of a conversation: ``turns`` are those before it, ``own`` is the turn that stands there.

    ``context_hashes`` are the hashes of the context before each of the turns, and before the question. ``recorded`` is
    the stored turn that answers it, if there is one and replay is on.
    """

    state: ConversationState
    question: Message
    terms: RequestSettings
    turns: tuple[Turn, ...]
    context_hashes: tuple[str, ...]
    context_hash: str
    replay_key: str
    own: Turn | None = None
    recorded: Turn | None = None
    cell: CellCall | None = None

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self.state.conversation_id

    @property
    def cell_fields(self) -> dict[str, object]:
        """What a turn keeps of the cell that asks; of a turn answered again from elsewhere, its former cell."""
        source = self.cell or self.own
        if source is None:
            return {"cell_id": None, "cell_call": 0, "cell_source": None}
        return {"cell_id": source.cell_id, "cell_call": source.cell_call, "cell_source": source.cell_source}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that fits its window and its budget.

    ``truncated`` is how many turns were left out, ``counted_tokens`` what was counted offline, if it was. ``shorter``
    makes a shorter one, or returns ``None`` where that is not allowed; ``settle`` takes what the call cost in US
    dollars and returns warnings, ``enter`` does without where nobody would read them; ``warnings`` is told what the
    server counted.
    """

    request: ChatRequest
    truncated: int = 0
    counted_tokens: int | None = None
    shorter: Callable[[ContextWindowExceededError], Prepared | None] = field(default=lambda _: None)
    settle: Callable[[Decimal | None], tuple[str, ...]] = field(default=lambda _: ())
    enter: Callable[[Decimal | None], object] = field(default=lambda _: None)
    warnings: Callable[[Usage], tuple[str, ...]] = field(default=lambda _: ())


_CHARACTERS_PER_TOKEN_IF_CUT = 7  # English has some four: what was read as fewer tokens deserves a count
_ROOM_FOR_THE_ANSWER = 0.9
_SHORTER = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Prepares the requests of one conversation."""

    provider: Provider
    spending: Spending
    summarizer: Summarizer
    clock: Callable[[], datetime]

    def prepared(self, inquiry: Inquiry) -> Prepared:
        """Return the request; a summary that the policy asks for is made before.

        Raises ``ContextWindowExceededError`` where the window is too small, ``BudgetExceededError`` where a budget is.
        """
        estimator = self._estimator(inquiry)
        window, warnings = self._window(inquiry, estimator)
        terms = inquiry.terms
        cost = None
        if self.spending.has_budgets:
            cost = self.cost_of(terms, inquiry.state.turns, window, estimator)
        call = self.spending.open(
            inquiry.conversation_id,
            inquiry.state.user_id,
            None if cost is None else cost.high_usd,
            terms.model,
            expected=cost,
        )
        if cost is not None and window.counted_tokens is None:  # the next estimate learns from what was counted
            window = replace(window, counted_tokens=cost.input_tokens)
        return self._prepared(inquiry, window, call, (*inquiry.terms.warnings, *warnings))

    def cost_of(
        self, terms: RequestSettings, turns: Sequence[Turn], window: Window, estimator: TokenEstimator
    ) -> CostRange:
        """Return what the request may cost."""
        sizes = sum(map(estimator.of_message, window.messages), estimator.of_frame())
        return cost_range(
            self.provider,
            terms.model,
            input_tokens=sizes.counted,
            max_output_tokens=terms.max_output_tokens,
            turns=turns,
            at=self.clock(),
            factor=sizes.expected / sizes.counted,
        )

    def _estimator(self, inquiry: Inquiry) -> TokenEstimator:
        """Return what measures the request; where nothing is to be measured, one that looks at nothing."""
        if inquiry.terms.max_tokens is None and not self.spending.has_budgets:
            return TokenEstimator(inquiry.terms.model, is_trusted=True)
        return token_estimator_for(inquiry.terms.model, inquiry.state.turns, inquiry.terms.system_prompt)

    def _window(self, inquiry: Inquiry, estimator: TokenEstimator) -> tuple[Window, tuple[str, ...]]:
        window = _window_of(inquiry, inquiry.state.summaries, estimator)
        if inquiry.terms.context_policy != "summarize" or not window.left_out:
            return window, ()
        left = counted(len(window.left_out), "older turn")
        applied_summaries = find_applied_summaries(inquiry.state, len(inquiry.turns), inquiry.context_hashes)
        plan = plan_to_fit(
            window, inquiry.turns, applied_summaries, estimator=estimator, context_hashes=inquiry.context_hashes
        )
        if plan is None:
            why = f"There is no room for a summary in max_tokens={window.max_tokens}"
            return window, (f"{why}, so {left} stayed out of the request.",)
        try:
            self.summarizer.make(plan, estimator=estimator, max_tokens=inquiry.terms.max_tokens)
        except (ProviderError, ContextWindowExceededError, BudgetExceededError) as error:
            return window, (f"No summary could be made, so {left} stayed out of the request: {error}",)
        return _window_of(inquiry, self.summarizer.log.fresh().state.summaries, estimator), ()

    def _prepared(self, inquiry: Inquiry, window: Window, call: OpenCall, warnings: tuple[str, ...]) -> Prepared:
        def shorter(error: ContextWindowExceededError) -> Prepared | None:
            shortened = _shortened(inquiry, window, error)
            if shortened is None:
                return None
            left = counted(len(shortened.left_out), "turn")
            why = f"The model found the request too long, so {left} stayed out of it."
            return self._prepared(inquiry, shortened, call, (*warnings, why))

        return Prepared(
            request=inquiry.terms.request(window.messages),
            truncated=len(window.left_out),
            counted_tokens=window.counted_tokens,
            shorter=shorter,
            settle=call.settle,
            enter=call.enter,
            warnings=lambda usage: (*warnings, *_cut_warnings(window, inquiry.terms.model, usage)),
        )


def window_of(
    state: ConversationState,
    turns: Sequence[Turn],
    question: Message | None,
    terms: RequestSettings,
    *,
    estimator: TokenEstimator,
    context_hashes: Sequence[str],
) -> Window:
    """Return what a request carries behind these first turns of a conversation, with its summaries.

    ``context_hashes`` are those of ``context_hashes_of`` for the turns.
    """
    return fit(
        terms.system_prompt,
        turns,
        find_applied_summaries(state, len(turns), context_hashes),
        question,
        estimator=estimator,
        max_tokens=terms.max_tokens,
        policy=terms.context_policy,
    )


def _window_of(inquiry: Inquiry, summaries: tuple[Summary, ...], estimator: TokenEstimator) -> Window:
    """Return what the request carries with these summaries, which may be newer than the inquiry."""
    state = replace(inquiry.state, summaries=summaries)
    return window_of(
        state,
        inquiry.turns,
        inquiry.question,
        inquiry.terms,
        estimator=estimator,
        context_hashes=inquiry.context_hashes,
    )


def _shortened(inquiry: Inquiry, window: Window, error: ContextWindowExceededError) -> Window | None:
    """Return a window for a request that the server found too long, ``None`` where nothing may be left out."""
    terms = inquiry.terms
    if terms.context_policy == "error":
        return None
    share = _SHORTER
    if error.limit_tokens and error.request_tokens:
        share = min(share, _ROOM_FOR_THE_ANSWER * error.limit_tokens / error.request_tokens)
    room = int(share * count_message_tokens(window.messages, terms.model))
    try:
        shorter = fit(
            terms.system_prompt,
            inquiry.turns,
            window.applied_summaries,
            inquiry.question,
            estimator=TokenEstimator(terms.model, is_trusted=True),
            max_tokens=max(room, 1),
        )
    except ContextWindowExceededError:
        return None
    return shorter if len(shorter.left_out) > len(window.left_out) else None


def _cut_warnings(window: Window, model: str, usage: Usage) -> tuple[str, ...]:
    """Return a warning where the server read far less than was sent; what looks right is not counted for it."""
    if usage.estimated:
        return ()
    sent = window.counted_tokens
    if sent is None:
        if sum(len(message.content) for message in window.messages) < usage.input_tokens * _CHARACTERS_PER_TOKEN_IF_CUT:
            return ()
        sent = count_message_tokens(window.messages, model)
    warning = cut_warning(sent, usage.input_tokens)
    return () if warning is None else (warning,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who is asked, and what may answer instead: the conversation's own turns, and those of a recording."""

    log: StoredConversation
    provider: Provider
    preparation: Preparation
    replay: ReplayMode
    recording: tuple[Turn, ...]
    clock: Callable[[], datetime]

    def stream(
        self,
        question: Message,
        options: Options,
        place: Target = AT_THE_END,
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
        self, question: Message, options: Options, place: Target = AT_THE_END, *, cell: CellCall | None = None
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
            context_hashes=snapshot.context_hashes[: position + 1],
            context_hash=context_hash,
            replay_key=replay_key,
            own=own,
            recorded=answer,
            cell=cell,
        )

    def context(
        self, question: Message | None, options: Options, place: Target = AT_THE_END
    ) -> tuple[Context, CostRange]:
        """Return what a request at this place would carry, with this question if there is one, and what it may cost.

        What the policy "error" would refuse is left out here, and shown as such.
        """
        snapshot = self.log.fresh()
        state = snapshot.state
        position = _position(snapshot, place)
        turns, context_hashes = state.turns[:position], snapshot.context_hashes[: position + 1]
        terms = replace(self._terms(state, options), context_policy="truncate")
        estimator = token_estimator_for(terms.model, state.turns, terms.system_prompt)
        window = window_of(state, turns, question, terms, estimator=estimator, context_hashes=context_hashes)
        shown = Context.of(window, turns, estimator=estimator, has_question=question is not None)
        return shown, self.preparation.cost_of(terms, state.turns, window, estimator)

    def summarize(self, keep_last: int, options: Options, *, as_of: str | None = None) -> Summary | None:
        """Make a summary of the older turns, ``None`` where there is none to make."""
        snapshot = self.log.fresh()
        state, context_hashes = snapshot.state, snapshot.context_hashes
        turns = turns_until(state.turns, as_of)
        terms = self._terms(state, options)
        applied_summaries = find_applied_summaries(state, len(turns), context_hashes)
        plan = plan_summary(turns, applied_summaries, older_turns(turns, keep_last), context_hashes)
        if plan is None:
            return None
        estimator = token_estimator_for(terms.model, state.turns, terms.system_prompt)
        return self.preparation.summarizer.make(plan, estimator=estimator, max_tokens=terms.max_tokens)

    def _terms(self, state: ConversationState, options: Options, recorded_as: str = "") -> RequestSettings:
        return request_settings(
            state,
            model=options.model or state.settings.model or self.provider.model or recorded_as,
            parameters=options.parameters,
            max_output_tokens=options.max_output_tokens,
            max_tokens=options.max_tokens,
        )

    def _keep(self, turn: Turn, place: Target, inquiry: Inquiry) -> int:
        self.log.check_is_still(inquiry.state)
        if place.in_place_of is not None:
            return self.log.replace(place.in_place_of.id, turn)
        if place.branch_from is not None:
            first = inquiry.state.turns[len(inquiry.turns)]  # its position may be another one by now
            return self.log.branch_off(first, turn)
        return self.log.append(turn, inquiry.cell)


def _still_answering(archived: Turn, question: Message, terms: RequestSettings, snapshot: Snapshot) -> Turn | None:
    """Return the turn of a branch if it answers this question in the context where it stands."""
    link = snapshot.link_before(archived)
    return None if link is None else recorded(terms.hashes(question, link)[1], (archived,))


def _link(snapshot: Snapshot, place: Target, position: int) -> str:
    """Return the hash of what stands before the answer: nothing, where all turns there are become a branch."""
    return EMPTY_HASH if place.branch_from is not None and position == 0 else snapshot.context_hashes[position]


def _position(snapshot: Snapshot, place: Target) -> int:
    if place.in_place_of is not None:
        return snapshot.place_of(place.in_place_of)
    return len(snapshot.state.turns) if place.branch_from is None else snapshot.place_of(place.branch_from)
