"""The filters that all views share, and the rows that pass them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.plain import plain
from promptkit_nb.stores.checks import checked_filters
from promptkit_nb.turns import PriceSource
from promptkit_nb.views.batches import DROPPED
from promptkit_nb.views.columns import Columns, times
from promptkit_nb.views.zones import TimeZone, start_of_day, zone_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


Moment = date | datetime | str
"""A point in time: an aware ``datetime``, a ``date`` (the whole day), or either as ISO 8601 text."""

Status = Literal["current", "all"]


class FilterArguments(TypedDict, total=False):
    """The filters that every view takes, as the caller gives them."""

    user_id: str | None
    prefix: str | None
    since: Moment | None
    until: Moment | None
    model: str | None
    source: str | None
    price_source: PriceSource | None
    conversation_id: str | None
    tz: TimeZone | None


class RowArguments(FilterArguments, total=False):
    """The filters of views whose rows have a status."""

    status: Status


class FrameArguments(FilterArguments, total=False):
    """The arguments of DataFrames: the filters, and how times are returned."""

    naive_utc: bool


class RowFrameArguments(RowArguments, FrameArguments, total=False):
    """The arguments of DataFrames whose rows have a status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Checked filters of a view; ``None`` selects everything. ``since`` is included, ``until`` is not.

    ``zone`` is the time zone of the days.

    >>> Filters.of(since="2026-11-01", until="2026-11-30").until.isoformat()
    '2026-12-01T00:00:00+00:00'
    """

    user_id: str | None = None
    prefix: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    source: str | None = None
    price_source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    zone: tzinfo = UTC
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
        source: str | None = None,
        price_source: str | None = None,
        conversation_id: str | None = None,
        tz: TimeZone | None = None,
        status: Status = "current",
    ) -> Filters:
        """Check filters as the caller gave them; raise ``InvalidArgumentError`` for an invalid one."""
        prefix, user_id = checked_filters(prefix, user_id)
        for name, value in (("model", model), ("source", source), ("conversation_id", conversation_id)):
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentError(f"{name}={value!r:.80} is not text; leave it out for all.")
        if price_source not in (None, *get_args(PriceSource)):
            raise InvalidArgumentError(
                f"price_source={price_source!r:.80} is unknown: use one of {', '.join(get_args(PriceSource))}."
            )
        if status not in get_args(Status):
            raise InvalidArgumentError(f"status={status!r:.80} is unknown: use 'current' or 'all'.")
        zone = zone_of(tz)
        begin, end = _moment("since", since, zone), _moment("until", until, zone, ends=True)
        if begin is not None and end is not None and begin >= end and since != until:
            raise InvalidArgumentError(f"since={since!r} is after until={until!r}; swap them.")
        return cls(
            user_id=user_id,
            prefix=prefix,
            conversation_id=plain(conversation_id),
            model=plain(model),
            source=plain(source),
            price_source=price_source,
            since=begin,
            until=end,
            zone=zone,
            status=status,
        )

    @classmethod
    def given(cls, arguments: Mapping[str, Any]) -> Filters:
        """Check the filters among the arguments of a view, which passes its ``locals()``."""
        return cls.of(**{name: arguments[name] for name in RowArguments.__annotations__ if name in arguments})

    def by_day(self) -> Filters:
        """Return the filters for daily amounts, whose time is the beginning of their day."""
        if self.since is None:
            return self
        return replace(self, since=start_of_day(self.since.astimezone(self.zone).date(), self.zone))

    @property
    def selects_some_conversations(self) -> bool:
        """Whether conversations are filtered by id or user."""
        return any(each is not None for each in (self.conversation_id, self.prefix, self.user_id))

    def selects(self, conversation_id: str, user_id: str) -> bool:
        """Return whether a conversation passes the filters by id and user."""
        return (
            self.conversation_id in (None, conversation_id)
            and self.user_id in (None, user_id)
            and conversation_id.startswith(self.prefix or "")
        )


def _moment(name: str, value: Moment | None, zone: tzinfo, *, ends: bool = False) -> datetime | None:
    """Return a moment in UTC; a date is the start of its day in the zone, or of the next one if it ``ends``."""
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
            return start_of_day(found + timedelta(days=ends), zone)
    except (OverflowError, ValueError) as error:
        raise InvalidArgumentError(f"{name}={value!r} is at the end of the calendar; leave it out.") from error
    raise InvalidArgumentError(f'{name}={value!r:.80} is not a time: give a date, as in "2026-11-22", or a datetime.')


def _parsed(name: str, text: str) -> date | datetime:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        try:
            return parse(text.strip())
        except ValueError:
            continue
    raise InvalidArgumentError(
        f'{name}={text!r:.80} is not a time: give "2026-11-22", or with time and zone "2026-11-22T18:30:00Z".'
    )


def passes(turns: Columns, filters: Filters) -> NDArray[np.bool_]:
    """Return for each turn whether it passes the filters by model, source, and time; unknown values never pass."""
    created_at = turns.arrays["created_at"]
    passing = np.ones(len(created_at), bool)
    if filters.model is not None:
        passing &= has_model(turns, filters.model)
    for name, value in (("source", filters.source), ("price_source", filters.price_source)):
        if value is not None:
            passing &= turns.names[name].equals(value)
    if filters.since is not None:
        passing &= created_at >= times([filters.since])
    if filters.until is not None:
        passing &= created_at < times([filters.until])
    return passing


def has_model(turns: Columns, model: str) -> NDArray[np.bool_]:
    """Return for each turn whether this model answered it, or was asked to."""
    return turns.names["model"].equals(model) | turns.names["requested_model"].equals(model)


def is_shown(turns: Columns, filters: Filters) -> NDArray[np.bool_]:
    """Return for each turn whether a view of turns shows it: it passes the filters, and has the right status."""
    status = turns.names["status"]
    return passes(turns, filters) & (
        status.equals("current") if filters.status == "current" else ~status.equals(DROPPED)
    )
