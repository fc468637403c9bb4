"""Which turns "the last N messages" are, and which stood there at an earlier time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn


def turns_until(turns: tuple[Turn, ...], turn_id: str | None) -> tuple[Turn, ...]:
    """Return the turns up to this one, none where it is not among them; all where no id is given."""
    if turn_id is None:
        return turns
    return turns[: next((at for at, turn in enumerate(turns) if turn.id == turn_id), -1) + 1]


def older_turns(turns: tuple[Turn, ...], keep_last: int) -> int:
    """Return how many turns stand before the newest ones, of which as few are kept as have ``keep_last`` messages."""
    messages, older = 0, len(turns)
    while older and messages < keep_last:
        older -= 1
        messages += len(turns[older].messages)
    return older


def newest_turn(turns: tuple[Turn, ...], as_of: str | None) -> tuple[int, int]:
    """Return the range of the newest turn, an empty one where there is none, or where the turn ``as_of`` left."""
    return (max(len(turns) - 1, 0), len(turns)) if turns_until(turns, as_of) else (0, 0)


def check_keep_last(keep_last: object) -> None:
    """Raise ``InvalidArgumentError`` unless it is a whole number from 0."""
    if not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 0:
        raise InvalidArgumentError(f"keep_last={keep_last!r} is out of range: give a whole number from 0, of messages.")
