"""The chat panel as a tab beside the notebook, in JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.attacks import ATTACKS
from browser.panel import Panel, reload, wait
from browser.realistic import ANSWER
from chat_server import ChatServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook, LabServer

pytestmark = pytest.mark.browser

SETUP = """
import os
os.environ.update(OPENAI_BASE_URL={url!r}, OPENAI_API_KEY="k", PROMPTKIT_MODEL="gpt-4o-mini")
%load_ext promptkit_nb
%chat_setup --store {store!r}
%chat_use {name!r}
done = 17
"""
TABS = "#jp-main-dock-panel .lm-DockPanel-tabBar .lm-TabBar-tab"


def opened(lab: LabServer, page: Page, chat: ChatServer, store: Path, conversation: str) -> LabNotebook:
    """Open a notebook in JupyterLab's usual mode, with tabs, and run a cell that shows the panel."""
    page.set_viewport_size({"width": 1400, "height": 900})
    cells = [SETUP.format(url=chat.url, store=str(store), name=conversation), "%chat_panel"]
    notebook = lab.open_notebook(page, cells, name=f"{store.parent.name}.ipynb", mode="lab")
    notebook.run_cell(0)
    notebook.run_cell(1)
    page.locator(".promptkit-dock .promptkit-panel").wait_for()
    return notebook


def use_cells(page: Page) -> None:
    """Make the notebook the current tab, as a click into it does."""
    page.evaluate("""() => {
        const notebook = [...jupyterapp.shell.widgets("main")].find(widget => widget.content);
        jupyterapp.shell.activateById(notebook.id);
    }""")
    page.wait_for_function("() => jupyterapp.shell.currentWidget.content")


def is_beside(page: Page) -> bool:
    """Return whether the panel is at the right of the cells, as high as its tab."""
    dock, cells = page.locator(".promptkit-dock").bounding_box(), page.locator(".jp-Notebook").bounding_box()
    panel = page.locator(".promptkit-dock .promptkit-panel").bounding_box()
    if dock is None or cells is None or panel is None:
        return False
    return dock["x"] >= cells["x"] + cells["width"] and abs(panel["height"] - dock["height"]) < 2


def test_docks_answers_and_comes_back(lab: LabServer, page: Page, chat_server: ChatServer, tmp_path: Path) -> None:
    """It streams beside the cells, returns to its cell, docks again, and after a reload it is where it was."""
    notebook = opened(lab, page, chat_server, tmp_path / "store", "sales-review")
    assert is_beside(page)
    panel = Panel(page)
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

    use_cells(page)
    notebook.select(0)
    panel.button("Insert as a cell").first.click()
    use_cells(page)
    assert notebook.source(1).startswith("import pandas as pd\n\ndef clean")
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets[1].model.executionCount") is None

    page.get_by_role("button", name="Bring it back").click()
    assert page.locator(".jp-Notebook .promptkit-panel").count() == 1
    assert page.locator(".promptkit-dock").count() == 0
    use_cells(page)
    notebook.save()
    panel = reload(page, ".jp-Notebook")
    page.wait_for_timeout(1000)
    assert page.locator(".promptkit-dock").count() == 0
    panel.button("Dock").click()
    page.locator(".promptkit-dock .promptkit-panel").wait_for()
    reload(page, ".promptkit-dock").hears("How should I clean this table?")
    assert is_beside(page)


def test_one_tab_for_each_conversation(lab: LabServer, page: Page, chat_server: ChatServer, tmp_path: Path) -> None:
    """Running the cell again leaves one tab; closing it while an answer streams puts the panel back, and stores it."""
    notebook = opened(lab, page, chat_server, tmp_path / "store", ATTACKS["img onerror"])
    use_cells(page)
    notebook.run_cell(1)
    page.locator(".promptkit-dock .promptkit-panel").wait_for()
    page.wait_for_timeout(1000)
    assert page.locator(".promptkit-dock").count() == 1
    assert page.locator(".promptkit-panel").count() == 1
    assert page.evaluate("() => window.pwned") is None

    panel = Panel(page)
    chat_server.reply(Reply(text="one two three four five six", pause_s=0.3))
    panel.say("count")
    panel.log.get_by_text("one two").first.wait_for()
    page.locator(f"{TABS}:has-text('<img') .lm-TabBar-tabCloseIcon").click()
    page.locator(".jp-Notebook .promptkit-panel").wait_for()
    panel = Panel(page)
    panel.hears("one two three four five six")
    wait(panel.is_idle)

    panel.button("Dock").click()
    page.locator(".promptkit-dock .promptkit-panel").wait_for()
    use_cells(page)
    page.evaluate("() => jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()")
    Panel(page).status.get_by_text("The kernel of this panel has ended").wait_for()


def test_stays_in_the_cell_if_it_is_told_to(lab: LabServer, page: Page) -> None:
    """``%chat_panel --here`` shows it in the output, with a button that docks it."""
    setup = "%load_ext promptkit_nb\n%chat_setup --provider demo --store memory"
    notebook = lab.open_notebook(page, [setup, "%chat_panel --here"], name="here.ipynb", mode="lab")
    notebook.run_cell(0)
    notebook.run_cell(1)
    panel = Panel(page)
    panel.button("Dock").wait_for()
    assert page.locator(".promptkit-dock").count() == 0
    assert page.locator(".jp-Notebook .promptkit-panel").count() == 1
