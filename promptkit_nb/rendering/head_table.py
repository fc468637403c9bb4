"""A list of conversations, to read."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.rendering.frontend import is_batch, shown_id
from promptkit_nb.rendering.note_html import MATH_OFF, note_html
from promptkit_nb.rendering.plain_text import one_line
from promptkit_nb.rendering.receipts import total_text

if TYPE_CHECKING:
    from promptkit_nb.state import Head


class HeadTable(list["Head"]):
    """Heads of conversations: a table in a notebook and in text. In a batch run it holds no times and no random ids."""

    def __repr__(self) -> str:
        """Return the table as text."""
        if not self:
            return "no conversations"
        rows = [_columns(), *map(_cells, self)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _repr_html_(self) -> str:
        if not self:
            return note_html("no conversations")
        heading = "".join(f"<th>{escape(name)}</th>" for name in _columns())
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(head))}</tr>" for head in self)
        return f"<table {MATH_OFF}><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"


def _columns() -> list[str]:
    return ["conversation", "user", "turns", "tokens", "cost", *([] if is_batch() else ["updated (UTC)"])]


def _cells(head: Head) -> list[str]:
    cells = [
        one_line(shown_id(head.conversation_id)),
        one_line(head.user_id),
        str(head.turn_count),
        f"{head.token_count:,}",
        total_text(head.total_cost, head.unpriced_turns),
    ]
    return cells if is_batch() else [*cells, f"{head.updated_at:%Y-%m-%d %H:%M}"]
