"""A long conversation in the panel: only visible turns are rendered, and what the reader sees stays in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.panel import SETUP, Panel, wait
from promptkit_nb import ConversationState, DiskStore, Message, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabServer
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

TURNS = 300


def turn(number: int) -> Turn:
    """Return a turn; turns differ in height."""
    answer = "\n\n".join(["an answer"] * (1 + number % 7))
    return Turn(messages=(Message("user", f"question {number}"), Message("assistant", answer)))


def test_scrolling_through_a_long_conversation(
    lab: LabServer, page: Page, chat_server: ChatServer, tmp_path: Path
) -> None:
    """It opens at its end, scrolls to its first turn without jumps, and follows its end again after a message."""
    with DiskStore(tmp_path) as store:
        store.create(ConversationState("panel-chat", turns=tuple(map(turn, range(TURNS)))))
    notebook = lab.open_notebook(page, [SETUP.format(url=chat_server.url, store=str(tmp_path)), "ChatPanel(conv)"])
    notebook.run_cell(0)
    notebook.run_cell(1)
    panel = Panel(page)
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
