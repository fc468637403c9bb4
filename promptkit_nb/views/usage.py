"""What was paid, as a DataFrame: tokens and dollars by day, model, user or whatever else they are asked by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.views.batches import dollars_of
from promptkit_nb.views.filters import Filters, frame_of, is_meant
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import KEYS, TIME, USAGE, described_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import Moment

_SUMS = {
    "turns": "paid",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_tokens": "cached_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "total_tokens": "total_tokens",
    "cost": "cost",
    "unpriced_turns": "unpriced",
}


_KEYS = {column.name: column for column in KEYS}
_PERIODS = {column.name for column in KEYS if column.dtype == TIME}


@described_by(USAGE)
def usage_df(
    store: StateStore,
    by: str | Sequence[str] = ("day", "model"),
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    conversation_id: str | None = None,
) -> pd.DataFrame:
    """Return what was paid, one row a group, in the order of the groups; with ``by=[]`` one row in all.

    The columns of ``by``, and then:

    {columns}

    All that was paid counts: replaced and archived turns and summaries, too; replays, and turns that a fork copied, do
    not. The sums are exact. What was paid for turns that the store was told to forget has neither day nor model any
    more: both are missing there, its ``status`` is ``dropped``, and of its tokens only ``total_tokens`` is known.

    Args:
        store: Where the conversations are.
        by: One or several of ``hour``, ``day``, ``week``, ``month`` (of which one at most, all in UTC),
            ``conversation_id``, ``user_id``, ``model``, ``provider``, ``cell_id``, ``finish_reason``, ``status``.
        user_id: As the other filters and what they raise, as in ``turns_df``.
        prefix: Those whose id begins so only.
        since: What was answered at or after this moment.
        until: What was answered before this moment; where it is a date, until that day's end in UTC.
        model: What this model answered, or was asked for.
        conversation_id: This conversation only.

    >>> from decimal import Decimal
    >>> from promptkit_nb import MemoryStore, Message, Turn, Usage, usage_df
    >>> store = MemoryStore()
    >>> hello = Turn(messages=(Message("user", "Hi"),), usage=Usage(8, 2), cost=Decimal("0.0019"), model="small")
    >>> _ = store.append("a", hello)
    >>> usage_df(store, by="model")[["model", "turns", "total_tokens", "cost_usd"]]
       model  turns  total_tokens  cost_usd
    0  small      1            10    0.0019
    """
    keys = _checked(by)
    filters = Filters.of(
        user_id=user_id, prefix=prefix, since=since, until=until, model=model, conversation_id=conversation_id
    )
    partial = [_summed(_paid(batch.turns, keys, filters), keys) for batch in batches_of(store, filters)]
    total = _summed(pa.concat_tables(partial), keys)
    total = total.sort_by([(key, "ascending") for key in keys]) if keys else _with_zeros(total)
    total = total.append_column("cost_usd", dollars_of(total["cost"]))
    return frame_of(total, (*(_KEYS[key] for key in keys), *USAGE))


def _checked(by: str | Sequence[str]) -> list[str]:
    if not isinstance(by, Iterable):
        raise InvalidArgumentError(f"by={by!r:.80} is no list: give one or several of {', '.join(_KEYS)}.")
    keys = [key.strip() for key in by.split(",")] if isinstance(by, str) else list(by)
    unknown = [key for key in keys if key not in list(_KEYS)]
    if unknown:
        raise InvalidArgumentError(f"by={unknown[0]!r:.80} is unknown: use any of {', '.join(_KEYS)}.")
    if len(set(keys)) < len(keys):
        raise InvalidArgumentError(f"by={by!r:.80} names something twice; name each once.")
    return keys


def _paid(turns: pa.RecordBatch, keys: Sequence[str], filters: Filters) -> pa.Table:
    """Return keys and figures of the calls that were paid for."""
    columns = {key: _key(turns, key) for key in keys} | {name: turns[source] for name, source in _SUMS.items()}
    meant = pc.and_(is_meant(turns, filters), pc.greater(turns["paid"], 0))
    return pa.table(columns).filter(meant)


def _key(turns: pa.RecordBatch, key: str) -> pa.Array:
    if key in _PERIODS:
        return pc.floor_temporal(turns["created_at"], unit=key)
    return pc.cast(turns[key], pa.string())


def _summed(calls: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return one row a group; a sum of nothing known is missing."""
    summed = calls.group_by(list(keys), use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    return pa.table({key: summed[key] for key in keys} | {name: summed[f"{name}_sum"] for name in _SUMS})


def _with_zeros(total: pa.Table) -> pa.Table:
    """Return the one row of everything with 0 where there was nothing at all."""
    if total["turns"][0].as_py():
        return total
    return pa.table({name: pc.fill_null(total[name], pa.scalar(0).cast(total[name].type)) for name in _SUMS})
