"""Reads what a view shows from a store, a batch of conversations at a time, so that memory stays bounded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from promptkit_nb.chat.snapshot import stale_turns
from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.ids import check_own_user
from promptkit_nb.stores.checks import check_store
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.feed import Feed, record_of
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.views.batches import batch_of, marked
from promptkit_nb.views.lines import Lines
from promptkit_nb.views.row_cache import LINES_AT_ONCE, KeptStore, groups_of, kept_of, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.filters import Filters


def heads_of(store: StateStore, filters: Filters) -> list[Head]:
    """Return the heads of the conversations that are meant, in the order of their ids."""
    check_store(store)
    check_own_user(_user_of(store), filters.user_id)
    if filters.conversation_id is None:
        return store.list(filters.prefix, filters.user_id, "conversation_id", descending=False)
    with suppress(ConversationNotFoundError):
        head = store.head(filters.conversation_id)
        return [head] if filters.lets_through(head.conversation_id, head.user_id) else []
    return []


def batches_of(store: StateStore, filters: Filters, *, with_stale: bool = False) -> Iterator[Batch]:
    """Yield the conversations that are meant, in the order of their ids; at least one batch, which may be empty."""
    check_store(store)
    yield _nothing()
    user_id = _user_of(store)
    check_own_user(user_id, filters.user_id)
    if user_id is not None:
        filters = replace(filters, user_id=user_id)
    if isinstance(store, RowStore):
        yield from _fed(store, filters, with_stale=with_stale)
    else:
        yield from _gotten(store, filters, with_stale=with_stale)


def _user_of(store: StateStore) -> str | None:
    """Return the user that a store is narrowed to; a store that was not derived from ``StateStore`` has none."""
    return getattr(store, "user_id", None)


@cache
def _nothing() -> Batch:
    return batch_of(Lines())


def _fed(store: RowStore, filters: Filters, *, with_stale: bool) -> Iterator[Batch]:
    """Yield what a store of rows tells without making objects of it; of one on disk, what it told before is kept."""
    feed = Feed(store)
    records = _records(feed, filters)
    if isinstance(store, DiskStore):
        kept = kept_of(store)
        kept.refresh(feed, records, filters)
        yield from kept.batches(feed, records, with_stale=with_stale)
        return
    groups = list(groups_of(records))
    with reading(sum(turns for _, turns in groups)) as advance:
        for group, turns in groups:
            kept = KeptStore()
            kept.refresh(feed, {each: records[each] for each in group}, filters)
            yield from kept.batches(feed, group, with_stale=with_stale)
            advance(turns)


def _records(feed: Feed, filters: Filters) -> dict[str, bytes]:
    wanted = filters.conversation_id
    if wanted is None:
        return feed.records(filters.prefix, filters.user_id)
    stored = feed.record(wanted)
    if stored is None or not filters.lets_through(wanted, record_of(stored, wanted).user_id):
        return {}
    return {wanted: stored}


def _gotten(store: StateStore, filters: Filters, *, with_stale: bool) -> Iterator[Batch]:
    """Yield what any store tells, by its public calls."""
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
