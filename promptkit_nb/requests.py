"""What goes to the model: made from the state of a conversation and what is said now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from promptkit_nb.context_hash import context_hash_of, replay_key_of
from promptkit_nb.errors import InvalidArgumentError, MissingVariableError
from promptkit_nb.prompts import Prompt
from promptkit_nb.providers.base import ChatRequest
from promptkit_nb.turns import Message

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState, Settings


def request_for(
    state: ConversationState,
    question: Message,
    *,
    model: str,
    parameters: Mapping[str, object] | None,
    max_output_tokens: int | None,
) -> ChatRequest:
    """Return the request: system prompt, all that was said, and the question.

    ``parameters`` go over the conversation's, and those over the prompt's. Raises ``MissingVariableError`` while a
    variable of the prompt has no value, ``InvalidArgumentError`` for an argument out of range.
    """
    prompt = _prompt_of(state.settings)
    merged = {
        **({} if prompt is None else prompt.parameters_for(model)),
        **state.settings.parameters,
        **_without_none(parameters or {}),
    }
    # In a pack, as in OpenAI's older requests, `max_tokens` among the parameters bounds the answer.
    longest = merged.pop("max_tokens", None)
    text = state.system_prompt if prompt is None else prompt.render(state.settings.variables, model=model)
    system = () if text is None else (Message("system", text),)
    said = (message for turn in state.turns for message in turn.messages)
    return ChatRequest(
        model=model,
        messages=[*system, *said, question],
        parameters=merged,
        max_output_tokens=_checked_limit(longest if max_output_tokens is None else max_output_tokens),
    )


def hashes_of(request: ChatRequest, settings: Settings, chain: str) -> tuple[str, str]:
    """Return the hash of the request's context and its replay key; ``chain`` is the hash of the turns before it."""
    first = request.messages[0]
    context_hash = context_hash_of(first.content if first.role == "system" else None, chain)
    replay_key = replay_key_of(
        context_hash,
        request.messages[-1],
        model=request.model,
        parameters=request.parameters,
        max_output_tokens=request.max_output_tokens,
        tools=request.tools,
        max_tokens=settings.max_tokens,
        context_policy=settings.context_policy,
    )
    return context_hash, replay_key


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


def check_text(text: str) -> None:
    """Raise ``InvalidArgumentError`` unless the text says something."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"A message is text, not {type(text).__name__}: {text!r:.60}.")
    if not text.strip():
        raise InvalidArgumentError("The message is empty: say something.")


def _checked_limit(tokens: object) -> int | None:
    if tokens is None or (isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1):
        return tokens
    raise InvalidArgumentError(f"max_output_tokens={tokens!r} is out of range: give a whole number from 1.")


def _without_none(parameters: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(parameters, Mapping):
        raise InvalidArgumentError(f'parameters={parameters!r} is no dict, such as {{"temperature": 0.2}}.')
    return {name: value for name, value in parameters.items() if value is not None}
