"""Fixtures of the browser tests: one JupyterLab for all; a new browser for each, or one for all panels of a file."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from browser.canary import Canary
from browser.jupyter_lab import LabServer, chromium_page, close_all
from browser.panel import PLACES, PanelDesk
from programs import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from chat_server import ChatServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep browser tests in order when the others are shuffled."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.random_order(disabled=True))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A running JupyterLab."""
    require_program("chromium")
    with LabServer(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page in its own Chromium."""
    with chromium_page(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page in its own Chromium, for all tests of a file."""
    with chromium_page(tmp_path_factory.mktemp("shared") / "profile") as opened:
        yield opened


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> str:
    """Where panels are shown."""
    return str(request.param)


@pytest.fixture
def desk(
    lab: LabServer, shared_page: Page, chat_server: ChatServer, tmp_path: Path, *, place: str
) -> Iterator[PanelDesk]:
    """JupyterLab without open notebooks, to show panels in either place."""
    shared_page.set_viewport_size({"width": 1400, "height": 900})
    yield PanelDesk(lab, shared_page, chat_server, tmp_path / "store", place)
    close_all(shared_page)


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A running canary."""
    canary = Canary()
    thread = Thread(target=canary.server.serve_forever, daemon=True)
    thread.start()
    yield canary
    canary.server.shutdown()
    canary.server.server_close()
    thread.join()
