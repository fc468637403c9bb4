"""A tenth of each of the long runs that ``python tests/endurance`` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from endurance.runs import RUNS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", RUNS)
def test_a_tenth_of_a_long_run_finds_no_violation(name: str, tmp_path: Path) -> None:
    """Nothing is lost, counted twice, torn, out of order or deleted too early."""
    report = RUNS[name](tmp_path, 0.1)
    assert report.violations == []
    assert report.figures
