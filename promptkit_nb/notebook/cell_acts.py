"""Finds what an acting magic of a cell did in an earlier run, so that a notebook that runs again does not repeat it.

When a notebook runs again, its conversation is already as it was at the end: the turn is undone, the branch is
restored, and turns have other numbers. A change that the same cell made at the same point is therefore not made again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from promptkit_nb.notebook.saved_notebook import SavedNotebook, is_generated
from promptkit_nb.state import CellAct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from promptkit_nb.chat.options import CellCall
    from promptkit_nb.state import ConversationState


def act_of(what: str, call: CellCall, reached: str | None) -> CellAct:
    """Return a change that is about to be made after the turn with the id ``reached``."""
    return CellAct(
        what=what,
        cell_id=call.cell_id or "",
        source_hash=hashlib.sha256((call.cell_source or "").encode("utf-8", "surrogateescape")).hexdigest()[:16],
        call=call.cell_call,
        reached=reached or "",
    )


def made_before(
    act: CellAct,
    state: ConversationState,
    saved: Callable[[], SavedNotebook | None],
    passed: Collection[CellAct] = (),
) -> CellAct | None:
    """Return this change as the same cell made it in an earlier run after the same turn, ``None`` if it did not.

    ``passed`` are the changes that this kernel made or recognized already: a cell that runs once more acts once more.
    """
    for made in reversed(state.settings.acts):
        if made not in passed and _is_same_cell(act, made, saved) and _is_same_turn(act.reached, made.reached, state):
            return made
    return None


def is_reversed(made: CellAct, state: ConversationState) -> bool:
    """Return whether a change is not in effect any more: its turn is the newest again, or on the restored branch."""
    if made.what == "undo":
        return bool(state.turns) and _is_same_turn(state.turns[-1].id, made.turn, state)
    name = made.what.removeprefix("restore ")
    firsts = [branch.turns[0].id for branch in state.branches if branch.id == name and branch.turns]
    return any(_is_same_turn(first, made.turn, state) for first in firsts)


def edited_before(act: CellAct, state: ConversationState, saved: Callable[[], SavedNotebook | None]) -> str | None:
    """Return the id of the turn that this cell made when it edited a turn with this number, ``None`` if it did not.

    A cell with a generated id may edit the turn again at any time; another one only after the same turn.
    """
    for made in reversed(state.settings.acts):
        if not _is_same_cell(act, made, saved):
            continue
        has_its_id = is_generated(act.cell_id) and act.cell_id == made.cell_id
        if has_its_id or _is_same_turn(act.reached, made.reached, state):
            return made.turn
    return None


def _is_same_cell(act: CellAct, made: CellAct, saved: Callable[[], SavedNotebook | None]) -> bool:
    """Return whether the same call of the same cell makes the change: by the cell's id, else by its source.

    A front end may generate other ids when it opens the notebook again: the source decides if no cell has the old id.
    """
    if (act.what, act.call) != (made.what, made.call):
        return False
    if is_generated(act.cell_id) and is_generated(made.cell_id):
        if act.cell_id == made.cell_id:
            return True
        file = saved()
        if file is not None and made.cell_id in file.ids:
            return False
    return act.source_hash == made.source_hash


def _is_same_turn(reached: str, before: str, state: ConversationState) -> bool:
    """Return whether two ids are those of one turn, or of answers in the same place."""
    if reached == before:
        return True
    places = ({current, *(each.id for each in versions)} for current, versions in state.versions.items())
    return any(place >= {reached, before} for place in places)
