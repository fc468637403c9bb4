"""A chat server for rows: how many requests it got for each text, and how often it refuses or breaks off."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from chat_server import Reply, error_reply

if TYPE_CHECKING:
    from chat_server import ChatServer, Request


def asked_text(request: Request) -> str:
    """Return the user's first message."""
    messages = request.body["messages"]
    return str(next(message["content"] for message in messages if message["role"] == "user"))


def answered_texts(server: ChatServer) -> Counter[str]:
    """Return how many requests the server got for each text."""
    return Counter(asked_text(request) for request in server.requests)


class Failing:
    """Fails on every tenth request: with HTTP 429, with HTTP 500, and by breaking off, in turns."""

    def __init__(self, answer: str = "fine") -> None:
        """Answer with this text otherwise."""
        self.good = 0
        self._count = 0
        self._answer = answer
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - the server passes it
        """Return the next reply."""
        with self._lock:
            self._count += 1
            if self._count % 10:
                self.good += 1
                return Reply(text=self._answer)
            return (
                error_reply(429, "Slow down", headers={"retry-after-ms": "20"}),
                error_reply(500, "Oops"),
                Reply(text=f"{self._answer} and more", cut_after=2),
            )[self._count // 10 % 3]


class AllowsFour:
    """Refuses a request while four others are being answered."""

    def __init__(self, takes_s: float = 0.02) -> None:
        """Take so long for an answer."""
        self._takes_s = takes_s
        self._active = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - as above
        """Answer, or refuse at once."""
        with self._lock:
            if self._active >= 4:
                return error_reply(429, "Too many requests", headers={"retry-after-ms": "50"})
            self._active += 1
        time.sleep(self._takes_s)
        with self._lock:
            self._active -= 1
        return Reply(text="fine")
