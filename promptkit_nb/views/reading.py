"""Reads what a view shows from a store, a batch of conversations at a time, so that memory stays bounded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.staleness import stale_turns
from promptkit_nb.stores.user_store import UserStore
from promptkit_nb.views.batches import batch_of, marked
from promptkit_nb.views.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.filters import Filters

LINES_AT_ONCE = 10_000


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
    lines = Lines()
    stale: set[tuple[str, str]] = set()
    for state in _states_of(store, filters):
        lines.add_state(state)
        if with_stale:
            stale |= {(state.conversation_id, turn_id) for turn_id in stale_turns(state)}
        if len(lines) >= LINES_AT_ONCE:
            yield marked(batch_of(lines), stale)
            lines = Lines()
    yield marked(batch_of(lines), stale)


def _states_of(store: StateStore, filters: Filters) -> Iterator[ConversationState]:
    for head in heads_of(store, filters):
        with suppress(ConversationNotFoundError):  # deleted since it was listed
            state = store.get(head.conversation_id)
            if state.user_id == head.user_id:  # else somebody else took the id since
                yield state
