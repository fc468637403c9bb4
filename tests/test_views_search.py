"""Searching messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptkit_nb import InvalidArgumentError, MemoryStore, Message, Turn, search, turns_df
from promptkit_nb.characters import folded, visible
from promptkit_nb.views import row_cache
from promptkit_nb.views.schemas import SEARCH_RESULTS
from storing import rich_state, said

if TYPE_CHECKING:
    from storing import OpenStore


@pytest.fixture
def store() -> MemoryStore:
    """A memory store with three turns of two users."""
    store = MemoryStore()
    store.append("a", said("The quick brown fox", model="small"), user_id="alice")
    store.append("b", said("A lazy dog, a quick cat"), user_id="bob")
    store.append("b", said("Größe 100% (a.b)"), user_id="bob")
    return store


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("quick", ["a", "a", "b", "b"]),
        ("QUICK Fox", ["a", "a"]),
        ("cat dog", ["b", "b"]),
        ('"quick cat"', ["b", "b"]),
        ('"cat dog"', []),
        ("größe", ["b", "b"]),
        ("GRÖSSE", ["b", "b"]),
        ("100%", ["b", "b"]),
        ("(a.b)", ["b", "b"]),
        ("a.b)", ["b", "b"]),
        ("qu.ck", []),
        ("You", ["a", "b", "b"]),
    ],
)
def test_all_words_are_found_anywhere(store: MemoryStore, text: str, found: list[str]) -> None:
    """Words match in any order and case, also within words; none is a pattern."""
    assert list(search(store, text)["conversation_id"]) == found


def test_row_locates_the_message(store: MemoryStore) -> None:
    """A row has conversation, turn, role and snippet; columns match the schema, also without results."""
    row = search(store, "fox", user_id="alice").iloc[1]
    assert row[["conversation_id", "user_id", "position", "role", "snippet", "model", "status"]].tolist() == [
        "a",
        "alice",
        0,
        "assistant",
        "You said The quick brown fox.",
        "small",
        "current",
    ]
    for text in ("fox", "nowhere"):
        dtypes = {str(name): str(dtype) for name, dtype in search(store, text).dtypes.items()}
        assert dtypes == {column.name: column.dtype for column in SEARCH_RESULTS}


def test_snippet_is_one_short_line_around_the_word() -> None:
    """Long texts are cut on both sides; line breaks are removed, and escapes are visible."""
    store = MemoryStore()
    store.append("a", said(f"{'before ' * 50}\n the\tNEEDLE\x1b[31m \n{'after ' * 50}"))
    snippet = search(store, "needle")["snippet"].iloc[0]
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert "the NEEDLE␛[31m after" in snippet
    assert len(snippet) <= 102


def test_filters_and_status_narrow_the_search() -> None:
    """Filters apply as in the other views."""
    store = MemoryStore()
    store.create(rich_state())
    assert len(search(store, "zero")) == 0
    assert list(search(store, "zero", status="all")["status"]) == ["replaced", "replaced"]
    assert list(search(store, "talked", status="all")["role"]) == ["assistant"]
    assert len(search(store, "one", user_id="nobody")) == 0


@pytest.mark.parametrize("text", ["", "  \n", None, 5])
def test_search_for_nothing_is_refused(store: MemoryStore, text: Any) -> None:
    """An empty search would match everything."""
    with pytest.raises(InvalidArgumentError, match="give words to search for"):
        search(store, text)


def test_long_read_shows_a_progress_bar(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long read shows a progress bar, a short one does not."""
    turns_df(store)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(row_cache, "MIN_TURNS_FOR_PROGRESS", 1)
    monkeypatch.setattr(row_cache, "PROGRESS_DELAY_S", 0)
    turns_df(store)
    assert "Reading" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said_text", "searched"),
    [
        ("Das CAFÉ", "café"),
        ("Das cafe\u0301", "CAFÉ"),
        ("Das café", "cafe\u0301"),
        ("ОТЧЁТ за май", "отчёт"),
        ("ΟΔΟΣ", "οδος"),
        ("Die Straße", "STRASSE"),
        ("STRASSE", "straße"),
        ("가나다", "\u1100\u1161나다"),
        ("\u1100\u1161나다", "가나"),
        ("İstanbul", "i\u0307stanbul"),
    ],
)
def test_text_that_looks_equal_is_found(open_store: OpenStore, said_text: str, searched: str) -> None:
    """Composed or decomposed, in small or in capital letters; the snippet shows it as it was said."""
    store = open_store()
    store.append("a", said(f"{'é' * 40} {said_text} {'ü' * 200}"))
    store.append("b", said("something else"))
    found = search(store, searched)
    assert list(found["conversation_id"].unique()) == ["a"]
    assert said_text in found["snippet"].iloc[0]


def test_other_accents_are_not_found() -> None:
    """An accent is part of its letter."""
    store = MemoryStore()
    store.append("a", said("Das cafe\u0301"))
    assert len(search(store, "cafe")) == 0


@given(st.text(min_size=1), st.text(), st.text())
def test_every_part_of_a_text_is_found(word: str, before: str, after: str) -> None:
    """As it was said, and the snippet is never longer than it may be."""
    assume(word.strip() and '"' not in word and visible(word) == word)
    assume(folded(word.strip()) in folded(before + word + after))  # an accent that follows makes it another letter
    store = MemoryStore()
    store.append("a", Turn(messages=(Message("user", before + word + after),)))
    found = search(store, f'"{word}"')
    assert len(found) == 1
    assert len(found["snippet"].iloc[0]) <= 102
