"""The chat panel on a page: how tests open it, read it and use it.

::

    def test_answers(desk: PanelDesk) -> None:  # in the output of its cell, and docked beside the notebook
        notebook, panel = desk.opened()
        panel.say("Hello")
        panel.hears("You said: Hello")
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from browser.jupyter_lab import WAIT_TIMEOUT_S, reload_widgets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from browser.jupyter_lab import LabNotebook, LabServer
    from chat_server import ChatServer

PLACES = {"here": ".jp-Notebook", "docked": ".promptkit-dock"}
"""Where a panel can be in JupyterLab: in the output of its cell, or in a tab beside the notebook."""

SETUP = """
from promptkit_nb import ChatPanel, ConversationManager, DiskStore, OpenAIProvider

manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="k", base_url={url!r}), DiskStore({store!r}))
conv = manager.open_conversation(conversation_id="panel-chat")
"""
MAGIC = """
%load_ext promptkit_nb
%chat_setup --provider demo --store memory
"""
UNTIL_GO = """
import pathlib, time
while not pathlib.Path("go").exists(): time.sleep(0.05)
"""
"""A cell that runs until ``PanelDesk.go()``."""

# Scrolls up by 100 pixels, this many times; returns the distances by which visible turns moved if not by 100 pixels.
SCROLL_UP = """async steps => {
    const log = document.querySelector('.promptkit-log'), box = log.getBoundingClientRect();
    const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    const jumps = [];
    for (let step = 0; step < steps && log.scrollTop > 200; step++) {
        const seen = document.elementFromPoint(box.left + 40, box.top + box.height / 2).closest('.promptkit-turn');
        const before = seen?.getBoundingClientRect().top;
        log.scrollTop -= 100;
        await painted();
        const moved = seen?.getBoundingClientRect().top - before;
        if (Math.abs(moved - 100) > 1) jumps.push(moved);
    }
    return jumps;
}"""
GO_TO_THE_FIRST_TURN = """async () => {
    const log = document.querySelector('.promptkit-log'), earlier = document.querySelector('.promptkit-earlier');
    while (!earlier.hidden || log.scrollTop) {
        log.scrollTop = 0;
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    }
}"""


class Panel:
    """A panel of the page, by default the first, addressed by roles and names as assistive technology does.

    ``within`` selects the elements to look in.
    """

    def __init__(self, page: Page, index: int = 0, within: str = "") -> None:
        """Wait until it is displayed."""
        self.page = page
        self.root = page.locator(f"{within} .promptkit-panel").nth(index)
        self.log = self.root.get_by_role("log", name="Conversation")
        self.box = self.root.get_by_role("textbox", name="Message")
        self.status = self.root.get_by_role("status")
        self.error = self.root.get_by_role("alert")
        self.chooser = self.root.get_by_role("combobox", name="Conversations")
        self.box.wait_for()

    def button(self, name: str) -> Locator:
        """Return a button."""
        return self.root.get_by_role("button", name=name, exact=True)

    def say(self, text: str) -> None:
        """Type a message and, once the answer before it is complete, press Enter."""
        self.box.fill(text)
        wait(self.is_idle)
        self.box.press("Enter")

    def hears(self, text: str) -> None:
        """Wait until this text is in the conversation."""
        self.log.get_by_text(text, exact=True).last.wait_for()

    def scroll_up(self, steps: int) -> list[float]:
        """Scroll up by 100 pixels, this many times; return by how much visible turns moved if not by 100 pixels."""
        jumps: list[float] = self.page.evaluate(SCROLL_UP, steps)
        return jumps

    def go_to_the_first_turn(self) -> None:
        """Scroll up to the first turn."""
        self.page.evaluate(GO_TO_THE_FIRST_TURN)

    def questions(self) -> list[str]:
        """Return the questions that are in the page."""
        return self.log.locator(".promptkit-user .promptkit-text").all_inner_texts()

    def is_idle(self) -> bool:
        """Return whether no answer is streaming."""
        return self.button("Stop").count() == 0


def wait(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def say_at_once(panels: Sequence[Panel], text: str) -> None:
    """Type a message in each panel, then press Enter in each, whatever is streaming."""
    for panel in panels:
        panel.box.fill(text)
    for panel in panels:
        panel.box.press("Enter")


def reload(page: Page, place: str = "") -> Panel:
    """Reload the page, and return the panel once it is back, within an element if ``place`` selects one."""
    reload_widgets(page, page.locator(f"{place} .promptkit-panel"))
    return Panel(page, within=place)


def focused_name(page: Page) -> str:
    """Return the name of the focused element."""
    name: str = page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.textContent")
    return name


def opened(lab: LabServer, page: Page, chat: ChatServer, store: Path, *cells: str) -> tuple[LabNotebook, Panel]:
    """Return a notebook whose second cell shows a panel; ``cells`` come after it."""
    notebook = lab.open_notebook(page, [SETUP.format(url=chat.url, store=str(store)), "ChatPanel(conv)", *cells])
    notebook.run_cell(0)
    notebook.run_cell(1)
    return notebook, Panel(page)


class PanelDesk:
    """JupyterLab with tabs, and the place where it shows panels: ``"here"`` or ``"docked"``, as in ``PLACES``.

    ``store`` is the directory of the conversations.
    """

    def __init__(self, lab: LabServer, page: Page, chat: ChatServer, store: Path, place: str) -> None:
        """Use JupyterLab in this page."""
        self.lab = lab
        self.page = page
        self.chat = chat
        self.store = store
        self.place = place
        self._go = lab.directory / "go"
        self._go.unlink(missing_ok=True)

    def opened(self, *cells: str, setup: str = "", has_subshells: bool = True) -> tuple[LabNotebook, Panel]:
        """Return a notebook whose second cell shows a panel; ``cells`` come after it, ``setup`` is run before it.

        Without subshells, the kernel reads the page's messages between cells only.
        """
        notebook = self.notebook([SETUP.format(url=self.chat.url, store=str(self.store)) + setup, self.cell(), *cells])
        if not has_subshells:
            notebook.in_page("notebook.context.sessionContext.session.kernel.commsOverSubshells = 'disabled'")
        notebook.run_cell(0)
        notebook.run_cell(1)
        return notebook, self.panel()

    def go(self) -> None:
        """Let the cell that waits for it end."""
        self._go.touch()

    def notebook(self, cells: Sequence[str], name: str = "test.ipynb") -> LabNotebook:
        """Return a notebook in a tab of its own."""
        return self.lab.open_notebook(self.page, cells, name, mode="tab")

    def cell(self, conversation: str = "conv") -> str:
        """Return the source of a cell that shows a panel."""
        return f"ChatPanel({conversation}, docked={self.is_docked})"

    @property
    def is_docked(self) -> bool:
        """Whether panels are docked."""
        return self.place == "docked"

    @property
    def magic(self) -> str:
        """The line that shows the notebook's panel."""
        return "%chat_panel" if self.is_docked else "%chat_panel --here"

    def panel(self, index: int = 0) -> Panel:
        """Return a panel, which must be where panels are shown."""
        return Panel(self.page, index, PLACES[self.place])

    def reload(self) -> Panel:
        """Reload the page, and return the panel once it is back in its place."""
        return reload(self.page, PLACES[self.place])
