"""The Redis tutorial is skipped where there is no redis-server; with ``PROMPTKIT_CI=1`` it runs, and fails."""

from __future__ import annotations

import os
import shutil

import pytest

NEEDED_PROGRAMS = {"06_redis.ipynb": "redis-server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the cells of a tutorial whose program the machine lacks, and say which program that is."""
    for item in items:
        program = NEEDED_PROGRAMS.get(item.path.name)
        if program and shutil.which(program) is None and os.environ.get("PROMPTKIT_CI") != "1":
            item.add_marker(pytest.mark.skip(reason=f"{program} is not on the PATH."))
