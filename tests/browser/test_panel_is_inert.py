"""Text from models, users and servers in the panel, its transcript and exports: nothing runs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from browser.attacks import ATTACKS, CANARY, hostile, hostile_value
from browser.panel import SETUP, Panel, wait
from browser.test_model_text_is_inert import TOUCH_EVERYTHING, was_run
from chat_server import Reply, error_reply
from promptkit_nb import ConversationManager, ConversationState, DemoProvider, DiskStore
from promptkit_nb.panel.transcript import STATIC_TURNS
from tool_replies import calling, tool_call

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.canary import Canary
    from browser.jupyter_lab import LabNotebook, LabServer
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

TOUCH_ALL_TURNS = f"""async log => {{
    for (log.scrollTop = log.scrollHeight; ; log.scrollTop -= 1000) {{
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        for (const details of log.querySelectorAll('details')) details.open = true;
        ({TOUCH_EVERYTHING})();
        if (log.scrollTop === 0 && log.querySelector('.promptkit-earlier').hidden) return;
    }}
}}"""
INSERT_ALL = """log => {
    const buttons = [...log.querySelectorAll("[aria-label='Insert as a cell']")];
    for (const button of buttons) button.click();
    return buttons.length;
}"""
SHOW_DOCKED = "number => jupyterapp.shell.activateById(document.querySelectorAll('.promptkit-dock')[number].id)"
EXECUTED = "[...notebook.content.model.cells].filter(cell => cell.type === 'code' && cell.executionCount).length"
TOOLS = """
class Returned:
    def __init__(self, html):
        self.html = html
    def __repr__(self):
        return self.html
    def _repr_html_(self):
        return self.html

def shows(text: str) -> object:
    "Return an object that is shown as HTML."
    return Returned(text)

def fails(text: str) -> object:
    "Fail."
    raise ValueError(text)

def guarded(text: str) -> str:
    "Ask first."

for each in (shows, fails):
    manager.register_tool(each)
manager.register_tool(guarded, approve="ask");
"""
NAMES = (ATTACKS["img onerror"], ATTACKS["svg onload"])


def is_untouched(page: Page, canary: Canary) -> bool:
    """Wait a moment; return whether no script ran and nothing was fetched."""
    page.wait_for_timeout(700)
    return not was_run(page) and canary.requests == []


@pytest.fixture
def notebook(
    lab: LabServer, page: Page, chat_server: ChatServer, tmp_path: Path, canary: Canary, *, place: str
) -> LabNotebook:
    """Panels of two conversations with attacks in every field of every turn, in ids, titles and metadata."""
    attacks = [attack.replace(CANARY, canary.url) for attack in ATTACKS.values()]
    assert len(attacks) + 2 <= 2 * STATIC_TURNS
    with DiskStore(tmp_path / "store") as store:
        for number, name in enumerate(NAMES):
            turns = (*map(hostile, attacks[number::2]), hostile_value(attacks))
            metadata = {"title": ATTACKS["script"], "tags": attacks}
            store.create(ConversationState(name, system_prompt=attacks[0], turns=turns, metadata=metadata))
    cells = [SETUP.format(url=chat_server.url, store=str(tmp_path / "store")) + TOOLS]
    is_docked = place == "docked"
    cells += [f"ChatPanel(manager.get_conversation({name!r}), docked={is_docked})" for name in NAMES]
    opened = lab.open_notebook(page, cells, f"hostile-{place}.ipynb", mode="lab" if is_docked else "doc")
    for cell in range(3):
        opened.run_cell(cell)
        if is_docked and cell:
            page.locator(".promptkit-dock .promptkit-panel").nth(cell - 1).wait_for(state="attached")
    return opened


def test_attacks_in_the_panel(
    page: Page, canary: Canary, chat_server: ChatServer, notebook: LabNotebook, *, place: str
) -> None:
    """Stored, typed, streamed, in errors, titles, and tools: all are scrolled to and touched; the mark works."""
    assert notebook.outputs(1)
    for number in (1, 0):
        if place == "docked":
            page.evaluate(SHOW_DOCKED, number)
        panel = Panel(page, number)
        panel.log.locator(".promptkit-turn").nth(5).wait_for(state="attached")
        panel.log.evaluate(TOUCH_ALL_TURNS)
    assert is_untouched(page, canary)
    attack = "\n\n".join(ATTACKS.values()).replace(CANARY, canary.url)
    chat_server.reply(Reply(text=attack), error_reply(400, attack), Reply(text=attack, cut_after=40))
    panel.say(attack)
    wait(lambda: chat_server.requests and panel.is_idle())
    assert panel.log.evaluate(INSERT_ALL) > 0
    for number in (2, 3):
        panel.box.fill("")
        panel.say(f"fails {number}")
        wait(lambda number=number: len(chat_server.requests) == number and panel.is_idle())  # type: ignore[misc]  # bound
        panel.error.wait_for()
    panel.button("Rename").click()
    panel.root.get_by_role("textbox", name="New title").fill(ATTACKS["img onerror, unfinished"])
    panel.button("Save").click()
    panel.chooser.locator("option", has_text="<img").first.wait_for(state="attached")
    assert is_untouched(page, canary)
    assert panel.root.locator("script, iframe, :not(.promptkit-icon) > svg, form, [onerror], [onclick]").count() == 0
    assert notebook.in_page(EXECUTED) == 3  # code that was inserted as cells has not run

    names = ("shows", "fails", ATTACKS["img onerror"], "guarded")
    calls = [tool_call(name, {"text": attack}, f"call_{name}") for name in names]
    chat_server.reply(calling(*calls, text=attack), Reply(text="Refused."))
    panel.box.fill("")
    panel.say("Call your tools")
    panel.button("Refuse").wait_for()
    for part in (panel.log, panel.root.get_by_role("group", name="Tool approval")):
        part.evaluate("part => part.querySelectorAll('details').forEach(each => { each.open = true; })")
        part.evaluate(TOUCH_EVERYTHING)
    assert panel.log.locator(".promptkit-streaming details.promptkit-tool").count() == 3
    assert is_untouched(page, canary)
    panel.root.get_by_role("textbox", name="Reason for refusing").fill(attack)
    panel.button("Refuse").click()
    panel.hears("Refused.")
    wait(panel.is_idle)
    panel.log.evaluate(TOUCH_ALL_TURNS)
    assert is_untouched(page, canary)
    assert panel.root.locator("script, iframe, :not(.promptkit-icon) > svg, form, [onerror], [onclick]").count() == 0

    page.evaluate("html => { document.querySelector('.promptkit-empty').innerHTML = html; }", ATTACKS["img onerror"])
    page.wait_for_function("() => window.pwned")


@pytest.mark.parametrize("place", ["here"])  # the files are the same
def test_attacks_in_saved_files(page: Page, canary: Canary, tmp_path: Path, notebook: LabNotebook) -> None:
    """The transcript in the notebook without a kernel, its HTML by nbconvert, and exported pages."""
    with DiskStore(tmp_path / "store") as store:
        manager = ConversationManager(DemoProvider(), store)
        exported = [manager.get_conversation(name).export(tmp_path / f"{NAMES.index(name)}.html") for name in NAMES]
    notebook.save()
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(tmp_path), str(notebook.path)]
    subprocess.run(convert, check=True, capture_output=True)
    notebook.shut_down_kernel()
    page.reload()
    for address in (None, tmp_path / "hostile-here.html", *exported):
        if address is not None:
            page.goto(address.as_uri(), wait_until="domcontentloaded")
        page.locator(".promptkit-markdown:visible").nth(30).wait_for()  # what the model thought is folded
        page.evaluate(TOUCH_EVERYTHING)
        assert is_untouched(page, canary), address
        assert page.locator(".promptkit-panel").count() == 0
