"""Methods of instants and durations: `target.Name(arguments)`. Nothing else of these objects can be reached."""

from __future__ import annotations

from calendar import day_name, month_name
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins.signature import Function
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import BOOL, DURATION, FLOAT, INT, STRING, TIME, ZONE, Type
from arc.jobs.expressions.layouts import formatted
from arc.jobs.expressions.times import NS_PER_S, NS_PER_US, Duration, Instant, Named, Zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.jobs.expressions.limits import Budget
    from arc.jobs.expressions.values import Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _month(t: Instant) -> Named:
    return Named(t.moment.month, month_name[t.moment.month])


def _weekday(t: Instant) -> Named:
    return Named(t.moment.isoweekday() % 7, day_name[t.moment.weekday()])


def _unix_us(t: Instant) -> int:
    return (t.moment - _EPOCH) // timedelta(microseconds=1)


def _add_date(_: Budget, t: Instant, years: int, months: int, days: int) -> Instant:
    """As the calendar counts: January 31 plus a month is March 3 (or 2)."""
    try:
        month0 = t.moment.month - 1 + months
        first = t.moment.replace(year=t.moment.year + years + month0 // 12, month=month0 % 12 + 1, day=1)
        return Instant(first + timedelta(days=t.moment.day - 1 + days))
    except (ValueError, OverflowError):
        raise Fault("time out of range") from None


def _in(_: Budget, t: Instant, where: Zone) -> Instant:
    return Instant(t.moment.astimezone(where.tz))


def _truncated(_: Budget, d: Duration, unit: Duration) -> Duration:
    if unit.ns <= 0:
        return d
    whole = abs(d.ns) // unit.ns * unit.ns
    return Duration(-whole if d.ns < 0 else whole)


def _reading(target: Type, result: Type, **readers: Callable[..., Value]) -> list[Function]:
    """Methods without arguments."""
    return [
        Function(name, lambda _, value, read=read: read(value), (target,), result) for name, read in readers.items()
    ]


_OF_INSTANTS = (
    *_reading(
        TIME,
        INT,
        Year=lambda t: t.moment.year,
        Month=_month,
        Day=lambda t: t.moment.day,
        Hour=lambda t: t.moment.hour,
        Minute=lambda t: t.moment.minute,
        Second=lambda t: t.moment.second,
        Nanosecond=lambda t: t.moment.microsecond * NS_PER_US,
        Weekday=_weekday,
        YearDay=lambda t: t.moment.timetuple().tm_yday,
        Unix=lambda t: _unix_us(t) // 10**6,
        UnixMilli=lambda t: _unix_us(t) // 10**3,
        UnixMicro=_unix_us,
        UnixNano=lambda t: _unix_us(t) * NS_PER_US,
    ),
    *_reading(TIME, STRING, String=str),
    *_reading(TIME, TIME, UTC=lambda t: Instant(t.moment.astimezone(UTC))),
    Function("Format", lambda _, t, layout: formatted(t.moment, layout), (TIME, STRING), STRING),
    Function("AddDate", _add_date, (TIME, INT, INT, INT), TIME),
    Function("Add", lambda _, t, length: t.plus(length), (TIME, DURATION), TIME),
    Function("Sub", lambda _, t, other: t.minus(other), (TIME, TIME), DURATION),
    Function("Before", lambda _, t, other: t < other, (TIME, TIME), BOOL),
    Function("After", lambda _, t, other: t > other, (TIME, TIME), BOOL),
    Function("Equal", lambda _, t, other: t == other, (TIME, TIME), BOOL),
    Function("In", _in, (TIME, ZONE), TIME),
)
_OF_DURATIONS = (
    *_reading(
        DURATION,
        FLOAT,
        Hours=lambda d: d.ns / (3600 * NS_PER_S),
        Minutes=lambda d: d.ns / (60 * NS_PER_S),
        Seconds=lambda d: d.ns / NS_PER_S,
    ),
    *_reading(
        DURATION,
        INT,
        Milliseconds=lambda d: int(d.ns / 10**6),
        Microseconds=lambda d: int(d.ns / 10**3),
        Nanoseconds=lambda d: d.ns,
    ),
    *_reading(DURATION, STRING, String=str),
    *_reading(DURATION, DURATION, Abs=lambda d: Duration(abs(d.ns))),
    Function("Truncate", _truncated, (DURATION, DURATION), DURATION),
)
# kind of the target: its methods by name
TABLE: dict[str, dict[str, Function]] = {
    "time": {method.name: method for method in _OF_INSTANTS},
    "duration": {method.name: method for method in _OF_DURATIONS},
}
