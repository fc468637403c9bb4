"""Titles of the user's conversations: to list them, to complete them, and to find one by its title."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.ids import is_generated_id
from promptkit_nb.rendering.conversations import stored_title
from promptkit_nb.stores.listing import chats, first_question
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
        if head.turn_count and is_generated_id(head.conversation_id) and stored_title(head) is None:
            question = first_question(store, head.conversation_id)
            if question:
                titles[head.conversation_id] = preview(question)
    return titles


def titles_of(store: StateStore, user_id: str) -> Iterator[tuple[str, str]]:
    """Yield id and title of the user's newest conversations, without imported ones."""
    for head in islice(chats(store, user_id), MOST_COMPLETED):
        yield head.conversation_id, stored_title(head) or head.conversation_id


def id_of(store: StateStore, user_id: str, title: str) -> str | None:
    """Return the id of the conversation with this title, ``None`` if no conversation has it.

    Raises ``InvalidArgumentError`` if several have it.
    """
    found = [head.conversation_id for head in chats(store, user_id) if stored_title(head) == title]
    if len(found) > 1:
        ids = ", ".join(map(repr, found))
        raise InvalidArgumentError(f"Several conversations have the title {title!r}: give an id, one of {ids:.300}.")
    return found[0] if found else None
