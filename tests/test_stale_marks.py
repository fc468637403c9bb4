"""Stale answers are marked in the outputs of their cells, in a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_server import Reply
from day_in_cells import Day, day
from promptkit_nb.notebook.display import STALE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import CellResult

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file, whose server answers each message with an echo."""
    with day(tmp_path_factory.mktemp("stale")) as started:
        started.server.usual = lambda request: Reply(text=f"said {request.body['messages'][-1]['content']}")
        yield started


class Page:
    """What a front end shows: the outputs by their display id, as updated since."""

    def __init__(self, cells: Day) -> None:
        """Show nothing."""
        self.cells = cells
        self.outputs: dict[str, dict[str, str]] = {}

    def run(self, cell: str, cell_id: str | None = None) -> CellResult:
        """Run a cell, and apply what it shows and updates."""
        ran = self.cells.run(cell, cell_id=cell_id)
        assert ran.status == "ok", ran.traceback
        for kind in ("display_data", "update_display_data"):
            for content in ran.contents(kind):
                self.outputs[content["transient"]["display_id"]] = content["data"]
        return ran

    def stale(self) -> list[str]:
        """Return the first lines of outputs that are marked, in text and in HTML."""
        marked = [data for data in self.outputs.values() if STALE in data["text/plain"]]
        assert marked == [data for data in self.outputs.values() if STALE in data["text/html"]]
        return [data["text/plain"].splitlines()[0] for data in marked]


@pytest.fixture
def page(shared: Day) -> Page:
    """A page with three answered cells."""
    shared.begin()
    page = Page(shared)
    for name in "abc":
        page.run(f"%%chat\n{name}", name)
    assert page.stale() == []
    return page


def test_later_answers_are_marked_when_an_earlier_one_changes(page: Page) -> None:
    """Each in its own output; the changed one is not."""
    page.run("%%chat\nchanged", "a")
    assert page.stale() == ["said b", "said c"]


def test_the_mark_goes_when_the_turn_is_refreshed(page: Page) -> None:
    """The cell's new output has none; the next one keeps its own until it is run."""
    page.run("%%chat\nchanged", "a")
    page.outputs = {key: data for key, data in page.outputs.items() if "said b" not in data["text/plain"]}
    page.run("%%chat\nb", "b")
    assert page.stale() == ["said c"]
    page.outputs = {key: data for key, data in page.outputs.items() if "said c" not in data["text/plain"]}
    page.run("%%chat\nc", "c")
    assert page.stale() == []


def test_the_mark_goes_when_the_context_is_restored(page: Page) -> None:
    """The earlier text brings the context back, and nothing is asked for it."""
    page.run("%%chat\nchanged", "a")
    page.run("%%chat\na", "a")
    assert page.stale() == []
    assert len(page.cells.asked) == 4


def test_magics_mark_and_unmark(page: Page) -> None:
    """Editing an answer makes later ones stale, and restoring the model's own does not."""
    page.run("%%chat_edit 1\nmine")
    assert page.stale() == ["said b", "said c"]
    page.run("%chat_restore gpt-4o-mini")
    assert page.stale() == []
    page.run("%chat_restore gpt-4o-mini")  # does nothing, and does not bring the edited answer back
    assert page.stale() == []


def test_a_batch_run_changes_no_output(shared: Day) -> None:
    """Its outputs are compared with saved ones."""
    shared.begin()
    for text, cell_id in (("a", "a"), ("b", "b"), ("changed", "a")):
        ran = shared.run(f"%%chat\n{text}", cell_id=cell_id, allow_stdin=False)
        assert len(ran.contents("display_data")) == 1
        assert ran.contents("update_display_data") == []
    assert "stale" in shared.run("%chat_tree").contents("execute_result")[0]["data"]["text/plain"]
