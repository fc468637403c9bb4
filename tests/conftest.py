"""Fixtures shared by several test modules."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import settings
from jupyter_client.connect import LocalPortCache

from chat_server import ChatServer
from ports import free_port
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.stores.redis import RedisStore
from redis_server import RedisServer
from storing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from promptkit_nb.stores.base import Duration, StateStore
    from storing import OpenStore

# An example may be slow for reasons of its own: the first one imports libraries, and machines are busy. In CI the
# examples are always the same, so that a run says something about the change; elsewhere each run looks for new ones.
settings.register_profile("untimed", deadline=None, derandomize=bool(os.environ.get("PROMPTKIT_CI")))
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Make a run independent of the shell that starts it.

    ``PYTEST_ADDOPTS``, which this run has read, is hidden from the pytest runs that tests and tutorials start. A shell
    without job control starts background jobs with Ctrl-C ignored, which processes started by tests would inherit.
    Ports that Jupyter finds for a kernel stay free until the kernel has started, whatever runs beside it.
    """
    os.environ.pop("PYTEST_ADDOPTS", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    LocalPortCache.find_available_port = lambda *_: free_port()  # type: ignore[method-assign]  # as said above


@pytest.fixture(scope="module", autouse=True)
def _own_shell() -> Iterator[None]:
    """No IPython shell outlives the test module that started it."""
    yield
    if interactive := sys.modules.get("IPython.core.interactiveshell"):
        interactive.InteractiveShell.clear_instance()


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat server on the loopback that answers from the history until it is scripted."""
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server without persistence, shared by all tests; each test uses its own prefix."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def own_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server of one test module, which may change its settings and users."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def kernel_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the conversations of kernels, which do not see the developer's environment."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "home"


@pytest.fixture
def clock() -> Clock:
    """The clock used by the stores of a test."""
    return Clock()


@pytest.fixture(params=["memory", "disk", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
    """Open an empty store of each kind, with or without a TTL."""
    opened: list[StateStore] = []

    def opener(ttl: Duration | None = None) -> StateStore:
        if request.param == "memory":
            opened.append(MemoryStore(ttl, clock=clock))
        elif request.param == "disk":
            opened.append(DiskStore(tmp_path / str(len(opened)), ttl, clock=clock))
        else:
            url, prefix = request.getfixturevalue("redis_url"), f"{uuid4()}:"
            opened.append(RedisStore(url, prefix=prefix, ttl=ttl, clock=clock))
        return opened[-1]

    yield opener
    for each in opened:
        each.close()


@pytest.fixture
def store(open_store: OpenStore) -> StateStore:
    """An empty store of each kind."""
    return open_store()
