"""Prints how far the memory of the process grows in a run over 100,000 rows, and the size of its results, in bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from promptkit_nb import ConversationManager, DemoProvider, DiskStore, ask_rows
from promptkit_nb.providers.base import Completion, TextDelta
from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.providers.base import ChatRequest, StreamEvent

ROWS, TEXTS = 100_000, 10_000


class LongAnswers(DemoProvider):
    """Answers with three hundred characters that depend on the question."""

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Yield the answer at once."""
        yield TextDelta(f"{request.messages[-1].content} " + "word " * 60)
        yield Completion(model="demo", finish_reason="stop", usage=Usage(10, 60))


def _peak_bytes() -> int:
    """Return the most memory that this process has had; ``getrusage`` would count that of its parent, too."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Warm up with a small run, then measure."""
    with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
        manager = ConversationManager(LongAnswers(), store)
        df = pd.DataFrame({"text": [f"text {at % TEXTS}" for at in range(ROWS)]})
        ask_rows(df, "Warm {{ text }}", into="a", limit=100, manager=manager)
        before = _peak_bytes()
        out = ask_rows(df, "{{ text }}", into="b", manager=manager)
        peak = _peak_bytes() - before
        results = out.drop(columns="text").memory_usage(deep=True, index=False).sum()
        print(peak, results)


if __name__ == "__main__":
    main()
