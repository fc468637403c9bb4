"""The history of a conversation, as text and as a notebook shows it: questions in bubbles, answers below them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.rendering.responses import Response, thinking_html
from promptkit_nb.rendering.tool_calls import answered_calls
from promptkit_nb.rendering.tool_lines import ToolLine, lines_of, tool_lines_html
from promptkit_nb.rendering.typed_values import stored_table
from promptkit_nb.text.plain_text import counted, preview
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE, Receipt, note_html, total_text
from promptkit_nb.turns import INTERRUPTED, Message, Turn

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState

_BUBBLE_STYLE = (
    "width:fit-content;max-width:80%;margin:12px 0 8px;padding:6px 12px 2px;border-radius:10px;"
    "background-color:rgba(128,128,128,.13)"
)
_STYLE = '<style>.jp-RenderedHTMLCommon:has(>[aria-label="assistant"]){padding-right:0!important}</style>'
_FOLDED = {"system": "System prompt", "tool": "Tool result"}
"""Messages of which a page shows one line, which unfolds."""


@dataclass(frozen=True, slots=True)
class Line:
    """A message as the history shows it, with a mark such as ``stale``.

    A page also shows the receipt of a turn below its answer, and the calls of tools with their results as ``calls``;
    a result that is among them is not shown again (``is_told``). ``table`` is the HTML of a typed answer.
    """

    message: Message
    mark: str = ""
    receipt: Receipt | None = None
    calls: tuple[ToolLine, ...] = ()
    is_told: bool = False
    table: str = ""

    def html(self) -> str:
        """Return the message as HTML that runs and fetches nothing."""
        if self.is_told:
            return ""
        message, below = self.message, self._note_html()
        text = _message_text(message)
        if message.role == "user":
            return f'<div role="group" aria-label="user" style="{_BUBBLE_STYLE}">{to_html(text)}</div>{below}'
        if message.role in _FOLDED:
            words = f"{_FOLDED[message.role]}: {preview(text)}"
            opened = f'<details style="{SMALL_STYLE};margin:4px 0"><summary {MATH_OFF}>{escape(words)}</summary>'
            return f"{opened}{to_html(text)}</details>{below}"
        thinking = thinking_html(message.thinking, "thought")
        shown = self.table or tool_lines_html(self.calls) or to_html(text)
        return f'<div role="group" aria-label="assistant">{thinking}{shown}{below}</div>'

    def _note_html(self) -> str:
        if self.receipt is not None:
            return self.receipt.html()
        return note_html(self.mark, "margin-top:2px") if self.mark else ""


@dataclass(frozen=True, slots=True)
class History(Sequence["Message"]):
    """The messages of a conversation in order, with its totals.

    ``lines``, if given, are shown in place of the messages: they add marks, receipts and previous answers.
    """

    messages: tuple[Message, ...]
    token_count: int
    total_cost: Decimal | None
    unpriced_turns: int
    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, state: ConversationState, *, stale: Collection[str] = (), versions: bool = False) -> History:
        """Return the history of a state; ``stale`` are ids of turns, ``versions`` adds previous answers."""
        lines = [] if state.system_prompt is None else [Line(Message("system", state.system_prompt))]
        for turn in state.turns:
            if versions:
                lines += _version_lines(state.versions.get(turn.id, ()))
            lines += _turn_lines(turn, "stale" if turn.id in stale else "")
        return cls(state.messages, state.token_count, state.total_cost, state.unpriced_turns, tuple(lines))

    def __len__(self) -> int:
        """Return the number of messages, including the system message."""
        return len(self.messages)

    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:  # type: ignore[override]  # a slice is a tuple
        """Return one message, or several."""
        return self.messages[index]

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages."""
        return iter(self.messages)

    def __str__(self) -> str:
        """Return a line for each message, then the totals."""
        lines = [
            f"{line.message.role:<9}  {preview(_message_text(line.message))}{f'  ({line.mark})' if line.mark else ''}"
            for line in self._shown_lines()
        ]
        return terminal_text("\n".join([*lines, self._totals()]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join([answer_style(), _STYLE, note_html(self._totals()), *map(Line.html, self._shown_lines())])

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


def _turn_lines(turn: Turn, mark: str) -> list[Line]:
    """Return the lines of a turn; its mark and receipt are on its last message."""
    lines = [*map(Line, turn.messages)]
    if turn.has_tool_calls:
        called = dict(zip((call.id for call, _, _ in answered_calls(turn)), lines_of(turn), strict=True))
        lines = [_with_calls(line, called) for line in lines]
    marks = [mark, turn.finish_reason if turn.finish_reason == INTERRUPTED else ""]
    joined, receipt = " · ".join(filter(None, marks)), _receipt(turn, mark)
    table = (stored_table(turn.value_json) or ("", ""))[1]
    return [*lines[:-1], *(replace(line, mark=joined, receipt=receipt, table=table) for line in lines[-1:])]


def _with_calls(line: Line, called: Mapping[str, ToolLine]) -> Line:
    """Return the line of a message with its answered calls, or as one of their results."""
    calls = tuple(called[call.id] for call in line.message.tool_calls if call.id in called)
    calls = calls if len(calls) == len(line.message.tool_calls) else ()
    told = called.get(line.message.tool_call_id or "")
    return replace(line, calls=calls, is_told=told is not None and told.told == line.message.content)


def _receipt(turn: Turn, mark: str) -> Receipt | None:
    """Return the receipt of a turn that a model answered, with a mark; it says itself how the answer ended."""
    if not turn.model:
        return None
    receipt = Receipt.of((Response.replay_of if turn.replayed else Response.of)(turn, ""), "")
    return receipt.plus(mark) if mark else receipt


def _version_lines(versions: Sequence[Turn]) -> Iterator[Line]:
    for number, turn in enumerate(versions, 1):
        name = f"version {number}"
        *before, answer = _turn_lines(turn, name if is_batch() else f"{name}, %chat_restore {turn.id}")
        yield from (replace(line, mark=name) for line in before)
        yield answer


def _message_text(message: Message) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n\n".join(filter(None, (message.text, *calls)))
