"""A panel as its page sees it: what is shown, and what the page asks for; without a browser."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from promptkit_nb.panel.controller import PanelController
from promptkit_nb.pricing import Price
from promptkit_nb.providers.base import Completion, TextDelta
from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from promptkit_nb import Conversation
    from promptkit_nb.chat.snapshot import Snapshot
    from promptkit_nb.providers.base import ChatRequest, StreamEvent

PATIENCE_S = 10.0


class PanelPage:
    """One panel with one page open; ``shown`` holds what it shows, ``updates`` each change of it."""

    def __init__(self, conversation: Conversation, *, is_open: bool = True) -> None:
        """Open a panel of this conversation."""
        self.shown: dict[str, Any] = {}
        self.updates: list[dict[str, object]] = []
        self.told: list[dict[str, Any]] = []
        self.kept: list[Snapshot] = []
        self.engine = PanelController(conversation, self)
        if is_open:
            self.do("open")

    def show(self, **changes: object) -> None:
        """Take a change."""
        self.shown.update(changes)
        self.updates.append(changes)

    def tell(self, message: Mapping[str, object]) -> None:
        """Take a message."""
        self.told.append(dict(message))

    def keep(self, snapshot: Snapshot) -> None:
        """Take what the saved notebook gets."""
        self.kept.append(snapshot)

    def do(self, command: str, **values: str) -> None:
        """Ask for something, as the page does."""
        self.engine.post({"do": command, "view": "page", **values})

    def say(self, text: str) -> None:
        """Say something and wait for the end of the answer."""
        self.do("send", text=text)
        self.wait(lambda: self.questions[-1:] == [text] and not self.shown["busy"])

    def wait(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, (self.questions, self.shown)
            time.sleep(0.005)

    def wait_for_growth(self, html: str) -> None:
        """Wait until this is in the answer under way, as far as it has come."""
        self.wait(lambda: html in (self.shown["growing"] or {"html": ""})["html"])

    @property
    def questions(self) -> list[str]:
        """What the user said, turn by turn, as it is shown."""
        return [turn["question"] for turn in self.shown["turns"]]

    @property
    def answers(self) -> list[str]:
        """What was answered, turn by turn, as it is shown."""
        return [said["text"] for turn in self.shown["turns"] for said in turn["said"] if said["who"] == "assistant"]

    @property
    def problem(self) -> str:
        """The error that is shown."""
        return str(self.shown.get("problem", {}).get("text", ""))


class GatedProvider:
    """A provider that gives its pieces one by one, each when the test lets it; ``waits`` says that it stands still."""

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
        """Let so many more steps pass."""
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

    def price(self, model: str, usage: Usage, at: datetime) -> Price:  # noqa: ARG002 - all tokens cost the same
        """Return a hundredth of a cent for each token."""
        return Price(Decimal(usage.total_tokens) / 10_000, "test")

    def _step(self) -> None:
        self.waits.release()
        assert self._gate.acquire(timeout=PATIENCE_S)
