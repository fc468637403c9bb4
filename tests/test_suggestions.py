"""Near matches: few, sensible and in a stable order."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from time import process_time
from timeit import repeat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.text.near_names import Suggestions, did_you_mean, near_names, similar_names

if TYPE_CHECKING:
    from collections.abc import Callable


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
def test_near_names_are_at_most_two_typing_errors_away(name: str, known: list[str], near: tuple[str, ...]) -> None:
    """Two typing errors are allowed, one for short names; the name itself is left out; case does not count."""
    assert near_names(name, known) == near


def test_at_most_three_near_names_in_a_fixed_order() -> None:
    """Names that differ in case come first, then the nearest, then alphabetical order."""
    known = ["toolz", "toolb", "toola", "toolc", "TOOLX", "toolxy"]
    assert near_names("toolx", known) == ("TOOLX", "toola", "toolb")


@given(name=st.text(max_size=6), known=st.lists(st.text(max_size=6), max_size=5))
def test_order_of_the_known_names_does_not_matter(name: str, known: list[str]) -> None:
    """The suggestions do not depend on the order of the known names."""
    near = near_names(name, known)
    assert near == near_names(name, reversed(known))
    assert set(near) <= set(known) - {name}


def test_searches_end_when_they_are_used_up() -> None:
    """After the last search there are no suggestions."""
    suggestions = Suggestions(most=1)
    assert suggestions.near("tolos", ["tools"]) == ("tools",)
    assert suggestions.near("tolos", ["tools"]) == ()


def test_question_joins_the_names() -> None:
    """The question lists all names; without names it is empty."""
    assert did_you_mean(("a", "b")) == "; did you mean 'a' or 'b'?"
    assert did_you_mean(()) == ""


@pytest.mark.parametrize(
    ("name", "known", "similar"),
    [
        ("first-chad", ["first-chat", "plans"], ("first-chat",)),
        ("plan", ["plans", "tea"], ("plans",)),
        ("persistant-chat", ["persistent-chat", "tea"], ("persistent-chat",)),
        ("user:alice:2", ["user:bob:1", "user:alice:1"], ("user:alice:1",)),
        ("tea-4", ["tea-3", "tea-1", "tea-2", "tea-0"], ("tea-3", "tea-1", "tea-2")),
        ("FIRST-CHAT", ["first-chat"], ("first-chat",)),
        ("test.json", ["tests.pack.json", "notes.txt"], ("tests.pack.json",)),
        ("teh", ["the"], ("the",)),
        ("nam", ["name", "df"], ("name",)),
        ("x", ["y", "z"], ()),
        ("chat-12x", ["chat-192", "chat-129", "chat-120"], ("chat-129", "chat-120", "chat-192")),
        ("zzz", ["name", "df"], ()),
        ("name", ["name"], ()),
        ("", ["name"], ()),
    ],
)
def test_similar_names_are_the_ids_that_were_meant(name: str, known: list[str], similar: tuple[str, ...]) -> None:
    """Ids and file names may differ in more than two letters; case does not count, and the name itself is left out."""
    assert similar_names(name, known) == similar


def test_similar_names_find_what_difflib_found() -> None:
    """Every misspelling of an id for which the standard library has an answer has the same first answer here."""
    ids = ["first-chat", "plans", "persistent-chat", "user:alice:hello", "2026-03-04-tea", "thesis_draft"]
    misspelled = [f"{name[:at]}{change}{name[at + 1 :]}" for name in ids for at in range(len(name)) for change in "x "]
    misspelled += [name[:at] + name[at + 1 :] for name in ids for at in range(len(name))]
    assert [similar_names(name, ids)[0] for name in misspelled] == [
        get_close_matches(name, ids)[0] for name in misspelled
    ]


def test_fewest_letters_required_can_be_raised() -> None:
    """``least`` is the share of letters that both names have in the same order."""
    assert similar_names("--model-name", ["--model"]) == ("--model",)
    assert similar_names("--model-name", ["--model"], least=0.8) == ()


def test_searching_100_000_ids_takes_no_noticeable_time() -> None:
    """Whether all ids are similar or none is, it takes 0.02 to 0.1 s: less than half of difflib's time for none."""
    ids = [f"conversation-{number:06}" for number in range(100_000)]

    def seconds(find: Callable[..., object], name: str) -> float:
        return min(repeat(partial(find, name, ids), number=1, repeat=3, timer=process_time))

    ours = [seconds(find, name) for find in (near_names, similar_names) for name in ("first-chad", "conversation-01x")]
    assert max(ours) < seconds(get_close_matches, "first-chad") / 2
