"""Messages found by a search, as a table for ``%chat_search``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.frontend import is_batch, shown_id
from promptkit_nb.text.plain_text import one_line, preview
from promptkit_nb.text.receipts import note_html
from promptkit_nb.text.tables import Cell, ListTable, html_table, time_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SHOWN = 50
_TITLE_CHARACTERS = 40


class FoundMessage(NamedTuple):
    """A message that contains the words: its conversation, its turn (from 1), and the text around the first match."""

    conversation_id: str
    title: str
    turn: int
    role: str
    snippet: str
    created_at: datetime


_WHO = {"user": "You", "assistant": "Answer", "tool": "Tool"}


class FoundMessages(ListTable[FoundMessage]):
    """Messages, newest first, shown as a table of the first 50. In a batch run it has no times and no generated ids.

    A page shows titles, with the ids in tooltips, and highlights ``words``.
    """

    _EMPTY = "nothing found"

    def __init__(self, found: Iterable[FoundMessage] = (), *, words: Sequence[str] = ()) -> None:
        """Show these messages."""
        super().__init__(found)
        self._words = words

    def _repr_html_(self) -> str:
        if not self:
            return super()._repr_html_()
        times, now = [] if is_batch() else ["when"], datetime.now(UTC)
        rows = [self._html_cells(found, now) for found in self[:MAX_SHOWN]]
        table = html_table(["said", "conversation", "turn", "who", *times], rows, numbers=("turn",))
        return "".join([table, *map(note_html, self._notes())])

    def _html_cells(self, found: FoundMessage, now: datetime) -> list[Cell]:
        own = one_line(shown_id(found.conversation_id))
        return [
            Cell(one_line(found.snippet), look="wide", mark=self._words),
            Cell(preview(found.title, _TITLE_CHARACTERS), own),
            Cell(f"{found.turn:,}"),
            Cell(_WHO.get(found.role, found.role)),
            *([] if is_batch() else [time_cell(found.created_at, now)]),
        ]

    def _heading(self) -> list[str]:
        times = [] if is_batch() else ["when (UTC)"]
        return ["title", "turn", "who", "said", *times, "conversation"]

    def _cells(self) -> list[list[str]]:
        return [_cells(found) for found in self[:MAX_SHOWN]]

    def _notes(self) -> list[str]:
        """Return the number of all messages, if not all are shown, and a line that says how to open one."""
        more = [f"{MAX_SHOWN} of {len(self):,} messages"] if len(self) > MAX_SHOWN else []
        return [*more, "%chat_history CONVERSATION shows one, %chat_use CONVERSATION continues it"]


def _cells(found: FoundMessage) -> list[str]:
    times = [] if is_batch() else [f"{found.created_at:%Y-%m-%d %H:%M}"]
    said = [preview(found.title), str(found.turn), found.role, one_line(found.snippet)]
    return [*said, *times, one_line(shown_id(found.conversation_id))]
