"""Changes of a history lose nothing: replace, archive, restore and fork, in any order, on every store."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from promptkit_nb.context_hash import chain_of
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.state import Branch, ConversationState, Summary
from promptkit_nb.stores.layout import ASIDE, Record
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.turns import Usage
from storing import START, rich_state, said, texts

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn
    from storing import Clock, OpenStore


def spoken(store: StateStore, letters: str) -> tuple[Turn, ...]:
    """Append one turn per letter to the conversation ``a``; return them."""
    turns = tuple(said(letter) for letter in letters)
    for turn in turns:
        store.append("a", turn)
    return turns


def current(store: StateStore) -> str:
    """Return the current texts of the conversation ``a``, after checking that ``recent`` agrees for every count."""
    found = texts(store.get("a").turns)
    for n in range(len(found) + 2):
        assert texts(store.recent("a", n)) == found[max(len(found) - n, 0) :]
    assert store.head("a").turn_count == len(found)
    return "".join(found)


class TestReplacing:
    """``replace`` answers a turn again, in its place."""

    def test_first_of_many_is_replaced_in_place(self, store: StateStore) -> None:
        """The later ones stay, and new turns are appended after them."""
        a, *_ = spoken(store, "abc")
        store.replace("a", a.id, said("x"))
        spoken(store, "d")
        assert current(store) == "xbcd"

    def test_former_version_may_be_replaced(self, store: StateStore) -> None:
        """A caller that names it has not seen the newer one, which is kept as a version, too."""
        (a,) = spoken(store, "a")
        store.replace("a", a.id, said("x"))
        store.replace("a", a.id, said("y"))
        (versions,) = store.get("a").versions.values()
        assert (current(store), texts(versions)) == ("y", ["a", "x"])

    def test_change_is_dated(self, store: StateStore, clock: Clock) -> None:
        """``updated_at`` is the current time."""
        (a,) = spoken(store, "a")
        clock.pass_s(5)
        assert store.replace("a", a.id, said("x")).updated_at == clock.now

    def test_unpriced_and_replayed_versions_count_as_such(self, store: StateStore) -> None:
        """An unknown cost is counted separately, and a replay is free."""
        a, b = spoken(store, "ab")
        store.replace("a", a.id, said("x", cost=None))
        head = store.replace("a", b.id, said("y", replayed=True))
        assert (head.token_count, head.total_cost, head.unpriced_turns) == (30, 2 * a.cost, 1)  # type: ignore[operator]  # it has one

    @pytest.mark.parametrize("wrong", ["nothing", "", "\ud83d", None, 7])
    def test_unknown_turn_is_refused(self, store: StateStore, wrong: Any) -> None:
        """Whatever is given in place of its id."""
        spoken(store, "a")
        with pytest.raises(InvalidArgumentError, match="has no turn and no branch"):
            store.replace("a", wrong, said("x"))
        with pytest.raises(InvalidArgumentError, match="has no turn and no branch"):
            store.restore("a", wrong)
        assert store.head("a").revision == 1

    def test_restoring_what_is_current_changes_nothing(self, store: StateStore) -> None:
        """It does not count as a write either."""
        (a,) = spoken(store, "a")
        head = store.head("a")
        assert store.restore("a", a) == head


class TestArchiving:
    """Archived turns leave the conversation, and are restored to where they belong."""

    def test_order_of_restoring_makes_no_difference(self, store: StateStore) -> None:
        """Two heads that were archived one after the other can be restored in either order."""
        for order in (("1", "2"), ("2", "1")):
            store.set(ConversationState("a", created_at=START))
            turns = spoken(store, "abcde")
            store.archive("a", 0, 2, as_branch="1")
            store.archive("a", 0, 2, as_branch="2")
            spoken(store, "f")
            for branch in order:
                store.restore("a", branch)
            state = store.get("a")
            assert (current(store), state.branches, state.context_hash) == ("abcdef", (), None)
            assert state.turns[:5] == turns

    def test_tail_is_restored_after_what_is_left_of_the_head(self, store: StateStore) -> None:
        """After a head was archived, the tail counts from there; when the head is back, from the front again."""
        spoken(store, "abcde")
        store.archive("a", 3, 5, as_branch="tail")
        store.archive("a", 0, 2, as_branch="head")
        (tail, _) = store.get("a").branches
        assert (tail.id, tail.start) == ("tail", 1)
        store.restore("a", "tail")
        assert current(store) == "cde"
        store.restore("a", "head")
        assert current(store) == "abcde"

    def test_swapped_tails_each_find_their_context(self, store: StateStore) -> None:
        """After a head of the second history was archived, both histories are restored without stale turns."""
        spoken(store, "abc")
        first = chain_of(store.get("a").turns)
        store.archive("a", 0, 3, as_branch="first")
        spoken(store, "def")
        second = chain_of(store.get("a").turns)
        store.archive("a", 0, 1, as_branch="head of the second")
        store.restore("a", "first")
        assert (current(store), context_chain(store)) == ("abc", first)
        (_, other) = store.get("a").branches
        store.restore("a", other)
        assert (current(store), context_chain(store)) == ("ef", second)

    def test_tail_that_followed_a_head_is_not_stale_when_it_returns(self, store: StateStore) -> None:
        """Even if the archived head was everything before it."""
        spoken(store, "abcde")
        whole = context_chain(store)
        store.archive("a", 3, 5, as_branch="tail")
        spoken(store, "x")
        store.archive("a", 0, 3, as_branch="head")
        store.restore("a", "tail")
        assert (current(store), context_chain(store)) == ("de", whole)

    def test_middle_is_restored_in_the_middle(self, store: StateStore) -> None:
        """Between the turns that were around it; the later ones stay."""
        spoken(store, "abcd")
        store.archive("a", 1, 3, as_branch="middle")
        assert current(store) == "ad"
        spoken(store, "e")
        store.restore("a", "middle")
        assert current(store) == "abcde"

    def test_tail_whose_context_was_archived_is_restored_at_the_end(self, store: StateStore) -> None:
        """The turns before it are gone, and it does not replace earlier ones."""
        spoken(store, "abcd")
        store.archive("a", 3, 4, as_branch="tail")
        spoken(store, "e")
        store.archive("a", 2, 3, as_branch="middle")
        spoken(store, "fgh")
        store.archive("a", 1, 4, as_branch="long")
        assert [branch.start for branch in store.get("a").branches] == [1, 1, 1]
        store.restore("a", "tail")
        assert current(store) == "ad"

    def test_versions_are_archived_and_restored_with_their_turn(self, store: StateStore) -> None:
        """A turn that is replaced while archived is restored as its latest answer."""
        a, b, _ = spoken(store, "abc")
        store.replace("a", b.id, said("x"))
        store.archive("a", 1, 3, as_branch="tail")
        state = store.get("a")
        assert (texts(state.branches[0].turns), current(store)) == (["x", "c"], "a")
        store.restore("a", b)
        store.restore("a", "tail")
        assert current(store) == "abc"
        assert [texts(previous) for previous in store.get("a").versions.values()] == [["x"]]
        assert store.get("a").turns[0] == a

    def test_nothing_is_archived_from_an_empty_range(self, store: StateStore) -> None:
        """There is neither a branch nor a write."""
        spoken(store, "a")
        head = store.head("a")
        assert store.archive("a", 1, 1, as_branch="b") == head
        assert store.get("a").branches == ()

    @pytest.mark.parametrize("wrong", ["", " ", None, 7, "\ud83d"])
    def test_branch_has_an_id(self, store: StateStore, wrong: Any) -> None:
        """An id is any text that can be encoded."""
        spoken(store, "a")
        with pytest.raises(InvalidArgumentError, match="cannot be a branch id"):
            store.archive("a", 0, 1, as_branch=wrong)

    def test_branch_that_a_state_brought_is_restored(self, store: StateStore) -> None:
        """Its versions are restored with it."""
        left = said("left")
        store.set(
            ConversationState(
                "a",
                turns=(said("a"), said("b")),
                branches=(Branch(id="before", turns=(left,), start=1),),
                versions={left.id: (said("previous"),)},
            )
        )
        store.restore("a", "before")
        assert texts(store.get("a").turns) == ["a", "left"]
        assert [texts(previous) for previous in store.get("a").versions.values()] == [["previous"]]


class TestSummaries:
    """A summary is in the totals if it was paid for."""

    @pytest.mark.parametrize(
        ("summary", "words"),
        [
            ("The user is Alice.", "A str is not a Summary"),
            (Summary(0, 0, None), "Expected `str`, got `null`"),  # type: ignore[arg-type]  # that is the point
            (Summary(None, 0, "x"), "cannot be stored"),  # type: ignore[arg-type]  # same
            (Summary(0, 0, "x", cost=Decimal("NaN")), "A summary's cost cannot be NaN"),
            (Summary(0, 0, "x", Usage(-5, 0)), "A summary's usage cannot be"),
            (Summary(0, 0, "x", created_at=datetime(2026, 1, 1)), "A summary's time has no time zone"),  # noqa: DTZ001 - same
        ],
    )
    def test_unreadable_summary_is_refused(self, store: StateStore, summary: Any, words: str) -> None:
        """By ``add_summary`` and ``set``; the conversation is unchanged."""
        spoken(store, "a")
        before = store.get("a")
        with pytest.raises(InvalidArgumentError, match=words):
            store.add_summary("a", summary)
        with pytest.raises(InvalidArgumentError):
            store.set(replace(before, summaries=(summary,)))
        assert store.get("a") == before
        assert store.head("a").total_cost == before.total_cost

    def test_half_a_character_is_cleaned(self, store: StateStore) -> None:
        """Lone surrogates are replaced as in messages."""
        spoken(store, "a")
        store.add_summary("a", Summary(0, 0, "Alice \ud83d"))
        assert store.get("a").summaries[0].text == "Alice \ufffd"

    def test_summary_by_hand_costs_nothing(self, store: StateStore) -> None:
        """It does not count as unpriced either."""
        head = store.create(ConversationState("a"))
        found = store.add_summary("a", Summary(0, 1, "By hand."))
        assert (found.token_count, found.total_cost, found.unpriced_turns) == (0, head.total_cost, 0)

    def test_totals_of_head_and_state_agree_in_a_fork(self, store: StateStore) -> None:
        """A copied summary does not give a price to an unpriced turn."""
        store.set(rich_state("a"))
        store.fork("a", "b")
        head = store.append("b", said("x", cost=None))
        assert (head.total_cost, store.get("b").total_cost) == (None, None)


class TestForking:
    """A fork is independent."""

    def test_changes_in_a_fork_stay_there(self, store: StateStore) -> None:
        """Replacing, archiving and restoring in one does not change the other."""
        a, *_ = spoken(store, "abc")
        store.fork("a", "b")
        before = store.get("a")
        store.replace("b", a.id, said("x"))
        store.archive("b", 1, 3, as_branch="tail")
        assert store.get("a") == before
        store.archive("a", 0, 1, as_branch="head")
        assert texts(store.get("b").turns) == ["x"]

    def test_restored_turns_are_still_inherited(self, store: StateStore) -> None:
        """Versions and branches, too; a new answer in the fork is its own."""
        (a, b) = spoken(store, "ab")
        store.replace("a", a.id, said("x"))
        store.archive("a", 1, 2, as_branch="tail")
        store.fork("a", "f")
        store.restore("f", a)
        store.restore("f", "tail")
        store.replace("f", b.id, said("own"))
        state = store.get("f")
        assert [(turn.user_text, turn.inherited) for turn in state.stored_turns] == [
            ("a", True),
            ("own", False),
            ("x", True),
            ("b", True),
        ]
        assert store.head("f").token_count == state.token_count == 10

    def test_state_of_a_fork_keeps_its_marks(self, store: StateStore) -> None:
        """``set(get(id))`` and a fork of the fork."""
        spoken(store, "ab")
        store.fork("a", "b")
        store.append("b", said("own"))
        state = store.get("b")
        store.set(state)
        assert store.get("b") == state
        store.fork("b", "c")
        store.append("c", said("own"))
        assert [turn.inherited for turn in store.get("c").turns] == [True, True, True, False]
        assert store.head("c").token_count == 10

    def test_expired_original_is_not_forked(self, open_store: OpenStore, clock: Clock) -> None:
        """The new id stays free; forking a live conversation restarts its TTL."""
        store = open_store(60)
        spoken(store, "a")
        clock.pass_s(59)
        store.fork("a", "b")
        clock.pass_s(59)
        assert sorted(head.conversation_id for head in store.list()) == ["a", "b"]


def test_number_of_turns_is_limited() -> None:
    """A turn that would reach the rows of versions is refused with our error."""
    store = MemoryStore()
    (a,) = spoken(store, "a")
    stored = store._find("a")
    assert isinstance(stored, Record)
    store._put_record("a", structs.replace(stored, next_place=ASIDE - 1, next_aside=2 * ASIDE - 1))
    with pytest.raises(InvalidArgumentError, match="Continue in a new conversation"):
        store.append("a", said("b"))
    with pytest.raises(InvalidArgumentError, match="Continue in a new conversation"):
        store.replace("a", a.id, said("b"))


def context_chain(store: StateStore) -> str:
    """Return the context hash of the next turn of the conversation ``a``."""
    state = store.get("a")
    return chain_of(state.turns, state.context_hash)


Slot = list[str]  # the answers of one place, the current one last


@dataclass
class Line:
    """A branch as plain lists."""

    kind: str
    start: int
    slots: list[Slot]


@dataclass
class Model:
    """A conversation as plain lists, which every store must agree with."""

    slots: list[Slot] = field(default_factory=list)
    branches: dict[str, Line] = field(default_factory=dict)
    paid: int = 0

    @property
    def all_slots(self) -> list[Slot]:
        """All places, current or not."""
        return [*self.slots, *(slot for line in self.branches.values() for slot in line.slots)]

    def archive(self, start: int, stop: int, name: str) -> None:
        """Archive a head or a tail."""
        is_tail = stop == len(self.slots)
        if not is_tail:
            self.shift(-stop)
        self.branches[name] = Line("tail" if is_tail else "head", start, self.slots[start:stop])
        del self.slots[start:stop]

    def restore(self, name: str, displaced: str | None) -> None:
        """Restore a branch; what a tail displaces becomes the branch ``displaced``."""
        line = self.branches.pop(name)
        start = min(max(line.start, 0), len(self.slots))
        if line.kind == "head":
            self.shift(len(line.slots), at=start)
            self.slots[start:start] = line.slots
            return
        if displaced is not None:
            self.branches[displaced] = Line("tail", start, self.slots[start:])
        self.slots[start:] = line.slots

    def shift(self, by: int, at: int = 0) -> None:
        """Shift the branches that start at or after a position."""
        for line in self.branches.values():
            if at == 0 or line.start >= at:
                line.start += by


class TestAnyOrder:
    """In any order of steps, a store agrees with plain lists, and no turn is ever lost."""

    @settings(
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(
                    ["append", "append", "append", "replace", "add", "head", "tail", "branch", "version", "set", "fork"]
                ),
                st.integers(0, 9),
            ),
            min_size=4,
            max_size=25,
        )
    )
    def test_store_agrees_with_plain_lists(self, store: StateStore, steps: list[tuple[str, int]]) -> None:
        """Turns, versions, branches and totals are compared after each step; the number of turn ids never falls."""
        run = _Run(store, store.create(ConversationState(f"{uuid4()}")).conversation_id)
        for step, number in steps:
            before = run.known
            for _ in range(3 if step == "append" else 1):
                run.step(step, number)
            assert run.seen() == run.expected()
            assert run.known >= before


class _Run:
    """A sequence of steps, on a store and on its model."""

    def __init__(self, store: StateStore, name: str) -> None:
        self.store = store
        self.name = name
        self.model = Model()
        self.ids: dict[str, str] = {}

    @property
    def known(self) -> set[str]:
        return {turn.id for turn in self.store.get(self.name).stored_turns}

    def step(self, step: str, number: int) -> None:
        """Do one step on both; an impossible one is skipped."""
        store, model, slots = self.store, self.model, self.model.all_slots
        if step == "append":
            store.append(self.name, self.new_turn())
            model.slots.append([self.newest])
        elif step == "replace" and slots:
            slot = slots[number % len(slots)]
            store.replace(self.name, self.ids[slot[number % len(slot)]], self.new_turn())
            slot.append(self.newest)
        elif step == "add" and slots:
            slot = slots[number % len(slots)]
            store.add_version(self.name, self.ids[slot[number % len(slot)]], self.new_turn())
            slot.insert(-1, self.newest)
        elif step == "version" and slots:
            slot = slots[number % len(slots)]
            chosen = slot[number % len(slot)]
            store.restore(self.name, self.ids[chosen])
            slot.append(slot.pop(slot.index(chosen)))
        elif step in ("head", "tail") and model.slots:
            count = number % len(model.slots) + 1
            start = 0 if step == "head" else len(model.slots) - count
            branch = f"{step} {uuid4()}"
            store.archive(self.name, start, start + count, as_branch=branch)
            model.archive(start, start + count, branch)
        elif step == "branch" and model.branches:
            chosen = sorted(model.branches)[number % len(model.branches)]
            store.restore(self.name, chosen)
            now = {branch.id for branch in store.get(self.name).branches}
            model.restore(chosen, next(iter(now - model.branches.keys()), None))
        elif step == "set":
            store.set(store.get(self.name))
        elif step == "fork":
            self.name = store.fork(self.name, f"{uuid4()}").conversation_id
            model.paid = 0

    def new_turn(self) -> Turn:
        self.newest = str(len(self.ids))
        turn = said(self.newest)
        self.ids[self.newest] = turn.id
        self.model.paid += 1
        return turn

    def seen(self) -> tuple[object, ...]:
        """Return what the store has."""
        state, head = self.store.get(self.name), self.store.head(self.name)
        assert head.token_count == state.token_count
        return (
            texts(state.turns),
            [texts(self.store.recent(self.name, n)) for n in (1, 2, 3)],
            head.turn_count,
            head.token_count,
            sorted((branch.id, branch.kind, branch.start, texts(branch.turns)) for branch in state.branches),
            sorted(texts(previous) for previous in state.versions.values() if previous),
        )

    def expected(self) -> tuple[object, ...]:
        """Return what the model has."""
        model = self.model
        current = [slot[-1] for slot in model.slots]
        branches = [
            (name, line.kind, line.start, [slot[-1] for slot in line.slots]) for name, line in model.branches.items()
        ]
        previous = sorted(slot[:-1] for slot in model.all_slots if len(slot) > 1)
        return current, [current[-n:] for n in (1, 2, 3)], len(current), 10 * model.paid, sorted(branches), previous
