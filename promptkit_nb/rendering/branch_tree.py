"""A conversation with its branches and former versions as a small tree, to find what can be brought back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.rendering.frontend import is_batch
from promptkit_nb.rendering.history import preview
from promptkit_nb.rendering.note_html import MATH_OFF, note_html
from promptkit_nb.rendering.plain_text import counted
from promptkit_nb.state import ConversationState
from promptkit_nb.turns import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
