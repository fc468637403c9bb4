"""Fixtures of the browser tests: one JupyterLab for all, a new browser for each."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from browser.canary import Canary
from browser.jupyter_lab import LabServer, chromium_page
from programs import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page


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
