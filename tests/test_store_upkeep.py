"""Cleaning up, the ledger and the stream of turns, while time passes and several processes spend."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from promptkit_nb.errors import BudgetExceededError, InvalidArgumentError, StoreUnavailableError
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.stores.redis import RedisStore
from storing import START, rich_state, said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore
    from storing import Clock, OpenStore

DOLLAR = Decimal(1)


class TestCleanup:
    """``cleanup`` deletes by age."""

    def test_age_counts_from_the_last_update(self, store: StateStore, clock: Clock) -> None:
        """To the microsecond: what was updated at that time or later stays."""
        store.append("old", said("x"))
        store.append("used", said("x"))
        clock.pass_s(60)
        store.append("used", said("y"))
        assert store.cleanup(60) == ()
        clock.pass_s(0.000001)
        assert store.cleanup(60) == ("old",)
        assert [head.conversation_id for head in store.list()] == ["used"]

    def test_time_may_be_given_instead(self, store: StateStore) -> None:
        """It must have a time zone."""
        for days in range(3):
            store.create(ConversationState(f"{days}", updated_at=START + timedelta(days=days)))
        assert store.cleanup(START + timedelta(days=1)) == ("0",)

    def test_expired_ones_go_too(self, open_store: OpenStore, clock: Clock) -> None:
        """Whatever their age; a dry run names them and deletes nothing."""
        store = open_store(60)
        store.append("expired", said("x"))
        clock.pass_s(60)
        store.append("live", said("x"))
        named = store.cleanup(3600, dry_run=True)
        assert store.cleanup(3600) == named
        assert set(named) <= {"expired"}  # Redis has forgotten it by itself, if its server's clock says so too
        assert [head.conversation_id for head in store.list()] == ["live"]

    @pytest.mark.parametrize("wrong", [0, -1, None, "1", True, float("nan"), START.replace(tzinfo=None)])
    def test_invalid_age_deletes_nothing(self, store: StateStore, wrong: Any) -> None:
        """It is refused, in the background, too."""
        store.append("a", said("x"))
        with pytest.raises(InvalidArgumentError, match="older_than="):
            store.cleanup(wrong)
        with pytest.raises(InvalidArgumentError, match="older_than="):
            store.start_cleanup(60, wrong)
        assert len(store.list()) == 1

    def test_delete_prefix_takes_every_user_and_no_neighbor(self, store: StateStore) -> None:
        """Ids that only look similar stay."""
        for name, user in (("t:1", "alice"), ("t:2", "bob"), ("t", "alice"), ("T:1", "alice"), ("tt:1", "bob")):
            store.append(name, said("x"), user_id=user)
        assert store.delete_prefix("t:") == ("t:1", "t:2")
        assert sorted(head.conversation_id for head in store.list()) == ["T:1", "t", "tt:1"]
        assert store.list(user_id="bob")[0].conversation_id == "tt:1"


class TestBackground:
    """``start_cleanup`` continues until it is stopped."""

    def test_error_is_logged_and_the_next_round_runs(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first round fails, and the second one cleans up."""
        store, rounds = MemoryStore(), threading.Semaphore(0)
        clean = store.cleanup

        def fail_once(older_than: Any, *, dry_run: bool = False) -> tuple[str, ...]:
            if dry_run:
                return clean(older_than, dry_run=True)
            monkeypatch.setattr(store, "cleanup", then)
            raise OSError("The disk is on fire.")

        def then(older_than: Any) -> tuple[str, ...]:
            found = clean(older_than)
            rounds.release()
            return found

        monkeypatch.setattr(store, "cleanup", fail_once)
        store.set(rich_state("a"))
        with caplog.at_level(logging.ERROR):
            cleaning = store.start_cleanup(every=0.001, older_than=1)
            assert rounds.acquire(timeout=60)
            cleaning.stop()
        assert store.list() == []
        assert "it will be tried again" in caplog.text
        assert "The disk is on fire." in caplog.text

    def test_stop_does_not_wait_for_the_next_round(self) -> None:
        """The next round would be in an hour."""
        cleaning = MemoryStore().start_cleanup(every=timedelta(hours=1), older_than=1)
        start = time.monotonic()
        cleaning.stop()
        assert time.monotonic() - start < 60

    def test_closing_the_store_ends_it(self, store: StateStore, caplog: pytest.LogCaptureFixture) -> None:
        """No thread is left, and nothing is logged."""
        before = set(threading.enumerate())
        store.start_cleanup(every=0.001, older_than=3600)
        store.close()
        assert set(threading.enumerate()) <= before
        assert caplog.text == ""

    def test_closed_store_starts_none(self, store: StateStore) -> None:
        """Its rounds could only fail."""
        store.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            store.start_cleanup(60, 60)


class TestLedger:
    """What is spent, by scope."""

    def test_lease_ends_by_the_stores_clock(self, store: StateStore, clock: Clock) -> None:
        """From then on the reservation is unconfirmed, but still counts."""
        store.reserve(["total"], DOLLAR, limit=None, lease=timedelta(minutes=1))
        assert store.spending("total").unconfirmed(clock.now) == 0
        clock.pass_s(60)
        account = store.spending("total")
        assert (account.spent, account.reserved, account.unconfirmed(clock.now)) == (Decimal(0), DOLLAR, DOLLAR)
        with pytest.raises(BudgetExceededError, match=r"\$0 spent, \$1 reserved"):
            store.reserve(["total"], DOLLAR, limit=DOLLAR, lease=60)

    def test_call_may_cost_more_than_was_reserved(self, store: StateStore) -> None:
        """What was paid counts; the next call is refused."""
        store.settle(store.reserve(["total"], Decimal("0.5"), limit=DOLLAR, lease=60), Decimal("1.5"))
        assert store.spending("total").spent == Decimal("1.5")
        with pytest.raises(BudgetExceededError):
            store.reserve(["total"], Decimal(0), limit=DOLLAR, lease=60)

    def test_scope_is_any_text(self, store: StateStore) -> None:
        """Scopes that look alike are separate; one given twice counts once."""
        scopes = ["user:alice", "user:Alice", "日本語", "day:2026-03-01", "conversation:" + "x" * 1000]
        store.settle(store.reserve([*scopes, "user:alice"], DOLLAR, limit=DOLLAR, lease=60), DOLLAR)
        assert [store.spending(scope).spent for scope in [*scopes, "user:al"]] == [1, 1, 1, 1, 1, 0]

    @pytest.mark.parametrize("wrong", [None, 5, "total"])
    def test_invalid_scopes_and_reservations_are_refused(self, store: StateStore, wrong: Any) -> None:
        """The error quotes the value, and nothing is entered."""
        with pytest.raises(InvalidArgumentError, match=r"^scopes=.* is not valid; give a tuple of texts"):
            store.reserve(wrong, DOLLAR, limit=None, lease=60)
        with pytest.raises(InvalidArgumentError, match="is not a reservation; give what"):
            store.settle(wrong, DOLLAR)
        assert store.spending("total").spent == 0

    def test_amounts_are_exact(self, store: StateStore) -> None:
        """A hundred times a tenth of a cent and a bit more, without rounding."""
        for _ in range(100):
            store.settle(store.reserve(["total"], DOLLAR, limit=None, lease=60), Decimal("0.0010000000001"))
        assert store.spending("total").spent == Decimal("0.1000000000100")

    def test_ledger_outlives_a_ttl(self, open_store: OpenStore, clock: Clock) -> None:
        """Conversations expire, but not their cost."""
        store = open_store(60)
        store.settle(store.reserve(["total"], DOLLAR, limit=None, lease=1), DOLLAR)
        clock.pass_s(3600)
        store.cleanup(1)
        assert store.spending("total").spent == 1

    @pytest.mark.parametrize("kind", ["disk", "redis"])
    def test_processes_stay_under_one_limit(self, tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
        """Eight of them spend tenths until they are refused: exactly ten tenths are spent."""
        opener: Callable[[], StateStore]
        if kind == "disk":
            opener = partial(DiskStore, tmp_path)
        else:
            opener = partial(RedisStore, request.getfixturevalue("redis_url"), prefix=f"{uuid4()}:")
        with multiprocessing.get_context("spawn").Pool(8) as pool:
            calls = pool.map(_spend, [opener] * 8, chunksize=1)
        with opener() as store:
            account = store.spending("total")
        assert (sum(calls), account.spent, account.reserved) == (10, DOLLAR, Decimal(0))


class TestStream:
    """``iter_turns`` yields whole conversations, whatever is written meanwhile."""

    def test_deleted_meanwhile_is_passed_over(self, store: StateStore) -> None:
        """The others are still yielded."""
        for name in "abc":
            store.append(name, said(name))
        stream = store.iter_turns()
        found = [next(stream).turn.user_text]
        store.delete("b")
        assert found + [each.turn.user_text for each in stream] == ["a", "c"]

    def test_taken_over_meanwhile_is_passed_over(self, store: StateStore) -> None:
        """It no longer belongs to that user."""
        for name in "ab":
            store.append(name, said(name), user_id="alice")
        stream = store.iter_turns(user_id="alice")
        next(stream)
        store.set(ConversationState("b", "bob", turns=(said("secret"),)))
        assert list(stream) == []

    def test_looking_keeps_nothing_alive(self, open_store: OpenStore, clock: Clock) -> None:
        """Reading all turns for a view restarts no TTL."""
        store = open_store(60)
        store.append("a", said("x"))
        clock.pass_s(59)
        assert len(list(store.iter_turns())) == 1
        clock.pass_s(1)
        assert list(store.iter_turns()) == []


def _spend(opener: Callable[[], StateStore]) -> int:
    calls = 0
    with opener() as store:
        while True:
            try:
                reservation = store.reserve(["total", "day"], Decimal("0.1"), limit=DOLLAR, lease=60)
            except BudgetExceededError:
                return calls
            store.settle(reservation, Decimal("0.1"))
            calls += 1
