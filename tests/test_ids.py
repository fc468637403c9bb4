"""Ids: valid ones, new ones that sort by age, and hierarchical ones that cannot be forged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.errors import InvalidArgumentError, InvalidConversationIdError
from promptkit_nb.ids import check_conversation_id, check_user_id, new_conversation_id, scoped_id

PARTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())


@given(PARTS)
def test_any_text_that_is_not_blank_is_an_id(text: str) -> None:
    """It is returned unchanged, for conversations and for users."""
    assert check_conversation_id(text) == check_user_id(text) == text


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("", "it is blank"),
        (" \n\t\u3000", "it is blank"),
        ("x" * 1001, "it has 1001 characters, more than 1000"),
        ("a\ud83d", "half of a character"),
        (None, "it is of type NoneType, not text"),
        (7, "it is of type int, not text"),
        (b"a", "it is of type bytes, not text"),
    ],
)
def test_invalid_id_is_refused_with_its_problem(bad: Any, problem: str) -> None:
    """A conversation's id has its own error class; a user's id is an invalid argument."""
    with pytest.raises(InvalidConversationIdError, match=problem):
        check_conversation_id(bad)
    with pytest.raises(InvalidArgumentError, match=problem):
        check_user_id(bad)


def test_error_shows_a_long_id_shortened_and_printable() -> None:
    """One line that any terminal can show."""
    with pytest.raises(InvalidConversationIdError) as caught:
        check_conversation_id("\ud83d" + "x" * 999)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isascii()


def test_fresh_id_shows_its_time() -> None:
    """UTC to the microsecond, then six random hexadecimal digits."""
    now = datetime(2026, 11, 22, 19, 45, 1, 123456, tzinfo=UTC)
    assert new_conversation_id(now, b"\x9f\x3a\xc2") == "20261122T194501.123456-9f3ac2"


def test_fresh_ids_are_distinct_within_one_moment() -> None:
    """100 ids of the same microsecond are all different."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert len({new_conversation_id(now) for _ in range(100)}) == 100


@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=5, unique=True))
def test_fresh_ids_sort_by_their_time(microseconds: list[int]) -> None:
    """As text, without parsing."""
    start = datetime(2000, 1, 1, tzinfo=UTC)
    ids = [new_conversation_id(start + timedelta(microseconds=us)) for us in sorted(microseconds)]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("user", "alice", "session", "1"), "user:alice:session:1"),
        (("one",), "one"),
        (("user", "alice:admin"), "user:alice%3Aadmin"),
        (("user", "alice%3Aadmin"), "user:alice%253Aadmin"),
        (("a/b", "ü", " x "), "a/b:ü: x "),
    ],
)
def test_parts_are_joined_and_escaped(parts: tuple[str, ...], expected: str) -> None:
    """Only ``:`` and ``%`` are escaped."""
    assert scoped_id(*parts) == expected


@pytest.mark.parametrize("parts", [(), ("",), ("user", " "), ("user", None), ("x" * 600, "y" * 600), ("a", "\ud83d")])
def test_parts_that_make_no_id_are_refused(parts: tuple[Any, ...]) -> None:
    """No part, a blank one, another type, too long together."""
    with pytest.raises(InvalidConversationIdError):
        scoped_id(*parts)


@given(st.lists(PARTS, min_size=1, max_size=5), st.lists(PARTS, min_size=1, max_size=5))
def test_different_parts_never_make_the_same_id(one: list[str], other: list[str]) -> None:
    """No user id can produce another user's scoped id."""
    assert (scoped_id(*one) == scoped_id(*other)) == (one == other)


@given(st.lists(PARTS, min_size=1, max_size=3), st.lists(PARTS, min_size=1, max_size=3))
def test_prefix_ends_at_a_part(scope: list[str], other: list[str]) -> None:
    """``scoped_id(...) + ":"`` begins the ids below it, and no others."""
    assert (scoped_id(*other) + ":").startswith(scoped_id(*scope) + ":") == (other[: len(scope)] == scope)
