"""Shows an answer with its tool calls: a line for each call, updated live, which unfolds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import terminal_text
from promptkit_nb.notebook.display import AnswerDisplay
from promptkit_nb.rendering.tool_lines import lines_of, tool_lines_html, tool_lines_text

if TYPE_CHECKING:
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.rendering.tool_lines import ToolLine
    from promptkit_nb.text.receipts import Receipt
    from promptkit_nb.tools.calls import ToolRun


class ToolAnswerDisplay(AnswerDisplay):
    """An answer with its tool calls above its text, from the moment they start."""

    def __init__(self, **options: Any) -> None:
        """Show nothing yet; the options are those of ``AnswerDisplay``."""
        super().__init__(**options)
        self._runs: dict[str, ToolRun] = {}

    def tool(self, run: ToolRun) -> None:
        """Show a call that starts or has ended."""
        self._runs[run.call.id] = run
        if self._quiet:
            return
        if self._in_terminal:
            print(terminal_text(f"▸ {run.line}") if run.is_over else "", flush=True)  # noqa: T201 - output of a terminal
        elif self._can_update:
            self._show_tools([each.shown for each in self._runs.values()])
            self._show("", "" if run.is_over else "…")

    def _answered(self, response: Response, footer: Receipt) -> None:
        if not self._quiet and not self._in_terminal:
            self._show_tools([run.shown for run in response.tool_runs] or lines_of(response.turn))
        super()._answered(response, footer)

    def _show_tools(self, lines: list[ToolLine]) -> None:
        self._above = tool_lines_text(lines), tool_lines_html(lines)
