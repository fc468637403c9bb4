"""The turn that a chat call answers again, by the call, the turns, the kernel's memory, and the saved file."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import Turn
from promptkit_nb.chat.options import CellCall
from promptkit_nb.notebook.cell_turns import KernelMemory, find_turn, turns_below
from promptkit_nb.notebook.saved_notebook import SavedCell, SavedNotebook, normal_lines
from storing import said

A, B, C, D = "aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"


def turn(cell_id: str | None, *lines: str, call: int = 0) -> Turn:
    """Return the turn that a call of a cell made; its id is its message."""
    return said(lines[call], id=lines[call], cell_id=cell_id, cell_call=call, cell_source=source(*lines))


def source(*lines: str) -> str:
    """Return the source of a cell with these messages."""
    return "\n".join(f"%chat {line}" for line in lines)


def file(*cells: tuple[str | None, str], version: int = 1) -> SavedNotebook:
    """Return a saved notebook of cells with an id and one message or more, separated by commas."""
    saved = (SavedCell(source(*lines.split(",")), cell_id) for cell_id, lines in cells)
    return SavedNotebook(tuple(saved), version=(version, 0))


@dataclass
class Kernel:
    """A kernel that remembers the turns of its cells."""

    turns: list[Turn]
    saved: SavedNotebook | None = None
    memory: KernelMemory = field(default_factory=KernelMemory)

    def run(self, cell_id: str, *lines: str) -> list[str | None]:
        """Run a cell; return the ids of the turns that its calls answer again, ``None`` for one added at the end."""
        self.memory = self.memory.in_a_new_run()
        answered = []
        for number, line in enumerate(lines):
            call = CellCall(cell_id=cell_id, cell_call=number, cell_source=source(*lines))
            found = find_turn(call, line, self.turns, self.memory, lambda: self.saved)
            answered.append(None if found is None else found.id)
            made = turn(cell_id, *lines, call=number)
            if found is None:
                self.turns.append(made)
            elif found.user_text != line:
                self.turns[self.turns.index(found)] = made
            turn_id = made.id if found is None or found.user_text != line else found.id
            version = None if self.saved is None else self.saved.version
            self.memory = self.memory.with_turn(turn_id, call, version)
        self.memory = KernelMemory(self.memory.had, self.memory.holders, self.memory.current, turn_id)
        return answered


def stored(*cells: str | None) -> list[Turn]:
    """Return the turns of cells with these ids: alpha, beta, gamma."""
    return [turn(cell_id, text) for cell_id, text in zip(cells, ("alpha", "beta", "gamma"), strict=False)]


ABC = stored(A, B, C)
FILE = file((A, "alpha"), (B, "beta"), (C, "gamma"))


@pytest.mark.parametrize(
    ("turns", "saved", "cell_id", "text", "expected"),
    [
        pytest.param(ABC, FILE, B, "beta", "beta", id="the same cell"),
        pytest.param(ABC, FILE, D, "beta", None, id="a duplicate"),
        pytest.param(ABC, FILE, D, "new", None, id="a new cell"),
        pytest.param(ABC, FILE, B, "BETA", "beta", id="edited"),
        pytest.param(ABC, None, B, "BETA", "beta", id="edited, and the file cannot be read"),
        pytest.param(ABC, None, B, "gamma", "beta", id="edited to another cell's text"),
        pytest.param(ABC, file((D, "beta")), D, "beta", "beta", id="its cell is gone"),
        pytest.param(stored("0", "1", "2"), file(("0", "top"), ("1", "alpha")), "1", "alpha", "alpha", id="renumbered"),
        pytest.param(stored("0", "1", "2"), file(("0", "top"), ("1", "alpha")), "0", "top", None, id="put on top"),
        pytest.param(
            stored("0", "1"), file(("0", "alpha"), ("1", "BETA")), "1", "BETA", "beta", id="a position, edited"
        ),
        pytest.param(stored("0", "1"), None, "1", "BETA", None, id="a position, and the file cannot be read"),
        pytest.param(
            ABC, file(("0", "alpha"), ("1", "BETA"), ("2", "gamma")), "1", "BETA", "beta", id="stripped, edited"
        ),
        pytest.param(ABC, file(("0", "ALPHA"), ("1", "beta")), "0", "ALPHA", "alpha", id="stripped, first one edited"),
        pytest.param(ABC, file((None, "alpha"), (None, "BETA")), D, "BETA", "beta", id="the old format, edited"),
        pytest.param(
            ABC, file((None, "alpha"), (None, "x"), (None, "beta")), D, "x", None, id="the old format, inserted"
        ),
        pytest.param(stored(None, None), file((A, "alpha"), (B, "beta")), B, "beta", "beta", id="after a batch run"),
    ],
)
def test_rule_decides(
    turns: list[Turn], saved: SavedNotebook | None, cell_id: str, text: str, expected: str | None
) -> None:
    """The first call of a new kernel answers this turn again."""
    assert Kernel([*turns], saved).run(cell_id, text) == [expected]


def test_a_text_notebook_has_neither_ids_nor_cells() -> None:
    """Sources are found among its lines, however jupytext comments magics out."""
    text = SavedNotebook(lines=normal_lines("# %%\n# %chat alpha\n\n# %%\n# %chat BETA\n\n# %%\n# %chat gamma\n"))
    assert Kernel([*ABC], text).run(D, "gamma") == ["gamma"]
    assert Kernel([*ABC], text).run(D, "BETA") == ["beta"]


def test_equal_cells_are_told_apart_by_their_order() -> None:
    """If ids do not last, the first run takes the first turn."""
    turns = [turn(A, "alpha"), said("alpha", id="second", cell_id=B, cell_source=source("alpha"))]
    kernel = Kernel(turns, file((None, "alpha"), (None, "alpha")))
    assert (kernel.run(C, "alpha"), kernel.run(D, "alpha")) == (["alpha"], ["second"])


def test_a_line_above_others_shifts_nothing() -> None:
    """Its turn is added at the end, and the other lines keep their turns."""
    kernel = Kernel([], file((A, "one,two")))
    assert kernel.run(A, "one", "two") == [None, None]
    assert kernel.run(A, "zero", "one", "two") == [None, "one", "two"]
    assert kernel.run(A, "one", "two") == ["one", "two"]


def test_an_edited_call_keeps_its_turn_in_this_kernel() -> None:
    """The saved file does not matter."""
    kernel = Kernel([], file())
    kernel.run(A, "one", "two")
    assert kernel.run(A, "uno", "two") == ["one", "two"]
    assert kernel.run(A, "uno", "due") == ["uno", "two"]


def test_a_split_cell() -> None:
    """The half with a new id asks once if the file was not saved; else it takes the turn of the cell as it was."""
    for saved, asked in ((file((A, "one,two")), None), (file((B, "one"), (A, "two"), version=2), "one")):
        kernel = Kernel([], file((A, "one,two")))
        kernel.run(A, "one", "two")
        kernel.saved = saved
        assert (kernel.run(B, "one"), kernel.run(A, "two")) == ([asked], ["two"])
        assert (kernel.run(B, "one"), kernel.run(A, "two")) == (["one"], ["two"])


def test_merged_cells_keep_their_turns_once_saved() -> None:
    """The merged cell has another id."""
    kernel = Kernel([], file((A, "one"), (B, "two")))
    kernel.run(A, "one")
    kernel.run(B, "two")
    kernel.saved = file((C, "one,two"), version=2)
    assert kernel.run(C, "one", "two") == ["one", "two"]


def test_a_taken_turn_is_not_replaced() -> None:
    """An edited cell does not take back a turn that another cell has now."""
    kernel = Kernel([*ABC], file((D, "beta"), (B, "BETA")))
    assert (kernel.run(D, "beta"), kernel.run(B, "BETA")) == (["beta"], [None])


def test_turns_of_cells_below() -> None:
    """Only cells in the saved file are counted."""
    call = CellCall(cell_id=D, cell_source=source("new"))
    saved = file((A, "alpha"), (D, "new"), (B, "beta"), (C, "edited"))
    assert turns_below(call, ABC, saved) == 2
    assert turns_below(call, ABC, FILE) == 0
    assert turns_below(call, ABC, None) == 0


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_lines_of_a_cell_are_found_wherever_they_are(lines: list[str], wanted: list[str]) -> None:
    """Cells may overlap in a text notebook, since only its lines are known."""
    places = [at for at in range(len(lines)) if lines[at : at + len(wanted)] == wanted]
    assert SavedNotebook(lines=tuple(lines)).places_of("\n".join(wanted)) == places


def test_source_without_lines_is_nowhere() -> None:
    """A blank cell is in no text notebook."""
    assert SavedNotebook(lines=("a", "")).places_of(" \n") == []
