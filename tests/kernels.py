"""Real kernels, and a front end that talks to them."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 180.0
"""A guard against waiting forever, which a busy machine does not come near."""


@dataclass(frozen=True)
class CellResult:
    """The status of a cell's run, and its output messages, each with the time it came."""

    status: str
    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    payload: list[dict[str, Any]] = field(default_factory=list)
    """What the front end is asked to do, such as to put a cell below."""

    def contents(self, kind: str) -> list[dict[str, Any]]:
        """Return the contents of the messages of one kind."""
        return [message["content"] for _, message in self.messages if message["msg_type"] == kind]

    @property
    def stdout(self) -> str:
        """The printed text."""
        return "".join(content["text"] for content in self.contents("stream"))

    @property
    def last_bundle(self) -> dict[str, str]:
        """The final display."""
        shown = [*self.contents("display_data"), *self.contents("update_display_data")]
        bundle: dict[str, str] = shown[-1]["data"]
        return bundle

    @property
    def traceback(self) -> list[str]:
        """The lines of the error."""
        (error,) = self.contents("error")
        lines: list[str] = error["traceback"]
        return lines


@dataclass(frozen=True)
class Kernel:
    """A running kernel and a front end that talks to it."""

    manager: KernelManager
    client: BlockingKernelClient

    def send(self, cell: str, *, cell_id: str | None = None, allow_stdin: bool = True) -> str:
        """Send a cell, with its id if the front end has one; return the id of the request."""
        content = {
            "code": cell,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        metadata = {} if cell_id is None else {"cellId": cell_id}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def result(self, request_id: str) -> CellResult:
        """Wait until the cell has ended, and return its result."""
        messages: list[tuple[float, dict[str, Any]]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE_S)
            if message["parent_header"].get("msg_id") != request_id:
                continue
            messages.append((time.monotonic(), message))
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE_S)
            if reply["parent_header"].get("msg_id") == request_id:
                return CellResult(reply["content"]["status"], messages, reply["content"].get("payload", []))

    def run(self, cell: str, *, cell_id: str | None = None, allow_stdin: bool = True) -> CellResult:
        """Run a cell and return its result."""
        return self.result(self.send(cell, cell_id=cell_id, allow_stdin=allow_stdin))

    def until_text(self, request_id: str, text: str) -> None:
        """Wait until the cell shows a text."""
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE_S)
            data = message["content"].get("data", {})
            if message["parent_header"].get("msg_id") == request_id and text in data.get("text/plain", ""):
                return


@contextmanager
def kernel(*cells: str, **environment: str) -> Iterator[Kernel]:
    """Start a kernel, run some cells (by default the one that loads the extension), and kill the kernel at the end."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        started = Kernel(manager, client)
        for cell in cells or ("%load_ext promptkit_nb",):
            started.run(cell)
        yield started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
