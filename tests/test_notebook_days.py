"""A random day of work: cells and notebooks are edited, copied, renamed, stripped, and run, in two kernels.

Whatever happens, no request carries what the notebook did not say, no cell loses its turn to another one, and a
notebook that did not change costs nothing when it is run again.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.utils.capture import capture_output

from promptkit_nb import ConversationManager, MemoryStore, Usage
from promptkit_nb.chat.options import CallOptions
from promptkit_nb.notebook import notebook_file
from promptkit_nb.notebook.session import ChatSession
from promptkit_nb.notebook.settings import NotebookSettings
from promptkit_nb.pricing import UNKNOWN_COST, CallCost
from promptkit_nb.providers.base import Completion, TextDelta
from shells import new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb.providers.base import ChatRequest, StreamEvent

VERBS = (
    *("edit", "edit", "insert", "insert", "delete", "move", "split", "merge", "copy cell", "put a line above", "save"),
    *(
        "save",
        "run one",
        "run all",
        "run all",
        "restart",
        "reopen",
        "strip",
        "rename",
        "rename closed",
        "copy notebook",
    ),
    *("new notebook", "second kernel", "switch", "switch", "execute", "rest"),
)
TEMPLATE = [f"0000000{at}-6d0b-4a53-9a4f-0b7d3c1e2f10" for at in range(3)]
Step = tuple[str, int, int]


class Numbered:
    """Answers each request with a number of its own, and keeps the user's messages."""

    name = "numbered"
    model = "any"

    def __init__(self) -> None:
        """Start without a request."""
        self.asked: list[list[str]] = []

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Answer with the number of the request."""
        self.asked.append([message.content for message in request.messages if message.role == "user"])
        yield TextDelta(f"answer {len(self.asked)}")
        yield Completion(model=request.model, finish_reason="stop", usage=Usage(10, 5))

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:  # noqa: ARG002 - unknown for every model
        """Return an unknown cost."""
        return UNKNOWN_COST


@dataclass
class Cell:
    """A cell of ``%chat`` lines; ``had`` are the lines with the ids of the turns that they had last."""

    lines: list[str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    had: dict[int, tuple[str, str]] = field(default_factory=dict)
    outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The source."""
        return "\n".join(f"%chat {line}" for line in self.lines)


@dataclass
class Notebook:
    """An open notebook; ``said`` is what its cells ever said, or those of the notebook that it was copied from."""

    path: Path
    cells: list[Cell]
    said: set[str]
    session: ChatSession | None = None
    kernel: str = ""
    is_position: bool = False


class Day:
    """One person's notebooks, one store, and the kernels."""

    def __init__(self, shell: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begin with one new notebook."""
        self.provider = Numbered()
        self.store = MemoryStore()
        self.manager = ConversationManager(self.provider, self.store, replay="auto")
        self.shell = shell
        self.folder = folder
        self.patch = monkeypatch
        self.written = 0
        self.said_at: dict[Path, set[str]] = {}
        self.open = [self.new()]

    @property
    def notebook(self) -> Notebook:
        """The notebook that the person looks at."""
        return self.open[0]

    def new(self) -> Notebook:
        """Open a new notebook, perhaps one whose name another one had."""
        free = next(n for n in range(100) if not (self.folder / f"Untitled{n}.ipynb").exists())
        lines = [[self.words()], [self.words(), self.words()], [self.words()]]
        notebook = Notebook(self.folder / f"Untitled{free}.ipynb", [Cell(each) for each in lines], set())
        self.save(notebook)
        return notebook

    def from_template(self) -> Notebook:
        """Open a new notebook that has its first cells, and their ids, from a template; its second cell is its own."""
        cells = [Cell([f"template {at}"], id=each) for at, each in enumerate(TEMPLATE)]
        cells[1].lines = [self.words()]
        notebook = Notebook(self.folder / f"{self.words().replace(' ', '-')}.ipynb", cells, set())
        self.save(notebook)
        return notebook

    def words(self) -> str:
        """Return words that no cell has used yet."""
        self.written += 1
        return f"words {self.written}"

    def save(self, notebook: Notebook) -> None:
        """Write the file as it is shown."""
        cells = [
            {"cell_type": "code", "id": cell.id, "source": cell.source, "outputs": cell.outputs, "metadata": {}}
            for cell in notebook.cells
        ]
        notebook.path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        self.said_at[notebook.path] = notebook.said

    def read(self, path: Path) -> Notebook:
        """Open a saved notebook in another tab; its kernel starts with its first cell."""
        found = json.loads(path.read_text())["cells"]
        cells = [
            Cell([line.removeprefix("%chat ") for line in each["source"].splitlines()], each["id"], {}, each["outputs"])
            for each in found
        ]
        return Notebook(path, cells, self.said_at[path], is_position=any(cell.id.isdigit() for cell in cells))

    def run(self, notebook: Notebook, *cells: Cell, batch: bool = False) -> int:
        """Run cells as a front end does, or a program; return how many requests that took."""
        before = len(self.provider.asked)
        if notebook.session is None:
            notebook.session = self.session()
            notebook.kernel = f"kernel-{uuid.uuid4()}.json"
        self.patch.setenv("JPY_SESSION_NAME", str(notebook.path))
        self.patch.setattr(notebook_file, "connection_file", lambda: notebook.kernel)
        for cell in cells:
            content = {"code": cell.source, "allow_stdin": not batch}
            parent = {"content": content, "metadata": {} if batch else {"cellId": cell.id}}
            self.shell.kernel = SimpleNamespace(get_parent=lambda _, parent=parent: parent)
            kept = self.kept(notebook, cell)
            cell.outputs, cell.had = [], {}
            notebook.session.cell._source, notebook.session.cell._calls = cell.source, 0
            for at, line in enumerate(cell.lines):
                notebook.said.add(line)
                with capture_output() as captured:
                    response = notebook.session.ask(line, CallOptions())
                assert response is not None
                cell.had[at] = line, response.turn.id
                cell.outputs.append(
                    {"output_type": "display_data", "data": {}, "metadata": captured.outputs[-1].metadata or {}}
                )
            assert kept <= self.kept(notebook, cell)  # a cell replaces its own turns only
        for asked in self.provider.asked[before:]:
            assert set(asked) <= notebook.said
        return len(self.provider.asked) - before

    def kept(self, notebook: Notebook, ran: Cell) -> set[tuple[str, str]]:
        """Return the turns of other cells that are still in the place where these cells had them, with their lines."""
        texts: dict[str, str] = {}
        for head in self.store.list():
            state = self.store.get(head.conversation_id)
            texts |= {turn.id: turn.user_text for turn in state.turns}
            texts |= {turn.id: texts.get(current, "") for current, each in state.versions.items() for turn in each}
        others = [cell for cell in notebook.cells if cell is not ran]
        had = [(line, turn_id) for cell in others for line, turn_id in cell.had.values() if line in cell.lines]
        return {(line, turn_id) for line, turn_id in had if texts.get(turn_id) == line}

    def session(self) -> ChatSession:
        """Start a kernel."""
        self.patch.setattr(NotebookSettings, "store", property(lambda _: self.store))
        self.patch.setattr(NotebookSettings, "manager", property(lambda _: self.manager))
        return ChatSession(self.shell)

    def settle(self, notebook: Notebook) -> None:
        """Run all cells until nothing is asked any more: turns that were said later may have changed meanwhile."""
        for _ in range(sum(len(cell.lines) for cell in notebook.cells) + 2):
            if self.run(notebook, *notebook.cells) == 0:
                return
        pytest.fail("Run All never ends asking")

    def rest(self, at: int) -> None:
        """Run all, then run all again after a pause of some kind: it costs nothing."""
        notebook = self.notebook
        self.save(notebook)
        self.settle(notebook)
        self.save(notebook)
        sources = [cell.source for cell in notebook.cells]
        lines = [line for cell in notebook.cells for line in cell.lines]
        has_twins = len(set(sources)) < len(sources) or len(set(lines)) < len(lines)
        pause = ["none", "restart", "reopen", "strip"][at % 4]
        if has_twins and (pause == "strip" or notebook.is_position):
            return  # equal messages are told apart by their order only
        if pause == "restart":
            notebook.session = self.session()
        elif pause in ("reopen", "strip"):
            if pause == "strip":
                self.strip(notebook)
            self.open[0] = notebook = self.read(notebook.path)
        assert self.run(notebook, *notebook.cells) == 0

    def strip(self, notebook: Notebook) -> None:
        """Do to the saved file what nbstripout does."""
        saved = json.loads(notebook.path.read_text())
        for number, cell in enumerate(saved["cells"]):
            cell.update(id=str(number), outputs=[])
        notebook.path.write_text(json.dumps(saved))

    def step(self, verb: str, at: int, more: int) -> None:  # noqa: C901, PLR0912, PLR0915 - one branch a verb
        """Do one random action."""
        notebook = self.notebook
        cells = notebook.cells
        cell = cells[at % len(cells)]
        if verb == "edit":
            cell.lines[more % len(cell.lines)] = self.words()
        elif verb == "insert":
            cells.insert(at % (len(cells) + 1), Cell([self.words()]))
        elif verb == "put a line above":
            cell.lines.insert(0, self.words())
        elif verb == "delete" and len(cells) > 1:
            cells.remove(cell)
        elif verb == "move":
            cells.remove(cell)
            cells.insert(more % (len(cells) + 1), cell)
        elif verb == "split" and len(cell.lines) > 1:
            upper = Cell(cell.lines[:1])
            cell.lines = cell.lines[1:]
            cells.insert(cells.index(cell), upper)
        elif verb == "merge" and len(cells) > 1:
            place = at % (len(cells) - 1)
            cells[place : place + 2] = [Cell([*cells[place].lines, *cells[place + 1].lines])]
        elif verb == "copy cell":
            cells.insert(more % (len(cells) + 1), Cell([*cell.lines], outputs=[*cell.outputs]))
        elif verb == "save":
            self.save(notebook)
        elif verb == "run one":
            self.run(notebook, cell)
        elif verb == "run all":
            self.run(notebook, *cells)
        elif verb == "restart":
            notebook.session = self.session() if notebook.session else None
        elif verb == "reopen":
            self.open[0] = self.read(notebook.path)
        elif verb == "strip":
            self.save(notebook)
            self.strip(notebook)
            self.open[0] = self.read(notebook.path)
        elif verb in ("rename", "rename closed"):
            others = [each for each in self.open[1:] if each.path == notebook.path]
            if not others:
                self.said_at.pop(notebook.path, None)
                new = self.folder / f"renamed-{self.words()}.ipynb"
                os.replace(notebook.path, new)  # noqa: PTH105 - pathlib's reads the same
                self.said_at[new] = notebook.said
                notebook.path = new
                if verb == "rename closed":
                    self.open[0] = self.read(new)
                elif notebook.session is not None:
                    notebook.session = self.session()
                if more % 2:
                    self.open.insert(0, self.new())
        elif verb == "copy notebook":
            self.save(notebook)
            new = self.folder / f"copy-{self.words()}.ipynb"
            new.write_text(notebook.path.read_text())
            self.said_at[new] = {*notebook.said}
            self.open.insert(0, self.read(new))
            if at % 2:  # the copy goes its own way, and then the original goes on
                self.notebook.cells.append(Cell([self.words()]))
                self.run(self.notebook, *self.notebook.cells)
                cells.append(Cell([self.words()]))
                self.run(notebook, cells[-1])
        elif verb == "new notebook":
            self.open.insert(0, self.from_template() if more % 2 else self.new())
        elif verb == "second kernel":
            self.open.insert(0, self.read(notebook.path))
        elif verb == "switch":
            self.open.insert(0, self.open.pop(at % len(self.open)))
        elif verb == "execute":
            executed = self.read(notebook.path)
            self.run(executed, *executed.cells, batch=True)
        elif verb == "rest":
            self.rest(at)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 7), st.integers(0, 7)), min_size=5, max_size=30))
def test_a_day(steps: list[Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaks, no cell replaces the turn of another, and unchanged cells are free."""
    folder = tmp_path / str(uuid.uuid4())
    folder.mkdir()
    with monkeypatch.context() as patch:
        day = Day(new_shell(), folder, patch)
        for verb, at, more in steps:
            day.step(verb, at, more)
            if verb != "save" and more % 4:
                day.run(day.notebook, *day.notebook.cells[: more % 4])
        day.rest(0)
