"""Context windows end to end: the limit holds by the server's own count, and nothing that was said is lost."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from counting import SCRIPTS, SERVERS, counting, prompt_tokens, text_in
from promptkit_nb import (
    ContextWindowExceededError,
    Conversation,
    ConversationManager,
    ConversationState,
    MemoryStore,
    Message,
    OpenAIProvider,
    Summary,
    Turn,
    Usage,
)
from promptkit_nb.state import Settings
from promptkit_nb.turns import ToolCall

if TYPE_CHECKING:
    from promptkit_nb import StateStore
    from promptkit_nb.state import ContextPolicy

LIMIT = 4000


def provider_for(server: ChatServer, model: str = "gpt-4o-mini") -> OpenAIProvider:
    """Return the real client of this server."""
    return OpenAIProvider(model, api_key="sk-test-1", base_url=server.url, max_retries=0)


def on_the_wire(server: ChatServer, number: int = -1) -> list[dict[str, Any]]:
    """Return the messages of a request as the server got them."""
    messages: list[dict[str, Any]] = server.requests[number].body["messages"]
    return messages


def roles_and_texts(server: ChatServer, number: int = -1) -> list[tuple[str, str]]:
    """Return who said what in a request."""
    return [(message["role"], message["content"]) for message in on_the_wire(server, number)]


def long_ago(script: str, count: int, chance: random.Random) -> tuple[Turn, ...]:
    """Return turns of different lengths, as another program may have stored them."""
    lengths = [chance.choice((3, 10, 30, 80)) for _ in range(2 * count)]
    texts = [text_in(script, length, chance) for length in lengths]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return tuple(Turn(messages=(Message("user", asked), Message("assistant", answer))) for asked, answer in pairs)


def numbered(count: int, words: int = 1) -> tuple[Turn, ...]:
    """Return turns "Question 0 …", "Answer 0 …" and so on."""
    return tuple(
        Turn(
            id=f"t{number:03}",
            messages=(
                Message("user", f"Question {number}{' word' * words}"),
                Message("assistant", f"Answer {number}{' word' * words}"),
            ),
            usage=Usage(10, 5),
            cost=Decimal("0.001"),
        )
        for number in range(count)
    )


def opened(
    server: ChatServer,
    turns: tuple[Turn, ...],
    *,
    store: StateStore | None = None,
    model: str = "gpt-4o-mini",
    max_tokens: int | None = LIMIT,
    policy: ContextPolicy = "truncate",
    system_prompt: str = "You help.",
) -> Conversation:
    """Return a conversation that a store holds with these turns."""
    manager = ConversationManager(provider_for(server, model), store or MemoryStore())
    settings = Settings(max_tokens=max_tokens, context_policy=policy)
    manager.store.set(ConversationState("long", turns=turns, system_prompt=system_prompt, settings=settings))
    return manager.get_conversation("long")


class TestLimit:
    """After 500 stored turns, none of 50 further requests is longer than ``max_tokens`` by the server's count."""

    def check(self, conv: Conversation, server: ChatServer, count: str, script: str, chance: random.Random) -> None:
        """Say 50 things more, and look at what the server counted."""
        server.usual = counting(SERVERS[count], answer=lambda: text_in(script, 30, chance))
        for number in range(50):
            response = conv.send(text_in(script, 3 + number, chance))
            assert response.usage.input_tokens <= LIMIT
            assert response.truncated > 400
        assert len(server.requests) == 50
        assert max(prompt_tokens(request.body, SERVERS[count]) for request in server.requests) <= LIMIT
        assert len(conv.turns) == 550

    @pytest.mark.parametrize("script", SCRIPTS)
    @pytest.mark.parametrize("count", SERVERS)
    def test_limit_holds_on_any_server(self, chat_server: ChatServer, count: str, script: str) -> None:
        """Also where it counts twice what we do, and from the first request on."""
        chance = random.Random(script)  # noqa: S311 - no secrets
        conv = opened(chat_server, long_ago(script, 500, chance), model="llama3.2")
        self.check(conv, chat_server, count, script, chance)

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_limit_holds_for_openais_models(self, chat_server: ChatServer, script: str) -> None:
        """They count as we do, so the window is used up but for what one turn takes."""
        chance = random.Random(script)  # noqa: S311 - as above
        conv = opened(chat_server, long_ago(script, 500, chance))
        self.check(conv, chat_server, "o200k", script, chance)
        assert min(turn.usage.input_tokens for turn in conv.turns[500:]) > 0.85 * LIMIT

    def test_every_store_holds_all_that_was_said(self, chat_server: ChatServer, store: StateStore) -> None:
        """What is not sent stays where it is, byte for byte."""
        chance = random.Random(1)  # noqa: S311 - as above
        before = long_ago("english", 500, chance)
        conv = opened(chat_server, before, store=store)
        self.check(conv, chat_server, "o200k", "english", chance)
        assert store.get("long").turns[:500] == before
