"""Which turns are stale: their context today is another than the one they were answered in.

Computed whenever it is asked for and never stored, so that bringing the former context back makes them fresh again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.asking.requests import timeless_prompt_for
from promptkit_nb.context_hash import context_hash_of, links_of
from promptkit_nb.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.state import ConversationState


def stale_turns(state: ConversationState, links: Sequence[str] | None = None) -> frozenset[str]:
    """Return the ids of the current turns that are stale.

    A turn that nobody asked a model for, such as one made by hand, has no context to differ from and never is.
    ``links`` are those of ``links_of``, where they are known already.

    >>> from promptkit_nb.state import ConversationState
    >>> stale_turns(ConversationState("chat"))
    frozenset()
    """
    prompts: dict[str | None, str | PackError | None] = {}
    stale: list[str] = []
    for turn, link in zip(state.turns, links or links_of(state.turns, state.context_hash), strict=False):
        if turn.context_hash is None:
            continue
        model = turn.requested_model
        if model not in prompts:
            prompts[model] = _system_prompt(state, model)
        system_prompt = prompts[model]
        if isinstance(system_prompt, PackError) or turn.context_hash != context_hash_of(system_prompt, link):
            stale.append(turn.id)
    return frozenset(stale)


def _system_prompt(state: ConversationState, model: str | None) -> str | PackError | None:
    try:
        return timeless_prompt_for(state, model)
    except PackError as error:  # a variable has no value any more: today there is no such context at all
        return error
