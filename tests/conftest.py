"""Fixtures that several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat server on the loopback that answers from the history until it is scripted."""
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server that keeps nothing; tests keep apart by their prefixes."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
