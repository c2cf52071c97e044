"""Durations and cron expressions of job documents."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.jobs import cron
from arc.jobs.durations import parse_duration

NOON_US = 1_750_000_000_000_000 // 86_400_000_000 * 86_400_000_000 + 43_200_000_000  # Sunday, 15 June 2025, 12:00 UTC


@pytest.mark.parametrize(
    ("text", "us"),
    [
        *(("0", 0), ("5s", 5_000_000), ("1h30m", 5_400_000_000), (".5s", 500_000), ("-5s", -5_000_000)),
        *(("1.5h", 5_400_000_000), ("+1ms", 1_000), ("7us", 7), ("7µs", 7), ("7μs", 7), ("1999ns", 1)),
        *(("1.s", 1_000_000), ("-1500ns", -1), ("1h1h", 7_200_000_000), ("0.1s", 100_000)),
    ],
)
def test_duration_in_microseconds(text, us):
    assert parse_duration(text) == us


def test_no_duration_is_said_as_clients_know_it():
    with pytest.raises(Invalid) as caught:
        parse_duration("zz")

    assert str(caught.value) == 'time: invalid duration "zz"'


@given(st.integers(0, 10**12), st.integers(0, 59), st.integers(0, 999))
def test_parts_of_a_duration_add_up(seconds, minutes, millis):
    assert parse_duration(f"{minutes}m{millis}ms") == (minutes * 60_000 + millis) * 1_000
    if seconds < 9_000_000_000:
        assert parse_duration(f"{seconds}s") == seconds * 1_000_000


def due(expression: str, count: int = 1) -> list[str]:
    """The next instants after noon of 15 June 2025, UTC."""
    schedule, us, found = cron.parse(expression), NOON_US, []
    for _ in range(count):
        us = schedule.next_after(us)
        found.append(datetime.fromtimestamp(us / 1e6, ZoneInfo("UTC")).strftime("%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "instants"),
    [
        ("* * * * *", ["06-15 12:01:00", "06-15 12:02:00"]),
        ("*/20 * * * *", ["06-15 12:20:00", "06-15 12:40:00", "06-15 13:00:00"]),
        ("5/20 * * * *", ["06-15 12:05:00", "06-15 12:25:00", "06-15 12:45:00", "06-15 13:05:00"]),
        ("0 9,17 * * *", ["06-15 17:00:00", "06-16 09:00:00"]),
        ("0 9 * * mon-fri", ["06-16 09:00:00", "06-17 09:00:00"]),
        ("0 0 * * 0", ["06-22 00:00:00"]),
        ("0 0 1 JAN ?", ["01-01 00:00:00"]),
        ("0 0 17 * TUE", ["06-17 00:00:00", "06-24 00:00:00"]),
        ("0 0 20 * TUE", ["06-17 00:00:00", "06-20 00:00:00", "06-24 00:00:00"]),
        ("0 0 */15 * MON", ["06-16 00:00:00", "06-23 00:00:00", "06-30 00:00:00", "07-01 00:00:00"]),
        ("0 0 * * 1/2", ["06-16 00:00:00", "06-18 00:00:00", "06-20 00:00:00", "06-23 00:00:00"]),
        ("@hourly", ["06-15 13:00:00"]),
        ("@daily", ["06-16 00:00:00"]),
        ("@midnight", ["06-16 00:00:00"]),
        ("@weekly", ["06-22 00:00:00"]),
        ("@monthly", ["07-01 00:00:00"]),
        ("@yearly", ["01-01 00:00:00"]),
        ("@annually", ["01-01 00:00:00"]),
        ("@every 1h30m", ["06-15 13:30:00", "06-15 15:00:00"]),
        ("TZ=Europe/Berlin 0 9 * * *", ["06-16 07:00:00"]),
        ("CRON_TZ=Asia/Tokyo @daily", ["06-15 15:00:00"]),
    ],
)
def test_cron_expressions(expression, instants):
    assert due(expression, len(instants)) == instants


@pytest.mark.parametrize(
    "expression",
    [
        *("", "x", "* * * *", "0 * * * * *", "* * * * * * *", "61 * * * *", "0 0 0 0 0", "@reboot", "a 0 0 * * *"),
        *("*/0 * * * *", "5-1 * * * *", "1/2/3 * * * *", ", * * * *", "0 0 * * 8", "٣ * * * *", "9" * 5_000),
        *("@every", "@every 0s", "@every -5s", "@every 1ms", "@every zz", "@every 10"),
        *("TZ=UTC", "TZ=No/Where * * * * *", "TZ=../../etc/passwd * * * * *", "TZ=/etc/passwd * * * * *"),
        *("0 0 30 2 *", "0 0 31 4,6 *"),  # never
    ],
)
def test_what_never_comes_due_is_refused(expression):
    with pytest.raises(Invalid, match="is no cron expression"):
        cron.parse(expression)


def test_fields_without_a_zone_are_local():
    berlin = ZoneInfo("Europe/Berlin")
    schedule = cron.parse("0 9 * * *")

    assert schedule.next_after(NOON_US, berlin) == cron.parse("TZ=Europe/Berlin 0 9 * * *").next_after(NOON_US)


@pytest.mark.parametrize("expression", ["*/30 * * * *", "30 2 * * *", "@hourly"])
def test_time_goes_on_when_clocks_change(expression):
    schedule = cron.parse(f"TZ=Europe/Berlin {expression}")
    us = 1_761_422_400_000_000  # 25 October 2025, 20:00 UTC; clocks go back in the night
    instants = [us := schedule.next_after(us) for _ in range(20)]

    assert all(earlier < later for earlier, later in pairwise(instants))
