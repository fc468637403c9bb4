"""From a question to a request that fits: into the context window, and into the budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from promptkit_nb.asking.inquiries import Prepared
from promptkit_nb.asking.summarizer import Summarizer
from promptkit_nb.errors import BudgetExceededError, ContextWindowExceededError, ProviderError
from promptkit_nb.money.estimates import CostRange, cost_range
from promptkit_nb.money.spending import OpenCall, Spending
from promptkit_nb.providers.base import Provider
from promptkit_nb.rendering.plain_text import counted
from promptkit_nb.window.calibration import Gauge, cut_warning, gauge_for
from promptkit_nb.window.fitting import Window, fit, plan_to_fit
from promptkit_nb.window.serving_summaries import serving_summaries
from promptkit_nb.window.tokens import count_message_tokens

if TYPE_CHECKING:
    from promptkit_nb.asking.inquiries import Inquiry
    from promptkit_nb.asking.requests import Terms
    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.turns import Message, Turn, Usage

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
        gauge = self._gauge(inquiry)
        window, warnings = self._window(inquiry, gauge)
        terms = inquiry.terms
        cost = None
        if self.spending.has_budgets:
            cost = self.cost_of(terms, inquiry.state.turns, window, gauge)
        call = self.spending.open(
            inquiry.conversation_id,
            inquiry.state.user_id,
            None if cost is None else cost.high_usd,
            terms.model,
            expected=cost,
        )
        if cost is not None and window.counted_tokens is None:  # the next estimate learns from what was counted
            window = replace(window, counted_tokens=cost.input_tokens)
        return self._prepared(inquiry, window, call, warnings)

    def cost_of(self, terms: Terms, turns: Sequence[Turn], window: Window, gauge: Gauge) -> CostRange:
        """Return what the request may cost."""
        sizes = sum(map(gauge.of_message, window.messages), gauge.of_frame())
        return cost_range(
            self.provider,
            terms.model,
            input_tokens=sizes.counted,
            max_output_tokens=terms.max_output_tokens,
            turns=turns,
            at=self.clock(),
            factor=sizes.expected / sizes.counted,
        )

    def _gauge(self, inquiry: Inquiry) -> Gauge:
        """Return what measures the request; where nothing is to be measured, one that looks at nothing."""
        if inquiry.terms.max_tokens is None and not self.spending.has_budgets:
            return Gauge(inquiry.terms.model, is_trusted=True)
        return gauge_for(inquiry.terms.model, inquiry.state.turns, inquiry.terms.system_prompt)

    def _window(self, inquiry: Inquiry, gauge: Gauge) -> tuple[Window, tuple[str, ...]]:
        window = _window_of(inquiry, inquiry.state.summaries, gauge)
        if inquiry.terms.context_policy != "summarize" or not window.left_out:
            return window, ()
        left = counted(len(window.left_out), "older turn")
        covers = serving_summaries(inquiry.state, len(inquiry.turns), inquiry.links)
        plan = plan_to_fit(window, inquiry.turns, covers, gauge=gauge, links=inquiry.links)
        if plan is None:
            why = f"There is no room for a summary in max_tokens={window.max_tokens}"
            return window, (f"{why}, so {left} stayed out of the request.",)
        try:
            self.summarizer.make(plan, gauge=gauge, max_tokens=inquiry.terms.max_tokens)
        except (ProviderError, ContextWindowExceededError, BudgetExceededError) as error:
            return window, (f"No summary could be made, so {left} stayed out of the request: {error}",)
        return _window_of(inquiry, self.summarizer.log.fresh().state.summaries, gauge), ()

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
    terms: Terms,
    *,
    gauge: Gauge,
    links: Sequence[str],
) -> Window:
    """Return what a request carries behind these first turns of a conversation, with its summaries.

    ``links`` are those of ``links_of`` for the turns.
    """
    return fit(
        terms.system_prompt,
        turns,
        serving_summaries(state, len(turns), links),
        question,
        gauge=gauge,
        max_tokens=terms.max_tokens,
        policy=terms.context_policy,
    )


def _window_of(inquiry: Inquiry, summaries: tuple[Summary, ...], gauge: Gauge) -> Window:
    """Return what the request carries with these summaries, which may be newer than the inquiry."""
    state = replace(inquiry.state, summaries=summaries)
    return window_of(state, inquiry.turns, inquiry.question, inquiry.terms, gauge=gauge, links=inquiry.links)


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
            window.covers,
            inquiry.question,
            gauge=Gauge(terms.model, is_trusted=True),
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
