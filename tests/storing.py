"""Shared by tests of stores: a clock that is set by hand, and turns and states to store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from promptkit_nb.stores.base import StateStore
from promptkit_nb.testing.expectations import full_state
from promptkit_nb.turns import Message, Turn, Usage

if TYPE_CHECKING:
    from promptkit_nb.state import ConversationState

OpenStore = Callable[..., StateStore]

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    now = START

    def __call__(self) -> datetime:
        """Return the current time."""
        return self.now

    def pass_s(self, seconds: float) -> None:
        """Let this many seconds pass."""
        self.now += timedelta(seconds=seconds)


class Foreign:
    """A custom store with nothing but the public calls."""

    def __init__(self, store: StateStore) -> None:
        """Wrap a store."""
        self.store = store

    def __getattr__(self, name: str) -> Any:
        """Forward the call."""
        return getattr(self.store, name)


def said(text: str, **fields: Any) -> Turn:
    """Return a turn with this user message."""
    messages = (Message("user", text), Message("assistant", f"You said {text}."))
    return Turn(messages=messages, **{"usage": Usage(8, 2), "cost": Decimal("0.001"), "created_at": START, **fields})


def texts(turns: tuple[Turn, ...]) -> list[str]:
    """Return the user messages of these turns."""
    return [turn.user_text for turn in turns]


def rich_state(conversation_id: str = "rich") -> ConversationState:
    """Return a state in which every field is set."""
    return replace(full_state(conversation_id), created_at=START, updated_at=START + timedelta(minutes=1))
