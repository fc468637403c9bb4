"""The one engine for answers as they come: ``send``, ``stream``, the magics and panels all read from it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptkit_nb.errors import ConversationNotFoundError, ProviderError, StoreError
from promptkit_nb.pricing import Price
from promptkit_nb.providers.base import Completion, ReasoningDelta, TextDelta, Waiting
from promptkit_nb.responses import Response
from promptkit_nb.running_cell import CellCall
from promptkit_nb.tokens import count_message_tokens, count_tokens
from promptkit_nb.turns import Message, Turn, Usage, new_turn_id

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from datetime import datetime

    from promptkit_nb.providers.base import ChatRequest, Provider

INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a turn comes from: its conversation, the context it is answered in, the cell, if any, that asks."""

    conversation_id: str
    context_hash: str
    replay_key: str
    cell: CellCall | None = None


class ResponseStream:
    """An iterator over the pieces of an answer; ``response`` holds the ``Response`` once it has ended.

    Leaving a loop over it early, or Ctrl-C, stores what had arrived as an interrupted turn; before any text it changes
    nothing. ``on_waiting`` is called with seconds and a reason before the provider sleeps and tries again.
    """

    def __init__(
        self,
        provider: Provider,
        request: ChatRequest,
        question: Message,
        origin: Origin,
        *,
        keep: Callable[[Turn], object],
        clock: Callable[[], datetime],
        on_waiting: Callable[[float, str], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent before the first piece is asked for."""
        self.response: Response | None = None
        self._provider = provider
        self._request = request
        self._question = question
        self._origin = origin
        self._keep = keep
        self._clock = clock
        self._on_waiting = on_waiting
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._completion: Completion | None = None
        self._turn_id = new_turn_id()  # once, so that keeping it twice is keeping it once
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces; leaving the loop closes the stream."""
        try:
            yield from self._pieces
        finally:
            self.close()

    def __next__(self) -> str:
        """Return the next piece of text."""
        return next(self._pieces)

    def close(self) -> None:
        """Stop: drop the connection and keep what had arrived."""
        self._pieces.close()

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return "".join(self._text)

    def _run(self) -> Generator[str, None, None]:
        started = time.perf_counter()
        events = self._provider.stream(self._request)
        try:
            for event in events:
                if isinstance(event, TextDelta):
                    self._text.append(event.text)
                    yield event.text
                elif isinstance(event, ReasoningDelta):
                    self._reasoning.append(event.text)
                elif isinstance(event, Completion):
                    self._completion = event
                elif self._on_waiting is not None and isinstance(event, Waiting):
                    self._on_waiting(event.seconds, event.reason)
            self._finish(started)
        except ProviderError as error:
            error.unsent = self._question.content
            raise
        except (KeyboardInterrupt, GeneratorExit):
            self._finish(started)
            raise

    def _finish(self, started: float) -> None:
        """Keep what arrived, unless that is nothing or was kept before."""
        if self.response is not None or (self._completion is None and not self._text):
            return
        turn = self._turn((time.perf_counter() - started) * 1000)
        response = Response.of(turn, self._origin.conversation_id)
        try:
            self._keep(turn)
        except ConversationNotFoundError as error:
            gone = ConversationNotFoundError(
                f"Conversation {self._origin.conversation_id!r} was deleted while the answer was under way, so it is "
                "not stored. It is in .response of this error."
            )
            gone.response = response  # it is paid for
            raise gone from error
        except StoreError as error:
            error.response = response  # as above
            raise
        self.response = response

    def _turn(self, latency_ms: float) -> Turn:
        now = self._clock()
        completion, cell = self._completion, self._origin.cell
        answer = Message(
            "assistant",
            self.text,
            timestamp=now,
            tool_calls=() if completion is None else completion.tool_calls,
            reasoning="".join(self._reasoning) or None,
        )
        usage = completion.usage if completion is not None and completion.usage is not None else self._estimated()
        price = self._price(usage, now)
        return Turn(
            id=self._turn_id,
            messages=(self._question, answer),
            usage=usage,
            cost=price.usd,
            price_source=price.source,
            model=self._request.model if completion is None else completion.model,
            requested_model=self._request.model,
            provider=self._provider.name,
            latency_ms=round(latency_ms, 3),
            finish_reason=INTERRUPTED if completion is None else completion.finish_reason,
            created_at=now,
            warnings=self._warnings(),
            context_hash=self._origin.context_hash,
            replay_key=self._origin.replay_key,
            cell_id=None if cell is None else cell.cell_id,
            cell_call=0 if cell is None else cell.cell_call,
            cell_source=None if cell is None else cell.cell_source,
        )

    def _warnings(self) -> tuple[str, ...]:
        if self._completion is None:
            return ()
        if self._text or self._completion.tool_calls:
            return self._completion.warnings
        return (*self._completion.warnings, "The model answered without any text.")

    def _estimated(self) -> Usage:
        model = self._request.model
        return Usage(
            input_tokens=count_message_tokens(self._request.messages, model),
            output_tokens=count_tokens(self.text, model),
            estimated=True,
        )

    def _price(self, usage: Usage, at: datetime) -> Price:
        """Return the price: the provider's own figure, else by the model asked for, or the one that answered."""
        completion = self._completion
        if completion is not None and completion.cost_usd is not None:
            return Price(completion.cost_usd, self._provider.name)
        asked = self._provider.price(self._request.model, usage, at)
        if completion is None or completion.model == self._request.model or asked.source == "user":
            return asked
        answered = self._provider.price(completion.model, usage, at)
        return asked if answered.usd is None else answered
