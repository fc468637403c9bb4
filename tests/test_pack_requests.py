"""Requests made from packs: parameters, overrides, stop sequences and variables on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from newsroom import NEWSROOM
from promptkit_nb import ConversationManager, MissingVariableError, OpenAIProvider
from test_pack_dialect import OLDER

if TYPE_CHECKING:
    from chat_server import ChatServer


@pytest.fixture
def manager(chat_server: ChatServer) -> ConversationManager:
    """Return a manager whose conversations go to the loopback server."""
    return ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="key", base_url=chat_server.url))


def test_all_parameters_and_the_override_of_the_model_are_sent(
    manager: ConversationManager, chat_server: ChatServer
) -> None:
    """The longest matching pattern applies; null is not sent."""
    conv = manager.new_conversation(manager.load_pack(NEWSROOM, strict=True), prompt_name="draft")
    conv.variables["topic"] = "harbours"
    conv.send("Go.")
    body = chat_server.requests[-1].body
    sent = {key: body[key] for key in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens")}
    assert sent == {
        "temperature": 0.4,
        "top_p": 0.95,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.2,
        "max_tokens": 900,
    }
    assert "top_k" not in body
    assert body["messages"][0]["content"].startswith(
        "Think first.\nYou write about harbours for readers, in 300 words."
    )


def test_stop_sequences_of_older_packs_are_sent(manager: ConversationManager, chat_server: ChatServer) -> None:
    """Stop sequences are kept as extras and still sent."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann"})
    conv.send("Hi")
    body = chat_server.requests[-1].body
    assert body["stop"] == ["END"]
    assert body["messages"][0]["content"] == "You are warm to Ann."


def test_misspelt_variable_is_told_before_anything_is_sent(
    manager: ConversationManager, chat_server: ChatServer
) -> None:
    """A misspelled variable raises before the request; with the right name the next send works."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann", "tnoe": "cool"})
    with pytest.raises(MissingVariableError, match="no variable 'tnoe'; did you mean 'tone'"):
        conv.send("Hi")
    assert chat_server.requests == []
    assert conv.turns == ()
    del conv.variables["tnoe"]
    conv.variables["tone"] = "cool"
    conv.send("Hi")
    assert chat_server.requests[-1].body["messages"][0]["content"] == "You are cool to Ann."


def test_braces_of_the_user_stay(manager: ConversationManager, chat_server: ChatServer) -> None:
    """User messages are never rendered, neither when sent nor as history."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann"})
    conv.send("Tell me {{name}}.")
    conv.send("Again.")
    assert [message["content"] for message in chat_server.requests[-1].body["messages"]][1] == "Tell me {{name}}."
