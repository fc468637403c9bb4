"""How many requests of a run are under way, and which kernel sends them."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptkit_nb import MemoryStore
from promptkit_nb.rows.gate import LONGEST_WAIT_S, MOST_LIMITS_IN_A_ROW, Gate
from promptkit_nb.rows.lease import LASTS_S, LeaseLostError, RunLease
from promptkit_nb.rows.machine_lock import MachineLock
from storing import START, Clock

if TYPE_CHECKING:
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore
    from storing import OpenStore


class Time:
    """A clock in seconds that a test moves."""

    def __init__(self) -> None:
        """Start at 0."""
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def entered(gate: Gate, count: int) -> list[int]:
    """Let so many requests pass, and return their tickets."""
    return [ticket for _ in range(count) if (ticket := gate.enter()) is not None]


def begun(most: int) -> tuple[Gate, Time]:
    """Return a gate after its first answer."""
    time = Time()
    gate = Gate(most, clock=time)
    entered(gate, 1)
    gate.answered()
    return gate, time


class TestGate:
    def test_the_first_request_goes_alone(self) -> None:
        """It shows whether any can be answered."""
        gate = Gate(8)
        entered(gate, 1)
        assert gate.allowed == 1
        gate.answered()
        assert gate.allowed == 8

    def test_a_burst_halves_once(self) -> None:
        """Requests that were under way at the cut do not cut again."""
        gate, _ = begun(8)
        tickets = entered(gate, 8)
        pauses = [gate.limited(ticket, 2.0) for ticket in tickets]
        assert [pause and (pause.seconds, pause.before, pause.after) for pause in pauses] == [
            (2.0, 8, 4),
            *[(2.0, 4, 4)] * 7,
        ]

    def test_all_wait_for_the_longest(self) -> None:
        """Nothing passes before the server's time."""
        gate, time = begun(8)
        first, second = entered(gate, 2)
        gate.limited(first, 5.0)
        gate.limited(second, 1.0)
        time.now_s = 4.9
        passed: list[int | None] = []
        waiting = threading.Thread(target=lambda: passed.append(gate.enter()))
        waiting.start()
        assert passed == []
        gate.stop()
        waiting.join()
        assert passed == [None]

    def test_it_creeps_up_again(self) -> None:
        """One more after each twenty good answers, up to what was asked for."""
        gate, time = begun(4)
        gate.limited(entered(gate, 1)[0], 1.0)
        time.now_s = 1.0
        allowed = []
        for _ in range(60):
            entered(gate, 1)
            gate.answered()
            allowed.append(gate.allowed)
        assert [allowed[at] for at in (18, 19, 38, 39, 58, 59)] == [2, 3, 3, 4, 4, 4]

    def test_without_a_hint_waits_double(self) -> None:
        """From a second to a minute, until it is hopeless."""
        gate, time = begun(2)
        waits = []
        for _ in range(MOST_LIMITS_IN_A_ROW):
            pause = gate.limited(entered(gate, 1)[0], None)
            assert pause is not None
            waits.append(pause.seconds)
            time.now_s += pause.seconds
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
        assert gate.limited(entered(gate, 1)[0], None) is None

    def test_a_wait_that_is_too_long(self) -> None:
        """The user decides."""
        gate, _ = begun(2)
        assert gate.limited(entered(gate, 1)[0], LONGEST_WAIT_S + 1) is None

    def test_money_that_others_have_reserved(self) -> None:
        """May come back; alone there is none."""
        gate, _ = begun(8)
        first, second = entered(gate, 2)
        assert (gate.short_of_money(first), gate.allowed) == (True, 4)
        assert gate.short_of_money(second) is False

    def test_money_that_came_back_meanwhile(self) -> None:
        """Another request may end between the refusal and its note: there may be room now, but only once."""
        gate, _ = begun(8)
        _, refused = entered(gate, 2)
        gate.answered()
        assert gate.short_of_money(refused) is True
        assert gate.short_of_money(entered(gate, 1)[0]) is False


def lease_on(store: StateStore, clock: Clock) -> RunLease:
    """Return a lease that waits by moving the clock."""
    return RunLease(store, "rows:a", "alice", clock=clock, sleep=clock.pass_s)


class TestLease:
    def test_one_at_a_time(self, open_store: OpenStore) -> None:
        """In every store; it is free after it is released."""
        store = open_store()
        first, second = (RunLease(store, "rows:a", "alice") for _ in range(2))
        assert (first.take(), second.take()) == (True, False)
        first.release()
        assert second.take()

    def test_a_dead_holder(self) -> None:
        """The lease is free a few seconds later, for one of those who wait."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        dead, second, third = (lease_on(store, clock) for _ in range(3))
        assert dead.take()
        second.wait()
        assert clock() == START + timedelta(seconds=LASTS_S)
        assert not third.take()

    def test_a_living_holder_keeps_it(self) -> None:
        """It renews the lease in time."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        first, second = lease_on(store, clock), lease_on(store, clock)
        first.take()
        for _ in range(10):
            clock.pass_s(LASTS_S / 2)
            first.renew()
            first.check()
            assert not second.take()

    def test_a_holder_that_slept(self) -> None:
        """Sends nothing more, and cannot renew what another run has taken."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        slept, second = lease_on(store, clock), lease_on(store, clock)
        slept.take()
        clock.pass_s(2 * LASTS_S)
        with pytest.raises(LeaseLostError):
            slept.check()
        assert second.take()
        slept.renew()
        with pytest.raises(LeaseLostError):
            slept.check()
        second.check()

    def test_a_stopped_holder_on_the_same_machine(self, tmp_path: Path) -> None:
        """Keeps it as long as its process exists, because its requests under way may still be answered."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        stopped, second = (
            RunLease(store, "rows:a", "alice", lock=MachineLock("a", tmp_path), clock=clock) for _ in range(2)
        )
        assert stopped.take()
        for _ in range(10):
            clock.pass_s(LASTS_S)
            assert not second.take()
        with pytest.raises(LeaseLostError):
            stopped.check()
        stopped.release()
        assert second.take()
        second.release()

    def test_whoever_waits_for_another_machine_blocks_nobody(self, tmp_path: Path) -> None:
        """The lock of the machine is given back while another machine has the lease."""
        store = MemoryStore()
        elsewhere = RunLease(store, "rows:a", "alice")
        assert elsewhere.take()
        here, also_here = (RunLease(store, "rows:a", "alice", lock=MachineLock("a", tmp_path)) for _ in range(2))
        assert (here.take(), also_here.take()) == (False, False)
        elsewhere.release()
        assert (also_here.take(), here.take()) == (True, False)
        also_here.release()

    def test_it_is_renewed_in_the_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And free after it."""
        monkeypatch.setattr("promptkit_nb.rows.lease.LASTS_S", 0.2)
        store = MemoryStore()
        first, second = RunLease(store, "rows:a", "alice"), RunLease(store, "rows:a", "alice")
        renewed = threading.Event()

        def renew() -> None:
            RunLease.renew(first)
            renewed.set()

        monkeypatch.setattr(first, "renew", renew)
        with first.held(lambda: None):
            assert renewed.wait(60)
        assert second.take()

    def test_leases_of_users_and_names_are_their_own(self) -> None:
        """Nobody waits for another's run."""
        store = MemoryStore()
        ids = [("rows:a", "alice"), ("rows:b", "alice"), ("rows:a", "bob")]
        assert all(RunLease(store, name, user).take() for name, user in ids)


class TestMachineLock:
    def test_no_file_is_left(self, tmp_path: Path) -> None:
        """It is removed when the lock is released; whoever opened it before does not hold it for that."""
        first, second = MachineLock("a", tmp_path), MachineLock("a", tmp_path)
        assert (first.take(), second.take(), len([*tmp_path.iterdir()])) == (True, False, 1)
        first.release()
        assert [*tmp_path.iterdir()] == []
        assert (second.take(), first.take()) == (True, False)
        second.release()

    def test_a_killed_process_frees_it(self, tmp_path: Path) -> None:
        """The operating system does, and the file that it leaves is used again."""
        code = (
            "import sys, time, pathlib\n"
            "from promptkit_nb.rows.machine_lock import MachineLock\n"
            "lock = MachineLock('a', pathlib.Path(sys.argv[1]))\n"
            "print(lock.take(), flush=True)\n"
            "time.sleep(600)\n"
        )
        lock = MachineLock("a", tmp_path)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "True\n"
            assert not lock.take()
            process.kill()
        assert lock.take()
        lock.release()
        assert [*tmp_path.iterdir()] == []

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        """Nothing is locked then, and the lease in the store decides alone."""
        (tmp_path / "file").write_text("not a directory")
        locks = [MachineLock("a", tmp_path / "file") for _ in range(2)]
        assert [lock.take() for lock in locks] == [True, True]

    def test_many_threads(self, tmp_path: Path) -> None:
        """At most one holds it, while all take and release it, and remove the file."""
        holders, most = set[int](), list[int]()

        def work(number: int) -> None:
            lock = MachineLock("a", tmp_path)
            for _ in range(50):
                if lock.take():
                    holders.add(number)
                    most.append(len(holders))
                    holders.discard(number)
                    lock.release()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(most) == {1}
