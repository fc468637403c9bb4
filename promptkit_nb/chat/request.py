"""What goes to the model: the settings of a request, and the checks of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from promptkit_nb.chat.options import check_tokens
from promptkit_nb.context_hash import context_hash_of, replay_key_of
from promptkit_nb.errors import InvalidArgumentError, MissingVariableError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.prompt import Prompt
from promptkit_nb.providers.base import ChatRequest
from promptkit_nb.state import ContextPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.state import ConversationState, Settings
    from promptkit_nb.turns import Message

_STANDING_STILL = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """All of a request but what was said: model, system prompt, parameters, and the size of the context window.

    ``max_tokens`` bounds the whole request, ``max_output_tokens`` the answer; both in tokens. ``timeless_prompt`` is
    the system prompt as it goes into hashes.
    """

    model: str
    system_prompt: str | None
    timeless_prompt: str | None
    parameters: Mapping[str, object]
    max_output_tokens: int | None
    max_tokens: int | None
    context_policy: ContextPolicy
    warnings: tuple[str, ...] = ()

    def request(self, messages: Sequence[Message]) -> ChatRequest:
        """Return the request with these messages, the system message among them."""
        return ChatRequest(
            model=self.model,
            messages=messages,
            parameters=self.parameters,
            max_output_tokens=self.max_output_tokens,
        )

    def hashes(self, question: Message, chain: str) -> tuple[str, str]:
        """Return the hash of the context and the replay key; ``chain`` is the hash of the turns before the question."""
        context_hash = context_hash_of(self.timeless_prompt, chain)
        replay_key = replay_key_of(
            context_hash,
            question,
            model=self.model,
            parameters=self.parameters,
            max_output_tokens=self.max_output_tokens,
            tools=(),
            max_tokens=self.max_tokens,
            context_policy=self.context_policy,
        )
        return context_hash, replay_key


def request_settings(
    state: ConversationState,
    *,
    model: str,
    parameters: Mapping[str, object] | None = None,
    max_output_tokens: int | None = None,
    max_tokens: int | None = None,
) -> RequestSettings:
    """Return the terms of the next request of a conversation.

    ``parameters`` go over the conversation's, and those over the prompt's; ``max_tokens`` over the conversation's.
    Raises ``MissingVariableError`` while a variable of the prompt has no value, ``InvalidArgumentError`` for an
    argument out of range.
    """
    prompt = _prompt_of(state.settings)
    merged = {
        **({} if prompt is None else prompt.parameters_for(model)),
        **state.settings.parameters,
        **_without_none(parameters or {}),
    }
    report = None if prompt is None else prompt.report(state.settings.variables, model=model)
    # In a pack, as in OpenAI's older requests, `max_tokens` among the parameters bounds the answer.
    longest = merged.pop("max_tokens", None)
    return RequestSettings(
        model=model,
        system_prompt=state.system_prompt if report is None else report.text,
        timeless_prompt=_timeless(prompt, state, model),
        parameters=merged,
        max_output_tokens=check_tokens(
            "max_output_tokens", longest if max_output_tokens is None else max_output_tokens
        ),
        max_tokens=check_tokens("max_tokens", state.settings.max_tokens if max_tokens is None else max_tokens),
        context_policy=state.settings.context_policy,
        warnings=() if report is None else report.warnings,
    )


def timeless_prompt_for(state: ConversationState, model: str | None) -> str | None:
    """Return the system prompt as if the clock stood still: a later hour alone is no other context.

    Raises ``MissingVariableError`` while a variable has no value.
    """
    return _timeless(_prompt_of(state.settings), state, model)


def rendered_prompt(settings: Settings) -> str | None:
    """Return the system prompt that the settings give; ``None`` without a prompt, or while a variable is missing."""
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
    return prompt.render(state.settings.variables, model=model, clock=lambda: _STANDING_STILL)


def _without_none(parameters: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(parameters, Mapping):
        raise InvalidArgumentError(f'parameters={parameters!r} is no dict, such as {{"temperature": 0.2}}.')
    given: dict[str, object] = json_copy(parameters, "parameters")
    return {name: value for name, value in given.items() if value is not None}
