"""Reads what a view shows from a store, in batches of conversations, so that memory stays bounded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from promptkit_nb.chat.stored_conversation import stale_turns
from promptkit_nb.errors import ConversationNotFoundError, StoreCorruptedError
from promptkit_nb.ids import check_own_user
from promptkit_nb.stores.checks import check_store
from promptkit_nb.stores.damage import Damage
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.layout import record_of
from promptkit_nb.stores.row_reader import RowReader
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.views.batches import Batch, TurnLines, batch_of, with_stale_turns
from promptkit_nb.views.row_cache import LINES_PER_BATCH, RowCache, read_in_groups, row_cache_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.stores.kept_usage import KeptUsage
    from promptkit_nb.views.filters import Filters


def heads_of(store: StateStore, filters: Filters, damage: Damage) -> list[Head]:
    """Return the heads of the selected conversations, ordered by id; add unreadable ones to ``damage``."""
    check_store(store)
    check_own_user(_user_of(store), filters.user_id)
    filters = _as_stored(store, filters)
    if filters.conversation_id is None and isinstance(store, RowStore):
        heads, left_out = store.readable_heads(filters.prefix, filters.user_id, "conversation_id", descending=False)
        damage.include(left_out)
        return heads
    if filters.conversation_id is None:
        return store.list(filters.prefix, filters.user_id, "conversation_id", descending=False)
    with suppress(ConversationNotFoundError):
        head = store.head(filters.conversation_id)
        return [head] if filters.selects(head.conversation_id, head.user_id) else []
    return []


def batches_of(
    store: StateStore, filters: Filters, damage: Damage | None = None, *, with_stale: bool = False
) -> Iterator[Batch]:
    """Yield the selected conversations, ordered by id, in at least one batch, which may be empty.

    Unreadable conversations are added to ``damage``, if the caller passes it; otherwise a warning names them at the
    end. If a single conversation is selected, its error is raised.
    """
    found = Damage() if damage is None else damage
    yield from _all_batches(store, filters, found, with_stale=with_stale)
    if filters.conversation_id is not None and found.errors:
        raise next(iter(found.errors.values()))
    if damage is None:
        found.warn(where_of(store), stacklevel=4)


def where_of(store: StateStore) -> str:
    """Return the location of a store, for messages."""
    return store.backend.where if isinstance(store, RowStore) else repr(store)


def _all_batches(store: StateStore, filters: Filters, damage: Damage, *, with_stale: bool) -> Iterator[Batch]:
    check_store(store)
    yield _empty_batch()
    user_id = _user_of(store)
    check_own_user(user_id, filters.user_id)
    filters = _as_stored(store, filters)
    if user_id is not None:
        filters = replace(filters, user_id=user_id)
    if isinstance(store, RowStore):
        yield from _batches_of_rows(store, filters, damage, with_stale=with_stale)
    else:
        yield from _batches_of_states(store, filters, damage, with_stale=with_stale)


def _as_stored(store: StateStore, filters: Filters) -> Filters:
    """Return the filters with ids and prefix in their stored form, which may be a canonically equivalent text."""
    if not isinstance(store, RowStore):
        return filters
    return replace(
        filters,
        conversation_id=filters.conversation_id and store.stored_id(filters.conversation_id),
        user_id=filters.user_id and store.stored_user(filters.user_id),
        prefix=filters.prefix and store.stored_prefix(filters.prefix),
    )


def kept_usage_of(store: StateStore, filters: Filters) -> tuple[KeptUsage, ...]:
    """Return the amounts of calls without a stored turn; these have no id, so filters by id exclude them."""
    read = getattr(store, "kept_usage", None)
    if read is None or filters.prefix or filters.conversation_id is not None:
        return ()
    kept: tuple[KeptUsage, ...] = read(user_id=filters.user_id)
    return kept


def kept_batch(kept: tuple[KeptUsage, ...], zone: tzinfo) -> Batch:
    """Return the amounts of calls without a stored turn, as a batch; their days are those of the zone."""
    lines = TurnLines()
    lines.add_kept(kept, zone)
    return batch_of(lines)


def _user_of(store: StateStore) -> str | None:
    """Return the user that a store is narrowed to; a store that does not inherit from ``StateStore`` has none."""
    return getattr(store, "user_id", None)


@cache
def _empty_batch() -> Batch:
    return batch_of(TurnLines())


def _batches_of_rows(store: RowStore, filters: Filters, damage: Damage, *, with_stale: bool) -> Iterator[Batch]:
    """Yield the rows of a store without making objects of them; those of a store on disk are cached."""
    reader = RowReader(store)
    records = _records(reader, filters)
    if isinstance(store, DiskStore):
        yield from row_cache_of(store).batches(reader, records, filters, damage, with_stale=with_stale)
        return
    for group in read_in_groups(records, damage):
        read = {each: records[each] for each in group}
        yield from RowCache().batches(reader, read, filters, damage, with_stale=with_stale)


def _records(reader: RowReader, filters: Filters) -> dict[str, bytes]:
    conversation_id = filters.conversation_id
    if conversation_id is None:
        return reader.records(filters.prefix, filters.user_id)
    stored = reader.record(conversation_id)
    if stored is None or not filters.selects(conversation_id, record_of(stored, conversation_id).user_id):
        return {}
    return {conversation_id: stored}


def _batches_of_states(store: StateStore, filters: Filters, damage: Damage, *, with_stale: bool) -> Iterator[Batch]:
    """Yield the conversations of any store, read through its public methods."""
    lines = TurnLines()
    stale: set[tuple[str, str]] = set()
    for state in _states_of(store, filters, damage):
        lines.add_state(state)
        if with_stale:
            stale |= {(state.conversation_id, turn_id) for turn_id in stale_turns(state)}
        if len(lines) >= LINES_PER_BATCH:
            yield with_stale_turns(batch_of(lines), stale)
            lines = TurnLines()
    yield with_stale_turns(batch_of(lines), stale)


def _states_of(store: StateStore, filters: Filters, damage: Damage) -> Iterator[ConversationState]:
    for head in heads_of(store, filters, damage):
        try:
            state = store.get(head.conversation_id)
        except ConversationNotFoundError:  # deleted after it was listed
            continue
        except StoreCorruptedError as error:
            damage.add(head.conversation_id, error)
            continue
        if state.user_id == head.user_id:  # otherwise, another user reused the id
            yield state
