"""Scopes of the ledger: the names under which spending is kept, so that a budget set later finds what was spent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

Per = Literal["conversation", "user", "day", "total"]


def scopes_of(conversation_id: str, user_id: str, now: datetime) -> dict[Per, str]:
    """Return the four scopes that a call spends in; the day is that of UTC.

    Ids may hold any text: ``:`` in them is escaped, so that no scope is another's. A conversation's scope names its
    user, as another user may take the id once it is deleted.

    >>> list(scopes_of("eda:1", "alice", datetime(2026, 3, 1, tzinfo=UTC)).values())
    ['conversation:alice:eda%3A1', 'user:alice', 'day:2026-03-01', 'total']
    """
    owner = _part(user_id)
    return {
        "conversation": f"conversation:{owner}:{_part(conversation_id)}",
        "user": f"user:{owner}",
        "day": f"day:{now.astimezone(UTC).date().isoformat()}",
        "total": "total",
    }


def is_visible_to(user_id: str, scope: str) -> bool:
    """Return whether a scope says nothing of another user: it is this one's, or everybody's.

    >>> [is_visible_to("alice", scope) for scope in ("user:alice", "conversation:bob:eda", "total")]
    [True, False, True]
    """
    kind, _, rest = scope.partition(":")
    return kind not in {"user", "conversation"} or rest.partition(":")[0] == _part(user_id)


def _part(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A")
