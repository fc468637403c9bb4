"""A long conversation in the panel: only visible turns are rendered, and what the reader sees stays in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.panel import wait
from promptkit_nb import ConversationState, DiskStore, Message, Turn

if TYPE_CHECKING:
    from browser.panel import PanelDesk

pytestmark = pytest.mark.browser

TURNS = 300


def turn(number: int) -> Turn:
    """Return a turn; turns differ in height."""
    answer = "\n\n".join(["an answer"] * (1 + number % 7))
    return Turn(messages=(Message("user", f"question {number}"), Message("assistant", answer)))


def test_scrolling_through_a_long_conversation(desk: PanelDesk) -> None:
    """It opens at its end, scrolls to its first turn without jumps, and follows its end again after a message."""
    with DiskStore(desk.store) as store:
        store.create(ConversationState("panel-chat", turns=tuple(map(turn, range(TURNS)))))
    _, panel = desk.opened()
    turns_loaded, turns_filled = (
        panel.log.locator(f".promptkit-turn:not(.promptkit-streaming){kind}") for kind in ("", ":not(:empty)")
    )
    panel.log.get_by_text(f"question {TURNS - 1}", exact=True).wait_for()
    assert turns_loaded.count() == 20
    assert panel.scroll_up(100) == []

    panel.go_to_the_first_turn()
    panel.hears("question 0")
    assert turns_loaded.count() == TURNS
    assert turns_filled.count() < 40

    panel.say("and now?")
    panel.hears("You said: and now?")
    wait(panel.is_idle)
    assert turns_loaded.count() == 20
