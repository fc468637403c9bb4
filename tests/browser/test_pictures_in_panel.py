"""Pictures that are pasted or dropped into the chat panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.attacks import ATTACKS
from browser.panel import wait
from chat_server import ChatServer, Reply, error_reply

if TYPE_CHECKING:
    from browser.panel import PanelDesk

pytestmark = pytest.mark.browser

GIVE = """(panel, [kind, name, type, size]) => {
    const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
    const bytes = Uint8Array.from(atob(png), each => each.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([size ? new Uint8Array(size) : bytes], name, {type}));
    const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
    panel.querySelector(kind === 'paste' ? 'textarea' : '.promptkit-log').dispatchEvent(event);
}"""


def test_pictures_are_shown_sent_and_not_lost(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Pasted and dropped ones are thumbnails until they are sent; an error gives them back; a large one is refused."""
    _, panel = desk.opened()
    pictures = panel.root.get_by_role("group", name="Pictures").get_by_role("img")
    panel.root.evaluate(GIVE, ["paste", ATTACKS["img onerror"], "image/png", 0])
    panel.root.evaluate(GIVE, ["drop", "chart.png", "image/png", 0])
    wait(lambda: pictures.count() == 2)
    panel.root.evaluate(GIVE, ["paste", "large.png", "image/png", 5_000_001])
    panel.status.get_by_text("large.png is larger than 5 MB").wait_for()
    panel.root.get_by_role("button", name="Remove chart.png").click()
    assert pictures.count() == 1
    assert desk.page.evaluate("() => window.pwned") is None

    chat_server.reply(error_reply(400, "not today"), Reply(text="A dot."))
    panel.say("What is it?")
    panel.root.get_by_text("not today").wait_for()
    assert (panel.box.input_value(), pictures.count()) == ("What is it?", 1)
    panel.box.press("Enter")
    panel.hears("A dot.")
    wait(panel.is_idle)
    assert pictures.count() == 0
    for request in chat_server.requests:
        text, picture = request.body["messages"][-1]["content"]
        assert text["text"] == "What is it?"
        assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    panel.log.locator(".promptkit-user img[src^='data:image/png']").wait_for()
