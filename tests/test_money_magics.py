"""Budgets and usage in notebook cells: setting a budget, spending it, and dry runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chat_server import ChatServer, Reply
from promptkit_nb import BudgetExceededError, DiskStore, InvalidArgumentError
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chat_server: ChatServer) -> Path:
    """The directory of the conversations; every answer costs half a cent."""
    chat_server.usual = lambda _: Reply(
        text="Yes.", usage={"prompt_tokens": 10, "completion_tokens": 10, "cost": 0.005}
    )
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("PROMPTKIT_PROVIDER", raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    return tmp_path / "home"


@pytest.fixture
def notebook(home: Path) -> Iterator[Notebook]:
    """A notebook connected to a local server."""
    assert not home.exists()
    yield Notebook(new_shell())
    InteractiveShell.instance().run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


def test_budget_is_set_and_holds(notebook: Notebook, chat_server: ChatServer) -> None:
    """The cell that would exceed it fails and sends nothing; %chat_usage shows the budget."""
    assert "budget 0.006/day" in notebook.run("%chat_setup --budget 0.006/day").stdout
    notebook.run("%chat_use talk")
    assert notebook.run("%%chat\nWell?").error is None
    assert isinstance(notebook.run("%%chat\nAnd?").error, BudgetExceededError)
    assert len(chat_server.requests) == 1
    usage = notebook.run("%chat_usage")
    assert usage.stdout.splitlines()[1] == "budget $0.005 of $0.006 today (UTC)"
    assert "0.005               0" in usage.stdout


def test_usage_is_grouped_by_the_given_columns(notebook: Notebook) -> None:
    """By day and model by default, else by one key or several; only this user's conversations."""
    notebook.run("%chat_use talk")
    notebook.run("%%chat\nWell?")
    notebook.run("%chat_setup --user bob")
    notebook.run("%%chat -c other\nAnd?")
    assert notebook.run("%chat_usage").stdout.split()[1:3] == ["day", "model"]
    by_user = notebook.run('%chat_usage --by "user_id, conversation_id"').stdout
    assert by_user.split()[1:3] == ["user_id", "conversation_id"]
    assert [line.split()[1:3] for line in by_user.splitlines() if line.startswith("0")][:1] == [["bob", "other"]]
    assert "talk" not in by_user


def test_unknown_usage_column_is_an_error(notebook: Notebook) -> None:
    """The cell fails, and the error lists the columns."""
    ran = notebook.run("%chat_usage --by year")
    assert isinstance(ran.error, InvalidArgumentError)
    assert "by='year' is unknown: use any of hour, day, week" in str(ran.error)


def test_invalid_budget_is_an_error(notebook: Notebook) -> None:
    """The error shows the accepted forms, and the previous budget stays."""
    notebook.run("%chat_setup --budget 5/day")
    ran = notebook.run("%chat_setup --budget 5/week")
    assert isinstance(ran.error, InvalidArgumentError)
    assert "budget 5/day" in notebook.run("%chat_setup").stdout


def test_budget_lines_need_no_conversation(notebook: Notebook) -> None:
    """Without a conversation nothing is spent."""
    notebook.run("%chat_setup --budget 1,5/day")
    assert notebook.run("%chat_usage").stdout.splitlines()[1:3] == [
        "budget $0.00 of $1.00 in this conversation",
        "budget $0.00 of $5.00 today (UTC)",
    ]


def test_dry_run_creates_no_conversation(notebook: Notebook, chat_server: ChatServer, home: Path) -> None:
    """No request and no conversation; the tokens and the possible cost are shown."""
    ran = notebook.run("%%chat --dry-run --max-output-tokens 100\nWell?")
    assert ran.error is None
    assert ran.stdout.splitlines()[-2:] == [
        "9 tokens",
        "dry run, nothing was sent · between $0.000002 and $0.000061 (9 tokens in, at most 100 out)",
    ]
    assert chat_server.requests == []
    with DiskStore(home) as store:
        assert store.list() == []


def test_dry_run_uses_the_prompt_of_the_cell(notebook: Notebook, chat_server: ChatServer, home: Path) -> None:
    """The dry run shows that prompt, and the conversation keeps its own."""
    pack = home.parent / "short.pack.json"
    engine = {"version": "v1", "syntax": "{{variable}}"}
    prompt = {"id": "short", "name": "Short", "version": "1.0.0", "system_template": "You are short."}
    named = {
        "id": "short",
        "name": "Short",
        "version": "1.0.0",
        "template_engine": engine,
        "prompts": {"short": prompt},
    }
    pack.write_text(json.dumps(named), encoding="utf-8")
    notebook.run("%chat_setup --budget 1/day")
    notebook.run("%chat_use talk")
    notebook.run("%chat Well?")
    shown = notebook.run(f"%%chat --dry-run --pack {pack}\nAnd?").everything
    assert "You are short." in shown
    assert "budget $0.005 of $1.00 today (UTC)" in shown
    assert "You are short." not in notebook.run("%chat_context").everything
    assert len(chat_server.requests) == 1


def test_window_is_set_for_all_calls(notebook: Notebook, chat_server: ChatServer) -> None:
    """Older turns are left out of the request, %chat_context shows the same window, and a call's own limit wins."""
    assert "context_tokens 40" in notebook.run("%chat_setup --context-tokens 40").stdout
    notebook.run("%chat_use talk")
    for text in ("A first question of some length", "A second question of some length"):
        notebook.run(f"%chat {text}")
    assert "1 turn left out" in notebook.run("%chat Third").stdout + notebook.run("%chat Fourth question").everything
    assert " of 40 tokens" in notebook.run("%chat_context").everything
    notebook.run("%%chat --context-tokens 4000\nFifth")
    assert len(chat_server.requests[-1].body["messages"]) == 9


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_invalid_window_is_an_error(notebook: Notebook, wrong: str) -> None:
    """The error names it, and the previous window stays."""
    notebook.run("%chat_setup --context-tokens 40")
    assert isinstance(notebook.run(f"%chat_setup --context-tokens {wrong}").error, InvalidArgumentError)
    assert "context_tokens 40" in notebook.run("%chat_setup").stdout
