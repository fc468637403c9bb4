"""Ages and TTLs when clocks differ, are set, or were wrong, and TTLs that are given, changed or left out later."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest

from promptkit_nb import conversations_df
from promptkit_nb.errors import ConversationNotFoundError, StoreUnavailableError
from promptkit_nb.manager import ConversationManager
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.turns import utc_now
from storing import START, Clock, said, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore
    from storing import OpenStore

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0


def ids(store: StateStore) -> list[str]:
    """Return the ids of a store, sorted."""
    return [head.conversation_id for head in store.list(sort_by="conversation_id", descending=False)]


class TestBehind:
    """A machine whose clock is behind makes nothing look old."""

    @pytest.mark.parametrize("behind_s", [1, HOUR, 2 * DAY, 20 * YEAR])
    def test_times_never_go_back(self, store: StateStore, clock: Clock, behind_s: float) -> None:
        """Whatever is written under that clock."""
        first = said("one")
        store.append("a", first)
        clock.pass_s(-behind_s)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writes: list[Callable[[], object]] = [
                lambda: store.append("a", said("two")),
                lambda: store.replace("a", first.id, said("better")),
                lambda: store.archive("a", 1, 2, as_branch="b"),
                lambda: store.restore("a", "b"),
                lambda: store.update_metadata("a", topic="travel"),
            ]
            for write in writes:
                write()
                assert store.head("a").updated_at == START
                assert store.get("a").updated_at == START

    @pytest.mark.parametrize("behind_s", [HOUR, 2 * DAY])
    def test_live_conversation_is_not_cleaned_up(self, store: StateStore, clock: Clock, behind_s: float) -> None:
        """It was just written by a machine with a slow clock."""
        store.append("a", said("one"))
        clock.pass_s(-behind_s)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.append("a", said("two"))
            assert store.cleanup(60) == ()
        clock.pass_s(behind_s)
        assert store.cleanup(60) == ()
        assert texts(store.get("a").turns) == ["one", "two"]

    @pytest.mark.parametrize("behind_s", [HOUR, 2 * DAY])
    def test_expiry_never_goes_back(self, open_store: OpenStore, clock: Clock, behind_s: float) -> None:
        """Neither reading nor writing under that clock makes it expire earlier."""
        store = open_store(600)
        store.append("a", said("one"))
        clock.pass_s(-behind_s)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.get("a")
            store.append("a", said("two"))
        clock.pass_s(behind_s + 599)
        assert ids(store) == ["a"]
        clock.pass_s(1)
        assert ids(store) == []

    def test_order_of_turns_is_that_of_writing(self, store: StateStore, clock: Clock) -> None:
        """Even if each is dated before the one before it."""
        for number in range(5):
            store.append("a", said(f"{number}", created_at=clock.now))
            clock.pass_s(-HOUR)
        assert texts(store.get("a").turns) == ["0", "1", "2", "3", "4"]
        assert texts(store.recent("a", 2)) == ["3", "4"]


class TestAhead:
    """A machine whose clock is ahead keeps nothing alive."""

    def test_time_far_ahead_counts_as_now_and_is_reported(self, store: StateStore, clock: Clock) -> None:
        """The first cleanup says so, and from then on the conversation ages; so it is gone after days, not a year."""
        clock.pass_s(YEAR)
        store.append("a", said("one"))
        clock.pass_s(-YEAR)
        with pytest.warns(
            UserWarning,
            match=r"'a' in .* is more than a day ahead \(2027-03-01 12:00 UTC, now is 2026-03-01 12:00\), so it counts",
        ):
            assert store.cleanup(2 * DAY) == ()
        clock.pass_s(2 * DAY)
        assert store.cleanup(2 * DAY) == ()
        clock.pass_s(1)
        assert store.cleanup(2 * DAY) == ("a",)

    def test_dry_run_notes_nothing(self, store: StateStore, clock: Clock) -> None:
        """A dry run changes nothing."""
        clock.pass_s(YEAR)
        store.append("a", said("one"))
        clock.pass_s(-YEAR)
        before = store.get("a")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store.cleanup(60, dry_run=True) == ()
        assert store.get("a") == before

    def test_a_day_ahead_is_believed(self, store: StateStore, clock: Clock) -> None:
        """Clocks differ a little; to the microsecond."""
        clock.pass_s(DAY)
        store.append("a", said("one"))
        clock.pass_s(-DAY)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store.cleanup(60) == ()
            store.append("a", said("two"))
        clock.pass_s(-0.000001)
        with pytest.warns(UserWarning, match="more than a day ahead"):
            store.append("a", said("three"))

    def test_it_is_reported_once(self, store: StateStore, clock: Clock) -> None:
        """Each handle reports each conversation once."""
        clock.pass_s(YEAR)
        store.append("a", said("one"))
        clock.pass_s(-YEAR)
        with pytest.warns(UserWarning, match="'a'") as caught:
            store.append("a", said("two"))
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.append("a", said("three"))
            assert store.cleanup(60) == ()

    def test_many_are_not_all_reported(self, store: StateStore, clock: Clock) -> None:
        """The tenth warning says that it is the last one."""
        clock.pass_s(YEAR)
        for number in range(12):
            store.append(f"c{number}", said("x"))
        clock.pass_s(-YEAR)
        with pytest.warns(UserWarning, match="more than a day ahead") as caught:
            store.cleanup(60)
        assert len(caught) == 10
        assert [str(each.message).endswith("are not reported.") for each in caught] == [False] * 9 + [True]

    def test_ttl_counts_from_when_it_was_noticed(self, open_store: OpenStore, clock: Clock) -> None:
        """Reading the conversation under the right clock notices it."""
        store = open_store(600)
        clock.pass_s(YEAR)
        store.append("a", said("one"))
        clock.pass_s(-YEAR)
        with pytest.warns(UserWarning, match="more than a day ahead"):
            store.get("a")
        clock.pass_s(599)
        assert ids(store) == ["a"]
        clock.pass_s(1)
        assert ids(store) == []
        with pytest.raises(ConversationNotFoundError):
            store.get("a")

    def test_written_conversation_stays(self, open_store: OpenStore, clock: Clock) -> None:
        """Each write under the right clock counts."""
        store = open_store(600)
        clock.pass_s(YEAR)
        store.append("a", said("one"))
        clock.pass_s(-YEAR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(3):
                store.append("a", said(f"{number}"))
                clock.pass_s(599)
                assert store.cleanup(600) == ()
        assert len(store.get("a").turns) == 4

    def test_order_of_listing_is_total(self, store: StateStore, clock: Clock) -> None:
        """By time and then by id, whatever the clocks were."""
        for name, offset_s in (("c", 0), ("a", YEAR), ("b", -YEAR), ("d", 0)):
            clock.pass_s(offset_s)
            store.append(name, said("x"))
            clock.pass_s(-offset_s)
        assert [head.conversation_id for head in store.list()] == ["a", "d", "c", "b"]
        assert [head.conversation_id for head in store.list(limit=2, offset=1)] == ["d", "c"]


class Opening(Protocol):
    """Opens the same store again, with another TTL."""

    def __call__(self, ttl: float | None = None) -> StateStore:
        """Open it."""
        ...


@pytest.fixture(params=["disk", "redis"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opening]:
    """Open one store several times."""
    prefix, opened = f"{uuid4()}:", list["StateStore"]()

    def opener(ttl: float | None = None) -> StateStore:
        if request.param == "disk":
            opened.append(DiskStore(tmp_path, ttl, clock=clock))
        else:
            url = request.getfixturevalue("redis_url")
            opened.append(RedisStore(url, prefix=prefix, ttl=ttl, clock=clock))
        return opened[-1]

    yield opener
    for each in opened:
        each.close()


class TestLaterTtl:
    """A TTL that is given when conversations exist already."""

    def test_it_applies_to_what_is_there(self, reopen: Opening, clock: Clock) -> None:
        """Counted from the last write; opening says how many expire at once."""
        store = reopen()
        for name in ("old", "older"):
            store.append(name, said("x"))
        clock.pass_s(50)
        store.append("new", said("x"))
        clock.pass_s(50)
        with pytest.warns(UserWarning, match=r"^2 of 3 conversations in .* more than 0:01:00 ago and expire at once"):
            brief = reopen(60)
        assert ids(brief) == ["new"]
        for call in (brief.get, brief.head, brief.delete):
            with pytest.raises(ConversationNotFoundError):
                call("old")
        assert list(conversations_df(brief).conversation_id) == ["new"]
        clock.pass_s(10)
        assert ids(brief) == []
        assert brief.cleanup(YEAR) == ("new", "old", "older")
        assert ids(store) == []

    def test_it_is_said_once(self, reopen: Opening, clock: Clock) -> None:
        """Not by the next handles, unless their TTL is shorter; what others wrote without a TTL just expires."""
        store = reopen()
        store.append("a", said("x"))
        clock.pass_s(100)
        with pytest.warns(UserWarning, match="^1 of 1 conversation in "):
            reopen(60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for ttl in (60, 90, None):
                reopen(ttl)
        with pytest.warns(UserWarning, match=r"^1 of 1 conversation in .* more than 0:00:30 ago"):
            reopen(30)

    def test_nothing_to_say(self, reopen: Opening, clock: Clock) -> None:
        """If nothing expires at once, or the store is empty."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reopen(30)
            reopen().append("a", said("x"))
            clock.pass_s(20)
            assert ids(reopen(25)) == ["a"]

    def test_reading_fills_it_in(self, reopen: Opening, clock: Clock) -> None:
        """From then on the expiry is written, and holds for all handles."""
        store = reopen()
        store.append("a", said("x"))
        clock.pass_s(50)
        brief = reopen(60)
        brief.get("a")
        clock.pass_s(59)
        assert ids(brief) == ids(store) == ["a"]
        clock.pass_s(1)
        assert ids(brief) == ids(store) == ids(reopen()) == []

    def test_handle_without_a_ttl_clears_and_shortens_nothing(self, reopen: Opening, clock: Clock) -> None:
        """Its reads are not recorded; each of its writes starts the TTL again."""
        brief, store = reopen(60), reopen()
        brief.append("a", said("one"))
        clock.pass_s(50)
        store.get("a")
        store.append("a", said("two"))
        clock.pass_s(59)
        assert ids(store) == ["a"]
        store.set(replace(store.get("a"), metadata={"topic": "travel"}))
        clock.pass_s(59)
        assert ids(store) == ids(brief) == ["a"]
        clock.pass_s(1)
        assert ids(store) == ids(brief) == []

    def test_shorter_ttl_shortens_nothing(self, reopen: Opening, clock: Clock) -> None:
        """An expiry that was written holds."""
        long, brief = reopen(600), reopen(60)
        long.append("a", said("one"))
        brief.get("a")
        brief.append("a", said("two"))
        clock.pass_s(599)
        assert ids(brief) == ids(long) == ["a"]
        clock.pass_s(1)
        assert ids(brief) == ids(long) == []

    def test_copy_made_without_a_ttl_does_not_expire(self, reopen: Opening, clock: Clock) -> None:
        """A fork is a new conversation, and no TTL was asked for."""
        reopen(60).append("a", said("one"))
        store = reopen()
        store.fork("a", "b")
        clock.pass_s(YEAR)
        assert ids(store) == ["b"]


class TestServersClock:
    """On Redis, ages are those of the server's clock; clocks of machines do not matter."""

    @pytest.fixture
    def prefix(self) -> str:
        """A prefix for this test."""
        return f"{uuid4()}:"

    def test_store_tells_the_servers_time(self, redis_url: str, prefix: str) -> None:
        """That of this machine, because the server runs here; ``tests/endurance`` runs machines with other clocks."""
        before = utc_now()
        with RedisStore(redis_url, prefix=prefix) as store:
            head = store.append("a", said("x"))
            assert head.created_at == head.updated_at
            assert before - timedelta(seconds=1) <= head.created_at <= store.now() <= utc_now() + timedelta(seconds=1)

    def test_closed_store_tells_no_time(self, redis_url: str, prefix: str) -> None:
        """It cannot ask."""
        store = RedisStore(redis_url, prefix=prefix)
        store.close()
        with pytest.raises(StoreUnavailableError, match="is closed"):
            store.now()

    def test_conversations_and_budget_days_are_dated_by_it(self, redis_url: str, prefix: str) -> None:
        """A manager uses its store's clock unless it is given one."""
        shifted = Clock()
        with RedisStore(redis_url, prefix=prefix, clock=shifted) as store:
            manager = ConversationManager(DemoProvider(), store)
            conversation = manager.new_conversation(conversation_id="a")
            assert store.head("a").created_at == START
            call = conversation._spending.open("a", "alice", Decimal("0.5"), "demo")
            call.settle(Decimal("0.25"))
            assert store.spending("day:2026-03-01").spent == Decimal("0.25")


def test_times_that_were_given_are_kept(store: StateStore) -> None:
    """``create`` and ``set`` store what they are given, such as the times of an archive."""
    state = ConversationState("a", created_at=START - timedelta(days=900), updated_at=START - timedelta(days=800))
    store.create(state)
    assert (store.head("a").created_at, store.head("a").updated_at) == (state.created_at, state.updated_at)
    store.set(replace(state, updated_at=START - timedelta(days=850)))
    assert store.head("a").updated_at == START - timedelta(days=850)
