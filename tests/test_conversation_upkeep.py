"""A conversation in a store whose conversations expire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from promptkit_nb import ConversationManager, ConversationNotFoundError, DemoProvider

if TYPE_CHECKING:
    from storing import Clock, OpenStore


@pytest.mark.parametrize("look", ["turns", "messages", "summaries", "history"])
def test_reading_through_a_handle_prevents_expiry(open_store: OpenStore, clock: Clock, look: str) -> None:
    """Looking at the turns counts as a read, although the handle has them in memory."""
    manager = ConversationManager(DemoProvider(), open_store(100), clock=clock)
    conv = manager.new_conversation(conversation_id="chat")
    conv.send("My name is Alice")
    for _ in range(3):
        clock.pass_s(60)
        found = getattr(conv, look)
        found = found() if callable(found) else found
    assert manager.get_conversation("chat").turns[0].user_text == "My name is Alice"


def test_reading_totals_does_not_prevent_expiry(open_store: OpenStore, clock: Clock) -> None:
    """Counting is not a read: a dashboard does not keep conversations alive."""
    manager = ConversationManager(DemoProvider(), open_store(100), clock=clock)
    conv = manager.new_conversation(conversation_id="chat")
    clock.pass_s(60)
    assert conv.token_count == 0
    clock.pass_s(60)
    with pytest.raises(ConversationNotFoundError):
        manager.get_conversation("chat")
