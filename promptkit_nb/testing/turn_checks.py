"""Checks of turns: appended, read back, counted, streamed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.state import ConversationState
from promptkit_nb.testing import expectations

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore


def append_creates_for_the_user(store: StateStore) -> None:
    """``append`` creates a missing conversation for ``user_id``; an existing one keeps its user."""
    turn = expectations.said("x")
    head = store.append("a", turn, user_id="alice")
    expectations.expect("head", (head.user_id, head.turn_count, head.revision), ("alice", 1, 1))
    expectations.expect("turns", store.get("a").turns, (turn,))
    expectations.expect(
        "owner after bob's append", store.append("a", expectations.said("y"), user_id="bob").user_id, "alice"
    )


def appended_turns_stay_in_order(store: StateStore) -> None:
    """Each appended turn is the last one, even after a ``set``."""
    store.set(expectations.full_state("a"))
    for number in range(4, 9):
        store.append("a", expectations.said(str(number)))
    expectations.expect("turns", expectations.texts(store.get("a").turns), "one two three 4 5 6 7 8")
    expectations.expect("turn_count", store.head("a").turn_count, 8)


def same_turn_twice_is_once(store: StateStore) -> None:
    """Appending a stored turn again changes nothing, however old it is, even if it is a version or archived."""
    state = expectations.full_state("a")
    store.set(state)
    for number in range(20):
        store.append("a", expectations.said(str(number)))
    before = store.get("a"), store.head("a")
    for turn in state.stored_turns:
        store.append("a", turn)
    expectations.expect("conversation and head", (store.get("a"), store.head("a")), before)


def same_turn_may_stand_in_two_conversations(store: StateStore) -> None:
    """A turn is known by its id within its conversation only."""
    turn = expectations.said("x")
    expectations.expect("turn counts", [store.append(name, turn).turn_count for name in ("a", "b")], [1, 1])


def every_field_of_a_turn_comes_back(store: StateStore) -> None:
    """Any text, exact money, times to the microsecond, warnings and the cell come back."""
    turn = replace(
        expectations.said("line\r\nbreak \0 🙂 \u2028 é", cost=Decimal("0.00000000000123456789")),
        latency_ms=812.25,
        finish_reason="stop",
        created_at=expectations.LONG_AGO,
        warnings=("careful",),
        cell_id="c1",
        cell_call=2,
    )
    store.append("a", turn)
    expectations.expect("get", store.get("a").turns, (turn,))
    expectations.expect("recent", store.recent("a", 1), (turn,))


def unreadable_turn_is_refused(store: StateStore) -> None:
    """A turn that could not be read back raises ``InvalidArgumentError``; not even the conversation is created."""
    for field, value in (
        ("latency_ms", "fast"),
        ("cost", Decimal("NaN")),
        ("created_at", expectations.LONG_AGO.replace(tzinfo=None)),
    ):
        turn = replace(expectations.said("x"), **{field: value})  # type: ignore[arg-type]  # a mistake of the caller
        expectations.expect_refusal(
            InvalidArgumentError, f"append, {field}={value!r}", partial(store.append, "a", turn)
        )
    expectations.expect("list()", store.list(), [])


def many_threads_lose_nothing(store: StateStore) -> None:
    """Of 20 threads that append at once, each has its turn stored once."""
    turns = {expectations.said(str(number)) for number in range(20)}
    expectations.expect("errors", expectations.together(partial(store.append, "a", turn) for turn in turns), [])
    expectations.expect("turns", set(store.get("a").turns), turns)
    expectations.expect("token_count", store.head("a").token_count, 200)


def recent_is_the_newest(store: StateStore) -> None:
    """``recent`` returns the newest turns, oldest first: some, all, more than there are."""
    for text in "abcde":
        store.append("a", expectations.said(text))
    found = [expectations.texts(store.recent("a", n)) for n in (1, 3, 5, 6, 10**12)]
    expectations.expect("recent 1, 3, 5, 6, 10**12", found, ["e", "c d e", "a b c d e", "a b c d e", "a b c d e"])


def recent_none_is_empty(store: StateStore) -> None:
    """``recent(id, 0)`` is empty, and so is any number of an empty conversation."""
    store.append("a", expectations.said("x"))
    store.create(ConversationState("empty"))
    expectations.expect("recent", (store.recent("a", 0), store.recent("empty", 5)), ((), ()))


def invalid_counts_are_refused(store: StateStore) -> None:
    """A negative count raises ``InvalidArgumentError``."""
    store.append("a", expectations.said("x"))
    expectations.expect_refusal(InvalidArgumentError, "recent(id, -1)", lambda: store.recent("a", -1))


def unknown_price_is_never_zero(store: StateStore) -> None:
    """Without any price the total is ``None``; known ones are added, unknown ones counted."""
    store.append("a", expectations.said("x", cost=None))
    expectations.expect(
        "total of one unpriced turn", (store.head("a").total_cost, store.get("a").total_cost), (None, None)
    )
    head = store.append("a", expectations.said("y"))
    expectations.expect(
        "with a priced one", (head.total_cost, head.unpriced_turns, head.token_count), (expectations.PRICE_USD, 1, 20)
    )
    expectations.expect("with nothing said", store.create(ConversationState("b")).total_cost, Decimal(0))


def replayed_and_inherited_turns_count_nothing(store: StateStore) -> None:
    """Replayed and inherited turns are in no total, whether appended or set."""
    turns = (
        expectations.said("a"),
        expectations.said("b", replayed=True, cost=Decimal(0)),
        expectations.said("c", inherited=True, cost=None),
    )
    for turn in turns:
        store.append("appended", turn)
    store.set(ConversationState("set", turns=turns))
    for name in ("appended", "set"):
        head = store.head(name)
        found = head.turn_count, head.token_count, head.total_cost, head.unpriced_turns
        expectations.expect(
            f"turns, tokens, cost and unpriced of the {name} ones", found, (3, 10, expectations.PRICE_USD, 0)
        )


def every_stored_turn_is_streamed(store: StateStore) -> None:
    """``iter_turns`` yields current turns, previous versions and branches, by id, filtered by prefix and user."""
    store.set(expectations.full_state("b"))
    store.append("a", expectations.said("hi"), user_id="bob")
    found = [(each.conversation_id, each.turn.user_text, each.status) for each in store.iter_turns()]
    current = [("b", text, "current") for text in ("one", "two", "three")]
    replaced = [("b", text, "replaced") for text in ("zero", "half")]
    archived = [("b", text, "archived") for text in ("left", "far")]
    expectations.expect("iter_turns()", found, [("a", "hi", "current"), *current, *replaced, *archived])
    expectations.expect("of bob", [each.turn.user_text for each in store.iter_turns(user_id="bob")], ["hi"])
    expectations.expect("of 'b'", {each.user_id for each in store.iter_turns(prefix="b")}, {"alice"})


CHECKS = (
    append_creates_for_the_user,
    appended_turns_stay_in_order,
    same_turn_twice_is_once,
    same_turn_may_stand_in_two_conversations,
    every_field_of_a_turn_comes_back,
    unreadable_turn_is_refused,
    many_threads_lose_nothing,
    recent_is_the_newest,
    recent_none_is_empty,
    invalid_counts_are_refused,
    unknown_price_is_never_zero,
    replayed_and_inherited_turns_count_nothing,
    every_stored_turn_is_streamed,
)
