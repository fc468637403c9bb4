"""Matches the chat calls of cells with turns, by the call, the turns, the kernel's memory, and the saved file.

A cell keeps its turn if it is moved, split, or renumbered, and never takes the turn of another cell. Ids alone do not
identify cells: some front ends send positions, and some generate new ids whenever they open a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.notebook.saved_notebook import SavedNotebook, is_generated

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CellCall
    from promptkit_nb.turns import Turn


class Holder(NamedTuple):
    """The cell that last had a turn, with its source and the version of the saved file at that time."""

    cell_id: str
    cell_source: str | None = None
    version: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """The memory of one kernel about a conversation; turns are given by their ids.

    ``had`` maps a cell id and the index of a call to their last turn; ``holders`` maps a turn to the last cell that had
    it. ``current`` holds the turns of the current run of the cell; ``last`` is the most recent turn.
    """

    had: Mapping[tuple[str, int], str] = field(default_factory=dict)
    holders: Mapping[str, Holder] = field(default_factory=dict)
    current: frozenset[str] = frozenset()
    last: str | None = None

    def in_a_new_run(self) -> KernelMemory:
        """Return the memory at the start of a cell run."""
        return replace(self, current=frozenset())

    def with_turn(self, turn_id: str, call: CellCall, version: tuple[int, int] | None) -> KernelMemory:
        """Return the memory after a call was given this turn."""
        cell_id = call.cell_id or ""
        return replace(
            self,
            had={**self.had, (cell_id, call.cell_call): turn_id},
            holders={**self.holders, turn_id: Holder(cell_id, call.cell_source, version)},
            current=self.current | {turn_id},
        )

    def as_of(self, current_ids: Mapping[str, str]) -> KernelMemory:
        """Return the memory with the current ids of its turns: another kernel may have replaced some.

        ``current_ids`` maps the ids of previous versions to the id of the current one.
        """
        return KernelMemory(
            had={call: current_ids.get(each, each) for call, each in self.had.items()},
            holders={current_ids.get(each, each): holder for each, holder in self.holders.items()},
            current=frozenset(current_ids.get(each, each) for each in self.current),
            last=None if self.last is None else current_ids.get(self.last, self.last),
        )


def find_turn(
    call: CellCall,
    message: str,
    turns: Sequence[Turn],
    memory: KernelMemory,
    saved: Callable[[], SavedNotebook | None],
) -> Turn | None:
    """Return the turn that a call with this message answers again; ``None`` if it adds a new turn.

    ``saved`` returns the saved notebook, ``None`` if it cannot be read; it is only called if needed.
    """
    return _Search(call, message, turns, memory, saved).first()


def turns_below(call: CellCall, turns: Sequence[Turn], saved: SavedNotebook | None) -> int:
    """Return how many of these turns belong to cells below the cell of the call; 0 if that is unknown."""
    place = None if saved is None else saved.place_of(call.cell_id, call.cell_source)
    if saved is None or place is None:
        return 0
    places = (saved.place_of(turn.cell_id, turn.cell_source) for turn in turns)
    return sum(each is not None and each > place for each in places)


class _Search:
    """The rules in order; the first one that finds a turn decides."""

    def __init__(
        self,
        call: CellCall,
        message: str,
        turns: Sequence[Turn],
        memory: KernelMemory,
        saved: Callable[[], SavedNotebook | None],
    ) -> None:
        self._call = call
        self._message = message
        self._turns = turns
        self._memory = memory
        self._read = saved

    def first(self) -> Turn | None:
        rules = (
            self._with_the_same_message,
            self._of_the_same_call,
            self._of_the_same_cell,
            self._of_a_cell_that_is_gone,
            self._of_this_cell_before_it_was_edited,
            self._in_this_place,
        )
        return next((turn for rule in rules if (turn := rule()) is not None), None)

    @cached_property
    def _saved(self) -> SavedNotebook | None:
        return self._read()

    def _with_the_same_message(self) -> Turn | None:
        """Rule 1: a turn of this cell with the same message, from any of its calls."""
        mine = [turn for turn in self._turns if turn.user_text == self._message and self._is_mine(turn)]
        return next((turn for turn in mine if self._was_this_call(turn)), mine[0] if mine else None)

    def _of_the_same_call(self) -> Turn | None:
        """Rule 2: the last turn of this call in this kernel, unless another call of the cell now has its message."""
        turn_id = self._memory.had.get((self._call.cell_id or "", self._call.cell_call))
        turn = next((each for each in self._turns if each.id == turn_id), None)
        if turn is None or not self._is_free(turn) or self._says(turn.user_text):
            return None
        return turn

    def _of_the_same_cell(self) -> Turn | None:
        """Rule 3: a turn made under this cell id from the same source."""
        return next(
            (turn for turn in self._made_by_id() if turn.cell_source == self._call.cell_source and self._is_free(turn)),
            None,
        )

    def _of_a_cell_that_is_gone(self) -> Turn | None:
        """Rule 4: a turn with the same source or message, made by a cell that is not in the file any more."""
        call = self._call
        made_one = is_generated(call.cell_id) and any(turn.cell_id == call.cell_id for turn in self._turns)
        if made_one and self._saved is None:
            return None
        alike = [
            turn
            for turn in self._turns
            if turn.cell_source is not None
            and (turn.cell_source == call.cell_source or turn.user_text == self._message)
        ]
        gone = [turn for turn in alike if self._is_gone(turn) and not self._is_taken(turn)]
        same = [turn for turn in gone if (turn.cell_source, turn.cell_call) == (call.cell_source, call.cell_call)]
        return self._first_after_last(same or [turn for turn in gone if turn.user_text == self._message])

    def _of_this_cell_before_it_was_edited(self) -> Turn | None:
        """Rule 5: a turn made under this cell id from another source, unless another cell or call now has that."""
        if not self._call.has_lasting_id and self._saved is None:
            return None
        edited = (turn for turn in self._made_by_id() if turn.cell_source != self._call.cell_source)
        made = (turn for turn in edited if not self._says(turn.user_text))
        return next((turn for turn in made if self._is_free(turn) and not self._is_of_another_cell(turn)), None)

    def _in_this_place(self) -> Turn | None:
        """Rule 6: if ids do not last, the turn after that of the cell above, if no cell has its source."""
        saved, call = self._saved, self._call
        if saved is None or (call.cell_id in saved.ids and call.has_lasting_id):
            return None
        place = saved.place_of(call.cell_id, call.cell_source)
        if place is None:
            return None
        following = self._position_above(saved, place) + 1
        turn = self._turns[following] if following < len(self._turns) else None
        if turn is None or turn.cell_source is None or self._is_taken(turn) or saved.places_of(turn.cell_source):
            return None
        return turn

    def _position_above(self, saved: SavedNotebook, place: int) -> int:
        """Return the position of the turn of the cell above, or else of the last turn of this kernel, or else -1."""
        if not self._memory.current:
            above = [
                (max(places), at)
                for at, turn in enumerate(self._turns)
                if turn.cell_source is not None
                and (places := [each for each in saved.places_of(turn.cell_source) if each < place])
            ]
            if above:
                return max(above)[1]
        return self._last_position

    @property
    def _last_position(self) -> int:
        return next((at for at, turn in enumerate(self._turns) if turn.id == self._memory.last), -1)

    def _made_by_id(self) -> list[Turn]:
        """Return the turns made under the id of this call; there may be several if ids are positions."""
        return [turn for turn in reversed(self._turns) if self._call.made(turn)]

    def _is_mine(self, turn: Turn) -> bool:
        """Return whether this cell made the turn or had it in this kernel, and no other cell has it now."""
        cell_id = self._call.cell_id
        made = turn.cell_id == cell_id and is_generated(cell_id)
        had = any(had == turn.id and key[0] == cell_id for key, had in self._memory.had.items())
        return (made or had) and not self._is_taken(turn)

    def _was_this_call(self, turn: Turn) -> bool:
        return (
            self._call.made(turn) or self._memory.had.get((self._call.cell_id or "", self._call.cell_call)) == turn.id
        )

    def _is_free(self, turn: Turn) -> bool:
        """Return whether no other cell had the turn last, and it was not used in this run."""
        holder = self._memory.holders.get(turn.id)
        return turn.id not in self._memory.current and (holder is None or holder.cell_id == self._call.cell_id)

    def _is_taken(self, turn: Turn) -> bool:
        """Return whether another cell has the turn in this kernel and was not removed from the file since."""
        if self._is_free(turn):
            return False
        holder, saved = self._memory.holders.get(turn.id), self._saved
        if holder is None or turn.id in self._memory.current or saved is None or holder.version is None:
            return True
        was_saved_since = saved.keeps_ids and is_generated(holder.cell_id) and saved.version != holder.version
        return not was_saved_since or saved.has(holder.cell_id, holder.cell_source)

    def _is_gone(self, turn: Turn) -> bool:
        return self._saved is None or not self._saved.has(turn.cell_id, turn.cell_source)

    def _is_of_another_cell(self, turn: Turn) -> bool:
        """Return whether another cell of the file has the source of the turn."""
        saved = self._saved
        if saved is None or turn.cell_source is None:
            return False
        if saved.lines is not None:
            return bool(saved.places_of(turn.cell_source))
        return any(cell.source == turn.cell_source and cell.cell_id != self._call.cell_id for cell in saved.cells)

    def _says(self, message: str) -> bool:
        """Return whether the message differs from that of the call, but occurs in a ``%chat`` line of the cell."""
        if message == self._message:
            return False
        lines = (line.strip() for line in (self._call.cell_source or "").splitlines())
        said = (line.removeprefix("%chat").strip() for line in lines if line.startswith("%chat "))
        return any(text == message or (text.startswith("-") and text.endswith(f" {message}")) for text in said)

    def _first_after_last(self, turns: Sequence[Turn]) -> Turn | None:
        positions = {turn.id: at for at, turn in enumerate(self._turns)}
        later = (turn for turn in turns if positions[turn.id] > self._last_position)
        return next(later, turns[0] if turns else None)
