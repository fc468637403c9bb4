"""What ``import promptkit_nb`` and ``%load_ext promptkit_nb`` add to ``import IPython``, in one fresh process."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from ratio import Ratio

_SCRIPT = """
import time
started = time.perf_counter()
import IPython
imported = time.perf_counter()
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = time.perf_counter()
import promptkit_nb
shell.run_line_magic("load_ext", "promptkit_nb")
print(imported - started, time.perf_counter() - before)
"""


def measure(rounds: int = 5) -> list[Ratio]:
    """Return the ratio of the medians over fresh processes."""
    runs = [
        subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(rounds)
    ]
    ipython_ms = median(float(ipython) * 1000 for ipython, _ in runs)
    ours_ms = median(float(ours) * 1000 for _, ours in runs)
    return [Ratio("import promptkit_nb and %load_ext / import IPython", ours_ms, ipython_ms, 0.3)]
