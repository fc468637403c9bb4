"""Asking the model for a summary: a call beside the conversation, paid for like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.asking.call_figures import price_of_call, usage_of_call
from promptkit_nb.asking.conversation_log import ConversationLog
from promptkit_nb.asking.summarizing import summary_of, summary_request
from promptkit_nb.errors import BadRequestError, ProviderError, ProviderTimeoutError
from promptkit_nb.money.estimates import cost_range
from promptkit_nb.money.spending import Spending
from promptkit_nb.providers.base import Completion, Provider, TextDelta
from promptkit_nb.window.tokens import count_message_tokens

if TYPE_CHECKING:
    from promptkit_nb.providers.base import ChatRequest
    from promptkit_nb.state import Summary
    from promptkit_nb.turns import Usage
    from promptkit_nb.window.calibration import Gauge
    from promptkit_nb.window.serving_summaries import SummaryPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarizer:
    """Makes summaries of a conversation and keeps them; where that fails, what was kept before stays as it was."""

    log: ConversationLog
    provider: Provider
    spending: Spending
    clock: Callable[[], datetime]

    def make(self, plan: SummaryPlan, *, gauge: Gauge, max_tokens: int | None = None) -> Summary:
        """Ask for the summary of a plan, piece by piece where one request cannot carry it, and store each."""
        while True:
            request, done = summary_request(plan, gauge=gauge, max_tokens=max_tokens)
            summary = self._asked(request, done)
            if done.last_turn == plan.last_turn:
                return summary
            plan = plan.after(len(done.turns), summary)

    def _asked(self, request: ChatRequest, plan: SummaryPlan) -> Summary:
        state, now = self.log.last_read, self.clock()
        estimate = None
        if self.spending.has_budgets:
            counted = count_message_tokens(request.messages, request.model)
            estimate = cost_range(
                self.provider,
                request.model,
                input_tokens=counted,
                max_output_tokens=request.max_output_tokens,
                turns=state.turns,
                at=now,
            ).high_usd
        call = self.spending.open(state.conversation_id, state.user_id, estimate, request.model)
        text: list[str] = []
        try:
            completion = self._answered(request, text)
        except BaseException as error:
            may_be_billed = bool(text) or isinstance(error, (ProviderTimeoutError, KeyboardInterrupt))
            call.enter(self._paid(request, "".join(text), None)[1] if may_be_billed else Decimal(0))
            raise
        said = "".join(text)
        usage, cost_usd = self._paid(request, said, completion)
        try:  # kept or not, it is paid for; a warning is left to the answer that follows
            summary = summary_of(
                plan, said, usage=usage, cost=cost_usd, model=completion.model, created_at=self.clock()
            )
            self.log.store.add_summary(self.log.id, summary)
        finally:
            call.enter(cost_usd)
        return summary

    def _answered(self, request: ChatRequest, text: list[str]) -> Completion:
        """Ask; a model that thinks before it answers may take no temperature, and is asked again without."""
        try:
            return self._completed(request, text)
        except BadRequestError as error:
            if text or "temperature" not in str(error):
                raise
            return self._completed(replace(request, parameters={}), text)

    def _completed(self, request: ChatRequest, text: list[str]) -> Completion:
        """Ask, and put the text where it is found when that fails."""
        completion: Completion | None = None
        for event in self.provider.stream(request):
            if isinstance(event, TextDelta):
                text.append(event.text)
            elif isinstance(event, Completion):
                completion = event
        if completion is None:
            raise ProviderError(f"{self.provider.name} ended its stream without a Completion; nothing was stored.")
        return completion

    def _paid(self, request: ChatRequest, text: str, completion: Completion | None) -> tuple[Usage, Decimal | None]:
        usage = usage_of_call(request, text, completion)
        return usage, price_of_call(self.provider, request.model, completion, usage, self.clock()).usd
