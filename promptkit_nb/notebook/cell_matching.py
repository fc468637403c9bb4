"""Which turn a chat call stands for: by the id of its cell, or, in a batch run, by the order of the cells.

So running a cell again answers its turn again, instead of adding a second one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptkit_nb.asking.asking import AT_THE_END, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from promptkit_nb.asking.running_cell import CellCall
    from promptkit_nb.asking.snapshot import Snapshot
    from promptkit_nb.turns import Turn


@dataclass(frozen=True, slots=True)
class _BatchRun:
    """How far the cells of this run went along with the turns of a conversation: ``passed`` are those they had."""

    passed: frozenset[str] = frozenset()
    matched: bool = False
    over: bool = False


class CellMatching:
    """One kernel's matching of cells with turns, for all its conversations."""

    def __init__(self) -> None:
        """Begin before the first cell."""
        self._runs: dict[str, _BatchRun] = {}
        self._under_way: dict[str, _BatchRun] = {}
        self._last: dict[str, str] = {}

    def place_of(self, call: CellCall, snapshot: Snapshot, *, in_batch: bool) -> Place:
        """Return where the answer to a call goes; ``in_batch`` where a program runs the notebook."""
        if call.cell_id is not None:
            current = snapshot.turn_of(call)
            return Place(archived=snapshot.archived_turn_of(call)) if current is None else Place(in_place_of=current)
        return self._place_in_batch(call, snapshot) if in_batch else AT_THE_END

    def answered(self, conversation_id: str, turn: Turn) -> None:
        """Remember the turn that a call ended with; one that fails ends with none, and leaves all as it was."""
        self._last[conversation_id] = turn.id
        run = self._under_way.pop(conversation_id, None)
        if run is not None:
            self._runs[conversation_id] = replace(run, passed=run.passed | {turn.id})

    def last_turn(self, conversation_id: str) -> str | None:
        """Return the id of the turn that a cell of this kernel had last, ``None`` before the first."""
        return self._last.get(conversation_id)

    def forked(self, conversation_id: str, turns: Sequence[Turn]) -> None:
        """Remember that the cells so far stand for what a fork inherited: the next one comes behind that."""
        inherited = frozenset(turn.id for turn in turns if turn.inherited)
        self._runs.setdefault(conversation_id, _BatchRun(inherited, matched=bool(inherited)))

    def took_back(self, conversation_id: str, turns: Sequence[Turn]) -> None:
        """Remember that the newest turn was taken back, and these are left."""
        if turns:
            self._last[conversation_id] = turns[-1].id
        else:
            self._last.pop(conversation_id, None)

    def _place_in_batch(self, call: CellCall, snapshot: Snapshot) -> Place:
        conversation_id = snapshot.state.conversation_id
        run = self._under_way[conversation_id] = self._runs.get(conversation_id, _BatchRun())
        following = None if run.over else _following(run.passed, snapshot)
        if following is None:
            return AT_THE_END
        is_current = any(turn.id == following.id for turn in snapshot.state.turns)
        if following.cell_source == call.cell_source:
            self._under_way[conversation_id] = replace(run, matched=True)
            return Place(in_place_of=following) if is_current else Place(archived=following)
        for undone in snapshot.undone:  # it was taken back, and the next one came in its place
            if run.matched and undone.cell_source == call.cell_source and undone.id not in run.passed:
                return Place(archived=undone)
        self._under_way[conversation_id] = replace(run, over=True)
        if run.matched and snapshot.state.turns:
            return Place(branch_from=snapshot.place_of(following) if is_current else 0)
        return AT_THE_END


def _following(passed: Collection[str], snapshot: Snapshot) -> Turn | None:
    """Return the first turn that a cell made behind those that the cells of this run had."""
    versions = snapshot.state.versions
    following = None
    for turn in reversed(snapshot.turns_ever_current):
        if turn.id in passed or any(former.id in passed for former in versions.get(turn.id, ())):
            break
        if turn.cell_source is not None:
            following = turn
    return following
