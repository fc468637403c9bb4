"""Titles of the user's conversations: to list them, to complete them, and to find one by its title."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from promptkit_nb.characters import composed
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import is_batch
from promptkit_nb.ids import is_generated_id
from promptkit_nb.rendering.conversations import stored_title
from promptkit_nb.stores.listing import chats, first_question
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import counted, one_line, preview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore

MOST_COMPLETED = 200
"""The newest conversations that are completed."""

MOST_QUESTIONS = 500
"""The newest conversations that are found by their first question."""

MOST_CANDIDATES = 5
"""The newest conversations of one title that an error names."""


def shown_titles(store: StateStore, heads: Iterable[Head]) -> dict[str, str]:
    """Return the titles under which conversations are listed, on one line each, by id.

    A title is the one that was set, else the notebook's name, else, if the id was generated, the first question. A
    conversation without any is left out. Questions are not read as an access would: their TTL goes on.
    """
    titles: dict[str, str] = {}
    for head in heads:
        title = stored_title(head)
        if title is None and head.turn_count and is_generated_id(head.conversation_id):
            title = first_question(store, head.conversation_id)
        if title:
            titles[head.conversation_id] = title
    return titles


def titles_of(store: StateStore, user_id: str) -> Iterator[tuple[str, str]]:
    """Yield id and title of the user's newest conversations, without imported ones."""
    for head in islice(chats(store, user_id), MOST_COMPLETED):
        yield head.conversation_id, stored_title(head) or head.conversation_id


def id_of(store: StateStore, user_id: str, text: str) -> str | None:
    """Return the id of the user's conversation that is listed under this title, ``None`` if there is none.

    The title may be cut, as lists show it, and case does not count. An imported conversation is found only if no other
    one has the title. Raises ``InvalidArgumentError``, which tells them apart, if several have it.
    """
    heads = list(chats(store, user_id, imported=True))
    titles = _titles_by_id(store, heads)
    having = [head for head in heads if _is_title(text, titles.get(head.conversation_id))]
    found = [head for head in having if head.kind != "imported"] or having
    if len(found) > 1:
        shown = ", ".join(map(_candidate, found[:MOST_CANDIDATES]))
        more = f" and {len(found) - MOST_CANDIDATES} more" if len(found) > MOST_CANDIDATES else ""
        raise InvalidArgumentError(
            f"{len(found)} conversations have the title {preview(text)!r}; give the id of one: {shown}{more}."
        )
    return found[0].conversation_id if found else None


def near_names(store: StateStore, user_id: str, text: str) -> tuple[str, ...]:
    """Return up to three ids and titles of the user's conversations that are like a text."""
    heads = list(chats(store, user_id, imported=True))
    titles = _titles_by_id(store, [head for head in heads if head.kind != "imported"])
    return similar_names(text, [*(head.conversation_id for head in heads), *dict.fromkeys(titles.values())])


def _titles_by_id(store: StateStore, heads: Sequence[Head]) -> dict[str, str]:
    """Return the titles of conversations, newest first; questions, which have to be read, of the newest only."""
    older = ((head.conversation_id, stored_title(head)) for head in heads[MOST_QUESTIONS:])
    return shown_titles(store, heads[:MOST_QUESTIONS]) | {each: title for each, title in older if title}


def _is_title(text: str, title: str | None) -> bool:
    """Return whether a text is a title, or its beginning and an ellipsis."""
    if title is None:
        return False
    wanted, known = (composed(one_line(each)).casefold() for each in (text, title))
    return wanted == known or (len(wanted) > 1 and wanted.endswith("…") and known.startswith(wanted[:-1]))


def _candidate(head: Head) -> str:
    parts = [counted(head.turn_count, "turn")]
    parts += [] if is_batch() else [f"last used {head.updated_at:%Y-%m-%d %H:%M} UTC"]
    return f"{head.conversation_id!r} ({', '.join(parts)})"
