"""The conversations next to the one a panel shows: searched, started, renamed, copied, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.ids import new_conversation_id
from promptkit_nb.panel.transcript import title_of
from promptkit_nb.state import ConversationState
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.state import Head

LONGEST_LIST = 100


def listed(conversation: Conversation, search: str = "") -> list[dict[str, object]]:
    """Return the user's conversations, newest first, as ``{"id", "title", "turns"}``.

    ``search`` is looked for in ids and titles, whatever the case.
    """
    wanted = search.strip().casefold()
    heads = conversation.store.list(user_id=conversation.user_id, limit=None if wanted else LONGEST_LIST)
    found = [head for head in heads if wanted in f"{head.conversation_id}\n{_title(head)}".casefold()][:LONGEST_LIST]
    return [{"id": head.conversation_id, "title": _title(head), "turns": head.turn_count} for head in found]


def begun_beside(conversation: Conversation, state: ConversationState) -> Conversation:
    """Begin an empty conversation of the same user, with the prompt and settings of ``state``.

    That is what the conversation was when it was read last: it may be deleted by now.
    """
    now = utc_now()
    fresh = ConversationState(
        conversation_id=new_conversation_id(now),
        user_id=state.user_id,
        system_prompt=state.system_prompt,
        settings=state.settings,
        created_at=now,
        updated_at=now,
    )
    conversation.store.create(fresh)
    return conversation.neighbour(fresh.conversation_id)


def copied(conversation: Conversation) -> Conversation:
    """Copy a conversation; the copy is called after it."""
    copy = conversation.fork(new_conversation_id(utc_now()))
    title = title_of(conversation.id, conversation.metadata)
    conversation.store.update_metadata(copy.id, title=f"{title} (copy)")
    return copy


def left_beside(conversation: Conversation) -> Conversation | None:
    """Return the user's newest conversation beside this one, ``None`` where there is none."""
    heads = conversation.store.list(user_id=conversation.user_id, limit=2)
    others = (head.conversation_id for head in heads if head.conversation_id != conversation.id)
    other = next(others, None)
    return None if other is None else conversation.neighbour(other)


def _title(head: Head) -> str:
    return title_of(head.conversation_id, head.metadata)
