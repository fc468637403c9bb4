"""Messages found by a search, as a table for ``%chat_search``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.frontend import is_batch, shown_id
from promptkit_nb.text.plain_text import one_line, preview
from promptkit_nb.text.tables import ListTable

if TYPE_CHECKING:
    from datetime import datetime

MAX_SHOWN = 50


class FoundMessage(NamedTuple):
    """A message that contains the words: its conversation, its turn (from 1), and the text around the first match."""

    conversation_id: str
    title: str
    turn: int
    role: str
    snippet: str
    created_at: datetime


class FoundMessages(ListTable[FoundMessage]):
    """Messages, newest first, shown as a table of the first 50. In a batch run it has no times and no generated ids."""

    _EMPTY = "nothing found"

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
