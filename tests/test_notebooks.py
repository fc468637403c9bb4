"""The tutorials as documents: everything that nbval, which compares their outputs, does not check."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import desk_conversations
from programs import require_program

TUTORIALS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))

# Values that differ between runs or machines, so saved outputs must not contain them.
UNSTABLE = {
    "an absolute path": r"(?<![\w.<])/(?:home|tmp|work|root|usr|var|opt|Users|private)/",
    "a date": r"\b\d{4}-\d\d-\d\d\b",
    "a time of day": r"\b\d\d:\d\d\b",
    "a duration": r"\b\d+(?:\.\d+)? m?s\b",
    "an address in memory": r"\b0x[0-9a-f]{6,}\b",
    "a generated id": r"\b(?:[0-9a-f]{32}|\d{8}T\d{6})",
}

DATED = {
    "05_cost_and_usage": ("a date", "a time of day"),
    "16_other_tools": ("a date", "a time of day"),
}
"""Exceptions: values that come from the data of a tutorial."""


@pytest.fixture(params=TUTORIALS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each tutorial in turn."""
    chosen: Path = request.param
    return chosen


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    """The content of each tutorial in turn."""
    read: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's has no types
    return read


def test_there_are_tutorials() -> None:
    """The tests below have something to check."""
    assert [path.stem for path in TUTORIALS][:2] == ["01_first_conversation", "02_sessions"]


def test_begins_with_a_title(notebook: NotebookNode) -> None:
    """The first cell is prose, and its first line is the only title."""
    titles = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in _headings(cell, "# ")]
    assert notebook.cells[0].cell_type == "markdown"
    assert titles == [notebook.cells[0].source.splitlines()[0]]


def test_begins_with_what_you_learn(notebook: NotebookNode) -> None:
    """Below the title is a table of goals or symptoms, and where they lead."""
    assert re.search(r"^\| you (?:want to|see) \|.*\n\| --- \|", notebook.cells[0].source, re.MULTILINE)


def test_ends_with_where_to_go_next(notebook: NotebookNode, path: Path) -> None:
    """The last cell links to other tutorials."""
    last = notebook.cells[-1]
    assert "Where to go next" in last.source
    assert set(re.findall(r"\]\((\d\d_\w+\.ipynb)\)", last.source)) - {path.name}


def test_every_code_cell_is_introduced(notebook: NotebookNode) -> None:
    """At most two code cells follow each other without prose between them."""
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "ccc" not in kinds


def test_cell_ids_are_names(notebook: NotebookNode) -> None:
    """Each cell has a unique, readable id, so that diffs are readable and turns can be matched with cells."""
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name)] == []


def test_runs_on_any_python_kernel(notebook: NotebookNode) -> None:
    """The kernel is one that every installation has."""
    assert notebook.metadata.kernelspec.name == "python3"


def test_was_run_from_top_to_bottom(notebook: NotebookNode) -> None:
    """The saved outputs come from one run in order; nbval skips cells that were not run."""
    counts = [cell.execution_count for cell in _code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_cells_that_show_something_have_output(notebook: NotebookNode) -> None:
    """A cell has saved output if, and only if, it prints, chats, or ends in an expression."""
    cells = _code_cells(notebook)
    assert [cell.id for cell in cells if bool(cell.outputs) != _shows_something(cell.source)] == []


def test_nothing_failed(notebook: NotebookNode) -> None:
    """No saved output is an error or comes from stderr."""
    outputs = [output for cell in _code_cells(notebook) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize("unstable", UNSTABLE)
def test_outputs_are_the_same_everywhere(path: Path, notebook: NotebookNode, unstable: str) -> None:
    """No output, as text or as HTML, contains values that differ between runs or machines."""
    if unstable in DATED.get(path.stem, ()):
        return
    texts = [text for cell in _code_cells(notebook) for output in cell.outputs for text in _texts(output)]
    assert [text for text in texts if re.search(UNSTABLE[unstable], text)] == []


def test_nothing_is_left_out_of_the_comparison(notebook: NotebookNode) -> None:
    """No cell is tagged, so nbval compares all of them; and none stores the times of its run."""
    assert [cell.id for cell in notebook.cells if cell.metadata] == []


@pytest.mark.kernel
def test_leaves_the_users_store_alone(path: Path, tmp_path: Path) -> None:
    """Without a browser, a tutorial runs, does not touch the user's store, and does not change its own file."""
    if path.stem == "06_redis":
        require_program("redis-server")
    before = path.read_bytes()
    home = tmp_path / "home"
    subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", path],
        env={**os.environ, "PROMPTKIT_HOME": str(home)},
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert not home.exists()
    assert path.read_bytes() == before


def test_conversations_of_the_desk_match_their_script(tmp_path: Path) -> None:
    """The store for the tutorial on cost is what its script writes, whichever price list is installed."""
    desk_conversations.write(tmp_path / "desk.jsonl")
    made, kept = (path.read_text() for path in (tmp_path / "desk.jsonl", desk_conversations.PATH))
    assert re.sub(r"genai-prices [\d.]+", "genai-prices", made) == re.sub(r"genai-prices [\d.]+", "genai-prices", kept)


def _headings(cell: NotebookNode, mark: str) -> list[str]:
    return [line for line in cell.source.splitlines() if line.startswith(mark)]


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _shows_something(source: str) -> bool:
    if source.startswith("%"):
        return "%chat" in source
    body = ast.parse(source).body
    ends_in_value = isinstance(body[-1], ast.Expr)
    at_once = [statement for statement in body if not isinstance(statement, ast.FunctionDef | ast.ClassDef)]
    calls = [node.func for statement in at_once for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return ends_in_value or any(isinstance(call, ast.Name) and call.id == "print" for call in calls)


def _texts(output: NotebookNode) -> list[str]:
    return [output.text] if output.output_type == "stream" else list(output.data.values())
