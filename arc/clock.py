"""Wall clock: microseconds since the epoch, UTC, and their RFC 3339 text.

Stored times come from here; waits and durations use time.monotonic().
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

US_PER_S = 1_000_000
_DURATION = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


def rfc3339(us: int | None) -> str | None:
    """`2025-10-19T12:00:00.25Z`: fraction without trailing zeros; None stays None."""
    if us is None:
        return None
    moment = _EPOCH + timedelta(microseconds=us)
    text = moment.isoformat()[:19]  # strftime writes the year 999 with three digits
    fraction = f"{moment.microsecond:06d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def parse_rfc3339(text: str) -> int:
    """Microseconds since the epoch of an ISO 8601 instant; without an offset it is UTC.

    Raises ValueError when the text is no instant.
    """
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_duration(text: str) -> int:
    """Microseconds of `90s`, `15m`, `24h`, `7d` or `2w`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no length of time such as 90m, 24h or 7d")
    return int(match[1]) * _UNIT_S[match[2]] * US_PER_S
