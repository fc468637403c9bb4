"""Takes pictures of the surfaces in light, dark, and at 420 px: ``python tests/browser/surface_pictures.py FOLDER``.

The pictures are to look at; none of them is kept. ``test_surfaces.py`` tests what a program can tell about them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.jupyter_lab import LabServer, chromium_page
from browser.realistic import CELLS, MODEL_LIST, SETUP, fill, replies
from chat_server import ChatServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser.jupyter_lab import LabNotebook

LOOKS = (("light", "JupyterLab Light", 1300), ("dark", "JupyterLab Dark", 1300), ("420", "JupyterLab Light", 420))


def main() -> None:
    """Run a cell for each surface, and take the pictures."""
    pictures = Path(sys.argv[1])
    chosen = sys.argv[2:]
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as home, ChatServer() as chat:
        chat.usual, chat.models = replies, MODEL_LIST
        with LabServer(Path(home)) as lab, chromium_page(Path(home) / "profile") as page:
            fill(lab.directory)
            cells = [
                SETUP.format(url=chat.url, store="store"),
                *CELLS.values(),
                "%chat_export talk.html",
                "%chat_panel",
            ]
            notebook = lab.open_notebook(page, cells, name="sales.ipynb", mode="lab")
            for index in range(len(cells) - 1):
                notebook.run_cell(index)
            for look, theme, width in LOOKS:
                _use(notebook, theme, width)
                for index, name in enumerate(CELLS, 1):
                    if not chosen or name in chosen:
                        cell = page.locator(".jp-Notebook-cell").nth(index)
                        cell.scroll_into_view_if_needed()
                        cell.screenshot(path=pictures / f"{name} {look}.png")
            _dock(notebook, pictures, len(cells) - 1)
            _export(page, lab.directory / "talk.html", pictures)


def _use(notebook: LabNotebook, theme: str, width: int) -> None:
    page = notebook.page
    notebook.command("apputils:change-theme", {"theme": theme})
    page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
    page.evaluate("() => { jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight(); }")
    page.set_viewport_size({"width": width, "height": 1200})
    page.wait_for_timeout(1500)


def _dock(notebook: LabNotebook, pictures: Path, index: int) -> None:
    _use(notebook, "JupyterLab Light", 1300)
    notebook.run_cell(index)
    panel = notebook.page.locator(".promptkit-panel").last
    panel.wait_for()
    for look, theme, width in LOOKS:
        _use(notebook, theme, width if width > 1000 else 900)
        notebook.page.screenshot(path=pictures / f"panel {look}.png")


def _export(page: Page, path: Path, pictures: Path) -> None:
    for look, _, width in LOOKS:
        page.emulate_media(color_scheme="dark" if look == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 1200})
        page.goto(path.as_uri())
        page.screenshot(path=pictures / f"export {look}.png", full_page=True)


if __name__ == "__main__":
    main()
