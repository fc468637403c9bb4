"""A whole ``%%chat`` in a store with 10,000 conversations of notebooks, relative to one in an empty store.

A front end sends the cells of one saved notebook to two kernels in turns, each with a store of its own. Every message
is also looked for among the answers to the other notebooks; none of them has it. The first cell of a kernel, which
finds the notebook's conversation, is not measured.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from front_end import FrontEnd
from promptkit_nb import ConversationState, DiskStore, Message, Turn, Usage
from promptkit_nb.state import NotebookNote
from ratio import Ratio, medians_ms
from server import chat_server_url

if TYPE_CHECKING:
    from collections.abc import Callable

NOTEBOOKS = 10_000
TURNS = 3
CELLS = 80


def measure() -> list[Ratio]:
    """Return the ratio of the cells after the first."""
    with chat_server_url() as url:
        return [_measured(url)]


def _measured(url: str) -> Ratio:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        full, empty = (Path(directory, name) for name in ("full", "empty"))
        with DiskStore(full) as store:
            for number in range(NOTEBOOKS):
                store.create(_of_notebook(number))
        path = Path(directory, "measured.ipynb")
        full_ms, empty_ms = medians_ms(CELLS, *(_next_cell(stack, path, home, url) for home in (full, empty)))
    return Ratio(f"%%chat among {NOTEBOOKS:,} notebooks / alone", full_ms, empty_ms, 1.1)


def _of_notebook(number: int) -> ConversationState:
    turns = tuple(
        Turn(
            messages=(Message("user", f"Question {turn}?"), Message("assistant", f"Answer {turn}.")),
            usage=Usage(100, 50),
            model="gpt-4o-mini",
            provider="openai",
            finish_reason="stop",
            replay_key=f"key of {number}, {turn}",
            cell_id=f"{number:08x}",
        )
        for turn in range(TURNS)
    )
    note = NotebookNote(f"/work/notebook{number}.ipynb", "here", f"kernel-{number:08x}.json")
    return ConversationState(f"nb:notebook{number}:{number:08x}", turns=turns, notebook=note)


def _next_cell(stack: ExitStack, path: Path, home: Path, url: str) -> Callable[[], object]:
    """Return a function that runs the next cell in a kernel with this store, which has run the first one."""
    notebook = stack.enter_context(
        FrontEnd(
            path,
            [f"%%chat\nQuestion {number} of this notebook?" for number in range(CELLS + 1)],
            PROMPTKIT_HOME=str(home),
            PROMPTKIT_MODEL="gpt-4o-mini",
            OPENAI_API_KEY="key",
            OPENAI_BASE_URL=url,
        ).save()
    )
    numbers = iter(range(CELLS + 1))

    def run() -> None:
        notebook.run(next(numbers))

    run()
    return run
