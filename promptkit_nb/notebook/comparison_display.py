"""Shows the answers of several models next to each other, as they arrive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import terminal_text
from promptkit_nb.notebook.tool_display import ToolAnswerDisplay
from promptkit_nb.rendering.comparisons import Column, columns_html, columns_text, error_column

if TYPE_CHECKING:
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.errors import PromptKitError
    from promptkit_nb.rendering.comparisons import Comparison
    from promptkit_nb.rendering.responses import Response


class ComparisonDisplay(ToolAnswerDisplay):
    """A column for each model; a batch run gets one final output."""

    def __init__(self, **options: Any) -> None:
        """Show nothing yet; the options are those of ``AnswerDisplay``."""
        super().__init__(**options)
        self._columns: dict[str, Column] = {}
        self._model = ""

    def compare(self, model: str, stream: ResponseStream, conversation_id: str) -> None:
        """Show the answer of one model to its end, in a new column; a ``PromptKitError`` is shown in it, and raised."""
        self._model, self._columns[model] = model, Column(model)
        self._runs, self._above, self._retry = {}, ("", ""), None
        self._is_over, self._since_s, self._next_update_at = False, time.monotonic(), 0.0
        if self._in_terminal and not self._quiet:
            print(terminal_text(f"── {model} ──"))  # noqa: T201 - output of a terminal
        self.follow(stream, conversation_id)

    def failed(self, error: PromptKitError) -> None:
        """Show an error in the column of the model that failed."""
        self._columns[self._model] = error_column(self._model, error)
        if self._in_terminal and not self._quiet:
            print(self._columns[self._model].text)  # noqa: T201 - output of a terminal
        elif self._can_update and not self._quiet:
            self._put(self._all_columns())

    def end(self, comparison: Comparison) -> None:
        """Say which answer is the turn, and how to pick another."""
        for response, model in zip(comparison, comparison.answered, strict=True):
            if response is comparison.answer:
                super()._mark(response)
                continue
            note = f"a version of this turn: %chat_restore {model} picks it"
            self._columns[model] = self._columns[model]._replace(note=note)
        if not self._quiet and not self._in_terminal:
            self._put(self._all_columns())

    def _mark(self, response: Response) -> None:
        """Wait until the turn is known."""

    def _show_bundle(self, bundle: dict[str, str]) -> None:
        """Put an answer into its column."""
        self._columns[self._model] = Column(self._model, bundle["text/plain"], bundle["text/html"])
        if self._can_update:
            self._put(self._all_columns())

    def _all_columns(self) -> dict[str, str]:
        columns = self._columns.values()
        return {"text/plain": columns_text(columns), "text/html": columns_html(columns)}
