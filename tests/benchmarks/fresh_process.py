"""Scripts in interpreters of their own, to measure what a start takes."""

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
    """Start the script, yield the lines that it prints, and wait for its end; raises if it fails.

    Bytecode is cached, as it is for an installed package; so run a script once before its time counts.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield iter(process.stdout.readline, "")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
