"""One question on its way to a stored turn: its target, its request, its budget, and how it is stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Literal

from promptkit_nb import errors
from promptkit_nb.chat.budgets import OpenCall, Spending
from promptkit_nb.chat.options import CallOptions, ReplayMode, Target, check_replay
from promptkit_nb.chat.replay import no_recording, recorded, recorded_model, replayable, replayed
from promptkit_nb.chat.request import ReceivedAnswer, RequestSettings, check_can_continue, request_settings
from promptkit_nb.chat.stored_conversation import Snapshot, StoredConversation
from promptkit_nb.chat.summaries import find_applied_summaries
from promptkit_nb.chat.summarizer import make_summary
from promptkit_nb.chat.token_estimates import TokenEstimator, cut_warning, token_estimator_for
from promptkit_nb.chat.window import Window, fit, plan_to_fit, window_of
from promptkit_nb.context_hash import EMPTY_HASH
from promptkit_nb.endings import USUAL_REASONS, ending_warning
from promptkit_nb.frontend import typed_value
from promptkit_nb.pricing import CallCost, CostRange, cost_range
from promptkit_nb.providers.base import ChatRequest, Provider, StreamEvent, Waiting
from promptkit_nb.rendering.responses import Response
from promptkit_nb.text.plain_text import counted
from promptkit_nb.tokens import count_message_tokens
from promptkit_nb.turns import INTERRUPTED, Message, ToolCall, Turn, Usage, new_turn_id

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.stores.base import Charge

EndReason = Literal["complete", "stopped", "timeout", "failed"]

_CHARACTERS_PER_TOKEN_IF_CUT = 7  # English has about four; above seven, count what was sent
_MOST_CONTEXTS = 100
_ROOM_FOR_THE_ANSWER = 0.9
_SHORTER = 0.75
_NO_SUMMARY = (
    errors.ProviderError,
    errors.ContextWindowExceededError,
    errors.BudgetExceededError,
    errors.StoreCorruptedError,  # the ledger is damaged: the summary is stored, and the turn warns
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatServices:
    """What a conversation needs to be answered and stored; ``recording`` holds turns to replay."""

    stored: StoredConversation
    provider: Provider
    spending: Spending
    replay: ReplayMode
    recording: tuple[Turn, ...]
    clock: Callable[[], datetime]

    def settings(self, state: ConversationState, options: CallOptions, recorded_as: str = "") -> RequestSettings:
        """Return the settings of the next request; ``recorded_as`` is the model if no provider is chosen."""
        model = options.model or state.settings.model or self.provider.model or recorded_as
        return request_settings(state, options, model=model)

    def cost_of(
        self, settings: RequestSettings, turns: Sequence[Turn], window: Window, estimator: TokenEstimator
    ) -> CostRange:
        """Return what the request may cost, going by the turns of the conversation."""
        size = estimator.of_frame(settings.tools) + estimator.of_messages(window.messages)
        return cost_range(
            self.provider,
            settings.model,
            input_tokens=size.counted,
            max_output_tokens=settings.max_output_tokens,
            turns=turns,
            at=self.clock(),
            factor=size.expected / size.counted,
        )


class PendingTurn:
    """A question until it is stored as a turn, or settled without one.

    ``recorded`` is the stored turn that answers it, if replay finds one. Otherwise ``prepare()`` fits ``request`` into
    the context window and the budgets, ``take()`` collects the answer, and ``end()`` stores it: ``response`` is what
    users get.
    """

    request: ChatRequest
    _window: Window
    _started_s: float
    _messages_before_answer: tuple[Message, ...] = ()

    def __init__(self, services: ChatServices, snapshot: Snapshot, question: Message, options: CallOptions) -> None:
        """Find the position and a recorded answer; raise ``ReplayMissError`` if strict replay has none."""
        self.question = question
        self.options = options
        self.received = ReceivedAnswer()
        self.response: Response | None = None
        self._services = services
        self._state = state = snapshot.state
        if options.row_index is None:
            check_can_continue(state)
        self._turn_id = new_turn_id()  # assigned once, which makes storing idempotent
        self._call: OpenCall | None = None
        self._ending = threading.RLock()
        self._is_sent = self._is_over = False
        position = snapshot.target_position(options.target)
        self._turns = state.turns[:position]
        self._hashes = snapshot.context_hashes[: position + 1]
        self._own = None if options.target.in_place_of is None else state.turns[position]
        mode = services.replay if options.replay is None else check_replay(options.replay)
        is_replaying = mode == "strict" or (mode == "auto" and not options.fresh)
        candidates = (*replayable(state, self._own), *services.recording) if is_replaying else ()
        self._settings = services.settings(state, options, recorded_model(question, candidates))
        self._warnings = self._settings.warnings
        # If all turns become a branch, no turns are before the answer.
        before = EMPTY_HASH if options.target.branch_from is not None and position == 0 else self._hashes[position]
        self._context_hash, self.replay_key = self._settings.hashes(question, before)
        self.recorded = recorded(self.replay_key, candidates)
        if is_replaying and self.recorded is None and options.target.archived is not None:
            self.recorded = self._own = self._archived_answer(snapshot, options.target.archived)
        if is_replaying and self.recorded is None and options.asked_before and mode == "auto":
            self.recorded = self._answer_elsewhere()
        if mode == "strict" and self.recorded is None:
            raise no_recording(question, self._settings.model, candidates)

    @property
    def provider(self) -> Provider:
        """The provider that answers."""
        return self._services.provider

    @property
    def own(self) -> Turn | None:
        """The turn that the answer replaces, if there is one."""
        return self._own

    @property
    def is_here(self) -> bool:
        """Whether the stored answer is the turn to replace, or a version of it."""
        here = () if self._own is None else (self._own, *self._state.versions.get(self._own.id, ()))
        return self.recorded is not None and any(each.id == self.recorded.id for each in here)

    @property
    def is_picked(self) -> bool:
        """Whether the stored answer is the current turn, which has other versions."""
        own = self._own
        if own is None or own is not self.recorded or self.options.target.archived is not None:
            return False
        return bool(self._state.versions.get(own.id))

    def become_version_of(self, turn: Turn) -> None:
        """Store the answer as a version of a turn; one that is stored there stays as it is."""
        if self.is_here:
            self._own = self.recorded
        self.options = replace(self.options, target=Target(in_place_of=turn, as_version=True))

    def replay(self, recorded: Turn) -> None:
        """Answer with a recorded turn; nothing is written if it is the question's own turn."""
        conversation_id = self._state.conversation_id
        turn, stale = recorded, 0
        if recorded is not self._own and not self._brought_back(recorded):
            turn = replayed(
                recorded,
                self.question,
                at=self._services.clock(),
                context_hash=self._context_hash,
                replay_key=self.replay_key,
                **self._cell_fields(),
            )
            stale = self._put(turn, Response.replay_of(turn, conversation_id), None)
        self.received.pieces.append(recorded.text)
        self.received.thoughts.append(recorded.reasoning or "")
        self.response = Response.replay_of(turn, conversation_id, stale_turns=stale)

    def _brought_back(self, recorded: Turn) -> bool:
        """Restore the branch of this cell's own turn if it was at the end, instead of a copy; return whether."""
        archived, state, stored = self.options.target.archived, self._state, self._services.stored
        if archived is None or archived.id != recorded.id or stored.refresh().state.revision != state.revision:
            return False
        place = (recorded,), "tail", len(state.turns)
        branch = next((each for each in state.branches if (each.turns, each.kind, each.start) == place), None)
        if branch is None:
            return False
        stored.own_store.restore(stored.id, branch)
        return True

    def prepare(self) -> None:
        """Make a summary if the context policy asks for one, build the request, and reserve what it may cost.

        Raises ``ContextWindowExceededError`` if the window is too small, ``BudgetExceededError`` if a budget
        would be exceeded.
        """
        if self._call is not None:  # prepared already
            return
        services, settings = self._services, self._settings
        has_budgets = services.spending.has_budgets
        estimator = TokenEstimator(settings.model, is_trusted=True)  # measures nothing unless a limit is set
        if settings.max_tokens is not None or has_budgets:
            estimator = token_estimator_for(settings.model, self._state.turns, settings.system_prompt)
        window = self._fitted(estimator)
        cost = services.cost_of(settings, self._state.turns, window, estimator) if has_budgets else None
        estimate_usd = None if cost is None else cost.high_usd
        self._call = services.spending.open(
            self._state.conversation_id, self._state.user_id, estimate_usd, settings.model
        )
        if cost is not None and window.counted_tokens is None:  # the next estimate learns from this count
            window = replace(window, counted_tokens=cost.input_tokens)
        self._use(window)

    def shorten(self, error: errors.ContextWindowExceededError) -> bool:
        """Leave more turns out of a request that the server found too long; return whether that is possible."""
        shorter = self._shorter_window(error)
        if shorter is None:
            return False
        left = counted(len(shorter.left_out), "turn")
        self._warnings += (f"The model found the request too long, so {left} stayed out of it.",)
        self._use(shorter)
        return True

    def start(self) -> bool:
        """Return whether to send the request; if it was abandoned meanwhile, release what is reserved."""
        with self._ending:
            if self._is_over:
                self._settle_unsent()
                return False
            self._started_s = time.perf_counter()
            self._is_sent = True
            return True

    def next_round(self) -> bool:
        """Return whether the turn needs another request; without tools, it never does."""
        return False

    def take(self, event: StreamEvent) -> bool:
        """Take what arrived; return false if it arrives after the end."""
        with self._ending:
            if self._is_over:
                return False
            self.received.take(event, source=self.provider.name)
        if isinstance(event, Waiting) and self.options.on_waiting is not None:
            self.options.on_waiting(event.seconds, event.reason)
        return True

    def end(self, reason: EndReason) -> None:
        """End the turn once: store what arrived, or settle what the call may have cost."""
        with self._ending:
            if not self._is_sent:  # it failed, or Ctrl-C came, while it was prepared
                self._settle_unsent()
                return
            if self._is_over:
                return
            if self.response is None:
                if reason in ("complete", "stopped") and (self.received.completion is not None or self.received.text):
                    self.response = self._store()
                else:
                    may_be_billed = reason in ("stopped", "timeout") or self.received.has_begun
                    (self._settle if may_be_billed else self._settle_unsent)()
            self._is_over = True

    def abandon(self) -> None:
        """End the turn from another thread than the one that waits for the provider: nothing is stored later."""
        with self._ending:
            try:
                self.end("stopped")
            finally:
                self._is_over = True

    def _archived_answer(self, snapshot: Snapshot, archived: Turn) -> Turn | None:
        """Return the turn of a branch, or a version of it, if it answers this question in the context of its branch."""
        answers = (archived, *self._state.versions.get(archived.id, ()))
        keys = (self._settings.hashes(self.question, each)[1] for each in snapshot.hashes_before(archived))
        return next((found for key in islice(keys, _MOST_CONTEXTS) if (found := recorded(key, answers))), None)

    def _answer_elsewhere(self) -> Turn | None:
        """Return the oldest answer of another notebook to exactly this request, except turns with tool calls."""
        stored, user_id = self._services.stored, self._state.user_id
        found = stored.store.find_answers(self.replay_key, provider=self.provider.name, user_id=user_id)
        return recorded(self.replay_key, (turn for turn in found if not turn.has_tool_calls))

    def _use(self, window: Window) -> None:
        self._window = window
        self.request = self._settings.request(window.messages)

    def _fitted(self, estimator: TokenEstimator) -> Window:
        """Return the window; the policy "summarize" first makes a summary of what is left out."""
        window = self._window_with(self._state.summaries, estimator)
        if self._settings.context_policy != "summarize" or not window.left_out:
            return window
        left = counted(len(window.left_out), "older turn")
        applied = find_applied_summaries(self._state, len(self._turns), self._hashes)
        plan = plan_to_fit(window, self._turns, applied, estimator=estimator, context_hashes=self._hashes)
        if plan is None:
            why = f"A summary does not fit into {typed_value('max_tokens', window.max_tokens)}"
            self._warnings += (f"{why}, so {left} stayed out of the request.",)
            return window
        try:
            make_summary(self._services, plan, estimator=estimator, max_tokens=self._settings.max_tokens)
        except _NO_SUMMARY as error:
            summaries = self._services.stored.refresh().state.summaries
            is_partial = summaries != self._state.summaries  # what was made before the error is paid and used
            window = self._window_with(summaries, estimator)
            if window.left_out:
                left = counted(len(window.left_out), "older turn")
                which = "further summary" if is_partial else "summary"
                self._warnings += (f"No {which} could be made, so {left} stayed out of the request: {error}",)
            return window
        return self._window_with(self._services.stored.refresh().state.summaries, estimator)

    def _window_with(self, summaries: tuple[Summary, ...], estimator: TokenEstimator) -> Window:
        state = replace(self._state, summaries=summaries)
        return window_of(
            state, self._turns, self.question, self._settings, estimator=estimator, context_hashes=self._hashes
        )

    def _shorter_window(self, error: errors.ContextWindowExceededError) -> Window | None:
        settings, window = self._settings, self._window
        if settings.context_policy == "error":
            return None
        share = _SHORTER
        if error.limit_tokens and error.request_tokens:
            share = min(share, _ROOM_FOR_THE_ANSWER * error.limit_tokens / error.request_tokens)
        room = int(share * count_message_tokens(window.messages, settings.model))
        try:
            shorter = fit(
                settings.system_prompt,
                self._turns,
                window.applied_summaries,
                self.question,
                estimator=TokenEstimator(settings.model, is_trusted=True),
                max_tokens=max(room, 1),
            )
        except errors.ContextWindowExceededError:
            return None
        return shorter if len(shorter.left_out) > len(window.left_out) else None

    def _store(self) -> Response:
        """Store the answer as a turn, with its charge; a ledger that fails does not lose the answer."""
        turn = self._turn((time.perf_counter() - self._started_s) * 1000)
        response = self._response_of(turn)
        charge = None if self._call is None else self._call.charge(self._charged_usd(turn))
        warnings = response.warnings
        try:
            stale = self._put(turn, response, charge)
        except errors.StoreCorruptedError as error:
            stale = self._put(turn, response, None)
            warnings += (f"The cost of this call could not be entered in the ledger of budgets: {error}",)
        return replace(response, stale_turns=stale, warnings=(*warnings, *self._budget_warnings()))

    def _response_of(self, turn: Turn) -> Response:
        return Response.of(turn, self._state.conversation_id)

    def _charged_usd(self, turn: Turn) -> Decimal | None:
        """Return what the ledger is charged in the transaction that stores the turn: all that it cost."""
        return turn.cost

    def _budget_warnings(self) -> tuple[str, ...]:
        """Return warnings about budgets; if the ledger cannot be read, that is a warning, too."""
        try:
            return () if self._call is None else self._call.charged()
        except errors.StoreError as error:
            return (f"The ledger of budgets could not be read: {error}",)

    def _put(self, turn: Turn, response: Response, charge: Charge | None) -> int:
        """Write the turn to its target; return how many later turns are stale. An error carries the response."""
        stored, target, since = self._services.stored, self.options.target, self._state
        try:
            if target.in_place_of is not None and target.as_version:
                return stored.add_version(target.in_place_of.id, turn, since=since, charge=charge)
            if target.in_place_of is not None:
                return stored.replace(target.in_place_of.id, turn, since=since, charge=charge)
            if target.branch_from is not None:
                first = since.turns[len(self._turns)]  # its position may have changed since
                return stored.branch_off(first, turn, since=since, charge=charge)
            return stored.append(turn, since=since, cell=self.options.cell, charge=charge)
        except (errors.StoreError, errors.InvalidArgumentError) as error:
            self._settle(turn)  # the call is paid for, whether or not the turn is stored
            failure = _with_response(error, response)
            if failure is error:
                raise
            raise failure from error

    def _settle_unsent(self) -> None:
        """Release the reservation of a call that costs nothing."""
        if self._call is not None:  # a replayed answer has none
            self._call.settle(Decimal(0))

    def _settle(self, turn: Turn | None = None) -> None:
        """Record a call that left no turn; ``turn`` is the turn that could not be stored, if any."""
        if self._call is None:
            return
        if turn is not None:
            self._call.settle_used(turn.usage, turn.cost, provider=turn.provider, model=turn.model)
            return
        (usage, price), completion = self._spent(self._services.clock()), self.received.completion
        model = self.request.model if completion is None else completion.model
        self._call.settle_used(usage, price.usd, provider=self.provider.name, model=model)

    def _turn(self, latency_ms: float) -> Turn:
        now, received, request = self._services.clock(), self.received, self.request
        completion = received.completion
        usage, price = self._spent(now)
        answer = Message(
            "assistant",
            received.text,
            timestamp=now,
            tool_calls=() if completion is None else completion.tool_calls,
            reasoning=received.reasoning or None,
        )
        return Turn(
            id=self._turn_id,
            messages=(self.question, *self._messages_before_answer, answer),
            usage=usage,
            cost=price.usd,
            price_source=price.source,
            price_list=price.price_list,
            model=request.model if completion is None else completion.model,
            requested_model=request.model,
            provider=self.provider.name,
            latency_ms=round(latency_ms, 3),
            thinking_ms=received.thinking_ms,
            finish_reason=INTERRUPTED if completion is None else completion.finish_reason,
            created_at=now,
            warnings=self._turn_warnings(usage),
            truncated=len(self._window.left_out),
            counted_input_tokens=self._window.counted_tokens,
            context_hash=self._context_hash,
            replay_key=self.replay_key,
            row_index=self.options.row_index,
            **self._cell_fields(),  # type: ignore[arg-type]  # the cell's fields of a Turn
        )

    def _spent(self, at: datetime) -> tuple[Usage, CallCost]:
        """Return the usage and the price of what was received."""
        usage = self.received.usage(self.request)
        return usage, self.received.price(self.provider, self.request, usage, at)

    def _cell_fields(self) -> dict[str, object]:
        """Return the fields of the cell that asks, else those of the turn that is replaced."""
        source = self.options.cell or self._own
        if source is None:
            return {"cell_id": None, "cell_call": 0, "cell_source": None}
        return {"cell_id": source.cell_id, "cell_call": source.cell_call, "cell_source": source.cell_source}

    def _turn_warnings(self, usage: Usage) -> tuple[str, ...]:
        warnings = (*self._warnings, *_cut_warnings(self._window, self._settings.model, usage))
        completion = self.received.completion
        if completion is None:
            return warnings
        found = [*completion.warnings]
        if completion.finish_reason not in USUAL_REASONS:
            found += filter(None, [ending_warning(completion.finish_reason)])
        if completion.tool_calls:
            found.append(_unasked_calls(completion.tool_calls))
        if not self.received.text.strip():
            found.append("The model answered without any text. Later requests leave this turn out.")
        return (*found, *warnings)


def _with_response(error: errors.StoreError | errors.InvalidArgumentError, response: Response) -> errors.StoreError:
    """Return the error to raise for an answer that could not be stored: it carries the response, which is paid."""
    if isinstance(error, errors.ConversationNotFoundError):
        error = errors.ConversationNotFoundError(
            f"Conversation {response.conversation_id!r} was deleted before the answer arrived, so the answer is not "
            "stored. It is in .response of this error."
        )
    elif isinstance(error, errors.InvalidArgumentError):  # such as: the turn to replace is gone
        error = errors.ConversationChangedError(
            f"The answer could not be stored. {error} The answer is in .response of this error."
        )
    error.response = response
    return error


def _unasked_calls(calls: Sequence[ToolCall]) -> str:
    names = ", ".join(dict.fromkeys(repr(call.name) for call in calls))
    return f"The model called {names}, though no tools were offered. Nothing was run; later requests leave it out."


def _cut_warnings(window: Window, model: str, usage: Usage) -> tuple[str, ...]:
    """Return a warning if the server read far less than was sent; a plausible count is not checked."""
    if usage.estimated:
        return ()
    sent = window.counted_tokens
    if sent is None:
        if sum(len(message.content) for message in window.messages) < usage.input_tokens * _CHARACTERS_PER_TOKEN_IF_CUT:
            return ()
        sent = count_message_tokens(window.messages, model)
    warning = cut_warning(sent, usage.input_tokens)
    return () if warning is None else (warning,)
