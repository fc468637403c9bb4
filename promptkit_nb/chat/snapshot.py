"""A conversation as it was read from the store, with the hashes of its context and its stale turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.request import timeless_prompt_for
from promptkit_nb.context_hash import chain_of, context_hash_of, context_hashes_of
from promptkit_nb.errors import InvalidArgumentError, PackError
from promptkit_nb.state import ConversationState
from promptkit_nb.text.plain_text import counted
from promptkit_nb.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.chat.options import CellCall
    from promptkit_nb.state import Branch, Head


def stale_turns(state: ConversationState, context_hashes: Sequence[str] | None = None) -> frozenset[str]:
    """Return the ids of the current turns that are stale.

    A turn that nobody asked a model for, such as one made by hand, has no context to differ from and never is.
    ``context_hashes`` are those of ``context_hashes_of``, where they are known already.

    >>> from promptkit_nb.state import ConversationState
    >>> stale_turns(ConversationState("chat"))
    frozenset()
    """
    prompts: dict[str | None, str | PackError | None] = {}
    stale: list[str] = []
    for turn, link in zip(
        state.turns, context_hashes or context_hashes_of(state.turns, state.context_hash), strict=False
    ):
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


UNDONE = "undone"
"""How the branches are named that ``undo`` makes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state as it was read; ``context_hashes[i]`` is the hash of the turns before turn ``i``, the last one of all."""

    state: ConversationState
    context_hashes: tuple[str, ...]

    @classmethod
    def of(cls, state: ConversationState) -> Snapshot:
        """Return the snapshot of a state."""
        return cls(state, tuple(context_hashes_of(state.turns, state.context_hash)))

    def is_of(self, head: Head) -> bool:
        """Return whether this is what the head is of, and not of an earlier conversation of the same id."""
        return (self.state.revision, self.state.created_at) == (head.revision, head.created_at)

    def after(self, turn: Turn, head: Head) -> Snapshot:
        """Return the snapshot with the turn that brought the head about, unless somebody else wrote in between."""
        if head.revision != self.state.revision + 1:
            return self
        turns = (*self.state.turns, turn)
        state = replace(self.state, turns=turns, updated_at=head.updated_at, revision=head.revision)
        return Snapshot(state, (*self.context_hashes, chain_of([turn], self.context_hashes[-1])))

    @property
    def stale(self) -> frozenset[str]:
        """The ids of the turns whose context today is another than the one they were answered in."""
        return stale_turns(self.state, self.context_hashes)

    def stale_after(self, turn_id: str) -> int:
        """Return how many turns behind this one are stale; none are where it is no current turn any more."""
        place = self.standing_at(turn_id)
        behind = () if place is None else self.state.turns[place + 1 :]
        return len(self.stale & {turn.id for turn in behind})

    def standing_at(self, turn_id: object) -> int | None:
        """Return the position of the current turn that has this id or had it as a former version, else ``None``."""
        versions = self.state.versions.items()
        current = next((key for key, former in versions if any(each.id == turn_id for each in former)), turn_id)
        return next((at for at, each in enumerate(self.state.turns) if each.id == current), None)

    def place_of(self, turn: Turn | str | int) -> int:
        """Return the position of a current turn, given as such, by its id or position, or as a former version of it."""
        turns = self.state.turns
        if isinstance(turn, int) and not isinstance(turn, bool):
            if -len(turns) <= turn < len(turns):
                return turn % len(turns)
            raise InvalidArgumentError(
                f"There is no turn {turn} in {self.state.conversation_id!r}, which has {counted(len(turns), 'turn')}."
            )
        wanted = turn.id if isinstance(turn, Turn) else turn
        place = self.standing_at(wanted)
        if place is None:
            raise InvalidArgumentError(
                f"{wanted!r:.80} is no current turn of {self.state.conversation_id!r}: "
                "give one of .turns, its id or its position."
            )
        return place

    def turn_of(self, cell: CellCall | None) -> Turn | None:
        """Return the current turn that this call of this notebook cell made, ``None`` where that cannot be told."""
        if cell is None or cell.cell_id is None:
            return None
        return next((turn for turn in reversed(self.state.turns) if cell.made(turn)), None)

    def archived_turn_of(self, cell: CellCall) -> Turn | None:
        """Return the turn of this call that is on a branch now, of several the newest, ``None`` if there is none."""
        archived = (turn for branch in self.state.branches for turn in branch.turns if cell.made(turn))
        return max(archived, key=lambda turn: (turn.created_at, turn.id), default=None)

    def link_before(self, archived: Turn) -> str | None:
        """Return the hash of what stands before a turn of a branch, ``None`` where that cannot be told any more."""
        for branch in self.state.branches:
            place = next((at for at, turn in enumerate(branch.turns) if turn.id == archived.id), None)
            if place is not None:
                start = self._link_at(branch)
                return None if start is None else chain_of(branch.turns[:place], start)
        return None

    def _link_at(self, branch: Branch) -> str | None:
        """Return the hash of what stands before a branch; what left at the front since is on other branches."""
        if branch.start > 0:
            return self.context_hashes[branch.start] if branch.start < len(self.context_hashes) else None
        if branch.start == 0 or branch.kind == "head":
            return branch.context_hash or ""
        for head in self._heads:
            place = branch.start - head.start + len(head.turns)
            if 0 <= place < len(head.turns):
                return chain_of(head.turns[:place], head.context_hash)
        return None

    @property
    def undone(self) -> tuple[Turn, ...]:
        """The turns that were taken back, and are on a branch for that."""
        return tuple(turn for each in self.state.branches if each.id.startswith(UNDONE) for turn in each.turns)

    @property
    def turns_ever_current(self) -> tuple[Turn, ...]:
        """The turns that left at the front, then the current ones."""
        return (*(turn for branch in self._heads for turn in branch.turns), *self.state.turns)

    @property
    def _heads(self) -> list[Branch]:
        heads = (branch for branch in self.state.branches if branch.kind == "head")
        return sorted(heads, key=lambda branch: branch.start)
