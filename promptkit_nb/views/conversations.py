"""Conversations as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from promptkit_nb.characters import visible
from promptkit_nb.codec import encode_json
from promptkit_nb.stores.damage import Damage
from promptkit_nb.views.columns import MISSING, Columns, Names, dollars, frame_of, texts, times
from promptkit_nb.views.filters import Filters, Moment, has_model
from promptkit_nb.views.reading import batches_of, heads_of, where_of
from promptkit_nb.views.schemas import CONVERSATIONS, documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import PriceSource
    from promptkit_nb.views.zones import TimeZone


_PRICE_SOURCES: tuple[PriceSource, ...] = ("list", "yours", "reported")
"""The sources of costs, least certain first."""


class CurrentTurns(NamedTuple):
    """Facts about the current turns that are not in a conversation's head; ``model`` is that of the newest answer.

    ``price_source`` is an index into ``_PRICE_SOURCES``, or its length if no turn has a price.
    """

    messages: int = 0
    stale: int = 0
    model: str | None = None
    has_model: bool = False
    price_source: int = len(_PRICE_SOURCES)

    @property
    def price_source_name(self) -> PriceSource | None:
        """The least certain source of the costs; ``None`` if no turn has a price."""
        return (*_PRICE_SOURCES, None)[self.price_source]


@documents(CONVERSATIONS)
def conversations_df(
    store: StateStore,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    source: str | None = None,
    price_source: PriceSource | None = None,
    conversation_id: str | None = None,
    tz: TimeZone | None = None,
    naive_utc: bool = False,
) -> pd.DataFrame:
    """Return one row per conversation, ordered by id, including those without turns.

    Its columns, in this order:

    {columns}

    ``cost_usd`` and ``total_tokens`` are everything that was paid for: replaced and archived turns and summaries
    count, replays and turns that a fork copied do not.

    Args:
        store: The store that holds the conversations.
        user_id: Only conversations of this user.
        prefix: Only conversations whose id starts with this.
        since: Only conversations last written at or after this moment, given as in ``turns_df``.
        until: Only conversations created before this moment. With ``since``: those active in between.
        model: Only conversations in which this model answered a current turn, or was asked to answer one.
        source: Only conversations from this source: ``"promptkit_nb"``, or the tool they were imported from.
        price_source: Only conversations with costs from this source, as in ``turns_df``.
        conversation_id: Only this conversation.
        tz: The time zone of the days in ``since`` and ``until``, as in ``turns_df``.
        naive_utc: Return times in UTC without a time zone, as in ``turns_df``, for ``to_excel``.

    Raises ``InvalidArgumentError`` for an invalid filter.

    >>> from promptkit_nb import ConversationState, MemoryStore, conversations_df
    >>> store = MemoryStore()
    >>> _ = store.create(ConversationState("a", "alice"))
    >>> conversations_df(store)[["conversation_id", "user_id", "turns"]]
      conversation_id user_id  turns
    0               a   alice      0
    """
    filters = Filters.given(locals())
    damage = Damage()
    current = _current_turns(store, filters, damage)
    heads = [
        head
        for head in heads_of(store, filters, damage)
        if head.conversation_id not in damage.errors
        and (filters.since is None or head.updated_at >= filters.since)
        and (filters.until is None or head.created_at < filters.until)
        and (model is None or current.get(head.conversation_id, CurrentTurns()).has_model)
        and source in (None, head.source)
        and price_source in (None, current.get(head.conversation_id, CurrentTurns()).price_source_name)
    ]
    damage.warn(where_of(store))
    columns = _columns(heads, [current.get(head.conversation_id, CurrentTurns()) for head in heads])
    return frame_of([columns], CONVERSATIONS, is_naive=naive_utc)


def _current_turns(store: StateStore, filters: Filters, damage: Damage) -> dict[str | None, CurrentTurns]:
    found: dict[str | None, CurrentTurns] = {}
    for batch in batches_of(store, filters, damage, with_stale=True):
        turns = batch.turns.select(batch.turns.arrays["position"] != MISSING)
        codes, models = turns.names["conversation_id"].codes, turns.names["model"]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))  # a conversation's rows are consecutive
        if not len(starts):
            continue
        has_models = np.zeros(len(codes), bool) if filters.model is None else has_model(turns, filters.model)
        price_sources = np.full(len(codes), len(_PRICE_SOURCES))
        for rank, name in enumerate(_PRICE_SOURCES):
            price_sources[turns.names["price_source"].equals(name)] = rank
        newest = np.maximum.reduceat(np.where(models.codes >= 0, np.arange(len(codes)), 0), starts)
        rows = zip(
            turns.names["conversation_id"][starts].values(),
            np.add.reduceat(turns.arrays["messages"], starts).tolist(),
            np.add.reduceat(turns.arrays["stale"], starts, dtype=np.int64).tolist(),
            models[np.maximum(newest, starts)].values(),
            np.logical_or.reduceat(has_models, starts).tolist(),
            np.minimum.reduceat(price_sources, starts).tolist(),
            strict=True,
        )
        for conversation_id, messages, stale, model, of_model, price_source in rows:
            before = found.get(conversation_id, CurrentTurns())
            found[conversation_id] = CurrentTurns(
                before.messages + messages,
                before.stale + stale,
                model or before.model,
                before.has_model or of_model,
                min(before.price_source, price_source),
            )
    return found


def _columns(heads: Sequence[Head], current: Sequence[CurrentTurns]) -> Columns:
    names = {
        "conversation_id": Names.of([head.conversation_id for head in heads]),
        "user_id": Names.of([head.user_id for head in heads]),
        "model": Names.of([turns.model for turns in current]),
        "source": Names.of([head.source for head in heads]),
        "price_source": Names.of([turns.price_source_name for turns in current]),
    }
    arrays = {
        "turns": np.array([head.turn_count for head in heads], np.int64),
        "messages": np.array([turns.messages for turns in current], np.int64),
        "stale_turns": np.array([turns.stale for turns in current], np.int64),
        "total_tokens": np.array([head.token_count for head in heads], np.int64),
        "cost_usd": dollars(np.array([head.total_cost for head in heads], object)),
        "unpriced_turns": np.array([head.unpriced_turns for head in heads], np.int64),
        "title": texts([_title_of(head) for head in heads]),
        "metadata": texts([visible(encode_json(head.metadata).decode()) for head in heads]),
        "created_at": times([head.created_at for head in heads]),
        "updated_at": times([head.updated_at for head in heads]),
    }
    return Columns(names, arrays)


def _title_of(head: Head) -> str | None:
    title = head.metadata.get("title")
    return visible(title) if isinstance(title, str) and title.strip() else None
