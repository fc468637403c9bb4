"""Runs the chat server of the tests in a process of its own, so that it takes no time from what is measured."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = Path(__file__).parent.parent / "chat_server.py"


@contextmanager
def chat_server_url(latency_s: float = 0.0) -> Iterator[str]:
    """Start the server, which takes so long for each answer, and stop it at the end of the block."""
    command = [sys.executable, str(_PROGRAM), "--port", "0", "--latency-s", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()
