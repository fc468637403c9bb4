"""The user's conversations next to the one a panel shows: list, start, fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.ids import is_generated_id, new_conversation_id
from promptkit_nb.rendering.conversations import shown_title, stored_title
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.listing import chats, first_question, question_of
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.search_thread import Search
    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore

MAX_LISTED = 100


class Titles:
    """Titles of conversations; the first question of one without a title is read again only after it has changed."""

    def __init__(self) -> None:
        """Know no questions yet."""
        self._questions: dict[str, tuple[object, str | None]] = {}  # by id, with the revision

    def of(self, head: Head, store: StateStore) -> str:
        """Return the title to show for a conversation of this store."""
        own, revision = head.conversation_id, (head.revision, head.created_at)
        needs_question = is_generated_id(own) and head.turn_count and stored_title(head) is None
        if needs_question and self._questions.get(own, (None, None))[0] != revision:
            self._questions[own] = revision, first_question(store, own)
        return self.known(head)

    def known(self, head: Head) -> str:
        """Return the title of a conversation as far as it can be told without reading its turns."""
        return shown_title(head, self._questions.get(head.conversation_id, (None, None))[1])


def title_of_state(state: ConversationState) -> str:
    """Return the title to show for a conversation that was read."""
    return shown_title(state, question_of(state.turns))


def find(conversation: Conversation, titles: Titles, search: Search) -> list[dict[str, object]]:
    """Return the user's conversations that match, newest first, as ``{"id", "title", "turns"}``.

    The text of the search is matched with ids and titles, ignoring case.
    """
    wanted = search.text.casefold()
    listed: list[dict[str, object]] = []
    for head in chats(conversation.store, conversation.user_id):
        own = head.conversation_id
        if own in search.found_in or wanted in f"{own}\n{titles.known(head)}".casefold():
            title = titles.of(head, conversation.store)
            listed.append({"id": own, "title": title, "turns": head.turn_count})
        if len(listed) == MAX_LISTED:
            break
    return listed


def start(conversation: Conversation, state: ConversationState) -> Conversation:
    """Start an empty conversation of the same user, with the prompt and settings of ``state``.

    ``state`` is the conversation as it was last read; it may have been deleted since.
    """
    now = utc_now()
    started = ConversationState(
        conversation_id=new_conversation_id(now),
        user_id=state.user_id,
        system_prompt=state.system_prompt,
        settings=state.settings.as_own(),
        created_at=now,
        updated_at=now,
    )
    conversation.store.create(started)
    return conversation.neighbor(started.conversation_id)


def fork(conversation: Conversation) -> Conversation:
    """Fork a conversation; the copy is titled after it."""
    copy = conversation.fork(new_conversation_id(utc_now()))
    title = title_of_state(conversation.snapshot().state)
    conversation.store.update_metadata(copy.id, title=f"{title} (copy)")
    return copy


def newest_other(conversation: Conversation) -> Conversation | None:
    """Return the user's newest conversation other than this one, or None."""
    heads = chats(conversation.store, conversation.user_id)
    others = (head.conversation_id for head in heads if head.conversation_id != conversation.id)
    other = next(others, None)
    return None if other is None else conversation.neighbor(other)
