"""A naive copy of the directory of a ``DiskStore``, made while four writers write, opens and is consistent."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from typing import TYPE_CHECKING

from endurance.report import Report
from promptkit_nb.errors import StoreError
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.disk import DiskStore
from storing import said, texts

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
WRITERS = 4


def write(directory: Path, name: str, pause_s: float, stop: Event) -> None:
    """Append numbered turns to a conversation of its own, and to one that all share, until stopped."""
    with DiskStore(directory) as store:
        number = 0
        while not stop.is_set():
            turn = said(f"{number}")
            store.append(name, turn, charge=Charge((name,), turn.cost or 0))  # type: ignore[arg-type]  # it has a cost
            store.append("shared", said(f"{name}:{number}"))
            number += 1
            time.sleep(pause_s)


def run(directory: Path, copies: int, pause_s: float = 0.005) -> Report:
    """Copy the directory this many times while four writers write, and check each copy."""
    report, stop = Report("copies made while four writers write"), FORK.Event()
    source = directory / "store"
    DiskStore(source).close()
    names = [f"w{number}" for number in range(WRITERS)]
    writers = [FORK.Process(target=write, args=(source, name, pause_s, stop)) for name in names]
    for writer in writers:
        writer.start()
    counts = [0]
    for number in range(copies):
        time.sleep(0.05)
        copy = directory / f"copy{number}"
        shutil.copytree(source, copy)
        try:
            counts.append(_checked(report, copy))
        except StoreError as error:
            report.expect(true=False, otherwise=f"copy {number}: {error}")
        shutil.rmtree(copy)
    stop.set()
    for writer in writers:
        writer.join()
    report.expect(true=counts == sorted(counts), otherwise=f"a copy has less than an earlier one: {counts}")
    with DiskStore(source) as store:
        report.figures = {"copies": copies, "turns in the last one": counts[-1], "turns": _turns_of(store)}
    return report


def _checked(report: Report, directory: Path) -> int:
    """Check a copy, and that it can be written to; return how many turns it has."""
    with DiskStore(directory) as store:
        for head in store.list():
            name, found = head.conversation_id, texts(store.get(head.conversation_id).turns)
            if name != "shared":
                expected = [f"{number}" for number in range(head.turn_count)]
                report.expect(true=found == expected, otherwise=f"{name} in {directory.name} has gaps")
                spent = store.spending(name).spent
                report.expect(true=spent == head.total_cost, otherwise=f"{name}: {spent} is not {head.total_cost}")
            report.expect(true=len(found) == head.turn_count, otherwise=f"{name} is shown shorter")
        turns = _turns_of(store)
        store.append("after", said("x"))
        report.expect(true=_turns_of(store) == turns + 1, otherwise=f"{directory.name} cannot be written to")
        return turns


def _turns_of(store: DiskStore) -> int:
    return sum(head.turn_count for head in store.list())
