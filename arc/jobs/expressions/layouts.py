"""Layouts of dates: written as the moment Mon Jan 2 15:04:05 MST 2006 (-0700) would look.

`02 Jan 2006` reads and writes `14 Aug 2023`, `2006-01-02T15:04:05Z07:00` the times of RFC 3339.
"""

from __future__ import annotations

import functools
import re
from calendar import day_abbr, day_name, month_abbr, month_name
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING

from arc.jobs.expressions.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT = 200  # characters of a date or a layout
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


def formatted(moment: datetime, layout: str) -> str:
    """The moment as the layout shows it."""

    def written(match: re.Match[str]) -> str:
        mark = match[0]
        if mark in _WRITERS:
            return _WRITERS[mark](moment)
        return _fraction(moment, mark) if mark[0] in ".," else _offset(moment, mark)

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


def parsed(text: str, layout: str, tz: tzinfo) -> datetime | None:
    """The moment that a text of this layout means, in this zone if it names no other; None if it is none."""
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


def _assembled(read: dict[str, str | None], tz: tzinfo) -> datetime:
    """The moment of the parts that were read. Raises ValueError when there is no such day or hour."""
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
    return moment + timedelta(days=int(day_of_year) - 1) if day_of_year else moment


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
