"""Answering from a stored turn with exactly the same request: nothing is sent, and nothing is paid."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.endings import is_replayable
from promptkit_nb.errors import ReplayMissError
from promptkit_nb.frontend import typed_value
from promptkit_nb.text.plain_text import preview
from promptkit_nb.turns import INTERRUPTED, Message, Turn, new_turn_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from promptkit_nb.state import ConversationState


def recorded(replay_key: str, turns: Iterable[Turn]) -> Turn | None:
    """Return the first turn that answers this request, or ``None``. Only answers that ended well count."""
    return next((turn for turn in turns if _answers(turn, replay_key)), None)


def replayable(state: ConversationState, own: Turn | None = None) -> tuple[Turn, ...]:
    """Return all stored turns in the order in which they may answer; ``own``, the turn in the same place, comes first.

    Current turns come before those of branches, and these before previous versions, so that a restored answer takes
    precedence over a newer one that it replaced. Among branches and versions the newest turns come first.
    """
    branches = (turn for branch in state.branches for turn in branch.turns)
    versions = (turn for previous in state.versions.values() for turn in previous)
    return (*(() if own is None else (own,)), *state.turns, *_newest_first(branches), *_newest_first(versions))


def recorded_model(question: Message, turns: Iterable[Turn]) -> str:
    """Return the model that was asked this question when it was recorded, ``""`` if none was.

    Without a provider, this is the model to look for.
    """
    return next((turn.requested_model or "" for turn in turns if turn.user_text == question.content), "")


def replayed(
    turn: Turn, question: Message, *, at: datetime, context_hash: str, replay_key: str, **cell: object
) -> Turn:
    """Return a new turn with the answer of another; it costs nothing and records what was saved."""
    return replace(
        turn,
        id=new_turn_id(),
        messages=(question, *turn.messages[1:]),
        cost=Decimal(0),
        saved=turn.first_cost,
        created_at=at,
        context_hash=context_hash,
        replay_key=replay_key,
        replayed=True,
        inherited=False,
        **cell,  # type: ignore[arg-type]  # the cell's fields of a Turn
    )


def no_recording(question: Message, model: str, turns: Iterable[Turn]) -> ReplayMissError:
    """Return the error of a strict replay without a match, with the likeliest reason."""
    alike = [turn for turn in turns if turn.user_text == question.content]
    by_model = f" by {model!r}" if model else ""
    return ReplayMissError(
        f"No recorded answer to {preview(question.content)!r}{by_model}: {_reason(model, alike)}. Nothing was sent; "
        f"record it once with {typed_value('replay', 'auto')}, or turn replay off."
    )


def _reason(model: str, alike: list[Turn]) -> str:
    if not alike:
        return "no message with this text was recorded"
    models = {turn.requested_model or turn.model for turn in alike}
    if model not in models:
        return f"it was recorded with {', '.join(sorted(map(repr, models)))}"
    if all(turn.finish_reason == INTERRUPTED for turn in alike):
        return "the recorded answer was interrupted"
    if not any(is_replayable(turn.finish_reason) for turn in alike):
        return "the recorded answer did not end well"
    return "it was recorded in another context (system prompt, earlier turns) or with other parameters"


def _newest_first(turns: Iterable[Turn]) -> list[Turn]:
    return sorted(turns, key=lambda turn: (turn.created_at, turn.id), reverse=True)


def _answers(turn: Turn, replay_key: str) -> bool:
    return turn.replay_key == replay_key and is_replayable(turn.finish_reason)
