"""The cost of 2,000 turns in the browser relative to 20: opening the panel, scrolling, and streaming an answer."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.jupyter_lab import LabServer, chromium_page
from browser.panel import SETUP, Panel, wait
from chat_panel import conversation_of
from chat_server import ChatServer, Reply
from promptkit_nb import ConversationManager, DemoProvider, DiskStore
from ratio import Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook

ROUNDS = 7
STEPS = 100
FRAME_MS = 1000 / 60
LONG, SHORT = 2_000, 20

# The time until the newest turns are painted, in milliseconds.
OPEN = """async () => {
    const cell = jupyterapp.shell.currentWidget.content.activeCell;
    const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    cell.outputArea.model.clear();
    await painted();
    const start = performance.now();
    jupyterapp.commands.execute('notebook:run-cell');
    while (cell.node.querySelectorAll('.promptkit-turn:not(.promptkit-streaming)').length < 20) await painted();
    await painted();
    return performance.now() - start;
}"""


def measure() -> list[Ratio]:
    """Return the ratios; scrolling and streaming are measured in CPU time of the page's thread."""
    with TemporaryDirectory() as home, ChatServer() as chat, _notebook(Path(home), chat) as notebook:
        page = notebook.page
        notebook.run_cell(0)
        opened_ms: dict[int, list[float]] = {LONG: [], SHORT: []}
        streamed_ms: dict[int, float] = {}
        for _ in range(ROUNDS):
            for cell, turns in ((1, SHORT), (2, LONG)):
                notebook.select(cell)
                opened_ms[turns].append(page.evaluate(OPEN))
        for cell, turns in ((1, SHORT), (2, LONG)):
            page.evaluate("() => jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
            notebook.run_cell(cell)
            panel = Panel(page)
            panel.go_to_the_first_turn()
            streamed_ms[turns] = _worked_ms(page, lambda panel=panel: _stream(panel, chat))  # type: ignore[misc]  # bound
        panel.go_to_the_first_turn()
        page.evaluate("() => { document.querySelector('.promptkit-log').scrollTop = 1e5; }")
        step_ms = _worked_ms(page, lambda: panel.scroll_up(STEPS)) / STEPS
    return [
        Ratio("open a panel of 2,000 turns in a browser / of 20", median(opened_ms[LONG]), median(opened_ms[SHORT]), 3),
        Ratio("stream into 2,000 turns in a browser / into 20", streamed_ms[LONG], streamed_ms[SHORT], 1.5),
        Ratio("scroll 100 pixels among 2,000 turns / a frame, of 60 a second", step_ms, FRAME_MS, 1),
    ]


@contextmanager
def _notebook(home: Path, chat: ChatServer) -> Iterator[LabNotebook]:
    store = str(home / "store")
    with DiskStore(store) as disk:
        for turns in (SHORT, LONG):
            conversation_of(ConversationManager(DemoProvider(), disk), turns)
    cells = [SETUP.format(url=chat.url, store=store)]
    cells += [f"ChatPanel(manager.get_conversation('{turns}'))" for turns in (SHORT, LONG)]
    with LabServer(home) as lab, chromium_page(home / "profile") as page:
        yield lab.open_notebook(page, cells)


def _worked_ms(page: Page, work: Callable[[], object]) -> float:
    """Return the CPU time of the page's thread, which does not depend on other load."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    before_s = worked_s()
    work()
    return (worked_s() - before_s) * 1000


def _stream(panel: Panel, chat: ChatServer) -> None:
    chat.reply(Reply(text="word " * 60, pause_s=0.1))
    panel.say("tell me")
    wait(lambda: not panel.is_idle())
    wait(panel.is_idle)
