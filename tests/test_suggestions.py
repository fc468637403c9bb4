"""Near matches: few, sensible, and in an order that never changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.text.near_names import Suggestions, did_you_mean, near_names


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("fail_on_violaton", ["fail_on_violation", "params"], ("fail_on_violation",)),
        ("tolos", ["tools"], ("tools",)),
        ("xyzzy", ["tools", "evals"], ()),
        ("ends", ["end"], ("end",)),
        ("endxx", ["end"], ()),
        ("b", ["a"], ()),
        ("tools", ["tools"], ()),
        ("TOOLS", ["tools", "tool"], ("tools",)),
        ("", ["a", ""], ()),
    ],
)
def test_near_names_are_those_that_may_be_meant(name: str, known: list[str], near: tuple[str, ...]) -> None:
    """Two letters apart, one where the known name is short; never the name itself; case does not count."""
    assert near_names(name, known) == near


def test_equally_near_names_come_by_name_and_at_most_three() -> None:
    """Case first, then the fewest changes, then the alphabet."""
    known = ["toolz", "toolb", "toola", "toolc", "TOOLX", "toolxy"]
    assert near_names("toolx", known) == ("TOOLX", "toola", "toolb")


@given(name=st.text(max_size=6), known=st.lists(st.text(max_size=6), max_size=5))
def test_order_of_the_known_names_does_not_matter(name: str, known: list[str]) -> None:
    """What is suggested depends on the names only, and comes from them."""
    near = near_names(name, known)
    assert near == near_names(name, reversed(known))
    assert set(near) <= set(known) - {name}


def test_searches_end_when_they_are_used_up() -> None:
    """In a file that is wrong throughout, the first suggestions do."""
    suggestions = Suggestions(most=1)
    assert suggestions.near("tolos", ["tools"]) == ("tools",)
    assert suggestions.near("tolos", ["tools"]) == ()


def test_question_joins_the_names() -> None:
    """One, several or no question."""
    assert did_you_mean(("a", "b")) == "; did you mean 'a' or 'b'?"
    assert did_you_mean(()) == ""
