"""Scripts in new interpreters, to measure startup times."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def fresh_process(script: str, *arguments: str) -> Iterator[Iterator[str]]:
    """Start the script, yield the lines that it prints, and wait for its end; raise if it fails.

    Bytecode is cached, as for an installed package, so run a script once before measuring.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield iter(process.stdout.readline, "")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
