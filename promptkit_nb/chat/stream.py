"""The one engine for answers as they come: ``send``, ``stream``, the magics and panels all read from it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.chat.replay import replayed
from promptkit_nb.errors import (
    ContextWindowExceededError,
    ConversationChangedError,
    ConversationNotFoundError,
    InvalidArgumentError,
    ProviderError,
    ProviderTimeoutError,
    StoreError,
)
from promptkit_nb.pricing import price_of_call, usage_of_call
from promptkit_nb.providers.base import Completion, ReasoningDelta, TextDelta, Waiting
from promptkit_nb.rendering.responses import Response
from promptkit_nb.turns import INTERRUPTED, Message, Turn, new_turn_id

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from datetime import datetime

    from promptkit_nb.chat.pending_turn import Inquiry, Prepared
    from promptkit_nb.pricing import Price
    from promptkit_nb.providers.base import Provider, StreamEvent
    from promptkit_nb.turns import Usage


class ResponseStream:
    """An iterator over the pieces of an answer; ``response`` holds the ``Response`` once it has ended.

    Leaving a loop over it early, or Ctrl-C, stores what had arrived as an interrupted turn; before any text it changes
    nothing. ``on_waiting`` is called with seconds and a reason before the provider sleeps and tries again.
    """

    _prepared: Prepared
    _started: float

    def __init__(
        self,
        provider: Provider,
        inquiry: Inquiry,
        *,
        prepare: Callable[[Inquiry], Prepared],
        keep: Callable[[Turn], int],
        clock: Callable[[], datetime],
        on_waiting: Callable[[float, str], None] | None = None,
    ) -> None:
        """Prepare nothing, and send nothing, before the first piece is asked for.

        ``prepare`` fits the request into window and budget; ``keep`` stores the turn and returns how many later turns
        are stale for it.
        """
        self.response: Response | None = None
        self._provider = provider
        self._inquiry = inquiry
        self._prepare = prepare
        self._keep = keep
        self._clock = clock
        self._on_waiting = on_waiting
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._completion: Completion | None = None
        self._turn_id = new_turn_id()  # once, so that keeping it twice is keeping it once
        self._ending = threading.RLock()
        self._is_sent = False
        self._is_over = False
        self._pieces = self._run() if inquiry.recorded is None else self._replay(inquiry.recorded)

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

    def abandon(self) -> None:
        """Stop from another thread than the one that waits for the next piece: keep at once what had arrived.

        That thread gets no more pieces, nothing is stored later, and the connection is dropped once the provider lets
        go of it.
        """
        with self._ending:
            if self._is_over:
                return
            try:
                if self._is_sent:
                    self._finish()
                    self._settle_unstored(may_be_billed=True)
            finally:
                self._is_over = True

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return "".join(self._text)

    def _replay(self, recorded: Turn) -> Generator[str, None, None]:
        """Answer from a stored turn; at its own place there is nothing to write."""
        inquiry = self._inquiry
        if recorded is inquiry.own:
            self.response = Response.replay_of(recorded, inquiry.conversation_id)
        else:
            turn = replayed(
                recorded,
                inquiry.question,
                at=self._clock(),
                context_hash=inquiry.context_hash,
                replay_key=inquiry.replay_key,
                **inquiry.cell_fields,
            )
            stale = self._stored(turn, Response.replay_of(turn, inquiry.conversation_id))
            self.response = Response.replay_of(turn, inquiry.conversation_id, stale_turns=stale)
        self._text.append(recorded.text)
        if recorded.text:
            yield recorded.text

    def _run(self) -> Generator[str, None, None]:
        try:
            self._prepared = self._prepare(self._inquiry)
        except (ProviderError, ContextWindowExceededError) as error:
            error.unsent = self._inquiry.question.content
            raise
        if not self._may_send():
            return
        try:
            for event in self._events():
                if not self._took(event):
                    return
                if isinstance(event, TextDelta):
                    yield event.text
                elif self._on_waiting is not None and isinstance(event, Waiting):
                    self._on_waiting(event.seconds, event.reason)
            self._finish()
        except (ProviderError, ContextWindowExceededError) as error:
            error.unsent = self._inquiry.question.content
            self._end_unstored(may_be_billed=bool(self._text) or isinstance(error, ProviderTimeoutError))
            raise
        except (KeyboardInterrupt, GeneratorExit):
            self._finish()
            self._end_unstored(may_be_billed=True)
            raise
        except BaseException:
            self._end_unstored(may_be_billed=bool(self._text))
            raise

    def _may_send(self) -> bool:
        """Return whether the request is to be sent; where it was abandoned meanwhile, give back what is reserved."""
        with self._ending:
            if self._is_over:
                self._settled(Decimal(0))
                return False
            self._started = time.perf_counter()
            self._is_sent = True
            return True

    def _took(self, event: StreamEvent) -> bool:
        """Take what came; return false where it comes too late."""
        with self._ending:
            if self._is_over:
                return False
            if isinstance(event, TextDelta):
                self._text.append(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.append(event.text)
            elif isinstance(event, Completion):
                self._completion = event
            return True

    def _events(self) -> Generator[StreamEvent, None, None]:
        """Yield what the provider sends; a request that it finds too long is made shorter once, if that is allowed."""
        try:
            yield from self._provider.stream(self._prepared.request)
        except ContextWindowExceededError as error:
            shorter = self._prepared.shorter(error)
            if shorter is None:
                raise
            self._prepared = shorter
            yield from self._provider.stream(shorter.request)

    def _finish(self) -> None:
        """Keep what arrived, unless that is nothing, was kept before, or comes too late."""
        with self._ending:
            if self._is_over or self.response is not None or (self._completion is None and not self._text):
                return
            turn = self._turn((time.perf_counter() - self._started) * 1000)
            response = Response.of(turn, self._inquiry.conversation_id)
            try:
                stale = self._stored(turn, response)
            except BaseException:
                self._enter(turn.cost)  # stored or not, it is paid for
                raise
            warnings = self._settled(turn.cost)
            self.response = replace(response, stale_turns=stale, warnings=(*response.warnings, *warnings))

    def _stored(self, turn: Turn, response: Response) -> int:
        """Keep the turn; where that fails, the error carries the answer, which is paid for."""
        try:
            return self._keep(turn)
        except ConversationNotFoundError as error:
            gone = ConversationNotFoundError(
                f"Conversation {self._inquiry.conversation_id!r} was deleted while the answer was under way, so it is "
                "not stored. It is in .response of this error."
            )
            gone.response = response
            raise gone from error
        except StoreError as error:
            error.response = response
            raise
        except InvalidArgumentError as error:  # such as: the turn to answer again is gone
            changed = ConversationChangedError(
                f"The answer could not be stored. {error} The answer is in .response of this error."
            )
            changed.response = response
            raise changed from error

    def _end_unstored(self, *, may_be_billed: bool) -> None:
        """Settle a call that leaves no turn, and take nothing more of it."""
        with self._ending:
            if not self._is_over:
                self._settle_unstored(may_be_billed=may_be_billed)
            self._is_over = True

    def _settle_unstored(self, *, may_be_billed: bool) -> None:
        """Settle a call that leaves no turn: at what it may have cost if a model may have worked on it, else at 0."""
        if self.response is None:
            self._enter(self._price(self._usage(), self._clock()).usd if may_be_billed else Decimal(0))

    def _enter(self, cost_usd: Decimal | None) -> None:
        """Enter the cost of a call that fails in the ledger; its error is to be told, not that of a ledger."""
        with suppress(StoreError):
            self._prepared.enter(cost_usd)

    def _settled(self, cost_usd: Decimal | None) -> tuple[str, ...]:
        """Enter the cost in the ledger, and return warnings; the answer is not to be lost for a ledger that fails."""
        try:
            return self._prepared.settle(cost_usd)
        except StoreError as error:
            return (f"What this call cost could not be entered in the ledger of budgets: {error}",)

    def _turn(self, latency_ms: float) -> Turn:
        now = self._clock()
        completion = self._completion
        answer = Message(
            "assistant",
            self.text,
            timestamp=now,
            tool_calls=() if completion is None else completion.tool_calls,
            reasoning="".join(self._reasoning) or None,
        )
        usage = self._usage()
        price = self._price(usage, now)
        request = self._prepared.request
        return Turn(
            id=self._turn_id,
            messages=(self._inquiry.question, answer),
            usage=usage,
            cost=price.usd,
            price_source=price.source,
            model=request.model if completion is None else completion.model,
            requested_model=request.model,
            provider=self._provider.name,
            latency_ms=round(latency_ms, 3),
            finish_reason=INTERRUPTED if completion is None else completion.finish_reason,
            created_at=now,
            warnings=self._warnings(usage),
            truncated=self._prepared.truncated,
            counted_input_tokens=self._prepared.counted_tokens,
            context_hash=self._inquiry.context_hash,
            replay_key=self._inquiry.replay_key,
            **self._inquiry.cell_fields,  # type: ignore[arg-type]  # the cell's fields of a Turn
        )

    def _warnings(self, usage: Usage) -> tuple[str, ...]:
        warnings = self._prepared.warnings(usage)
        if self._completion is None:
            return warnings
        if self._text or self._completion.tool_calls:
            return (*self._completion.warnings, *warnings)
        return (*self._completion.warnings, "The model answered without any text.", *warnings)

    def _usage(self) -> Usage:
        return usage_of_call(self._prepared.request, self.text, self._completion)

    def _price(self, usage: Usage, at: datetime) -> Price:
        return price_of_call(self._provider, self._prepared.request.model, self._completion, usage, at)
