"""Chat cells in JupyterLab: run again, edited and run, restarted and run all; turns, requests and outputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb import Conversation, ConversationManager, DemoProvider, DiskStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook, LabServer
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

SETUP = """
import os
os.environ["OPENAI_API_KEY"] = "sk-test-1"
%load_ext promptkit_nb
%chat_setup --base-url {url} --model gpt-4o-mini
%chat_use {conversation_id}
"""
SOURCES = ("%%chat\nMy name is Alice", "%%chat\nA poem, please", "%%chat\nWhat's my name?")
CELLS = (1, 2, 3)
HISTORY = 4


@pytest.fixture
def store(lab: LabServer) -> Iterator[DiskStore]:
    """The store of the lab's kernels."""
    with DiskStore(lab.directory.parent / "promptkit") as opened:
        yield opened


def opened(lab: LabServer, page: Page, server: ChatServer, conversation_id: str) -> LabNotebook:
    """Open a notebook with three chat cells and the history."""
    setup = SETUP.format(url=server.url, conversation_id=conversation_id)
    return lab.open_notebook(page, [setup, *SOURCES, "%chat_history"], name=f"{conversation_id}.ipynb")


def conversation(store: DiskStore, conversation_id: str) -> Conversation:
    """Return the conversation of the notebook."""
    return ConversationManager(DemoProvider(), store).get_conversation(conversation_id)


def said(turns: tuple[Any, ...]) -> list[str]:
    """Return the questions of these turns."""
    return [turn.user_text for turn in turns]


def answers(notebook: LabNotebook) -> list[tuple[str, str]]:
    """Return the text and HTML outputs of the chat cells, without cost and seconds in the receipts."""
    bundles = [notebook.outputs(cell)[-1]["data"] for cell in CELLS]
    return [(_unpaid(bundle["text/plain"]), _unpaid(bundle["text/html"])) for bundle in bundles]


def receipts(notebook: LabNotebook) -> list[str]:
    """Return the receipt of each chat cell, without the seconds."""
    lines = [notebook.outputs(cell)[-1]["data"]["text/plain"].splitlines()[-1] for cell in CELLS]
    return [re.sub(r"\d+\.\d s", "0.0 s", line) for line in lines]


def _unpaid(text: str) -> str:
    text = re.sub(r"(replayed · \$0\.00 \(saved (\$[\d.]+)\)|\$[\d.]+) · \d+\.\d s", "PAID", text)
    return re.sub(r"stored answer · saved &lt;\$0\.0001|&lt;\$0\.0001 · \d+\.\d s|&lt;PAID", "PAID", text)


def test_cells_own_their_turns(lab: LabServer, page: Page, store: DiskStore, chat_server: ChatServer) -> None:
    """Run, run again, edit and run, refresh, restart: each step writes and sends only what is documented."""
    notebook = opened(lab, page, chat_server, "own-turns")
    notebook.run_all()
    conv = conversation(store, "own-turns")
    asked = ["My name is Alice", "A poem, please", "What's my name?"]
    paid = "gpt-4o-mini · 10/5 tokens · $0.0000045 · 0.0 s · own-turns"
    free = "gpt-4o-mini · 10/5 tokens · replayed · $0.00 (saved $0.0000045) · 0.0 s · own-turns"
    assert (said(conv.turns), said(conv.stale_turns), len(chat_server.requests)) == (asked, [], 3)
    assert [turn.cell_id for turn in conv.turns] == ["cell-1", "cell-2", "cell-3"]
    assert receipts(notebook) == [paid, paid, paid]
    first, previous = answers(notebook), conv.turns

    notebook.run_cell(1)
    assert (conv.turns, said(conv.stale_turns), len(chat_server.requests)) == (previous, [], 3)
    assert answers(notebook) == first
    assert receipts(notebook) == [free, paid, paid]

    notebook.set_source(2, "%%chat\nA short poem, please")
    notebook.run_cell(2)
    assert said(conv.turns) == ["My name is Alice", "A short poem, please", "What's my name?"]
    assert (said(conv.stale_turns), len(chat_server.requests)) == (["What's my name?"], 4)
    assert conv.versions(1) == (previous[1],)
    assert receipts(notebook)[1] == f"{paid} · 1 later turn was answered before this change"
    notebook.run_cell(HISTORY)
    lines = notebook.outputs(HISTORY)[0]["data"]["text/plain"].splitlines()
    assert [line for line in lines if "stale" in line] == ["assistant  Your name is Alice.  (stale)"]

    notebook.run_cell(3)
    assert (said(conv.stale_turns), len(chat_server.requests)) == ([], 5)
    before, turns, revision = answers(notebook), conv.turns, conv.snapshot().state.revision

    notebook.restart_and_run_all()
    assert (conv.turns, len(chat_server.requests)) == (turns, 5)
    assert conv.snapshot().state.revision == revision
    unmarked = [re.sub(r" · 1 later turn .* change", "", text) for text, _ in before]
    assert unmarked == [text for text, _ in answers(notebook)]
    assert receipts(notebook) == [free, free, free]


def test_restart_and_run_all_shows_the_same(
    lab: LabServer, page: Page, store: DiskStore, chat_server: ChatServer
) -> None:
    """Nothing is sent or written; the outputs of the chat cells differ only in their receipts."""
    notebook = opened(lab, page, chat_server, "all-again")
    notebook.run_all()
    first, history = answers(notebook), notebook.outputs(HISTORY)[0]["data"]
    revision = conversation(store, "all-again").snapshot().state.revision
    for _ in range(2):
        notebook.restart_and_run_all()
        assert answers(notebook) == first
        assert notebook.outputs(HISTORY)[0]["data"] == history
    assert conversation(store, "all-again").snapshot().state.revision == revision
    assert len(chat_server.requests) == 3


def test_cells_that_are_moved_copied_and_deleted(
    lab: LabServer, page: Page, store: DiskStore, chat_server: ChatServer
) -> None:
    """Moving and deleting change nothing; a copied cell is a new one, answered at the end."""
    notebook = opened(lab, page, chat_server, "moved")
    notebook.run_all()
    conv = conversation(store, "moved")
    turns = conv.turns

    notebook.select(1)
    notebook.command("notebook:move-cell-down")
    notebook.restart_and_run_all()
    assert (conv.turns, len(chat_server.requests)) == (turns, 3)

    notebook.select(1)
    notebook.command("notebook:copy-cell")
    notebook.command("notebook:paste-cell-below")
    notebook.run_cell(2)
    assert (conv.turns[:3], len(chat_server.requests)) == (turns, 4)
    assert said(conv.turns[3:]) == ["A poem, please"]

    notebook.select(2)
    notebook.command("notebook:delete-cell")
    notebook.restart_and_run_all()
    assert (said(conv.turns), len(chat_server.requests)) == ([*said(turns), "A poem, please"], 4)
    assert said(conv.stale_turns) == []


def test_code_goes_into_the_next_cell_once(
    lab: LabServer, page: Page, store: DiskStore, chat_server: ChatServer
) -> None:
    """``--code`` inserts a cell below; a replayed answer inserts none."""
    setup = SETUP.format(url=chat_server.url, conversation_id="code") + "%chat_setup --provider demo"
    notebook = lab.open_notebook(page, [setup, "%%chat --code\nShow me some code"], name="code.ipynb")
    notebook.run_all()
    notebook.page.wait_for_function("() => jupyterapp.shell.currentWidget.content.widgets.length === 3")
    assert notebook.source(2).startswith("def fibonacci(n: int) -> list[int]:\n")
    notebook.restart_and_run_all()
    notebook.wait_until_idle()
    assert notebook.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == 3
    assert said(conversation(store, "code").turns) == ["Show me some code"]
