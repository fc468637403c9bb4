"""The magics that show and change conversations, also with nothing to do, and tab completion."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from chat_server import ChatServer, Reply
from promptkit_nb import ConversationState, DiskStore
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE = "Here:\n\n```python\nx = 1\n```\n\nand\n\n```python\ny = 2\n```"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of a test's conversations; the developer's environment is ignored."""
    for name in ("PROMPTKIT_PROVIDER", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def notebook(home: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A notebook in conversation ``talk``, connected to a local server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    opened = Notebook(new_shell())
    opened.run("%chat_use talk")
    yield opened
    opened.shell.run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


def send_letters(notebook: Notebook, letters: str) -> None:
    """Send each letter as a message."""
    for letter in letters:
        notebook.run(f"%chat {letter}")


def state(home: Path, conversation_id: str = "talk") -> ConversationState:
    """Return the state as stored on disk."""
    with DiskStore(home) as store:
        return store.get(conversation_id)


def current_text(home: Path, conversation_id: str = "talk") -> str:
    """Return the messages of the conversation's current turns."""
    return "".join(turn.user_text for turn in state(home, conversation_id).turns)


class TestFork:
    def test_switches_to_the_copy(self, notebook: Notebook, home: Path) -> None:
        """The copy has all turns so far; new turns do not go to the original."""
        send_letters(notebook, "ab")
        assert notebook.run("%chat_fork try").stdout == "forked 'talk' to 'try'\n"
        send_letters(notebook, "c")
        assert (current_text(home), current_text(home, "try")) == ("ab", "abc")

    def test_switches_to_an_existing_fork(self, notebook: Notebook, home: Path) -> None:
        """Run again, it switches to the fork; in the fork itself it does nothing."""
        send_letters(notebook, "a")
        notebook.run("%chat_fork try")
        assert notebook.run("%chat_fork try").stdout == "this is 'try' already\n"
        notebook.run("%chat_use talk")
        assert notebook.run("%chat_fork try").stdout == "resumed 'try', a fork of 'talk'\n"
        send_letters(notebook, "b")
        assert (current_text(home), current_text(home, "try")) == ("a", "ab")

    def test_another_conversation_with_the_id_is_an_error(self, notebook: Notebook, home: Path) -> None:
        """It is not a fork of this conversation: nothing is overwritten, and the notebook does not switch."""
        notebook.run("%%chat -c other\nHi")
        send_letters(notebook, "a")
        ran = notebook.run("%chat_fork other")
        assert ran.stdout.startswith("ConversationExistsError: The conversation 'other' exists already")
        send_letters(notebook, "b")
        assert (current_text(home), current_text(home, "other")) == ("ab", "Hi")


class TestUndo:
    def test_undoes_turns_one_by_one(self, notebook: Notebook, home: Path) -> None:
        """Each turn becomes a branch, which the line names; with no turns left, there is nothing to undo."""
        send_letters(notebook, "ab")
        lines = [notebook.run("%chat_undo").stdout for _ in range(3)]
        assert lines == [
            "undid turn 2, 'b' (%chat_restore undone-1 brings it back)\n",
            "undid turn 1, 'a' (%chat_restore undone-2 brings it back)\n",
            "nothing to undo\n",
        ]
        assert (current_text(home), [branch.id for branch in state(home).branches]) == ("", ["undone-1", "undone-2"])

    def test_restore_brings_it_back(self, notebook: Notebook, home: Path, chat_server: ChatServer) -> None:
        """By the id that the tree shows."""
        send_letters(notebook, "ab")
        notebook.run("%chat_undo")
        assert "undone-1" in notebook.run("%chat_tree").stdout
        assert notebook.run("%chat_restore undone-1").stdout == "restored 'undone-1'\n"
        assert (current_text(home), len(chat_server.requests)) == ("ab", 2)

    def test_restore_requires_an_id(self, notebook: Notebook) -> None:
        """Without an id, the error gives an example."""
        assert notebook.run("%chat_restore").stdout == (
            "InvalidArgumentError: Give a branch or version, for example: %chat_restore undone-1 "
            "(%chat_tree shows the ids).\n"
        )

    def test_an_unknown_branch_is_an_error(self, notebook: Notebook) -> None:
        """The error is one line that names it, and what shows the others."""
        send_letters(notebook, "a")
        assert notebook.run("%chat_restore branch-7").stdout == (
            "InvalidArgumentError: The conversation 'talk' has no turn and no branch 'branch-7'; nothing was changed. "
            "See %chat_tree and %chat_history --versions for its turns, versions, and branches.\n"
        )


class TestOlderTurns:
    def test_truncate(self, notebook: Notebook, home: Path) -> None:
        """The older turns become a branch; a second run has nothing to move."""
        send_letters(notebook, "abc")
        assert notebook.run("%chat_truncate --keep-last 2").stdout == "moved 2 turns to a branch\n"
        assert notebook.run("%chat_truncate --keep-last 2").stdout == "nothing to move\n"
        assert (current_text(home), [len(branch.turns) for branch in state(home).branches]) == ("c", [2])

    def test_summarize(self, notebook: Notebook, home: Path, chat_server: ChatServer) -> None:
        """The model is asked once and the turns stay; a second run has nothing to summarize."""
        send_letters(notebook, "abc")
        chat_server.reply(Reply(text="They said\na and b."))
        assert notebook.run("%chat_summarize --keep-last 2").stdout == "summarized: They said a and b.\n"
        assert notebook.run("%chat_summarize --keep-last 2").stdout == "nothing to summarize\n"
        assert (current_text(home), len(chat_server.requests), len(state(home).summaries)) == ("abc", 4, 1)

    @pytest.mark.parametrize("magic", ["chat_truncate", "chat_summarize"])
    def test_a_value_that_is_not_a_number_is_an_error(self, notebook: Notebook, magic: str) -> None:
        """The error names the option."""
        send_letters(notebook, "a")
        assert notebook.run(f"%{magic} --keep-last few").stdout == (
            f"InvalidArgumentError: argument --keep-last: invalid int value: 'few'. %{magic}? lists the options.\n"
        )


class TestExport:
    def test_exports_json(self, notebook: Notebook, tmp_path: Path) -> None:
        """It can be read back as JSON."""
        send_letters(notebook, "ab")
        assert notebook.run("%chat_export chat.json").stdout == "wrote chat.json\n"
        assert json.loads((tmp_path / "chat.json").read_text("utf-8"))

    @pytest.mark.parametrize("suffix", ["md", "html"])
    def test_exports_transcripts(self, notebook: Notebook, tmp_path: Path, suffix: str) -> None:
        """The suffix of the file name selects the format."""
        send_letters(notebook, "ab")
        assert notebook.run(f'%chat_export "my chat.{suffix}"').stdout == f"wrote my chat.{suffix}\n"
        assert "You said: b" in (tmp_path / f"my chat.{suffix}").read_text("utf-8")

    def test_a_missing_directory_is_an_error(self, notebook: Notebook) -> None:
        """The error is one line."""
        send_letters(notebook, "a")
        ran = notebook.run("%chat_export nowhere/chat.json")
        assert ran.stdout.startswith("StoreUnavailableError: ")
        assert ran.stdout.count("\n") == 1


class TestDelete:
    def test_deletes_permanently(self, notebook: Notebook) -> None:
        """A second run has nothing to delete, which is not an error."""
        send_letters(notebook, "a")
        lines = [notebook.run("%chat_delete talk").stdout for _ in range(2)]
        assert lines == ["deleted 'talk'\n", "there is no conversation 'talk'\n"]

    def test_another_users_conversation_is_not_found(self, notebook: Notebook, home: Path) -> None:
        """A user cannot delete another user's conversation."""
        notebook.run("%%chat -u bob -c bobs\nHi")
        assert notebook.run("%chat_delete bobs").stdout == "there is no conversation 'bobs'\n"
        assert current_text(home, "bobs") == "Hi"


@pytest.mark.parametrize(
    ("magic", "line"),
    [
        ("%chat_fork try", "nothing to fork yet\n"),
        ("%chat_tree", "No messages yet. Start with %%chat.\n"),
        ("%chat_history --versions", "No messages yet. Start with %%chat.\n"),
        ("%chat_context", "No messages yet. Start with %%chat.\n"),
        ("%chat_undo", "nothing to undo\n"),
        ("%chat_summarize", "nothing to summarize\n"),
        ("%chat_truncate", "nothing to move\n"),
        ("%chat_export chat.json", "nothing to export yet\n"),
        ("%chat_delete talk", "there is no conversation 'talk'\n"),
    ],
)
def test_with_nothing_to_do_nothing_changes(
    notebook: Notebook, home: Path, tmp_path: Path, magic: str, line: str
) -> None:
    """If there is no conversation, none is created, no error is raised, and no file is written."""
    notebook.run("%chat_delete talk")
    ran = notebook.run(magic)
    assert (ran.stdout, ran.error) == (line, None)
    with DiskStore(home) as store:
        assert store.list() == []
    assert not (tmp_path / "chat.json").exists()


class TestHistory:
    def test_shows_versions_and_stale_turns(self, notebook: Notebook, home: Path) -> None:
        """A previous version comes before the current one, with the command that restores it."""
        send_letters(notebook, "ab")
        notebook.run(
            "from promptkit_nb import ConversationManager, DemoProvider, DiskStore\n"
            "_ = ConversationManager(DemoProvider(), DiskStore()).get_conversation('talk').rerun(0, 'x')"
        )
        shown = notebook.run("%chat_history --versions").stdout
        previous = state(home).versions[state(home).turns[0].id][0]
        assert shown.splitlines()[1:-1] == [
            "user       a  (version 1)",
            f"assistant  You said: a  (version 1, %chat_restore {previous.id})",
            "user       x",
            f"assistant  {state(home).turns[0].text[:59]}…",
            "user       b",
            "assistant  You said: b  (stale)",
        ]
        notebook.run(f"%chat_restore {previous.id}")
        assert "stale" not in notebook.run("%chat_history").stdout


class TestOptionsOfChat:
    def test_sampling_options_are_sent(self, notebook: Notebook, chat_server: ChatServer) -> None:
        """Temperature and output limit are sent to the model, in this call only."""
        notebook.run("%%chat -t 0.5 --max-output-tokens 7\nHi")
        notebook.run("%chat Hi")
        first, second = (request.body for request in chat_server.requests)
        assert first["temperature"] == 0.5
        assert 7 in (first.get("max_tokens"), first.get("max_completion_tokens"))
        assert "temperature" not in second

    def test_context_window_of_one_call(self, notebook: Notebook, chat_server: ChatServer) -> None:
        """Turns that do not fit are left out of the request, and the receipt says so."""
        for number in range(4):
            notebook.run(f"%chat {'word ' * 40}{number}")
        ran = notebook.run("%%chat --context-tokens 130\nHi")
        assert len(chat_server.requests[-1].body["messages"]) == 3
        assert "3 turns left out" in ran.bundles[0]["text/plain"]

    def test_code_goes_into_the_next_cell(self, notebook: Notebook, chat_server: ChatServer) -> None:
        """All code blocks of the answer, separated by blank lines."""
        chat_server.reply(Reply(text=CODE))
        notebook.run("%%chat --code\nShow me some code")
        assert notebook.shell.rl_next_input == "x = 1\n\ny = 2"

    def test_an_answer_without_code_prints_a_note(self, notebook: Notebook) -> None:
        """No cell is created."""
        assert notebook.run("%%chat --code\nHi").stdout == "There is no Python code in the answer.\n"

    def test_fresh_ignores_the_stored_answer(self, notebook: Notebook, chat_server: ChatServer) -> None:
        """The same message in the same context is replayed, and with --fresh sent again."""
        send_letters(notebook, "a")
        for line in ("%%chat --to kept\na", "%%chat --fresh --to kept\na"):
            notebook.run("%chat_undo")
            notebook.run(line)
            replayed = notebook.shell.user_ns["kept"].replayed
            assert replayed == ("fresh" not in line)
        assert len(chat_server.requests) == 2


class TestReload:
    def test_settings_and_conversation_are_kept(self, notebook: Notebook, home: Path) -> None:
        """After %reload_ext the notebook continues in its conversation."""
        notebook.run("%chat_setup --provider demo --user alice --budget 1/day")
        notebook.run("%chat_use mine")
        before = notebook.run("%chat_setup").stdout
        assert notebook.run("%reload_ext promptkit_nb").error is None
        assert notebook.run("%chat_setup").stdout == before
        send_letters(notebook, "a")
        assert current_text(home, "mine") == "a"

    def test_conversations_in_memory_are_kept(self, notebook: Notebook) -> None:
        """A conversation that exists only in memory is not lost."""
        notebook.run("%chat_setup --store memory")
        notebook.run("%chat_use mine")
        send_letters(notebook, "a")
        notebook.run("%reload_ext promptkit_nb")
        assert notebook.run("%chat_history").stdout.splitlines()[1] == "user       a"

    def test_a_message_after_it_in_the_same_cell(self, notebook: Notebook, home: Path) -> None:
        """It is the second call of that cell, and the next cell starts at index 0."""
        notebook.run("%chat a\n%reload_ext promptkit_nb\n%chat b")
        notebook.run("%chat c")
        assert [(turn.user_text, turn.cell_call) for turn in state(home).turns] == [("a", 0), ("b", 1), ("c", 0)]

    def test_unloading_removes_the_matcher(self, notebook: Notebook) -> None:
        """After %unload_ext no matcher is left, and after several reloads there is one."""
        completer = notebook.shell.Completer
        assert completer is not None
        for _ in range(3):
            notebook.run("%reload_ext promptkit_nb")
        assert len(completer.custom_matchers) == 1
        notebook.run("%unload_ext promptkit_nb")
        assert completer.custom_matchers == []
        notebook.run("%load_ext promptkit_nb")


def test_calls_of_a_nested_cell_belong_to_the_outer_cell(notebook: Notebook, home: Path, tmp_path: Path) -> None:
    """Calls within ``%run`` are counted, so that each call of a cell has its own index."""
    (tmp_path / "inner.ipy").write_text("%chat b\n")
    notebook.run("%chat a\n%run inner.ipy\n%chat c")
    notebook.run("%chat d")
    turns = [(turn.user_text, turn.cell_call) for turn in state(home).turns]
    assert turns == [("a", 0), ("b", 1), ("c", 2), ("d", 0)]


class TestCompletion:
    @pytest.mark.parametrize(
        ("typed", "among"),
        [
            ("%%chat --fr", "--fresh"),
            ("%chat --fr", "--fresh"),
            ("%chat --fresh -m gpt-4o-mi", "gpt-4o-mini"),
            ("%%chat -c pl", "plans"),
            ("%%chat --conversation pl", "plans"),
            ("%%chat --fresh --model gpt-4o-mi", "gpt-4o-mini"),
            ("%chat_use pl", "plans"),
            ("%chat_history ta", "talk"),
            ("%chat_delete pl", "plans"),
            ("%chat_setup --prov", "--provider"),
            ("%chat_setup --provider de", "demo"),
            ("%chat_setup --replay st", "strict"),
            ("%chat_history --ver", "--versions"),
        ],
    )
    def test_completes(self, notebook: Notebook, typed: str, among: str) -> None:
        """Options, conversation ids, and models."""
        notebook.run("%%chat -q -c plans\nHi")
        assert among in completed(notebook, typed)

    @pytest.mark.parametrize("typed", ["%chat Why fr", "%%chat\n--fr", "x = --fr"])
    def test_leaves_text_alone(self, notebook: Notebook, typed: str) -> None:
        """Messages and other cells are not completed."""
        assert "--fresh" not in completed(notebook, typed)


def completed(notebook: Notebook, typed: str) -> list[str]:
    """Return the completions at the end of a text."""
    completer = notebook.shell.Completer
    assert completer is not None
    completer.use_jedi = False
    with provisionalcompleter():
        return [completion.text for completion in completer.completions(typed, len(typed))]


@pytest.mark.parametrize(
    "name",
    [
        *("chat", "chat_setup", "chat_new", "chat_use", "chat_list", "chat_history", "chat_context", "chat_usage"),
        *("chat_fork", "chat_tree", "chat_undo", "chat_restore", "chat_summarize", "chat_truncate", "chat_export"),
        *("chat_delete", "chat_rows"),
    ],
)
def test_help_shows_the_usage(notebook: Notebook, name: str) -> None:
    """The help of each magic shows its usage."""
    shown = re.sub(r"\x1b\[[\d;]*m", "", notebook.run(f"%{name}?").everything)
    assert f"%{name}" in shown
    assert ". " in shown or ":" in shown
