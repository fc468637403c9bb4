"""Checks of a store that ``for_user`` narrowed to one user."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.state import ConversationState, Settings, Summary
from promptkit_nb.testing.expectations import LONG_AGO, expect, expect_refusal, full_state, ids, said, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.stores.base import StateStore


def narrowed_store_hides_other_users(store: StateStore) -> None:
    """Every call on another user's conversation raises ``ConversationNotFoundError`` and changes nothing."""
    turn = said("x")
    store.create(ConversationState("bobs", "bob", (turn,)))
    before = store.get("bobs"), store.head("bobs")
    alice = store.for_user("alice")
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: alice.get("bobs"),
        "append(create=False)": lambda: alice.append("bobs", said("y"), create=False),
        "replace": lambda: alice.replace("bobs", turn.id, said("y")),
        "add_version": lambda: alice.add_version("bobs", turn.id, said("y")),
        "archive": lambda: alice.archive("bobs", 0, 1, as_branch="b"),
        "restore": lambda: alice.restore("bobs", turn),
        "add_summary": lambda: alice.add_summary("bobs", Summary(0, 0, "x")),
        "recent": lambda: alice.recent("bobs", 1),
        "head": lambda: alice.head("bobs"),
        "update_metadata": lambda: alice.update_metadata("bobs", x=1),
        "update_settings": lambda: alice.update_settings("bobs", Settings(), system_prompt=None),
        "fork": lambda: alice.fork("bobs", "copy"),
        "fork_with_metadata": lambda: alice.fork_with_metadata("bobs", "copy", x=1),
        "delete": lambda: alice.delete("bobs"),
    }
    for name, call in calls.items():
        expect_refusal(ConversationNotFoundError, name, call)
    expect("bob's conversation", (store.get("bobs"), store.head("bobs")), before)
    expect("list()", ids(store.list()), ["bobs"])


def narrowed_store_lists_its_own(store: StateStore) -> None:
    """``list`` and ``iter_turns`` leave other users out, with or without a filter."""
    for user_id in ("alice", "bob"):
        store.append(f"of:{user_id}", said(user_id), user_id=user_id)
    alice = store.for_user("alice")
    for heads in (alice.list(), alice.list("of:"), alice.list(user_id="alice")):
        expect("list", ids(heads), ["of:alice"])
    expect("list('of:b')", alice.list("of:b"), [])
    expect("iter_turns()", [each.conversation_id for each in alice.iter_turns()], ["of:alice"])


def narrowed_store_creates_for_its_user(store: StateStore) -> None:
    """New conversations belong to the user of the narrowed store; ids of other users are refused as taken."""
    store.create(ConversationState("bobs", "bob"))
    alice = store.for_user("alice")
    alice.create(ConversationState("created", "alice"))
    alice.append("appended", said("x"))
    alice.set(ConversationState("set", "alice"))
    alice.fork("created", "forked")
    expect("ids", sorted(ids(store.list(user_id="alice"))), ["appended", "created", "forked", "set"])
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: alice.create(ConversationState("bobs", "alice")),
        "append": lambda: alice.append("bobs", said("x")),
        "set": lambda: alice.set(ConversationState("bobs", "alice")),
        "set(expected_revision=0)": lambda: alice.set(ConversationState("bobs", "alice"), expected_revision=0),
        "fork": lambda: alice.fork("created", "bobs"),
    }
    for name, call in calls.items():
        expect_refusal(ConversationExistsError, name, call)
    expect("owner and turns", (store.head("bobs").user_id, store.head("bobs").turn_count), ("bob", 0))


def narrowed_store_deletes_its_own(store: StateStore) -> None:
    """``delete_prefix`` and ``cleanup`` leave the conversations of other users alone."""
    for name, user_id in (("t:1", "alice"), ("t:2", "bob")):
        store.append(name, said("x"), user_id=user_id)
    store.set(full_state("old"))
    store.create(ConversationState("old:bob", "bob", created_at=LONG_AGO, updated_at=LONG_AGO))
    alice = store.for_user("alice")
    expect("dry run", alice.cleanup(3600, dry_run=True), ("old",))
    expect("cleanup", alice.cleanup(3600), ("old",))
    expect("delete_prefix", alice.delete_prefix("t:"), ("t:1",))
    expect("what is left", sorted(ids(store.list())), ["old:bob", "t:2"])


def narrowed_store_refuses_other_users(store: StateStore) -> None:
    """Naming another user, or a scope of another user, raises ``InvalidArgumentError``."""
    alice = store.for_user("alice")
    reservation = store.reserve(["user:bob"], Decimal(1), limit=None, lease=60)
    calls: dict[str, Callable[[], object]] = {
        "for_user": lambda: alice.for_user("bob"),
        "create": lambda: alice.create(ConversationState("a", "bob")),
        "set": lambda: alice.set(ConversationState("a", "bob")),
        "append": lambda: alice.append("a", said("x"), user_id="bob"),
        "list": lambda: alice.list(user_id="bob"),
        "iter_turns": lambda: list(alice.iter_turns(user_id="bob")),
        "kept_usage": lambda: alice.kept_usage(user_id="bob"),
        "spending": lambda: alice.spending("user:bob"),
        "reserve": lambda: alice.reserve(["total", "conversation:bob:a"], Decimal(1), limit=None, lease=60),
        "settle": lambda: alice.settle(reservation, Decimal(1)),
    }
    for name, call in calls.items():
        expect_refusal(InvalidArgumentError, name, call)
    expect("list()", store.list(), [])
    expect("reserved", store.spending("user:bob").reserved, Decimal(1))


def narrowed_store_is_the_same_store(store: StateStore) -> None:
    """Both see what the other wrote; closing the narrowed one leaves the whole one open."""
    with store.for_user("alice") as alice:
        alice.append("a", said("one"))
        store.append("a", said("two"))
        expect("turns", texts(alice.get("a").turns), "one two")
        alice.settle(alice.reserve(["total"], Decimal(1), limit=None, lease=60), Decimal("0.5"))
    alice.close()
    expect("spent", store.spending("total").spent, Decimal("0.5"))
    expect("turns, after closing", texts(store.recent("a", 2)), "one two")
    expect("user_id", (store.user_id, alice.user_id, alice.for_user("alice").user_id), (None, "alice", "alice"))


CHECKS = (
    narrowed_store_hides_other_users,
    narrowed_store_lists_its_own,
    narrowed_store_creates_for_its_user,
    narrowed_store_deletes_its_own,
    narrowed_store_refuses_other_users,
    narrowed_store_is_the_same_store,
)
