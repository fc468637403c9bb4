"""Fixtures that several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat server on the loopback that answers from the history until it is scripted."""
    with ChatServer() as server:
        yield server
