"""Days of views in any time zone, and times without a zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    InvalidArgumentError,
    MemoryStore,
    conversations_df,
    messages_df,
    plot_tokens,
    search,
    turns_df,
    usage_dashboard,
    usage_df,
)
from promptkit_nb.views.zones import PERIODS, period_starts, start_of_day
from storing import said

if TYPE_CHECKING:
    from collections.abc import Callable

BERLIN = "Europe/Berlin"
VIEWS = [conversations_df, turns_df, messages_df, usage_df, lambda store, **given: search(store, "x", **given)]

# Clocks at midnight, at half hours, across the date line, and with offsets of seconds long ago.
ZONES = [BERLIN, "America/Sao_Paulo", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]


def store_with(*times: datetime) -> MemoryStore:
    """Return a store with a turn at each of these times."""
    store = MemoryStore()
    for time in times:
        store.append("a", said("x", created_at=time))
    return store


@pytest.fixture
def late() -> MemoryStore:
    """A store with a turn late on March 1, 2026, in UTC, which is March 2 in Berlin."""
    at = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    store = MemoryStore()
    store.create(ConversationState("a", turns=(said("x", created_at=at),), created_at=at, updated_at=at))
    return store


@pytest.mark.parametrize(
    ("by", "begin"),
    [("hour", "2026-03-02T00:00"), ("day", "2026-03-02"), ("week", "2026-03-02"), ("month", "2026-03-01")],
)
def test_periods_begin_in_the_time_zone(late: MemoryStore, by: str, begin: str) -> None:
    """They are shown in it."""
    found = usage_df(late, by=by, tz=BERLIN)[by]
    assert found.tolist() == [pd.Timestamp(begin, tz=BERLIN)]
    assert str(found.dtype) == "datetime64[us, Europe/Berlin]"


def test_a_time_zone_can_be_an_object(late: MemoryStore) -> None:
    """Any ``tzinfo`` will do, and ``"UTC"`` is the default."""
    by_object = usage_df(late, by="day", tz=ZoneInfo(BERLIN))
    pd.testing.assert_frame_equal(by_object, usage_df(late, by="day", tz=BERLIN))
    pd.testing.assert_frame_equal(usage_df(late, tz="UTC"), usage_df(late))


@pytest.mark.parametrize("view", VIEWS)
def test_dates_of_filters_are_days_in_the_time_zone(late: MemoryStore, view: Callable[..., pd.DataFrame]) -> None:
    """``since`` and ``until`` follow ``tz`` in every view."""
    day: dict[str, Any] = {"since": "2026-03-02", "until": date(2026, 3, 2)}
    assert len(view(late, **day, tz=BERLIN)) == len(view(late)) > 0
    assert len(view(late, **day)) == 0


def test_an_hour_that_clocks_repeat_is_two(late: MemoryStore) -> None:
    """On October 25, 2026, the hour from 2 to 3 o'clock happens twice in Berlin."""
    at = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    found = usage_df(store_with(at, at + timedelta(hours=1)), by="hour", tz=BERLIN)
    assert [each.isoformat() for each in found["hour"]] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_a_day_without_midnight_begins_later() -> None:
    """On November 4, 2018, clocks in São Paulo went from midnight to 1 o'clock."""
    found = usage_df(store_with(datetime(2018, 11, 4, 12, tzinfo=UTC)), by="day", tz="America/Sao_Paulo")
    assert [each.isoformat() for each in found["day"]] == ["2018-11-04T01:00:00-02:00"]


def test_the_day_of_deleted_conversations_keeps_its_date(late: MemoryStore) -> None:
    """Only the day in UTC is known of their cost; it counts for the day of that date in any time zone."""
    late.delete("a")
    for zone in (BERLIN, "America/New_York"):
        found = usage_df(late, by="day", tz=zone)
        assert found["day"].tolist() == [pd.Timestamp("2026-03-01", tz=zone)]
        assert len(usage_df(late, by="day", tz=zone, since="2026-03-01", until="2026-03-01")) == 1
        assert len(usage_df(late, by="day", tz=zone, since="2026-03-02")) == 0


@pytest.mark.parametrize("view", VIEWS)
def test_naive_times_can_be_exported_to_excel(
    late: MemoryStore, tmp_path: Any, view: Callable[..., pd.DataFrame]
) -> None:
    """With ``naive_utc=True``, times have no zone and the same values, in every view."""
    aware, naive = view(late), view(late, naive_utc=True)
    times = [name for name, dtype in aware.dtypes.items() if str(dtype) == "datetime64[us, UTC]"]
    assert times
    assert {str(naive[name].dtype) for name in times} == {"datetime64[us]"}
    assert [naive[name].tolist() for name in times] == [aware[name].dt.tz_localize(None).tolist() for name in times]
    naive.to_excel(tmp_path / "view.xlsx", index=False)
    read = pd.read_excel(tmp_path / "view.xlsx", engine="calamine")
    assert list(read.columns) == list(naive.columns)
    assert [read[name].tolist() for name in times] == [naive[name].tolist() for name in times]


def test_naive_days_are_those_of_the_time_zone(late: MemoryStore) -> None:
    """A table for colleagues has their dates."""
    assert usage_df(late, by="day", tz=BERLIN, naive_utc=True)["day"].tolist() == [pd.Timestamp("2026-03-02")]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_written_as_parquet(
    late: MemoryStore, tmp_path: Any, view: Callable[..., pd.DataFrame]
) -> None:
    """What is read has the same values."""
    frame = view(late)
    frame.to_parquet(tmp_path / "view.parquet")
    read = pd.read_parquet(tmp_path / "view.parquet")
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_categorical=False)


def test_managers_return_the_same(late: MemoryStore) -> None:
    """Their methods take both arguments."""
    manager = ConversationManager(DemoProvider(), late)
    found = manager.usage_df(by="day", tz=BERLIN, naive_utc=True)
    pd.testing.assert_frame_equal(found, usage_df(late, by="day", tz=BERLIN, naive_utc=True))
    pd.testing.assert_frame_equal(manager.turns_df(naive_utc=True), turns_df(late, naive_utc=True))


def test_charts_and_the_dashboard_follow(late: MemoryStore) -> None:
    """The label of a bar is the date in the time zone."""
    newest = [plot_tokens(late, tz=tz).axes[0].get_xticklabels()[0].get_text() for tz in (BERLIN, None)]
    assert newest == ["2 Mar", "1 Mar"]
    assert usage_dashboard(late, tz=BERLIN, since="2026-03-02").total.startswith("1 turn ")
    assert usage_dashboard(late, since="2026-03-02").total.startswith("0 turns ")


@pytest.mark.parametrize(
    ("tz", "message"),
    [
        ("Europe/berlin", "tz='Europe/berlin' is not a time zone: give its name, such as \"Europe/Berlin\". Did you"),
        ("America", "tz='America' is not a time zone"),
        ("../etc/passwd", "tz='../etc/passwd' is not a time zone"),
        ("", "tz='' is not a time zone"),
        (2, "tz=2 is not a time zone"),
    ],
)
def test_other_time_zones_are_refused(tz: Any, message: str) -> None:
    """The error names the value, and a near match."""
    with pytest.raises(InvalidArgumentError) as caught:
        usage_df(MemoryStore(), tz=tz)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("day", [date.min, date.max])
def test_the_ends_of_the_calendar_are_refused(day: date) -> None:
    """A day that has no beginning or no end in UTC is an error."""
    with pytest.raises(InvalidArgumentError, match="at the end of the calendar"):
        usage_df(MemoryStore(), since=day, until=day, tz="Asia/Tokyo")


@given(
    times=st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=5),  # noqa: DTZ001 - in UTC
    zone=st.sampled_from(ZONES).map(ZoneInfo),
)
def test_days_are_those_of_the_calendar(times: list[datetime], zone: ZoneInfo) -> None:
    """The period of a time begins at or before it, and on the date that Python's calendar gives it."""
    stored = np.array(times, "M8[us]")
    starts = {period: period_starts(stored, period, zone).astype(object) for period in PERIODS}
    for at, time in enumerate(times):
        local = time.replace(tzinfo=UTC).astimezone(zone)
        monday = local.date() - timedelta(days=local.weekday())
        assert starts["day"][at].replace(tzinfo=UTC) == start_of_day(local.date(), zone) <= local
        assert starts["week"][at].replace(tzinfo=UTC) == start_of_day(monday, zone)
        assert starts["month"][at].replace(tzinfo=UTC) == start_of_day(local.date().replace(day=1), zone)
        assert timedelta(0) <= time - starts["hour"][at] < timedelta(hours=1)
