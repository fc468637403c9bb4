"""Every control of the chat panel in a browser: what it does, and where the focus goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.panel import focused_name, wait
from chat_server import Reply, error_reply
from promptkit_nb import DiskStore
from storing import texts

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser.panel import PanelDesk
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

LONG_CHAT = """
from promptkit_nb import Budget, ChatPanel, ConversationManager, DiskStore, OpenAIProvider

provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url={url!r})
manager = ConversationManager(provider, DiskStore({store!r}), budget=Budget(1))
for number in range(30):
    manager.new_conversation(conversation_id=f"trip-{{number:02}}", metadata={{"title": f"Trip {{number:02}}"}})
conv = manager.new_conversation(conversation_id='a/b "c" <i>d</i>', max_tokens=4000)
"""
CODE = "Here:\n\n```python\nprint('<b>')\n```\n"


def copied(page: Page) -> str:
    """Return the text in the clipboard."""
    text: str = page.evaluate("() => navigator.clipboard.readText()")
    return text


def test_copy_retry_and_edit(desk: PanelDesk, chat_server: ChatServer) -> None:
    """A message and its code are copied as written; Retry and Edit answer keep versions, Edit creates a branch."""
    desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _, panel = desk.opened()
    chat_server.reply(Reply(text=CODE), Reply(text="second"), Reply(text="again"), Reply(text="changed"))
    panel.say("show **me**")
    panel.log.get_by_text("print").first.wait_for()
    wait(panel.is_idle)
    assert panel.log.get_by_text("print").count() == 1
    for button, text in (("Copy code", "print('<b>')\n"), ("Copy", "show **me**")):
        panel.button(button).first.click()
        wait(lambda text=text: copied(desk.page) == text)  # type: ignore[misc]  # bound to each text
    panel.button("Copy").last.click()
    wait(lambda: copied(desk.page) == CODE)
    panel.say("more")
    panel.hears("second")
    wait(panel.is_idle)

    panel.button("Retry").first.click()
    panel.hears("again")
    panel.log.get_by_text("stale").wait_for()
    assert focused_name(desk.page) == "Message"
    wait(panel.is_idle)
    panel.button("Edit answer").first.click()
    assert panel.box.input_value() == "again"
    panel.root.get_by_text("Editing an answer: the model's own is kept as a version.").wait_for()
    panel.say("my <b>own</b> words")
    panel.hears("my <b>own</b> words")
    assert panel.box.input_value() == ""
    panel.button("Edit").first.click()
    assert panel.box.input_value() == "show **me**"
    panel.box.press("Escape")
    assert panel.box.input_value() == ""
    panel.button("Edit").first.click()
    panel.button("Delete").click()
    panel.button("Cancel").click()
    panel.root.get_by_text("Editing an earlier message").wait_for()
    panel.say("show nothing")
    panel.hears("changed")
    wait(panel.is_idle)
    assert panel.questions() == ["show nothing"]
    with DiskStore(desk.store) as store:
        state = store.get("panel-chat")
    assert texts(state.turns) == ["show nothing"]
    assert [texts(branch.turns) for branch in state.branches] == [["show **me**", "more"]]
    assert [turn.text for previous in state.versions.values() for turn in previous] == [CODE, "again"]


def test_failed_edit_is_still_an_edit(desk: PanelDesk, chat_server: ChatServer) -> None:
    """The text is returned to the box, and Enter replaces the same message."""
    _, panel = desk.opened()
    chat_server.reply(Reply(text="first"), error_reply(400, "not today"), Reply(text="changed"))
    panel.say("show me")
    panel.hears("first")
    wait(panel.is_idle)
    panel.button("Edit").first.click()
    panel.say("show nothing")
    panel.root.get_by_text("not today").wait_for()
    assert panel.box.input_value() == "show nothing"
    panel.root.get_by_text("Editing an earlier message").wait_for()
    panel.box.press("Enter")
    panel.hears("changed")
    wait(panel.is_idle)
    assert panel.questions() == ["show nothing"]


def test_selector_and_buttons(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Thirty conversations and one with an unusual id: search, New, Rename, Fork, and Delete, which asks first."""
    desk.notebook([LONG_CHAT.format(url=chat_server.url, store=str(desk.store)), desk.cell()]).run_all()
    panel = desk.panel()
    panel.say("Hello")
    panel.hears("You said: Hello")
    panel.root.get_by_text("1 turn · <$0.0001").wait_for()
    panel.root.get_by_title("1 turn · 15 tokens · $0.0000045").wait_for()
    panel.root.locator(".promptkit-context[title*='of 4,000 tokens']", has_text="% of context").wait_for()
    panel.root.get_by_text("of $1.00 in this conversation").wait_for()
    options = panel.chooser.locator("option")
    assert options.count() == 31
    assert panel.chooser.input_value() == 'a/b "c" <i>d</i>'

    panel.button("Search").click()
    panel.root.get_by_role("searchbox", name="Search conversations").fill("TRIP 1")
    panel.status.get_by_text("10 conversations found").wait_for()
    desk.page.keyboard.press("Enter")
    assert focused_name(desk.page) == "Conversations"
    panel.chooser.select_option(label="Trip 17")
    panel.log.get_by_text("No messages yet.").wait_for()
    panel.say("in the trip")
    panel.hears("You said: in the trip")
    wait(panel.is_idle)
    assert panel.root.get_by_role("searchbox").count() == 0

    panel.button("Fork").click()
    panel.chooser.locator("option", has_text="Trip 17 (copy)").wait_for(state="attached")
    panel.say("in the copy")
    panel.hears("You said: in the copy")
    wait(panel.is_idle)
    panel.button("Rename").click()
    assert focused_name(desk.page) == "New title"
    desk.page.keyboard.type("The <b>copy</b>")
    desk.page.keyboard.press("Enter")
    panel.chooser.locator("option", has_text="The <b>copy</b>").wait_for(state="attached")
    assert focused_name(desk.page) == "Message"

    panel.button("Delete").click()
    panel.button("Cancel").click()
    assert focused_name(desk.page) == "Message"
    assert panel.questions() == ["in the trip", "in the copy"]
    panel.button("Delete").click()
    assert focused_name(desk.page) == "Delete for good"
    desk.page.keyboard.press("Enter")
    panel.chooser.locator("option", has_text="The <b>copy</b>").wait_for(state="detached")
    panel.button("New").click()
    panel.log.get_by_text("No messages yet.").wait_for()
    assert focused_name(desk.page) == "Message"
    with DiskStore(desk.store) as store:
        said = {head.conversation_id: head.turn_count for head in store.list() if head.turn_count}
        assert said == {"trip-17": 1, 'a/b "c" <i>d</i>': 1}
        assert len(store.list()) == 32
