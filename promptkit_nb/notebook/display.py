"""Show an answer as it arrives: in a notebook, in a batch run, or in a terminal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import printable, terminal_text
from promptkit_nb.errors import StoreError
from promptkit_nb.frontend import can_update, is_terminal
from promptkit_nb.notebook.saved_notebook import Mark
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import Receipt, note_html, seconds_text, thinking_words
from promptkit_nb.text.waiting import Retry, waiting_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.rendering.responses import Response, ThinkingMode


UPDATE_EVERY_S = 0.1
IDLE_PER_UPDATE = 4
"""The least pause between updates, in durations of the last one: a long answer is updated less often."""

TICK_EVERY_S = 1.0
"""Seconds between updates of the line with the waiting time."""

NOT_STORED = "not finished, and not stored"
STALE = "stale: earlier turns changed after this answer; run the cell again"


class StoppedByUser(KeyboardInterrupt):
    """Ctrl-C during an answer: the cell ends, and the cells queued after it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class AnswerDisplay:
    """One answer on the screen, as sanitized HTML, updated at most ten times a second.

    Until the first text, a line shows how long the user has been waiting, or how long the model has been thinking.
    A terminal gets the text as it arrives. A batch run gets one final output, to be compared with the saved one.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        is_marked: bool = False,
        turns_below: int = 0,
        thinking: ThinkingMode = "fold",
    ) -> None:
        """Show nothing yet, or nothing at all if ``quiet``.

        A marked output names its conversation and turn in its metadata, except in a batch run. ``turns_below`` is the
        number of turns that come before this one although their cells are below. ``thinking`` is how to show the
        model's thinking.
        """
        self._quiet = quiet
        self._is_marked = is_marked
        self._turns_below = turns_below
        self._thinking = thinking
        self._metadata: dict[str, dict[str, str]] = {}
        self._handle: Any = None  # IPython's DisplayHandle
        self._showing = threading.Lock()
        self._is_over = False
        self._since_s = time.monotonic()
        self._retry: Retry | None = None
        self._next_update_at = 0.0
        self._in_terminal = is_terminal()
        self._can_update = can_update()
        self._above = "", ""  # tool calls and a typed answer, as text and as HTML
        self._shown: dict[str, str] = {}
        self._is_stale = False

    def note(self, line: str) -> None:
        """Print a line, unless it is empty."""
        if line and not self._quiet:
            print(terminal_text(line))  # noqa: T201 - a notebook's status line

    def follow(self, stream: ResponseStream, conversation_id: str) -> None:
        """Show the stream to its end; Ctrl-C raises ``StoppedByUser`` once the partial answer is stored."""
        pieces = iter(stream)  # keep a reference: garbage collection would end the stream and lose its errors
        ticker = None if self._quiet or not self._can_update else _Ticker(lambda: self._tick(stream))
        try:
            try:
                for piece in pieces:
                    self._piece(piece, stream)
            finally:
                if ticker is not None:
                    ticker.stop()
                with self._showing:  # so that a running tick shows nothing after the end
                    self._is_over = True
        except KeyboardInterrupt:
            stream.close()
            raise self._stopped(stream, conversation_id) from None
        except Exception as error:
            response = error.response if isinstance(error, StoreError) else None
            if response is not None:
                self._answered(response, self._receipt(response, conversation_id).plus("not stored"))
            elif stream.text or self._handle is not None:
                self._finish(stream.text, NOT_STORED, reasoning=(stream.reasoning, "thought"))
            raise
        if stream.response is not None:
            self._mark(stream.response)
            self._answered(stream.response, self._receipt(stream.response, conversation_id))

    def mark_stale(self, *, is_stale: bool) -> None:
        """Add a line that says that earlier turns changed after this answer, or remove it."""
        if self._handle is None or is_stale == self._is_stale:
            return
        self._is_stale = is_stale
        shown = self._shown
        if is_stale:
            shown = {
                "text/plain": f"{shown['text/plain']}\n{STALE}",
                "text/html": f"{shown['text/html']}{note_html(STALE, 'margin-top:2px')}",
            }
        self._handle.update(shown, metadata=self._metadata, raw=True)

    def waiting(self, seconds: float, reason: str) -> None:
        """Show that the provider waits before a retry, and why."""
        self._retry = Retry(seconds, reason)
        if self._quiet:
            return
        if self._in_terminal:
            print(self._retry.words)  # noqa: T201 - output of a terminal
        elif self._can_update:
            self._show("", self._waiting_words(None))

    def _piece(self, piece: str, stream: ResponseStream) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            if stream.text == piece and stream.reasoning and self._thinking != "hide":
                print(_thought(stream))  # noqa: T201 - as above
            print(terminal_text(piece), end="", flush=True)  # noqa: T201 - as above
        elif self._can_update and (begun := time.monotonic()) >= self._next_update_at:
            self._show(stream.text, "…", reasoning=(stream.reasoning, _thought(stream)))
            ended = time.monotonic()
            self._next_update_at = ended + max(UPDATE_EVERY_S, IDLE_PER_UPDATE * (ended - begun))

    def _stopped(self, stream: ResponseStream, conversation_id: str) -> StoppedByUser:
        from promptkit_nb.turns import INTERRUPTED  # noqa: PLC0415 - %load_ext takes no time for it

        if stream.response is None:
            if self._handle is not None:
                self._finish("", "stopped", reasoning=(stream.reasoning, "thought"))
            return StoppedByUser("Stopped before any text arrived; the conversation is unchanged.")
        self._mark(stream.response)
        self._answered(stream.response, self._receipt(stream.response, conversation_id))
        if stream.response.finish_reason == INTERRUPTED:
            return StoppedByUser("Stopped; the partial answer is stored, marked as interrupted.")
        return StoppedByUser("Stopped; the answer was complete, and is stored.")

    def _receipt(self, response: Response, conversation_id: str) -> Receipt:
        return Receipt.of(response, conversation_id, turns_below=self._turns_below)

    def _mark(self, response: Response) -> None:
        """Name the stored turn in the output's metadata, so that the saved notebook finds its conversation again."""
        if self._is_marked and self._can_update:
            self._metadata = Mark(response.conversation_id, response.turn.id).metadata

    def _answered(self, response: Response, footer: Receipt) -> None:
        thought = (response.reasoning or "", thinking_words(response))
        text = response.content
        if response.value is not None:
            from promptkit_nb.rendering.typed_values import value_table  # noqa: PLC0415 - of typed answers

            shown, html = value_table(response.value)
            text, self._above = "", ("\n\n".join(filter(None, [self._above[0], shown])), self._above[1] + html)
        self._finish(text, footer, *response.warnings, reasoning=thought)

    def _tick(self, stream: ResponseStream) -> None:
        """Show the status until there is text; called on the ticker's thread."""
        with self._showing:
            if not self._is_over and not stream.text:
                words = self._waiting_words(stream.thinking_ms)
                is_above = bool(stream.reasoning) and self._thinking != "hide"
                self._publish("", "" if is_above else words, reasoning=(stream.reasoning, words))

    def _waiting_words(self, thinking_ms: float | None) -> str:
        return waiting_words(time.monotonic() - self._since_s, thinking_ms, self._retry)

    def _finish(self, text: str, footer: str | Receipt, *warnings: str, reasoning: tuple[str, str] = ("", "")) -> None:
        if self._quiet:
            return
        if self._in_terminal:
            print("\n" + _below(footer if isinstance(footer, str) else footer.text, warnings))  # noqa: T201 - as above
        else:
            self._show(text, footer, *warnings, reasoning=reasoning, is_last=True)

    def _show(
        self,
        text: str,
        footer: str | Receipt,
        *warnings: str,
        reasoning: tuple[str, str] = ("", ""),
        is_last: bool = False,
    ) -> None:
        """Show a text with the lines below it; ``reasoning`` is the model's thinking and the line for it."""
        with self._showing:
            self._is_over = is_last
            self._publish(text, footer, *warnings, reasoning=reasoning)

    def _publish(self, text: str, footer: str | Receipt, *warnings: str, reasoning: tuple[str, str]) -> None:
        from promptkit_nb.rendering.responses import answer_html  # noqa: PLC0415 - %load_ext takes no time for it

        above = reasoning[1] if reasoning[0] and self._thinking != "hide" else ""
        receipt = footer if isinstance(footer, Receipt) else Receipt.line(footer)
        shown = [above, self._above[0], printable(text), _below(receipt.text, warnings)]
        self._show_bundle(
            {
                "text/plain": "\n\n".join(filter(None, shown)),
                "text/html": answer_html(
                    text, receipt if receipt.short else None, warnings, reasoning, self._thinking, calls=self._above[1]
                ),
            }
        )

    def _show_bundle(self, bundle: dict[str, str]) -> None:
        self._put(bundle)

    def _put(self, bundle: dict[str, str]) -> None:
        """Show an output, or update the one that is shown."""
        self._shown = bundle
        from IPython.display import display  # noqa: PLC0415 - only where IPython runs

        if not self._can_update:
            display(bundle, metadata=self._metadata, raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types
        elif self._handle is None:
            self._handle = display(bundle, metadata=self._metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as above
        else:
            self._handle.update(bundle, metadata=self._metadata, raw=True)


def _below(footer: str, warnings: tuple[str, ...]) -> str:
    return "\n".join([*(f"⚠ {one_line(warning)}" for warning in warnings), *([footer] if footer else [])])


def _thought(stream: ResponseStream) -> str:
    """Return how long the model thought before its text."""
    return "thought" if stream.thinking_ms is None else f"thought {seconds_text(stream.thinking_ms / 1000)}"


class _Ticker:
    """Calls a function every second on a daemon thread, starting after one second, until it is stopped."""

    def __init__(self, tick: Callable[[], None]) -> None:
        """Start."""
        self._tick = tick
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="promptkit-waiting", daemon=True).start()

    def stop(self) -> None:
        """Stop, after the current call if there is one."""
        self._is_over.set()

    def _run(self) -> None:
        import promptkit_nb.rendering.responses  # noqa: F401, PLC0415 - not while an update is timed

        pause_s = TICK_EVERY_S
        while not self._is_over.wait(pause_s):
            began = time.monotonic()
            self._tick()
            pause_s = max(TICK_EVERY_S, IDLE_PER_UPDATE * (time.monotonic() - began))  # update long texts less often
