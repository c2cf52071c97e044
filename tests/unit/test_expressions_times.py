"""Instants, durations, zones and layouts of expressions."""

from __future__ import annotations

import pytest

from arc.jobs import expressions
from arc.jobs.expressions import ExpressionError, Scope

SCOPE = Scope()
MOMENT = 'date("2023-08-14 15:04:05.25", "2006-01-02 15:04:05", "Europe/Zurich")'


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (MOMENT, "2023-08-14 15:04:05.25 +0200 CEST"),
        (f"{MOMENT}.UTC()", "2023-08-14 13:04:05.25 +0000 UTC"),
        (f'{MOMENT}.In(timezone("America/New_York"))', "2023-08-14 09:04:05.25 -0400 EDT"),
        (f'{MOMENT}.Format("Monday, January _2 2006, 3:04PM")', "Monday, August 14 2023, 3:04PM"),
        (
            f'{MOMENT}.Format("Mon Jan 2 03:04:05.000 pm 06 002 Z07:00 -0700 MST")',
            "Mon Aug 14 03:04:05.250 pm 23 226 +02:00 +0200 CEST",
        ),
        (f"[{MOMENT}.Year(), {MOMENT}.Month(), {MOMENT}.Day(), {MOMENT}.Weekday()]", "[2023 August 14 Monday]"),
        (f"[{MOMENT}.Month() == 8, {MOMENT}.Weekday() + 1]", "[true 2]"),
        (f"[{MOMENT}.Hour(), {MOMENT}.Minute(), {MOMENT}.Second(), {MOMENT}.YearDay()]", "[15 4 5 226]"),
        (f"[{MOMENT}.Unix(), {MOMENT}.UnixMilli()]", "[1692018245 1692018245250]"),
        ('date("2023-01-31").AddDate(0, 1, 0)', "2023-03-03 00:00:00 +0000 UTC"),
        ('date("2023-01-31").AddDate(1, -2, 1)', "2023-12-02 00:00:00 +0000 UTC"),
        (
            'date("2024-03-30 12:00:00", "2006-01-02 15:04:05", "Europe/Zurich") + duration("24h")',
            "2024-03-31 13:00:00 +0200 CEST",
        ),
        ('date("2023-08-14T10:00:00+02:00")', "2023-08-14 10:00:00 +0200 +0200"),
        ('date("2023-08-14T10:00:00Z")', "2023-08-14 10:00:00 +0000 UTC"),
        ('date("Mon, 14 Aug 2023 10:00:00 UTC")', "2023-08-14 10:00:00 +0000 UTC"),
        ('date(timezone("Asia/Tokyo"), "2023-08-14")', "2023-08-14 00:00:00 +0900 JST"),
        ('date("8/14/23 3 PM", "1/2/06 3 PM")', "2023-08-14 15:00:00 +0000 UTC"),
        ('date("12 AM", "3 PM").Hour()', "0"),
        ('date("2023-08-14") < date("2023-08-15")', "true"),
        ('date("2023-08-14T10:00:00+02:00") == date("2023-08-14T08:00:00Z")', "true"),
        ('date("2023-08-15") - date("2023-08-14")', "24h0m0s"),
        ('date("2023-08-15") - duration("1h")', "2023-08-14 23:00:00 +0000 UTC"),
        ('now() - now() < duration("1h")', "true"),
        (
            '[duration("1.5s"), duration("20ms"), duration("-1h1m1s"), duration("0"), duration("1500us")]',
            "[1.5s 20ms -1h1m1s 0s 1.5ms]",
        ),
        ('[duration("90m").Hours(), duration("90m").Minutes(), duration("1s").Milliseconds()]', "[1.5 90 1000]"),
        ('[duration("1m") * 2, duration("1h") + duration("1m"), -duration("1s")]', "[2m0s 1h1m0s -1s]"),
        (
            'toJSON([date("2023-08-14T10:00:00.5Z"), duration("1us")]) | replace("\\n", "")',
            '[  "2023-08-14T10:00:00.5Z",  1000]',
        ),
        ('type(date("2023-08-14")) + type(duration("1s"))', "time.Timetime.Duration"),
    ],
)
def test_times(expression: str, text: str) -> None:
    assert expressions.to_text(expressions.evaluate(expression, SCOPE)) == text


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ('date("2023-13-01")', "invalid date 2023-13-01"),
        ('date("x", "2006")', 'parsing time "x" as "2006": cannot parse'),
        ('date("2023-08-14", "2006-01-02", "Nowhere/Else")', "unknown time zone Nowhere/Else"),
        ('date("9999-12-31").AddDate(1, 0, 0)', "time out of range"),
        ('duration("300000h") + date("9999-12-31")', "time out of range"),
        ('duration("99999999999h")', 'time: invalid duration "99999999999h"'),
        ('date("2023-08-14").Year(1)', "too many arguments to call Year"),
        ('fromJSON("1").Year()', "cannot fetch Year from float64"),
        ('date("2023-08-14") + 1', "invalid operation: + (mismatched types time.Time and int)"),
    ],
)
def test_times_that_are_none(expression: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate(expression, SCOPE)

    assert f": {reason} (" in str(caught.value)
