"""Show an answer as it comes: in a notebook, in a batch run, or in a terminal."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PromptKitError
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.receipts import receipt_of
from promptkit_nb.responses import answer_html

if TYPE_CHECKING:
    from promptkit_nb.streaming import ResponseStream

UPDATE_EVERY_S = 0.1


class StoppedByUser(KeyboardInterrupt):
    """Ctrl-C during an answer: the cell ends, and the cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class AnswerDisplay:
    """One answer on the screen: sanitised HTML at most ten times a second, and always a last one.

    In a batch run there is one final output, as saved notebooks are compared with it; a terminal gets the text as it
    comes.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Show nothing yet, and if ``quiet`` nothing at all."""
        self._quiet = quiet
        self._handle: Any = None  # IPython's DisplayHandle
        self._shown_at = 0.0
        self._in_terminal = getattr(running_shell(), "kernel", None) is None

    def note(self, line: str) -> None:
        """Print a line of its own, if there is one."""
        if line and not self._quiet:
            print(line)  # noqa: T201 - a notebook's status line

    def follow(self, stream: ResponseStream, conversation_id: str) -> None:
        """Show the stream to its end; Ctrl-C raises ``StoppedByUser`` after the partial answer was kept."""
        try:
            for piece in stream:
                self._piece(piece, stream)
        except KeyboardInterrupt:
            raise self._stopped(stream, conversation_id) from None
        except PromptKitError:
            self._finish(stream.text, "not finished, and not stored")
            raise
        if stream.response is not None:
            self._finish(
                stream.response.content, receipt_of(stream.response, conversation_id), *stream.response.warnings
            )

    def waiting(self, seconds: float, reason: str) -> None:
        """Say that the provider waits before it tries again, and why."""
        if not (self._quiet or is_batch()):
            self._show("", f"waiting {seconds:.0f} s: {reason}")

    def _piece(self, piece: str, stream: ResponseStream) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            print(piece, end="", flush=True)  # noqa: T201 - a terminal's way to show text as it comes
        elif not is_batch() and time.monotonic() - self._shown_at >= UPDATE_EVERY_S:
            self._show(stream.text, "…")
            self._shown_at = time.monotonic()

    def _stopped(self, stream: ResponseStream, conversation_id: str) -> StoppedByUser:
        if stream.response is None:
            return StoppedByUser("Stopped before any text came; the conversation is as it was.")
        self._finish(stream.response.content, receipt_of(stream.response, conversation_id))
        return StoppedByUser("Stopped; the partial answer is kept, marked as interrupted.")

    def _finish(self, text: str, footer: str, *warnings: str) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            print("\n" + "\n".join([*(f"⚠ {warning}" for warning in warnings), footer]))  # noqa: T201 - as above
        elif text or self._handle is not None or warnings:
            self._show(text, footer, *warnings)

    def _show(self, text: str, footer: str, *warnings: str) -> None:
        if self._in_terminal:
            print(footer)  # noqa: T201 - as above
            return
        from IPython.display import display  # noqa: PLC0415 - only where IPython runs

        below = "\n".join([*(f"⚠ {warning}" for warning in warnings), footer])
        bundle = {
            "text/plain": f"{text}\n\n{below}" if text else below,
            "text/html": answer_html(text, footer, warnings) if text else f"<div>{escape(below)}</div>",
        }
        if is_batch():
            display(bundle, raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types
        elif self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as above
        else:
            self._handle.update(bundle, raw=True)
