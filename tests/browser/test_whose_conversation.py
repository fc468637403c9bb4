"""JupyterLab: notebooks that are renamed, moved, duplicated and old keep their conversation, cells their turns."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from uuid import uuid4

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from chat_server import ChatServer, Reply, Request
from promptkit_nb import DiskStore, Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook, LabServer

pytestmark = pytest.mark.browser

SETUP = """
import os
os.environ["OPENAI_API_KEY"] = "sk-test-1"
%load_ext promptkit_nb
%chat_setup --base-url {url} --model gpt-4o-mini
"""
ANSWERS = ["answer 1", "answer 2", "answer 3"]


@pytest.fixture
def server(chat_server: ChatServer) -> ChatServer:
    """The server that the kernels of this test use; its answers are numbered."""

    def usual(_: Request) -> Reply:
        return Reply(text=f"answer {len(chat_server.requests)}")

    chat_server.usual = usual
    return chat_server


@pytest.fixture
def heads(lab: LabServer) -> Callable[[str], list[Head]]:
    """Return the conversations of notebooks whose first name begins with some text, oldest first."""

    def found(name: str) -> list[Head]:
        with DiskStore(lab.directory.parent / "promptkit") as store:
            return store.list(prefix=f"nb:{name}", sort_by="created_at", descending=False)

    return found


def opened(lab: LabServer, page: Page, server: ChatServer, name: str) -> LabNotebook:
    """Write a notebook with cells that were made in JupyterLab, open it, run all, and save it."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]  # nbformat has no annotations
    talk = [f"%%chat\n{text} of {name}" for text in ("alpha", "beta", "gamma")]  # what no other test has asked
    for source in (SETUP.format(url=server.url), *talk):
        notebook.cells.append(new_code_cell(source, id=str(uuid4())))  # type: ignore[no-untyped-call]  # same
    nbformat.write(notebook, lab.directory / name)  # type: ignore[no-untyped-call]  # same
    return _ran(lab.reopen_notebook(page, name))


def _ran(notebook: LabNotebook) -> LabNotebook:
    notebook.run_all()
    notebook.save()
    return notebook


def answers(notebook: LabNotebook) -> list[str]:
    """Return the answers that the chat cells show."""
    shown = [notebook.outputs(at)[-1]["data"]["text/plain"].partition("\n\n")[0] for at in range(1, _count(notebook))]
    return [text for text in shown if text.startswith("answer")]


def _count(notebook: LabNotebook) -> int:
    return int(notebook.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length"))


def first_line(notebook: LabNotebook) -> str:
    """Return what the first chat cell says about its conversation."""
    text: str = notebook.outputs(1)[0]["text"]
    return re.sub(r"(nb:[\w-]+):[0-9a-f]{8}", r"\1:…", text).rstrip("\n")


def files(notebook: LabNotebook, call: str) -> None:
    """Change files through the server, as the file browser does."""
    notebook.in_page(f"jupyterapp.serviceManager.contents.{call}.then(() => {{}})")


def test_a_renamed_and_moved_notebook(
    lab: LabServer, page: Page, server: ChatServer, heads: Callable[[str], list[Head]]
) -> None:
    """Restart & Run All is free, in the same conversation; the next notebook of the old name starts alone."""
    notebook = opened(lab, page, server, "Untitled.ipynb")
    files(notebook, "rename('Untitled.ipynb', 'eda.ipynb')")
    notebook.restart_and_run_all()
    assert first_line(notebook) == "resumed 'nb:Untitled:…', 3 turns, $0.000014 (the notebook was Untitled.ipynb)"
    (lab.directory / "june").mkdir()
    files(notebook, "rename('eda.ipynb', 'june/eda.ipynb')")
    notebook.restart_and_run_all()
    assert answers(notebook) == ANSWERS
    assert (len(server.requests), [head.turn_count for head in heads("Untitled")]) == (3, [3])

    another = lab.open_notebook(page, [SETUP.format(url=server.url), "%%chat\nWho am I?"], "Untitled.ipynb")
    another.run_all()
    assert [message["content"] for message in server.requests[-1].body["messages"]] == ["Who am I?"]


def test_a_duplicated_notebook(
    lab: LabServer, page: Page, server: ChatServer, heads: Callable[[str], list[Head]]
) -> None:
    """The copy runs for free and continues in its own conversation; the original does not change."""
    opened(lab, page, server, "a.ipynb")
    (before,) = heads("a:")
    page.evaluate("() => jupyterapp.serviceManager.contents.copy('a.ipynb', '')")
    copy = lab.reopen_notebook(page, "a-Copy1.ipynb")
    copy.run_all()
    assert first_line(copy) == "started 'nb:a-Copy1:…' as a copy of 'nb:a:…', because this notebook is a copy"
    assert (answers(copy), len(server.requests)) == (ANSWERS, 3)
    copy.set_source(2, "%%chat\nBETA")
    copy.run_all()
    assert (answers(copy), len(server.requests)) == (["answer 1", "answer 4", "answer 5"], 5)
    copy.save()
    original = lab.reopen_notebook(page, "a.ipynb")
    original.restart_and_run_all()
    assert (answers(original), len(server.requests)) == (ANSWERS, 5)
    (after,) = heads("a:")
    assert (after, after.revision) == (before, before.revision)


def test_a_notebook_of_format_4_4(
    lab: LabServer, page: Page, server: ChatServer, heads: Callable[[str], list[Head]]
) -> None:
    """JupyterLab generates new ids whenever it opens the notebook, and never saves them."""
    notebook = opened(lab, page, server, "old.ipynb")
    saved = json.loads(notebook.path.read_text("utf-8"))
    for cell in saved["cells"]:
        del cell["id"]
    saved["nbformat_minor"] = 4
    for _ in range(2):
        notebook.shut_down_kernel()
        notebook.path.write_text(json.dumps(saved), "utf-8")
        notebook = lab.reopen_notebook(page, "old.ipynb")
        notebook.run_all()
        assert answers(notebook) == ANSWERS
        assert "id" not in nbformat.reader.reads(json.dumps(notebook.save()))["cells"][0]  # type: ignore[no-untyped-call]  # same
    assert (len(server.requests), [head.turn_count for head in heads("old")]) == (3, [3])


def test_cells_that_are_cut_pasted_and_split(lab: LabServer, page: Page, server: ChatServer) -> None:
    """A cell that is cut and pasted keeps its turn; of a cell that is split, only the half with a new id asks."""
    notebook = opened(lab, page, server, "cells.ipynb")
    notebook.select(1)
    notebook.command("notebook:cut-cell")
    notebook.select(2)
    notebook.command("notebook:paste-cell-below")
    notebook.run_all()
    assert sorted(answers(notebook)) == ANSWERS
    assert len(server.requests) == 3

    notebook.set_source(3, "%chat one\n%chat two")
    notebook.run_cell(3)
    asked = len(server.requests)
    notebook.page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.activeCell.editor.setCursorPosition({line: 1, column: 0})"
    )
    notebook.command("notebook:split-cell-at-cursor")
    assert (notebook.source(3), notebook.source(4)) == ("%chat one", "%chat two")
    notebook.run_cell(3)
    notebook.run_cell(4)
    assert len(server.requests) == asked + 1
    notebook.run_cell(3)
    notebook.run_cell(4)
    assert len(server.requests) == asked + 1
