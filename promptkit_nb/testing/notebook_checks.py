"""Checks of notebooks: finding their conversations, and answers to the same request."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from promptkit_nb.errors import ConversationChangedError
from promptkit_nb.state import ConversationState, NotebookNote
from promptkit_nb.testing import expectations

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn

EDA = NotebookNote("/work/eda.ipynb", "here", "kernel-1.json")


def notebook_of_a_conversation_is_kept(store: StateStore) -> None:
    """``set_notebook`` is read back from head and state, not from metadata, and is kept by ``set``."""
    store.create(ConversationState("a", metadata={"notebook": "mine"}))
    expectations.expect("head", store.set_notebook("a", EDA).notebook, EDA)
    store.set(replace(store.get("a"), system_prompt="You help."))
    expectations.expect("after set", (store.head("a").notebook, store.get("a").notebook), (EDA, EDA))
    expectations.expect("metadata", store.head("a").metadata, {"notebook": "mine"})
    expectations.expect("without it", store.set_notebook("a", None).notebook, None)


def notebooks_are_found_by_path_and_kernel(store: StateStore) -> None:
    """``find_notebooks`` finds a user's conversations by their current notebook, except deleted ones."""
    for name, user_id in (("a", "alice"), ("b", "bob"), ("gone", "alice")):
        store.create(ConversationState(name, user_id, notebook=EDA))
    store.delete("gone")
    alices = partial(store.find_notebooks, user_id="alice")
    expectations.expect("by path", expectations.ids(alices(path=EDA.path)), ["a"])
    expectations.expect("by kernel", expectations.ids(alices(kernel=EDA.kernel)), ["a"])
    store.set_notebook("a", replace(EDA, path="/work/moved.ipynb"))
    found = [expectations.ids(alices(path=path)) for path in (EDA.path, "/work/moved.ipynb", "")]
    expectations.expect("by previous, current, and no path", found, [[], ["a"], []])


def fork_belongs_to_no_notebook(store: StateStore) -> None:
    """The notebook stays with the original."""
    store.create(ConversationState("a", notebook=EDA))
    expectations.expect("fork", store.fork("a", "copy").notebook, None)
    found = store.find_notebooks(user_id="default", path=EDA.path)
    expectations.expect("find_notebooks", expectations.ids(found), ["a"])


def answers_of_notebooks_are_found(store: StateStore) -> None:
    """``find_answers`` finds current, replaced and archived turns of a user's notebooks, oldest first."""
    first, second, third, other = (_answer(text, day) for day, text in enumerate(("one", "two", "three", "other")))
    store.create(ConversationState("a", "alice", turns=(second,)))
    expectations.expect("without a notebook", _found(store), "")
    store.set_notebook("a", EDA)
    store.append("a", third)
    store.replace("a", third.id, replace(other, replay_key="another"))
    store.create(ConversationState("b", "alice", turns=(first,), notebook=NotebookNote()))
    store.create(ConversationState("bobs", "bob", turns=(replace(first, id="bobs"),), notebook=EDA))
    expectations.expect("of all notebooks", _found(store), "one two three")
    expectations.expect("at most two", _found(store, limit=2), "one two")
    expectations.expect("of another provider", _found(store, provider="other"), "")
    store.archive("a", 0, 1, as_branch="aside")
    store.append("a", replace(_answer("four", 4), finish_reason="interrupted"))
    expectations.expect("on a branch, and interrupted", _found(store), "one two three")
    store.delete("b")
    expectations.expect("after a deletion", _found(store), "two three")


def deletion_compares_the_revision(store: StateStore) -> None:
    """``delete`` with an outdated ``expected_revision`` raises ``ConversationChangedError`` and deletes nothing."""
    before = store.create(ConversationState("a"))
    after = store.append("a", expectations.said("x"))
    delete = partial(store.delete, "a", expected_revision=before.revision)
    expectations.expect_refusal(ConversationChangedError, "delete at a previous revision", delete)
    store.delete("a", expected_revision=after.revision)
    expectations.expect("list()", store.list(), [])


def _answer(text: str, day: int) -> Turn:
    created_at = expectations.LONG_AGO + timedelta(days=day)
    return replace(expectations.said(text), created_at=created_at, provider="demo", replay_key="key")


def _found(store: StateStore, *, provider: str = "demo", limit: int = 10) -> str:
    return expectations.texts(store.find_answers("key", provider=provider, user_id="alice", limit=limit))


CHECKS = (
    notebook_of_a_conversation_is_kept,
    notebooks_are_found_by_path_and_kernel,
    fork_belongs_to_no_notebook,
    answers_of_notebooks_are_found,
    deletion_compares_the_revision,
)
