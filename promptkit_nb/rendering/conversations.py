"""Conversations as a notebook shows them: a table of heads, the history of one, and its tree of branches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch, shown_id
from promptkit_nb.ids import is_generated_id
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.rendering.responses import thinking_html
from promptkit_nb.state import Branch, ConversationState, Head
from promptkit_nb.text.plain_text import counted, one_line, preview
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE, note_html, total_text
from promptkit_nb.text.tables import ListTable, html_table
from promptkit_nb.turns import INTERRUPTED, Message, Turn

if TYPE_CHECKING:
    _NumberedTurn = tuple[int | None, Turn]

MAX_TITLE_CHARACTERS = 200
NEW_CONVERSATION = "New conversation"
MAX_UNFOLDED_TURNS = 20
FIRST_TURNS = 3
LAST_TURNS = 10

_CHILDREN_STYLE = ";margin-left:0.3em;border-left:1px solid rgba(128,128,128,0.5)"


_NOTEBOOK_ID = re.compile(r"nb:(.+):[0-9a-f]{8}(-\d+)?", re.DOTALL)


def title_of(conversation_id: str, metadata: Mapping[str, object]) -> str:
    """Return the title in the metadata of a conversation, else the file of its notebook, else its id.

    >>> title_of("nb:analysis:1c9353f9", {}), title_of("eda", {"title": "First look"})
    ('analysis.ipynb', 'First look')
    """
    notebook = _NOTEBOOK_ID.fullmatch(conversation_id)
    name = f"{notebook[1]}.ipynb" if notebook else conversation_id
    return given_title(metadata) or preview(name, MAX_TITLE_CHARACTERS)


def given_title(metadata: Mapping[str, object]) -> str | None:
    """Return the title in the metadata of a conversation, ``None`` if there is none.

    >>> given_title({"title": "First look"})
    'First look'
    """
    title = metadata.get("title")
    return preview(title, MAX_TITLE_CHARACTERS) if isinstance(title, str) and title.strip() else None


def noted_title(conversation: Head | ConversationState) -> str | None:
    r"""Return the title that was set, or the file name of the notebook, ``None`` without both.

    The notebook may be one of Windows, whose path is read on any system.

    >>> from promptkit_nb.state import ConversationState, NotebookNote
    >>> noted_title(ConversationState("a", notebook=NotebookNote(r"C:\work\eda.ipynb")))
    'eda.ipynb'
    """
    if (given := given_title(conversation.metadata)) is not None:
        return given
    path = "" if conversation.notebook is None else conversation.notebook.path
    windows = PureWindowsPath(path)
    return (windows.name if windows.drive else PurePosixPath(path).name) or None


def stored_title(conversation: Head | ConversationState) -> str | None:
    """Return the title that was set, or the name of the notebook, which its id may tell; ``None`` without both."""
    if (noted := noted_title(conversation)) is not None:
        return noted
    title = title_of(conversation.conversation_id, {})
    return None if title == preview(conversation.conversation_id, len(title)) else title


def shown_title(conversation: Head | ConversationState, question: str | None) -> str:
    """Return the title that was set, else the notebook's name, else an id that was chosen, else the first question.

    >>> from promptkit_nb.state import ConversationState
    >>> shown_title(ConversationState("sales-review"), "Why?")
    'sales-review'
    >>> shown_title(ConversationState("20261122T194501.123456-9f3ac2"), None)
    'New conversation'
    """
    own = conversation.conversation_id
    if (title := stored_title(conversation)) is not None:
        return title
    return (preview(question or "") or NEW_CONVERSATION) if is_generated_id(own) else title_of(own, {})


MAX_SHOWN_HEADS = 50


class HeadTable(ListTable[Head]):
    """Heads of conversations, shown as a table of the first 50. In a batch run it has no times and no generated ids.

    ``count`` is the number of all conversations, if the list has only some of them. A page shows titles, with the ids
    in tooltips and, if titles repeat, in a column; ``titles`` are those of conversations whose heads have none, by id.
    """

    _EMPTY = "no conversations"

    def __init__(
        self, heads: Iterable[Head] = (), *, count: int | None = None, titles: Mapping[str, str] | None = None
    ) -> None:
        """Show these heads."""
        super().__init__(heads)
        self._count = count
        self._titles = titles or {}

    def titled(self, titles: Mapping[str, str]) -> HeadTable:
        """Return the table with titles for conversations whose heads have none."""
        return HeadTable(self, count=self._count, titles=titles)

    def _repr_html_(self) -> str:
        if not self:
            return super()._repr_html_()
        shown = self[:MAX_SHOWN_HEADS]
        has_users = len({head.user_id for head in shown}) > 1
        users, times = ["user"] if has_users else [], [] if is_batch() else ["last used (UTC)"]
        rows = [self._html_cells(head, with_user=has_users) for head in shown]
        ids = [one_line(shown_id(head.conversation_id)) for head in shown]
        heading = ["conversation", *users, "turns", "cost", *times]
        if len({row[0].casefold() for row in rows}) < len(rows):  # a title alone does not say which one
            heading.append("id")
            rows = [[*row, own_id] for row, own_id in zip(rows, ids, strict=True)]
        table = html_table(heading, rows, ids)
        return "".join([table, *map(note_html, self._notes())])

    def _html_cells(self, head: Head, *, with_user: bool) -> list[str]:
        own = shown_id(head.conversation_id)
        title = given_title(head.metadata) or preview(self._titles.get(head.conversation_id, "")) or title_of(own, {})
        users = [one_line(head.user_id)] if with_user else []
        cost = total_text(head.total_cost, head.unpriced_turns)
        times = [] if is_batch() else [f"{head.updated_at:%Y-%m-%d %H:%M}"]
        return [title, *users, str(head.turn_count), cost, *times]

    def _heading(self) -> list[str]:
        titles, times = ["title"] if self._have_titles else [], [] if is_batch() else ["updated (UTC)"]
        return ["conversation", *titles, "user", "turns", "tokens", "cost", *times]

    def _cells(self) -> list[list[str]]:
        return [_cells(head, with_title=self._have_titles) for head in self[:MAX_SHOWN_HEADS]]

    @property
    def _have_titles(self) -> bool:
        return any(head.metadata.get("title") for head in self)

    def _notes(self) -> list[str]:
        """Return a line with the number of all conversations, if not all are shown."""
        shown, count = min(len(self), MAX_SHOWN_HEADS), max(self._count or 0, len(self))
        return [] if shown == count else [f"{shown} of {count:,} conversations"]


def _cells(head: Head, *, with_title: bool) -> list[str]:
    title = head.metadata.get("title")
    cells = [
        one_line(shown_id(head.conversation_id)),
        *([preview(str(title or ""))] if with_title else []),
        one_line(head.user_id),
        str(head.turn_count),
        f"{head.token_count:,}",
        total_text(head.total_cost, head.unpriced_turns),
    ]
    return cells if is_batch() else [*cells, f"{head.updated_at:%Y-%m-%d %H:%M}"]


@dataclass(frozen=True, slots=True)
class Line:
    """A message as the history shows it, with a mark such as ``stale``."""

    message: Message
    mark: str = ""


@dataclass(frozen=True, slots=True)
class History(Sequence["Message"]):
    """The messages of a conversation in order, with its totals.

    ``lines``, if given, are shown in place of the messages: they add marks and previous answers.
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
        rows = "".join(
            f'<div style="margin:0.5em 0">{_line_heading(line)}{thinking_html(line.message.thinking, "thought")}'
            f"{to_html(_message_text(line.message))}</div>"
            for line in self._shown_lines()
        )
        return f"{answer_style()}{rows}{note_html(self._totals())}"

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
    """Return the lines of a turn; the mark is on its last message."""
    marks = [mark, turn.finish_reason if turn.finish_reason == INTERRUPTED else ""]
    joined = " · ".join(filter(None, marks))
    return [*map(Line, turn.messages[:-1]), *(Line(message, joined) for message in turn.messages[-1:])]


def _version_lines(versions: Sequence[Turn]) -> Iterator[Line]:
    for number, turn in enumerate(versions, 1):
        name = f"version {number}"
        *before, answer = _turn_lines(turn, name if is_batch() else f"{name}, %chat_restore {turn.id}")
        yield from (Line(line.message, name) for line in before)
        yield answer


def _line_heading(line: Line) -> str:
    return note_html(f"{line.message.role} · {line.mark}" if line.mark else line.message.role, "font-weight:600")


def _message_text(message: Message) -> str:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n\n".join(filter(None, (message.text, *calls)))


@dataclass(frozen=True, slots=True)
class BranchTree:
    """The turns of a conversation, a line each, with its branches; text, and HTML in a notebook.

    A line has the number of the turn (from 1), the beginning of its question, and its marks: ``✎`` with the number of
    previous versions, ``stale``, ``replayed``, ``interrupted``. A branch is listed under the turn after which it was
    split off, with the id that ``restore`` takes; one split off at the beginning comes before the first turn.

    A conversation of more than 20 turns shows the first 3, the last 10 and those with a branch; a branch shows its
    first 3. One line counts the turns that are folded. The same conversation always gives the same tree; in a batch run
    the tree does not show the id of the conversation.

    >>> from promptkit_nb.state import ConversationState
    >>> BranchTree(ConversationState("eda"))
    eda · 0 turns
    """

    state: ConversationState
    stale: Collection[str] = ()

    def __str__(self) -> str:
        """Return the tree as text, with box characters."""
        return terminal_text("\n".join([self._title(), *_node_lines(self._nodes())]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<div {MATH_OFF}>{note_html(self._title(), 'font-weight:600')}{_nodes_html(self._nodes())}</div>"

    def _title(self) -> str:
        parts = [] if is_batch() else [preview(self.state.conversation_id)]
        parts.append(counted(len(self.state.turns), "turn"))
        if self.state.branches:
            count = len(self.state.branches)
            parts.append("1 branch" if count == 1 else f"{count} branches")
        return " · ".join(parts)

    def _nodes(self) -> list[_Node]:
        """Return the first level: branches split off at the beginning, then the turns with their branches."""
        turns = self.state.turns
        branches: dict[int, list[_Node]] = {}
        for branch in self.state.branches:
            after = 0 if branch.kind == "head" else min(max(branch.start, 0), len(turns))
            branches.setdefault(after, []).append(self._branch_node(branch))
        nodes = branches.get(0, [])
        folded: list[_NumberedTurn] = []
        for number, turn in enumerate(turns, 1):
            if self._is_folded(number) and number not in branches:
                folded.append((number, turn))
                continue
            nodes += self._fold(folded)
            folded = []
            nodes.append(self._turn_node(turn, number, branches.get(number, [])))
        return nodes

    def _is_folded(self, number: int) -> bool:
        count = len(self.state.turns)
        return count > MAX_UNFOLDED_TURNS and FIRST_TURNS < number <= count - LAST_TURNS

    def _turn_node(self, turn: Turn, number: int | None, branches: Sequence[_Node] = ()) -> _Node:
        width = len(str(len(self.state.turns)))
        prefix = "" if number is None else f"{number:>{width}}  "
        return _Node(f"{prefix}{preview(turn.user_text) or '(no text)'}", tuple(self._marks(turn)), tuple(branches))

    def _branch_node(self, branch: Branch) -> _Node:
        is_numbered = branch.kind == "tail" and branch.start >= 0
        turns: list[_NumberedTurn] = [
            (branch.start + number if is_numbered else None, turn) for number, turn in enumerate(branch.turns, 1)
        ]
        shown = [self._turn_node(turn, number) for number, turn in turns[:FIRST_TURNS]]
        parts = [preview(branch.id), counted(len(branch.turns), "turn")]
        parts += ["from the beginning"] if branch.kind == "head" else []
        return _Node(" · ".join(parts), (), (*shown, *self._fold(turns[FIRST_TURNS:])))

    def _fold(self, turns: Sequence[_NumberedTurn]) -> list[_Node]:
        """Return one line for several turns; a single turn keeps its own."""
        if len(turns) <= 1:
            return [self._turn_node(turn, number) for number, turn in turns]
        counts = Counter(mark.partition(" ")[0] for _, turn in turns for mark in self._marks(turn))
        marks = [
            f"{count} {'with previous versions' if mark == '✎' else mark}" for mark, count in sorted(counts.items())
        ]
        return [_Node(f"… {counted(len(turns), 'turn')}", tuple(marks))]

    def _marks(self, turn: Turn) -> Iterator[str]:
        versions = len(self.state.versions.get(turn.id, ()))
        if versions:
            yield f"✎ {counted(versions, 'previous version')}"
        if turn.id in self.stale:
            yield "stale"
        if turn.replayed:
            yield "replayed"
        if turn.finish_reason == INTERRUPTED:
            yield "interrupted"


@dataclass(frozen=True, slots=True)
class _Node:
    """A line of the tree, its marks, and the nodes below it."""

    line: str
    marks: tuple[str, ...] = ()
    children: tuple[_Node, ...] = ()


def _node_lines(nodes: Sequence[_Node], indent: str = "") -> Iterator[str]:
    for number, node in enumerate(nodes, 1):
        is_last = number == len(nodes)
        yield f"{indent}{'└─' if is_last else '├─'} {' · '.join([node.line, *node.marks])}"
        yield from _node_lines(node.children, f"{indent}{'   ' if is_last else '│  '}")


def _nodes_html(nodes: Sequence[_Node], style: str = "") -> str:
    if not nodes:
        return ""
    items = "".join(
        f'<li style="list-style:none;white-space:pre-wrap">{escape(node.line)}{_marks_html(node.marks)}'
        f"{_nodes_html(node.children, _CHILDREN_STYLE)}</li>"
        for node in nodes
    )
    return f'<ul style="margin:0;padding-left:1em{style}">{items}</ul>'


def _marks_html(marks: Sequence[str]) -> str:
    return f' <span style="{SMALL_STYLE}">{escape(" · ".join(marks))}</span>' if marks else ""
