"""The chat panel in other front ends for widgets: Notebook 7 and Voilà."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from browser.jupyter_lab import LabServer
from browser.panel import MAGIC, Panel

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


class NotebookServer(LabServer):
    """Notebook 7, which consists of JupyterLab's parts."""

    application = "notebook"


class VoilaServer(LabServer):
    """Voilà, which runs a notebook when its page is requested, and shows the outputs."""

    application = "voila"
    probe = "/"

    def options(self, port: str) -> list[str]:
        """Return the options that make Voilà listen on this port."""
        return [str(self.directory), "--Voila.ip=127.0.0.1", f"--port={port}"]


def write_notebook(server: LabServer) -> None:
    """Write a notebook with a panel, without outputs."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]  # nbformat has no annotations
    notebook.cells = [new_code_cell(source) for source in (MAGIC, "%chat_panel")]  # type: ignore[no-untyped-call]  # same
    nbformat.write(notebook, server.directory / "app.ipynb")  # type: ignore[no-untyped-call]  # same


def check_panel(page: Page) -> None:
    """Chat in the panel, which stays in its output, and check that the static transcript is hidden."""
    panel = Panel(page)
    panel.say("My name is Alice")
    panel.log.get_by_text("Nice to meet you, Alice!").wait_for()
    assert page.locator(".promptkit-transcript:visible").count() == 0
    assert panel.button("Dock").count() == 0
    assert page.locator(".promptkit-dock").count() == 0


def test_panel_in_notebook_7(tmp_path: Path, page: Page) -> None:
    """The panel opens and answers."""
    with NotebookServer(tmp_path) as server:
        write_notebook(server)
        page.goto(f"{server.url}/notebooks/app.ipynb")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel")
        page.evaluate("""async () => {
            await jupyterapp.shell.currentWidget.context.sessionContext.ready;
            jupyterapp.commands.execute('notebook:run-all-cells');
        }""")
        check_panel(page)


def test_panel_in_voila(tmp_path: Path, page: Page) -> None:
    """The panel works there, although Voilà runs notebooks as a batch run does."""
    with VoilaServer(tmp_path) as server:
        write_notebook(server)
        page.goto(f"{server.url}/voila/render/app.ipynb")
        check_panel(page)
