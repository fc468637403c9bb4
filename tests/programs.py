"""Programs that tests need and the machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """Return the program's path; without it skip the test, or fail it where ``PROMPTKIT_CI=1`` requires it."""
    path = shutil.which(name)
    if path is not None:
        return path
    if os.environ.get("PROMPTKIT_CI") == "1":
        pytest.fail(f"{name} is not on the PATH, and PROMPTKIT_CI=1 requires it: install {name}.", pytrace=False)
    pytest.skip(f"{name} is not on the PATH.")
