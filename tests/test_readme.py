"""The README is correct: its two commands and its examples."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from other_tools import DATA
from promptkit_nb import DiskStore, OpenAIProvider
from promptkit_nb.providers.endpoints import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat_server import ChatServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def service_url(redis_url: str) -> Iterator[str]:
    """The address of a PromptKit service's Redis with one conversation."""
    url = f"{redis_url.removesuffix('/0')}/5"
    with redis.Redis.from_url(url) as client:
        client.set("promptkit:conversation:hello:meta", '{"id": "hello", "user_id": "alice"}')
        client.rpush("promptkit:conversation:hello:messages", '{"role": "user", "content": "My name is Alice"}')
        yield url
        client.flushdb()


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_server: ChatServer, service_url: str
) -> Iterator[InteractiveShell]:
    """A fresh shell beside the tutorials' pack, with a temporary home and a chat server on the loopback."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-5f3e9d")
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(DATA / "claude-code", tmp_path / ".claude")
    shutil.copytree(DATA / "codex" / "sessions", tmp_path / ".codex" / "sessions")
    (tmp_path / "reviews.csv").symlink_to(ROOT / "notebooks" / "data" / "reviews.csv")
    (tmp_path / "assistant.pack.json").symlink_to(ROOT / "notebooks" / "assistant.pack.json")
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    fresh = InteractiveShell.instance(config=config)
    fresh.user_ns["_service_url"] = service_url
    yield fresh
    fresh.run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


def test_begins_with_exactly_two_commands() -> None:
    """The first two blocks have one command each, and there is no other shell block."""
    assert [language for language, _ in BLOCKS][:3] == ["sh", "sh", "python"]
    assert [text.count("\n") for language, text in BLOCKS if language == "sh"] == [1, 1]


def test_each_command_does_its_own_set_up() -> None:
    """Each command works on a fresh machine: it creates its environment and installs into it."""
    for language, text in BLOCKS:
        if language == "sh":
            assert text.startswith("python3 -m venv .venv && .venv/bin/pip install -e '.[all")


def test_the_commands_name_existing_files() -> None:
    """The first opens an existing tutorial, the second runs the tests and all tutorials."""
    opened, tested = (text for language, text in BLOCKS if language == "sh")
    assert (ROOT / opened.split()[-1]).is_file()
    assert tested.endswith(" -m pytest --nbval --nbval-current-env tests notebooks\n")


def test_the_examples_run(shell: InteractiveShell) -> None:
    """All Python blocks run as cells of one notebook; the name is remembered without a key and with one."""
    ran, said = _run_all(shell)
    assert ran == [True] * 13, said
    assert "[demo] Your name is Alice." in said
    assert shell.user_ns["answer"].tool_results == (200.5,)
    assert re.search(r"^Your name is Alice\. 15 0\.0\d+$", said, re.MULTILINE)


def test_the_example_deletes_its_conversation(shell: InteractiveShell) -> None:
    """After the last block, only the notebook's own conversation is left, and that of the rows."""
    _run_all(shell)
    with DiskStore() as store:
        assert {head.kind: head.turn_count for head in store.list()} == {"rows": 6, "chat": 2}
        assert [head.conversation_id for head in store.list(prefix="persistent-chat")] == []


def test_the_magics_named_in_the_text_exist(shell: InteractiveShell) -> None:
    """Each ``%chat…`` in the README is registered."""
    shell.run_line_magic("load_ext", "promptkit_nb")
    named = set(re.findall(r"%(chat\w*)", README))
    assert named - set(shell.magics_manager.magics["line"]) == set()


def test_the_table_of_servers_gives_names_and_keys() -> None:
    """``--provider`` knows each name in the table, and reads the variable of its key."""
    rows = re.findall(r"^\| .*? \| `(\w+)` \| `(http.*?)` \| (.*?) \|$", README, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(VENDORS.keys() - {"openai"})
    for name, base_url, key in rows:
        assert OpenAIProvider("any", base_url=base_url).base_url == base_url
        assert name == "azure" or VENDORS[name].base_url == base_url
        assert key == "none" or f"`{VENDORS[name].key_variable}`" in key


def test_the_table_of_tutorials_is_complete() -> None:
    """Each tutorial has a row, in order and with its number."""
    listed = re.findall(r"^\| (\d\d) \| \[.*?\]\(notebooks/((\d\d)_\w+\.ipynb)\) \|", README, re.MULTILINE)
    assert [name for _, name, _ in listed] == sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [number for number, _, _ in listed] == [number for _, _, number in listed]


def _run_all(shell: InteractiveShell) -> tuple[list[bool], str]:
    """Run the Python blocks; return whether each succeeded, and all output as text."""
    with capture_output() as captured:
        service_url = shell.user_ns["_service_url"]
        python = [text for language, text in BLOCKS if language == "python"]
        cells = [text.replace("redis://localhost:6379/0", service_url) for text in python]
        ran = [shell.run_cell(cell).success for cell in cells]  # type: ignore[no-untyped-call]  # IPython's has no types
    shown = [output.data["text/plain"] for output in captured.outputs]
    return ran, "\n".join([captured.stdout, captured.stderr, *shown])
