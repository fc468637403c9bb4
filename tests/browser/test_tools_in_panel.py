"""Tools in the chat panel and in cells, in JupyterLab: what is shown, who is asked, and what Stop stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.panel import UNTIL_GO, wait
from chat_server import ChatServer, Reply
from promptkit_nb import DiskStore
from storing import texts
from tool_replies import calling, tool_call

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.jupyter_lab import LabNotebook
    from browser.panel import Panel, PanelDesk

pytestmark = pytest.mark.browser

TOOLS = """
import threading, time
from pathlib import Path
import pandas as pd

ran = []

def orders(customer: str) -> pd.DataFrame:
    "Return the orders of a customer."
    print("looking for", customer)
    ran.append(threading.current_thread() is threading.main_thread())
    return pd.DataFrame({"customer": [customer, "Bolt"], "usd": [120, 80]})

def removes(name: str) -> str:
    "Remove a file."
    ran.append(name)
    return "removed"

def sleeps() -> str:
    "Sleep."
    ran.append("asleep")
    time.sleep(600)

for each in (orders, sleeps):
    manager.register_tool(each)
manager.register_tool(removes, approve="ask")
"""
ORDERS = calling(tool_call("orders", {"customer": "ACME"}))
REMOVES = calling(tool_call("removes", {"name": "a.csv"}))
SLEEPS = calling(tool_call("sleeps", {}))


def results(chat_server: ChatServer) -> list[str]:
    """Return the tool results of the last request."""
    return [each["content"] for each in chat_server.requests[-1].body["messages"] if each["role"] == "tool"]


def line(panel: Panel, text: str) -> Locator:
    """Return the line of a call."""
    return panel.log.locator("details.promptkit-tool summary", has_text=text).last


@pytest.fixture
def notebook(desk: PanelDesk) -> LabNotebook:
    """A notebook with a panel whose manager has three tools; further cells wait for a file, print ``ran``, and ask."""
    return desk.opened(UNTIL_GO, "print(ran)", "print(conv.send('Remove a.csv').content)", setup=TOOLS)[0]


def test_a_call_is_a_line_that_unfolds(desk: PanelDesk, chat_server: ChatServer, notebook: LabNotebook) -> None:
    """It runs in the main thread, after the running cell; it shows arguments, result, and the table."""
    panel = desk.panel()
    panel.say("My name is Alice")
    panel.hears("Your name is Alice.")
    chat_server.reply(ORDERS, Reply(text="Two orders."))
    notebook.start_cell(2)
    panel.say("How many orders?")
    line(panel, 'orders(customer="ACME") …').wait_for()
    panel.status.get_by_text("Waiting for the running cell: orders runs after it.").wait_for()
    desk.go()
    panel.hears("Two orders.")
    wait(panel.is_idle)
    line(panel, 'orders(customer="ACME") → DataFrame 2 × 2').click()  # noqa: RUF001 - as shown
    panel.log.locator("details.promptkit-tool td", has_text="Bolt").wait_for()
    panel.log.get_by_text("what the model was told").wait_for()
    panel.log.get_by_text("2 requests · 1 tool call").wait_for()
    desk.page.locator(".jp-OutputArea-output", has_text="looking for ACME").wait_for()
    notebook.run_cell(3)
    assert notebook.outputs(3)[0]["text"] == "[True]\n"


def test_the_reader_allows_or_refuses(desk: PanelDesk, chat_server: ChatServer, notebook: LabNotebook) -> None:
    """Two buttons; the words of a refusal are told to the model; Stop runs nothing. A cell asks at its input line."""
    panel = desk.panel()
    asked = panel.root.get_by_role("group", name="Tool approval")
    chat_server.reply(REMOVES, Reply(text="Gone."), REMOVES, Reply(text="Kept."), REMOVES)
    panel.say("Remove a.csv")
    asked.get_by_text('{"name": "a.csv"}').wait_for()
    panel.status.get_by_text("May removes run? The answer waits for you.").wait_for()
    panel.button("Allow").click()
    panel.hears("Gone.")
    wait(panel.is_idle)
    assert asked.count() == 0
    assert results(chat_server) == ["removed"]

    panel.say("Remove it again")
    asked.get_by_role("textbox", name="Reason for refusing").fill("ask me tomorrow")
    panel.button("Refuse").click()
    panel.hears("Kept.")
    wait(panel.is_idle)
    assert results(chat_server)[-1] == "Error: Not run, the user did not allow this call: ask me tomorrow"

    panel.say("And again")
    asked.wait_for()
    panel.button("Stop").click()
    panel.status.get_by_text("Stopped before any text arrived").wait_for()
    assert asked.count() == 0
    assert panel.box.input_value() == "And again"

    for answer, told in (("no, it is mine", "call: it is mine"), ("yes", "removed")):
        chat_server.reply(REMOVES, Reply(text="Done."))
        notebook.start_cell(4)
        desk.page.locator(".jp-Stdin-prompt", has_text='Run removes(name="a.csv")?').wait_for()
        desk.page.locator(".jp-Stdin-input").fill(answer)
        desk.page.locator(".jp-Stdin-input").press("Enter")
        notebook.wait_until_idle()
        assert results(chat_server)[-1].endswith(told)
    notebook.run_cell(3)
    assert notebook.outputs(3)[0]["text"] == "['a.csv', 'a.csv']\n"


def test_stop_and_interrupt_end_a_running_tool(desk: PanelDesk, chat_server: ChatServer, notebook: LabNotebook) -> None:
    """Nothing is stored, the text returns, and the main thread is free for the next cell and the next tool."""
    panel = desk.panel()
    for is_stop in (True, False):
        chat_server.reply(SLEEPS)
        panel.box.fill("")
        panel.say("Sleep")
        panel.status.get_by_text("Running sleeps…").wait_for()
        if is_stop:
            panel.button("Stop").click()
        else:
            notebook.command("notebook:interrupt-kernel")
        panel.status.get_by_text("Stopped before any text arrived; the conversation is unchanged.").wait_for()
        wait(panel.is_idle)
        assert panel.box.input_value() == "Sleep"
        notebook.run_cell(3)
    assert notebook.outputs(3)[0]["text"] == "['asleep', 'asleep']\n"
    chat_server.reply(ORDERS, Reply(text="Two orders."))
    panel.box.fill("")
    panel.say("How many orders?")
    panel.hears("Two orders.")
    with DiskStore(desk.store) as store:
        assert texts(store.get("panel-chat").turns) == ["How many orders?"]


def test_stop_that_the_kernel_cannot_read_says_what_to_do(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Without subshells, no message arrives while a tool runs; the kernel's interrupt ends it, and the text returns."""
    notebook, panel = desk.opened(setup=TOOLS, has_subshells=False)
    chat_server.reply(SLEEPS)
    panel.say("Sleep")
    panel.status.get_by_text("Running sleeps…").wait_for()
    panel.button("Stop").click()
    panel.status.get_by_text("Stop waits for the kernel, which is busy: interrupt the kernel").wait_for()
    notebook.command("notebook:interrupt-kernel")
    panel.status.get_by_text("Stopped before any text arrived; the conversation is unchanged.").wait_for()
    assert panel.box.input_value() == "Sleep"
