"""Cells run in order, and tutorials whose program is missing are skipped; with ``PROMPTKIT_CI=1`` they fail."""

from __future__ import annotations

import os
import shutil

import pytest

NEEDED_PROGRAMS = {"06_redis.ipynb": "redis-server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep cells in order when tests are shuffled, and skip tutorials whose program is missing, with its name."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.random_order(disabled=True))
        program = NEEDED_PROGRAMS.get(item.path.name)
        if program and shutil.which(program) is None and os.environ.get("PROMPTKIT_CI") != "1":
            item.add_marker(pytest.mark.skip(reason=f"{program} is not on the PATH."))
