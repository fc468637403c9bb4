"""What only the disk has: files and modes, processes, interrupts, damage, planted rows, deletion to the byte."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import diskcache
import pytest

from promptkit_nb.codec import encode_turn
from promptkit_nb.errors import (
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
    StoreCorruptedError,
    StoreUnavailableError,
)
from promptkit_nb.exports.archives import export_store, import_store
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.disk import MARKER, DiskStore
from promptkit_nb.stores.disk_backend import Table
from promptkit_nb.stores.disk_cache import DATABASE, SETTINGS
from promptkit_nb.stores.ledger import Account
from promptkit_nb.turns import Message, Turn, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")
SECRET = "correct horse battery staple"  # noqa: S105 - words to look for


def said(text: str, answer: str = "Yes.") -> Turn:
    """Return a turn in which the user said this."""
    return Turn(messages=(Message("user", text), Message("assistant", answer)), usage=Usage(8, 2))


def texts(store: DiskStore, conversation_id: str = "a") -> list[str]:
    """Return what the user said in a conversation."""
    return [turn.user_text for turn in store.get(conversation_id).turns]


def mode_of(path: Path) -> int:
    """Return the permissions of a file or directory."""
    return stat.S_IMODE(path.stat().st_mode)


def run_python(code: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=check)


def sql(directory: Path, statement: str, *arguments: object) -> list[tuple[object, ...]]:
    """Run a statement on the database, bypassing the store."""
    connection = sqlite3.connect(directory / DATABASE)
    try:
        found = connection.execute(statement, arguments).fetchall()
        connection.commit()
    finally:
        connection.close()
    return found


class TestFiles:
    """The directory belongs to the user."""

    def test_directory_and_files_are_private(self, tmp_path: Path) -> None:
        """Modes are 0700 and 0600 whatever the umask, while it is open (with its log) and after."""
        previous = os.umask(0)
        try:
            directory = tmp_path / "new" / "store"
            with DiskStore(directory) as store:
                store.append("a", said("hi"))
                names = {path.name for path in directory.iterdir()}
                assert names == {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", MARKER}
                assert {mode_of(path) for path in directory.iterdir()} == {0o600}
            assert mode_of(directory) == mode_of(directory.parent) == 0o700
            assert {path.name: mode_of(path) for path in directory.iterdir()} == {DATABASE: 0o600, MARKER: 0o600}
        finally:
            os.umask(previous)

    def test_environment_names_the_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``PROMPTKIT_HOME`` is used only if no directory is given."""
        monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
        with DiskStore() as store:
            assert store.directory == tmp_path / "home"
        with DiskStore(tmp_path / "given") as store:
            assert store.directory == tmp_path / "given"

    def test_default_is_the_users_data_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not a cache directory, because those get emptied."""
        monkeypatch.delenv("PROMPTKIT_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with DiskStore() as store:
            assert store.directory.is_relative_to(tmp_path)
            assert not store.directory.is_relative_to(tmp_path / "cache")
            assert store.directory.name == "conversations"

    def test_tilde_and_relative_paths_are_resolved_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A later change of the working directory does not move the store."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        with DiskStore("~/one") as one, DiskStore("two") as two:
            assert (one.directory, two.directory) == (tmp_path / "one", tmp_path / "two")

    @pytest.mark.parametrize("directory", ["", " "])
    def test_blank_directory_is_refused(self, directory: str) -> None:
        """It would be the working directory by accident."""
        with pytest.raises(InvalidArgumentError, match="names no directory"):
            DiskStore(directory)

    @pytest.mark.parametrize("directory", [5, b"conversations", "a\0b"])
    def test_invalid_directory_is_refused(self, directory: Any) -> None:
        """The error names the value."""
        with pytest.raises(InvalidArgumentError, match=r"^directory=.* is not a path"):
            DiskStore(directory)

    def test_repr_says_where(self, tmp_path: Path) -> None:
        """Both open and closed."""
        store = DiskStore(tmp_path / "s")
        assert repr(store) == f"<DiskStore: {tmp_path}/s>"
        store.close()
        assert repr(store) == f"<DiskStore: closed, {tmp_path}/s>"

    def test_large_text_stays_in_the_database_unchanged(self, tmp_path: Path) -> None:
        """Megabytes with every kind of line ending are read back unchanged, without another file."""
        text = "one\r\ntwo\nthree\r" * 200_000
        with DiskStore(tmp_path) as store:
            turn = said(text)
            store.append("a", turn)
            assert store.get("a").turns == (turn,)
        assert {path.name for path in tmp_path.rglob("*")} == {DATABASE, MARKER}


class TestReopening:
    """Acknowledged writes are durable."""

    def test_another_process_reads_what_was_written(self, tmp_path: Path) -> None:
        """Even while the store is open here."""
        with DiskStore(tmp_path) as store:
            store.append("persistent-chat", said("My name is Alice"), user_id="alice")
            code = """
                import sys
                from promptkit_nb.stores.disk import DiskStore
                with DiskStore(sys.argv[1]) as store:
                    print(store.get("persistent-chat").turns[0].user_text, store.head("persistent-chat").user_id)
            """
            assert run_python(code, tmp_path).stdout == "My name is Alice alice\n"

    def test_killed_right_after_an_append_loses_nothing(self, tmp_path: Path) -> None:
        """After ``kill -9`` following each of five acknowledged turns, without closing."""
        code = """
            import os, signal, sys
            from promptkit_nb.stores.disk import DiskStore
            from promptkit_nb.turns import Message, Turn
            store = DiskStore(sys.argv[1])
            store.append("a", Turn(messages=(Message("user", sys.argv[2]),)))
            os.kill(os.getpid(), signal.SIGKILL)
        """
        for number in range(5):
            assert run_python(code, tmp_path, number, check=False).returncode == -signal.SIGKILL
        with DiskStore(tmp_path) as store:
            assert texts(store) == ["0", "1", "2", "3", "4"]

    def test_killed_in_the_middle_tears_nothing(self, tmp_path: Path) -> None:
        """After a kill at any moment, all acknowledged turns are stored, at most one more, each of them whole."""
        code = """
            import sys
            from promptkit_nb.stores.disk import DiskStore
            from promptkit_nb.turns import Message, Turn
            store = DiskStore(sys.argv[1])
            for number in range(100_000):
                store.append("a", Turn(messages=(Message("user", f"{number}"), Message("assistant", "x" * 5000))))
                print(number, flush=True)
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        before = 0
        for lines in (20, 33, 47):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for _ in range(lines):
                    process.stdout.readline()
                process.kill()
                acknowledged = lines + process.stdout.read().count("\n")
            with DiskStore(tmp_path) as store:
                found = store.get("a").turns[before:]
            before += len(found)
            assert acknowledged <= len(found) <= acknowledged + 1
            assert [turn.user_text for turn in found] == [str(number) for number in range(len(found))]
            assert {turn.text for turn in found} == {"x" * 5000}

    def test_store_that_was_not_closed_opens_again(self, tmp_path: Path) -> None:
        """Two handles in one process see each other's turns."""
        with DiskStore(tmp_path) as one, DiskStore(tmp_path) as other:
            one.append("a", said("1"))
            other.append("a", said("2"))
            assert texts(one) == texts(other) == ["1", "2"]
            with pytest.raises(ConversationExistsError):
                other.create(ConversationState("a"))

    def test_expiry_outlives_the_process(self, tmp_path: Path) -> None:
        """A conversation that expired under one handle is missing for the next, with or without a TTL."""
        now = datetime(2026, 3, 1, tzinfo=UTC)
        with DiskStore(tmp_path, ttl=60, clock=lambda: now) as store:
            store.append("a", said("1"))
        later = now + timedelta(seconds=61)
        with DiskStore(tmp_path, clock=lambda: later) as store, pytest.raises(ConversationNotFoundError):
            store.get("a")

    def test_store_without_ttl_keeps_the_ttl_of_others(self, tmp_path: Path) -> None:
        """Its write starts the TTL again, for later handles with and without a TTL."""
        now = datetime(2026, 3, 1, tzinfo=UTC)
        with DiskStore(tmp_path, ttl=60, clock=lambda: now) as store:
            store.append("a", said("1"))
        soon = now + timedelta(seconds=30)
        with DiskStore(tmp_path, clock=lambda: soon) as store:
            store.append("a", said("2"))
        later = now + timedelta(seconds=89)
        with DiskStore(tmp_path, clock=lambda: later) as store:
            assert texts(store) == ["1", "2"]
        too_late = now + timedelta(seconds=90)
        with DiskStore(tmp_path, clock=lambda: too_late) as store, pytest.raises(ConversationNotFoundError):
            store.get("a")


def append_many(directory: Path, name: str, count: int) -> None:
    """Append turns with a name and a number."""
    with DiskStore(directory) as store:
        for number in range(count):
            store.append("a", said(f"{name} {number}"))


def append_until_killed(directory: Path, name: str) -> None:
    """Append numbered turns forever; each acknowledged one adds a byte to the writer's file."""
    acknowledged = os.open(directory.parent / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with DiskStore(directory) as store:
        for number in itertools.count():
            store.append("a", said(f"{name} {number}", "x" * 5000))
            os.write(acknowledged, b".")


class TestProcesses:
    """Several processes, threads and forks use one directory."""

    def test_processes_that_append_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Four processes open a new directory at the same moment and append 25 turns each to one conversation."""
        directory = tmp_path / "fresh"
        processes = [SPAWN.Process(target=append_many, args=(directory, name, 25)) for name in "abcd"]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0, 0]
        with DiskStore(directory) as store:
            found = texts(store)
            assert store.head("a").token_count == 1000
        assert sorted(found) == sorted(f"{name} {number}" for name in "abcd" for number in range(25))
        for name in "abcd":
            mine = [text for text in found if text.startswith(name)]
            assert mine == [f"{name} {number}" for number in range(25)]

    def test_twenty_kills_among_four_writers_lose_and_tear_nothing(self, tmp_path: Path) -> None:
        """``kill -9`` at random moments: of each writer all acknowledged turns are there, at most one more, each whole.

        Another writer takes the place of the killed one, so that there are always four.
        """
        chance = random.Random(1)  # noqa: S311 - the moments need no secrecy
        directory = tmp_path / "store"
        writers: dict[str, BaseProcess] = {}
        for kills in range(24):
            if kills >= 4:
                time.sleep(chance.uniform(0.02, 0.1))
                killed = writers[chance.choice([name for name, each in writers.items() if each.is_alive()])]
                killed.kill()
                killed.join()
            writers[f"w{kills}"] = FORK.Process(target=append_until_killed, args=(directory, f"w{kills}"))
            writers[f"w{kills}"].start()
        for writer in writers.values():
            writer.kill()
            writer.join()
        with DiskStore(directory) as store:
            turns = store.get("a").turns
        assert len(turns) > 50
        assert {turn.text for turn in turns} == {"x" * 5000}
        for name in writers:
            found = [turn.user_text for turn in turns if turn.user_text.split()[0] == name]
            assert found == [f"{name} {number}" for number in range(len(found))]
            path = tmp_path / name
            acknowledged = path.stat().st_size if path.exists() else 0
            assert acknowledged <= len(found) <= acknowledged + 1
        assert sql(directory, "PRAGMA integrity_check") == [("ok",)]

    def test_fresh_directory_opened_at_the_same_moment_becomes_one_store(self, tmp_path: Path) -> None:
        """Six processes and two threads race to create it, ten times."""
        for attempt in range(10):
            directory = tmp_path / str(attempt)
            processes = [FORK.Process(target=append_many, args=(directory, str(n), 1)) for n in range(6)]
            threads = [threading.Thread(target=append_many, args=(directory, f"t{n}", 1)) for n in range(2)]
            for process in processes:
                process.start()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            for process in processes:
                process.join(60)
            assert [process.exitcode for process in processes] == [0] * 6
            with DiskStore(directory) as store:
                assert len(texts(store)) == 8
            assert {path.name for path in directory.iterdir()} == {DATABASE, MARKER}

    def test_forked_child_uses_the_store_it_inherited(self, tmp_path: Path) -> None:
        """Parent and child both write, even if another thread was writing at the fork, and close in any order."""
        with DiskStore(tmp_path) as store:
            store.append("a", said("before"))
            stop = threading.Event()

            def keep_appending() -> None:
                while not stop.is_set():
                    store.append("b", said("x"))

            busy = threading.Thread(target=keep_appending)
            busy.start()

            def in_child() -> None:
                store.append("a", said("child"))
                store.close()

            children = [FORK.Process(target=in_child) for _ in range(5)]
            for child in children:
                child.start()
                store.append("a", said("parent"))
            for child in children:
                child.join(120)
            stop.set()
            busy.join()
            assert [child.exitcode for child in children] == [0] * 5
            assert sorted(texts(store)) == ["before"] + ["child"] * 5 + ["parent"] * 5
            assert {turn.user_text for turn in store.get("b").turns} == {"x"}
        assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]

    def test_reading_works_while_another_process_writes(self, tmp_path: Path) -> None:
        """Readers see the state before the write; a writer waits for ``timeout_s`` and then raises."""
        with DiskStore(tmp_path, timeout_s=0.05) as store:
            store.append("a", said("x"))
            other = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert texts(store) == ["x"]
            assert len(store.recent("a", 1)) == len(store.list()) == store.head("a").turn_count == 1
            with pytest.raises(
                StoreUnavailableError, match=r"locked.*has been writing for 0\.05 s; try again"
            ) as caught:
                store.append("a", said("y"))
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            other.execute("ROLLBACK")
            other.close()
            store.append("a", said("y"))
            assert texts(store) == ["x", "y"]

    def test_threads_of_one_handle_lose_nothing(self, tmp_path: Path) -> None:
        """Each thread has its own connection; closing closes them all."""
        with DiskStore(tmp_path) as store:
            threads = [
                threading.Thread(target=lambda n=n: [store.append(f"c{n % 2}", said("x")) for _ in range(20)])
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [store.head(name).turn_count for name in ("c0", "c1")] == [80, 80]


class TestInterrupts:
    """Ctrl-C at any moment loses nothing and leaves nothing locked."""

    def test_storm_of_interrupts_loses_nothing(self, tmp_path: Path) -> None:
        """Hundreds of SIGINTs during appends and reads; every exception is kept, as notebooks keep the last one."""
        code = """
            import os, random, signal, sys
            from promptkit_nb.errors import PromptKitError
            from promptkit_nb.stores.disk import DiskStore
            from promptkit_nb.turns import Message, Turn

            store = DiskStore(sys.argv[1])
            store.append("a", Turn(messages=(Message("user", "0"),)))
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            kept, acknowledged, number = [], [0], 0

            def work():
                global number
                number += 1
                store.append("a", Turn(messages=(Message("user", str(number)),)), create=False)
                acknowledged.append(number)
                store.recent("a", 2)
                store.head("a")

            def hit():
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.004))
                    while True:
                        work()
                except KeyboardInterrupt as error:
                    return error

            for _ in range(400):
                kept.append(hit())
                assert store.backend._lock.acquire(timeout=0), "the lock is held for good"
                store.backend._lock.release()
            found = [int(turn.user_text) for turn in store.get("a").turns]
            assert set(acknowledged) <= set(found), "an acknowledged turn was lost"
            assert found == sorted(set(found)), "a turn is there twice"
            assert store.head("a").turn_count == len(found)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            store.close()
            print(len(kept))
        """
        result = run_python(code, tmp_path, check=False)
        assert (result.stdout, result.stderr) == ("400\n", "")

    def test_thousand_interrupts_into_open_transactions_lose_nothing(self) -> None:
        """Another process sends them at random moments during append, replace, fork and delete."""
        storm = [sys.executable, str(Path(__file__).parent / "benchmarks" / "interrupt_storm.py"), "1000"]
        result = subprocess.run(storm, capture_output=True, text=True, timeout=100, check=False)
        assert result.stderr == ""
        assert result.stdout.splitlines()[1:] == ["nothing lost, nothing torn, nothing wedged"]

    def test_interrupt_during_a_write_arrives_after_it(self, tmp_path: Path) -> None:
        """The turn is stored, then ``KeyboardInterrupt`` is raised."""

        def now() -> datetime:
            signal.raise_signal(signal.SIGINT)
            return datetime(2026, 3, 1, tzinfo=UTC)

        with DiskStore(tmp_path) as store:
            store.create(ConversationState("a"))
            store._clock = now
            with pytest.raises(KeyboardInterrupt):
                store.append("a", said("x"))
            assert texts(store) == ["x"]

    def test_interrupted_reservation_is_released(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its caller never gets it, and could not settle it."""
        with DiskStore(tmp_path) as store:
            accounts = store.backend.accounts

            def interrupted(scopes: Sequence[str]) -> list[bytes | None]:
                monkeypatch.undo()
                signal.raise_signal(signal.SIGINT)
                return accounts(scopes)

            monkeypatch.setattr(store.backend, "accounts", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.reserve(["total"], Decimal(1), limit=None, lease=60)
            assert store.spending("total") == Account()

    def test_error_in_the_middle_of_a_write_undoes_all_of_it(self, tmp_path: Path) -> None:
        """Neither the turn nor the conversation is stored, and the store keeps working."""

        def broken() -> datetime:
            raise ZeroDivisionError

        with DiskStore(tmp_path) as store:
            clock = store._clock
            store._clock = broken
            with pytest.raises(ZeroDivisionError):
                store.append("a", said("x"))
            store._clock = clock
            assert store.list() == []
            store.append("a", said("y"))
            assert texts(store) == ["y"]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A directory with a closed store: conversation ``a`` with 50 turns, ``b`` with one."""
    directory = tmp_path / "filled"
    with DiskStore(directory) as store:
        store.set(ConversationState("a", "alice", turns=tuple(said(str(n), "x" * 500) for n in range(50))))
        store.append("b", said("other"))
    return directory


class TestUnusable:
    """A store that cannot be used says why, and nothing is changed."""

    @pytest.mark.parametrize("path", ["file", "file/below", "directory"])
    def test_directory_that_cannot_be_made(self, tmp_path: Path, path: str) -> None:
        """There is a file at the path or above it, or a directory in the place of the database."""
        (tmp_path / "file").touch()
        (tmp_path / "directory" / DATABASE).mkdir(parents=True)
        with pytest.raises(StoreUnavailableError, match="Choose a directory that you may write to") as caught:
            DiskStore(tmp_path / path)
        assert isinstance(caught.value.__cause__, OSError)

    def test_database_that_turns_read_only(self, filled: Path) -> None:
        """Writing fails at once with SQLite's words; reading still works."""
        with DiskStore(filled) as store:
            store.backend._cache._sql("PRAGMA query_only = 1")
            with pytest.raises(StoreUnavailableError, match="attempt to write a readonly database"):
                store.append("b", said("x"))
            assert texts(store, "b") == ["other"]
            store.backend._cache._sql("PRAGMA query_only = 0")

    def test_full_disk_loses_nothing(self, tmp_path: Path) -> None:
        """Without space the append fails and stored turns stay; with space it works again."""
        code = """
            import resource, signal, sys
            from promptkit_nb.errors import StoreUnavailableError
            from promptkit_nb.stores.disk import DiskStore
            from promptkit_nb.turns import Message, Turn

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store = DiskStore(sys.argv[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
            acknowledged = 0
            try:
                while True:
                    store.append("a", Turn(messages=(Message("user", f"{acknowledged}" + "x" * 20_000),)))
                    acknowledged += 1
            except StoreUnavailableError as error:
                print(error, file=sys.stderr)
            assert store.head("a").turn_count == len(store.get("a").turns) == acknowledged > 10
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.append("a", Turn(messages=(Message("user", "room again"),)))
            assert store.get("a").turns[-1].user_text == "room again"
            store.close()
            print(acknowledged)
        """
        result = run_python(code, tmp_path)
        assert "stored conversations are safe" in result.stderr or "disk I/O error" in result.stderr
        with DiskStore(tmp_path) as store:
            assert store.head("a").turn_count == int(result.stdout) + 1

    def test_full_disk_is_opened_and_read(self, tmp_path: Path) -> None:
        """Opening an intact store writes nothing, so that it can be read, and conversations deleted."""
        code = """
            import resource, signal, sys
            from promptkit_nb.stores.disk import DiskStore

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            store = DiskStore(sys.argv[1])
            print([turn.user_text for turn in store.get("a").turns], [turn.user_text for turn in store.recent("a", 1)])
        """
        with DiskStore(tmp_path) as store:
            store.append("a", said("one"))
            store.append("a", said("two"))
            (tmp_path / f"{DATABASE}-shm").stat()  # where it can stand before the disk is full, as when it fills up
            assert run_python(code, tmp_path).stdout == "['one', 'two'] ['two']\n"

    def test_opening_does_not_wait_for_writers(self, filled: Path) -> None:
        """While another process is writing for a long time, the store opens and reads at once."""
        with closing(sqlite3.connect(filled / DATABASE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with DiskStore(filled, timeout_s=0.01) as store:
                assert texts(store, "b") == ["other"]
                with pytest.raises(StoreUnavailableError, match=r"has been writing for 0.01 s"):
                    store.append("b", said("x"))
            other.execute("ROLLBACK")

    def test_read_only_directory_is_read_from_a_copy(self, tmp_path: Path) -> None:
        """As on a read-only mount: SQLite needs to write files beside the database, and the error says what to do."""
        home = Path(tempfile.mkdtemp())  # pytest's own directories are closed to others, whom root has to become here
        with DiskStore(home / "store") as store:
            store.append("a", said("one"))
        shutil.copytree(home / "store", tmp_path / "copy")
        for path, mode in ((home, 0o755), (home / "store", 0o555), *((each, 0o444) for each in home.glob("store/*"))):
            path.chmod(mode)

        def open_it() -> None:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(StoreUnavailableError, match="to read a read-only store, copy its directory"):
                DiskStore(home / "store")

        child = FORK.Process(target=open_it)
        child.start()
        child.join(120)
        assert child.exitcode == 0
        (home / "store").chmod(0o755)
        shutil.rmtree(home)
        with DiskStore(tmp_path / "copy") as store:
            assert texts(store) == ["one"]

    def test_cache_of_another_program_is_refused_unchanged(self, tmp_path: Path) -> None:
        """Opening with diskcache writes settings; those of the other program must be unchanged, to the byte."""
        with diskcache.Cache(str(tmp_path), size_limit=10_000_000, tag_index=1) as cache:
            cache["theirs"] = {"a": 1}
        before = (tmp_path / DATABASE).read_bytes()
        with pytest.raises(StoreUnavailableError, match="has a cache of another program; nothing was changed"):
            DiskStore(tmp_path)
        assert (tmp_path / DATABASE).read_bytes() == before
        assert not (tmp_path / MARKER).exists()

    def test_database_of_another_program_is_refused_unchanged(self, tmp_path: Path) -> None:
        """A database with other tables."""
        sql(tmp_path, "CREATE TABLE bills (usd)")
        before = (tmp_path / DATABASE).read_bytes()
        with pytest.raises(StoreUnavailableError, match="another program"):
            DiskStore(tmp_path)
        assert (tmp_path / DATABASE).read_bytes() == before

    @pytest.mark.parametrize("where", ["marker", "row"])
    def test_newer_format_is_refused_unread(self, filled: Path, where: str) -> None:
        """By its marker file, and by its row if the file is lost; the error says to update."""
        if where == "marker":
            (filled / MARKER).write_text('{"format": 2}')
        else:
            (filled / MARKER).unlink()
            sql(filled, "UPDATE Cache SET value = ? WHERE key = 'format'", b"2")
        before = (filled / DATABASE).read_bytes()
        with pytest.raises(StoreUnavailableError, match=r"format 2.*formats up to 1.*pip install -U promptkit-nb"):
            DiskStore(filled)
        assert (filled / DATABASE).read_bytes() == before

    def test_newer_conversation_is_refused(self, filled: Path) -> None:
        """Other conversations can be read."""
        ((stored,),) = sql(filled, "SELECT value FROM Cache WHERE key = 'h:b'")
        assert isinstance(stored, bytes)
        newer = json.dumps({**json.loads(stored), "format": 3}).encode()
        sql(filled, "UPDATE Cache SET value = ? WHERE key = 'h:b'", newer)
        with DiskStore(filled) as store:
            assert len(texts(store)) == 50
            with pytest.raises(StoreUnavailableError, match="'b' has format 3"):
                store.get("b")

    def test_lost_marker_is_written_anew(self, filled: Path) -> None:
        """The database itself tells the format."""
        (filled / MARKER).unlink()
        DiskStore(filled).close()
        assert json.loads((filled / MARKER).read_text()) == {"format": 1, "written_by": "promptkit_nb"}


class TestDamage:
    """Damage is an error, never an empty history."""

    @pytest.mark.parametrize("damage", ["emptied", "gone"])
    def test_lost_database_is_not_an_empty_store(self, filled: Path, damage: str) -> None:
        """Each time it is opened; no new one is created in its place."""
        (filled / DATABASE).unlink()
        if damage == "emptied":
            (filled / DATABASE).touch()
        for _ in range(2):
            with pytest.raises(StoreCorruptedError, match="has lost its contents"):
                DiskStore(filled)
        assert [path.stat().st_size for path in filled.glob(f"{DATABASE}*")] == ([0] if damage == "emptied" else [])

    def test_emptied_database_keeps_its_log(self, tmp_path: Path) -> None:
        """The turns of a killed process may be only in the log, which SQLite would delete."""
        code = """
            import os, signal, sys
            from promptkit_nb.stores.disk import DiskStore
            from promptkit_nb.turns import Message, Turn
            store = DiskStore(sys.argv[1])
            store.append("a", Turn(messages=(Message("user", sys.argv[2]),)))
            os.kill(os.getpid(), signal.SIGKILL)
        """
        run_python(code, tmp_path, SECRET, check=False)
        os.truncate(tmp_path / DATABASE, 0)
        with pytest.raises(StoreCorruptedError):
            DiskStore(tmp_path)
        assert SECRET.encode() in (tmp_path / f"{DATABASE}-wal").read_bytes()

    def test_fresh_database_in_place_of_the_store(self, filled: Path) -> None:
        """The database of another store, or an empty cache, is refused."""
        (filled / DATABASE).unlink()
        diskcache.Cache(str(filled)).close()
        with pytest.raises(StoreCorruptedError, match="has lost its contents"):
            DiskStore(filled)

    @pytest.mark.parametrize("how", ["directory", "file", "overwritten"])
    def test_nothing_is_written_into_a_store_that_was_deleted(self, filled: Path, how: str) -> None:
        """SQLite would keep writing to the deleted file, and acknowledged turns would be lost with the process."""
        with DiskStore(filled) as store:
            store.append("b", said("stored"))
            if how == "directory":
                shutil.rmtree(filled)
            elif how == "file":
                (filled / DATABASE).unlink()
            else:
                (filled / "other").touch()
                (filled / "other").replace(filled / DATABASE)
            with pytest.raises(
                StoreUnavailableError, match="was deleted or moved while it was open; nothing was stored"
            ):
                store.append("b", said("lost?"))

    def test_moved_store_keeps_working(self, filled: Path) -> None:
        """Writes go to where its files are now, never to another store in their place."""
        with DiskStore(filled) as store, ThreadPoolExecutor(1) as other:
            filled.rename(filled.with_name("elsewhere"))
            DiskStore(filled).close()
            turns = store.append("b", said("moved")).turn_count
            with pytest.raises(StoreUnavailableError, match="was deleted or moved"):
                other.submit(store.append, "b", said("on a connection of its own")).result()
        with DiskStore(filled.with_name("elsewhere")) as store:
            assert len(store.get("b").turns) == turns

    def test_closed_store_says_so(self, filled: Path) -> None:
        """For reads and writes, even after another file got the number of its descriptor."""
        store = DiskStore(filled)
        store.close()
        with TemporaryFile(), TemporaryFile():
            for call in (partial(store.append, "b", said("late")), partial(store.delete, "b"), partial(store.get, "b")):
                with pytest.raises(StoreUnavailableError, match="is closed; open it again"):
                    call()

    @pytest.mark.parametrize("header", [b"not a database", b"\0" * 100])
    def test_header_of_garbage(self, filled: Path, header: bytes) -> None:
        """The file is no longer an SQLite database."""
        with (filled / DATABASE).open("r+b") as file:
            file.write(header)
        with pytest.raises(StoreCorruptedError, match=r"is damaged|lost its contents"):
            DiskStore(filled)

    @pytest.mark.parametrize("seed", range(8))
    def test_garbage_in_the_middle_is_never_a_shorter_history(self, filled: Path, seed: int) -> None:
        """After a page is overwritten, a read returns everything or raises."""
        chance = random.Random(seed)  # noqa: S311 - damage needs no secrecy
        size = (filled / DATABASE).stat().st_size
        with (filled / DATABASE).open("r+b") as file:
            file.seek(4096 * chance.randrange(1, size // 4096))
            file.write(chance.randbytes(4096))
        try:
            with DiskStore(filled) as store:
                assert len(texts(store)) == 50
                assert len(store.recent("a", 50)) == 50
        except StoreCorruptedError:
            pass  # said, as it should be

    def test_database_cut_in_the_middle(self, filled: Path) -> None:
        """Missing pages are noticed as soon as they are needed."""
        os.truncate(filled / DATABASE, 4096 * 5)
        with pytest.raises(StoreCorruptedError), DiskStore(filled) as store:
            store.get("a")

    @pytest.mark.parametrize("lost", [0, 20, 48, 49])
    def test_missing_turn_is_never_skipped(self, filled: Path, lost: int) -> None:
        """If its row is missing, ``get`` raises, and ``recent`` does if it would include the turn."""
        keys = sql(filled, "SELECT key FROM Cache WHERE typeof(key) = 'integer' ORDER BY key")
        sql(filled, "DELETE FROM Cache WHERE key = ?", keys[lost][0])
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match=r"'a' in .* is incomplete"):
                store.get("a")
            for n in (1, 2, 10, 50):
                if lost >= 50 - n:
                    with pytest.raises(StoreCorruptedError, match="incomplete"):
                        store.recent("a", n)
                else:
                    assert [turn.user_text for turn in store.recent("a", n)] == [str(i) for i in range(50 - n, 50)]
            assert texts(store, "b") == ["other"]

    def test_missing_frame_is_never_an_empty_one(self, filled: Path) -> None:
        """No call that needs it succeeds, and a list reports it."""
        sql(filled, "DELETE FROM Cache WHERE key = 'a:a'")
        with DiskStore(filled) as store:
            calls: list[Callable[[], object]] = [
                lambda: store.get("a"),
                lambda: store.recent("a", 1),
                lambda: store.head("a"),
                lambda: store.append("a", said("x")),
                lambda: store.update_metadata("a", x=1),
            ]
            for call in calls:
                with pytest.raises(StoreCorruptedError, match="incomplete"):
                    call()
            with pytest.warns(UserWarning, match=r"left out: 'a' \(.* is incomplete"):
                assert [head.conversation_id for head in store.list()] == ["b"]

    def test_lost_counter_cannot_overwrite_conversations(self, filled: Path) -> None:
        """Counting from 1 again would overwrite the oldest turns."""
        sql(filled, "DELETE FROM Cache WHERE key = 'c:cid'")
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match="lost count"):
                store.create(ConversationState("c"))
            assert len(texts(store)) == 50
            store.append("a", said("50"))

    @pytest.mark.parametrize("value", [b"", b"{", b"null", b"[]", b'{"messages": 5}', b"\xff\xfe", b"\x80\x04K\x01."])
    def test_damaged_turn(self, filled: Path, value: bytes) -> None:
        """The error shows how the row begins; nothing is skipped."""
        keys = sql(filled, "SELECT key FROM Cache WHERE typeof(key) = 'integer' ORDER BY key")
        sql(filled, "UPDATE Cache SET value = ? WHERE key = ?", value, keys[49][0])
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match="A stored Turn of the conversation 'a' cannot be read"):
                store.get("a")
            with pytest.raises(StoreCorruptedError, match="A stored Turn of the conversation 'a' cannot be read"):
                store.recent("a", 1)

    @pytest.mark.parametrize("damage", ["turn gone", "turn", "frame gone", "frame", "record"])
    def test_what_can_be_read_is_still_read(self, filled: Path, tmp_path: Path, damage: str) -> None:
        """If one conversation is damaged, the error names it, and ``export_store`` saves the others."""
        key = {"turn": 1 << 24 | 7, "frame": "a:a", "record": "h:a"}[damage.removesuffix(" gone")]
        deed = "DELETE FROM Cache" if "gone" in damage else "UPDATE Cache SET value = x'7b'"
        sql(filled, f"{deed} WHERE key = ?", key)
        with DiskStore(filled) as store, DiskStore(tmp_path / "other") as other:
            assert (texts(store, "b"), store.head("b").turn_count) == (["other"], 1)
            assert [head.conversation_id for head in store.list("b")] == ["b"]
            with pytest.raises(StoreCorruptedError, match=r"conversation 'a'.*on_damaged=print"):
                store.get("a")
            with pytest.raises(StoreCorruptedError, match="conversation 'a'"):
                export_store(store, tmp_path / "all.jsonl")
            assert not (tmp_path / "all.jsonl").exists()
            left_out: list[str] = []
            count = export_store(store, tmp_path / "some.jsonl", on_damaged=lambda name, _: left_out.append(name))
            assert (count, left_out) == (1, ["a"])
            import_store(tmp_path / "some.jsonl", other)
            assert other.get("b") == store.get("b")

    @pytest.mark.parametrize("marker", ["", "{", "[]", '{"format": "x"}', "null"])
    def test_marker_of_garbage(self, filled: Path, marker: str) -> None:
        """The error names the file."""
        (filled / MARKER).write_text(marker)
        with pytest.raises(StoreCorruptedError, match=MARKER):
            DiskStore(filled)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Choose the path."""
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """Return what unpickling calls."""
        return os.system, (f"touch {self.path}",)


def plant(directory: Path, kind: str, target: Path) -> None:
    """Plant a row as the record of conversation ``b``, as an attacker with write access could."""
    pickled = pickle.dumps(Bomb(target))
    match kind:
        case "pickled value":
            sql(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'h:b'", pickled)
        case "pickled key":
            sql(directory, "UPDATE Cache SET raw = 0, key = ? WHERE key = 'h:b'", pickled)
        case "pickle named as text":
            sql(directory, "UPDATE Cache SET raw = 0 WHERE key = 'h:b'")
        case "file of bytes":
            sql(directory, "UPDATE Cache SET mode = 2, filename = ?, value = NULL WHERE key = 'h:b'", str(target))
        case "file of pickle":
            sql(directory, "UPDATE Cache SET mode = 4, filename = ?, value = NULL WHERE key = 'h:b'", str(target))
        case "text":
            sql(directory, "UPDATE Cache SET value = 'text' WHERE key = 'h:b'")
        case "number":
            sql(directory, "UPDATE Cache SET value = 7 WHERE key = 'h:b'")
        case "nothing":
            sql(directory, "UPDATE Cache SET value = NULL WHERE key = 'h:b'")


class TestPlantedRows:
    """Rows that another program wrote execute nothing, read nothing and delete nothing."""

    @pytest.mark.parametrize("kind", ["pickled value", "file of bytes", "file of pickle", "text", "number", "nothing"])
    def test_planted_value_is_refused(self, filled: Path, tmp_path: Path, kind: str) -> None:
        """A call for it raises, a list leaves it out and reports it; the file that it names is unchanged."""
        target = tmp_path / "target"
        named = kind.startswith("file")
        if named:
            target.write_bytes(pickle.dumps(Bomb(tmp_path / "fired")))
        plant(filled, kind, target)
        with DiskStore(filled) as store:
            calls: list[Callable[[], object]] = [
                lambda: store.get("b"),
                lambda: store.recent("b", 1),
                lambda: store.head("b"),
                lambda: store.append("b", said("x")),
                lambda: store.set(ConversationState("b")),
                lambda: store.create(ConversationState("b")),
                lambda: store.update_metadata("b", x=1),
                lambda: store.delete("b"),
            ]
            for call in calls:
                with pytest.raises(StoreCorruptedError, match=r"never writes.*neither executed nor followed"):
                    call()
            for prefix, user_id, left in ((None, None, ["a"]), ("b", None, []), (None, "default", [])):
                with pytest.warns(UserWarning, match=r"left out: 'b' \(.*another program wrote it"):
                    assert [head.conversation_id for head in store.list(prefix, user_id)] == left
            assert len(texts(store)) == 50
        assert target.exists() is named
        assert not (tmp_path / "fired").exists()

    def test_planted_record_is_named_and_the_others_are_saved(self, filled: Path, tmp_path: Path) -> None:
        """``export_store`` raises, or leaves out only that one."""
        plant(filled, "pickled value", tmp_path / "target")
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match=r"in the row 'h:b'.*on_damaged=print"):
                export_store(store, tmp_path / "all.jsonl")
            left_out: list[str] = []
            path = tmp_path / "some.jsonl"
            assert export_store(store, path, on_damaged=lambda name, _: left_out.append(name)) == 1
            assert left_out == ["b"]

    @pytest.mark.parametrize("kind", ["pickled key", "pickle named as text"])
    def test_planted_key_is_refused(self, filled: Path, tmp_path: Path, kind: str) -> None:
        """Among the ids it is reported, elsewhere it is ignored; it is never unpickled."""
        plant(filled, kind, tmp_path / "fired")
        with DiskStore(filled) as store:
            if kind == "pickle named as text":
                with pytest.warns(UserWarning, match="another program wrote it"):
                    assert store.list("b") == []
            with pytest.warns(UserWarning, match="another program wrote it"):
                assert store.list(user_id="default") == []
            with pytest.raises(ConversationNotFoundError):
                store.get("b")
            assert len(texts(store)) == 50
        assert not (tmp_path / "fired").exists()

    def test_planted_turn_is_refused(self, filled: Path, tmp_path: Path) -> None:
        """A pickle in the middle of a history is an error, not a shorter history."""
        keys = sql(filled, "SELECT key FROM Cache WHERE typeof(key) = 'integer' ORDER BY key")
        bomb = pickle.dumps(Bomb(tmp_path / "fired"))
        sql(filled, "UPDATE Cache SET mode = 4, value = ? WHERE key = ?", bomb, keys[48][0])
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match="never writes"):
                store.get("a")
            with pytest.raises(StoreCorruptedError, match="never writes"):
                store.recent("a", 5)
        assert not (tmp_path / "fired").exists()

    def test_planted_file_name_deletes_nothing(self, filled: Path, tmp_path: Path) -> None:
        """Neither when its row is overwritten nor when it is deleted."""
        target = tmp_path / "precious"
        target.write_text("keep me")
        sql(filled, "UPDATE Cache SET filename = ? WHERE key IN ('a:b', 'a:a')", str(target))
        keys = sql(filled, "SELECT key FROM Cache WHERE typeof(key) = 'integer' ORDER BY key")
        sql(filled, "UPDATE Cache SET filename = ? WHERE key = ?", str(target), keys[3][0])
        with DiskStore(filled) as store:
            with pytest.raises(StoreCorruptedError, match="never writes"):
                store.update_metadata("b", x=1)
            with pytest.raises(StoreCorruptedError, match="never writes"):
                store.set(ConversationState("a"))
            store.delete("a")
        assert target.read_text() == "keep me"

    @pytest.mark.parametrize("kind", ["pickled value", "file of pickle", "pickled key"])
    def test_plain_diskcache_would_run_the_code(self, filled: Path, tmp_path: Path, kind: str) -> None:
        """The positive control: plain diskcache runs the code in the same rows."""
        fired = tmp_path / "fired"
        if kind == "file of pickle":
            (tmp_path / "target").write_bytes(pickle.dumps(Bomb(fired)))
            plant(filled, kind, tmp_path / "target")
        else:
            plant(filled, kind, fired)
        with diskcache.Cache(str(filled)) as cache:
            list(cache) if kind == "pickled key" else cache.get("h:b")
        assert fired.exists()

    def test_plain_diskcache_would_read_and_delete_any_file(self, filled: Path, tmp_path: Path) -> None:
        """The positive control of the planted file name."""
        target = tmp_path / "target"
        target.write_bytes(b"secret")
        plant(filled, "file of bytes", target)
        with diskcache.Cache(str(filled)) as cache:
            assert cache.get("h:b") == b"secret"
            cache.delete("h:b")
        assert not target.exists()


class TestDeletion:
    """Deleted text is in no byte of the files."""

    @pytest.mark.parametrize("way", ["delete", "set", "expired and created anew"])
    def test_text_is_in_no_byte_of_any_file(self, tmp_path: Path, way: str) -> None:
        """After ``close`` neither question, answer, system prompt nor metadata is left; others are."""
        now = [datetime(2026, 3, 1, tzinfo=UTC)]
        with DiskStore(tmp_path, ttl=60, clock=lambda: now[0]) as store:
            for number in range(30):
                state = ConversationState(f"c{number}", system_prompt=f"keep-{number} " * 50)
                store.create(state)
            for size in (1, 10, 100, 3000, 50):
                for number in range(0, 30, 3):
                    store.append(f"c{number}", said(f"keep {number}", "neighbour " * size))
                    store.append("secret", said(f"{SECRET} {number} " * size, f"{SECRET}! " * size))
                store.update_metadata("secret", note=f"{SECRET} {size}" * size)
            store.set(ConversationState("other", system_prompt=SECRET * 1000, turns=(said(SECRET * 99),)))
            if way == "expired and created anew":
                now[0] += timedelta(seconds=61)
            for name in ("secret", "other"):
                if way == "delete":
                    store.delete(name)
                else:
                    store.set(ConversationState(name))
        found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert found.count(SECRET.encode()) == 0
        assert found.count(b"keep-29 ") >= 50

    def test_control_finds_text_that_was_not_deleted(self, tmp_path: Path) -> None:
        """The search finds stored text, because nothing is compressed or encrypted."""
        with DiskStore(tmp_path) as store:
            store.append("secret", said(SECRET))
        assert SECRET.encode() in (tmp_path / DATABASE).read_bytes()

    def test_shortened_conversation_gives_its_rows_back(self, tmp_path: Path) -> None:
        """A ``set`` in place of 100 turns leaves only the rows that it wrote."""
        with DiskStore(tmp_path) as store:
            store.set(ConversationState("a", turns=tuple(said(str(n)) for n in range(100))))
            store.set(ConversationState("a", turns=(said("x"),)))
            store.delete("a", keep_spending=False)
        keys = {key for (key,) in sql(tmp_path, "SELECT key FROM Cache")}
        assert keys == {"format", "c:cid"}


class TestDiskcache:
    """What the store relies on in diskcache."""

    def test_settings_hold(self, filled: Path) -> None:
        """Even after another program changed them: nothing is evicted, all is inline, deleted text is overwritten."""
        with diskcache.Cache(
            str(filled), eviction_policy="least-recently-used", cull_limit=10, sqlite_synchronous=0, tag_index=1
        ):
            pass
        with DiskStore(filled) as store:
            stored = {str(key): value for key, value in sql(filled, "SELECT key, value FROM Settings")}
            assert {name: stored[name] for name in SETTINGS} == SETTINGS
            pragmas = {"journal_mode": "wal", "synchronous": 1, "secure_delete": 1, "wal_autocheckpoint": 0}

            def in_force() -> dict[str, object]:
                return store.backend.run(
                    lambda: {
                        name: store.backend._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas
                    },
                    write=False,
                )

            seen: list[dict[str, object]] = [in_force()]
            thread = threading.Thread(target=lambda: seen.append(in_force()))
            thread.start()
            thread.join()
            assert seen == [pragmas, pragmas]

    def test_nothing_is_evicted_beyond_the_size_limit(self, tmp_path: Path) -> None:
        """Plain diskcache deletes rows beyond its limit; this store does not, even if a limit is set."""
        with DiskStore(tmp_path) as store:
            store.backend._cache.reset("size_limit", 1)
            for number in range(50):
                store.append(f"c{number}", said("x" * 10_000))
            assert len(store.list()) == 50
            assert all(len(store.get(f"c{number}").turns) == 1 for number in range(50))

    def test_what_diskcache_counts_costs_a_write_nothing(self, filled: Path) -> None:
        """Its triggers never fire and its index of expiry is empty, also after a plain diskcache opened the store.

        Some builds of SQLite would refuse every insert for the double quotes in the triggers as they come.
        """
        diskcache.Cache(str(filled)).close()
        statements = [str(statement) for (statement,) in sql(filled, "SELECT sql FROM sqlite_master WHERE sql > ''")]
        triggers = [statement for statement in statements if statement.startswith("CREATE TRIGGER")]
        assert len(triggers) == 5
        assert all(trigger.endswith("FOR EACH ROW WHEN 0 BEGIN SELECT 1; END") for trigger in triggers)
        assert "CREATE INDEX Cache_expire_time ON Cache (expire_time) WHERE expire_time IS NOT NULL" in statements

    def test_row_of_a_new_turn_never_replaces_another(self, tmp_path: Path) -> None:
        """A taken key is damage: it is an error, and the row stays."""
        rows = Table(tmp_path, timeout_s=1)
        rows.run(lambda: rows.add(1, b"first", "t:1"), write=True)
        with pytest.raises(StoreCorruptedError, match="UNIQUE constraint failed"):
            rows.run(lambda: rows.add(1, b"second", "t:2"), write=True)
        assert rows.run(lambda: rows.get(1), write=False) == b"first"
        rows.close()

    def test_internals_are_as_we_use_them(self, tmp_path: Path) -> None:
        """Fails if a release of diskcache changes what the table relies on, before a store is damaged by it."""
        assert diskcache.__version__.startswith("5.")
        rows = Table(tmp_path, timeout_s=1)
        cache = rows._cache
        assert isinstance(cache._con, sqlite3.Connection)
        assert cache._con.isolation_level is None

        def work() -> None:
            rows.put("key", b"value", tag="tag")
            assert cache._con.in_transaction
            assert rows.get("key") == b"value"

        rows.run(work, write=True)
        columns = [(name, kind) for _, name, kind, *_ in cache._sql("PRAGMA table_info(Cache)")]
        assert columns == [
            ("rowid", "INTEGER"),
            ("key", "BLOB"),
            ("raw", "INTEGER"),
            ("store_time", "REAL"),
            ("expire_time", "REAL"),
            ("access_time", "REAL"),
            ("access_count", "INTEGER"),
            ("tag", "BLOB"),
            ("size", "INTEGER"),
            ("mode", "INTEGER"),
            ("filename", "TEXT"),
            ("value", "BLOB"),
        ]
        stored = cache._sql("SELECT key, raw, mode, filename, value, tag, expire_time FROM Cache").fetchall()
        assert stored == [("key", 1, 1, None, b"value", "tag", None)]
        rows.close()

    def test_searches_use_the_indexes(self, filled: Path) -> None:
        """So the cost of a call does not depend on how much is stored."""
        plans = {
            "SELECT value FROM Cache WHERE key >= 1 AND key < 2 ORDER BY key": "Cache_key_raw (key>? AND key<?)",
            "SELECT value FROM Cache WHERE tag = 'u:x'": "Promptkit_tag (tag=?)",
            "SELECT 1 FROM Cache WHERE tag = 't:x' AND key > 1 AND key < 2 LIMIT 1": (
                "Promptkit_tag (tag=? AND key>? AND key<?)"
            ),
        }
        for statement, index in plans.items():
            ((*_, plan),) = sql(filled, f"EXPLAIN QUERY PLAN {statement}")
            assert str(plan).replace("COVERING ", "") == f"SEARCH Cache USING INDEX {index}"

    @pytest.mark.parametrize("value", ["text", 5, None, io.BytesIO(b"x")])
    def test_only_bytes_go_in(self, tmp_path: Path, value: object) -> None:
        """A bug of this package is found at once, not when the row is read."""
        rows = Table(tmp_path, timeout_s=1)
        writes: list[Callable[..., None]] = [rows.put, rows.add]
        for write in writes:
            with pytest.raises(TypeError, match="is bytes"):
                rows.run(partial(write, "key", value, "tag"), write=True)
            with pytest.raises(TypeError, match="text or a whole number"):
                rows.run(partial(write, 1.5, b"x", "tag"), write=True)
        rows.close()

    def test_turn_row_is_what_the_codec_writes(self, filled: Path) -> None:
        """A turn is one row with one line of JSON, readable with the sqlite3 tool."""
        ((stored, tag),) = sql(filled, "SELECT value, tag FROM Cache WHERE key = ?", (2 << 24) | 0)
        with DiskStore(filled) as store:
            (turn,) = store.get("b").turns
        assert (stored, tag) == (encode_turn(turn), f"t:{turn.id}")
        assert isinstance(stored, bytes)
        assert b"\n" not in stored
        assert set(json.loads(stored)) <= {field.name for field in fields(Turn)}
