"""Usage as a DataFrame: the tokens and dollars that were paid for, by day, model, user or other keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, localcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.views.columns import MISSING, Array, Columns, Names, dollars, frame_of, integers
from promptkit_nb.views.filters import Filters, Moment, passes
from promptkit_nb.views.reading import batches_of, kept_batch, kept_usage_of
from promptkit_nb.views.schemas import KEYS, USAGE, documents
from promptkit_nb.views.zones import PERIODS, TimeZone, period_starts

if TYPE_CHECKING:
    from datetime import tzinfo

    import pandas as pd

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import PriceSource
    from promptkit_nb.views.batches import Batch

_SUMS = {
    "turns": "paid",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_tokens": "cached_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "total_tokens": "total_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cost": "cost",
    "unpriced_turns": "unpriced",
}
"""The figures of a group, and the columns of turns that they are sums of."""

_KEYS = {column.name: column for column in KEYS}
_EXACT = Context(prec=100)

MAX_READS = 3
"""How often reading is repeated if conversations are deleted meanwhile."""

Group = tuple[Any, ...]
"""The values of the keys: names, times, or ``None``."""


@documents(USAGE)
def usage_df(
    store: StateStore,
    by: str | Sequence[str] = ("day", "model"),
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
    """Return what was paid for, one row per group, sorted by group; with ``by=[]``, one row for everything.

    The columns of ``by``, and then:

    {columns}

    Everything that was paid for counts, including replaced and archived turns and summaries; replays and turns that a
    fork copied do not. Sums are exact. The spending on turns that the store was told to forget has no day and no model:
    both are missing, its ``status`` is ``dropped``, and only its ``total_tokens`` are known.

    Deleted and expired conversations count, too, and so do calls that left no turn, such as a refused summary: their
    ``status`` is ``kept``, their ``conversation_id`` is missing, and only the day of their time is known. A filter by
    id excludes them.

    Args:
        store: The store that holds the conversations.
        by: One or several of ``hour``, ``day``, ``week``, ``month`` (at most one of these),
            ``conversation_id``, ``user_id``, ``model``, ``provider``, ``source``, ``price_source``, ``cell_id``,
            ``finish_reason``, ``status``.
        user_id: Only conversations of this user; all filters, and the errors they raise, are those of ``turns_df``.
        prefix: Only conversations whose id starts with this.
        since: Only what was answered at or after this moment.
        until: Only what was answered before this moment; a date includes that whole day.
        model: Only what this model answered, or was asked to answer.
        source: Only what came from ``"promptkit_nb"``, or from the tool it was imported from, such as ``"codex"``.
        price_source: Only costs from this source, as in ``turns_df``.
        conversation_id: Only this conversation.
        tz: The time zone in which days begin, such as ``"Europe/Berlin"``; UTC by default, as for budgets. Periods
            are shown in it. Amounts of which only the day in UTC is known count for the day of that date.
        naive_utc: Return times without a time zone, as Excel needs them: the periods of ``tz``, UTC by default.

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
    filters = Filters.given(locals())
    totals = _totals(store, filters, keys)
    if not keys and not totals:
        totals[()] = [0] * len(_SUMS)
    schema = (*(_KEYS[key] for key in keys), *USAGE)
    return frame_of([_columns(totals, keys)], schema, zone=filters.zone, is_naive=naive_utc)


def _totals(store: StateStore, filters: Filters, keys: Sequence[str]) -> dict[Group, list[Any]]:
    """Return the sums by group; start over if conversations were deleted meanwhile, so that all are counted."""
    kept = kept_usage_of(store, filters)
    totals: dict[Group, list[Any]] = {}
    for _ in range(MAX_READS):
        totals = {}
        for batch in batches_of(store, filters):
            _add(totals, batch, filters, keys)
        _add(totals, kept_batch(kept, filters.zone), filters.by_day(), keys)
        now = kept_usage_of(store, filters)
        if now == kept:
            break
        kept = now
    return totals


def _add(totals: dict[Group, list[Any]], batch: Batch, filters: Filters, keys: Sequence[str]) -> None:
    paid = batch.turns.select(passes(batch.turns, filters) & (batch.turns.arrays["paid"] > 0))
    with localcontext(_EXACT):
        for group, sums in _sums_by_group(paid, keys, filters.zone):
            before = totals.get(group)
            totals[group] = sums if before is None else [*map(_sum_of_known, before, sums)]


def _checked(by: str | Sequence[str]) -> list[str]:
    if not isinstance(by, Iterable):
        raise InvalidArgumentError(f"by={by!r:.80} is not a list: give one or several of {', '.join(_KEYS)}.")
    keys = [key.strip() for key in by.split(",")] if isinstance(by, str) else list(by)
    unknown = [key for key in keys if key not in list(_KEYS)]
    if unknown:
        raise InvalidArgumentError(f"by={unknown[0]!r:.80} is unknown: use any of {', '.join(_KEYS)}.")
    if len(set(keys)) < len(keys):
        raise InvalidArgumentError(f"by={by!r:.80} names something twice; name each once.")
    return keys


def _sums_by_group(turns: Columns, keys: Sequence[str], zone: tzinfo) -> Iterator[tuple[Group, list[Any]]]:
    """Yield the sums of each group; a sum is ``None`` if nothing is known of any turn."""
    group_of = np.zeros(len(turns.arrays["paid"]), np.int64)
    if not len(group_of):
        return
    columns = [_key_of(turns, key, zone) for key in keys]
    for column in columns:
        codes = column.codes if isinstance(column, Names) else np.unique(column, return_inverse=True)[1]
        group_of = np.unique(group_of * (int(np.max(codes)) + 2) + codes + 1, return_inverse=True)[1]
    order = np.argsort(group_of, kind="stable")
    starts = np.flatnonzero(np.diff(group_of[order], prepend=-1))
    firsts = order[starts]
    values = [
        column[firsts].values()
        if isinstance(column, Names)
        else [None if np.isnat(time) else time for time in column[firsts]]
        for column in columns
    ]
    sums = [_sums(turns.arrays[name][order], starts) for name in _SUMS.values()]
    for index in range(len(starts)):
        yield tuple(column[index] for column in values), [column[index] for column in sums]


def _key_of(turns: Columns, key: str, zone: tzinfo) -> Array | Names:
    return period_starts(turns.arrays["created_at"], key, zone) if key in PERIODS else turns.names[key]


def _sums(column: Array, starts: Array) -> list[Any]:
    """Return the sums of the ranges that begin at ``starts``."""
    known = np.array([each is not None for each in column]) if column.dtype == object else column != MISSING
    counts = np.add.reduceat(known, starts, dtype=np.int64)
    sums = np.add.reduceat(np.where(known, column, 0), starts)
    return [each if count else None for each, count in zip(sums.tolist(), counts.tolist(), strict=True)]


def _sum_of_known(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _columns(totals: dict[Group, list[Any]], keys: Sequence[str]) -> Columns:
    """Return the groups in their order, missing values last."""
    groups = sorted(totals, key=lambda group: [(value is None, "" if value is None else value) for value in group])
    columns = {key: [group[index] for group in groups] for index, key in enumerate(keys)}
    figures = {name: [totals[group][index] for group in groups] for index, name in enumerate(_SUMS)}
    costs = np.array(figures.pop("cost"), object)
    arrays = {key: np.array(values, "M8[us]") for key, values in columns.items() if key in PERIODS}
    arrays |= {name: integers(values) for name, values in figures.items()}
    names = {key: Names.of(values) for key, values in columns.items() if key not in PERIODS}
    return Columns(names, arrays | {"cost_usd": dollars(costs)})
