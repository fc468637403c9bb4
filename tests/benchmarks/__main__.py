"""Every benchmark in one table: ``python tests/benchmarks``; exits with 1 if a ratio is missed.

``python tests/benchmarks large`` fills a large store first, and runs only if it is named.

Ratios, not seconds: each divides our median by that of a reference measured in the same run, the two taking turns.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))  # for the servers and the browser of the tests

from ratio import Ratio, table_of

# Each module is imported when its turn comes: Python's garbage collector takes longer the more there is, and stops all
# threads meanwhile.
BENCHMARKS = {
    "import": "import_time",
    "first": "first_answer",
    "turn": "turn",
    "notebooks": "notebooks",
    "disk": "disk_store",
    "frames": "frames",
    "redis": "redis_store",
    "packs": "packs",
    "imports": "imports",
    "rows": "rows",
    "panel": "chat_panel",
    "browser": "panel_in_browser",
}

LARGE = {"large": 1.0, "large-tenth": 0.1}


def measured(name: str) -> list[Ratio]:
    """Run the benchmark of this name, and return its ratios."""
    if name in LARGE:
        return [*import_module("large_store").measure(LARGE[name])]
    return [*import_module(BENCHMARKS[name]).measure()]


def main(names: list[str]) -> int:
    """Run the benchmarks of these names, or all, and print their table."""
    unknown = set(names) - BENCHMARKS.keys() - LARGE.keys()
    if unknown:
        print(f"There is no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS | LARGE)}.")
        return 2
    ratios = [ratio for name in names or BENCHMARKS for ratio in measured(name)]
    print(table_of(ratios))
    return 0 if all(ratio.is_met for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
