"""Reads what a view shows from a store, a batch of conversations at a time, so that memory stays bounded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.stores.user_store import UserStore
from promptkit_nb.views.batches import batch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.filters import Filters

TURNS_AT_ONCE = 10_000


def heads_of(store: StateStore, filters: Filters) -> list[Head]:
    """Return the heads of the conversations that are meant, in the order of their ids."""
    if isinstance(store, UserStore):
        store.check_user(filters.user_id)
    if filters.conversation_id is None:
        return store.list(filters.prefix, filters.user_id, "conversation_id", descending=False)
    with suppress(ConversationNotFoundError):
        head = store.head(filters.conversation_id)
        return [head] if filters.lets_through(head) else []
    return []


def batches_of(store: StateStore, filters: Filters, *, with_stale: bool = False) -> Iterator[Batch]:
    """Yield the conversations that are meant; at least one batch, which may be empty."""
    waiting: list[ConversationState] = []
    turns = 0
    for state in _states_of(store, filters):
        waiting.append(state)
        turns += len(state.turns)
        if turns >= TURNS_AT_ONCE:
            yield batch_of(waiting, with_stale=with_stale)
            waiting, turns = [], 0
    yield batch_of(waiting, with_stale=with_stale)


def _states_of(store: StateStore, filters: Filters) -> Iterator[ConversationState]:
    for head in heads_of(store, filters):
        with suppress(ConversationNotFoundError):  # deleted since it was listed
            state = store.get(head.conversation_id)
            if state.user_id == head.user_id:  # else somebody else took the id since
                yield state
