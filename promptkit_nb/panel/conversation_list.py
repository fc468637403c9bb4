"""The user's conversations next to the one a panel shows: list, start, fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.ids import new_conversation_id
from promptkit_nb.rendering.conversations import title_of
from promptkit_nb.state import ConversationState
from promptkit_nb.stores.listing import chats
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation

MAX_LISTED = 100


def find(conversation: Conversation, search: str = "") -> list[dict[str, object]]:
    """Return the user's conversations, newest first, as ``{"id", "title", "turns"}``.

    ``search`` is matched with ids and titles, ignoring case.
    """
    wanted = search.strip().casefold()
    listed: list[dict[str, object]] = []
    for head in chats(conversation.store, conversation.user_id):
        title = title_of(head.conversation_id, head.metadata)
        if wanted in f"{head.conversation_id}\n{title}".casefold():
            listed.append({"id": head.conversation_id, "title": title, "turns": head.turn_count})
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
    title = title_of(conversation.id, conversation.metadata)
    conversation.store.update_metadata(copy.id, title=f"{title} (copy)")
    return copy


def newest_other(conversation: Conversation) -> Conversation | None:
    """Return the user's newest conversation other than this one, or None."""
    heads = chats(conversation.store, conversation.user_id)
    others = (head.conversation_id for head in heads if head.conversation_id != conversation.id)
    other = next(others, None)
    return None if other is None else conversation.neighbor(other)
