"""Cron expressions of scheduled jobs: five fields, names of months and days, `@daily`, `@every 90s`, time zones.

Only what can come due is accepted. Source: the jobs specification, section 3.9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from arc.clock import US_PER_S
from arc.errors import Invalid
from arc.jobs.durations import parse_duration

MAX_LENGTH = 200  # characters
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")
_EVERY = re.compile(r"@every\s+(\S+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cron:
    """When a schedule comes due. every_us: the distance, or 0 for fields. zone: None without one in the expression."""

    fields: str
    every_us: int
    zone: tzinfo | None

    def next_after(self, us: int, local: tzinfo = UTC) -> int:
        """The first instant after `us`, both microseconds since the epoch. local: the zone of fields without one."""
        if self.every_us:
            return us + self.every_us
        moment = (_EPOCH + timedelta(microseconds=us)).astimezone(self.zone or local)
        due = next(CronSim(self.fields, moment))
        return (due - _EPOCH) // timedelta(microseconds=1)


def parse(text: str) -> Cron:
    """Raises Invalid for what is no cron expression and for what never comes due."""
    try:
        cron = _parse(text)
        cron.next_after(0)
    except (CronSimError, StopIteration, ValueError, KeyError, OSError):
        raise Invalid(f"{text[:MAX_LENGTH]!r} is no cron expression such as '5 * * * *'") from None
    return cron


def _parse(text: str) -> Cron:
    if len(text) > MAX_LENGTH:
        raise ValueError("too long")
    zone, text = _split_zone(text.strip())
    if every := _EVERY.fullmatch(text):
        return Cron("", _distance(every[1]), zone)
    return Cron(_five_fields(_SHORTHANDS.get(text, text)), 0, zone)


def _split_zone(text: str) -> tuple[tzinfo | None, str]:
    found = _ZONE.fullmatch(text)
    return (ZoneInfo(found[1]), found[2]) if found else (None, text)


def _distance(text: str) -> int:
    try:
        every_us = parse_duration(text)
    except Invalid as error:
        raise ValueError(str(error)) from None
    if every_us < US_PER_S:
        raise ValueError("at most once a second")
    return every_us


def _five_fields(text: str) -> str:
    """In the words of CronSim, which takes `*/2` for no restriction and knows a seventh weekday."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError("five fields")
    minute, hour, day, month, weekday = ("*" if field == "?" else field for field in fields)
    return " ".join((minute, hour, _stepped(day, 1, 31), month, _stepped(weekday, 0, 6)))


def _stepped(field: str, first: int, last: int) -> str:
    terms = []
    for term in field.split(","):
        start, slash, step = term.partition("/")
        start = {"*": f"{first}-{last}", "?": f"{first}-{last}"}.get(start, start) if slash else start
        terms.append(
            f"{start}-{last}/{step}" if slash and start.isalnum() and start != "L" else f"{start}{slash}{step}"
        )
    return ",".join(terms)
