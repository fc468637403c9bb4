"""Restart & Run All with the magics that change conversations: nothing fails and nothing is paid again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, Reply, Request
from day_in_cells import day
from front_end import FrontEnd
from promptkit_nb import DiskStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

COMPARE = "%%chat -m gpt-4o,gpt-4o-mini\n"
OWN = {
    f"{COMPARE}Which?": "",
    "%chat_restore gpt-4o-mini": "nothing to restore: turn 1 has the answer of 'gpt-4o-mini' already\n",
    f"{COMPARE}What?": "",
    "%chat one": "",
    "%chat_title A title": "title 'A title'\n",
    "%%chat_edit 3\nMine": "turn 3 has this answer; the previous one is a version (%chat_tree)\n",
    "%chat two": "",
    "%chat_undo": "nothing to undo\n",
    "%chat_export {{ folder }}/chat.json": "wrote FOLDER/chat.json\n",
    "%chat three": "",
    "%chat_fork copy": "resumed 'copy', a fork of 'nb:all:ID'\n",
    "%chat in the copy": "",
    "%chat_delete nothing": "there is no conversation 'nothing'\n",
}
LONG = {
    "%chat_use long": "resumed 'long', 4 turns, $0.000027\n",
    "%chat four": "",
    "%chat five": "",
    "%chat_truncate --keep-last 2": "nothing to move\n",
    "%chat six": "",
    "%chat seven": "",
    "%chat_summarize --keep-last 2": "nothing to summarize\n",
    "%chat eight": "",
    "%chat_undo\n": "undid turn 4, 'eight' (%chat_restore undone-1 brings it back)\n",
    "%chat_restore undone-1": "restored 'undone-1'\n",
}
NEW = {
    "%chat_new": "started 'ID'\n",
    "%chat first": "",
    f"{COMPARE}Which one?": "",
    "%chat_restore gpt-4o-mini ": "restored 'gpt-4o-mini'\n",
    "%chat second": "",
    "%chat_fork another-copy": "resumed 'another-copy', a fork that begins with the same turns\n",
    "%chat third": "",
    "%chat_new ": "started 'ID'\n",
    "%chat first ": "",
    "%chat_undo ": "undid turn 1, 'first' (%chat_restore undone-1 brings it back)\n",
    "%chat another": "",
}


@pytest.fixture
def server(kernel_home: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """The server of the kernels; its answers are numbered."""
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)

    def usual(_: Request) -> Reply:
        return Reply(text=f"answer {len(chat_server.requests)}")

    chat_server.usual = usual
    return chat_server


def said(home: Path) -> dict[str, list[tuple[str, str]]]:
    """Return questions and answers of all conversations, by id."""
    with DiskStore(home) as store:
        states = [store.get(head.conversation_id) for head in store.list()]
    return {each.conversation_id: [(turn.user_text, turn.text) for turn in each.turns] for each in states}


def test_nothing_fails_and_nothing_is_paid(server: ChatServer, kernel_home: Path, tmp_path: Path) -> None:
    """In the notebook's own conversation, a fork, one with a name, and those without one, which are answered alike."""
    cells = [f"folder = {str(tmp_path)!r}", *OWN, *LONG, *NEW]
    with FrontEnd(tmp_path / "all.ipynb", cells) as notebook:
        notebook.save().run()
        asked, before = len(server.requests), said(kernel_home)
        assert asked == 20  # 13 messages, 3 comparisons of 2, a summary; the second "first" is answered from the other
        results = notebook.save().restart().run()
        after = said(kernel_home)
        assert len(server.requests) == asked
    lines = [re.sub(r"\d{8}T[\d.]+-\w+|(?<=nb:all:)\w+", "ID", each.stdout) for each in results]
    lines = [each.replace(str(tmp_path), "FOLDER") for each in lines]
    acting = {cell: line for cell, line in zip(cells, lines, strict=True) if "%chat_" in cell}
    assert acting == {cell: line for cell, line in (OWN | LONG | NEW).items() if line}
    assert {each: after[each] for each in before} == before
    begun = [turns for each, turns in after.items() if each not in before]
    assert sorted(begun) == sorted(turns for each, turns in before.items() if each.startswith("20"))


def test_in_a_batch_run(tmp_path: Path) -> None:
    """Each run begins a conversation without a name, which is answered from the first one."""
    for asked in (["One", "Two"], []):
        with day(tmp_path) as cells:
            for cell in ("%chat_new", "%chat One", "%chat_fork copy", "%chat Two"):
                assert cells.run(cell, allow_stdin=False).status == "ok"
            assert cells.asked == asked


def test_a_new_cell_is_asked(server: ChatServer, tmp_path: Path) -> None:
    """The file does not have it: it was typed just now, and somebody wants another answer."""
    with FrontEnd(tmp_path / "new.ipynb", ["%chat_new", "%chat Hello"]) as notebook:
        notebook.save().run()
        notebook.run()
        assert len(server.requests) == 1
        notebook.cells[1].source = "%chat  Hello"
        notebook.run()
        assert len(server.requests) == 2


def test_a_conversation_with_a_name_is_not_answered_from_another(server: ChatServer, tmp_path: Path) -> None:
    """It was chosen for what is in it."""
    with FrontEnd(
        tmp_path / "named.ipynb", ["%chat_new", "%chat Hello", "%chat_use named", "%chat  Hello"]
    ) as notebook:
        notebook.save().run()
        assert len(server.requests) == 2
