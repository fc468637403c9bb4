"""The conversations of a user, newest first, read page by page; and their first questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.errors import StoreError
from promptkit_nb.stores.row_reader import RowReader
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.text.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn

PAGE = 200
MOST_OPENING_TURNS = 5


def chats(store: StateStore, user_id: str, *, imported: bool = False) -> Iterator[Head]:
    """Yield the heads of a user's conversations, by default without imported ones, which cannot be continued."""
    offset = 0
    while page := store.list(user_id=user_id, limit=PAGE, offset=offset):
        yield from (head for head in page if imported or head.kind != "imported")
        offset += len(page)


def first_question(store: StateStore, conversation_id: str) -> str | None:
    """Return the first question of a conversation, whole, on one line; ``None`` without one.

    It is not read as an access would: its TTL goes on. A conversation that cannot be read has none here.
    """
    try:
        if isinstance(store, RowStore):
            return question_of(RowReader(store).opening(conversation_id, MOST_OPENING_TURNS))
        state = store.get(conversation_id)
    except StoreError:  # deleted meanwhile, or damaged
        return None
    return None if state is None else question_of(state.turns[:MOST_OPENING_TURNS])


def question_of(turns: Iterable[Turn]) -> str | None:
    """Return the first question of these turns, whole, on one line."""
    return next((one_line(turn.user_text) for turn in turns if turn.user_text.strip()), None)
