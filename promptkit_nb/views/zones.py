"""The time zone of days: where the days, weeks, and months of a view begin."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.near_names import similar_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

TimeZone = str | tzinfo
"""A time zone: its IANA name, such as ``"Europe/Berlin"``, or a ``tzinfo``."""

_PERIODS = {"hour": "h", "day": "D", "week": "W", "month": "M"}
"""Periods of time, as numpy calls them."""

PERIODS = (*_PERIODS,)

_MONDAY = np.timedelta64(4, "D")
"""The first Monday, counted from numpy's origin, a Thursday."""

_NO_SHIFT = np.timedelta64(0, "D")


def zone_of(tz: TimeZone | None) -> tzinfo:
    """Return a time zone, UTC by default; raise ``InvalidArgumentError`` for anything else.

    >>> zone_of("Europe/Berlin")
    zoneinfo.ZoneInfo(key='Europe/Berlin')
    """
    if tz is None or tz == "UTC":
        return UTC
    if isinstance(tz, tzinfo):
        return tz
    try:
        return zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        near = similar_names(tz, sorted(zoneinfo.available_timezones())) if isinstance(tz, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidArgumentError(
            f'tz={tz!r:.80} is not a time zone: give its name, such as "Europe/Berlin".{hint}'
        ) from error


def start_of_day(day: date, zone: tzinfo) -> datetime:
    """Return when a day begins, in UTC; if clocks skip midnight, the day begins after that.

    >>> start_of_day(date(2026, 7, 1), zone_of("Europe/Berlin")).isoformat()
    '2026-06-30T22:00:00+00:00'
    """
    midnight = pd.Timestamp(day.year, day.month, day.day)
    begins = midnight.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
    started: datetime = begins.to_pydatetime().astimezone(UTC)
    return started


def period_starts(times: NDArray[Any], period: str, zone: tzinfo) -> NDArray[Any]:
    """Return the start of the hour, day, week, or month of each time; both are in UTC.

    >>> period_starts(np.array(["2026-06-30T23:30"], "M8[us]"), "day", zone_of("Europe/Berlin"))
    array(['2026-06-30T22:00:00.000000'], dtype='datetime64[us]')
    """
    if zone is UTC:
        return _floored(times, period)
    local = pd.DatetimeIndex(times).tz_localize(UTC).tz_convert(zone).tz_localize(None).to_numpy()
    if period == "hour":  # an hour that clocks repeat is two
        hours: NDArray[Any] = times - (local - _floored(local, period))
        return hours
    starts, period_of = np.unique(_floored(local, period), return_inverse=True)
    is_first = np.ones(len(starts), bool)  # of two midnights, the first one
    in_zone = pd.DatetimeIndex(starts).tz_localize(zone, ambiguous=is_first, nonexistent="shift_forward")
    in_utc: NDArray[Any] = in_zone.tz_convert(UTC).tz_localize(None).to_numpy()
    return in_utc[period_of]


def _floored(times: NDArray[Any], period: str) -> NDArray[Any]:
    shift = _MONDAY if period == "week" else _NO_SHIFT
    floored: NDArray[Any] = (times - shift).astype(f"M8[{_PERIODS[period]}]").astype("M8[us]") + shift
    return floored
