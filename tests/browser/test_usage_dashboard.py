"""The usage dashboard in JupyterLab, end to end: a real page, a real kernel, a store on disk."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from browser.attacks import ATTACKS, CANARY
from browser.jupyter_lab import reload_widgets
from promptkit_nb import ConversationState, DiskStore, Message, Turn, Usage
from storing import said

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from browser.jupyter_lab import LabNotebook, LabServer

pytestmark = pytest.mark.browser

CELLS = (
    "from promptkit_nb import DiskStore, usage_dashboard\nstore = DiskStore({store!r})",
    "usage_dashboard(store)",
)

# Everything in the dashboard is hovered over, focused and clicked, except what a user clicks on purpose.
TOUCH_EVERYTHING = """() => {
    for (const element of document.querySelectorAll('.promptkit-dashboard *')) {
        for (const kind of ['mouseover', 'mouseenter', 'focus', 'toggle', 'click']) {
            if (kind === 'click' && element.closest('button, a[href^="http"]')) continue;
            element.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true}));
        }
    }
}"""


class Dashboard:
    """The dashboard of the page, addressed by roles and names as assistive technology does."""

    def __init__(self, page: Page) -> None:
        """Wait until it is displayed."""
        self.page = page
        self.root = page.get_by_role("group", name="Usage dashboard")
        self.total = self.root.get_by_role("status")
        self.problem = self.root.get_by_role("alert")
        self.opened = self.root.get_by_role("region", name="Conversation")
        self.root.wait_for()

    def field(self, name: str) -> Locator:
        """Return a filter."""
        return self.root.get_by_label(name, exact=True)

    def rows(self, table: str) -> list[list[str]]:
        """Return the cells of a table."""
        rows = self.root.get_by_role("table", name=table).locator("tbody tr")
        return [row.locator("td").all_inner_texts() for row in rows.all()]

    def conversations(self) -> list[str]:
        """Return the conversations that match the filters."""
        return [row[0] for row in self.rows("Most expensive conversations")]

    def says(self, total: str) -> None:
        """Wait until this is the total and the dashboard is not busy."""
        self.total.get_by_text(total, exact=True).wait_for()
        self.page.wait_for_selector(".promptkit-dashboard[aria-busy='false']")

    def charts(self) -> dict[str, list[str]]:
        """Return the tooltips of each chart's bars, by the beginning of its title."""
        return {
            figure.locator("figcaption").inner_text().partition(":")[0]: [
                bar.get_attribute("title") or "" for bar in figure.locator("[title]").all()
            ]
            for figure in self.root.get_by_role("figure").all()
        }


def fill(directory: Path) -> None:
    """Store the conversations of two users: alice's cost more, bob's model has no known price."""
    with DiskStore(directory) as store:
        for day in range(10):
            when = datetime(2026, 3, 2, 9, tzinfo=UTC) + timedelta(days=day)
            usage = Usage(4000, 600, cached_tokens=2000, reasoning_tokens=200)
            fields = {"created_at": when, "usage": usage}
            cost = Decimal("0.0045") if day % 2 else Decimal("0.003")
            store.append("trip", said(f"Day {day}", model="o4-mini", cost=cost, **fields), user_id="alice")
            store.append("recipes", said(f"Meal {day}", model="gpt-4o", cost=cost / 3, **fields), user_id="alice")
            store.append("notes", said(f"Note {day}", model="mine", cost=None, **fields), user_id="bob")


def opened(lab: LabServer, page: Page, store: Path) -> tuple[LabNotebook, Dashboard]:
    """Return a notebook whose second cell shows the dashboard."""
    notebook = lab.open_notebook(page, [cell.format(store=str(store)) for cell in CELLS], name="usage.ipynb")
    notebook.run_all()
    return notebook, Dashboard(page)


def test_filters_narrow_and_conversations_open(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Everything is shown at first; each filter narrows all of it; a conversation is opened, read and closed."""
    fill(tmp_path)
    _, dashboard = opened(lab, page, tmp_path)
    dashboard.says("30 turns · 138,000 tokens · $0.0500 + 10 turns without a price")
    assert dashboard.conversations() == ["trip", "recipes", "notes"]
    assert [row[0] for row in dashboard.rows("Models")] == ["o4-mini", "gpt-4o", "mine"]
    assert [(row[0], row[-1]) for row in dashboard.rows("Users")] == [("alice", "$0.0500"), ("bob", "price unknown")]
    charts = dashboard.charts()
    assert charts["Cost"][:2] == ["2 Mar 2026 · o4-mini: $0.0030", "3 Mar 2026 · o4-mini: $0.0045"]
    assert charts["Tokens"][0] == "2 Mar 2026 · input: 6,000 tokens"
    assert charts["Most expensive conversations"] == ["trip: $0.0375", "recipes: $0.0125"]
    assert dashboard.root.locator("img").count() == 0

    dashboard.field("User").select_option("bob")
    dashboard.says("10 turns · 46,000 tokens · price unknown")
    assert dashboard.conversations() == ["notes"]
    dashboard.field("User").select_option("")
    dashboard.field("Model").select_option("gpt-4o")
    dashboard.says("10 turns · 46,000 tokens · $0.0125")
    dashboard.field("Model").select_option("")
    dashboard.field("Since").fill("2026-03-10")
    dashboard.field("Since").blur()
    dashboard.says("6 turns · 27,600 tokens · $0.0100 + 2 turns without a price")
    dashboard.field("Until").fill("2026-03-09")
    dashboard.field("Until").blur()
    dashboard.problem.get_by_text("is after until").wait_for()
    assert dashboard.conversations() == ["trip", "recipes", "notes"]
    dashboard.field("Since").fill("")
    dashboard.field("Since").blur()
    dashboard.field("Until").fill("")
    dashboard.field("Until").blur()
    dashboard.field("Ids that begin with").fill("tr")
    dashboard.field("Ids that begin with").press("Enter")
    dashboard.says("10 turns · 46,000 tokens · $0.0375")
    assert dashboard.problem.is_hidden()
    dashboard.field("Per").select_option("week")
    dashboard.field("Bars by").select_option("user")
    dashboard.says("10 turns · 46,000 tokens · $0.0375")

    dashboard.root.get_by_role("button", name="trip", exact=True).click()
    dashboard.opened.get_by_text("You said Day 9.").wait_for()
    assert dashboard.opened.get_by_text("Day 0", exact=True).is_visible()
    dashboard.opened.get_by_role("button", name="Close").click()
    dashboard.opened.wait_for(state="hidden")


def test_refresh_shows_new_turns(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Refresh reads the store again, and a reload of the page shows the same."""
    fill(tmp_path)
    notebook, dashboard = opened(lab, page, tmp_path)
    with DiskStore(tmp_path) as store:
        store.append("new one", said("Hi", cost=Decimal(1), model="gpt-4o"), user_id="carol")
    dashboard.root.get_by_role("button", name="Refresh").click()
    dashboard.says("31 turns · 138,010 tokens · $1.05 + 10 turns without a price")
    assert dashboard.conversations()[0] == "new one"
    dashboard.field("User").select_option("carol")
    dashboard.says("1 turn · 10 tokens · $1.00")
    dashboard.field("User").select_option("")
    dashboard.says("31 turns · 138,010 tokens · $1.05 + 10 turns without a price")
    notebook.save()
    reload_widgets(page, dashboard.root)
    Dashboard(page).says("31 turns · 138,010 tokens · $1.05 + 10 turns without a price")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_text_is_legible_in_both_themes(lab: LabServer, page: Page, tmp_path: Path, theme: str) -> None:
    """Text, that of the charts, too, has a contrast of at least 4.5:1 with its background."""
    fill(tmp_path)
    notebook, dashboard = opened(lab, page, tmp_path)
    dashboard.root.get_by_role("button", name="trip", exact=True).click()
    dashboard.opened.get_by_text("You said Day 9.").wait_for()
    notebook.screenshot(tmp_path / "page.png", theme=theme)
    contrasts = page.evaluate(CONTRASTS)
    assert {name: contrast for name, contrast in contrasts.items() if contrast < 4.5} == {}
    assert len(contrasts) == 11


# The contrast of texts with the background of the dashboard, as WCAG 2 defines it.
CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d');
    const rgb = color => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = color => rgb(color).map(part => part / 255)
        .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const root = document.querySelector('.promptkit-dashboard');
    let behind = root;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const ground = light(getComputedStyle(behind).backgroundColor);
    const contrast = color => {
        const [high, low] = [light(color), ground].sort((one, other) => other - one);
        return (high + 0.05) / (low + 0.05);
    };
    const found = {};
    for (const name of ['label span', 'dt', 'dd', 'figcaption', '.promptkit-tick span', '.promptkit-dates span',
                        '.promptkit-legend li', 'th', 'td', '.promptkit-open', '.promptkit-opened p']) {
        found[name] = contrast(getComputedStyle(root.querySelector(name)).color);
    }
    return found;
}"""


def test_saved_notebook_keeps_a_picture(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """It is hidden while the widget runs, and shown in an HTML export or without a kernel."""
    fill(tmp_path)
    notebook, dashboard = opened(lab, page, tmp_path)
    dashboard.field("User").select_option("bob")
    dashboard.says("10 turns · 46,000 tokens · price unknown")
    picture = page.locator(".jp-OutputArea .promptkit-usage img")
    assert picture.count() == 1
    assert picture.is_hidden()
    notebook.wait_until_idle()
    assert [sorted(output.data) for output in notebook.save().cells[1].outputs] == [
        ["application/vnd.jupyter.widget-view+json", "text/plain"],
        ["text/html", "text/plain"],
    ]
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level", "ERROR", str(notebook.path)]
    subprocess.run(command, check=True)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto(notebook.path.with_suffix(".html").as_uri(), wait_until="domcontentloaded")
    exported = page.locator(".promptkit-usage img")
    assert exported.is_visible()
    assert exported.get_attribute("alt") == (
        "Cost: $0.0000, and 10 turns without a price; Tokens: 46,000; Most expensive conversations"
    )
    assert exported.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1200


def test_attacks_in_the_dashboard(lab: LabServer, page: Page, tmp_path: Path) -> None:
    """Attacks as ids, users, models, titles and texts: no script runs, nothing is fetched; the mark works."""
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if CANARY in request.url else None)
    names = [
        " ".join(ATTACKS[name].split()) for name in ("img onerror", "script", "remote image", "href", "svg onload")
    ]
    with DiskStore(tmp_path) as store:
        for number, name in enumerate(names):
            texts = (Message("user", name), Message("assistant", "\n\n".join(ATTACKS.values())))
            turn = Turn(messages=texts, usage=Usage(8, 2), cost=Decimal(number + 1), model=name, provider=name)
            metadata = {"title": name, name: name}
            store.create(ConversationState(name, name, (turn,), system_prompt=name, metadata=metadata))
    notebook, dashboard = opened(lab, page, tmp_path)
    assert dashboard.conversations() == names[::-1]
    for name in names:
        dashboard.root.get_by_role("button", name=name, exact=True).click()
        dashboard.opened.locator("strong").get_by_text(name, exact=True).wait_for()
        page.evaluate(TOUCH_EVERYTHING)
    dashboard.field("Model").select_option(names[0])
    dashboard.says("1 turn · 10 tokens · $1.00")
    dashboard.field("Ids that begin with").fill(names[1])
    dashboard.field("Ids that begin with").press("Enter")
    dashboard.says("0 turns · 0 tokens · $0.00")
    notebook.command("kernelmenu:restart")
    page.evaluate(
        "() => document.querySelector('.promptkit-usage').closest('.jp-OutputArea-child').style.display = 'block'"
    )
    page.wait_for_timeout(1000)
    assert page.evaluate("() => window.pwned") is None
    assert foreign == []
    assert page.locator(".promptkit-dashboard :is(script, iframe, svg, mjx-container)").count() == 0
    page.evaluate("html => { document.querySelector('.promptkit-note').innerHTML = html; }", ATTACKS["img onerror"])
    page.wait_for_function("() => window.pwned")
