"""The report of an import: the outcome of each conversation, and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from promptkit_nb.text.plain_text import counted, one_line, preview
from promptkit_nb.text.receipts import note_html
from promptkit_nb.text.tables import html_table

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["created", "extended", "unchanged", "changed here", "skipped", "damaged"]

OUTCOMES: tuple[Outcome, ...] = ("created", "extended", "unchanged", "changed here", "skipped", "damaged")
MOST_ROWS = 20
"""The most problems that the text and the table list; ``to_df()`` has all rows."""

DETAIL_CHARACTERS = 160
_COLUMNS = ("outcome", "source", "conversation_id", "place", "detail", "turns", "new_turns")


class ReportRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one conversation, or a damaged record or file and its place.

    ``turns`` counts the turns of the conversation, ``new_turns`` those that were added or extended.
    """

    outcome: Outcome
    source: str = ""
    conversation_id: str | None = None
    place: str = ""
    detail: str = ""
    turns: int = 0
    new_turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The result of ``import_chats``, shown as a table in notebooks and as text elsewhere.

    ``rows`` has a row for each conversation, and for each file or record that could not be read. ``unknown_types``
    counts records of unknown types, ``unpriced_models`` calls of models without a known price, and ``left_out`` parts
    that were cut, dropped, or only counted. With ``dry_run``, nothing was written.

    >>> from promptkit_nb import ImportReport
    >>> ImportReport(source="~/.codex", dry_run=True)
    ~/.codex: no conversations (dry run: nothing was written)
    """

    source: str
    rows: tuple[ReportRow, ...] = ()
    unknown_types: Mapping[str, int] = field(default_factory=dict)
    unpriced_models: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def created(self) -> tuple[str, ...]:
        """The ids of new conversations."""
        return self._ids("created")

    @property
    def extended(self) -> tuple[str, ...]:
        """The ids of conversations with new or extended turns."""
        return self._ids("extended")

    @property
    def unchanged(self) -> tuple[str, ...]:
        """The ids of conversations that did not change since the previous import."""
        return self._ids("unchanged")

    @property
    def changed_here(self) -> tuple[str, ...]:
        """The ids of conversations that were changed in the store, and therefore left alone."""
        return self._ids("changed here")

    @property
    def skipped(self) -> tuple[ReportRow, ...]:
        """Conversations and files that were not imported; ``detail`` says why."""
        return tuple(row for row in self.rows if row.outcome == "skipped")

    @property
    def damaged(self) -> tuple[ReportRow, ...]:
        """Records that could not be read; ``place`` is file and line."""
        return tuple(row for row in self.rows if row.outcome == "damaged")

    def to_df(self) -> pd.DataFrame:
        """Return one row per conversation, and per file or record that could not be read.

        Its columns are those of ``ReportRow``.

        >>> from promptkit_nb import ImportReport
        >>> list(ImportReport(source="~/.codex").to_df().columns)
        ['outcome', 'source', 'conversation_id', 'place', 'detail', 'turns', 'new_turns']
        """
        from promptkit_nb.text.text_frame import TextFrame  # noqa: PLC0415 - pandas, which the text does not need

        columns = {name: [getattr(row, name) for row in self.rows] for name in _COLUMNS}
        frame = TextFrame(columns, columns=list(_COLUMNS))
        texts = ("conversation_id", "place", "detail")
        dtypes = {"outcome": "category", "source": "category", "turns": "Int64", "new_turns": "Int64"}
        return frame.astype(dtypes | dict.fromkeys(texts, "str"))

    def __str__(self) -> str:
        """Return a line of counts, then a line for each problem."""
        return "\n".join([self._heading(), *self._notes(), *map(_line_of, self._problems())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(row.outcome, _where(row), _detail(row)) for row in self._problems()]
        table = html_table(("outcome", "conversation or place", "detail"), rows) if rows else ""
        return "".join([note_html(self._heading(), "font-weight:600"), *map(note_html, self._notes()), table])

    def _heading(self) -> str:
        counts = Counter(row.outcome for row in self.rows)
        parts = [f"{counts[name]:,} {name}" for name in OUTCOMES if counts[name]] or ["no conversations"]
        new_turns = sum(row.new_turns for row in self.rows)
        parts += [f"{counted(new_turns, 'new turn')}"] if new_turns else []
        ending = " (dry run: nothing was written)" if self.dry_run else ""
        return f"{one_line(self.source)}: {' · '.join(parts)}{ending}"

    def _notes(self) -> list[str]:
        notes = {
            "left out": self.left_out,
            "models without a price": self.unpriced_models,
            "unknown types of records": self.unknown_types,
        }
        return [f"{name}: {_counts_text(counts)}" for name, counts in notes.items() if counts]

    def _problems(self) -> Sequence[ReportRow]:
        order = ("changed here", "skipped", "damaged")
        rows = [row for outcome in order for row in self.rows if row.outcome == outcome]
        if len(rows) <= MOST_ROWS:
            return rows
        more = ReportRow(outcome=rows[-1].outcome, place=f"… and {len(rows) - MOST_ROWS:,} more: .to_df() has all")
        return [*rows[:MOST_ROWS], more]

    def _ids(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(row.conversation_id for row in self.rows if row.outcome == outcome and row.conversation_id)


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{one_line(name)} ({count:,})" for name, count in counts.items())


def _where(row: ReportRow) -> str:
    return preview(row.conversation_id or row.place, DETAIL_CHARACTERS)


def _detail(row: ReportRow) -> str:
    return preview(row.detail, DETAIL_CHARACTERS)


def _line_of(row: ReportRow) -> str:
    return f"{row.outcome}: {_where(row)}{f' ({_detail(row)})' if row.detail else ''}"
