"""Model text in a trusted cell output: nothing runs, nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.attacks import ATTACKS, CANARY

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser.canary import Canary
    from browser.jupyter_lab import LabNotebook, LabServer

pytestmark = pytest.mark.browser

SAFE_CELL = """
from IPython.display import display
from promptkit_nb.rendering.markdown import to_html

for attack in {attacks!r}:
    display({{"text/html": to_html(attack), "text/plain": attack}}, raw=True)
"""
RAW_CELL = """
from IPython.display import HTML, Markdown, display

for show in (HTML, Markdown):
    display(show({attack!r}))
"""

# Everything in the answers is hovered over and clicked, except links to the web, which the reader may follow, and the
# panel's own buttons.
TOUCH_EVERYTHING = """() => {
    for (const element of document.querySelectorAll('.promptkit-markdown *')) {
        if (element.closest('.promptkit-code-tools')) continue;
        for (const kind of ['mouseover', 'mouseenter', 'focus', 'toggle', 'click']) {
            if (kind === 'click' && /^http:..(link|x)[.]invalid/.test(element.closest('a')?.href)) continue;
            element.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true}));
        }
    }
}"""
ELEMENTS = """() => [...document.querySelectorAll('.promptkit-markdown *')].map(
    element => [element.localName, [...element.attributes].map(attribute => attribute.name)])"""

HTML_TAGS = (
    "p br hr em strong s blockquote ul ol li code pre table thead tbody tr th td div span a img "
    "sub sup kbd mark u details summary"
)
MATH_TAGS = "math mrow mi mn mo mtext mstyle mfrac msup msub mspace"
ATTRIBUTES = (
    "class role tabindex aria-label aria-level style href rel target src alt start "
    "display displaystyle scriptlevel stretchy mathcolor"
)


def foreign_requests(page: Page, lab: LabServer) -> list[str]:
    """Return a list that receives every address the page requests outside its own server."""
    addresses: list[str] = []
    page.context.on(
        "request",
        lambda request: (
            None if request.url.startswith((lab.url, "data:", "blob:", "about:")) else addresses.append(request.url)
        ),
    )
    return addresses


def settle(notebook: LabNotebook) -> None:
    """Wait until images, frames and typesetting would have acted."""
    notebook.page.wait_for_load_state("networkidle")
    notebook.page.wait_for_timeout(1000)


def was_run(page: Page) -> bool:
    """Return whether the script of an attack ran in the page."""
    return bool(page.evaluate("() => 'pwned' in window"))


def test_no_attack_runs_or_fetches_anything(lab: LabServer, page: Page, canary: Canary) -> None:
    """Every attack is shown by a cell that the user ran; touching all of them sets no mark and sends no request."""
    addresses = foreign_requests(page, lab)
    attacks = [attack.replace(CANARY, canary.url) for attack in ATTACKS.values()]
    notebook = lab.open_notebook(page, [SAFE_CELL.format(attacks=attacks)], name="inert.ipynb")

    notebook.run_all()
    page.locator(".promptkit-markdown").nth(len(attacks) - 1).wait_for(state="attached")
    settle(notebook)
    page.evaluate(TOUCH_EVERYTHING)
    settle(notebook)

    assert not was_run(page)
    assert canary.requests == []
    assert addresses == []
    assert page.context.pages == [page]
    assert page.url == f"{lab.url}/doc/tree/inert.ipynb"
    assert page.locator(".jp-Dialog, mjx-container").count() == 0  # no command was run, no formula typeset
    elements = page.evaluate(ELEMENTS)
    assert {tag for tag, _ in elements} <= set(f"{HTML_TAGS} {MATH_TAGS}".split())
    assert {attribute for _, attributes in elements for attribute in attributes} <= set(ATTRIBUTES.split())


def test_the_same_attacks_shown_raw_run_and_fetch(lab: LabServer, page: Page, canary: Canary) -> None:
    """Mark and canary work: as plain HTML or Markdown the same texts run their script and fetch the image."""
    addresses = foreign_requests(page, lab)
    attacks = [ATTACKS[name].replace(CANARY, canary.url) for name in ("img onerror", "svg onload", "remote image")]
    notebook = lab.open_notebook(page, [RAW_CELL.format(attack=attack) for attack in attacks], name="raw.ipynb")

    for cell in (0, 1):
        notebook.run_cell(cell)
        settle(notebook)
        assert was_run(page)
        page.evaluate("() => { delete window.pwned; }")
    notebook.run_cell(2)
    settle(notebook)
    assert canary.requests == ["/markdown.png"]
    assert addresses == [f"{canary.url}/markdown.png"]
