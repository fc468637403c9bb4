"""A panel as its page sees it: what is shown, and which commands are sent; without a browser."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from promptkit_nb.panel.controller import PanelController
from promptkit_nb.pricing import CallCost
from promptkit_nb.providers.base import Completion, TextDelta
from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from promptkit_nb import Conversation
    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.providers.base import ChatRequest, StreamEvent

TIMEOUT_S = 60.0


class PanelPage:
    """A panel with one open page; ``shown`` is its current content, ``updates`` each change."""

    def __init__(self, conversation: Conversation, *, is_open: bool = True) -> None:
        """Open a panel of this conversation."""
        self.shown: dict[str, Any] = {}
        self.updates: list[dict[str, object]] = []
        self.messages: list[dict[str, Any]] = []
        self.transcripts: list[Snapshot] = []
        self.controller = PanelController(conversation, self)
        if is_open:
            self.do("open")

    def show(self, **changes: object) -> None:
        """Receive a change."""
        self.shown.update(changes)
        self.updates.append(changes)

    def notify(self, message: Mapping[str, object]) -> None:
        """Receive a message."""
        self.messages.append(dict(message))

    def save_transcript(self, snapshot: Snapshot) -> None:
        """Receive what the saved notebook gets."""
        self.transcripts.append(snapshot)

    def do(self, command: str, *pictures: bytes, **values: str) -> None:
        """Send a command, as the page does."""
        self.controller.post({"do": command, "page": "page", **values}, pictures)

    def say(self, text: str) -> None:
        """Send a message and wait for the end of the answer."""
        self.do("send", text=text)
        self.wait(lambda: self.questions[-1:] == [text] and not self.shown["busy"])

    def wait(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not holds():
            assert time.monotonic() < deadline, (self.questions, self.shown)
            time.sleep(0.005)

    def wait_for_streamed(self, html: str) -> None:
        """Wait until this is in the streaming answer."""
        self.wait(lambda: html in (self.shown["streaming"] or {"html": ""})["html"])

    @property
    def questions(self) -> list[str]:
        """The question of each turn, as shown."""
        return [turn["question"] for turn in self.shown["turns"]]

    @property
    def answers(self) -> list[str]:
        """The answer of each turn, as shown."""
        entries = [entry for turn in self.shown["turns"] for entry in turn["entries"]]
        return [entry["text"] for entry in entries if entry["label"] == "assistant"]

    @property
    def error(self) -> str:
        """The error that is shown."""
        return str(self.shown.get("error", {}).get("text", ""))


class GatedProvider:
    """A provider that sends each piece only when the test allows it; ``waits`` is released whenever it waits."""

    name = "gated"
    model = "gated-1"

    def __init__(self, *pieces: str) -> None:
        """Answer every request with these pieces."""
        self.pieces = pieces
        self.requests: list[ChatRequest] = []
        self.waits = threading.Semaphore(0)
        self.ended = threading.Event()
        self._gate = threading.Semaphore(0)

    def let(self, pieces: int = 1) -> None:
        """Allow this many more steps."""
        for _ in range(pieces):
            self._gate.release()

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Yield a piece for each step, then the end for one more."""
        self.requests.append(request)
        try:
            for piece in self.pieces:
                self._step()
                yield TextDelta(piece)
            self._step()
            yield Completion(model=self.model, finish_reason="stop", usage=Usage(10, len(self.pieces)))
        finally:
            self.ended.set()

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:  # noqa: ARG002 - all tokens cost the same
        """Return a hundredth of a cent for each token."""
        return CallCost(Decimal(usage.total_tokens) / 10_000, "test")

    def _step(self) -> None:
        self.waits.release()
        assert self._gate.acquire(timeout=TIMEOUT_S)
