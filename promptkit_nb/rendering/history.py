"""What was said in a conversation, to read: rich in a notebook, a plain table in text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.rendering.frontend import is_batch
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.note_html import note_html
from promptkit_nb.rendering.plain_text import counted, one_line
from promptkit_nb.rendering.receipts import total_text
from promptkit_nb.turns import INTERRUPTED, Message

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState
    from promptkit_nb.turns import Turn

PREVIEW_CHARACTERS = 60


def preview(text: str, characters: int = PREVIEW_CHARACTERS) -> str:
    r"""Return the beginning of a text on one line, with an ellipsis where it was cut.

    >>> preview("Hello,\n  world", 8)
    'Hello, …'
    """
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


@dataclass(frozen=True, slots=True)
class Line:
    """One message as it is shown, and what is special about it, such as ``stale``."""

    message: Message
    mark: str = ""


@dataclass(frozen=True, slots=True)
class History(Sequence["Message"]):
    """The messages of a conversation in their order, and what they took.

    ``lines`` are what is shown instead, where given: the messages with their marks and former answers between them.
    """

    messages: tuple[Message, ...]
    token_count: int
    total_cost: Decimal | None
    unpriced_turns: int
    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, state: ConversationState, *, stale: Collection[str] = (), versions: bool = False) -> History:
        """Return the messages of a state; ``stale`` are ids of turns, ``versions`` shows former answers, too."""
        lines = [] if state.system_prompt is None else [Line(Message("system", state.system_prompt))]
        for turn in state.turns:
            if versions:
                lines += _former_lines(state.versions.get(turn.id, ()))
            lines += _lines_of(turn, "stale" if turn.id in stale else "")
        return cls(state.messages, state.token_count, state.total_cost, state.unpriced_turns, tuple(lines))

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
        lines = [
            f"{line.message.role:<9}  {preview(_shown(line.message))}{f'  ({line.mark})' if line.mark else ''}"
            for line in self._shown_lines()
        ]
        return "\n".join([*lines, self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="margin:0.5em 0">{_heading(line)}{to_html(_shown(line.message))}</div>'
            for line in self._shown_lines()
        )
        return f"{rows}{note_html(self._totals())}"

    def _shown_lines(self) -> tuple[Line, ...]:
        return self.lines or tuple(map(Line, self.messages))

    def _totals(self) -> str:
        return " · ".join(
            [
                counted(len(self.messages), "message"),
                f"{self.token_count:,} tokens",
                total_text(self.total_cost, self.unpriced_turns),
            ]
        )


def _lines_of(turn: Turn, mark: str) -> list[Line]:
    """Return the lines of a turn; what is special about it stands at its last message."""
    marks = [mark, turn.finish_reason if turn.finish_reason == INTERRUPTED else ""]
    shown = " · ".join(each for each in marks if each)
    return [*map(Line, turn.messages[:-1]), *(Line(message, shown) for message in turn.messages[-1:])]


def _former_lines(former: Sequence[Turn]) -> Iterator[Line]:
    for number, turn in enumerate(former, 1):
        name = f"version {number}"
        *said, answer = _lines_of(turn, name if is_batch() else f"{name}, %chat_restore {turn.id}")
        yield from (Line(line.message, name) for line in said)
        yield answer


def _heading(line: Line) -> str:
    return note_html(f"{line.message.role} · {line.mark}" if line.mark else line.message.role, "font-weight:600")


def _shown(message: Message) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n\n".join(part for part in (message.content, *calls) if part)
