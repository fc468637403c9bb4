"""Conversations as a notebook shows them: a list of them, the history of one, and its tree of branches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.frontend import is_batch, shown_id
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.state import ConversationState
from promptkit_nb.text.note_html import MATH_OFF, note_html
from promptkit_nb.text.plain_text import counted, one_line, preview
from promptkit_nb.text.receipts import total_text
from promptkit_nb.turns import INTERRUPTED, Message

if TYPE_CHECKING:
    from promptkit_nb.state import Head
    from promptkit_nb.turns import Turn


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


if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.state import Branch
    from promptkit_nb.turns import Turn

    _Place = tuple[int | None, Turn]

MAX_UNFOLDED_TURNS = 20
_FIRST_TURNS = 3
_LAST_TURNS = 10
_BELOW = ";margin-left:0.3em;border-left:1px solid rgba(128,128,128,0.5)"


@dataclass(frozen=True, slots=True)
class BranchTree:
    """The turns of a conversation, a line each, and where its branches left: text, and HTML in a notebook.

    A line has the turn's number (from 1), how its question begins, and what is special: ``✎`` and the number of former
    versions, ``stale``, ``replayed``, ``interrupted``. A branch stands under the turn after which it left, with the id
    that ``restore`` takes; one that left at the front stands before the first turn.

    Of more than 20 turns the first 3, the last 10 and those with a branch have a line, of a branch the first 3; a line
    counts what is folded between. The same conversation gives the same tree, and in a batch run no conversation's id.

    >>> from promptkit_nb.state import ConversationState
    >>> BranchTree(ConversationState("eda"))
    eda · 0 turns
    """

    state: ConversationState
    stale: Collection[str] = ()

    def __str__(self) -> str:
        """Return the tree as text, with box characters."""
        return "\n".join([self._title(), *_text_lines(self._nodes())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<div {MATH_OFF}>{note_html(self._title(), 'font-weight:600')}{_html_list(self._nodes())}</div>"

    def _title(self) -> str:
        state = self.state
        parts = [] if is_batch() else [preview(state.conversation_id)]
        parts.append(counted(len(state.turns), "turn"))
        if state.branches:
            parts.append("1 branch" if len(state.branches) == 1 else f"{len(state.branches)} branches")
        return " · ".join(parts)

    def _nodes(self) -> list[_Node]:
        """Return what stands at the first level: branches that left at the front, then turns with theirs."""
        turns = self.state.turns
        hanging: dict[int, list[Branch]] = {}
        for branch in self.state.branches:
            after = 0 if branch.kind == "head" else min(max(branch.start, 0), len(turns))
            hanging.setdefault(after, []).append(branch)
        nodes = [self._branch_node(branch) for branch in hanging.get(0, [])]
        folded: list[_Place] = []
        for number, turn in enumerate(turns, 1):
            if self._is_folded(number) and number not in hanging:
                folded.append((number, turn))
                continue
            nodes += self._fold(folded)
            folded = []
            nodes.append(self._turn_node(turn, number, [self._branch_node(each) for each in hanging.get(number, [])]))
        return nodes

    def _is_folded(self, number: int) -> bool:
        count = len(self.state.turns)
        return count > MAX_UNFOLDED_TURNS and _FIRST_TURNS < number <= count - _LAST_TURNS

    def _turn_node(self, turn: Turn, number: int | None, branches: Sequence[_Node] = ()) -> _Node:
        width = len(str(len(self.state.turns)))
        place = "" if number is None else f"{number:>{width}}  "
        return _Node(f"{place}{preview(turn.user_text) or '(no text)'}", tuple(self._marks(turn)), tuple(branches))

    def _branch_node(self, branch: Branch) -> _Node:
        is_numbered = branch.kind == "tail" and branch.start >= 0
        places: list[_Place] = [
            (branch.start + place if is_numbered else None, turn) for place, turn in enumerate(branch.turns, 1)
        ]
        shown = [self._turn_node(turn, number) for number, turn in places[:_FIRST_TURNS]]
        what = [preview(branch.id), counted(len(branch.turns), "turn")]
        what += ["a former beginning"] if branch.kind == "head" else []
        return _Node(" · ".join(what), (), (*shown, *self._fold(places[_FIRST_TURNS:])))

    def _fold(self, places: Sequence[_Place]) -> list[_Node]:
        """Return the line that stands for several turns; one alone keeps its own."""
        if len(places) <= 1:
            return [self._turn_node(turn, number) for number, turn in places]
        counts = Counter(mark.partition(" ")[0] for _, turn in places for mark in self._marks(turn))
        words = [f"{count} {'with former versions' if mark == '✎' else mark}" for mark, count in sorted(counts.items())]
        return [_Node(f"… {counted(len(places), 'turn')}", tuple(words))]

    def _marks(self, turn: Turn) -> Iterator[str]:
        former = len(self.state.versions.get(turn.id, ()))
        if former:
            yield f"✎ {counted(former, 'former version')}"
        if turn.id in self.stale:
            yield "stale"
        if turn.replayed:
            yield "replayed"
        if turn.finish_reason == INTERRUPTED:
            yield "interrupted"


@dataclass(frozen=True, slots=True)
class _Node:
    """A line of the tree, what is special about it, and what hangs below it."""

    line: str
    marks: tuple[str, ...] = ()
    children: tuple[_Node, ...] = ()


def _text_lines(nodes: Sequence[_Node], indent: str = "") -> Iterator[str]:
    for place, node in enumerate(nodes, 1):
        is_last = place == len(nodes)
        yield f"{indent}{'└─' if is_last else '├─'} {' · '.join([node.line, *node.marks])}"
        yield from _text_lines(node.children, f"{indent}{'   ' if is_last else '│  '}")


def _html_list(nodes: Sequence[_Node], style: str = "") -> str:
    if not nodes:
        return ""
    items = "".join(
        f'<li style="list-style:none;white-space:pre-wrap">{escape(node.line)}{_html_marks(node.marks)}'
        f"{_html_list(node.children, _BELOW)}</li>"
        for node in nodes
    )
    return f'<ul style="margin:0;padding-left:1em{style}">{items}</ul>'


def _html_marks(marks: Sequence[str]) -> str:
    if not marks:
        return ""
    return f' <span style="color:var(--jp-ui-font-color2,#666);font-size:85%">{escape(" · ".join(marks))}</span>'
