"""The magics in real kernels: restarts, Ctrl-C, front ends, and batch runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from nbclient import NotebookClient
from nbformat import from_dict

from chat_server import ChatServer, Reply
from kernels import PATIENCE_S, kernel
from promptkit_nb import DiskStore, Turn

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

KEY = "sk-proj-0123456789abcdefSECRET"


@pytest.fixture
def home(kernel_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the kernels' conversations."""
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    return kernel_home


@pytest.fixture
def online(home: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """The chat server that the kernels of this test use."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    return chat_server


def stored(home: Path, conversation_id: str) -> tuple[Turn, ...]:
    """Return the stored turns."""
    with DiskStore(home) as store:
        return store.get(conversation_id).turns


def untimed(value: str) -> str:
    """Return a receipt without its seconds."""
    return re.sub(r"\d+\.\d s", "0.0 s", value)


def test_conversation_survives_a_killed_kernel(online: ChatServer) -> None:
    """A kernel is killed right after the reply; the next one sends the whole history, and the model knows the name."""
    with kernel() as first:
        first.run("%%chat -c persistent-chat\nMy name is Alice")
        pid = first.manager.provisioner.pid  # type: ignore[union-attr]  # a local kernel has one
        os.kill(pid, signal.SIGKILL)
    with kernel() as second:
        ran = second.run("%%chat -c persistent-chat\nWhat's my name?")
    assert ran.stdout == "resumed 'persistent-chat', 1 turn, $0.0000045\n"
    assert [(each["role"], each["content"]) for each in online.requests[-1].body["messages"]] == [
        ("user", "My name is Alice"),
        ("assistant", "Your name is Alice."),
        ("user", "What's my name?"),
    ]
    assert untimed(ran.last_bundle["text/plain"]) == (
        "Your name is Alice.\n\ngpt-4o-mini · 10/5 tokens · $0.0000045 · 0.0 s · persistent-chat"
    )


def test_notebook_has_a_conversation_that_survives_its_kernel(home: Path, tmp_path: Path) -> None:
    """If Jupyter passes the notebook's name, the next kernel resumes its conversation and says so."""
    name = str(tmp_path / "eda.ipynb")
    lines = []
    for _ in range(2):
        with kernel(JPY_SESSION_NAME=name, PROMPTKIT_PROVIDER="demo") as each:
            lines.append(each.run("%chat Hi").stdout)
    assert re.fullmatch(r"started 'nb:eda:[0-9a-f]{8}'\n", lines[0])
    assert lines[1] == lines[0].replace("started", "resumed").rstrip("\n") + ", 1 turn, $0.00\n"


def test_answer_streams_at_most_ten_times_a_second(online: ChatServer) -> None:
    """One output is updated; the last update is the whole answer with its receipt."""
    words = " ".join(f"word{number}" for number in range(100)) + " <script>alert(1)</script>"
    online.reply(Reply(text=words, pause_s=0.01))
    with kernel() as each:
        ran = each.run("%%chat -c talk\nTell me")
    assert len(ran.contents("display_data")) == 1
    updates = [at for at, message in ran.messages if message["msg_type"] == "update_display_data"]
    assert len(updates) >= 3
    # The last update comes when the answer ends, and a busy machine may deliver two close together.
    assert len(updates) <= 10 * (updates[-1] - updates[0]) + 3
    receipt = "gpt-4o-mini · 10/5 tokens · $0.0000045 · 0.0 s · talk"
    assert untimed(ran.last_bundle["text/plain"]) == f"{words}\n\n{receipt}"
    html = ran.last_bundle["text/html"]
    assert receipt in untimed(html)
    for content in [*ran.contents("display_data"), *ran.contents("update_display_data")]:
        assert "<script" not in content["data"]["text/html"]


def test_interrupt_keeps_the_partial_answer(online: ChatServer, home: Path) -> None:
    """Ctrl-C stores and shows the partial answer and aborts queued cells; the conversation can continue."""
    online.reply(Reply(text="one two three", pause_s=20, pause_from=2))
    with kernel() as each:
        first = each.send("%%chat -c talk\nCount")
        queued = each.send("ran_on = True")
        each.until_text(first, "one")
        each.manager.interrupt_kernel()
        stopped = each.result(first)
        aborted = each.result(queued)
        after = each.run("%%chat -c talk\nMy name is Alice")
    assert stopped.status == "error"
    assert stopped.traceback == ["Stopped; the partial answer is stored, marked as interrupted."]
    shown = untimed(stopped.last_bundle["text/plain"])
    assert re.fullmatch(r"one\n\ngpt-4o-mini · ~8/1 tokens · \$0\.\d+ · 0\.0 s · talk · interrupted", shown)
    assert aborted.status == "aborted"
    assert after.status == "ok"
    turns = [(turn.user_text, turn.text, turn.finish_reason, turn.usage.estimated) for turn in stored(home, "talk")]
    assert turns == [
        ("Count", "one", "interrupted", True),
        ("My name is Alice", "Your name is Alice.", "stop", False),
    ]


def test_interrupt_before_any_text_changes_nothing(online: ChatServer, home: Path) -> None:
    """Ctrl-C before the first text stores nothing, and says so in one line."""
    online.reply(Reply(text="never", delay_s=30))
    with kernel() as each:
        request = each.send("%%chat -c talk\nCount")
        while not online.requests:
            time.sleep(0.01)
        each.manager.interrupt_kernel()
        stopped = each.result(request)
        after = each.run("%%chat -c talk\nMy name is Alice")
    assert stopped.traceback == ["Stopped before any text arrived; the conversation is unchanged."]
    assert after.status == "ok"
    assert [turn.user_text for turn in stored(home, "talk")] == ["My name is Alice"]


def test_turn_knows_the_cell_that_made_it(home: Path) -> None:
    """The front end's cell id, the index of the call in the cell run, and the cell's source are stored."""
    with kernel(PROMPTKIT_PROVIDER="demo") as each:
        each.run("%chat_use talk")
        each.run("%chat one\n%chat two?", cell_id="3f9d51a0")
        each.run("%%chat\nthree", cell_id="77aa01b2")
        each.run("%%chat\nfour")
    assert [(turn.cell_id, turn.cell_call, turn.cell_source) for turn in stored(home, "talk")] == [
        ("3f9d51a0", 0, "%chat one\n%chat two?"),
        ("3f9d51a0", 1, "%chat one\n%chat two?"),
        ("77aa01b2", 0, "%%chat\nthree"),
        (None, 0, "%%chat\nfour"),
    ]


def test_dry_run_shows_what_the_cell_would_send(home: Path) -> None:
    """A cell that has a turn sends the turns before it; a new cell sends all turns."""
    with kernel(PROMPTKIT_PROVIDER="demo") as each:
        each.run("%chat_use talk")
        for cell in ("one", "two", "three"):
            each.run(f"%%chat\n{cell}", cell_id=cell)
        again = each.run("%%chat --dry-run\nzwei", cell_id="two")
        new = each.run("%%chat --dry-run\nfour", cell_id="four")
    shown = [ran.contents("execute_result")[0]["data"]["text/plain"] for ran in (again, new)]
    said = [[line.split()[1] for line in text.splitlines() if line.startswith("user ")] for text in shown]
    assert said == [["one", "zwei"], ["one", "two", "three", "four"]]
    assert [turn.user_text for turn in stored(home, "talk")] == ["one", "two", "three"]


def test_completes_options_and_ids(home: Path) -> None:
    """A front end that asks the kernel gets options and conversation ids."""
    with kernel(PROMPTKIT_PROVIDER="demo") as each:
        each.run("%chat_use persistent-chat")
        replies = [
            each.client.complete(typed, reply=True, timeout=PATIENCE_S)["content"]["matches"]
            for typed in ("%%chat --fre", "%chat --fre", "%chat_use pers")
        ]
    assert replies == [["--fresh"], ["--fresh"], ["persistent-chat"]]


def test_error_is_one_line_and_aborts_queued_cells(home: Path) -> None:
    """Without a key and a provider, the cell fails with one line, and the queued cells do not run."""
    with kernel() as each:
        first = each.send("%%chat\nHi")
        queued = each.send("ran_on = True")
        failed = each.result(first)
        assert each.result(queued).status == "aborted"
    (line,) = failed.traceback
    assert line.startswith("AuthenticationError: No model is chosen, and there is no key. Two ways to continue:")
    assert "\n" not in line


CELLS = (
    "%load_ext promptkit_nb",
    "%chat_setup --provider demo",
    "%%chat --to answer\nMy name is Alice",
    "answer",
    "%chat What's my name?",
    "%chat_history",
    "%chat_new",
    "%%chat -c plans\nShow me some code",
    "%chat_list plans",
    "%chat_list",
    "%chat_usage",
    "import promptkit_nb as pk\npk.ConversationManager(pk.DemoProvider()).new_conversation()",
)


def test_batch_run_gives_the_same_outputs_twice(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell has one final output, without times, ids, or random values; a new conversation is announced."""
    executed = []
    for number in range(2):
        monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / f"home{number}"))
        notebook = from_dict(notebook_of(CELLS))  # type: ignore[no-untyped-call]  # nbformat's has no types
        NotebookClient(notebook, kernel_name="python3", timeout=PATIENCE_S).execute()
        executed.append([[strip(output) for output in cell["outputs"]] for cell in notebook["cells"]])
    first, second = executed
    assert first == second
    assert first[1] == [{"output_type": "stream", "text": "provider demo · model demo · store disk · user default\n"}]
    started, answer = first[2]
    assert started["text"] == "started a new conversation (the notebook's name is unknown in a batch run)\n"
    assert answer["data"]["text/plain"] == (
        "[demo] Nice to meet you, Alice!\n\n(This is the built-in demo: canned answers, no language model, no cost.)"
        "\n\ndemo · 11/27 tokens · $0.00"
    )
    assert [len(outputs) for outputs in first] == [0, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert first[6][0]["text"] == "started a new conversation\n"
    assert first[8][0]["data"]["text/plain"].split() == [
        *("conversation", "user", "turns", "tokens", "cost"),
        *("plans", "default", "1", "147", "$0.00"),
    ]
    assert first[9][0]["data"]["text/plain"].splitlines()[-1].startswith("(no name)     default  2 ")
    assert "day" not in first[10][0]["data"]["text/plain"]
    assert first[11][0]["data"]["text/plain"] == "<Conversation '(no name)' of 'default', 0 turns>"


def notebook_of(cells: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a notebook that was not executed yet."""
    shared: dict[str, object] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    numbered = [{**shared, "id": f"cell-{number}", "source": cell} for number, cell in enumerate(cells)]
    return {"cells": numbered, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def strip(output: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an output that are compared."""
    return {name: value for name, value in output.items() if name in ("output_type", "data", "text")}


def test_ipython_in_a_terminal_streams_plain_text(home: Path) -> None:
    """The real ``ipython`` prints the answer and its receipt, and a failing line says what to do."""
    cells = "%load_ext promptkit_nb\n%chat Hi\n%chat_setup --provider demo\n%chat_use talk\n%chat My name is Alice\n"
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"]
    run = subprocess.run(command, input=cells, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    printed = [line.partition(": ")[2] if line.startswith("In [") else line for line in run.stdout.splitlines()]
    shown = untimed("\n".join(printed))
    assert "AuthenticationError: No model is chosen, and there is no key. Two ways to continue:" in shown
    assert (
        "[demo] Nice to meet you, Alice!\n\n(This is the built-in demo: canned answers, no language model, no cost.)\n"
        "demo · 11/27 tokens · $0.00 · 0.0 s · talk" in shown
    )
    assert "Traceback" not in shown
