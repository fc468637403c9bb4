"""All surfaces with realistic content: no accessibility violation in either theme, nothing too wide for a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.realistic import CELLS, MODEL_LIST, SETUP, fill, replies

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser.jupyter_lab import LabServer
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

AXE_OPTIONS = {"resultTypes": ["violations"]}

# Outputs that are wider than their cell, and parts of the page that are wider than the page.
TOO_WIDE = """() => [...document.querySelectorAll('.jp-OutputArea-output'), document.documentElement]
    .filter(element => element.scrollWidth > element.clientWidth + 1)
    .map(element => `${element.scrollWidth} > ${element.clientWidth}: ${element.innerText.slice(0, 60)}`)"""


def violations(page: Page, selector: str) -> list[str]:
    """Return what axe finds below the elements, a line each."""
    found = Axe().run(page, context=selector, options=AXE_OPTIONS).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def test_surfaces_are_accessible(lab: LabServer, page: Page, chat_server: ChatServer) -> None:
    """Cells, exports, charts and dashboards, in JupyterLab's light and dark theme, and at 420 px."""
    chat_server.usual, chat_server.models = replies, MODEL_LIST
    fill(lab.directory / "surfaces")
    cells = [
        "%cd -q surfaces",
        SETUP.format(url=chat_server.url, store="store"),
        *CELLS.values(),
        "%chat_export a.html",
    ]
    notebook = lab.open_notebook(page, cells, name="surfaces.ipynb")
    for index in range(len(cells)):
        notebook.run_cell(index)
    assert page.locator(".jp-OutputArea-output").count() > len(CELLS)
    page.locator("[aria-busy='false'].promptkit-dashboard").last.wait_for()
    for summary in page.locator(".jp-OutputArea-output summary").all():
        summary.evaluate("summary => { summary.parentElement.open = true; }")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.command("apputils:change-theme", {"theme": theme})
        page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        assert violations(page, ".jp-OutputArea-output") == [], theme
    page.evaluate("() => { jupyterapp.shell.collapseLeft(); }")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(500)
    assert page.evaluate(TOO_WIDE) == []
    assert violations(page, ".jp-OutputArea-output") == [], "420 px"
    page.goto((lab.directory / "surfaces" / "a.html").as_uri())
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 420
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page, "main") == [], scheme
