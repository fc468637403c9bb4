"""Every benchmark in one table: ``python tests/benchmarks``; exits with 1 if a ratio is missed.

``python tests/benchmarks large`` fills a large store first, and runs only if it is named.

Ratios, not seconds: each divides our median by that of a reference measured in the same run, the two taking turns.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(1, str(Path(__file__).parents[1]))  # for the servers and the browser of the tests

import chat_panel
import disk_store
import first_answer
import frames
import import_time
import imports
import large_store
import notebooks
import packs
import panel_in_browser
import redis_store
import rows
import turn
from ratio import Ratio, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BENCHMARKS: dict[str, Callable[[], Iterable[Ratio]]] = {
    "import": import_time.measure,
    "first": first_answer.measure,
    "turn": turn.measure,
    "notebooks": notebooks.measure,
    "disk": disk_store.measure,
    "frames": frames.measure,
    "redis": redis_store.measure,
    "packs": packs.measure,
    "imports": imports.measure,
    "rows": rows.measure,
    "panel": chat_panel.measure,
    "browser": panel_in_browser.measure,
}

LARGE: dict[str, Callable[[], Iterable[Ratio]]] = {
    "large": large_store.measure,
    "large-tenth": partial(large_store.measure, 0.1),
}


def main(names: list[str]) -> int:
    """Run the benchmarks of these names, or all, and print their table."""
    unknown = set(names) - BENCHMARKS.keys() - LARGE.keys()
    if unknown:
        print(f"There is no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS | LARGE)}.")
        return 2
    ratios: list[Ratio] = [ratio for name in names or BENCHMARKS for ratio in (BENCHMARKS | LARGE)[name]()]
    print(table_of(ratios))
    return 0 if all(ratio.is_met for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
