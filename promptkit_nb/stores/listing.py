"""The conversations that a user can continue, newest first, read page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore

PAGE = 200


def chats(store: StateStore, user_id: str) -> Iterator[Head]:
    """Yield the heads of a user's conversations, except imported ones."""
    offset = 0
    while page := store.list(user_id=user_id, limit=PAGE, offset=offset):
        yield from (head for head in page if head.kind != "imported")
        offset += len(page)
