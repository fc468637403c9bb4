"""Which rows a view shows: the filters that all of them share, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.stores.checks import check_filters
from promptkit_nb.views.lines import DROPPED

if TYPE_CHECKING:
    from promptkit_nb.views.schemas import Schema

Moment = date | datetime | str
"""A point in time: an aware ``datetime``, a ``date`` (in UTC, the whole day), or either as ISO 8601 text."""

Status = Literal["current", "all"]


class FilterArguments(TypedDict, total=False):
    """The filters that every view takes, as they are typed."""

    user_id: str | None
    prefix: str | None
    since: Moment | None
    until: Moment | None
    model: str | None
    conversation_id: str | None


class RowArguments(FilterArguments, total=False):
    """The filters of views whose rows have a status."""

    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters of a view; ``None`` lets everything through. ``since`` is the first moment, ``until`` is behind the last.

    >>> Filters.of(since="2026-11-01", until="2026-11-30").until.isoformat()
    '2026-12-01T00:00:00+00:00'
    """

    user_id: str | None = None
    prefix: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    status: Status = "current"

    @classmethod
    def of(
        cls,
        *,
        user_id: str | None = None,
        prefix: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        model: str | None = None,
        conversation_id: str | None = None,
        status: Status = "current",
    ) -> Filters:
        """Return the filters as they were typed, or raise ``InvalidArgumentError`` for one that cannot be meant."""
        check_filters(prefix, user_id)
        for name, value in (("model", model), ("conversation_id", conversation_id)):
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentError(f"{name}={value!r:.80} is no text; leave it out for all.")
        if status not in get_args(Status):
            raise InvalidArgumentError(f"status={status!r:.80} is unknown: use 'current' or 'all'.")
        begin, end = _moment("since", since), _moment("until", until, ends=True)
        if begin is not None and end is not None and begin >= end and since != until:
            raise InvalidArgumentError(f"since={since!r} is later than until={until!r}: exchange them.")
        return cls(
            user_id=user_id,
            prefix=prefix,
            conversation_id=conversation_id,
            model=model,
            since=begin,
            until=end,
            status=status,
        )

    @property
    def narrow_conversations(self) -> bool:
        """Whether some conversations are left out by their id or user."""
        return any(each is not None for each in (self.conversation_id, self.prefix, self.user_id))

    def lets_through(self, conversation_id: str, user_id: str) -> bool:
        """Return whether a conversation is meant by its id and user."""
        return (
            self.conversation_id in (None, conversation_id)
            and self.user_id in (None, user_id)
            and conversation_id.startswith(self.prefix or "")
        )


def _moment(name: str, value: Moment | None, *, ends: bool = False) -> datetime | None:
    """Return a moment in UTC; a day ends where the next one begins."""
    found = _parsed(name, value) if isinstance(value, str) else value
    if found is None:
        return None
    if isinstance(found, datetime) and found.tzinfo is None:
        raise InvalidArgumentError(
            f"{name}={value!r} has no time zone: give an aware datetime, such as datetime.now(UTC), or a date."
        )
    try:
        if isinstance(found, datetime):
            return found.astimezone(UTC)
        if isinstance(found, date):
            return datetime.combine(found, time(), UTC) + timedelta(days=ends)
    except OverflowError as error:
        raise InvalidArgumentError(f"{name}={value!r} is at the end of the calendar; leave it out.") from error
    raise InvalidArgumentError(f'{name}={value!r:.80} is no time: give a date, as in "2026-11-22", or a datetime.')


def _parsed(name: str, text: str) -> date | datetime:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        try:
            return parse(text.strip())
        except ValueError:
            continue
    raise InvalidArgumentError(
        f'{name}={text!r:.80} is no time: give "2026-11-22", or with time and zone "2026-11-22T18:30:00Z".'
    )


def is_meant(turns: pa.RecordBatch, filters: Filters) -> pa.Array:
    """Return for each turn whether model and time let it through; what is unknown does not pass a filter."""
    conditions = [pa.repeat(True, len(turns))]  # noqa: FBT003 - Arrow's signature
    if filters.model is not None:
        conditions.append(is_of_model(turns, filters.model))
    if filters.since is not None:
        conditions.append(_is_true(pc.greater_equal(turns["created_at"], pa.scalar(filters.since))))
    if filters.until is not None:
        conditions.append(_is_true(pc.less(turns["created_at"], pa.scalar(filters.until))))
    return reduce(pc.and_, conditions)


def is_of_model(turns: pa.RecordBatch, model: str | None) -> pa.Array:
    """Return for each turn whether this model answered it, or was asked to."""
    names = (pc.cast(turns[name], pa.string()) for name in ("model", "requested_model"))
    return pc.or_(*(_is_true(pc.equal(each, pa.scalar(model, pa.string()))) for each in names))


def is_shown(turns: pa.RecordBatch, filters: Filters) -> pa.Array:
    """Return for each turn whether a list of turns shows it: as ``is_meant``, and by its status."""
    status = pc.cast(turns["status"], pa.string())
    wanted = pc.equal(status, "current") if filters.status == "current" else pc.not_equal(status, DROPPED)
    return pc.and_(is_meant(turns, filters), wanted)


def frame_of(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return the columns of a schema as a DataFrame; text is not copied."""
    plain = table.select([column.name for column in schema if column.dtype != "category"])
    frame = plain.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get, split_blocks=True)
    columns = {
        column.name: _categories_of(table[column.name]) if column.dtype == "category" else frame[column.name]
        for column in schema
    }
    return pd.DataFrame(columns, index=frame.index, copy=False)


def _categories_of(names: pa.ChunkedArray) -> pd.Categorical:
    """Return the names with those categories only that occur, sorted: a filter leaves nobody else's behind."""
    if not pa.types.is_dictionary(names.type):
        names = names.dictionary_encode()
    whole = names.unify_dictionaries().combine_chunks()
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    present = np.flatnonzero(np.bincount(codes + 1, minlength=len(whole.dictionary) + 1)[1:])
    found = whole.dictionary.take(pa.array(present))
    order = pc.sort_indices(found)
    ranks = np.full(len(whole.dictionary) + 1, -1, np.int32)  # the last one is that of the code -1
    ranks[present[order.to_numpy()]] = np.arange(len(order), dtype=np.int32)
    categories = pd.Index(found.take(order).to_pylist(), dtype="str")
    return pd.Categorical.from_codes(ranks[codes], categories)


def _is_true(condition: pa.Array) -> pa.Array:
    return pc.fill_null(condition, False)  # noqa: FBT003 - Arrow's signature
