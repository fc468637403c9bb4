"""Answers in cells: guests in the notebook, readable in both themes, in a narrow window, and if it is not trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.realistic import ANSWER

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook, LabServer

pytestmark = pytest.mark.browser

SHOW = f"""from dataclasses import replace
from promptkit_nb import ConversationManager, DemoProvider

answer = ConversationManager(DemoProvider()).new_conversation(conversation_id="sales").send("Clean this")
replace(answer, content={ANSWER!r})"""

HEADINGS = "() => [...document.querySelectorAll('.jp-TableOfContents-content .jp-tocItem')].map(item => item.innerText)"
RIGHT = "element => element.getBoundingClientRect().right"
BOX = """selector => {
    const element = document.querySelector(`.jp-OutputArea-output:has(.pk-code) ${selector}`);
    const style = getComputedStyle(element);
    return {font: style.fontSize, width: element.offsetWidth, lines: element.offsetHeight, scroll: element.scrollWidth,
            right: element.getBoundingClientRect().right};
}"""


def violations(page: Page, selector: str) -> list[str]:
    """Return what axe finds below an element, a line each."""
    found = Axe().run(page, context=selector).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def answer_cell(lab: LabServer, page: Page, name: str) -> LabNotebook:
    """Open a notebook with a heading of its own, and show the answer in its second cell."""
    notebook = lab.open_notebook(page, ["1", SHOW], name=name)
    notebook.run_all()
    page.locator(".pk-h1").wait_for()
    return notebook


def test_answer_has_no_accessibility_violation(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Axe finds nothing in either theme, folded text included."""
    notebook = answer_cell(lab, page, "themes.ipynb")
    page.set_viewport_size({"width": 1400, "height": 1500})
    page.locator(".promptkit-markdown summary").click()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.screenshot(tmp_path / f"answer {theme}.png", theme=theme)
        assert violations(page, ".jp-OutputArea-output") == []


def test_headings_of_answers_are_not_in_the_table_of_contents(lab: LabServer, page: Page) -> None:
    """It has the user's headings only."""
    notebook = answer_cell(lab, page, "contents.ipynb")
    page.evaluate(
        """() => {
            const notebook = jupyterapp.shell.currentWidget;
            notebook.model.sharedModel.insertCell(0, {cell_type: "markdown", source: "# Sales\\n## Cleaning"});
        }"""
    )
    notebook.select(0)
    notebook.command("notebook:run-cell")
    notebook.command("toc:show-panel")
    page.locator(".jp-TableOfContents-content .jp-tocItem").nth(1).wait_for()
    page.wait_for_timeout(500)
    assert [item.split("\n")[0].strip() for item in page.evaluate(HEADINGS)] == ["Sales", "Cleaning"]


def test_sizes_and_widths(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Headings have 18 to 14 px, text 14, code 13; text is at most 728 px wide; code ends where the editor ends.

    At 420 px the lines of code are as many as in its source: they scroll, and the answer does not.
    """
    answer_cell(lab, page, "sizes.ipynb")
    page.set_viewport_size({"width": 1600, "height": 1200})
    sizes = {name: page.evaluate(BOX, name)["font"] for name in (".pk-h1", ".pk-h2", ".pk-h3", "p", "pre", "pre code")}
    assert sizes == {
        ".pk-h1": "18px", ".pk-h2": "16px", ".pk-h3": "14px", "p": "14px", "pre": "13px", "pre code": "13px",
    }  # fmt: skip
    assert page.evaluate(BOX, "p")["width"] <= 728
    editor_right = page.locator(".jp-CodeCell .jp-InputArea-editor").last.evaluate(RIGHT)
    assert abs(page.evaluate(BOX, ".pk-code")["right"] - editor_right) <= 2

    page.evaluate("() => { jupyterapp.shell.collapseLeft(); }")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(500)
    code = page.evaluate(BOX, "pre")
    assert code["scroll"] > code["width"] > 200
    assert code["lines"] < 11 * 13 * 1.4 + 40
    box = page.evaluate(BOX, ".promptkit-markdown")
    assert box["scroll"] <= box["width"]
    page.screenshot(path=tmp_path / "answer 420.png")


def test_answer_in_a_notebook_that_is_not_trusted(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Without style and MathML it keeps its order of headings, its code its lines, and its formulas their source."""
    notebook = answer_cell(lab, page, "mine.ipynb")
    saved = notebook.save()
    saved.cells[1].source = "# Somebody else's notebook"
    nbformat.write(saved, lab.directory / "untrusted.ipynb")  # type: ignore[no-untyped-call]  # nbformat has no annotations
    page.set_viewport_size({"width": 1400, "height": 1500})
    lab.reopen_notebook(page, "untrusted.ipynb")
    shown = page.locator(".promptkit-markdown")
    shown.wait_for()
    assert shown.locator("math").count() == 0
    assert r"is s_r = \frac{x_r}{\sum_i x_i}, and" in shown.inner_text()
    assert page.evaluate(BOX, ".pk-h1")["font"] == "18px"
    code = page.evaluate(BOX, "pre")
    assert code["lines"] < 11 * 16 * 1.5 + 40
    page.screenshot(path=tmp_path / "untrusted.png")
