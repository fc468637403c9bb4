"""Benchmarks that are quick with little data still run; their ratios mean nothing here."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RUN = """
import sys
sys.path[:0] = sys.argv[1:3]
import {module}
for name, value in {constants}.items():
    assert hasattr({module}, name), name
    setattr({module}, name, value)
ratios = [*{module}.measure({arguments})]
assert ratios and all(ratio.ours_ms >= 0 and ratio.reference_ms > 0 for ratio in ratios)
"""
SMALL = {
    "import_time": {},
    "turn": {"TURNS": 10, "ROUNDS": 1},
    "redis_store": {"ROUNDS": 2},
    "packs": {"PROMPTS": 4, "ROUNDS": 1},
    "chat_panel": {"ROUNDS": 1},
    "large_store": {},
}
ARGUMENTS = {"import_time": "rounds=1", "large_store": "share=0.001"}


@pytest.mark.parametrize("module", SMALL)
def test_benchmark_runs(module: str) -> None:
    """It ends without an error, and has ratios."""
    script = RUN.format(module=module, constants=SMALL[module], arguments=ARGUMENTS.get(module, ""))
    command = [sys.executable, "-c", script, str(TESTS / "benchmarks"), str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_name_is_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python tests/benchmarks NAME`` finds its module."""
    monkeypatch.syspath_prepend(TESTS / "benchmarks")
    names = runpy.run_path(str(TESTS / "benchmarks" / "__main__.py"))["BENCHMARKS"]
    assert [name for name in names.values() if not (TESTS / "benchmarks" / f"{name}.py").is_file()] == []
