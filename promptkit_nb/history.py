"""What was said in a conversation, to read: rich in a notebook, a plain table in text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.markdown import to_html
from promptkit_nb.note_html import note_html
from promptkit_nb.plain_text import counted, one_line
from promptkit_nb.receipts import total_text
from promptkit_nb.turns import Message

if TYPE_CHECKING:
    from promptkit_nb.state import Head

PREVIEW_CHARACTERS = 60


def preview(text: str, characters: int = PREVIEW_CHARACTERS) -> str:
    r"""Return the beginning of a text on one line, with an ellipsis where it was cut.

    >>> preview("Hello,\n  world", 8)
    'Hello, …'
    """
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


@dataclass(frozen=True, slots=True)
class History(Sequence["Message"]):
    """The messages of a conversation in their order, and what they took."""

    messages: tuple[Message, ...]
    token_count: int
    total_cost: Decimal | None
    unpriced_turns: int

    @classmethod
    def of(cls, messages: tuple[Message, ...], head: Head) -> History:
        """Return the messages with the totals of the head."""
        return cls(messages, head.token_count, head.total_cost, head.unpriced_turns)

    def __len__(self) -> int:
        """Return the number of messages, the system one included."""
        return len(self.messages)

    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:  # type: ignore[override]  # a slice is a tuple
        """Return one message, or several."""
        return self.messages[index]

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages."""
        return iter(self.messages)

    def __str__(self) -> str:
        """Return one line a message, then the totals."""
        lines = [f"{message.role:<9}  {preview(_shown(message))}" for message in self.messages]
        return "\n".join([*lines, self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="margin:0.5em 0">{note_html(message.role, "font-weight:600")}{to_html(_shown(message))}</div>'
            for message in self.messages
        )
        return f"{rows}{note_html(self._totals())}"

    def _totals(self) -> str:
        return " · ".join(
            [
                counted(len(self.messages), "message"),
                f"{self.token_count:,} tokens",
                total_text(self.total_cost, self.unpriced_turns),
            ]
        )


def _shown(message: Message) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n\n".join(part for part in (message.content, *calls) if part)
