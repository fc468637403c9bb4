"""A conversation with its branches as a tree, in text and HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.rendering.conversations import BranchTree
from promptkit_nb.state import Branch, ConversationState
from storing import said

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn

SCRIPT = "<script>alert(1)</script>"


def turns(count: int) -> tuple[Turn, ...]:
    """Return this many turns, starting with "Question 1" and the id "t1"."""
    return tuple(said(f"Question {n}", id=f"t{n}") for n in range(1, count + 1))


def test_tree_without_turns_is_its_title() -> None:
    """There are no lines."""
    assert str(BranchTree(ConversationState("eda"))) == "eda · 0 turns"


def test_a_turn_has_a_line() -> None:
    """It has the number and the beginning of the question."""
    assert str(BranchTree(ConversationState("eda", turns=turns(1)))) == "eda · 1 turn\n└─ 1  Question 1"


def test_marks_follow_the_question() -> None:
    """Previous versions, stale, replayed, interrupted."""
    asked = (
        said("Hi\n there", id="a"),
        said("x" * 61, id="b", replayed=True),
        said("", id="c", finish_reason="interrupted"),
    )
    state = ConversationState("eda", turns=asked, versions={"a": (said("Hi"), said("Ho"))})
    assert str(BranchTree(state, stale={"b"})).splitlines() == [
        "eda · 3 turns",
        "├─ 1  Hi there · ✎ 2 previous versions",
        f"├─ 2  {'x' * 59}… · stale · replayed",
        "└─ 3  (no text) · interrupted",
    ]


def test_branch_is_listed_where_it_was_split_off() -> None:
    """A tail under the turn before it, a head before the first turn; each with the id that restores it."""
    branches = (
        Branch(id="branch-1", turns=turns(2), start=1),
        Branch(id="branch-2", turns=turns(5), start=0, kind="head"),
        Branch(id="branch-3", turns=turns(1), start=9),
    )
    assert str(BranchTree(ConversationState("eda", turns=turns(2), branches=branches))).splitlines() == [
        "eda · 2 turns · 3 branches",
        "├─ branch-2 · 5 turns · from the beginning",
        "│  ├─ Question 1",
        "│  ├─ Question 2",
        "│  ├─ Question 3",
        "│  └─ … 2 turns",
        "├─ 1  Question 1",
        "│  └─ branch-1 · 2 turns",
        "│     ├─ 2  Question 1",
        "│     └─ 3  Question 2",
        "└─ 2  Question 2",
        "   └─ branch-3 · 1 turn",
        "      └─ 10  Question 1",
    ]


def test_cleared_conversation_shows_its_branches() -> None:
    """The previous turns can be found, and a single turn is not folded."""
    state = ConversationState("eda", branches=(Branch(id="branch-1", turns=turns(4), start=0),))
    assert str(BranchTree(state)).splitlines() == [
        "eda · 0 turns · 1 branch",
        "└─ branch-1 · 4 turns",
        "   ├─ 1  Question 1",
        "   ├─ 2  Question 2",
        "   ├─ 3  Question 3",
        "   └─ 4  Question 4",
    ]


def test_branch_without_a_start_has_no_numbers() -> None:
    """If turns before it were removed, no number would be right."""
    state = ConversationState("eda", turns=turns(1), branches=(Branch(id="b", turns=turns(1), start=-2),))
    assert str(BranchTree(state)).splitlines() == [
        "eda · 1 turn · 1 branch",
        "├─ b · 1 turn",
        "│  └─ Question 1",
        "└─ 1  Question 1",
    ]


def test_long_conversation_is_folded() -> None:
    """The first three turns, the last ten and those with a branch are listed; folded turns are counted."""
    state = ConversationState(
        "eda",
        turns=turns(300),
        branches=(Branch(id="branch-1", turns=turns(50), start=150),),
        versions={"t5": (said("x"),)},
    )
    lines = str(BranchTree(state, stale={f"t{n}" for n in range(100, 301)})).splitlines()
    assert lines[:12] == [
        "eda · 300 turns · 1 branch",
        "├─   1  Question 1",
        "├─   2  Question 2",
        "├─   3  Question 3",
        "├─ … 146 turns · 50 stale · 1 with previous versions",
        "├─ 150  Question 150 · stale",
        "│  └─ branch-1 · 50 turns",
        "│     ├─ 151  Question 1",
        "│     ├─ 152  Question 2",
        "│     ├─ 153  Question 3",
        "│     └─ … 47 turns · 1 with previous versions",
        "├─ … 140 turns · 140 stale",
    ]
    assert lines[12:] == [f"{'└─' if n == 300 else '├─'} {n}  Question {n} · stale" for n in range(291, 301)]


def test_twenty_turns_are_not_folded() -> None:
    """Of twenty-one, eight are folded."""
    assert str(BranchTree(ConversationState("eda", turns=turns(20)))).count("\n") == 20
    assert "├─ … 8 turns" in str(BranchTree(ConversationState("eda", turns=turns(21))))


def test_html_is_escaped() -> None:
    """Questions and ids are untrusted text."""
    branch = Branch(id=f"b{SCRIPT}", turns=(said(SCRIPT),), start=1)
    state = ConversationState(f"c{SCRIPT}", turns=(said(f"$x$ {SCRIPT}", id="a"),), branches=(branch,))
    html = BranchTree(state, stale={"a"})._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 4
    assert html.startswith('<div class="mathjax_ignore tex2jax_ignore">')
    assert (
        ">1</span>$x$ &lt;script&gt;alert(1)&lt;/script&gt; "
        '<span style="color:var(--jp-ui-font-color2,#767676);font-size:12px">stale</span></div><ul'
    ) in html


def test_control_characters_do_not_reach_a_terminal() -> None:
    """They are removed from questions and ids."""
    state = ConversationState("c\x1b[0m", turns=(said("\x1b[31mred\x07"),))
    assert str(BranchTree(state)) == "c[0m · 1 turn\n└─ 1  [31mred"
