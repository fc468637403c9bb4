"""What one call is asked to do, from the magic to the request, and where its answer goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.turns import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCall:
    """The notebook cell that asks: its id, the how manieth chat call of its execution this is (from 0), its source."""

    cell_id: str | None
    cell_call: int = 0
    cell_source: str | None = None

    def made(self, turn: Turn) -> bool:
        """Return whether this very call of this cell made the turn, as far as a cell's id tells it."""
        return self.cell_id is not None and (self.cell_id, self.cell_call) == (turn.cell_id, turn.cell_call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an answer goes: behind all turns, in place of a turn, or at position ``branch_from`` of the turns.

    In the last case the turns from there on become a branch. ``archived`` is the turn that this cell has on a branch:
    asked again just so, it answers once more, and nothing is written.
    """

    in_place_of: Turn | None = None
    branch_from: int | None = None
    archived: Turn | None = None


AT_THE_END = Target()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one call is asked to do differently; ``None`` means as the conversation does."""

    model: str | None = None
    parameters: Mapping[str, object] | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    replay: ReplayMode | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Raise ``InvalidArgumentError`` for a model that is no name; the rest is checked where it is used."""
        check_model(self.model)


def check_text(text: str) -> None:
    """Raise ``InvalidArgumentError`` unless the text says something."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"A message is text, not {type(text).__name__}: {text!r:.60}.")
    if not text.strip():
        raise InvalidArgumentError("The message is empty: say something.")


def check_model(model: object) -> None:
    """Raise ``InvalidArgumentError`` unless it is the name of a model, or ``None``."""
    if model is not None and not (isinstance(model, str) and model.strip()):
        raise InvalidArgumentError(f'model={model!r:.80} is no name: give one, such as "gpt-4o-mini", or leave it out.')


def check_tokens(name: str, tokens: object) -> int | None:
    """Return a limit in tokens, or raise ``InvalidArgumentError`` unless it is a whole number from 1, or ``None``."""
    if tokens is None or (isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1):
        return tokens
    raise InvalidArgumentError(f"{name}={tokens!r} is out of range: give a whole number from 1.")


ReplayMode = Literal["off", "auto", "strict"]


def check_replay(mode: object) -> ReplayMode:
    """Return the mode, or raise ``InvalidArgumentError`` unless it is one.

    >>> check_replay("auto")
    'auto'
    """
    if mode not in get_args(ReplayMode):
        raise InvalidArgumentError(f"replay={mode!r} is no mode: use 'off', 'auto' or 'strict'.")
    return cast("ReplayMode", mode)
