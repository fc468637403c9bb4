"""A notebook finds its conversation, and a cell its turn: in real kernels, with the ids and paths that front ends send.

The server numbers its answers, so a wrong one shows, and counts what it is asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jupytext
import nbformat
import pytest

from chat_server import ChatServer, Reply, Request
from front_end import LOAD, PYTHON, Cell, FrontEnd
from promptkit_nb import DiskStore, Head
from test_batch_runs import executed, jupyter_execute, nbval, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from promptkit_nb import ConversationState

pytestmark = pytest.mark.kernel

PATIENCE_S = 120
TALK = ("%%chat\nalpha", "%%chat\nbeta", "%%chat\ngamma")
ANSWERS = ["answer 1", "answer 2", "answer 3"]


@pytest.fixture(autouse=True)
def home(kernel_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the kernels' conversations."""
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    return kernel_home


@pytest.fixture
def server(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """The server that the kernels of this test use; its answers are numbered."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)

    def usual(_: Request) -> Reply:
        return Reply(text=f"answer {len(chat_server.requests)}")

    chat_server.usual = usual
    return chat_server


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory of the notebooks."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def lines(results: list[Any]) -> str:
    """Return what the cells printed."""
    return "".join(result.stdout for result in results)


def shown(notebook: FrontEnd) -> list[str]:
    """Return the answers that the cells show."""
    return [notebook.shown(at) for at in range(len(notebook.cells))]


def asked(request: Request) -> list[str]:
    """Return the user's messages in a request."""
    return [message["content"] for message in request.body["messages"] if message["role"] == "user"]


def heads(home: Path) -> list[Head]:
    """Return all conversations, oldest first."""
    with DiskStore(home) as store:
        return store.list(sort_by="created_at", descending=False)


def state(home: Path, conversation_id: str) -> ConversationState:
    """Return a stored conversation."""
    with DiskStore(home) as store:
        return store.get(conversation_id)


def texts(home: Path, conversation_id: str) -> list[str]:
    """Return the user's messages in the current turns."""
    return [turn.user_text for turn in state(home, conversation_id).turns]


def anonymous(line: str) -> str:
    """Return a line with the digits of the ids left out."""
    return re.sub(r"(nb:[\w-]+):[0-9a-f]{8}", r"\1:…", line)


@contextmanager
def costs(server: ChatServer, requests: int) -> Iterator[None]:
    """Expect that many requests."""
    before = len(server.requests)
    yield
    assert len(server.requests) - before == requests


def ran(path: Path, cells: tuple[str, ...] = TALK, **options: Any) -> FrontEnd:
    """Write a notebook, run all of its cells and save it; its kernel runs on."""
    notebook = FrontEnd(path, cells, **options).save()
    notebook.run()
    return notebook.save()


def test_restart_and_run_all_writes_nothing(home: Path, work: Path, server: ChatServer) -> None:
    """Each cell shows its own answer again, and the revision is the same."""
    with ran(work / "eda.ipynb") as notebook:
        (before,) = heads(home)
        with costs(server, 0):
            notebook.restart().run()
        assert shown(notebook) == ANSWERS
        assert [(head, head.revision) for head in heads(home)] == [(before, before.revision)]


def test_a_renamed_notebook_goes_on_and_its_old_name_is_free(home: Path, work: Path, server: ChatServer) -> None:
    """Renamed while it runs, and moved while it is closed: the same conversation. The next Untitled starts alone."""
    notebook = ran(work / "Untitled.ipynb")
    (work / "Untitled.ipynb").rename(work / "eda.ipynb")
    with costs(server, 0):
        line = lines(notebook.restart(work / "eda.ipynb").run())
    assert anonymous(line) == "resumed 'nb:Untitled:…', 3 turns, $0.000014 (the notebook was Untitled.ipynb)\n"
    notebook.save().shut_down()
    (work / "june").mkdir()
    (work / "eda.ipynb").rename(work / "june" / "report.ipynb")
    with costs(server, 0), FrontEnd.opened(work / "june" / "report.ipynb") as notebook:
        line = lines(notebook.run())
        assert shown(notebook) == ANSWERS
    assert anonymous(line) == "resumed 'nb:Untitled:…', 3 turns, $0.000014 (the notebook was eda.ipynb)\n"
    assert len(heads(home)) == 1
    with FrontEnd(work / "Untitled.ipynb", ["%%chat\nWho am I?"]).save() as another:
        line = lines(another.run())
    assert asked(server.requests[-1]) == ["Who am I?"]
    assert anonymous(line) == (
        "started 'nb:Untitled:…' ('nb:Untitled:…' belongs to another notebook that had this name; "
        "%chat_use continues it)\n"
    )


def test_a_copy_goes_its_own_way(home: Path, work: Path, server: ChatServer) -> None:
    """It replays the turns of its original; its edits do not appear in the original."""
    with ran(work / "a.ipynb") as original:
        shutil.copy(work / "a.ipynb", work / "a-Copy1.ipynb")
        (before,) = heads(home)
        with FrontEnd.opened(work / "a-Copy1.ipynb") as copy:
            with costs(server, 0):
                line = lines(copy.run(2))
            assert anonymous(line) == (
                "started 'nb:a-Copy1:…' as a copy of 'nb:a:…', because this notebook is a copy\n"
            )
            with costs(server, 0):
                copy.run()
            copy.cells[1].source = "%%chat\nBETA"
            with costs(server, 2):
                copy.run()
            assert shown(copy) == ["answer 1", "answer 4", "answer 5"]
        with costs(server, 0):
            original.restart().run()
        assert shown(original) == ANSWERS
    after, copied = heads(home)
    assert (after, after.revision) == (before, before.revision)
    assert copied.metadata == {"forked_from": before.conversation_id}
    assert texts(home, copied.conversation_id) == ["alpha", "BETA", "gamma"]


def test_a_renamed_folder_a_link_and_collaboration(home: Path, work: Path, server: ChatServer) -> None:
    """The notebook has the same conversation under each of these paths."""
    (work / "old").mkdir()
    ran(work / "old" / "eda.ipynb").shut_down()
    (work / "old").rename(work / "new")
    (work / "link").symlink_to(work / "new")
    with costs(server, 0):
        for path in (work / "new", work / "link"):
            with FrontEnd.opened(path / "eda.ipynb") as notebook:
                notebook.run()
                assert shown(notebook) == ANSWERS
        with FrontEnd.opened(work / "new" / "eda.ipynb") as notebook:
            notebook.path = work / "new" / "RTC:eda.ipynb"
            notebook.run()
    assert len(heads(home)) == 1


def test_a_notebook_that_was_never_saved_remembers(work: Path, server: ChatServer) -> None:
    """Its kernel is restarted, and only a new cell is run: the request has what was said before."""
    notebook = FrontEnd(work / "Untitled.ipynb", TALK)
    FrontEnd(work / "Untitled.ipynb").save()
    with notebook:
        notebook.run()
        notebook.restart().cells.append(Cell("%%chat\ndelta"))
        notebook.run(3)
    assert asked(server.requests[-1]) == ["alpha", "beta", "gamma", "delta"]


@pytest.mark.parametrize("suffix", [".py", ".md"])
def test_a_text_notebook_that_is_opened_again(home: Path, work: Path, server: ChatServer, suffix: str) -> None:
    """Jupytext keeps no ids and no outputs: sources tell which cells are the same."""
    path = work / f"eda{suffix}"

    def opened() -> FrontEnd:
        return FrontEnd(path, [cell.source for cell in jupytext.read(path).cells if cell.source])

    notebook = nbformat.v4.new_notebook(metadata=PYTHON, cells=[nbformat.v4.new_code_cell(each) for each in TALK])  # type: ignore[no-untyped-call]  # nbformat has no annotations
    jupytext.write(notebook, path, fmt="py:percent" if suffix == ".py" else "md")
    with costs(server, 3), opened() as first:
        first.run()
    with costs(server, 0):
        with opened() as last:
            last.run(2)
            assert last.shown(2) == "answer 3"
        with opened() as again:
            again.run()
            assert shown(again) == ANSWERS
    (head,) = heads(home)
    assert head.turn_count == 3
    path.write_text(path.read_text("utf-8").replace("beta", "BETA"), "utf-8")
    with costs(server, 2), opened() as edited:
        edited.run()
    assert texts(home, head.conversation_id) == ["alpha", "BETA", "gamma"]


def test_the_old_format_keeps_no_ids(home: Path, work: Path, server: ChatServer) -> None:
    """JupyterLab generates new ids whenever it opens such a notebook."""
    ran(work / "eda.ipynb", minor=4).shut_down()
    for _ in range(2):
        with costs(server, 0), FrontEnd.opened(work / "eda.ipynb") as notebook:
            notebook.run()
            assert shown(notebook) == ANSWERS
    assert [head.turn_count for head in heads(home)] == [3]


def test_nbstripout_numbers_the_cells(home: Path, work: Path, server: ChatServer) -> None:
    """Ids that are positions are another cell's after a cell is put on top; what was said stays in its place."""
    path = work / "eda.ipynb"
    ran(path).shut_down()
    subprocess.run([sys.executable, "-m", "nbstripout", path], check=True, timeout=PATIENCE_S)
    with costs(server, 0), FrontEnd.opened(path) as notebook:
        assert [cell.id for cell in notebook.cells] == ["0", "1", "2"]
        notebook.run()
        assert shown(notebook) == ANSWERS
        notebook.save()
    (head,) = heads(home)
    with FrontEnd.opened(path) as notebook:
        notebook.cells.insert(0, Cell("%%chat\nfirst of all"))
        _stripped(notebook)
    before = state(home, head.conversation_id)
    with FrontEnd.opened(path) as notebook:
        with costs(server, 0):
            notebook.run(1)
            assert notebook.shown(1) == "answer 1"
            assert state(home, head.conversation_id) == before
        with costs(server, 1):
            notebook.run()
            assert shown(notebook) == ["answer 4", *ANSWERS]
        _stripped(notebook)
    with FrontEnd.opened(path) as notebook:
        notebook.cells[2].source = "%%chat\nBETA"
        notebook.save()
        with costs(server, 2):  # it, and gamma, which comes after it
            notebook.run()
    assert texts(home, head.conversation_id) == ["alpha", "BETA", "gamma", "first of all"]


def _stripped(notebook: FrontEnd) -> None:
    notebook.save()
    subprocess.run([sys.executable, "-m", "nbstripout", notebook.path], check=True, timeout=PATIENCE_S)


def test_ids_of_vs_code_are_positions(home: Path, work: Path, server: ChatServer) -> None:
    """The same for ids that name the place of a cell in the file."""
    path = work / "eda.ipynb"

    def opened() -> FrontEnd:
        return FrontEnd.opened(path, send_id=lambda _, at: f"vscode-notebook-cell:{path}#W{at}s", JPY_SESSION_NAME="")

    def run(notebook: FrontEnd, *positions: int) -> None:
        if notebook._kernel is None:
            notebook._started().run(f"__vsc_ipynb_file__ = {str(path)!r}")
        notebook.run(*positions)

    FrontEnd(path, TALK).save()
    with opened() as notebook:
        run(notebook)
        notebook.save()
    with costs(server, 0), opened() as notebook:
        run(notebook)
        assert shown(notebook) == ANSWERS
        notebook.cells.insert(0, Cell("%%chat\nfirst of all"))
        notebook.save()
    (head,) = heads(home)
    before = state(home, head.conversation_id)
    with opened() as notebook:
        with costs(server, 0):
            run(notebook, 1)
            assert state(home, head.conversation_id) == before
        with costs(server, 1):
            run(notebook)
            assert shown(notebook) == ["answer 4", *ANSWERS]
        notebook.cells[2].source = "%%chat\nBETA"
        notebook.save()
    with opened() as notebook, costs(server, 2):
        run(notebook)
    assert texts(home, head.conversation_id) == ["alpha", "BETA", "gamma", "first of all"]


def nbconvert(path: Path) -> None:
    """Run a notebook with nbconvert, to another file."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "ran.ipynb", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)


def papermill(path: Path) -> None:
    """Run a notebook with papermill, to another file."""
    output = path.with_name("ran.ipynb")
    command = [sys.executable, "-m", "papermill", str(path), str(output), "--cwd", str(path.parent)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)


def test_programs_that_run_a_notebook_pay_once(home: Path, work: Path, server: ChatServer) -> None:
    """Without ``%chat_use``, later runs are answered from the first one; only that one's conversation was paid for."""
    path = written(work / "eda.ipynb", [LOAD, *TALK])
    with costs(server, 3):
        jupyter_execute(path)
    programs: tuple[Callable[[Path], object], ...] = (executed, nbconvert, papermill, nbval)
    for run in programs:
        with costs(server, 0):
            run(path)
    paid = [head for head in heads(home) if head.token_count]
    assert [head.turn_count for head in paid] == [3]
    assert len(heads(home)) <= 2  # pytest kills its kernel, so nbval's is deleted by a run of the next day
    ran_notebook = nbformat.read(work / "ran.ipynb", as_version=4)  # type: ignore[no-untyped-call]  # same
    assert "promptkit_nb" not in str([output.metadata for cell in ran_notebook.cells for output in cell.outputs[1:]])


def test_a_front_end_and_a_program_share_answers(home: Path, work: Path, server: ChatServer) -> None:
    """A notebook that ran in JupyterLab is executed without a request, and the other way round."""
    with ran(work / "eda.ipynb", (LOAD, *TALK)):
        pass
    with costs(server, 0):
        jupyter_execute(work / "eda.ipynb")
    path = written(work / "other.ipynb", [LOAD, "%%chat\none", "%%chat\ntwo"])
    with costs(server, 2):
        jupyter_execute(path)
    with costs(server, 0), FrontEnd.opened(path) as notebook:
        notebook.run()
    assert len([head for head in heads(home) if head.token_count]) == 2


def test_one_of_two_equal_cells(work: Path, server: ChatServer) -> None:
    """A duplicate of a cell makes a turn of its own, once."""
    with ran(work / "eda.ipynb", ("%%chat\nalpha", "%%chat\nalpha")) as notebook:
        notebook.cells.insert(1, Cell(notebook.cells[0].source))
        with costs(server, 1):
            notebook.run()
        with costs(server, 0):
            notebook.run()
        notebook.save()
        with costs(server, 0):
            notebook.restart().run()
        assert shown(notebook) == ["answer 1", "answer 3", "answer 2"]


def test_outputs_cleared_and_renamed(home: Path, work: Path, server: ChatServer) -> None:
    """It cannot be identified, so it starts a new conversation, and replays the answers to earlier requests."""
    with ran(work / "eda.ipynb") as notebook:
        for cell in notebook.cells:
            cell.outputs = []
        notebook.save()
    (work / "eda.ipynb").rename(work / "report.ipynb")
    with costs(server, 0), FrontEnd.opened(work / "report.ipynb") as notebook:
        line = lines(notebook.run())
        assert shown(notebook) == ANSWERS
    assert anonymous(line) == "started 'nb:report:…'\n"


def test_all_cells_replaced(home: Path, work: Path, server: ChatServer) -> None:
    """A notebook of which no cell is left is another one, even if its path is the same."""
    ran(work / "eda.ipynb").shut_down()
    with FrontEnd(work / "eda.ipynb", ["%%chat\nWho am I?"]).save() as notebook:
        line = lines(notebook.run())
    assert asked(server.requests[-1]) == ["Who am I?"]
    assert anonymous(line) == (
        "started 'nb:eda:…' ('nb:eda:…' belongs to another notebook that had this name; %chat_use continues it)\n"
    )


def test_a_cell_inserted_in_the_middle_says_so(work: Path, server: ChatServer) -> None:
    """Its turn is added at the end; the receipt says how many turns of cells below come before it."""
    with ran(work / "eda.ipynb") as notebook:
        notebook.cells.insert(1, Cell("%%chat\nin between"))
        notebook.save()
        for _ in range(2):
            notebook.run()
            assert notebook.receipt(1).endswith(" · comes after 2 turns of cells below")
            assert not any("below" in notebook.receipt(at) for at in (0, 2, 3))
    assert len(server.requests) == 4


def test_reading_magics_write_nothing(home: Path, work: Path, server: ChatServer) -> None:
    """In a copy they show the conversation of the original; a message, or a magic that acts, makes the copy's own."""
    ran(work / "a.ipynb").shut_down()
    before = heads(home)
    shutil.copy(work / "a.ipynb", work / "b.ipynb")
    with FrontEnd.opened(work / "b.ipynb") as copy:
        copy.cells += [Cell("%chat_history"), Cell("%chat_undo")]
        assert "gamma" in str(copy.run(3)[0].messages)
        assert heads(home) == before
        assert anonymous(lines(copy.run(4))) == (
            "started 'nb:b:…' as a copy of 'nb:a:…', because this notebook is a copy\n"
            "undid turn 3, 'gamma' (%chat_restore undone-1 brings it back)\n"
        )
    assert [head.turn_count for head in heads(home)] == [3, 2]


def test_a_notebook_with_a_panel_alone(home: Path, work: Path, server: ChatServer) -> None:
    """No cell made its turns: the output of the panel names the conversation."""
    cells = ("panel = get_ipython().run_line_magic('chat_panel', '')\npanel", "panel.conversation.send('alone'); None")
    ran(work / "eda.ipynb", cells).shut_down()
    with FrontEnd.opened(work / "eda.ipynb") as notebook:
        assert anonymous(lines(notebook.run(0))) == "resumed 'nb:eda:…', 1 turn, $0.0000045\n"
    FrontEnd(work / "eda.ipynb", cells).save()
    with FrontEnd.opened(work / "eda.ipynb") as another:
        assert "belongs to another notebook that had this name" in lines(another.run(0))


def test_a_message_that_was_just_typed_is_asked(work: Path, server: ChatServer) -> None:
    """Another notebook's answer is used only for a cell that was saved; never with ``--fresh``."""
    ran(work / "a.ipynb", ("%%chat\nalpha",)).shut_down()
    FrontEnd(work / "b.ipynb").save()
    with FrontEnd(work / "b.ipynb", ["%%chat\nalpha", "%%chat --fresh\nalpha"]) as typed:
        with costs(server, 1):
            typed.run(0)
        with costs(server, 1):
            typed.save().run(1)


def test_conversations_of_the_first_version_are_found(home: Path, work: Path, server: ChatServer) -> None:
    """Their ids come from the path, without a note; nothing is asked again, and the notebook may then be renamed."""
    path = work / "eda.ipynb"
    ran(path).shut_down()
    (head,) = heads(home)
    with DiskStore(home) as store:
        store.set_notebook(head.conversation_id, None)
    with costs(server, 0), FrontEnd.opened(path) as notebook:
        assert lines(notebook.run()) == f"resumed {head.conversation_id!r}, 3 turns, $0.000014\n"
        assert shown(notebook) == ANSWERS
        notebook.save()
    path.rename(work / "report.ipynb")
    with costs(server, 0), FrontEnd.opened(work / "report.ipynb") as notebook:
        notebook.run()
    assert len(heads(home)) == 1
