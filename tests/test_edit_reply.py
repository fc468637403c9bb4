"""Replacing a model's answer by one's own text, from Python and in a real kernel."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from day_in_cells import Day, day
from promptkit_nb import ConversationManager, DemoProvider, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb import Conversation, StateStore


@pytest.fixture
def talk(store: StateStore) -> Conversation:
    """Two turns, in every store."""
    conversation = ConversationManager(DemoProvider(), store).new_conversation(conversation_id="talk")
    conversation.send("My city is Lisbon")
    conversation.send("What's my city?")
    return conversation


def test_the_text_becomes_the_answer(talk: Conversation) -> None:
    """The model's own is a version, the later turn is stale, and nothing is counted twice."""
    (previous, later), tokens = talk.turns, talk.token_count
    edited = talk.edit_reply(0, "Noted: Porto.")
    assert [turn.text for turn in talk.turns] == ["Noted: Porto.", later.text]
    assert (edited.user_text, edited.cost, edited.usage.total_tokens) == ("My city is Lisbon", Decimal(0), 0)
    assert talk.versions(0) == (previous,)
    assert talk.stale_turns == (later,)
    assert talk.token_count == tokens


def test_the_next_request_carries_it(talk: Conversation) -> None:
    """As the model's answer."""
    talk.edit_reply(0, "Noted: Porto.")
    assert "Noted: Porto." in [line.content for line in talk.context()]


def test_restoring_brings_the_models_answer_back(talk: Conversation) -> None:
    """And the later turn is no longer stale."""
    previous = talk.turns[0]
    talk.edit_reply(0, "Noted: Porto.")
    talk.restore(previous)
    assert talk.turns[0] == previous
    assert talk.stale_turns == ()


def test_the_same_text_changes_nothing(talk: Conversation) -> None:
    """So that Run All is safe."""
    talk.edit_reply(0, "Noted.")
    talk.edit_reply(0, "Noted.")
    assert len(talk.versions(0)) == 1


@pytest.mark.parametrize(("turn", "text"), [(0, " "), (2, "x"), ("nothing", "x")])
def test_no_text_and_no_turn_are_errors(talk: Conversation, turn: int | str, text: str) -> None:
    """Nothing changes."""
    before = talk.turns
    with pytest.raises(InvalidArgumentError):
        talk.edit_reply(turn, text)
    assert talk.turns == before


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A kernel and its server."""
    with day(tmp_path_factory.mktemp("edit")) as started:
        yield started


@pytest.mark.kernel
def test_in_cells(cells: Day) -> None:
    """The text is taken as it is typed, and running the question again sends nothing and keeps it."""
    cells.begin()
    cells.run("%chat Write a function", cell_id="0fc1d2e3")
    assert cells.error("%%chat_edit 2\nx") == (
        "InvalidArgumentError: '2' is not the number of a turn: give 1 to 1, as %chat_tree shows them."
    )
    assert cells.error("%%chat_edit 1\n") == "InvalidArgumentError: Write the answer below the line: %%chat_edit 1"
    assert cells.printed("%%chat_edit 1\n>>> f({{ x }})\n\n    done") == (
        "turn 1 has this answer; the previous one is a version (%chat_tree)\n"
    )
    again = cells.run("%chat Write a function", cell_id="0fc1d2e3")
    assert again.last_bundle["text/plain"].startswith(">>> f({{ x }})\n\n    done")
    assert len(cells.asked) == 1
