"""Opening a saved notebook of 100 answers in JupyterLab, relative to the same texts as its own Markdown outputs.

The notebooks are trusted, as those are that their reader has saved. Measured is the CPU time of the page's thread, from
the command that opens the notebook until all of its outputs are painted.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import nbformat
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_notebook, new_output

from browser.jupyter_lab import LabServer, chromium_page, close_all
from browser.realistic import ANSWER
from page_time import worked_ms
from promptkit_nb import Message, Turn, Usage
from promptkit_nb.rendering.responses import Response
from ratio import Ratio

if TYPE_CHECKING:
    from playwright.sync_api import Page

ANSWERS = 100
ROUNDS = 5
OURS, MARKDOWN = "ours.ipynb", "markdown.ipynb"

# Opens a notebook without a kernel; resolves when all outputs, whose number is given, have been painted.
OPEN = """async ([path, count]) => {
    const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    const kernelPreference = {shouldStart: false, canStart: false};
    await jupyterapp.commands.execute('docmanager:open', {path, kernelPreference});
    const rendered = '.jp-OutputArea-output > *';
    while (document.querySelectorAll(rendered).length < count) await painted();
    await painted();
}"""


def measure() -> list[Ratio]:
    """Return the ratio."""
    with TemporaryDirectory() as home, LabServer(Path(home)) as lab, chromium_page(Path(home) / "profile") as page:
        _write_notebooks(lab.directory, Path(home) / "data")
        page.goto(f"{lab.url}/lab")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget")
        taken_ms: dict[str, list[float]] = {OURS: [], MARKDOWN: []}
        for _ in range(ROUNDS):
            for name, times in taken_ms.items():
                times.append(_opened_ms(page, name))
    ours_ms, markdown_ms = (median(times[1:]) for times in taken_ms.values())  # the first one loads scripts
    return [Ratio(f"open {ANSWERS} answers in JupyterLab / as Markdown outputs", ours_ms, markdown_ms, 1)]


def _opened_ms(page: Page, name: str) -> float:
    try:
        return worked_ms(page, lambda: page.evaluate(OPEN, [name, ANSWERS]))
    finally:
        close_all(page)


def _write_notebooks(directory: Path, data: Path) -> None:
    """Write and sign both notebooks."""
    notary = NotebookNotary(data_dir=str(data))  # type: ignore[no-untyped-call]  # nbformat has no annotations
    texts = [f"Answer {number}.\n\n{ANSWER}" for number in range(ANSWERS)]
    for name, outputs in ((OURS, map(_ours, texts)), (MARKDOWN, ({"text/markdown": text} for text in texts))):
        notebook = new_notebook()  # type: ignore[no-untyped-call]  # same
        for data_by_type in outputs:
            output = new_output("display_data", data_by_type)  # type: ignore[no-untyped-call]  # same
            cell = new_code_cell("%%chat\nHow do I clean it?", execution_count=1, outputs=[output])  # type: ignore[no-untyped-call]  # same
            notebook.cells.append(cell)
        nbformat.write(notebook, directory / name)  # type: ignore[no-untyped-call]  # same
        notary.sign(notebook)  # type: ignore[no-untyped-call]  # same


def _ours(text: str) -> dict[str, str]:
    turn = Turn(
        messages=(Message("user", "How do I clean it?"), Message("assistant", text)),
        usage=Usage(1200, 640),
        cost=Decimal("0.0021"),
        model="gpt-4o-mini",
        latency_ms=5600.0,
        finish_reason="stop",
    )
    response = Response.of(turn, "sales-review")
    return {"text/plain": repr(response), "text/html": response._repr_html_()}
