"""A chat panel as one uses it in JupyterLab: titles, models, search, versions, errors, and the keys in small boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.panel import Panel, focused_name, wait
from chat_server import Reply, error_reply

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabServer
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

SETUP = """
import os
os.environ.update(OPENAI_BASE_URL={url!r}, OPENAI_API_KEY="k")
%load_ext promptkit_nb
%chat_setup --model gpt-4o-mini --store {store!r}
"""
TAB = "#jp-main-dock-panel .lm-TabBar-tab:not(:has-text('.ipynb')) .lm-TabBar-tabLabel"
CODE = "Use this:\n\n```python\nprint(1)\n```\n"


def model_names(panel: Panel) -> list[str]:
    """Return the models that the menu offers."""
    return panel.root.get_by_role("combobox", name="Model").locator("option").all_inner_texts()


def chosen_title(panel: Panel) -> str:
    """Return the title at the top of the panel."""
    title: str = panel.chooser.evaluate("select => select.selectedOptions[0].text")
    return title


def test_panel_in_use(lab: LabServer, page: Page, chat_server: ChatServer, tmp_path: Path) -> None:
    """Titles follow the first question and a rename, and the menu of models is the server's; see the checks below."""
    page.set_viewport_size({"width": 1400, "height": 900})
    chat_server.models = [{"id": "gpt-4o"}, {"id": "gpt-4o-mini"}]
    setup = SETUP.format(url=chat_server.url, store=str(tmp_path / "store"))
    notebook = lab.open_notebook(page, [setup, "%chat_new", "%chat_panel", ""], name="in_use.ipynb", mode="lab")
    for cell in range(3):
        notebook.run_cell(cell)
    notebook.select(3)
    page.locator(".promptkit-dock .promptkit-panel").wait_for()
    panel, tab = Panel(page), page.locator(TAB)

    wait(lambda: chosen_title(panel) == "New conversation")
    assert tab.inner_text() == "New conversation"
    assert panel.chooser.get_attribute("title") == tab.locator("xpath=..").get_attribute("title")
    panel.root.get_by_text("0 turns").wait_for()
    assert panel.root.locator(".promptkit-context").inner_text() == ""

    assert model_names(panel) == ["gpt-4o-mini"]
    panel.root.get_by_role("combobox", name="Model").hover()
    wait(lambda: model_names(panel) == ["gpt-4o-mini", "gpt-4o"])
    chat_server.reply(Reply(text=CODE), Reply(text="second"), Reply(text="edited"), error_reply(400, "not today"))
    panel.say("What is a good churn threshold?")
    panel.hears("Use this:")
    wait(panel.is_idle)
    wait(lambda: tab.inner_text() == chosen_title(panel) == "What is a good churn threshold?")
    panel.button("Rename").click()
    page.keyboard.type("Churn")
    page.keyboard.press("Enter")
    wait(lambda: tab.inner_text() == chosen_title(panel) == "Churn")
    assert_only_the_box_has_focus(panel)

    check_keys_in_small_boxes(panel)
    check_code_fills_an_empty_cell(panel)
    check_versions(panel)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.screenshot(tmp_path / f"in use {theme}.png", theme=theme)
        found = Axe().run(page, context=".promptkit-dock").response["violations"]
        assert [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]] == [], theme
    check_error_goes_with_its_message(panel)


def assert_only_the_box_has_focus(panel: Panel) -> None:
    """The message box has the focus, and no key reached it."""
    assert (focused_name(panel.page), panel.box.input_value()) == ("Message", "")


def check_keys_in_small_boxes(panel: Panel) -> None:
    """Enter and Esc close a small box, and do nothing else; the search finds what was said."""
    keyboard = panel.page.keyboard
    for name in ("Rename", "Delete"):
        panel.button(name).click()
        keyboard.press("Escape")
        assert panel.button("Cancel").count() == 0
        assert_only_the_box_has_focus(panel)
    for key in ("Enter", "Space"):
        panel.button("Rename").focus()
        keyboard.press(key)
        panel.button("Cancel").focus()
        keyboard.press(key)
        assert_only_the_box_has_focus(panel)
    panel.button("Search").click()
    keyboard.type("good threshold")
    panel.status.get_by_text("1 conversation found: choose one").wait_for()
    keyboard.press("Escape")
    assert panel.root.get_by_role("searchbox").count() == 0
    assert_only_the_box_has_focus(panel)
    wait(lambda: panel.status.inner_text() == "")


def check_code_fills_an_empty_cell(panel: Panel) -> None:
    """The active one if it is empty, else a new one; nothing runs."""
    for cells in (["print(1)"], ["print(1)", "print(1)"]):
        panel.button("Insert as a cell").click()
        assert [source for source, _ in notebook_cells(panel.page)[3:]] == cells
    assert [count for _, count in notebook_cells(panel.page)[3:]] == [None, None]


def check_versions(panel: Panel) -> None:
    """Retry adds a version, an edit leaves a branch; versions are switched with the keyboard, too."""
    panel.button("Retry").click()
    panel.hears("second")
    wait(panel.is_idle)
    versions = panel.root.get_by_role("group", name="Versions")
    versions.get_by_text("2/2").wait_for()
    panel.button("Previous version").focus()
    panel.page.keyboard.press("Enter")
    versions.get_by_text("1/2").wait_for()
    panel.hears("Use this:")
    assert (focused_name(panel.page), panel.box.input_value()) == ("Next version", "")
    panel.button("Edit").click()
    panel.say("What is churn?")
    panel.hears("edited")
    wait(panel.is_idle)
    panel.root.get_by_text("1 branch", exact=True).wait_for()
    panel.button("Edit answer").click()
    panel.say("mine")
    versions.get_by_text("2/2").wait_for()


def check_error_goes_with_its_message(panel: Panel) -> None:
    """It stays while the message is corrected."""
    panel.say("Why?")
    panel.error.get_by_text("not today").wait_for()
    panel.box.press_sequentially("?")
    assert panel.error.is_visible()
    panel.box.fill("")
    assert not panel.error.is_visible()


def notebook_cells(page: Page) -> list[list[object]]:
    """Return source and execution count of the notebook's cells."""
    found: list[list[object]] = page.evaluate("""() => [...jupyterapp.shell.widgets("main")]
        .find(({ content }) => content).content.widgets
        .map(({ model }) => [model.sharedModel.getSource(), model.executionCount])""")
    return found
