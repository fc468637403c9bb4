"""Show an answer as it arrives: in a notebook, in a batch run, or in a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import printable, terminal_text
from promptkit_nb.errors import StoreError
from promptkit_nb.frontend import can_update, is_terminal
from promptkit_nb.notebook.saved_notebook import Mark
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import receipt_of

if TYPE_CHECKING:
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.rendering.responses import Response


UPDATE_EVERY_S = 0.1
IDLE_PER_UPDATE = 4
"""The least pause between updates, in durations of the last one: a long answer is updated less often."""

NOT_STORED = "not finished, and not stored"


class StoppedByUser(KeyboardInterrupt):
    """Ctrl-C during an answer: the cell ends, and the cells queued after it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class AnswerDisplay:
    """One answer on the screen, as sanitized HTML, updated at most ten times a second.

    A terminal gets the text as it arrives. A batch run gets one final output, which is compared with the saved one.
    """

    def __init__(self, *, quiet: bool = False, is_marked: bool = False, turns_below: int = 0) -> None:
        """Show nothing yet, or nothing at all if ``quiet``.

        An output that is marked names its conversation and turn in its metadata, except in a batch run. ``turns_below``
        is the number of turns that come before this one although their cells are below.
        """
        self._quiet = quiet
        self._is_marked = is_marked
        self._turns_below = turns_below
        self._metadata: dict[str, dict[str, str]] = {}
        self._handle: Any = None  # IPython's DisplayHandle
        self._next_update_at = 0.0
        self._in_terminal = is_terminal()
        self._can_update = can_update()

    def note(self, line: str) -> None:
        """Print a line, unless it is empty."""
        if line and not self._quiet:
            print(terminal_text(line))  # noqa: T201 - a notebook's status line

    def follow(self, stream: ResponseStream, conversation_id: str) -> None:
        """Show the stream to its end; Ctrl-C raises ``StoppedByUser`` once the partial answer is stored."""
        pieces = iter(stream)  # keep a reference: garbage collection would end the stream and lose its errors
        try:
            for piece in pieces:
                self._piece(piece, stream)
        except KeyboardInterrupt:
            stream.close()
            raise self._stopped(stream, conversation_id) from None
        except StoreError as error:
            if error.response is None:
                raise
            self._answered(error.response, f"{self._receipt(error.response, conversation_id)} · not stored")
            raise
        except Exception:
            if stream.text or self._handle is not None:
                self._finish(stream.text, NOT_STORED)
            raise
        if stream.response is not None:
            self._mark(stream.response)
            self._answered(stream.response, self._receipt(stream.response, conversation_id))

    def waiting(self, seconds: float, reason: str) -> None:
        """Show that the provider waits before a retry, and why."""
        footer = one_line(f"waiting {seconds:.1f} s: {reason}")
        if self._quiet:
            return
        if self._in_terminal:
            print(footer)  # noqa: T201 - output of a terminal
        elif self._can_update:
            self._show("", footer)

    def _piece(self, piece: str, stream: ResponseStream) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            print(terminal_text(piece), end="", flush=True)  # noqa: T201 - as above
        elif self._can_update and (begun := time.monotonic()) >= self._next_update_at:
            self._show(stream.text, "…")
            ended = time.monotonic()
            self._next_update_at = ended + max(UPDATE_EVERY_S, IDLE_PER_UPDATE * (ended - begun))

    def _stopped(self, stream: ResponseStream, conversation_id: str) -> StoppedByUser:
        from promptkit_nb.turns import INTERRUPTED  # noqa: PLC0415 - %load_ext takes no time for it

        if stream.response is None:
            if self._handle is not None:
                self._finish("", "stopped")
            return StoppedByUser("Stopped before any text arrived; the conversation is unchanged.")
        self._mark(stream.response)
        self._answered(stream.response, self._receipt(stream.response, conversation_id))
        if stream.response.finish_reason == INTERRUPTED:
            return StoppedByUser("Stopped; the partial answer is stored, marked as interrupted.")
        return StoppedByUser("Stopped; the answer was complete, and is stored.")

    def _receipt(self, response: Response, conversation_id: str) -> str:
        return receipt_of(response, conversation_id, turns_below=self._turns_below)

    def _mark(self, response: Response) -> None:
        """Let the output name the stored turn, so that the saved notebook finds its conversation again."""
        if self._is_marked and self._can_update:
            self._metadata = Mark(response.conversation_id, response.turn.id).metadata

    def _answered(self, response: Response, footer: str) -> None:
        self._finish(response.content, footer, *response.warnings)

    def _finish(self, text: str, footer: str, *warnings: str) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            print("\n" + _below(footer, warnings))  # noqa: T201 - as above
        else:
            self._show(text, footer, *warnings)

    def _show(self, text: str, footer: str, *warnings: str) -> None:
        from IPython.display import display  # noqa: PLC0415 - only where IPython runs

        from promptkit_nb.rendering.responses import answer_html  # noqa: PLC0415 - %load_ext takes no time for it

        below = _below(footer, warnings)
        bundle = {
            "text/plain": f"{printable(text)}\n\n{below}" if text else below,
            "text/html": answer_html(text, footer, warnings),
        }
        if not self._can_update:
            display(bundle, metadata=self._metadata, raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types
        elif self._handle is None:
            self._handle = display(bundle, metadata=self._metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as above
        else:
            self._handle.update(bundle, metadata=self._metadata, raw=True)


def _below(footer: str, warnings: tuple[str, ...]) -> str:
    return "\n".join([*(f"⚠ {one_line(warning)}" for warning in warnings), footer])
