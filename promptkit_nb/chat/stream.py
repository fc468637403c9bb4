"""An answer as it arrives: ``send``, ``stream``, the magics and the panel all read from a ``ResponseStream``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from promptkit_nb.errors import ContextWindowExceededError, ProviderError, ProviderTimeoutError
from promptkit_nb.providers.base import StreamEvent, TextDelta

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from promptkit_nb.chat.pending_turn import PendingTurn
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.turns import Turn


class ResponseStream:
    """An iterator over the pieces of an answer; ``response`` holds the ``Response`` once it has ended.

    Leaving its loop early, or Ctrl-C, stores the text so far as an interrupted turn; without any text, nothing changes.
    Nothing is sent before the first piece is requested.
    """

    def __init__(self, pending: PendingTurn) -> None:
        """Wrap a question that is not sent yet."""
        self._pending = pending
        self._pieces: ReferenceType[Generator[str, None, None]] | None = None  # weak: leaving a loop closes it
        self._next_pieces: Iterator[str] | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[str]:
        """Return the remaining pieces; leaving the loop closes the stream."""
        pieces = None if self._pieces is None else self._pieces()
        if self._pieces is None and not self._is_closed:
            pending = self._pending
            pieces = self._run() if pending.recorded is None else self._replay(pending.recorded)
            self._pieces = ref(pieces)
        self._next_pieces = None
        return iter(()) if pieces is None else pieces

    def __next__(self) -> str:
        """Return the next piece of text."""
        self._next_pieces = pieces = self._next_pieces or iter(self)
        return next(pieces)

    @property
    def response(self) -> Response | None:
        """The answer, ``None`` until the stream has ended."""
        return self._pending.response

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return self._pending.received.text

    @property
    def reasoning(self) -> str:
        """The model's thinking so far."""
        return self._pending.received.reasoning

    @property
    def thinking_ms(self) -> float | None:
        """How long the model has been thinking, or thought before its text; ``None`` if it does not show thinking."""
        return self._pending.received.thinking_ms

    def close(self) -> None:
        """Stop: drop the connection, and store what has arrived."""
        self._is_closed = True
        pieces = None if self._pieces is None else self._pieces()
        if pieces is not None:
            pieces.close()

    def abandon(self) -> None:
        """Stop from another thread than the one that waits for the next piece: store at once what has arrived.

        That thread gets no more pieces, nothing is stored later, and the connection is dropped once the provider
        returns from it.
        """
        self._pending.abandon()

    def _replay(self, recorded: Turn) -> Generator[str, None, None]:
        self._pending.replay(recorded)
        if recorded.text:
            yield recorded.text

    def _run(self) -> Generator[str, None, None]:
        pending = self._pending
        try:
            pending.prepare()
            if not pending.start():
                return
            is_asking = True
            while is_asking:
                for event in self._events():
                    if not pending.take(event):
                        return
                    if isinstance(event, TextDelta):
                        yield event.text
                is_asking = pending.next_round()
            pending.end("complete")
        except (KeyboardInterrupt, GeneratorExit):
            pending.end("stopped")
            raise
        except BaseException as error:
            if isinstance(error, (ProviderError, ContextWindowExceededError)):
                error.unsent = pending.question.content
                pending.received.completion = pending.received.completion or error.completion
            pending.end("timeout" if isinstance(error, ProviderTimeoutError) else "failed")
            raise

    def _events(self) -> Generator[StreamEvent, None, None]:
        """Yield the provider's events; if the request is too long for it, shorten it once, if possible."""
        pending = self._pending
        try:
            yield from pending.provider.stream(pending.request)
        except ContextWindowExceededError as error:
            if not pending.shorten(error):
                raise
            yield from pending.provider.stream(pending.request)
