"""A copy of the directory of a ``DiskStore``, made during writes, opens and is consistent."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from promptkit_nb.stores import disk_checkpoints
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.disk_cache import DATABASE
from storing import said, texts

LOG = f"{DATABASE}-wal"


def fill(store: DiskStore, megabytes: int) -> None:
    """Append turns, and change a large value often enough to write this much to the log."""
    for number in range(megabytes * 5):
        store.append("a", said(f"{number}"))
        store.update_metadata("a", number=number, padding=f"{number % 10}" * 200_000)


def copy_file(source: Path, target: Path, name: str) -> None:
    """Copy one file of a store, as a program does that copies the directory."""
    target.mkdir(exist_ok=True)
    if (source / name).exists():
        shutil.copyfile(source / name, target / name)


def write_slowly(store: DiskStore, number: int) -> None:
    """Write a large row within a transaction that takes some time."""
    store.backend.put_kept_row("kept", "row", f"{number % 10}".encode() * 500_000)
    time.sleep(0.15)


def has_short_log(store: DiskStore) -> bool:
    """Wait until the log is moved into the database in the background; return whether it is."""
    deadline_s = time.monotonic() + 60
    while (is_long := log_size(store) >= 2 * disk_checkpoints.STEP_BYTES) and time.monotonic() < deadline_s:
        time.sleep(0.15)
    return not is_long


def log_size(store: DiskStore) -> int:
    """Return the size of the log in bytes."""
    return (store.directory / LOG).stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells who opens a file.")
@pytest.mark.parametrize("names", [(DATABASE, LOG), (LOG, DATABASE)])
def test_much_may_be_written_between_two_files(tmp_path: Path, names: tuple[str, str]) -> None:
    """In any order of the files, and however the log grows, the copy has everything written before it."""
    with DiskStore(tmp_path / "store") as store:
        fill(store, 20)  # the log was moved into the database before
        before = store.head("a").turn_count
        copy_file(store.directory, tmp_path / "copy", "promptkit-store.json")
        copy_file(store.directory, tmp_path / "copy", names[0])
        fill(store, 60)
        copy_file(store.directory, tmp_path / "copy", names[1])
        after = store.head("a").turn_count
    with DiskStore(tmp_path / "copy") as copy:
        turns = texts(copy.get("a").turns)
        assert before <= len(turns) <= after
        assert turns == [f"{number}" for number in [*range(100), *range(300)][: len(turns)]]
        copy.append("a", said("more"))
        assert copy.head("a").turn_count == len(turns) + 1
    with closing(sqlite3.connect(tmp_path / "copy" / DATABASE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_log_does_not_grow_without_a_copy(tmp_path: Path) -> None:
    """It is moved into the database whenever it has a certain size."""
    with DiskStore(tmp_path) as store:
        fill(store, 60)
        assert has_short_log(store)
        assert (tmp_path / DATABASE).stat().st_size > 200_000


def test_forked_child_moves_the_log_too(tmp_path: Path) -> None:
    """The child opens its own reader and watch."""
    with DiskStore(tmp_path) as store:
        store.append("a", said("0"))
        child = multiprocessing.get_context("fork").Process(target=fill, args=(store, 60))
        child.start()
        child.join(120)
        assert child.exitcode == 0
        fill(store, 1)
        assert has_short_log(store)
        assert store.head("a").turn_count == 306


def test_log_is_moved_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not wait for a copy forever."""
    monkeypatch.setattr(disk_checkpoints, "HELD_S", 0)
    with DiskStore(tmp_path / "store") as store:
        fill(store, 10)
        copy_file(store.directory, tmp_path / "copy", DATABASE)
        fill(store, 60)
        assert has_short_log(store)


def test_log_that_has_grown_too_much_is_moved_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that open the files all the time do not fill the disk."""
    monkeypatch.setattr(disk_checkpoints, "HELD_BYTES", 2 * disk_checkpoints.STEP_BYTES)
    monkeypatch.setattr(disk_checkpoints, "MOST_BYTES", 3 * disk_checkpoints.STEP_BYTES)
    with DiskStore(tmp_path / "store") as store:
        for number in range(10):
            copy_file(store.directory, tmp_path / f"copy{number}", DATABASE)
            fill(store, 10)
        assert log_size(store) < 4 * disk_checkpoints.STEP_BYTES


def test_deleted_text_is_in_no_file_after_a_copy(tmp_path: Path) -> None:
    """Closing moves and empties the log, whoever copied the files."""
    with DiskStore(tmp_path / "store") as store:
        store.append("a", said("secret-words"))
        copy_file(store.directory, tmp_path / "copy", DATABASE)
        store.delete("a")
    for path in (tmp_path / "store").iterdir():
        assert b"secret-words" not in path.read_bytes()


class TestLongLog:
    """While a program may be copying, the log grows; large changes wait then, and others never wait for it."""

    @pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells who opens a file.")
    def test_large_changes_wait_while_it_is_copied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As long as a copy may take, and go on if it takes longer."""
        monkeypatch.setattr(disk_checkpoints, "LONG_BYTES", 5_000_000)
        with DiskStore(tmp_path / "store") as store:
            fill(store, 1)
            assert store.backend.checkpoint()
            copy_file(store.directory, tmp_path / "copy", DATABASE)
            fill(store, 3)
            assert store.backend.checkpoint()
            fill(store, 2)
            assert not store.backend.checkpoint()
            now_s = time.monotonic()
            monkeypatch.setattr(time, "monotonic", lambda: now_s + 2 * disk_checkpoints.HELD_S)
            assert store.backend.checkpoint()

    def test_threads_write_while_it_is_moved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What they write in the meantime is moved too, and the log begins anew."""
        monkeypatch.setattr(disk_checkpoints, "HELD_S", 0)  # a new thread opens the files
        with DiskStore(tmp_path) as store:
            fill(store, 6)
            monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 1_000_000)
            written: list[str] = []
            move_once = disk_checkpoints.Checkpoints._move_once

            def move(checkpoints: disk_checkpoints.Checkpoints) -> bool:
                found = move_once(checkpoints)
                if len(written) < 2:
                    thread = threading.Thread(target=store.append, args=("a", said(f"meanwhile {len(written)}")))
                    thread.start()
                    thread.join(60)
                    written.extend(texts(store.recent("a", 1)))
                return found

            monkeypatch.setattr(disk_checkpoints.Checkpoints, "_move_once", move)
            assert store.backend.checkpoint()
            assert written == ["meanwhile 0", "meanwhile 1"]
            assert log_size(store) < 100_000
            assert store.head("a").turn_count == 32

    def test_copy_is_whole_after_each_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log's file is shortened step by step, and all turns are there at each step."""
        monkeypatch.setattr(disk_checkpoints, "CUT_BYTES", 1_000_000)
        sizes: list[int] = []
        with DiskStore(tmp_path / "store") as store:
            fill(store, 5)
            monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 1_000_000)

            def copy(_seconds: float) -> None:
                target = tmp_path / f"copy{len(sizes)}"
                for name in ("promptkit-store.json", DATABASE, LOG):
                    copy_file(store.directory, target, name)
                sizes.append(log_size(store))

            monkeypatch.setattr(disk_checkpoints, "PAUSE_S", 0)
            monkeypatch.setattr(disk_checkpoints, "time", SimpleNamespace(sleep=copy, monotonic=time.monotonic))
            assert store.backend.checkpoint()
        assert len(sizes) >= 4
        assert [before - after for before, after in pairwise(sizes)] == [1_000_000] * (len(sizes) - 1)
        for number in range(len(sizes)):
            with DiskStore(tmp_path / f"copy{number}") as store:
                assert texts(store.get("a").turns) == [f"{turn}" for turn in range(25)]
                assert store.get("a").metadata["number"] == 24

    def test_is_moved_later_if_another_connection_prevents_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The background tries again, although nothing more is written."""
        monkeypatch.setattr(disk_checkpoints, "LONG_BYTES", 1_500_000)
        monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 1_500_000)
        monkeypatch.setattr(disk_checkpoints, "RETRY_S", 0.01)
        attempts: list[bool] = []
        tried_again = threading.Event()
        has_moved = disk_checkpoints.Checkpoints._has_moved

        def attempt(checkpoints: disk_checkpoints.Checkpoints, log_bytes: int) -> bool:
            attempts.append(False if not attempts else has_moved(checkpoints, log_bytes))
            if attempts[-1]:
                tried_again.set()
            return attempts[-1]

        monkeypatch.setattr(disk_checkpoints.Checkpoints, "_has_moved", attempt)
        with DiskStore(tmp_path) as store:
            fill(store, 2)
            assert tried_again.wait(60)
        assert attempts[0] is False

    def test_large_change_moves_the_log_of_all_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever writes in the meantime starts no move; some seconds later, the log is moved as always."""
        monkeypatch.setattr(disk_checkpoints, "LONG_BYTES", disk_checkpoints.HELD_BYTES)
        monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 2_000_000)
        monkeypatch.setattr(disk_checkpoints, "LARGE_S", 1000.0)
        moved: list[int] = []
        moved_later = threading.Event()

        def move(_: disk_checkpoints.Checkpoints, log_bytes: int) -> bool:
            moved.append(log_bytes)
            return False

        def move_later(*_: object) -> bool:
            moved_later.set()
            return True

        monkeypatch.setattr(disk_checkpoints.Checkpoints, "move", move)
        monkeypatch.setattr(disk_checkpoints.Checkpoints, "_has_moved", move_later)
        with DiskStore(tmp_path) as store:
            assert store.backend.checkpoint()
            fill(store, 5)
            assert moved == []
            assert not store.backend.checkpoint()
            assert len(moved) == 1
            assert not moved_later.is_set()
            now_s = time.monotonic()
            monkeypatch.setattr(time, "monotonic", lambda: now_s + disk_checkpoints.LARGE_S)
            store.append("a", said("later"))
            assert moved_later.wait(60)

    @pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells who opens a file.")
    def test_grows_on_the_disk_in_parts_while_it_is_copied(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that moving it later does not write all of it at once."""
        monkeypatch.setattr(disk_checkpoints, "SOME_BYTES", 1_000_000)
        written: list[int] = []
        with DiskStore(tmp_path / "store") as store:
            copy_file(store.directory, tmp_path / "copy", DATABASE)
            monkeypatch.setattr(os, "fdatasync", lambda _: written.append(log_size(store)))
            for _ in range(8):
                fill(store, 1)
                store.backend.checkpoint()
            sizes = [log_size(store), *reversed(written)]
        assert len(written) >= 4
        assert all(1_000_000 <= after - before < 4_000_000 for after, before in pairwise(sizes[1:]))
        assert sizes[0] - sizes[1] < 1_000_000

    def test_is_moved_in_the_background(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not by whoever happens to write next, after a copy."""
        monkeypatch.setattr(disk_checkpoints, "LONG_BYTES", disk_checkpoints.STEP_BYTES)
        threads: list[threading.Thread] = []
        moved = threading.Event()
        shrink = disk_checkpoints.Checkpoints._shrink

        def noted(checkpoints: disk_checkpoints.Checkpoints) -> None:
            shrink(checkpoints)
            threads.append(threading.current_thread())
            moved.set()

        monkeypatch.setattr(disk_checkpoints.Checkpoints, "_shrink", noted)
        with DiskStore(tmp_path) as store:
            fill(store, 16)
            assert moved.wait(60)
            assert threading.main_thread() not in threads
            assert store.head("a").turn_count == 80

    @pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells who opens a file.")
    def test_that_has_grown_too_much_is_moved_in_the_background(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever writes meanwhile does not wait, although a program may still be copying."""
        for name in ("LONG_BYTES", "STEP_BYTES", "HELD_BYTES"):
            monkeypatch.setattr(disk_checkpoints, name, 2_000_000)
        may_move, has_begun = threading.Event(), threading.Event()
        moved: list[bool] = []
        has_moved = disk_checkpoints.Checkpoints._has_moved

        def move(checkpoints: disk_checkpoints.Checkpoints, log_bytes: int) -> bool:
            has_begun.set()
            assert may_move.wait(60)
            moved.append(has_moved(checkpoints, log_bytes))
            return moved[-1]

        monkeypatch.setattr(disk_checkpoints.Checkpoints, "_has_moved", move)
        with DiskStore(tmp_path / "store") as store:
            copy_file(store.directory, tmp_path / "copy", DATABASE)
            fill(store, 4)
            assert has_begun.wait(60)
            fill(store, 4)
            assert moved == []
            may_move.set()
        assert moved[0] is True

    @pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells who opens a file.")
    def test_is_written_to_the_disk_before_writers_wait(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last part of a move keeps others waiting, so it has little to write, however busy the disk is."""
        monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 1_000_000)
        monkeypatch.setattr(disk_checkpoints, "HELD_S", 0)
        written: list[str] = []
        fdatasync = os.fdatasync

        def write(descriptor: int) -> None:
            fdatasync(descriptor)  # raises for one that only watches the file
            with closing(sqlite3.connect(store.directory / DATABASE, timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")  # raises if others wait
            written.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        with DiskStore(tmp_path) as store:
            monkeypatch.setattr(os, "fdatasync", write)
            fill(store, 2)
        assert written[:2] == [str(tmp_path / DATABASE)] * 2

    def test_is_moved_although_a_thread_writes_without_a_pause(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread pauses for a moment, so that the move can begin; SQLite alone would leave that to chance."""
        monkeypatch.setattr(disk_checkpoints, "STEP_BYTES", 2_000_000)
        moved: list[bool] = []
        paused: list[threading.Thread] = []
        has_tried = threading.Event()
        has_moved = disk_checkpoints.Checkpoints._has_moved

        def move(checkpoints: disk_checkpoints.Checkpoints, log_bytes: int) -> bool:
            try:
                moved.append(has_moved(checkpoints, log_bytes))
            finally:
                has_tried.set()
            return moved[-1]

        def pause(seconds: float) -> None:
            paused.append(threading.current_thread())
            time.sleep(seconds)

        monkeypatch.setattr(disk_checkpoints.Checkpoints, "_has_moved", move)
        monkeypatch.setattr(disk_checkpoints, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
        with DiskStore(tmp_path) as store:
            for number in range(500):
                store.backend.run(partial(write_slowly, store, number), write=True)
                if has_tried.is_set():
                    break
        assert moved[0] is True
        assert threading.main_thread() in paused
