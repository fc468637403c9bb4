"""The names under which a system prompt may ask for the time."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905 - read as a sentence
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905 - same

TIME_NAMES = frozenset(
    {"current_time", "current_date", "current_year", "current_month", "current_weekday", "current_hour"}
)


def local_time() -> datetime:
    """Return the time now, in this machine's zone."""
    return datetime.now().astimezone()


def time_values(now: datetime) -> Mapping[str, str]:
    """Return the texts for these names; months and weekdays are in English, whatever the locale.

    >>> from datetime import UTC, datetime
    >>> values = time_values(datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC))
    >>> values["current_time"], values["current_weekday"], values["current_hour"]
    ('2026-03-01T09:05:07+00:00', 'Sunday', '09')
    """
    return {
        "current_time": now.isoformat(timespec="seconds"),
        "current_date": f"{now:%Y-%m-%d}",
        "current_year": str(now.year),
        "current_month": _MONTHS[now.month - 1],
        "current_weekday": _WEEKDAYS[now.weekday()],
        "current_hour": f"{now.hour:02}",
    }
