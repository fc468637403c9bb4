"""The chat panel as a tab beside the notebook, in JupyterLab: what only a tab does.

The tests of ``PanelDesk`` run there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.attacks import ATTACKS
from browser.jupyter_lab import close_all
from browser.panel import MAGIC, PLACES, SETUP, Panel, focused_name, reload, wait
from browser.realistic import ANSWER
from chat_server import ChatServer, Reply
from promptkit_nb import ConversationState, DiskStore, Message, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook
    from browser.panel import PanelDesk

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("place", ["docked"])]

MAGIC_SETUP = """
import os
os.environ.update(OPENAI_BASE_URL={url!r}, OPENAI_API_KEY="k", PROMPTKIT_MODEL="gpt-4o-mini")
%load_ext promptkit_nb
%chat_setup --store {store!r}
%chat_use {name!r}
done = 17
"""
TABS = "#jp-main-dock-panel .lm-DockPanel-tabBar .lm-TabBar-tab"


def opened(desk: PanelDesk, conversation: str) -> LabNotebook:
    """Open a notebook and run a cell that shows the panel of this conversation."""
    setup = MAGIC_SETUP.format(url=desk.chat.url, store=str(desk.store), name=conversation)
    notebook = desk.notebook([setup, desk.magic])
    notebook.run_cell(0)
    notebook.run_cell(1)
    desk.panel()
    return notebook


def is_beside(page: Page) -> bool:
    """Return whether the panel is at the right of the cells, as high as its tab."""
    dock, cells = (page.locator(f"{each}:visible").bounding_box() for each in (".promptkit-dock", ".jp-Notebook"))
    panel = page.locator(".promptkit-dock .promptkit-panel:visible").bounding_box()
    if dock is None or cells is None or panel is None:
        return False
    return dock["x"] >= cells["x"] + cells["width"] and abs(panel["height"] - dock["height"]) < 2


def dock_of(page: Page, conversation: str) -> Panel:
    """Bring the tab with this title to the front, and return its panel; the newest one, if there are several."""
    page.locator(f"{TABS}:has-text('{conversation}')").last.click()
    return Panel(page, within=".promptkit-dock:visible")


def test_docks_answers_and_comes_back(desk: PanelDesk, chat_server: ChatServer, tmp_path: Path) -> None:
    """It streams beside the cells, returns to its cell, docks again, and after a reload it is where it was."""
    page, notebook = desk.page, opened(desk, "sales-review")
    assert is_beside(page)
    panel = desk.panel()
    chat_server.reply(Reply(text=ANSWER))
    panel.say("How should I clean this table?")
    panel.log.get_by_text("Cleaning a messy sales table").first.wait_for()
    wait(panel.is_idle)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.screenshot(tmp_path / f"docked {theme}.png", theme=theme)
        found = Axe().run(page, context=".promptkit-dock").response["violations"]
        assert [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]] == [], theme

    panel.box.fill("About {{ done }} and {{ dnoe }}")
    panel.root.locator(".promptkit-chip", has_text="done int").wait_for()
    panel.root.locator(".promptkit-unknown", has_text="dnoe unknown").wait_for()
    panel.say("About {{ done }}")
    panel.hears("You said: About 17")
    wait(panel.is_idle)
    assert panel.questions()[-1] == "About {{ done }}"

    notebook.select(0)
    panel.button("Insert as a cell").first.click()
    assert notebook.source(1).startswith("import pandas as pd\n\ndef clean")
    assert notebook.in_page("notebook.content.widgets[1].model.executionCount") is None

    page.get_by_role("button", name="Bring it back").click()
    assert page.locator(".jp-Notebook .promptkit-panel").count() == 1
    assert page.locator(".promptkit-dock").count() == 0
    notebook.save()
    panel = reload(page, PLACES["here"])
    page.wait_for_timeout(1000)
    assert page.locator(".promptkit-dock").count() == 0
    panel.button("Dock").click()
    desk.panel()
    desk.reload().hears("How should I clean this table?")
    assert is_beside(page)


def test_one_tab_for_each_conversation(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Running the cell again leaves one tab; closing it while an answer streams puts the panel back, and stores it."""
    page, notebook = desk.page, opened(desk, ATTACKS["img onerror"])
    notebook.run_cell(1)
    page.wait_for_timeout(1000)
    assert page.locator(".promptkit-dock").count() == 1
    assert page.locator(".promptkit-panel").count() == 1
    assert page.evaluate("() => window.pwned") is None

    panel = desk.panel()
    chat_server.reply(Reply(text="one two three four five six", pause_s=0.3))
    panel.say("count")
    panel.log.get_by_text("one two").first.wait_for()
    page.locator(f"{TABS}:has-text('<img') .lm-TabBar-tabCloseIcon").click()
    panel = Panel(page, within=PLACES["here"])
    panel.hears("one two three four five six")
    wait(panel.is_idle)

    panel.button("Dock").click()
    panel = desk.panel()
    notebook.command("kernelmenu:restart")
    panel.status.get_by_text("The kernel of this panel has ended").wait_for()
    notebook.run_all()
    page.wait_for_timeout(1000)
    panel = desk.panel()
    panel.hears("one two three four five six")
    assert page.locator(".promptkit-dock").count() == 1
    panel.say("still there?")
    panel.hears("You said: still there?")


def test_two_notebooks_with_three_tabs(desk: PanelDesk, chat_server: ChatServer) -> None:
    """The chats of a page share a space at the right; each belongs to its notebook, and goes and stays with it."""
    page = desk.page
    setup = SETUP.format(url=chat_server.url, store=str(desk.store))
    alpha, beta = (desk.cell(f"manager.open_conversation(conversation_id={name!r})") for name in ("alpha", "beta"))
    one = desk.notebook([setup, alpha, beta, alpha], "one.ipynb")
    two = desk.notebook([setup, alpha], "two.ipynb")
    for notebook, cells in ((one, 3), (two, 2)):
        notebook.activate()
        for cell in range(cells):
            notebook.run_cell(cell)
    page.locator(".promptkit-dock").nth(2).wait_for(state="attached")
    assert page.locator(f"{TABS}.lm-mod-current").count() == 2  # of the notebooks, and of the chats
    assert is_beside(page)

    chat_server.reply(Reply(text="for beta", delay_s=1), Reply(text="for alpha"))
    dock_of(page, "beta").say("from beta")
    wait(lambda: len(chat_server.requests) == 1)
    dock_of(page, "alpha").say("from two")
    for number in range(2):  # alpha in both notebooks
        page.locator(f"{TABS}:has-text('alpha')").nth(number).click()
        panel = Panel(page, within=".promptkit-dock:visible")
        panel.hears("for alpha")
        wait(panel.is_idle)
        assert panel.questions() == ["from two"]
    panel = dock_of(page, "beta")
    panel.hears("for beta")
    wait(panel.is_idle)
    assert panel.questions() == ["from beta"]

    two.close()
    wait(lambda: page.locator(".promptkit-dock").count() == 2)
    panel = dock_of(page, "alpha")
    panel.say("from one")
    panel.hears("You said: from one")
    wait(panel.is_idle)

    panel.button("New").click()
    panel.log.get_by_text("No messages yet.").wait_for()
    one.run_cell(3)
    page.locator(".promptkit-dock").nth(2).wait_for(state="attached")  # the first tab shows another conversation now
    dock_of(page, "alpha").hears("You said: from one")


def test_the_reader_stays_where_she_was(desk: PanelDesk) -> None:
    """The first visible turn, typed text, and the focus, when the tab is closed and docked again."""
    turns = tuple(
        Turn(messages=(Message("user", f"question {n}"), Message("assistant", "an answer " * 60))) for n in range(15)
    )
    with DiskStore(desk.store) as store:
        store.create(ConversationState("panel-chat", turns=turns))
    page, (_, panel) = desk.page, desk.opened()
    panel.hears("question 14")
    seen = panel.log.locator(".promptkit-turn", has_text="question 7")
    seen.evaluate("""async turn => {
        turn.closest('.promptkit-log').scrollTop = turn.offsetTop + 20;
        for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
    }""")
    panel.box.fill("half a thought")

    def distance(panel: Panel) -> float:
        log, turn = panel.log.bounding_box(), panel.log.locator(".promptkit-turn", has_text="question 7").bounding_box()
        assert log is not None
        assert turn is not None
        return log["y"] - turn["y"]

    before = distance(panel)
    assert before > 0
    page.locator(f"{TABS}:has-text('panel-chat') .lm-TabBar-tabCloseIcon").click()
    panel = Panel(page, within=PLACES["here"])
    wait(lambda: abs(distance(panel) - before) < 2)
    assert panel.box.input_value() == "half a thought"
    panel.button("Dock").press("Enter")
    panel = desk.panel()
    assert focused_name(page) == "Undock"
    wait(lambda: abs(distance(panel) - before) < 2)
    assert panel.box.input_value() == "half a thought"


def test_stays_in_the_cell_if_it_is_told_to(desk: PanelDesk) -> None:
    """``%chat_panel --here`` shows it in the output, with a button that docks it."""
    notebook = desk.notebook([MAGIC, "%chat_panel --here"])
    notebook.run_cell(0)
    notebook.run_cell(1)
    Panel(desk.page, within=PLACES["here"]).button("Dock").wait_for()
    assert desk.page.locator(".promptkit-dock").count() == 0


def test_stays_in_the_cell_in_simple_mode(desk: PanelDesk) -> None:
    """JupyterLab then shows one document at a time, so there is no place beside it, and no button that docks."""
    page = desk.page.context.new_page()
    notebook = desk.lab.open_notebook(page, [MAGIC, "%chat_panel"], "simple.ipynb")
    notebook.run_cell(0)
    notebook.run_cell(1)
    panel = Panel(page, within=PLACES["here"])
    panel.say("My name is Alice")
    panel.log.get_by_text("Nice to meet you, Alice!").wait_for()
    assert panel.button("Dock").count() == 0
    assert page.locator(".promptkit-dock").count() == 0
    close_all(page)
    page.close()
