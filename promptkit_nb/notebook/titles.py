"""Titles of the user's conversations: to list them, to complete them, and to find one by its title."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError, StoreError
from promptkit_nb.ids import is_generated_id
from promptkit_nb.rendering.conversations import given_title, title_of
from promptkit_nb.stores.listing import chats
from promptkit_nb.stores.row_reader import RowReader
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.text.plain_text import preview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore

MOST_COMPLETED = 200
"""The newest conversations that are completed."""


def questions_as_titles(store: StateStore, heads: Iterable[Head]) -> dict[str, str]:
    """Return the first questions of conversations that have neither a title nor a telling id, by id.

    They are not read as an access would: their TTL goes on.
    """
    titles: dict[str, str] = {}
    for head in heads:
        if head.turn_count and is_generated_id(head.conversation_id) and _title(head) is None:
            question = _first_question(store, head.conversation_id)
            if question:
                titles[head.conversation_id] = question
    return titles


def titles_of(store: StateStore, user_id: str) -> Iterator[tuple[str, str]]:
    """Yield id and title of the user's newest conversations, without imported ones."""
    for head in islice(chats(store, user_id), MOST_COMPLETED):
        yield head.conversation_id, _title(head) or head.conversation_id


def id_of(store: StateStore, user_id: str, title: str) -> str | None:
    """Return the id of the conversation with this title, ``None`` if no conversation has it.

    Raises ``InvalidArgumentError`` if several have it.
    """
    found = [head.conversation_id for head in chats(store, user_id) if _title(head) == title]
    if len(found) > 1:
        ids = ", ".join(map(repr, found))
        raise InvalidArgumentError(f"Several conversations have the title {title!r}: give an id, one of {ids:.300}.")
    return found[0] if found else None


def _title(head: Head) -> str | None:
    """Return the title that was set, or the name of the notebook, ``None`` without both."""
    if (given := given_title(head.metadata)) is not None:
        return given
    if head.notebook is not None and head.notebook.path:
        return head.notebook.path.replace("\\", "/").rpartition("/")[2]
    title = title_of(head.conversation_id, {})
    return None if title == preview(head.conversation_id, len(title)) else title


def _first_question(store: StateStore, conversation_id: str) -> str | None:
    try:
        state = RowReader(store).state(conversation_id) if isinstance(store, RowStore) else store.get(conversation_id)
    except StoreError:  # deleted meanwhile, or damaged: the list shows its id
        return None
    turns = () if state is None else state.turns
    return next((preview(turn.user_text) for turn in turns if turn.user_text.strip()), None)
