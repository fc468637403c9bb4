"""The first question of a conversation, which is its title in lists as long as it has no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from promptkit_nb import ConversationManager, DemoProvider
from promptkit_nb.notebook import titles
from promptkit_nb.rendering.conversations import shown_title
from promptkit_nb.state import ConversationState, NotebookNote
from promptkit_nb.stores.listing import first_question

if TYPE_CHECKING:
    from promptkit_nb import StateStore
    from storing import Clock, OpenStore

GENERATED = "20261122T194501.123456-9f3ac2"


def test_question_is_that_of_the_first_current_turn(store: StateStore) -> None:
    """An edit, another run of the turn, and a return to an earlier version change it; later turns do not."""
    conv = ConversationManager(DemoProvider(), store).new_conversation(user_id="alice")
    assert first_question(store, conv.id) is None
    conv.send("My name\n is Alice")
    conv.send("And now?")
    assert first_question(store, conv.id) == "My name is Alice"
    conv.rerun(0, "My name is Bob")
    assert first_question(store, conv.id) == "My name is Bob"
    conv.edit(0, "x" * 500)
    assert first_question(store, conv.id) == "x" * 500
    conv.restore(conv.branches()[0])
    assert first_question(store, conv.id) == "My name is Bob"
    assert first_question(store.for_user("alice"), conv.id) == "My name is Bob"
    assert first_question(store.for_user("bob"), conv.id) is None
    store.delete(conv.id)
    assert first_question(store, conv.id) is None


def test_reading_it_does_not_keep_a_conversation(open_store: OpenStore, clock: Clock) -> None:
    """The TTL goes on, and an expired conversation has no question."""
    store = open_store(3600)
    conv = ConversationManager(DemoProvider(), store).new_conversation()
    conv.send("Hello")
    clock.pass_s(3000)
    assert first_question(store, conv.id) == "Hello"
    clock.pass_s(1000)
    assert first_question(store, conv.id) is None


@pytest.mark.parametrize(
    ("conversation", "title"),
    [
        (ConversationState(GENERATED, metadata={"title": "Sales"}), "Sales"),
        (ConversationState(GENERATED, notebook=NotebookNote(path="work/eda.ipynb")), "eda.ipynb"),
        (ConversationState("nb:eda:1c9353f9"), "eda.ipynb"),
        (ConversationState("sales-review"), "sales-review"),
        (ConversationState(GENERATED), "Why?"),
    ],
)
def test_shown_title(conversation: ConversationState, title: str) -> None:
    """A title that was set, else the notebook's name, else an id that says something, else the first question."""
    assert shown_title(conversation, "Why?") == title


def test_conversation_without_turns_is_new() -> None:
    """Nobody reads a generated id."""
    assert shown_title(ConversationState(GENERATED), None) == "New conversation"


def test_only_newest_conversations_are_found_by_a_question(
    open_store: OpenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question has to be read; a title that was set is found at any age."""
    monkeypatch.setattr(titles, "MOST_QUESTIONS", 1)
    store = open_store(3600)
    manager = ConversationManager(DemoProvider(), store)
    old, new = manager.new_conversation(), manager.new_conversation()
    old.send("An old question")
    clock.pass_s(10)
    new.send("A new question")
    assert titles.id_of(store, "default", "a new question") == new.id
    assert titles.id_of(store, "default", "an old question") is None
    store.update_metadata(old.id, title="Invoices")
    clock.pass_s(10)
    store.update_metadata(new.id, mood="good")
    assert titles.id_of(store, "default", "invoices") == old.id
