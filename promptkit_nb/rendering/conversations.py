"""Conversations as a notebook shows them: a table of heads, the history of one, and its tree of branches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch, shown_id
from promptkit_nb.ids import is_generated_id
from promptkit_nb.state import Branch, ConversationState, Head
from promptkit_nb.text.plain_text import counted, one_line, preview
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE, note_html, total_text
from promptkit_nb.text.tables import Cell, ListTable, html_table, time_cell
from promptkit_nb.turns import INTERRUPTED, Turn

if TYPE_CHECKING:
    _NumberedTurn = tuple[int | None, Turn]

MAX_TITLE_CHARACTERS = 200
NEW_CONVERSATION = "New conversation"
MAX_UNFOLDED_TURNS = 20
FIRST_TURNS = 3
LAST_TURNS = 10

_NODES_STYLE = "margin:0;padding:0;list-style:none;font-size:13px"
_CHILDREN_STYLE = ";margin-left:0.6em;padding-left:1em;border-left:1px solid rgba(128,128,128,.28)"
_NODE_STYLE = "list-style:none;margin:0"
_NODE_LINE_STYLE = "padding:4px 0;border-bottom:1px solid rgba(128,128,128,.28);overflow-wrap:anywhere"
_INDENT = ";padding-left:2.8em;text-indent:-2.8em"
_NUMBER_STYLE = (
    "text-indent:0;display:inline-block;min-width:2em;margin-right:.8em;text-align:right;font-variant-numeric:tabular-nums;"
    "color:var(--jp-ui-font-color2,#767676)"
)


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
        shown, now = self[:MAX_SHOWN_HEADS], datetime.now(UTC)
        has_users = len({head.user_id for head in shown}) > 1
        users, times = ["user"] if has_users else [], [] if is_batch() else ["last used"]
        rows = [self._html_cells(head, now, with_user=has_users) for head in shown]
        heading = ["conversation", *users, "turns", "cost", *times]
        if len({row[0].text.casefold() for row in rows}) < len(rows):  # a title alone does not say which one
            heading.append("id")
            rows = [[*row, Cell(row[0].title)] for row in rows]
        table = html_table(heading, rows, numbers=("turns", "cost"))
        return "".join([table, *map(note_html, self._notes())])

    def _html_cells(self, head: Head, now: datetime, *, with_user: bool) -> list[Cell]:
        own = shown_id(head.conversation_id)
        title = given_title(head.metadata) or preview(self._titles.get(head.conversation_id, "")) or title_of(own, {})
        users = [Cell(one_line(head.user_id))] if with_user else []
        cost = total_text(head.total_cost, head.unpriced_turns)
        times = [] if is_batch() else [time_cell(head.updated_at, now)]
        return [Cell(title, one_line(own)), *users, Cell(f"{head.turn_count:,}"), Cell(cost), *times]

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
        return f"<div {MATH_OFF}>{note_html(self._title(), 'margin-bottom:4px')}{_nodes_html(self._nodes())}</div>"

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
        prefix = "" if number is None else f"{number:>{width}}"
        words = preview(turn.user_text) or "(no text)"
        return _Node(words, tuple(self._marks(turn)), tuple(branches), number=prefix)

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
    """A line of the tree, its marks, and the nodes below it; ``number`` is that of its turn."""

    line: str
    marks: tuple[str, ...] = ()
    children: tuple[_Node, ...] = ()
    number: str = ""

    def text(self) -> str:
        """Return the line with its number and marks."""
        number = f"{self.number}  " if self.number else ""
        return " · ".join([f"{number}{self.line}", *self.marks])


def _node_lines(nodes: Sequence[_Node], indent: str = "") -> Iterator[str]:
    for number, node in enumerate(nodes, 1):
        is_last = number == len(nodes)
        yield f"{indent}{'└─' if is_last else '├─'} {node.text()}"
        yield from _node_lines(node.children, f"{indent}{'   ' if is_last else '│  '}")


def _nodes_html(nodes: Sequence[_Node], style: str = "") -> str:
    if not nodes:
        return ""
    items = "".join(
        f'<li style="{_NODE_STYLE}"><div style="{_NODE_LINE_STYLE}{_INDENT if node.number else ""}">'
        f"{_number_html(node)}{escape(node.line)}"
        f"{_marks_html(node.marks)}</div>{_nodes_html(node.children, _CHILDREN_STYLE)}</li>"
        for node in nodes
    )
    return f'<ul style="{_NODES_STYLE}{style}">{items}</ul>'


def _number_html(node: _Node) -> str:
    return f'<span style="{_NUMBER_STYLE}">{escape(node.number.strip())}</span>' if node.number else ""


def _marks_html(marks: Sequence[str]) -> str:
    return f' <span style="{SMALL_STYLE}">{escape(" · ".join(marks))}</span>' if marks else ""
