"""Instants, lengths of time and zones, as values of expressions.

Instants count microseconds, years 1 to 9999; durations count nanoseconds in 64 bits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.layouts import MAX_TEXT, formatted, parsed

NS_PER_US, NS_PER_S = 1_000, 1_000_000_000
MAX_NS = 2**63 - 1
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
        return formatted(self.moment, "2006-01-02 15:04:05.999999999 -0700 MST")

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
        moment = parsed(text, layout, where.tz)
        if moment is None:
            raise Fault(f'parsing time "{text[:MAX_TEXT]}" as "{layout[:MAX_TEXT]}": cannot parse')
        return Instant(moment)
    for usual in _DEFAULT_LAYOUTS:
        if (moment := parsed(text, usual, where.tz)) is not None:
            return Instant(moment)
    raise Fault(f"invalid date {text[:MAX_TEXT]}")
