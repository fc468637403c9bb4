"""A naive copy of the directory of a ``DiskStore``, made while four writers write, opens and is consistent."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from decimal import Decimal
from typing import TYPE_CHECKING

from endurance.report import Report
from promptkit_nb.errors import StoreError
from promptkit_nb.stores import disk_checkpoints
from promptkit_nb.stores.base import Charge
from promptkit_nb.stores.disk import DiskStore
from storing import said, texts

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
WRITERS = 4
COPIES_OF_ONE = 10
PADDING = 30_000
PAUSE_S = 0.002
PRICE = Decimal("0.001")


def write(directory: Path, name: str, stop: Event) -> None:
    """Append numbered turns to a separate conversation and to a shared one, and change a large value."""
    with DiskStore(directory) as store:
        number = 0
        while not stop.is_set():
            turn = said(f"{number}")
            store.append(name, turn, charge=Charge((name,), PRICE))
            store.append("shared", said(f"{name}:{number}"))
            padding = f"{number % 10}" * PADDING  # fills the log, and not the database
            store.update_metadata(name, number=number, padding=padding)
            number += 1
            time.sleep(PAUSE_S)


def run(directory: Path, copies: int) -> Report:
    """Copy the directory this many times while four writers write, and check each copy; ten times, then anew."""
    report, chance = Report("copies made while four writers write"), random.Random(1)  # noqa: S311 - no secret
    disk_checkpoints.HELD_S = 0.5  # so that the log is moved between two copies
    turns = 0
    for start in range(0, copies, COPIES_OF_ONE):
        part = directory / f"part{start}"
        part.mkdir()
        turns += _copy(report, part, min(COPIES_OF_ONE, copies - start), chance)
        shutil.rmtree(part)
    report.figures = {"copies": copies, "turns": turns}
    return report


def _copy(report: Report, directory: Path, copies: int, chance: random.Random) -> int:
    """Copy one store several times; return how many turns it has in the end."""
    stop, source = FORK.Event(), directory / "store"
    DiskStore(source).close()
    names = [f"w{number}" for number in range(WRITERS)]
    writers = [FORK.Process(target=write, args=(source, name, stop), daemon=True) for name in names]
    for writer in writers:
        writer.start()
    counts = [0]
    for number in range(copies):
        time.sleep(chance.uniform(0, 1))
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
        return _turns_of(store)


def _checked(report: Report, directory: Path) -> int:
    """Check a copy, and that it can be written to; return how many turns it has."""
    with DiskStore(directory) as store:
        for head in store.list():
            name, found = head.conversation_id, texts(store.get(head.conversation_id).turns)
            if name != "shared":
                expected = [f"{number}" for number in range(head.turn_count)]
                report.expect(true=found == expected, otherwise=f"{name} in {directory.name} has gaps")
                changes = head.metadata.get("number", -1)
                done = f"{changes} in the metadata of {name}, which has {head.turn_count} turns"
                report.expect(true=changes in {head.turn_count - 1, head.turn_count - 2}, otherwise=done)
                spent = store.spending(name).spent
                report.expect(true=spent == head.total_cost, otherwise=f"{name}: {spent} is not {head.total_cost}")
            report.expect(true=len(found) == head.turn_count, otherwise=f"{name} is shown shorter")
        turns = _turns_of(store)
        store.append("after", said("x"))
        report.expect(true=_turns_of(store) == turns + 1, otherwise=f"{directory.name} cannot be written to")
        return turns


def _turns_of(store: DiskStore) -> int:
    return sum(head.turn_count for head in store.list())
