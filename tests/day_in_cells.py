"""A kernel and a chat server that the tests of one file share: each test begins a new conversation."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chat_server import ChatServer
from kernels import CellResult, Kernel, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Day:
    """A kernel that talks to a server on the loopback."""

    kernel: Kernel
    server: ChatServer

    def run(self, cell: str, **options: Any) -> CellResult:
        """Run a cell and return its result."""
        return self.kernel.run(cell, **options)

    def printed(self, cell: str) -> str:
        """Run a cell, which has to succeed, and return what it prints."""
        ran = self.run(cell)
        assert ran.status == "ok", ran.traceback
        return ran.stdout

    def error(self, cell: str) -> str:
        """Run a cell, which has to fail with one line, and return the line."""
        (line,) = self.run(cell).traceback
        return line

    @property
    def asked(self) -> list[str]:
        """The last message of each request, as its text."""
        return [request.body["messages"][-1]["content"] for request in self.server.requests]

    def begin(self) -> None:
        """Forget the requests, lift all settings, and begin a new conversation."""
        self.server.requests.clear()
        assert self.run('%chat_setup --budget none --context-tokens "" --replay auto').status == "ok"
        assert self.run("%chat_new").status == "ok"


@contextmanager
def day(home: Path, **environment: str) -> Iterator[Day]:
    """Start a server and a kernel with the extension, whose conversations are stored below ``home``."""
    with ChatServer() as server:
        own = {
            "OPENAI_API_KEY": "sk-none",
            "OPENAI_BASE_URL": server.url,
            "PROMPTKIT_MODEL": "gpt-4o-mini",
            "PROMPTKIT_PROVIDER": "openai",
            "PROMPTKIT_HOME": str(home / "store"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        }
        with kernel("%load_ext promptkit_nb", **(own | environment)) as started:
            yield Day(started, server)
