"""The cost of a turn, relative to a raw keep-alive POST of the same JSON to the same instant server.

The server runs in a separate process, and each turn is added to its own conversation on disk with 1,000 turns, so that
only our own work is compared.
"""

from __future__ import annotations

import http.client
import json
import tempfile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptkit_nb import (
    Conversation,
    ConversationManager,
    ConversationState,
    DiskStore,
    Message,
    OpenAIProvider,
    Turn,
    Usage,
)
from ratio import Ratio, medians_ms
from server import chat_server_url

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = 1000
ROUNDS = 30


def measure() -> list[Ratio]:
    """Return the ratios of ``send`` and of ``stream``."""
    with chat_server_url() as url:
        return _measured(url)


def _measured(url: str) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
        manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="key", base_url=url), store)
        send, stream = (_conversation(manager, name) for name in ("send", "stream"))
        raw_post = _raw_post(url, send)
        raw_ms, send_ms, stream_ms = medians_ms(
            ROUNDS, raw_post, lambda: send.send("And now?"), lambda: list(stream.stream("And now?"))
        )
    return [
        Ratio(f"send with {TURNS} turns before it / raw POST", send_ms, raw_ms, 3),
        Ratio(f"stream with {TURNS} turns before it / raw POST", stream_ms, raw_ms, 3),
    ]


def _conversation(manager: ConversationManager, conversation_id: str) -> Conversation:
    turns = tuple(
        Turn(
            messages=(Message("user", f"Question {number}? " * 10), Message("assistant", f"Answer {number}. " * 20)),
            usage=Usage(100, 50),
            model="gpt-4o-mini",
            provider="openai",
        )
        for number in range(TURNS)
    )
    manager.store.create(ConversationState(conversation_id, turns=turns, system_prompt="You help."))
    conversation = manager.get_conversation(conversation_id)
    conversation.send("Warm up.")
    return conversation


def _raw_post(url: str, conversation: Conversation) -> Callable[[], None]:
    """Return a function that POSTs the same JSON on an open connection; the JSON is encoded each time."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    messages = [{"role": message.role, "content": message.content} for message in conversation.messages]
    body = {
        "model": "gpt-4o-mini",
        "messages": [*messages, {"role": "user", "content": "And now?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    def post() -> None:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
        connection.request("POST", f"{address.path}/chat/completions", json.dumps(body), headers)
        connection.getresponse().read()

    return post
