"""Turns as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptkit_nb.views.columns import MISSING, Array, Columns, dollars, frame_of, texts
from promptkit_nb.views.filters import Filters, Moment, Status, is_shown
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import TURNS, documents

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import PriceSource
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.zones import TimeZone


@documents(TURNS)
def turns_df(
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
    status: Status = "current",
    naive_utc: bool = False,
) -> pd.DataFrame:
    """Return one row per turn, ordered by conversation id.

    Its columns, in this order:

    {columns}

    Args:
        store: The store that holds the conversations.
        user_id: Only conversations of this user.
        prefix: Only conversations whose id starts with this.
        since: Only turns answered at or after this moment: an aware ``datetime``, a date, or either as ISO 8601 text.
        until: Only turns answered before this moment; a date includes that whole day.
        model: Only turns that this model answered, or was asked to answer.
        source: Only turns from this source: ``"promptkit_nb"``, or the tool they came from, such as ``"codex"``.
        price_source: Only turns with a cost that is ``"reported"`` by the server, computed from the price ``"list"``,
            or from prices of ``"yours"``.
        conversation_id: Only this conversation.
        tz: The time zone of the days in ``since`` and ``until``, such as ``"Europe/Berlin"``; UTC by default.
        status: ``"current"`` shows the current turns that were said in their conversation. ``"all"`` adds previous
            versions, turns on branches, turns that a fork copied, and summaries.
        naive_utc: Return times in UTC without a time zone, as ``to_excel`` needs them. ``to_excel`` of a view writes
            texts as texts, also if they begin with ``=``; a column alone is pandas' own, so write ``view[["text"]]``.

    Raises ``InvalidArgumentError`` for an invalid filter.

    >>> from promptkit_nb import MemoryStore, Message, Turn, Usage, turns_df
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")), usage=Usage(8, 2)))
    >>> turns_df(store)[["conversation_id", "user_text", "text", "total_tokens"]]
      conversation_id user_text   text  total_tokens
    0               a        Hi  Hello            10
    """
    filters = Filters.given(locals())
    batches = batches_of(store, filters, with_stale=True)
    shown = [shown_turns(batch, is_shown(batch.turns, filters)) for batch in batches]
    return frame_of(shown, TURNS, is_naive=naive_utc)


def shown_turns(batch: Batch, rows: NDArray[np.bool_]) -> Columns:
    """Return some turns with all columns of the view."""
    return _with_figures(_with_texts(batch).select(rows))


def _with_texts(batch: Batch) -> Columns:
    """Add the first text of the user and the last one of the model."""
    return batch.turns.with_arrays(
        user_text=_text_of(batch, "user", last=False), text=_text_of(batch, "assistant", last=True)
    )


def _text_of(batch: Batch, role: str, *, last: bool) -> Array:
    """Return for each turn the first or last message of a role, NaN if there is none."""
    counts = batch.turns.arrays["messages"]
    turn_of = np.repeat(np.arange(len(counts)), counts)
    rows = np.flatnonzero(batch.messages.names["role"].equals(role))[:: 1 if last else -1]
    found = np.full(len(counts), np.nan, object)
    contents = np.asarray(batch.messages.arrays["content"])
    found[turn_of[rows]] = contents[rows]  # of several rows of a turn, the last one stays
    return texts(found)


def _with_figures(turns: Columns) -> Columns:
    """Add costs in floating point, and the speed if the answer took any time."""
    seconds = turns.arrays["latency_ms"] / 1000
    output_tokens = turns.arrays["output_tokens"]
    has_speed = (seconds > 0) & (output_tokens != MISSING)
    speed = np.divide(output_tokens, seconds, out=np.full(len(seconds), np.nan), where=has_speed)
    return turns.with_arrays(
        cost_usd=dollars(turns.arrays["cost"]), saved_usd=dollars(turns.arrays["saved"]), tokens_per_second=speed
    )
