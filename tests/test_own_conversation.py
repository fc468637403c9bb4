"""The conversation of a notebook, by its kernel, its saved file, and the store."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from promptkit_nb import ConversationState
from promptkit_nb.notebook.own_conversation import RunningNotebook, find_conversation
from promptkit_nb.notebook.saved_notebook import Mark, SavedCell, SavedNotebook, normal_lines
from promptkit_nb.state import NotebookNote
from storing import said

if TYPE_CHECKING:
    from collections.abc import Iterable

IDS = ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
NOTE = NotebookNote("/work/eda.ipynb", "here", "kernel-1.json")
NEW_KERNEL = replace(NOTE, kernel="kernel-2.json")
RENAMED = replace(NEW_KERNEL, path="/work/report.ipynb")


def conversation(name: str = "eda", note: NotebookNote = NOTE, **fields: object) -> ConversationState:
    """Return a conversation of three cells."""
    turns = tuple(said(f"say {each}", id=f"{each}-turn", cell_id=each, cell_source=f"%chat {each}") for each in IDS)
    return replace(ConversationState(name, turns=turns, notebook=note), **fields)  # type: ignore[arg-type]  # its fields


def saved(*letters: int, mark: str | None = None, ids: bool = True) -> SavedNotebook:
    """Return a notebook with these cells of the conversation, with or without their ids and marks."""
    return SavedNotebook(
        tuple(
            SavedCell(
                f"%chat {IDS[at]}",
                IDS[at] if ids else str(at),
                () if mark is None else (Mark(mark, f"{IDS[at]}-turn"),),
            )
            for at in letters
        )
    )


@dataclass
class Known:
    """The conversations of all notebooks."""

    states: list[ConversationState] = field(default_factory=list)

    def of_kernel(self, kernel: str) -> list[ConversationState]:
        """Return those of this kernel."""
        return [each for each in self.states if each.notebook and each.notebook.kernel == kernel]

    def of_path(self, path: str) -> list[ConversationState]:
        """Return those at this path."""
        return [each for each in self.states if each.notebook and each.notebook.path == path]

    def named(self, conversation_ids: Iterable[str]) -> list[ConversationState]:
        """Return those with these ids."""
        return [each for each in self.states if each.conversation_id in {*conversation_ids}]


def found(
    note: NotebookNote,
    file: SavedNotebook | None,
    *states: ConversationState,
    others: dict[str, SavedNotebook] | None = None,
    cell: tuple[str, str] = ("ffffffff", "%chat new"),
) -> str:
    """Return what is found: the id, after ``copy of`` for a copy; ``new`` if nothing is."""
    running = RunningNotebook(note=note, cell_id=cell[0], cell_source=cell[1])
    result = find_conversation(running, Known([*states]), lambda: file, (others or {}).get)
    if result is None:
        return "new"
    return f"copy of {result.state.conversation_id}" if result.is_copy else result.state.conversation_id


@pytest.mark.parametrize(
    ("note", "file", "expected"),
    [
        pytest.param(NOTE, SavedNotebook(), "eda", id="the same kernel, and a file that was never saved"),
        pytest.param(replace(NOTE, path="/work/x.ipynb"), None, "eda", id="the same kernel under another name"),
        pytest.param(NEW_KERNEL, saved(0, 1, 2), "eda", id="the same path, with its cells"),
        pytest.param(NEW_KERNEL, saved(2), "eda", id="the same path, with one of its cells"),
        pytest.param(NEW_KERNEL, None, "eda", id="the same path, and a file that cannot be read"),
        pytest.param(NEW_KERNEL, saved(0, 1, 2, ids=False), "eda", id="the same path, with ids that are positions"),
        pytest.param(NEW_KERNEL, SavedNotebook(lines=normal_lines("# %chat bbbbbbbb")), "eda", id="a text notebook"),
        pytest.param(NEW_KERNEL, SavedNotebook(lines=normal_lines("# %chat else")), "new", id="another text notebook"),
        pytest.param(NEW_KERNEL, SavedNotebook((SavedCell("x", "dddddddd"),)), "new", id="none of its cells"),
        pytest.param(NEW_KERNEL, SavedNotebook((SavedCell("%chat aaaaaaaa", "dddddddd"),)), "new", id="a source alone"),
        pytest.param(replace(NEW_KERNEL, host="there"), saved(0, 1, 2), "new", id="a template at another machine"),
        pytest.param(replace(NEW_KERNEL, host="there"), saved(0, 1, 2, mark="eda"), "eda", id="checked out elsewhere"),
        pytest.param(RENAMED, saved(0, 1, 2, mark="eda"), "eda", id="renamed"),
        pytest.param(RENAMED, saved(0, 1, 2), "new", id="renamed, with outputs cleared: ids prove no notebook"),
        pytest.param(RENAMED, saved(0, mark="eda"), "new", id="one cell pasted with its output"),
        pytest.param(replace(RENAMED, host="there"), saved(0, 1, 2, mark="eda"), "copy of eda", id="copied elsewhere"),
        pytest.param(replace(NEW_KERNEL, path=""), saved(0, 1, 2, mark="eda"), "new", id="without a name"),
    ],
)
def test_rule_decides(note: NotebookNote, file: SavedNotebook | None, expected: str) -> None:
    """The notebook of a conversation of three cells is opened like this."""
    assert found(note, file, conversation()) == expected


def test_running_cell_is_part_of_the_notebook() -> None:
    """It may not be saved yet."""
    assert found(NEW_KERNEL, SavedNotebook(), conversation(), cell=(IDS[0], "%chat changed")) == "eda"
    assert found(NEW_KERNEL, SavedNotebook(), conversation(), cell=("0", "%chat aaaaaaaa")) == "eda"
    assert found(NEW_KERNEL, saved(0), conversation(), cell=("dddddddd", "%chat bbbbbbbb")) == "eda"


def test_a_copy_has_an_original_that_still_shows_it() -> None:
    """If the recorded file has other cells now, the notebook was moved."""
    copied = saved(0, 1, 2, mark="eda")
    assert found(RENAMED, copied, conversation(), others={NOTE.path: saved(0, 1, 2)}) == "copy of eda"
    assert found(RENAMED, copied, conversation(), others={NOTE.path: saved(0)}) == "eda"


def test_a_fork_comes_before_its_original() -> None:
    """A copy that was run names both."""
    file = SavedNotebook((*saved(0, mark="eda").cells, *saved(1, 2, mark="copy").cells))
    fork = conversation("copy", RENAMED, metadata={"forked_from": "eda"})
    assert found(replace(RENAMED, path="/work/moved.ipynb"), file, conversation(), fork) == "copy"


def test_a_former_version_is_shown_by_its_mark() -> None:
    """Another kernel may have answered again since the notebook was saved."""
    state = conversation()
    first = replace(state.turns[0], id="later", cell_id="dddddddd")
    newer = replace(state, turns=(first, *state.turns[1:]), versions={"later": (state.turns[0],)})
    assert found(RENAMED, saved(0, 1, mark="eda"), newer) == "eda"


def test_a_conversation_without_turns_belongs_to_its_path() -> None:
    """The first message failed; there is nothing to inherit."""
    assert found(NEW_KERNEL, saved(), conversation(turns=())) == "eda"


def test_a_panel_leaves_its_mark() -> None:
    """If no cell asked anything, the path alone does not decide, except for what version 0.1 stored."""
    turns = tuple(replace(turn, cell_id=None, cell_source=None) for turn in conversation().turns)
    marked = SavedNotebook((SavedCell("%chat_panel", "dddddddd", (Mark("eda"),)),))
    assert found(NEW_KERNEL, SavedNotebook(marked.cells[:0]), conversation(turns=turns)) == "new"
    assert found(NEW_KERNEL, marked, conversation(turns=turns)) == "eda"
    assert found(NEW_KERNEL, saved(), conversation(turns=turns, notebook=replace(NOTE, kernel=""))) == "eda"
