"""Instants, lengths of time and zones of expressions: reading, layouts, text forms, methods.

Layouts are written as the instant Mon Jan 2 15:04:05 MST 2006 would look (`02 Jan 2006`, `15:04`). Instants count
microseconds; years 1 to 9999.
"""

from __future__ import annotations

import functools
import re
from calendar import day_abbr, day_name, month_abbr, month_name
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Callable

NS_PER_US, NS_PER_S = 1_000, 1_000_000_000
MAX_NS = 2**63 - 1
MAX_TEXT = 200  # characters of a date, a layout or a duration
_UNIT_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d*)\.?(\d*)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DEFAULT_LAYOUTS = (
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Zone:
    tz: tzinfo
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    ns: int

    def __str__(self) -> str:
        """`1h30m0s`, `1.5s`, `20ms`."""
        if self.ns == 0:
            return "0s"
        sign, ns = ("-" if self.ns < 0 else ""), abs(self.ns)
        if ns < NS_PER_S:
            unit = "ns" if ns < 10**3 else "µs" if ns < 10**6 else "ms"
            return f"{sign}{_decimal(ns, _UNIT_NS[unit])}{unit}"
        minutes, rest = divmod(ns, 60 * NS_PER_S)
        hours, minutes = divmod(minutes, 60)
        seconds = f"{_decimal(rest, NS_PER_S)}s"
        return sign + (f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds)


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    moment: datetime

    def __str__(self) -> str:
        """`2023-08-14 00:00:00 +0000 UTC`."""
        return formatted(self, "2006-01-02 15:04:05.999999999 -0700 MST")

    def plus(self, length: Duration) -> Instant:
        try:
            # In UTC, because Python adds to what the clock on the wall shows, which jumps twice a year.
            moment = self.moment.astimezone(UTC) + timedelta(microseconds=length.ns // NS_PER_US)
            return Instant(moment.astimezone(self.moment.tzinfo))
        except OverflowError:
            raise Fault("time out of range") from None

    def minus(self, other: Instant) -> Duration:
        return Duration((self.moment - other.moment) // timedelta(microseconds=1) * NS_PER_US)


class Named(int):
    """A month or weekday: a number in sums and comparisons, a name as text."""

    name: str

    def __new__(cls, number: int, name: str) -> Named:
        self = super().__new__(cls, number)
        self.name = name
        return self


def _decimal(ns: int, unit_ns: int) -> str:
    whole, rest = divmod(ns, unit_ns)
    digits = f"{rest:0{len(str(unit_ns)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def zone(name: str) -> Zone:
    """A zone by its name in the tz database. Raises Fault."""
    if name in {"", "UTC"}:
        return Zone(UTC, "UTC")
    try:
        return Zone(ZoneInfo(name), name)
    except (LookupError, ValueError, OSError):  # OSError: the name is that of a directory of zones
        raise Fault(f"unknown time zone {name[:MAX_TEXT]}") from None


def duration(text: str) -> Duration:
    """`1h30m`, `-1.5s`, `0`. Raises Fault."""
    if text in {"0", "+0", "-0"}:
        return Duration(0)
    if len(text) > MAX_TEXT or not _DURATION.fullmatch(text):
        raise Fault(f'time: invalid duration "{text[:MAX_TEXT]}"')
    ns = sum(_part_ns(*part) for part in _DURATION_PART.findall(text))
    if ns > MAX_NS:
        raise Fault(f'time: invalid duration "{text}"')
    return Duration(-ns if text[0] == "-" else ns)


def _part_ns(whole: str, fraction: str, unit: str) -> int:
    scale = _UNIT_NS[unit]
    return int(whole or 0) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)


def now(where: Zone) -> Instant:
    return Instant(datetime.now(where.tz))


def date(text: str, layout: str | None, where: Zone) -> Instant:
    """An instant from its text; without a layout the usual ones are tried. Raises Fault."""
    if layout is not None:
        instant = _parsed(text, layout, where.tz)
        if instant is None:
            raise Fault(f'parsing time "{text[:MAX_TEXT]}" as "{layout[:MAX_TEXT]}": cannot parse')
        return instant
    for usual in _DEFAULT_LAYOUTS:
        if (instant := _parsed(text, usual, where.tz)) is not None:
            return instant
    raise Fault(f"invalid date {text[:MAX_TEXT]}")


_FIELD = re.compile(
    r"January|Jan|Monday|Mon|MST|2006|[Z-]07:00|[Z-]0700|[Z-]07|002|01|02|03|04|05|06|15|PM|pm|_2(?!006)|[.,](?:0+|9+)(?!\d)|[1-5]"
)


def _offset(moment: datetime, mark: str) -> str:
    seconds = int((moment.utcoffset() or timedelta()).total_seconds())
    if mark[0] == "Z" and seconds == 0:
        return "Z"
    hours, minutes = divmod(abs(seconds) // 60, 60)
    rest = {"07": "", "0700": f"{minutes:02d}", "07:00": f":{minutes:02d}"}[mark[1:]]
    return f"{'-' if seconds < 0 else '+'}{hours:02d}{rest}"


def _zone_name(moment: datetime) -> str:
    fixed = isinstance(moment.tzinfo, timezone) and moment.utcoffset()
    name = None if fixed else moment.tzname()
    return name or _offset(moment, "-0700")


def _fraction(moment: datetime, mark: str) -> str:
    digits = f"{moment.microsecond:06d}000"[: len(mark) - 1]
    if mark[1] == "0":
        return mark[0] + digits
    digits = digits.rstrip("0")
    return mark[0] + digits if digits else ""


_WRITERS: dict[str, Callable[[datetime], str]] = {
    "2006": lambda t: f"{t.year:04d}",
    "06": lambda t: f"{t.year % 100:02d}",
    "01": lambda t: f"{t.month:02d}",
    "1": lambda t: str(t.month),
    "Jan": lambda t: month_abbr[t.month],
    "January": lambda t: month_name[t.month],
    "02": lambda t: f"{t.day:02d}",
    "_2": lambda t: f"{t.day:2d}",
    "2": lambda t: str(t.day),
    "002": lambda t: f"{t.timetuple().tm_yday:03d}",
    "Mon": lambda t: day_abbr[t.weekday()],
    "Monday": lambda t: day_name[t.weekday()],
    "15": lambda t: f"{t.hour:02d}",
    "03": lambda t: f"{(t.hour + 11) % 12 + 1:02d}",
    "3": lambda t: str((t.hour + 11) % 12 + 1),
    "04": lambda t: f"{t.minute:02d}",
    "4": lambda t: str(t.minute),
    "05": lambda t: f"{t.second:02d}",
    "5": lambda t: str(t.second),
    "PM": lambda t: "PM" if t.hour >= 12 else "AM",
    "pm": lambda t: "pm" if t.hour >= 12 else "am",
    "MST": _zone_name,
}


def formatted(instant: Instant, layout: str) -> str:
    """The instant as the layout shows it."""

    def written(match: re.Match[str]) -> str:
        mark = match[0]
        if mark in _WRITERS:
            return _WRITERS[mark](instant.moment)
        return _fraction(instant.moment, mark) if mark[0] in ".," else _offset(instant.moment, mark)

    return _FIELD.sub(written, layout)


_READ_PATTERNS = {
    "2006": r"(\d{4})",
    "002": r"(\d{3})",
    "_2": r"([ \d]?\d)",
    "Jan": r"([A-Za-z]{3})",
    "January": r"([A-Za-z]+)",
    "Mon": r"([A-Za-z]{3})",
    "Monday": r"([A-Za-z]+)",
    "PM": r"(AM|PM)",
    "pm": r"(am|pm)",
    "MST": r"([A-Z]{3,5})",
    "05": r"(\d{2}(?:[.,]\d{1,9})?)",
    "5": r"(\d{1,2}(?:[.,]\d{1,9})?)",
}


def _read_pattern(mark: str) -> str:
    if mark in _READ_PATTERNS:
        return _READ_PATTERNS[mark]
    if mark[0] in ".,":
        return r"([.,]\d{1,9})" if mark[1] == "0" else r"([.,]\d{1,9})?"
    if mark[0] in "Z-":
        number = {"07": r"\d{2}", "0700": r"\d{4}", "07:00": r"\d{2}:\d{2}"}[mark[1:]]
        return rf"(Z|[+-]{number})" if mark[0] == "Z" else rf"([+-]{number})"
    return r"(\d{2})" if mark[0] == "0" or mark == "15" else r"(\d{1,2})"


@functools.lru_cache(maxsize=64)
def _layout(layout: str) -> tuple[str, tuple[str, ...]]:
    """The regular expression of a layout and the marks that its groups stand for."""
    expression, end = "", 0
    marks: list[str] = []
    for match in _FIELD.finditer(layout):
        expression += re.escape(layout[end : match.start()])
        end = match.end()
        if match[0][0] in ".," and marks and marks[-1] in {"05", "5"}:
            continue  # the seconds take their fraction along
        expression += _read_pattern(match[0])
        marks.append(match[0])
    return expression + re.escape(layout[end:]), tuple(marks)


def _parsed(text: str, layout: str, tz: tzinfo) -> Instant | None:
    if max(len(text), len(layout)) > MAX_TEXT:
        return None
    expression, marks = _layout(layout)
    match = pattern(expression).fullmatch(text)  # in linear time: with layout 111111 a backtracking matcher never ends
    if match is None:
        return None
    try:
        return _assembled(dict(zip(marks, match.groups(), strict=True)), tz)
    except (ValueError, OverflowError):
        return None


def _assembled(read: dict[str, str | None], tz: tzinfo) -> Instant:
    """The instant of the parts that were read. Raises ValueError when there is no such day or hour."""
    seconds, _, fraction = (_first(read, "05", "5") or "0").replace(",", ".").partition(".")
    moment = datetime(
        year=_year(read),
        month=_month(read),
        day=int((_first(read, "02", "_2", "2") or "1").strip()),
        hour=_hour(read),
        minute=int(_first(read, "04", "4") or 0),
        second=int(seconds),
        microsecond=int(f"{fraction:0<6}"[:6]),
        tzinfo=_read_zone(read, tz),
    )
    day_of_year = read.get("002")
    return Instant(moment + timedelta(days=int(day_of_year) - 1) if day_of_year else moment)


def _first(read: dict[str, str | None], *marks: str) -> str | None:
    return next((found for mark in marks if (found := read.get(mark)) is not None), None)


def _year(read: dict[str, str | None]) -> int:
    short = read.get("06")
    if short is not None:
        return int(short) + (1900 if int(short) >= 69 else 2000)
    return int(read.get("2006") or 1)


def _month(read: dict[str, str | None]) -> int:
    if (name := read.get("Jan")) is not None:
        return [known.lower() for known in month_abbr].index(name.lower())
    if (name := read.get("January")) is not None:
        return [known.lower() for known in month_name].index(name.lower())
    return int(_first(read, "01", "1") or 1)


def _hour(read: dict[str, str | None]) -> int:
    if (hour := read.get("15")) is not None:
        return int(hour)
    short = int(_first(read, "03", "3") or 0)
    half = (_first(read, "PM", "pm") or "").upper()
    return short % 12 + 12 if half == "PM" else short % 12 if half == "AM" else short


def _read_zone(read: dict[str, str | None], tz: tzinfo) -> tzinfo:
    offset = next((found for mark, found in read.items() if mark[0] in "Z-" and found), None)
    if offset is not None:
        return UTC if offset == "Z" else _fixed(offset)
    name = read.get("MST")
    return tz if name is None else UTC if name in {"UTC", "GMT"} else timezone(timedelta(), name)


def _fixed(offset: str) -> tzinfo:
    digits = offset[1:].replace(":", "").ljust(4, "0")
    length = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-length if offset[0] == "-" else length) if length else UTC


def _add_date(instant: Instant, years: int, months: int, days: int) -> Instant:
    """As the calendar counts: January 31 plus a month is March 3 (or 2)."""
    try:
        month0 = instant.moment.month - 1 + months
        first = instant.moment.replace(year=instant.moment.year + years + month0 // 12, month=month0 % 12 + 1, day=1)
        return Instant(first + timedelta(days=instant.moment.day - 1 + days))
    except (ValueError, OverflowError):
        raise Fault("time out of range") from None


def _unix_us(instant: Instant) -> int:
    return (instant.moment - _EPOCH) // timedelta(microseconds=1)


def _truncated(length: Duration, unit: Duration) -> Duration:
    if unit.ns <= 0:
        return length
    whole = abs(length.ns) // unit.ns * unit.ns
    return Duration(-whole if length.ns < 0 else whole)


# name: (kinds of the arguments, the function). Nothing else of these objects can be reached by an expression.
INSTANT_METHODS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "Year": ((), lambda t: t.moment.year),
    "Month": ((), lambda t: Named(t.moment.month, month_name[t.moment.month])),
    "Day": ((), lambda t: t.moment.day),
    "Hour": ((), lambda t: t.moment.hour),
    "Minute": ((), lambda t: t.moment.minute),
    "Second": ((), lambda t: t.moment.second),
    "Nanosecond": ((), lambda t: t.moment.microsecond * NS_PER_US),
    "Weekday": ((), lambda t: Named(t.moment.isoweekday() % 7, day_name[t.moment.weekday()])),
    "YearDay": ((), lambda t: t.moment.timetuple().tm_yday),
    "Unix": ((), lambda t: _unix_us(t) // 1_000_000),
    "UnixMilli": ((), lambda t: _unix_us(t) // 1_000),
    "UnixMicro": ((), _unix_us),
    "UnixNano": ((), lambda t: _unix_us(t) * NS_PER_US),
    "Format": (("string",), formatted),
    "String": ((), str),
    "AddDate": (("int", "int", "int"), _add_date),
    "Add": (("duration",), Instant.plus),
    "Sub": (("time",), Instant.minus),
    "Before": (("time",), lambda t, other: t.moment < other.moment),
    "After": (("time",), lambda t, other: t.moment > other.moment),
    "Equal": (("time",), lambda t, other: t.moment == other.moment),
    "In": (("zone",), lambda t, where: Instant(t.moment.astimezone(where.tz))),
    "UTC": ((), lambda t: Instant(t.moment.astimezone(UTC))),
}
DURATION_METHODS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "Hours": ((), lambda d: d.ns / (3600 * NS_PER_S)),
    "Minutes": ((), lambda d: d.ns / (60 * NS_PER_S)),
    "Seconds": ((), lambda d: d.ns / NS_PER_S),
    "Milliseconds": ((), lambda d: int(d.ns / 10**6)),
    "Microseconds": ((), lambda d: int(d.ns / 10**3)),
    "Nanoseconds": ((), lambda d: d.ns),
    "Truncate": (("duration",), _truncated),
    "Abs": ((), lambda d: Duration(abs(d.ns))),
    "String": ((), str),
}
