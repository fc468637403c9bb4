"""The dashboard of usage: its filters narrow everything, and one of the dearest conversations can be opened."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from promptkit_nb import MemoryStore, usage_dashboard
from storing import said

PNG = b"\x89PNG"


@pytest.fixture
def store() -> MemoryStore:
    """A store in memory of two users, with one conversation dearer than the other."""
    store = MemoryStore()
    for day, user, model, cost in ((1, "alice", "small", "0.5"), (2, "bob", "<b>large</b>", "2")):
        when = datetime(2026, 3, day, 12, tzinfo=UTC)
        turn = said(f"I am {user}", created_at=when, model=model, cost=Decimal(cost))
        store.append(f"{user}'s", turn, user_id=user)
    return store


def test_everything_is_shown_at_first(store: MemoryStore) -> None:
    """The total, two pictures, what models and users cost, and the dearest conversation first."""
    board = usage_dashboard(store)
    assert board.total.value == "2 turns · 20 tokens · $2.50"
    assert bytes(board.cost.value).startswith(PNG)
    assert bytes(board.tokens.value).startswith(PNG)
    assert "<td>small</td><td>1</td><td>8</td><td>0</td><td>2</td><td>0</td><td>$0.5000</td>" in board.tables.value
    assert [label for label, _ in board.dearest.options] == ["bob's · bob · $2.00", "alice's · alice · $0.5000"]


def test_filters_narrow_everything(store: MemoryStore) -> None:
    """User, model and days; a wrong order of days is said and changes nothing."""
    board = usage_dashboard(store)
    before = bytes(board.cost.value)
    board.user.value = "alice"
    assert board.total.value == "1 turns · 10 tokens · $0.5000"
    assert [value for _, value in board.dearest.options] == ["alice's"]
    assert bytes(board.cost.value) != before
    board.user.value = None
    board.since.value = date(2026, 3, 2)
    assert [value for _, value in board.dearest.options] == ["bob's"]
    board.until.value = date(2026, 3, 1)
    assert "is later than until" in board.total.value


def test_choosing_a_conversation_opens_it(store: MemoryStore) -> None:
    """What was said in it is shown below; where it is gone, that is said."""
    board = usage_dashboard(store)
    board.dearest.value = "alice's"
    assert "I am alice" in board.opened.value
    store.delete("bob's")
    board.dearest.value = "bob's"
    assert "There is no conversation" in board.opened.value


def test_names_are_text(store: MemoryStore) -> None:
    """A model's or user's name is no HTML."""
    assert "&lt;b&gt;large&lt;/b&gt;" in usage_dashboard(store).tables.value


def test_saved_notebook_keeps_a_picture(store: MemoryStore) -> None:
    """Beside the widget there is a picture for readers without widgets, and the total as text."""
    bundle = usage_dashboard(store)._repr_mimebundle_()
    assert b64decode(bundle["image/png"]).startswith(PNG)
    assert bundle["text/plain"] == "2 turns · 20 tokens · $2.50"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_empty_store_has_a_dashboard() -> None:
    """Nothing was paid."""
    board = usage_dashboard(MemoryStore())
    assert board.total.value == "0 turns · 0 tokens · $0.00"
    assert board.dearest.options == ()
