"""Three recipes for long conversations, each with a method and by hand with the store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from counting import SERVERS, counting, prompt_tokens
from promptkit_nb import ConversationManager, ConversationState, Message, OpenAIProvider, Summary, Turn

if TYPE_CHECKING:
    from chat_server import ChatServer
    from promptkit_nb import Conversation, StateStore


@pytest.fixture
def manager(chat_server: ChatServer, store: StateStore) -> ConversationManager:
    """A manager connected to a server that counts tokens."""
    chat_server.usual = counting(SERVERS["o200k"])
    return ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="sk-1", base_url=chat_server.url), store)


def conversation_of(manager: ConversationManager, messages: int, words: int = 1) -> Conversation:
    """Return a conversation of this many messages, with a system prompt."""
    turns = tuple(
        Turn(messages=(Message("user", f"Question {number}"), Message("assistant", f"Answer {number}{' ha' * words}")))
        for number in range(messages // 2)
    )
    manager.store.create(ConversationState("chat", turns=turns, system_prompt="You help."))
    return manager.get_conversation("chat")


def sent(server: ChatServer) -> list[str]:
    """Return the messages of the last request."""
    return [message["content"] for message in server.requests[-1].body["messages"]]


def test_automatic_truncation(manager: ConversationManager, chat_server: ChatServer) -> None:
    """Set the window and talk: no request is longer, and no turn is lost."""
    conv = manager.new_conversation(system_prompt="You help.", max_tokens=200, context_policy="truncate")
    for number in range(30):
        response = conv.send(f"Question {number}")

    assert response.truncated == 16
    assert len(conv.messages) == 61
    assert max(prompt_tokens(request.body, SERVERS["o200k"]) for request in chat_server.requests) <= 200


@pytest.mark.parametrize("messages", [0, 10, 12, 30])
class TestKeepTheLast20:
    """The older turns are removed; the system prompt, whole pairs, and the order stay."""

    def test_with_truncate(self, manager: ConversationManager, chat_server: ChatServer, messages: int) -> None:
        """They become a branch, which ``restore`` brings back."""
        conv = conversation_of(manager, messages)
        before = conv.messages
        conv.truncate(keep_last=20)

        assert conv.messages == (before[0], *before[1:][-20:])
        conv.send("And now?")
        assert sent(chat_server) == [*(message.content for message in conv.messages[:-1])]
        for branch in conv.branches():
            conv.restore(branch)
        assert conv.messages[: messages + 1] == before

    def test_by_hand(self, manager: ConversationManager, chat_server: ChatServer, messages: int) -> None:
        """Turns missing from the state are deleted."""
        conv, store = conversation_of(manager, messages), manager.store
        before = conv.messages
        state = store.get("chat")
        store.set(replace(state, turns=state.turns[-10:]))

        assert conv.messages == (before[0], *before[1:][-20:])
        conv.send("And now?")
        assert sent(chat_server) == [*(message.content for message in conv.messages[:-1])]


@pytest.mark.parametrize("messages", [0, 10, 12, 30])
class TestSummarizeBeyond8000Tokens:
    """The older turns become a summary; the last 10 messages stay."""

    def test_with_summarize(self, manager: ConversationManager, chat_server: ChatServer, messages: int) -> None:
        """With 0 or 10 messages there is nothing to summarize; the turns stay, the next request is short."""
        conv = conversation_of(manager, messages, words=2000)
        before = conv.messages
        chat_server.usual = counting(SERVERS["o200k"], answer=lambda: "They laughed.")
        if conv.context().token_count > 8_000:
            conv.summarize(keep_last=10)

        assert conv.messages == before
        summed_up = max(0, messages - 10) // 2
        assert [len(conv.summaries), len(chat_server.requests)] == [int(summed_up > 0)] * 2
        conv.send("And now?")
        note = f"Summary of {summed_up} earlier turn{'s' * (summed_up > 1)} of this conversation:\n\nThey laughed."
        if summed_up:
            assert sent(chat_server)[0] == f"You help.\n\n{note}"
            assert [message["role"] for message in chat_server.requests[-1].body["messages"][:2]] == ["system", "user"]
        assert sent(chat_server)[-1] == "And now?"
        assert len(sent(chat_server)) == 1 + min(messages, 10) + 1

    def test_by_hand(self, manager: ConversationManager, chat_server: ChatServer, messages: int) -> None:
        """With a summary of one's own, which replaces the turns that are cut off."""
        conv, store = conversation_of(manager, messages, words=1000), manager.store
        state = store.get("chat")
        older, newest = state.turns[:-5], state.turns[-5:]
        if older:
            note = Summary(older[0].id, older[-1].id, "They laughed.")
            store.set(replace(state, turns=newest, summaries=(note,)))

        conv.send("And now?")
        summary = "\n\nSummary of earlier turns of this conversation:\n\nThey laughed." if older else ""
        said = [message.content for turn in newest for message in turn.messages]
        assert sent(chat_server) == [f"You help.{summary}", *said, "And now?"]
        assert len(conv.turns) == len(newest) + 1
        assert conv.context().token_count < 8_000


def test_context_size_triggers_the_summary(manager: ConversationManager, chat_server: ChatServer) -> None:
    """A loop without end: above 8,000 tokens it summarizes, and no request is much longer."""
    conv = manager.new_conversation(system_prompt="You help.")
    chat_server.usual = counting(SERVERS["o200k"], answer=lambda: "ha " * 1000)
    for number in range(20):
        if conv.context().token_count > 8_000:
            conv.summarize(keep_last=10)
        conv.send(f"Question {number}")

    assert len(conv.turns) == 20
    assert conv.summaries
    assert max(prompt_tokens(request.body, SERVERS["o200k"]) for request in chat_server.requests) < 10_000
