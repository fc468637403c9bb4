"""Checks of calls that change a history without losing turns: replace, archive, restore, summaries, forks."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from promptkit_nb.context_hash import chain_of
from promptkit_nb.errors import ConversationExistsError, InvalidArgumentError
from promptkit_nb.state import ConversationState, Settings, Summary
from promptkit_nb.testing.expectations import LONG_AGO, PRICE_USD, expect, expect_refusal, full_state, said, texts
from promptkit_nb.turns import Turn, Usage

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore


def replaced_turn_is_a_version(store: StateStore) -> None:
    """``replace`` keeps the position; previous turns are versions, oldest first, and all costs count."""
    one, two = _spoken(store, "one two")
    again, third = said("two again"), said("two a third time")
    store.replace("a", two.id, again)
    head = store.replace("a", again.id, third)
    state = store.get("a")
    expect("turns", state.turns, (one, third))
    expect("versions", state.versions, {third.id: (two, again)})
    expect("recent", store.recent("a", 1), (third,))
    expect("head", (head.turn_count, head.token_count, head.total_cost), (2, 40, 4 * PRICE_USD))


def same_replacement_twice_is_once(store: StateStore) -> None:
    """Replacing by a turn that is stored already changes nothing."""
    (one,) = _spoken(store, "one")
    again = said("again")
    head = store.replace("a", one.id, again)
    expect("head", store.replace("a", one.id, again), head)
    expect("versions", store.get("a").versions, {again.id: (one,)})


def added_version_leaves_the_turn_current(store: StateStore) -> None:
    """``add_version`` adds to the versions of a turn, which stays; its cost counts; adding it again changes nothing."""
    one, two = _spoken(store, "one two")
    other, third = said("two again"), said("two a third time")
    store.add_version("a", two.id, other)
    head = store.add_version("a", two.id, third)
    state = store.get("a")
    expect("turns", state.turns, (one, two))
    expect("versions", state.versions, {two.id: (other, third)})
    expect("recent", store.recent("a", 1), (two,))
    expect("head", (head.turn_count, head.token_count, head.total_cost), (2, 40, 4 * PRICE_USD))
    store.add_version("a", two.id, third)
    expect(
        "turns and versions, added again", (store.get("a").turns, store.get("a").versions), ((one, two), state.versions)
    )


def versions_are_restored(store: StateStore) -> None:
    """``restore`` brings a previous version back, given as a value or by its id, any number of times, at no cost."""
    (one,) = _spoken(store, "one")
    again = said("again")
    spent = store.replace("a", one.id, again).token_count
    for version, previous in ((one, again), (again, one), (again, one), (one.id, again)):
        store.restore("a", version)
        (current,) = store.get("a").turns
        expect("versions", store.get("a").versions, {current.id: (previous,)})
    expect("token_count", store.head("a").token_count, spent)


def tail_becomes_a_branch(store: StateStore) -> None:
    """An archived tail is a branch; new turns follow what is left, and restoring swaps the two tails."""
    a, b, c = _spoken(store, "a b c")
    store.archive("a", 1, 3, as_branch="left")
    d = said("d")
    store.append("a", d)
    (branch,) = store.get("a").branches
    expect("turns", store.get("a").turns, (a, d))
    expect("recent", (store.recent("a", 1), store.recent("a", 2), store.recent("a", 3)), ((d,), (a, d), (a, d)))
    expect("branch", (branch.id, branch.turns, branch.start, branch.kind), ("left", (b, c), 1, "tail"))
    head = store.restore("a", branch)
    (other,) = store.get("a").branches
    expect("turns and branch, restored", (store.get("a").turns, other.turns), ((a, b, c), (d,)))
    expect("head", (head.turn_count, head.token_count), (3, 40))
    store.restore("a", other.id)
    expect("turns, restored again", store.get("a").turns, (a, d))


def archived_head_stays_in_the_context(store: StateStore) -> None:
    """Turns archived at the front are in ``context_hash``, so the rest is not stale; restoring undoes it."""
    turns = _spoken(store, "a b c d")
    before = store.get("a")
    chain = chain_of(turns)
    store.archive("a", 0, 1, as_branch="first")
    store.archive("a", 0, 2, as_branch="second")
    state = store.get("a")
    expect("turns", state.turns, turns[3:])
    expect("hash of the context", chain_of(state.turns, state.context_hash), chain)
    expect("recent", store.recent("a", 5), turns[3:])
    store.restore("a", "second")
    store.restore("a", "first")
    expect("get", replace(store.get("a"), updated_at=LONG_AGO), replace(before, updated_at=LONG_AGO))


def all_turns_become_a_branch(store: StateStore) -> None:
    """Archiving everything leaves an empty conversation whose totals stay."""
    turns = _spoken(store, "a b")
    head = store.archive("a", 0, 2, as_branch="all")
    expect("head", (head.turn_count, head.token_count), (0, 20))
    expect("turns, recent", (store.get("a").turns, store.recent("a", 1)), ((), ()))
    store.restore("a", "all")
    expect("turns, restored", store.get("a").turns, turns)


def unknown_turns_and_ranges_are_refused(store: StateStore) -> None:
    """An unknown turn or branch, a taken branch id and an invalid range raise ``InvalidArgumentError``."""
    _spoken(store, "a b")
    store.archive("a", 1, 2, as_branch="left")
    before = store.get("a")
    expect_refusal(InvalidArgumentError, "replace", lambda: store.replace("a", "nothing", said("x")))
    expect_refusal(InvalidArgumentError, "restore", lambda: store.restore("a", "nothing"))
    expect_refusal(InvalidArgumentError, "a taken id", lambda: store.archive("a", 0, 1, as_branch="left"))
    for start, stop in ((-1, 1), (1, 0), (0, 2)):
        expect_refusal(
            InvalidArgumentError,
            f"archive {start} to {stop} of 1",
            partial(store.archive, "a", start, stop, as_branch="b"),
        )
    expect("get", store.get("a"), before)


def summaries_are_kept_in_order(store: StateStore) -> None:
    """``add_summary`` appends the summary; its cost is in the totals."""
    one, two = _spoken(store, "one two")
    first = Summary(one.id, one.id, "First.", Usage(5, 1), Decimal("0.002"), "m", LONG_AGO)
    second = Summary(one.id, two.id, "Both.", Usage(5, 1), None, "m", LONG_AGO)
    store.add_summary("a", first)
    head = store.add_summary("a", second)
    expect("summaries", store.get("a").summaries, (first, second))
    expect("totals", (head.token_count, head.total_cost, head.unpriced_turns), (32, Decimal("0.004"), 1))


def fork_is_an_independent_copy(store: StateStore) -> None:
    """A fork has the same turns, versions, branches and user; a new turn in one is not in the other."""
    store.set(full_state("a"))
    before = store.get("a")
    store.fork("a", "copy")
    copy = store.get("copy")
    expect("user and system prompt", (copy.user_id, copy.system_prompt), ("alice", "You help."))
    expect("turns", [turn.id for turn in copy.stored_turns], [turn.id for turn in before.stored_turns])
    store.append("copy", said("four"))
    store.update_metadata("copy", mine=True)
    expect("the original", store.get("a"), before)
    store.delete("a")
    expect("the copy", texts(store.get("copy").turns), "one two three four")


def forked_turns_are_inherited(store: StateStore) -> None:
    """Copied turns and summaries are in no total of a copy, or of its copy; its own turns are."""
    store.set(full_state("a"))
    store.fork("a", "b")
    store.append("b", said("own", cost=None))
    head = store.head("b")
    expect("totals", (head.token_count, head.total_cost, head.unpriced_turns), (10, None, 1))
    store.set(store.get("b"))
    expect("totals after set(get(id))", store.head("b").total_cost, None)
    store.fork("b", "c")
    expect("totals of the second copy", (store.head("c").token_count, store.head("c").total_cost), (0, Decimal(0)))
    expect("inherited", [turn.inherited for turn in store.recent("b", 2)], [True, False])
    expect("not inherited in it", [turn for turn in store.get("c").stored_turns if not turn.inherited], [])


def fork_overwrites_nothing(store: StateStore) -> None:
    """Forking to an existing id, even the conversation's own, raises ``ConversationExistsError``."""
    for name in ("a", "b"):
        store.create(ConversationState(name, f"user of {name}"))
    for name in ("a", "b"):
        expect_refusal(ConversationExistsError, f"fork('a', {name!r})", partial(store.fork, "a", name))
    expect("owner", store.head("b").user_id, "user of b")


def fork_of_an_imported_conversation_can_be_continued(store: StateStore) -> None:
    """The kind and source of an imported conversation are stored and in its head; a fork of it is a chat."""
    turn = replace(said("one"), source="elsewhere")
    store.create(ConversationState("a", turns=(turn,), settings=Settings(kind="imported", source="elsewhere")))
    expect("head", [(head.kind, head.source) for head in store.list()], [("imported", "elsewhere")])
    expect("settings", store.get("a").settings, Settings(kind="imported", source="elsewhere"))
    head = store.fork("a", "copy")
    expect("head of the fork", (head.kind, head.source), ("chat", "promptkit_nb"))
    expect("settings of the fork", store.get("copy").settings, Settings())
    expect("turns of the fork", [turn.source for turn in store.get("copy").turns], ["elsewhere"])


def _spoken(store: StateStore, said_now: str) -> tuple[Turn, ...]:
    turns = tuple(said(text) for text in said_now.split())
    for turn in turns:
        store.append("a", turn)
    return turns


CHECKS = (
    replaced_turn_is_a_version,
    same_replacement_twice_is_once,
    added_version_leaves_the_turn_current,
    versions_are_restored,
    tail_becomes_a_branch,
    archived_head_stays_in_the_context,
    all_turns_become_a_branch,
    unknown_turns_and_ranges_are_refused,
    summaries_are_kept_in_order,
    fork_is_an_independent_copy,
    forked_turns_are_inherited,
    fork_overwrites_nothing,
    fork_of_an_imported_conversation_can_be_continued,
)
