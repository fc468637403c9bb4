"""Environments: containers without a home, other processes, threads that end, terminals without Unicode."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from promptkit_nb import (
    Budget,
    Conversation,
    ConversationManager,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    OpenAIProvider,
    RedisStore,
    StoreUnavailableError,
    usage_df,
)
from promptkit_nb.characters import terminal_text
from promptkit_nb.views.schemas import USAGE, documents, table_of
from storing import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb import StateStore


def ask(conversation: Conversation) -> str:
    """Send a message; a process of a pool runs this."""
    return conversation.send("What's my name?").content


def count(store: StateStore) -> int:
    """Count the conversations of a store; a process of a pool runs this."""
    return len(store.list())


class TestPickling:
    """Other processes open again what they are given."""

    def test_pool_of_spawned_processes(self, tmp_path: Path) -> None:
        """Each answers in the same stored conversation."""
        manager = ConversationManager(DemoProvider(), DiskStore(tmp_path), budget=Budget(5))
        conv = manager.new_conversation(conversation_id="hello", user_id="alice")
        conv.send("My name is Alice")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(ask, [conv]) == ["[demo] Your name is Alice."]
            assert pool.map(count, [manager.store]) == [1]
        assert len(conv.turns) == 2

    def test_joblib(self, tmp_path: Path) -> None:
        """Its processes answer in the same stored conversation, also if they are given a lambda."""
        conv = ConversationManager(DemoProvider(), DiskStore(tmp_path)).new_conversation()
        conv.send("My name is Alice")
        asked = (delayed(lambda each: each.send("What's my name?").content)(conv) for _ in range(2))
        try:
            assert Parallel(n_jobs=2)(asked) == ["[demo] Your name is Alice."] * 2
        finally:
            get_reusable_executor().shutdown(wait=True)
        assert len(conv.turns) == 3

    def test_what_is_opened_again(self, tmp_path: Path) -> None:
        """The directory, the TTL, the user and the budgets are the same."""
        store = DiskStore(tmp_path, ttl=3600)
        manager = ConversationManager(DemoProvider(), store, budget=Budget(5, per="day")).for_user("alice")
        found: ConversationManager = pickle.loads(pickle.dumps(manager))  # noqa: S301 - it was just written
        assert isinstance(found.store, DiskStore)
        assert (found.store.directory, found.store.ttl_s, found.store.user_id) == (tmp_path, 3600, "alice")
        assert found.budgets == manager.budgets

    def test_keys_are_not_pickled(self) -> None:
        """A provider takes its key from the environment of the process that opens it."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="sk-hush", prices={"mine": (1, 2)})
        pickled = pickle.dumps(provider)
        assert b"hush" not in pickled
        found: OpenAIProvider = pickle.loads(pickled)  # noqa: S301 - it was just written
        assert (found.model, found.prices) == ("gpt-4o-mini", provider.prices)

    def test_memory_cannot_be_shared(self) -> None:
        """The error says in one line what to use instead; narrowing, which copies the handle, still works."""
        with pytest.raises(InvalidArgumentError, match=r"^A MemoryStore cannot be pickled.*use DiskStore") as caught:
            pickle.dumps(ConversationManager(DemoProvider(), MemoryStore()))
        assert "\n" not in str(caught.value)
        assert MemoryStore().for_user("alice").user_id == "alice"

    def test_redis_is_opened_again_without_secrets(self, redis_url: str) -> None:
        """A URL is enough; a password or a client is refused in one line."""
        with RedisStore(redis_url, prefix="pickled:") as store:
            store.for_user("alice").append("a", said("x"))
            found: RedisStore = pickle.loads(pickle.dumps(store.for_user("alice")))  # noqa: S301 - as above
            with found:
                assert [head.conversation_id for head in found.list()] == ["a"]
        secret: Any = redis_url.replace("redis://", "redis://default:@")
        with RedisStore(secret, prefix="pickled:") as store, pytest.raises(InvalidArgumentError, match="each process"):
            pickle.dumps(store)


class TestHome:
    """A container's user may have no home directory."""

    @pytest.fixture(autouse=True)
    def homeless(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Have neither HOME nor an entry in passwd."""

        def unknown(*_: object) -> None:
            raise KeyError("uid not found")

        for name in ("HOME", "PROMPTKIT_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("pwd.getpwuid", unknown)
        monkeypatch.setattr("pwd.getpwnam", unknown)
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize("opened", [DiskStore, lambda: DiskStore("~/chats"), lambda: DiskStore("~bob/chats")])
    def test_error_names_what_to_set(self, opened: Callable[[], object], tmp_path: Path) -> None:
        """No directory is made, least of all one that is called ``~``."""
        with pytest.raises(StoreUnavailableError, match=r"home directory .* unknown .* Set PROMPTKIT_HOME"):
            opened()
        assert list(tmp_path.iterdir()) == []

    def test_named_directories_work(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """With PROMPTKIT_HOME, or a directory that is given."""
        monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
        with DiskStore() as store, DiskStore("given") as given:
            assert (store.directory, given.directory) == (tmp_path / "home", tmp_path / "given")


class TestThreads:
    """Each thread has its own connection."""

    def test_connection_is_closed_with_its_thread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And by it, so that Python 3.13 does not warn."""
        closed_by: list[int] = []

        class Connection(sqlite3.Connection):
            def close(self) -> None:
                closed_by.append(threading.get_ident())
                super().close()

        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **more, factory=Connection))
        with DiskStore(tmp_path) as store:
            opened = len(closed_by)
            thread = threading.Thread(target=store.list)
            thread.start()
            ident = thread.ident
            thread.join()
            assert closed_by[opened:] == [ident]
            assert store.list() == []

    def test_timeout_is_a_keyword(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second positional argument of ``sqlite3.connect`` warns in Python 3.13 and fails in 3.15."""
        positional: list[int] = []
        connect = sqlite3.connect

        def counted(*args: Any, **more: Any) -> sqlite3.Connection:
            positional.append(len(args))
            found: sqlite3.Connection = connect(*args, **more)
            return found

        monkeypatch.setattr(sqlite3, "connect", counted)
        DiskStore(tmp_path).close()
        assert set(positional) == {1}


class TestTerminals:
    """Text output works in an encoding that lacks our symbols."""

    def test_everything_can_be_printed_in_latin_1(self, tmp_path: Path) -> None:
        """Marks have plain forms, and other characters are shown by their code."""
        script = f"""
from promptkit_nb import *
manager = ConversationManager(DemoProvider(), DiskStore({str(tmp_path)!r}))
conv = manager.new_conversation(conversation_id="你好", max_tokens=4000)
answer = conv.send("My name is Łukasz " + "x" * 100)
conv.send("…"), conv.rerun(0, "My name is Zoë"), conv.undo()
print(repr(answer))
for each in (conv, conv.history(versions=True), conv.tree(), conv.context(), conv.dry_run("你好 …"), manager,
             manager.store, manager.list_conversations()):
    print(each)
    print(repr(each))
"""
        env = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr.decode("latin-1")
        printed = run.stdout.decode("latin-1")
        assert "Zoë" in printed
        assert "\\u4f60\\u597d" in printed
        assert "`- " in printed

    def test_utf8_is_left_alone(self) -> None:
        """Nothing is replaced if it can be encoded."""
        assert [terminal_text("└ … 你", encoding=each) for each in ("utf-8", "UTF8", "utf-16")] == ["└ … 你"] * 3
        assert terminal_text("Zoë · … ≤", encoding="latin-1") == "Zoë · ... <="
        assert terminal_text("Zoë · …", encoding="ascii") == "Zo\\xeb - ..."


@pytest.mark.parametrize("indentation", ["    ", ""])
def test_help_lists_the_columns(indentation: str) -> None:
    """With and without indentation, which Python 3.13 removes from docstrings."""

    def view() -> None: ...

    view.__doc__ = f"Return it.\n\n{indentation}{{columns}}\n\n{indentation}The end."
    lines = (documents(USAGE)(view).__doc__ or "").splitlines()
    assert lines[2:-2] == [f"{indentation}    {line}" for line in table_of(USAGE).splitlines()]
    assert "{columns}" not in (usage_df.__doc__ or "")


def test_import_warns_of_nothing() -> None:
    """Each module can be imported while warnings are errors."""
    script = "import pkgutil, promptkit_nb as p\nfor m in pkgutil.walk_packages(p.__path__, 'promptkit_nb.'):"
    script += "\n    __import__(m.name)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
