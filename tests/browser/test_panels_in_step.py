"""Panels and cells of two kernels in one conversation: each shows the turns of the others, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.jupyter_lab import close_all
from browser.panel import PLACES, Panel, say_at_once, wait
from chat_server import Reply
from promptkit_nb import DiskStore, RedisStore
from storing import texts

if TYPE_CHECKING:
    from pathlib import Path

    from browser.panel import PanelDesk
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

SETUP = """
%load_ext promptkit_nb
%chat_setup --store {store} --base-url {url} --model gpt-4o-mini
%chat_use shared
"""


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path, *, place: str) -> str:
    """The store, as ``%chat_setup --store`` takes it: on disk in one place, in Redis in the other."""
    return str(tmp_path / "store") if place == "here" else str(request.getfixturevalue("redis_url"))


def test_two_kernels_stay_in_step(desk: PanelDesk, chat_server: ChatServer, store_url: str) -> None:
    """Two panels and a cell in one kernel, and a panel in another: no turn is lost or stored twice."""
    setup = SETUP.format(store=store_url, url=chat_server.url)
    cells = [setup, "%chat_panel --here", desk.magic, "%%chat\nfrom a cell"]
    notebook = desk.notebook(cells, "one.ipynb")
    for cell in range(3):
        notebook.run_cell(cell)
    other_page = desk.page.context.new_page()
    other_notebook = desk.lab.open_notebook(other_page, [setup, desk.magic], "other.ipynb", mode="tab")
    for cell in range(2):
        other_notebook.run_cell(cell)
    second = desk.panel() if desk.is_docked else desk.panel(1)
    one, second, other = panels = [Panel(desk.page, within=PLACES["here"]), second, Panel(other_page)]

    one.say("from one")
    for panel in panels:
        panel.hears("You said: from one")
    other.say("from the other kernel")
    for panel in panels:
        panel.hears("You said: from the other kernel")
    notebook.run_cell(3)
    for panel in panels:
        panel.hears("You said: from a cell")

    answers = [f"answer {number}" for number in range(3)]
    chat_server.reply(*(Reply(text=answer, delay_s=1) for answer in answers))
    say_at_once(panels, "all at once")
    for panel in panels:
        for answer in answers:
            panel.hears(answer)
        wait(panel.is_idle)

    expected = ["from one", "from the other kernel", "from a cell", *["all at once"] * 3]
    with RedisStore(store_url) if store_url.startswith("redis:") else DiskStore(store_url) as store:
        assert texts(store.get("shared").turns) == expected
    for panel in panels:
        wait(lambda panel=panel: panel.questions() == expected)  # type: ignore[misc]  # bound to each panel
    assert second.root.get_by_text("6 turns").count() == 1
    close_all(other_page)
    other_page.close()
