"""Notebooks run by programs: ``jupyter execute``, nbclient and nbval twice on one store, and from a recording."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from promptkit_nb import ConversationState, DiskStore, MemoryStore, Message, Turn
from promptkit_nb.notebook.batch_runs import LEFT_OVER_AFTER, RUNNING, BatchRuns
from promptkit_nb.state import NotebookNote
from storing import START, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nbformat import NotebookNode

    from chat_server import ChatServer

pytestmark = pytest.mark.kernel

PATIENCE_S = 120
SETUP = "%load_ext promptkit_nb\n%chat_setup --model gpt-4o-mini\n%chat_use talk"
TALK = (
    "names = ['Alice', 'Bob']",
    "%%chat\nMy name is {{ names[0] }}",
    "for _ in names:\n    %chat What's my name?",
    "%chat One\n%chat Two",
    "%%chat --to answer\nA poem",
    "%chat_history",
)
EVERYTHING = (
    "%%chat\nMy name is Alice",
    "%%chat\nA poem",
    "%chat_undo",
    "%%chat --code\nA better poem",
    "%%chat -t 0.5 --max-output-tokens 50 --context-tokens 4000\nShort, please",
    "%chat_summarize --keep-last 2",
    "%chat_fork other",
    "%%chat\nOnly here",
    "%chat_tree",
    "%chat_use talk",
    "%%chat\nOnly there",
    "%chat_truncate --keep-last 4",
    "%%chat --to answer\nStill there?",
    "%chat_history --versions",
    "%chat_export chat.json\n%chat_export chat.md\n%chat_export chat.html",
    "%chat_context",
    "%chat_usage",
    "%chat_list",
    "%%chat --dry-run\nWhat would it cost?",
    "%chat_delete nothing-there",
)


@pytest.fixture(autouse=True)
def home(kernel_home: Path) -> Path:
    """The directory of the kernels' conversations."""
    return kernel_home


@pytest.fixture
def online(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """The server that this test's kernels use."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    return chat_server


def written(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook with these code cells, not executed."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]  # nbformat has no annotations
    notebook.cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(cells)]  # type: ignore[no-untyped-call]  # same
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]  # same
    return path


def jupyter_execute(path: Path) -> None:
    """Run a notebook with ``jupyter execute``."""
    subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", path], check=True, capture_output=True, timeout=PATIENCE_S
    )


def nbval(path: Path) -> None:
    """Run a notebook with pytest, without comparing outputs."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    subprocess.run([*command, path], check=True, capture_output=True, timeout=PATIENCE_S, cwd=path.parent)


def executed(path: Path) -> NotebookNode:
    """Run a notebook with nbclient, like papermill, in its own directory; return it with its outputs."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # same
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", timeout=PATIENCE_S, resources=resources).execute()
    return notebook


def outputs(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """Return the outputs of the cells; text that arrived in several pieces is joined."""
    shown = ("output_type", "data", "name", "text")
    found: list[list[dict[str, Any]]] = []
    for cell in notebook.cells:
        found.append([])
        for output in cell.outputs:
            previous = found[-1][-1] if found[-1] else {}
            if output.output_type == "stream" and previous.get("name") == output.name:
                previous["text"] += output.text
            else:
                found[-1].append({key: value for key, value in output.items() if key in shown})
    return found


def state(home: Path, conversation_id: str = "talk") -> ConversationState:
    """Return the stored conversation."""
    with DiskStore(home) as store:
        return store.get(conversation_id)


def texts(found: ConversationState) -> list[str]:
    """Return the user's messages in the current turns."""
    return [turn.user_text for turn in found.turns]


@pytest.mark.parametrize("run", [jupyter_execute, nbval, executed])
def test_second_run_sends_and_writes_nothing(
    run: Callable[[Path], object], home: Path, online: ChatServer, tmp_path: Path
) -> None:
    """Under ``%chat_use`` a notebook without cell ids finds its turns again, including calls in loops."""
    notebook = written(tmp_path / "talk.ipynb", [SETUP, *TALK])
    run(notebook)
    first = state(home)
    assert texts(first) == [
        "My name is Alice", "What's my name?", "What's my name?", "One", "Two", "A poem",
    ]  # fmt: skip
    run(notebook)
    assert state(home) == first
    assert state(home).revision == first.revision
    assert len(online.requests) == 6


def test_turns_of_one_program_are_found_by_another(home: Path, online: ChatServer, tmp_path: Path) -> None:
    """nbclient, ``jupyter execute`` and nbval send the same sources."""
    notebook = written(tmp_path / "talk.ipynb", [SETUP, *TALK])
    executed(notebook)
    first = state(home)
    jupyter_execute(notebook)
    nbval(notebook)
    assert state(home) == first
    assert len(online.requests) == 6


def test_a_message_in_the_cell_that_loads_the_extension_is_replayed(
    home: Path, online: ChatServer, tmp_path: Path
) -> None:
    """Its source is known although the extension was not loaded when the cell started."""
    notebook = written(tmp_path / "one.ipynb", [f"{SETUP}\n%chat Hi", "%chat there"])
    for _ in range(2):
        executed(notebook)
    assert [turn.cell_source for turn in state(home).turns] == [f"{SETUP}\n%chat Hi", "%chat there"]
    assert len(online.requests) == 2


def test_run_all_is_safe_for_every_magic(home: Path, online: ChatServer, tmp_path: Path) -> None:
    """A notebook that uses every magic, three times: the requests and current turns are those of the first run."""
    notebook = written(tmp_path / "all.ipynb", [SETUP, *EVERYTHING])
    executed(notebook)
    asked = len(online.requests)
    first = texts(state(home)), texts(state(home, "other"))
    assert first == (
        ["Short, please", "Only there", "Still there?"],
        ["My name is Alice", "A better poem", "Short, please", "Only here"],
    )
    for _ in range(2):
        executed(notebook)
        assert (texts(state(home)), texts(state(home, "other"))) == first
        assert len(online.requests) == asked
        assert len(state(home).summaries) == 1


def test_a_recording_replaces_key_and_network(
    online: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another checkout, strict replay reproduces the outputs of the committed strict run byte for byte.

    The author's strict run may have used the store of the recording, where the conversation continues.
    """
    author = tmp_path / "author"
    author.mkdir()
    executed(written(author / "talk.ipynb", [SETUP, *TALK, "%chat_export chat.json"]))
    asked = len(online.requests)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name)
    setup = "%load_ext promptkit_nb\n%chat_setup --recording chat.json --replay strict\n%chat_use talk"
    shown = [outputs(executed(written(author / "strict.ipynb", [setup, *TALK])))]
    for name in ("committed", "checkout"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "chat.json").write_bytes((author / "chat.json").read_bytes())
        monkeypatch.setenv("PROMPTKIT_HOME", str(directory / "home"))
        shown.append(outputs(executed(written(directory / "talk.ipynb", [setup, *TALK]))))
    assert shown[1] == shown[2]
    assert shown[0][:-1] == shown[1][:-1]  # the history also includes what was paid in that store
    assert shown[1][0][-1]["text"].splitlines()[-1] == "conversation 'talk'"
    assert shown[1][2][-1]["data"]["text/plain"] == (
        "Your name is Alice.\n\ngpt-4o-mini · 10/5 tokens · replayed · $0.00 (saved $0.0000045)"
    )
    assert len(online.requests) == asked


def test_usage_has_no_day_column(online: ChatServer, tmp_path: Path) -> None:
    """Tomorrow's run shows the same table because the default groups by model alone."""
    shown = outputs(executed(written(tmp_path / "talk.ipynb", [SETUP, "%chat One", "%chat_usage"])))
    assert shown[2][0]["data"]["text/plain"].split()[:2] == ["model", "turns"]


def test_a_changed_message_is_a_miss_before_anything_is_sent(home: Path, online: ChatServer, tmp_path: Path) -> None:
    """Strict replay fails the cell with one line, even if a key and a server exist."""
    executed(written(tmp_path / "talk.ipynb", [SETUP, "%chat One", "%chat_export chat.json"]))
    setup = f"{SETUP}-again\n%chat_setup --recording chat.json --replay strict"
    changed = written(tmp_path / "changed.ipynb", [setup, "%chat Won"])
    with pytest.raises(CellExecutionError) as raised:
        executed(changed)
    (line,) = [line for line in raised.value.traceback.splitlines() if "ReplayMissError" in line]
    assert line == (
        "ReplayMissError: No recorded answer to 'Won' by 'gpt-4o-mini': no message with this text was recorded. "
        "Nothing was sent; record it once with --replay auto, or turn replay off."
    )
    assert len(online.requests) == 1
    assert os.environ["OPENAI_API_KEY"]
    assert texts(state(home, "talk-again")) == []


class TestLeftOvers:
    """Conversations of batch runs whose answers were all replayed, in the process of the run or of a later one."""

    def begun(self, store: MemoryStore, conversation_id: str, *, cost: str | None = None) -> BatchRuns:
        """Return a batch run whose conversation has one turn, replayed if it has no cost."""
        runs = BatchRuns(clock=lambda: START)
        runs.begin(conversation_id, store, "default")
        store.create(ConversationState(conversation_id, created_at=START, updated_at=START))
        store.set_notebook(conversation_id, NotebookNote(host="here", kernel=RUNNING))
        said = (Message("user", "Hi", timestamp=START), Message("assistant", "Hello", timestamp=START))
        turn = Turn(messages=said, cost=Decimal(cost or 0), replayed=cost is None, created_at=START)
        store.append(conversation_id, turn)
        return runs

    def ids(self, store: MemoryStore) -> list[str]:
        """Return the ids of the stored conversations."""
        return sorted(head.conversation_id for head in store.list())

    def test_only_what_was_paid_for_is_kept(self) -> None:
        """At the end of the process."""
        store = MemoryStore()
        for name, cost in (("paid", "1"), ("replayed", None)):
            self.begun(store, name, cost=cost).end()
        assert self.ids(store) == ["paid"]

    def test_ended_runs_are_not_looked_up_again(self) -> None:
        """So the first message of a run takes as long after a thousand runs as after one."""
        store = MemoryStore()
        for number in range(20):
            self.begun(store, f"run-{number}", cost="1").end()
        assert len(store.list()) == 20
        assert store.find_notebooks(user_id="default", kernel=RUNNING) == []

    def test_a_killed_run_is_settled_a_day_later(self) -> None:
        """Its conversation is deleted if nothing was paid, else kept, and not looked up again."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        for name, cost in (("paid", "1"), ("replayed", None)):
            self.begun(store, name, cost=cost)
        for after, left in ((LEFT_OVER_AFTER, ["paid", "replayed"]), (timedelta(seconds=1), ["paid"])):
            clock.pass_s(after.total_seconds())
            BatchRuns(clock=clock).begin("next", store, "default")
            assert self.ids(store) == left
        assert store.find_notebooks(user_id="default", kernel=RUNNING) == []
