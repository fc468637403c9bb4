"""Conversations as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.codec import encode_json
from promptkit_nb.views.batches import TEXT, TIME, dollars_of, money_of, names_of
from promptkit_nb.views.filters import Filters, frame_of, is_of_model
from promptkit_nb.views.reading import batches_of, heads_of
from promptkit_nb.views.schemas import CONVERSATIONS, described_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import Moment

_NOTHING: dict[str, Any] = {"messages_sum": 0, "stale_sum": 0, "model_last": None, "of_model_max": False}


@described_by(CONVERSATIONS)
def conversations_df(
    store: StateStore,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    conversation_id: str | None = None,
) -> pd.DataFrame:
    """Return one row a conversation, in the order of their ids; those without turns, too.

    Its columns, in this order:

    {columns}

    ``cost_usd`` and ``total_tokens`` are all that was paid for: replaced and archived turns and summaries count, those
    of replays and of turns copied by a fork do not.

    Args:
        store: Where the conversations are.
        user_id: Those of this user only.
        prefix: Those whose id begins so only.
        since: Conversations last written at or after this moment; which moments there are, see ``turns_df``.
        until: Conversations created before this moment. Together: those that were going on in between.
        model: Conversations in which this model answered a turn that stands there, or was asked for one.
        conversation_id: This one only.

    Raises ``InvalidArgumentError`` for a filter that cannot be meant.

    >>> from promptkit_nb import ConversationState, MemoryStore, conversations_df
    >>> store = MemoryStore()
    >>> _ = store.create(ConversationState("a", "alice"))
    >>> conversations_df(store)[["conversation_id", "user_id", "turns"]]
      conversation_id user_id  turns
    0               a   alice      0
    """
    filters = Filters.of(
        user_id=user_id, prefix=prefix, since=since, until=until, model=model, conversation_id=conversation_id
    )
    figures = _figures(store, filters)
    heads = [
        head
        for head in heads_of(store, filters)
        if (filters.since is None or head.updated_at >= filters.since)
        and (filters.until is None or head.created_at < filters.until)
        and (model is None or figures.get(head.conversation_id, _NOTHING)["of_model_max"])
    ]
    return frame_of(_table(heads, [figures.get(head.conversation_id, _NOTHING) for head in heads]), CONVERSATIONS)


def _figures(store: StateStore, filters: Filters) -> dict[str, dict[str, Any]]:
    """Return by conversation what its head does not say of the turns that stand in it."""
    standing = []
    for batch in batches_of(store, filters, with_stale=True):
        turns = batch.turns
        columns = {
            "conversation_id": pc.cast(turns["conversation_id"], pa.string()),
            "messages": turns["messages"],
            "stale": pc.cast(turns["stale"], pa.int64()),
            "model": pc.cast(turns["model"], pa.string()),
            "of_model": is_of_model(turns, filters.model),
        }
        standing.append(pa.record_batch(columns).filter(pc.is_valid(turns["position"])))
    aggregates = [("messages", "sum"), ("stale", "sum"), ("model", "last"), ("of_model", "max")]
    grouped = pa.Table.from_batches(standing).group_by("conversation_id", use_threads=False).aggregate(aggregates)
    return {row.pop("conversation_id"): row for row in grouped.to_pylist()}


def _table(heads: Sequence[Head], figures: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.table(
        {
            "conversation_id": names_of(head.conversation_id for head in heads),
            "user_id": names_of(head.user_id for head in heads),
            "turns": pa.array([head.turn_count for head in heads], pa.int64()),
            "messages": pa.array([each["messages_sum"] for each in figures], pa.int64()),
            "stale_turns": pa.array([each["stale_sum"] for each in figures], pa.int64()),
            "total_tokens": pa.array([head.token_count for head in heads], pa.int64()),
            "cost_usd": dollars_of(money_of([head.total_cost for head in heads])),
            "unpriced_turns": pa.array([head.unpriced_turns for head in heads], pa.int64()),
            "model": names_of(each["model_last"] for each in figures),
            "metadata": pa.array([encode_json(head.metadata).decode() for head in heads], TEXT),
            "created_at": pa.array([head.created_at for head in heads], TIME),
            "updated_at": pa.array([head.updated_at for head in heads], TIME),
        }
    )
