"""Finds the answer of a model among the versions of compared turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.chat.window import turns_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptkit_nb.state import ConversationState
    from promptkit_nb.turns import Turn


def answer_by(model: str, state: ConversationState, *, as_of: str | None) -> Turn | None:
    """Return the answer of a model in the newest turn that has answers of this and of another model, or edited ones.

    It may be the current one. Turns up to ``as_of``, the id of a turn, come first: a notebook that runs again picks in
    the turn that it has reached. Without such a turn it is the newest current turn of the model. ``None`` if no turn
    has an answer of it, or if this is the id of a branch or of a version.
    """
    ids = {branch.id for branch in state.branches} | {turn.id for each in state.versions.values() for turn in each}
    if model in ids:
        return None
    left = (turns_until(branch.turns, as_of) for branch in (state.branches if as_of else ()))
    for turns in (turns_until(state.turns, as_of), *left, state.turns):
        for current in reversed(turns):
            answers = (*state.versions.get(current.id, ()), current)
            if len(set(map(_author_of, answers))) > 1 and (found := _newest_of(model, answers)):
                return found
    return _newest_of(model, state.turns)


def _newest_of(model: str, turns: Iterable[Turn]) -> Turn | None:
    return next((turn for turn in reversed([*turns]) if _author_of(turn) == model), None)


def _author_of(turn: Turn) -> str | None:
    """Return the model of an answer; ``None`` if the user wrote it."""
    return None if turn.is_edited else turn.requested_model
