"""Programs that tests need and that may be missing."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """Return the program's path; if it is missing, skip the test, or fail it if ``PROMPTKIT_CI=1``."""
    path = shutil.which(name)
    if path is not None:
        return path
    if os.environ.get("PROMPTKIT_CI") == "1":
        pytest.fail(f"{name} is not on the PATH, and PROMPTKIT_CI=1 requires it: install {name}.", pytrace=False)
    pytest.skip(f"{name} is not on the PATH.")
