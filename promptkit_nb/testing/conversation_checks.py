"""Checks of whole conversations: created, read, written, changed, deleted, closed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import (
    ConversationChangedError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
    InvalidConversationIdError,
    StoreUnavailableError,
)
from promptkit_nb.state import ConversationState, Head, Summary
from promptkit_nb.testing.expectations import LONG_AGO, expect, expect_refusal, full_state, ids, said, texts, together

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.stores.base import StateStore


def created_is_there(store: StateStore) -> None:
    """A created conversation has a head, can be read and is listed before it has turns."""
    state = ConversationState("a", "alice", metadata={"x": 1}, created_at=LONG_AGO, updated_at=LONG_AGO)
    head = Head("a", "alice", 0, 0, Decimal(0), 0, LONG_AGO, LONG_AGO, {"x": 1}, 1)
    expect("create(state)", store.create(state), head)
    expect("head(id)", store.head("a"), head)
    expect("get(id)", store.get("a"), state)
    expect("list()", store.list(), [head])


def id_is_given_once(store: StateStore) -> None:
    """Creating an id that is taken is refused, whoever owns it; the first conversation stays as it was."""
    first = full_state("a")
    store.create(first)
    expect_refusal(ConversationExistsError, "create", lambda: store.create(ConversationState("a", "bob")))
    expect("get(id) afterwards", store.get("a"), first)


def one_of_many_creates(store: StateStore) -> None:
    """Of 20 threads that create the same id at once, one does and 19 are told that it exists."""
    errors = together([lambda: store.create(ConversationState("a"))] * 20)
    expect("errors", [type(error) for error in errors], [ConversationExistsError] * 19)


def any_text_is_an_id(store: StateStore) -> None:
    """Ids of any script, path or length are taken literally, and those that look alike are different."""
    names = ["a", "A", "a ", "a:meta", "../a", "a/b\\c", "日本語", "🙂", "é", "nul\0", "%_*[x]", "x" * 1000]
    for name in names:
        store.append(name, said(name))
    for name in names:
        expect(f"get({name!r:.40})", texts(store.get(name).turns), name)
    store.delete("a")
    expect("ids after delete('a')", sorted(ids(store.list())), sorted(names[1:]))


def blank_id_is_refused(store: StateStore) -> None:
    """An empty, blank or overlong id raises ``InvalidConversationIdError`` in every call, and nothing is stored."""
    for bad in ("", " \n", "x" * 1001):
        for name, call in _calls(store, bad).items():
            expect_refusal(InvalidConversationIdError, f"{name}, id {bad!r:.20}", call)
    expect("list()", store.list(), [])


def missing_is_not_found(store: StateStore) -> None:
    """Every call that needs a conversation raises ``ConversationNotFoundError`` if there is none."""
    calls = _calls(store, "missing")
    for name in calls.keys() - {"create", "set", "append", "delete_prefix"}:
        expect_refusal(ConversationNotFoundError, name, calls[name])
    expect_refusal(
        ConversationNotFoundError, "append(create=False)", lambda: store.append("missing", said("x"), create=False)
    )
    expect("list()", store.list(), [])


def every_field_comes_back(store: StateStore) -> None:
    """``set`` keeps turns, versions, branches, summaries, settings, metadata and times, with their types."""
    state = full_state("a")
    store.set(state)
    found = store.get("a")
    expect("get(id)", found, state)
    expect("types in metadata", [type(value) for value in found.metadata.values()], [str, int, list])


def setting_what_was_got_changes_nothing(store: StateStore) -> None:
    """``set(get(id))`` changes nothing except the revision."""
    store.set(full_state("a"))
    before, head = store.get("a"), store.head("a")
    store.set(before)
    expect("get(id)", store.get("a"), before)
    expect("head(id)", store.head("a"), replace(head, revision=head.revision + 1))


def what_a_state_lacks_is_gone(store: StateStore) -> None:
    """``set`` deletes turns, versions, branches and summaries that the state lacks; their cost still counts."""
    state = full_state("a")
    store.set(state)
    spent = store.head("a")
    store.set(replace(state, turns=(), versions={}, branches=(), summaries=()))
    found = store.get("a")
    expect("what is stored", (*found.stored_turns, *found.summaries), ())
    totals = store.head("a").token_count, store.head("a").total_cost, store.head("a").unpriced_turns
    expect("totals", totals, (spent.token_count, spent.total_cost, spent.unpriced_turns))


def set_gives_to_another_user(store: StateStore) -> None:
    """A conversation that was set for another user is in that user's list only."""
    store.create(ConversationState("a", "alice"))
    store.set(ConversationState("a", "bob"))
    found = ids(store.list(user_id="alice")), ids(store.list(user_id="bob"))
    expect("lists of the previous and the new user", found, ([], ["a"]))


def revision_counts_changes(store: StateStore) -> None:
    """Each change counts as one; reads, empty changes and repeated turns do not count."""
    turn = said("x")
    found = [
        store.create(ConversationState("a")).revision,
        store.append("a", turn).revision,
        store.append("a", turn).revision,
        store.update_metadata("a", x=1).revision,
        store.update_metadata("a").revision,
        store.get("a").revision,
        store.set(store.get("a")).revision,
        store.replace("a", turn.id, said("y")).revision,
        store.restore("a", turn).revision,
        store.archive("a", 0, 1, as_branch="b").revision,
        store.restore("a", "b").revision,
        store.add_summary("a", Summary(turn.id, turn.id, "x")).revision,
        store.head("a").revision,
    ]
    expect("revisions", found, [1, 2, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 9])


def stale_revision_is_refused(store: StateStore) -> None:
    """``set`` with an expected revision writes only if no one else has; 0 means that the conversation is new."""
    store.set(ConversationState("a"), expected_revision=0)
    store.append("a", said("theirs"))
    for expected in (0, 1):
        expect_refusal(
            ConversationChangedError,
            f"set(expected_revision={expected}) at 2",
            partial(store.set, ConversationState("a"), expected_revision=expected),
        )
    expect("turns", texts(store.get("a").turns), "theirs")
    expect("revision", store.set(ConversationState("a"), expected_revision=2).revision, 3)


def metadata_is_merged(store: StateStore) -> None:
    """``update_metadata`` adds and replaces keys, keeps the others, the JSON types and the turns."""
    store.set(full_state("a"))
    head = store.update_metadata("a", topic="food", price=3.0, none=None)
    expected = {"topic": "food", "stars": 5, "tags": ["a", {"b": None}], "price": 3.0, "none": None}
    expect("metadata", head.metadata, expected)
    expect("type of 3.0", type(store.get("a").metadata["price"]), float)
    expect("turns", texts(store.get("a").turns), "one two three")


def values_that_are_not_json_are_refused(store: StateStore) -> None:
    """Metadata that is not JSON raises ``InvalidArgumentError``, and nothing is changed."""
    store.create(ConversationState("a"))
    for value in (object(), b"bytes", {1}, float("nan")):
        expect_refusal(
            InvalidArgumentError, f"update_metadata(x={value!r})", partial(store.update_metadata, "a", x=value)
        )
    expect("head", (store.head("a").metadata, store.head("a").revision), ({}, 1))


def values_are_the_callers_own(store: StateStore) -> None:
    """Changing what was given, or what was read, changes nothing stored."""
    given: dict[str, Any] = {"list": [1]}
    store.create(ConversationState("a", metadata=given))
    given["list"].append(2)
    for read in (store.get("a"), store.head("a"), store.list()[0], store.update_metadata("a")):
        found: Any = read.metadata
        found["list"].append(3)
        found["new"] = 1
    expect("metadata in get", store.get("a").metadata, {"list": [1]})
    expect("metadata in head", store.head("a").metadata, {"list": [1]})


def deleted_is_gone(store: StateStore) -> None:
    """A deleted conversation is in no result; its id is free, and other conversations are unchanged."""
    turn = said("x")
    for name in ("a", "b"):
        store.append(name, turn, user_id="alice")
    store.delete("a")
    expect_refusal(ConversationNotFoundError, "a second delete", lambda: store.delete("a"))
    expect("ids", (ids(store.list()), ids(store.list(user_id="alice"))), (["b"], ["b"]))
    head = store.append("a", turn, user_id="bob")
    expect("head after a new append", (head.user_id, head.turn_count, head.token_count), ("bob", 1, 10))


def closed_store_refuses_every_call(store: StateStore) -> None:
    """After ``close``, which may be called again, every call raises ``StoreUnavailableError``."""
    store.append("a", said("x"))
    store.close()
    store.close()
    for name, call in (_calls(store, "a") | _calls_without_id(store)).items():
        expect_refusal(StoreUnavailableError, name, call)


def _calls(store: StateStore, name: str) -> dict[str, Callable[[], object]]:
    """Return every call that takes an id, for this one."""
    return {
        "create": lambda: store.create(ConversationState(name)),
        "get": lambda: store.get(name),
        "set": lambda: store.set(ConversationState(name)),
        "append": lambda: store.append(name, said("x")),
        "replace": lambda: store.replace(name, "t", said("x")),
        "archive": lambda: store.archive(name, 0, 0, as_branch="b"),
        "restore": lambda: store.restore(name, "b"),
        "add_summary": lambda: store.add_summary(name, Summary(0, 0, "x")),
        "recent": lambda: store.recent(name, 0),
        "head": lambda: store.head(name),
        "update_metadata": lambda: store.update_metadata(name),
        "fork": lambda: store.fork(name, "copy"),
        "delete": lambda: store.delete(name),
        "delete_prefix": lambda: store.delete_prefix(name),
    }


def _calls_without_id(store: StateStore) -> dict[str, Callable[[], object]]:
    return {
        "list": store.list,
        "list(limit=0)": lambda: store.list(limit=0),
        "cleanup": lambda: store.cleanup(1),
        "start_cleanup": lambda: store.start_cleanup(60, 1),
        "reserve": lambda: store.reserve(["total"], Decimal(1), limit=None, lease=60),
        "spending": lambda: store.spending("total"),
        "iter_turns": lambda: list(store.iter_turns()),
    }


def settings_are_replaced(store: StateStore) -> None:
    """``update_settings`` replaces the settings and the system prompt, and nothing else; the revision is compared."""
    state = full_state("a")
    revision = store.create(state).revision
    variables: dict[str, Any] = {"city": ["Porto"]}
    settings = replace(state.settings, variables=variables)
    head = store.update_settings("a", settings, system_prompt="You live in Porto.", expected_revision=revision)
    variables["city"].append("Bern")
    changed = replace(
        state,
        settings=replace(settings, variables={"city": ["Porto"]}),
        system_prompt="You live in Porto.",
        updated_at=head.updated_at,
    )
    expect("get(id)", store.get("a"), changed)
    expect("head", (head, head.revision), (store.head("a"), revision + 1))
    update = partial(store.update_settings, settings=settings, system_prompt=None)
    expect_refusal(ConversationChangedError, "an older revision", lambda: update("a", expected_revision=revision))
    expect_refusal(ConversationNotFoundError, "an unknown id", lambda: update("b"))
    expect("get(id) afterwards", store.get("a"), changed)


CHECKS = (
    created_is_there,
    settings_are_replaced,
    id_is_given_once,
    one_of_many_creates,
    any_text_is_an_id,
    blank_id_is_refused,
    missing_is_not_found,
    every_field_comes_back,
    setting_what_was_got_changes_nothing,
    what_a_state_lacks_is_gone,
    set_gives_to_another_user,
    revision_counts_changes,
    stale_revision_is_refused,
    metadata_is_merged,
    values_that_are_not_json_are_refused,
    values_are_the_callers_own,
    deleted_is_gone,
    closed_store_refuses_every_call,
)
