"""Restart & Run All with the magics that change conversations: nothing fails and nothing is paid again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, Reply, Request
from day_in_cells import day
from front_end import Cell, FrontEnd
from promptkit_nb import DiskStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from promptkit_nb.state import ConversationState
    from promptkit_nb.turns import Turn

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
    "%chat_undo": "already done: undid turn 4, 'two' (%chat_restore undone-1 brings it back)\n",
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

ABC = ("%chat a", "%chat b", "%chat c")
TRUNCATE, UNDO, RESTORE = "%chat_truncate --keep-last 4", "%chat_undo", "%chat_restore undone-1"
SUMMARIZE, EDIT = "%chat_summarize --keep-last 2", "%%chat_edit 3\nmine"
PICK = (f"{COMPARE}a", "%chat_restore gpt-4o-mini")
SEQUENCES = {
    "edit, truncate": (*ABC, EDIT, TRUNCATE, "%chat d"),
    "edit, undo": (*ABC, EDIT, UNDO, "%chat d"),
    "edit, undo, restore": (*ABC, EDIT, UNDO, RESTORE, "%chat d"),
    "edit, restore the model's": (*ABC, EDIT, "%chat_restore gpt-4o-mini", "%chat d"),
    "truncate, edit": (*ABC, TRUNCATE, "%%chat_edit 2\nmine", "%chat d"),
    "truncate, undo": (*ABC, TRUNCATE, UNDO, "%chat d"),
    "truncate, restore": (*ABC, TRUNCATE, "%chat_restore branch-1", "%chat d"),
    "truncate, restore, truncate": (*ABC, TRUNCATE, "%chat_restore branch-1", "%chat d", TRUNCATE, "%chat e"),
    "undo": (*ABC, UNDO),
    "undo, restore at the end": (*ABC, UNDO, RESTORE),
    "undo, truncate": (*ABC, UNDO, "%chat_truncate --keep-last 2", "%chat d"),
    "undo, undo": (*ABC, UNDO, UNDO, "%chat d"),
    "undo, restore, undo": (*ABC, UNDO, RESTORE, UNDO, "%chat d"),
    "undo, restore, chat, undo": (*ABC, UNDO, RESTORE, "%chat d", UNDO, "%chat e"),
    "undo, chat, restore": (*ABC, UNDO, "%chat d", RESTORE, "%chat e"),
    "summarize, undo": (*ABC, SUMMARIZE, UNDO, "%chat d"),
    "summarize, truncate": (*ABC, SUMMARIZE, "%chat_truncate --keep-last 2", "%chat d"),
    "summarize, edit": (*ABC, SUMMARIZE, EDIT, "%chat d"),
    "pick, undo": (*PICK, UNDO, "%chat d"),
    "pick, truncate": (*PICK, "%chat b", "%chat_truncate --keep-last 2", "%chat d"),
    "pick, edit": (*PICK, "%%chat_edit 1\nmine", "%chat d"),
    "two acts in a cell": (*ABC, f"{UNDO}\n{UNDO}", "%chat d"),
    "acts in a loop": (*ABC, "for _ in range(2):\n    %chat_undo", "%chat d"),
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


def stored(home: Path) -> dict[str, tuple[object, ...]]:
    """Return questions, answers, numbers of versions, branches, and summaries of all conversations, by id."""
    with DiskStore(home) as store:
        states = [store.get(head.conversation_id) for head in store.list()]

    def shown(turns: Iterable[Turn], state: ConversationState) -> list[tuple[str, str, int]]:
        return [(turn.user_text, turn.text, len(state.versions.get(turn.id, ()))) for turn in turns]

    return {
        state.conversation_id: (
            shown(state.turns, state),
            {branch.id: shown(branch.turns, state) for branch in state.branches},
            [summary.text for summary in state.summaries],
            state.total_cost,
        )
        for state in states
    }


def test_pairs_of_acting_magics(server: ChatServer, kernel_home: Path, tmp_path: Path) -> None:
    """The second and the third run ask nothing, show the same answers, and leave all conversations as they were."""
    cells = [cell for name, sequence in SEQUENCES.items() for cell in (f"%chat_use {name}", *sequence)]
    with FrontEnd(tmp_path / "pairs.ipynb", cells) as notebook:
        runs = []
        for _ in range(3):
            asked = len(server.requests)
            notebook.save().restart().run()
            displays = [each for cell in notebook.cells for each in cell.outputs if each.output_type == "display_data"]
            texts = "\n".join(each.data["text/plain"] for each in displays)
            answers = re.findall(r"^(?:answer \d+|mine)$", texts, re.MULTILINE)
            runs.append((answers, stored(kernel_home), len(server.requests) - asked))
    (first, left, _), (second, *_), _ = runs
    assert [old for old, new in zip(first, second, strict=True) if new not in {old, "mine"}] == []
    assert runs[1:] == [(second, left, 0)] * 2


def test_an_edit_cell_keeps_its_turn(server: ChatServer, kernel_home: Path, tmp_path: Path) -> None:
    """Wherever the turn is, and with another text; another cell means the numbers as they are now."""
    cells = [*ABC, EDIT, TRUNCATE, "%%chat_edit 2\nother", "%chat_undo"]
    with FrontEnd(tmp_path / "edit.ipynb", cells) as notebook:
        assert [each.stdout for each in notebook.save().run()[3:6]] == [
            "turn 3 has this answer; the previous one is a version (%chat_tree)\n",
            "moved 1 turn to a branch\n",
            "turn 2 has this answer; the previous one is a version (%chat_tree)\n",
        ]
        notebook.cells[3].source = "%%chat_edit 3\nbetter"
        (edited,) = notebook.run(3)
        assert edited.stdout == (
            "turn 3 has this answer (now on the branch 'undone-1'); the previous one is a version (%chat_tree)\n"
        )
    ((turns, branches, _, _),) = stored(kernel_home).values()
    assert turns == [("b", "answer 2", 0)]
    assert branches == {"branch-1": [("a", "answer 1", 0)], "undone-1": [("c", "better", 3)]}


def test_a_cell_acts_again(server: ChatServer, tmp_path: Path) -> None:
    """If its change was reversed elsewhere before the notebook runs again, and by hand."""
    with FrontEnd(tmp_path / "again.ipynb", [*ABC, "%chat_undo", "%chat d"]) as notebook:
        lines = [notebook.save().run()[3].stdout]
        notebook.cells.append(Cell("%chat_restore undone-1"))
        notebook.run(5)
        del notebook.cells[5]
        lines += [notebook.save().restart().run()[3].stdout, notebook.run(3)[0].stdout]
    assert lines == [
        "undid turn 3, 'c' (%chat_restore undone-1 brings it back)\n",
        "undid turn 3, 'c' (%chat_restore undone-1 brings it back)\n",
        "undid turn 3, 'd' (%chat_restore undone-2 brings it back)\n",
    ]


def test_a_summary_is_paid_for_once(server: ChatServer, kernel_home: Path, tmp_path: Path) -> None:
    """Also below ``%chat_new``; the copy has no usage, and in another context the model is asked."""
    cells = ["%chat_new", *ABC, SUMMARIZE, "%chat d", "%chat_usage --by status"]
    with FrontEnd(tmp_path / "summary.ipynb", cells) as notebook:
        assert notebook.save().run()[4].stdout == "summarized: answer 4\n"
        spent = notebook.cells[6].outputs[0].data["text/plain"]
        for _ in range(2):
            assert notebook.save().restart().run()[4].stdout == "summarized before, at no cost: answer 4\n"
        assert notebook.cells[6].outputs[0].data["text/plain"] == spent
        assert len(server.requests) == 5
        notebook.cells[1].source = "%chat another"
        assert notebook.save().restart().run()[4].stdout == "summarized: answer 9\n"


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
