"""The chat panel in JupyterLab, end to end: a real page, a real kernel, the test chat server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.panel import MAGIC, SETUP, UNTIL_GO, focused_name, wait
from chat_server import ChatServer, Reply, error_reply

if TYPE_CHECKING:
    from browser.panel import PanelDesk

pytestmark = pytest.mark.browser


def test_chat_in_the_notebooks_panel(desk: PanelDesk) -> None:
    """%chat_panel, type, Enter: the answer appears; Shift+Enter starts a line; no notebook shortcut fires."""
    notebook = desk.notebook([MAGIC, desk.magic])
    notebook.run_cell(0)
    notebook.run_cell(1)
    panel = desk.panel()
    panel.box.press_sequentially("My name is Alice")
    panel.box.press("Shift+Enter")
    panel.box.press_sequentially("Hello")
    panel.box.press("Escape")
    for key in ("d", "d", "Backspace", "Backspace"):
        panel.box.press(key)
    assert panel.box.input_value() == "My name is Alice\nHello"
    panel.box.press("Enter")
    panel.log.get_by_text("Nice to meet you, Alice!").wait_for()
    wait(panel.is_idle)
    assert panel.box.input_value() == ""
    assert desk.page.locator(".jp-Notebook-cell").count() == 2
    assert focused_name(desk.page) == "Message"


def test_stream_stop_retry_and_edit(desk: PanelDesk, chat_server: ChatServer) -> None:
    """An answer streams, Stop keeps the partial answer, Retry answers in place, and an edit continues from there."""
    _, panel = desk.opened()
    chat_server.reply(Reply(text="one two three four five six", pause_s=0.4), Reply(text="better"), Reply(text="new"))
    panel.say("count")
    panel.log.get_by_text("one two").wait_for()
    assert panel.button("Send").count() == 0
    panel.button("Rename").click()
    panel.button("Cancel").click()
    assert not panel.is_idle()
    panel.box.press("Escape")
    panel.status.get_by_text("Stopped; the partial answer is kept.").wait_for()
    panel.log.get_by_text("interrupted").wait_for()
    panel.button("Retry").click()
    panel.hears("better")
    wait(panel.is_idle)
    assert panel.log.get_by_text("one two").count() == 0
    panel.box.press("ArrowUp")
    assert panel.box.input_value() == "count"
    panel.say("count anew")
    panel.hears("new")
    wait(panel.is_idle)
    assert panel.log.get_by_text("count", exact=True).count() == 0
    assert "1 turn" in panel.root.inner_text()


def test_kernel_and_panel_do_not_wait_for_each_other(desk: PanelDesk, chat_server: ChatServer) -> None:
    """While a cell runs, messages are answered and Stop works; while an answer streams, cells run."""
    notebook, panel = desk.opened("import time; time.sleep(600)", "print('ran')")
    notebook.start_cell(2)
    panel.say("My name is Alice")
    panel.hears("Your name is Alice.")
    chat_server.reply(Reply(text="never", delay_s=600))
    panel.say("wait for it")
    wait(lambda: len(chat_server.requests) == 2)
    panel.button("Stop").click()
    panel.status.get_by_text("Stopped").wait_for()
    assert panel.box.input_value() == "wait for it"
    notebook.command("notebook:interrupt-kernel")
    wait(lambda: notebook.outputs(2))
    assert notebook.outputs(2)[0]["ename"] == "KeyboardInterrupt"  # the cell still ran after Stop
    chat_server.reply(Reply(text="a b c d e f g h", pause_s=0.4))
    panel.say("slowly")
    panel.log.get_by_text("a b").wait_for()
    notebook.run_cell(3)
    assert notebook.outputs(3)[0]["text"] == "ran\n"
    panel.hears("a b c d e f g h")


def test_first_message_during_a_long_cell_is_answered_at_once(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Run All with a long cell below the panel: the kernel reads the panel's messages beside it from the first on."""
    cells = [SETUP.format(url=chat_server.url, store=str(desk.store)), desk.cell(), "import time; time.sleep(600)"]
    notebook = desk.notebook(cells)
    notebook.start("notebook:run-all-cells")
    panel = desk.panel()
    panel.say("Hello")
    panel.hears("You said: Hello")
    wait(panel.is_idle)
    assert not notebook.outputs(2)
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_until_idle()


def test_message_waits_for_a_kernel_that_reads_between_cells(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Without subshells, it is answered after the running cell; the panel says so, and nothing is lost."""
    notebook, panel = desk.opened(UNTIL_GO, has_subshells=False)
    notebook.start_cell(2)
    panel.say("Hello")
    panel.status.get_by_text("Waiting for the kernel, which is busy with a cell").wait_for()
    assert panel.log.get_by_text("Hello", exact=True).is_visible()
    desk.go()
    panel.hears("You said: Hello")
    wait(panel.is_idle)
    notebook.wait_until_idle()


def test_errors_are_shown_and_the_text_is_returned(desk: PanelDesk, chat_server: ChatServer) -> None:
    """No typed text is lost, and the next attempt removes the error."""
    _, panel = desk.opened()
    chat_server.reply(error_reply(401, "bad key"))
    panel.say("Hello")
    panel.error.get_by_text("bad key").wait_for()
    wait(lambda: panel.box.input_value() == "Hello")
    panel.box.press("Enter")
    panel.hears("You said: Hello")
    assert panel.error.is_hidden()
    wait(panel.is_idle)
    chat_server.reply(Reply(text="half an **answer** only", cut_after=3))
    panel.say("again")
    panel.error.get_by_text("Partial answer:").wait_for()
    panel.error.get_by_text("half").wait_for()
    assert panel.box.input_value() == "again"


def test_impatience_sends_nothing_twice(desk: PanelDesk, chat_server: ChatServer) -> None:
    """A double click, Enter pressed twice, and a stop before any text."""
    _, panel = desk.opened()
    panel.box.fill("clicked")
    panel.button("Send").dblclick()
    panel.hears("You said: clicked")
    wait(panel.is_idle)
    panel.box.fill("pressed")
    panel.box.press("Enter")
    panel.box.press("Enter")
    panel.hears("You said: pressed")
    wait(panel.is_idle)
    chat_server.reply(Reply(text="too late", delay_s=600))
    panel.say("stopped")
    wait(lambda: len(chat_server.requests) == 3)
    panel.box.press("Escape")
    panel.status.get_by_text("Stopped before any text arrived; the conversation is unchanged.").wait_for()
    wait(lambda: panel.box.input_value() == "stopped")
    panel.box.press("Enter")
    panel.hears("You said: stopped")
    wait(panel.is_idle)
    assert panel.questions() == ["clicked", "pressed", "stopped"]


def test_conversations_and_reload(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Switching conversations, the transcript in the file, and a reload of the page."""
    notebook, panel = desk.opened()
    panel.say("first")
    panel.hears("You said: first")
    wait(lambda: "You said: first" in str(notebook.outputs(1)))
    wait(panel.is_idle)
    panel.button("New").click()
    panel.log.get_by_text("No messages yet.").wait_for()
    wait(lambda: panel.chooser.locator("option").count() == 2)
    panel.say("second")
    panel.hears("You said: second")
    wait(panel.is_idle)
    panel.button("Rename").click()
    panel.root.get_by_role("textbox", name="New title").fill("Another <b>one</b>")
    panel.button("Save").click()
    panel.chooser.locator("option", has_text="Another <b>one</b>").wait_for(state="attached")
    panel.chooser.select_option("panel-chat")
    panel.hears("You said: first")
    wait(lambda: "assistant: You said: first" in str(notebook.outputs(1)))

    saved = notebook.save().cells[1].outputs
    assert [sorted(output.data) for output in saved] == [
        ["application/vnd.jupyter.widget-view+json", "text/plain"],
        ["text/html", "text/plain"],
    ]
    assert "assistant: You said: first" in saved[1].data["text/plain"]

    panel.box.fill("half a thought")
    panel = desk.reload()
    panel.hears("You said: first")
    wait(lambda: panel.box.input_value() == "half a thought")
    wait(lambda: focused_name(desk.page) == "Message")
    panel.say("third")
    panel.hears("You said: third")
    wait(panel.is_idle)

    panel.button("Delete").click()
    panel.button("Delete for good").click()
    panel.hears("You said: second")


def test_kernel_that_ended(desk: PanelDesk, chat_server: ChatServer) -> None:
    """After a restart or shutdown the panel says how to continue, and the typed text is kept."""
    notebook, panel = desk.opened()
    panel.say("first")
    panel.hears("You said: first")
    wait(panel.is_idle)
    panel.box.fill("typed before the kernel ended")
    notebook.command("kernelmenu:restart")
    panel.status.get_by_text("The kernel of this panel has ended: run its cell again to continue.").wait_for()
    assert panel.button("Send").is_disabled()
    notebook.run_all()
    panel = desk.panel()
    panel.hears("You said: first")
    wait(lambda: panel.box.input_value() == "typed before the kernel ended")
    notebook.shut_down_kernel()
    panel.box.press("Enter")
    panel.status.get_by_text("The kernel of this panel has ended").wait_for()
    assert panel.box.input_value() == "typed before the kernel ended"
