"""Turns as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.views.batches import dollars_of
from promptkit_nb.views.filters import Filters, frame_of, is_shown
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import TURNS, described_by

if TYPE_CHECKING:
    import pandas as pd

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.filters import Moment, Status


@described_by(TURNS)
def turns_df(
    store: StateStore,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    conversation_id: str | None = None,
    status: Status = "current",
) -> pd.DataFrame:
    """Return one row a turn, conversation by conversation in the order of their ids.

    Its columns, in this order:

    {columns}

    Args:
        store: Where the conversations are.
        user_id: Those of this user only.
        prefix: Those whose id begins so only.
        since: Turns answered at or after this moment: an aware ``datetime``, a date, or either as ISO 8601 text.
        until: Turns answered before this moment; where it is a date, until that day's end in UTC.
        model: Turns that this model answered, or was asked for.
        conversation_id: The turns of this conversation only.
        status: ``"current"`` shows the turns that stand in their conversations and were said in them; ``"all"`` also
            former versions, those on branches, those that a fork copied, and summaries.

    Raises ``InvalidArgumentError`` for a filter that cannot be meant.

    >>> from promptkit_nb import MemoryStore, Message, Turn, Usage, turns_df
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")), usage=Usage(8, 2)))
    >>> turns_df(store)[["conversation_id", "user_text", "text", "total_tokens"]]
      conversation_id user_text   text  total_tokens
    0               a        Hi  Hello            10
    """
    filters = Filters.of(
        user_id=user_id,
        prefix=prefix,
        since=since,
        until=until,
        model=model,
        conversation_id=conversation_id,
        status=status,
    )
    batches = batches_of(store, filters, with_stale=True)
    shown = [_with_texts(batch).filter(is_shown(batch.turns, filters)) for batch in batches]
    return frame_of(_with_figures(pa.Table.from_batches(shown)), TURNS)


def _with_texts(batch: Batch) -> pa.RecordBatch:
    """Add what the user said first, and what the model answered last."""
    columns = {name: batch.turns[name] for name in batch.turns.schema.names}
    columns |= {"user_text": _text_of(batch, "user", last=False), "text": _text_of(batch, "assistant", last=True)}
    return pa.record_batch(columns)


def _text_of(batch: Batch, role: str, *, last: bool) -> pa.Array:
    """Return for each turn the first or last message of a role, missing where there is none."""
    turn_of = np.repeat(np.arange(len(batch.turns)), batch.turns["messages"].to_numpy())
    said = pc.equal(pc.cast(batch.messages["role"], pa.string()), role).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(said)[:: 1 if last else -1]
    row_of = np.full(len(batch.turns), -1)
    row_of[turn_of[rows]] = rows  # of several rows of a turn, the last one stays
    return batch.messages["content"].take(pa.array(row_of, mask=row_of < 0))


def _with_figures(turns: pa.Table) -> pa.Table:
    """Add what is computed: money for reading, and speed where there was any."""
    seconds = pc.divide(turns["latency_ms"], 1000.0)
    took_time = pc.greater(seconds, 0.0)
    speed = pc.if_else(took_time, pc.divide(pc.cast(turns["output_tokens"], pa.float64()), seconds), None)
    for name, column in (
        ("cost_usd", dollars_of(turns["cost"])),
        ("saved_usd", dollars_of(turns["saved"])),
        ("tokens_per_second", speed),
    ):
        turns = turns.append_column(name, column)
    return turns
