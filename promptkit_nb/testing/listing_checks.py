"""Checks of many conversations at once: listed, deleted by prefix, cleaned up."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import InvalidArgumentError, InvalidConversationIdError
from promptkit_nb.state import ConversationState
from promptkit_nb.testing.expectations import LONG_AGO, expect, expect_refusal, full_state, ids, said

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore


def prefix_is_taken_literally(store: StateStore) -> None:
    """``list(prefix)`` finds the ids with this prefix, in which no character is special."""
    for name in ("user:alice:1", "user:alice:2", "user:alicia:1", "USER:ALICE:1", "%_*", "%", "z", "\U0010ffff"):
        store.create(ConversationState(name))
    expect("'user:alice:'", sorted(ids(store.list("user:alice:"))), ["user:alice:1", "user:alice:2"])
    expect("'user:ali'", len(store.list("user:ali")), 3)
    expect("'%'", sorted(ids(store.list("%"))), ["%", "%_*"])
    expect("'*', '_' and 'none'", (store.list("*"), store.list("_"), store.list("none")), ([], [], []))
    expect("'' and None", (len(store.list("")), len(store.list())), (8, 8))


def users_are_apart(store: StateStore) -> None:
    """``list(user_id=)`` finds the conversations of that user, with or without a prefix."""
    for user_id in ("alice", "alicia", "bob"):
        for name in ("home", "work"):
            store.create(ConversationState(f"{name}:{user_id}", user_id))
    expect("of alice", sorted(ids(store.list(user_id="alice"))), ["home:alice", "work:alice"])
    expect("of alice at work", ids(store.list("work:", "alice")), ["work:alice"])
    expect("of an unknown user", store.list(user_id="carol"), [])


def order_is_total(store: StateStore) -> None:
    """Heads are ordered by the key and then by id, so that pages are disjoint and complete."""
    for number in range(25):
        at = LONG_AGO + timedelta(days=number % 3)
        store.create(ConversationState(f"{number:02}", created_at=at, updated_at=LONG_AGO - (at - LONG_AGO)))
    keys: Any
    for keys in ("updated_at", "created_at", "conversation_id"):
        upward = store.list(sort_by=keys, descending=False)
        order = sorted(upward, key=lambda head: (getattr(head, keys), head.conversation_id))
        expect(f"by {keys}, ascending", ids(upward), ids(order))
        expect(f"by {keys}, descending", ids(store.list(sort_by=keys)), ids(reversed(order)))
        pages = [store.list(sort_by=keys, descending=False, limit=10, offset=offset) for offset in (0, 10, 20, 30)]
        expect(f"pages by {keys}", [len(page) for page in pages], [10, 10, 5, 0])
        expect(f"pages by {keys}, joined", [head for page in pages for head in page], upward)


def limit_zero_is_empty(store: StateStore) -> None:
    """``limit=0`` lists nothing."""
    store.create(ConversationState("a"))
    expect("list(limit=0)", store.list(limit=0), [])


def arguments_out_of_range_are_refused(store: StateStore) -> None:
    """Negative counts, unknown keys and invalid durations raise ``InvalidArgumentError``."""
    bad: Any
    for bad in ({"limit": -1}, {"offset": -1}, {"sort_by": "colour"}, {"user_id": 7}):
        expect_refusal(InvalidArgumentError, f"list({bad})", partial(store.list, **bad))
    for bad in (0, -1, None, "1", LONG_AGO.replace(tzinfo=None)):
        expect_refusal(InvalidArgumentError, f"cleanup({bad!r})", partial(store.cleanup, bad))
    for bad in (0, None):
        expect_refusal(InvalidArgumentError, f"start_cleanup({bad!r}, 1)", partial(store.start_cleanup, bad, 1))


def prefix_is_deleted(store: StateStore) -> None:
    """``delete_prefix`` deletes the ids with this prefix and returns them, sorted; an empty one is refused."""
    for name in ("t:2", "t:1", "u:1"):
        store.append(name, said("x"))
    expect_refusal(InvalidConversationIdError, "delete_prefix('')", lambda: store.delete_prefix(""))
    expect("delete_prefix('t:')", store.delete_prefix("t:"), ("t:1", "t:2"))
    expect("again", store.delete_prefix("t:"), ())
    expect("what is left", ids(store.list()), ["u:1"])


def old_ones_are_cleaned_up(store: StateStore) -> None:
    """``cleanup`` deletes what is older than a duration or a time; a dry run deletes nothing."""
    store.set(full_state("b"))
    store.set(full_state("a"))
    store.append("new", said("x"))
    expect("before that time", store.cleanup(LONG_AGO), ())
    expect("dry run", store.cleanup(3600, dry_run=True), ("a", "b"))
    expect("ids after the dry run", sorted(ids(store.list())), ["a", "b", "new"])
    expect("cleanup(1 hour)", store.cleanup(timedelta(hours=1)), ("a", "b"))
    expect("ids", ids(store.list()), ["new"])


def cleanup_runs_in_the_background(store: StateStore) -> None:
    """``start_cleanup`` cleans up periodically until ``stop``, which leaves no thread; stopping twice is fine."""
    before = set(threading.enumerate())
    cleaning = store.start_cleanup(every=0.005, older_than=3600)
    for _ in range(2):
        store.set(full_state("old"))
        deadline = time.monotonic() + 5
        while store.list() and time.monotonic() < deadline:
            time.sleep(0.002)
        expect("list() after a while", ids(store.list()), [])
    cleaning.stop()
    cleaning.stop()
    expect("threads left", set(threading.enumerate()) - before, set())
    store.set(full_state("old"))
    expect("list() after stop", ids(store.list()), ["old"])


CHECKS = (
    prefix_is_taken_literally,
    users_are_apart,
    order_is_total,
    limit_zero_is_empty,
    arguments_out_of_range_are_refused,
    prefix_is_deleted,
    old_ones_are_cleaned_up,
    cleanup_runs_in_the_background,
)
