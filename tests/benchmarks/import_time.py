"""The time that ``import promptkit_nb`` and ``%load_ext promptkit_nb`` add to ``import IPython``, in a new process."""

from __future__ import annotations

from statistics import median

from fresh_process import fresh_process
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


def measure(rounds: int = 9) -> list[Ratio]:
    """Return the ratio of the medians over new processes, without a first one, which compiles."""
    runs = [_run() for _ in range(rounds + 1)][1:]
    ipython_ms, ours_ms = (median(times) for times in zip(*runs, strict=True))
    return [Ratio("import promptkit_nb and %load_ext / import IPython", ours_ms, ipython_ms, 0.3)]


def _run() -> list[float]:
    """Return the milliseconds of IPython, and those that we add."""
    with fresh_process(_SCRIPT) as lines:
        *_, figures = lines  # after what ``%load_ext`` says
        return [float(seconds) * 1000 for seconds in figures.split()]
