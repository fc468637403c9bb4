"""The long runs: ``python tests/endurance``, or the names of some of them; exits with 1 if one found a violation.

``--share 0.1`` makes each as long as in CI, where ``tests/test_endurance.py`` runs them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from endurance.runs import RUNS  # noqa: E402 - it needs the path


def main() -> int:
    """Run them, one line each."""
    parser = argparse.ArgumentParser(prog="tests/endurance", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(RUNS))  # choices would refuse no name at all
    parser.add_argument("--share", type=float, default=1.0, help="how much of each run, 1 for all of it")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in RUNS]:
        parser.error(f"there is no run {unknown[0]!r}: choose from {', '.join(RUNS)}")
    violations = 0
    for name in options.names or RUNS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            report = RUNS[name](Path(directory), options.share)
        violations += len(report.violations)
        print(f"{report}  ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
