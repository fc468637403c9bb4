"""A request and what comes back: its settings (everything but the messages), and the answer as it arrives."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from promptkit_nb.chat.options import CallOptions, check_tokens
from promptkit_nb.context_hash import context_hash_of, replay_key_of
from promptkit_nb.endings import USUAL_REASONS, failure_of
from promptkit_nb.errors import InvalidArgumentError, MissingVariableError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.prompt import Prompt
from promptkit_nb.pricing import UNKNOWN_COST, CallCost, is_local_or_free
from promptkit_nb.providers.base import ChatRequest, Completion, Provider, ReasoningDelta, StreamEvent, TextDelta
from promptkit_nb.state import ContextPolicy, ConversationState, Settings
from promptkit_nb.tokens import count_message_tokens, count_tokens
from promptkit_nb.turns import Message, Usage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """The settings of a request, without its messages.

    ``max_tokens`` limits the whole request and ``max_output_tokens`` the answer, in tokens. ``timeless_prompt`` is the
    system prompt that goes into hashes: its clock is fixed, so that the time does not change them. ``tools`` are in
    OpenAI's format; ``tools_key`` is what the replay key contains of them and of the answer's schema.
    """

    model: str
    system_prompt: str | None
    timeless_prompt: str | None
    parameters: Mapping[str, object]
    max_output_tokens: int | None
    max_tokens: int | None
    context_policy: ContextPolicy
    warnings: tuple[str, ...] = ()
    tools: Sequence[Mapping[str, object]] = ()
    tools_key: Sequence[Mapping[str, object]] = ()

    def request(self, messages: Sequence[Message]) -> ChatRequest:
        """Return the request with these messages, the system message among them."""
        return ChatRequest(
            model=self.model,
            messages=messages,
            parameters=self.parameters,
            max_output_tokens=self.max_output_tokens,
            tools=self.tools,
        )

    def hashes(self, question: Message, history_hash: str) -> tuple[str, str]:
        """Return the context hash and the replay key; ``history_hash`` is the hash of the turns before the question."""
        context_hash = context_hash_of(self.timeless_prompt, history_hash)
        replay_key = replay_key_of(
            context_hash,
            question,
            model=self.model,
            parameters=self.parameters,
            max_output_tokens=self.max_output_tokens,
            tools=self.tools_key,
            max_tokens=self.max_tokens,
            context_policy=self.context_policy,
        )
        return context_hash, replay_key


@dataclass(slots=True)
class ReceivedAnswer:
    """The part of an answer that has arrived, and how long the model thought before its text."""

    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    completion: Completion | None = None
    _thinking_since_s: float | None = None
    _thought_until_s: float | None = None

    def take(self, event: StreamEvent, *, source: str) -> None:
        """Add a piece from the provider.

        Raises a ``ProviderError`` at the end of an answer that failed; ``source`` is the provider's name.
        """
        if isinstance(event, TextDelta):
            self._end_thinking()
            self.pieces.append(event.text)
        elif isinstance(event, ReasoningDelta):
            if self._thinking_since_s is None:
                self._thinking_since_s = time.perf_counter()
            self.thoughts.append(event.text)
        elif isinstance(event, Completion):
            self._end_thinking()
            self.completion = event
            if event.finish_reason not in USUAL_REASONS:
                failure = failure_of(event.finish_reason, self.text, source)
                if failure is not None:
                    raise failure

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def has_begun(self) -> bool:
        """Whether anything has arrived that may be billed."""
        return bool(self.pieces or self.thoughts or self.completion)

    @property
    def reasoning(self) -> str:
        """The model's thinking so far."""
        return "".join(self.thoughts).strip()

    @property
    def thinking_ms(self) -> float | None:
        """How long the model has been thinking, or thought before its text; ``None`` if it does not show thinking."""
        if self._thinking_since_s is None or not self.reasoning:
            return None
        until_s = time.perf_counter() if self._thought_until_s is None else self._thought_until_s
        return round((until_s - self._thinking_since_s) * 1000, 3)

    def _end_thinking(self) -> None:
        if self._thinking_since_s is not None and self._thought_until_s is None:
            self._thought_until_s = time.perf_counter()

    def usage(self, request: ChatRequest) -> Usage:
        """Return the reported usage, or else our own count of the request, the thinking, and the text."""
        if self.completion is not None and self.completion.usage is not None:
            return self.completion.usage
        reasoning_tokens = count_tokens(self.reasoning, request.model) if self.thoughts else 0
        return Usage(
            input_tokens=count_message_tokens(request.messages, request.model),
            output_tokens=reasoning_tokens + count_tokens(self.text, request.model),
            reasoning_tokens=reasoning_tokens,
            estimated=True,
        )

    def price(self, provider: Provider, request: ChatRequest, usage: Usage, at: datetime) -> CallCost:
        """Return the reported cost, or else a cost by the price of the requested model, then of the answering model.

        A reported cost of 0 counts only if the price list or the user also says 0: servers report 0 for unknown prices.
        """
        completion, model = self.completion, request.model
        reported_usd = None if completion is None else completion.cost_usd
        if reported_usd:
            return CallCost(reported_usd, "reported")
        asked = provider.price(model, usage, at)
        if reported_usd is not None and usage.total_tokens:
            return asked if asked.usd == 0 else UNKNOWN_COST
        if asked.usd is not None or completion is None or is_local_or_free(model):
            return asked
        return provider.price(completion.model, usage, at)


def check_can_continue(state: ConversationState) -> None:
    """Raise ``InvalidArgumentError`` for rows of a DataFrame, and for an imported conversation, which can be forked."""
    if state.settings.kind == "rows":
        raise InvalidArgumentError(
            f"The conversation {state.conversation_id!r} has the answers for rows of a DataFrame, which do not follow "
            "each other: chat in another conversation, and ask more rows with df.promptkit.ask(…)."
        )
    if state.settings.kind == "imported":
        raise InvalidArgumentError(
            f"The conversation {state.conversation_id!r} was imported from {state.settings.source} and cannot be "
            'continued: continue a copy, with .fork("my-copy").send(…) or %chat_fork my-copy.'
        )


def request_settings(state: ConversationState, options: CallOptions, *, model: str) -> RequestSettings:
    """Return the settings of the next request of a conversation.

    The options' parameters override the conversation's, and those the prompt's. Raises ``MissingVariableError`` if a
    variable of the prompt has no value, ``InvalidArgumentError`` for an argument out of range.
    """
    prompt = _prompt_of(state.settings)
    merged = {
        **({} if prompt is None else prompt.parameters_for(model)),
        **state.settings.parameters,
        **(_without_none(json_copy(options.parameters, "parameters")) if options.parameters else {}),
    }
    report = None if prompt is None else prompt.report(state.settings.variables, model=model)
    # In a pack, as in OpenAI's older requests, `max_tokens` among the parameters limits the answer.
    longest = merged.pop("max_tokens", None)
    output_tokens = longest if options.max_output_tokens is None else options.max_output_tokens
    max_tokens = state.settings.max_tokens if options.max_tokens is None else options.max_tokens
    return RequestSettings(
        model=model,
        system_prompt=state.system_prompt if report is None else report.text,
        timeless_prompt=_timeless(prompt, state, model),
        parameters=merged,
        max_output_tokens=check_tokens("max_output_tokens", output_tokens),
        max_tokens=check_tokens("max_tokens", max_tokens),
        context_policy=state.settings.context_policy,
        warnings=() if report is None else report.warnings,
        tools=() if options.toolbox is None else options.toolbox.definitions,
        tools_key=_key_of(options),
    )


def _key_of(options: CallOptions) -> tuple[Mapping[str, object], ...]:
    """Return what the replay key contains of tools, and of the schema of the answer."""
    tools = () if options.toolbox is None else options.toolbox.key
    answer = () if options.answer_type is None else ({"answer_schema": options.answer_type.schema},)
    return (*tools, *answer)


def timeless_prompt_for(state: ConversationState, model: str | None) -> str | None:
    """Return the system prompt with the clock at a fixed time, for hashes.

    Raises ``MissingVariableError`` if a variable has no value.
    """
    return _timeless(_prompt_of(state.settings), state, model)


def rendered_prompt(settings: Settings) -> str | None:
    """Return the system prompt of the settings; ``None`` without a prompt, or if a variable is missing."""
    prompt = _prompt_of(settings)
    if prompt is None:
        return None
    try:
        return prompt.render(settings.variables, model=settings.model)
    except MissingVariableError:
        return None  # it may be set before the first send, which renders again and raises


def _prompt_of(settings: Settings) -> Prompt | None:
    return None if settings.prompt is None else Prompt.from_snapshot(settings.prompt)


def _timeless(prompt: Prompt | None, state: ConversationState, model: str | None) -> str | None:
    if prompt is None:
        return state.system_prompt
    return prompt.render(state.settings.variables, model=model, clock=lambda: _EPOCH)


def _without_none(parameters: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(parameters, Mapping):
        raise InvalidArgumentError(f'parameters={parameters!r} is not a dict, such as {{"temperature": 0.2}}.')
    given: dict[str, object] = json_copy(parameters, "parameters")
    return {name: value for name, value in given.items() if value is not None}
