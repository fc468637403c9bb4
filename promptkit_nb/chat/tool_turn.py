"""A turn with tools: the model is asked again with the results of its calls until it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.chat.pending_turn import ChatServices, PendingTurn
from promptkit_nb.chat.request import ReceivedAnswer
from promptkit_nb.chat.token_estimates import token_estimator_for
from promptkit_nb.chat.window import fit
from promptkit_nb.endings import ending_of, ending_words
from promptkit_nb.errors import ContextWindowExceededError, SchemaError, ToolError
from promptkit_nb.frontend import typed, typed_value
from promptkit_nb.pricing import UNKNOWN_COST, CallCost
from promptkit_nb.providers.base import Completion
from promptkit_nb.rendering.typed_values import value_json
from promptkit_nb.stores.kept_usage import KeptUsage
from promptkit_nb.text.plain_text import preview
from promptkit_nb.tools.answer_types import AnswerRejectedError
from promptkit_nb.tools.calls import TurnCalls
from promptkit_nb.tools.written_calls import WRITTEN_CALL, has_written_call
from promptkit_nb.turns import Message, Usage, sum_of_usages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptkit_nb.chat.budgets import OpenCall
    from promptkit_nb.chat.options import CallOptions
    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.chat.token_estimates import TokenEstimator
    from promptkit_nb.chat.window import Window
    from promptkit_nb.providers.base import ChatRequest
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.tools.calls import ToolRun
    from promptkit_nb.tools.toolbox import Toolbox
    from promptkit_nb.turns import Turn


@dataclass(frozen=True, slots=True)
class Round:
    """An answer that called tools and was paid for: its messages, including results, and its usage and cost."""

    messages: tuple[Message, ...]
    usage: Usage
    price: CallCost
    completion: Completion
    thinking_ms: float | None


class ToolTurn(PendingTurn):
    """A question whose answer may take several requests; each is reserved, and charged once it is answered.

    The turn is stored once the model answers without calling tools, with the calls and results among its messages.
    Until then nothing is stored; payments are in the ledger, and in ``usage_df`` if the turn fails.
    """

    def __init__(
        self, services: ChatServices, snapshot: Snapshot, question: Message, options: CallOptions, toolbox: Toolbox
    ) -> None:
        """Start without rounds."""
        super().__init__(services, snapshot, question, options)
        self._answer_type = options.answer_type
        self._value: object = None
        self._value_json: str | None = None
        self._correction: tuple[Message, ...] = ()
        self._rounds: list[Round] = []
        self._calls = TurnCalls(toolbox, self._turn_id, options.on_tool, options.tool_host)
        self._is_asking = True  # false while tools run: no uncharged request may be billed then
        self._warnings = (*self._warnings, *toolbox.warnings)

    def next_round(self) -> bool:
        """Run the tools that the model called, and build the request with the results; return False if it called none.

        Raises ``ToolError`` if the model does not stop calling tools or its call was cut, ``BudgetExceededError`` if
        the next request exceeds the budget, ``ContextWindowExceededError`` if it exceeds the window.
        """
        with self._ending:
            received, completion = self.received, self.received.completion
            if self._is_over or completion is None:
                return False
            if not (completion.tool_calls and self._calls.toolbox.tools):
                return self._asks_for_correction(received, completion)
            self._close_request(received, completion)
        if ending_of(completion.finish_reason) == "cut":
            raise ToolError(
                "The output limit cut the model's tool call, so it was not run, and nothing was stored. Raise "
                f"{typed('max_output_tokens')}."
            )
        self._calls.begin_round(received.text)
        runs = [self._calls.run(call) for call in completion.tool_calls]
        with self._ending:
            if self._is_over:
                return False
            self._add_results(runs)
            self._prepare_request()
        return True

    def _asks_for_correction(self, received: ReceivedAnswer, completion: Completion) -> bool:
        """Check a typed answer; if it does not fit, ask once more with what is wrong, outside of the history."""
        if self._answer_type is None:
            return False
        if completion.has_refused:
            raise SchemaError(
                f"The model refused: {preview(received.text, 200)} It is not asked again; nothing was stored."
            )
        try:
            self._value = self._answer_type.read(received.text)
            self._value_json = value_json(self._value)
        except AnswerRejectedError as error:
            if ending_of(completion.finish_reason) != "whole":
                how = ending_words(completion.finish_reason)
                raise SchemaError(f"The answer was {how}, so it has no value; nothing was stored.") from None
            if self._correction:
                raise SchemaError(
                    f"The model's answers do not fit the schema: {error}. It was asked twice; nothing was stored. "
                    "Rephrase the message, or ask for less."
                ) from None
            self._warnings += (f"The first answer did not fit the schema ({error}); both requests are counted.",)
            self._correct(received, completion, str(error))
            return True
        return False

    def _correct(self, received: ReceivedAnswer, completion: Completion, why: str) -> None:
        schema = "" if self._answer_type is None else json.dumps(self._answer_type.schema, ensure_ascii=False)
        asked = f"Your answer does not fit: {why}. Answer again, only with JSON that fits this schema: {schema}"
        self._close_request(received, completion)
        self._rounds[-1] = replace(self._rounds[-1], messages=())
        self._correction = (Message("assistant", received.text.strip() or "{}"), Message("user", asked))
        self._prepare_request()

    def _close_request(self, received: ReceivedAnswer, completion: Completion) -> None:
        """Charge a request whose answer called tools, and start collecting the next answer."""
        usage, price = super()._spent(self._services.clock())
        answer = Message(
            "assistant",
            received.text,
            timestamp=self._services.clock(),
            tool_calls=completion.tool_calls,
            reasoning=received.reasoning or None,
        )
        self._rounds.append(Round((answer,), usage, price, completion, received.thinking_ms))
        if self._call is not None:
            self._call.settle(price.usd)
        self._call = self._open(Decimal(0))
        self.received, self._is_asking = ReceivedAnswer(), False

    def _add_results(self, runs: Sequence[ToolRun]) -> None:
        """Add the results to the round: one message for each call, in order."""
        last = self._rounds[-1]
        answer = replace(last.messages[0], tool_calls=tuple(run.call for run in runs))
        now = self._services.clock()
        results = (
            Message("tool", run.text, timestamp=now, tool_call_id=run.call.id, name=run.call.name) for run in runs
        )
        self._rounds[-1] = replace(last, messages=(answer, *results))

    def _prepare_request(self) -> None:
        """Build and reserve the request with the results; a limited window may leave out more turns of the history."""
        services, settings = self._services, self._settings
        estimator = token_estimator_for(settings.model, self._state.turns, settings.system_prompt)
        window = self._window
        if settings.max_tokens is not None:
            window = self._window_beside_results(settings.max_tokens, estimator)
        self._use(window)
        if services.spending.has_budgets:
            sent = replace(window, messages=(*window.messages, *self._messages_before_answer))
            self._call = self._open(services.cost_of(settings, self._state.turns, sent, estimator).high_usd)
        self._is_asking = True

    def _window_beside_results(self, max_tokens: int, estimator: TokenEstimator) -> Window:
        settings = self._settings
        taken = estimator.of_messages(self._messages_before_answer).expected
        try:
            return fit(
                settings.system_prompt,
                self._turns,
                self._window.applied_summaries,
                self.question,
                estimator=estimator,
                max_tokens=max(1, max_tokens - taken),
                policy=settings.context_policy,
                tools=settings.tools,
            )
        except ContextWindowExceededError as error:
            raise ContextWindowExceededError(
                f"The calls and results of this turn take {taken:,} tokens, so its next request does not fit into "
                f"{typed_value('max_tokens', max_tokens)}; nothing was stored. Let the tools return less, or raise "
                f"{typed('max_tokens')}.",
                limit_tokens=max_tokens,
            ) from error

    def _open(self, estimate_usd: Decimal | None) -> OpenCall:
        state = self._state
        return self._services.spending.open(state.conversation_id, state.user_id, estimate_usd, self._settings.model)

    def _use(self, window: Window) -> None:
        super()._use(window)
        is_first = not self._rounds
        choice = "required" if is_first and self._calls.toolbox.choice == "required" else None
        self.request: ChatRequest = replace(
            self.request,
            messages=(*window.messages, *self._messages_before_answer, *self._correction),
            tool_choice=choice,
            answer_schema=None if self._answer_type is None else self._answer_type.definition,
            round_states=tuple(each.completion.round_state for each in self._rounds if each.messages),
        )

    @property
    def _messages_before_answer(self) -> tuple[Message, ...]:  # type: ignore[override]  # grows with each round
        return tuple(message for each in self._rounds for message in each.messages)

    def _spent(self, at: datetime) -> tuple[Usage, CallCost]:
        """Return the usage and the price of all requests of the turn; one unknown price makes the sum unknown."""
        if not self._rounds:
            return super()._spent(at)
        usages, prices = [each.usage for each in self._rounds], [each.price for each in self._rounds]
        if self._is_asking:
            usage, price = super()._spent(at)
            usages, prices = [*usages, usage], [*prices, price]
        return sum_of_usages(usages), _total(prices)

    def _charged_usd(self, turn: Turn) -> Decimal | None:
        """Return the cost of the last request; the others are charged already."""
        return super()._spent(turn.created_at)[1].usd if self._rounds else turn.cost

    def _settle_unsent(self) -> None:
        """Release the reservation; earlier requests of the turn stay charged."""
        if not self._rounds:
            super()._settle_unsent()
            return
        self._is_asking = False
        self._keep(Decimal(0))

    def _settle(self, turn: Turn | None = None) -> None:
        if not self._rounds:
            super()._settle(turn)
            return
        self._keep(super()._spent(self._services.clock())[1].usd if self._is_asking else Decimal(0))

    def _keep(self, last_usd: Decimal | None) -> None:
        """Record the usage of a turn that is not stored, and charge its last request; others are charged already."""
        if self._call is None:
            return
        usage, price = self._spent(self._services.clock())
        paid = KeptUsage.of(
            usage,
            price.usd,
            user_id=self._state.user_id,
            at=self._call.opened_at,
            provider=self.provider.name,
            model=self._rounds[-1].completion.model,
        )
        self._call.settle(last_usd, paid)

    def _response_of(self, turn: Turn) -> Response:
        return replace(super()._response_of(turn), tool_runs=tuple(self._calls.runs), value=self._value)

    def replay(self, recorded: Turn) -> None:
        """Answer with a recorded turn, and the value that its text has."""
        super().replay(recorded)
        if self._answer_type is not None and self.response is not None:
            self.response = replace(self.response, value=self._answer_type.read(recorded.text))

    def _turn(self, latency_ms: float) -> Turn:
        turn = replace(super()._turn(latency_ms), value_json=self._value_json)
        thought = [each.thinking_ms for each in self._rounds if each.thinking_ms is not None]
        if thought:
            turn = replace(turn, thinking_ms=sum(thought, turn.thinking_ms or 0.0))
        return turn

    def _turn_warnings(self, usage: Usage) -> tuple[str, ...]:
        found = [warning for each in self._rounds for warning in each.completion.warnings]
        if has_written_call(self.received.text, self._calls.toolbox.tools.keys()):
            found.append(WRITTEN_CALL)
        return tuple(dict.fromkeys((*found, *self._calls.warnings, *super()._turn_warnings(usage))))


def _total(prices: Sequence[CallCost]) -> CallCost:
    if any(price.usd is None for price in prices):
        return UNKNOWN_COST
    return replace(prices[-1], usd=sum((price.usd for price in prices if price.usd is not None), Decimal(0)))
