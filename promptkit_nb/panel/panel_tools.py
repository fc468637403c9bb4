"""The tool calls of one answer in the panel: they run in the kernel's main thread, and the reader may be asked."""

from __future__ import annotations

import threading
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

from promptkit_nb.characters import printable
from promptkit_nb.panel.main_thread import MainThreadCall
from promptkit_nb.rendering.tool_lines import tool_lines_html
from promptkit_nb.text.plain_text import one_line, preview
from promptkit_nb.tools.tool_host import ToolHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from promptkit_nb.tools.calls import ToolRun
    from promptkit_nb.tools.tool import Tool
    from promptkit_nb.turns import ToolCall

Result = TypeVar("Result")

BUSY_AFTER_S = 2.0
"""How long a tool may wait for the main thread before the panel says so."""


class PanelToolHost(ToolHost):
    """Runs the tools of one answer by an event loop of the main thread, and asks with two buttons on the page.

    ``html`` has a line for each call, by its id. ``question`` is ``{"id", "name", "arguments"}`` while the reader is
    asked, else ``{}``.
    """

    def __init__(self, main_loop: Any, context: Context) -> None:  # a tornado IOLoop, which only ipykernel imports
        """Run tools by this loop in this context, from which Jupyter knows which cell shows what they print."""
        self.html: dict[str, str] = {}
        self.question: dict[str, str] = {}
        self._main_loop = main_loop
        self._context = context
        self._changing = threading.Lock()
        self._is_stopped = False
        self._running = ""
        self._call: MainThreadCall[Any] | None = None
        self._since_s = 0.0
        self._verdict: bool | str = False
        self._is_answered = threading.Event()

    @property
    def status(self) -> str:
        """What the answer waits for, if it is a tool."""
        if self.question:
            return f"May {self.question['name']} run? The answer waits for you."
        call = self._call
        if call is None:
            return ""
        if not call.has_begun and time.monotonic() > self._since_s + BUSY_AFTER_S:
            return f"Waiting for the running cell: {self._running} runs after it."
        return f"Running {self._running}…" if call.has_begun else ""

    def show(self, run: ToolRun) -> None:
        """Show a call that starts or has ended; called in the thread that ran it, to which its result may be bound."""
        self._running = preview(run.call.name)
        self.html[run.call.id] = tool_lines_html([run.shown])

    def run(self, work: Callable[[], Result]) -> Result:
        """Run some work in the main thread; raise ``KeyboardInterrupt`` if it is stopped."""
        call = MainThreadCall(work)
        with self._changing:
            if self._is_stopped:
                raise KeyboardInterrupt
            self._call, self._since_s = call, time.monotonic()
        try:
            self._main_loop.add_callback(self._context.copy().run, call)
            return call.wait()
        finally:
            self._call = None

    def ask(self, tool: Tool, call: ToolCall) -> bool | str:
        """Ask the reader, and wait for the answer; raise ``KeyboardInterrupt`` if the answer is stopped."""
        self._is_answered.clear()
        with self._changing:
            if self._is_stopped:
                raise KeyboardInterrupt
            self.question = {"id": token_hex(8), "name": tool.name, "arguments": printable(call.arguments)}
        self._is_answered.wait()
        if self._is_stopped:
            raise KeyboardInterrupt
        return self._verdict

    def decide(self, question_id: str, *, is_allowed: bool, reason: str) -> None:
        """Answer the current question; another page's answer to an earlier one changes nothing."""
        with self._changing:
            if self._is_stopped or self.question.get("id") != question_id:
                return
            self.question = {}
            self._verdict = is_allowed or one_line(reason)
            self._is_answered.set()

    def stop(self) -> None:
        """Stop the tool that runs, the one that waits, and the question."""
        with self._changing:
            self._is_stopped = True
            self.question = {}
            call = self._call
            self._is_answered.set()
        if call is not None:
            call.stop()
