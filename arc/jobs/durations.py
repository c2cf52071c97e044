"""Lengths of time as jobs write them: `90s`, `1h30m`, `.5s`, `250ms`.

The grammar is that of Go's time.ParseDuration: an optional sign, then numbers with units, or a bare 0.
"""

from __future__ import annotations

import re
from fractions import Fraction

from arc.errors import Invalid

MAX_LENGTH = 100  # characters; longer ones are nonsense and only cost time
MAX_NS = 2**63 - 1  # 292 years
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,  # the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[-+]?(?:0|(?:{_PART.pattern})+)")


def parse_duration(text: str) -> int:
    """Microseconds, cut toward zero; below zero with a minus sign. Raises Invalid."""
    if len(text) > MAX_LENGTH or not _WHOLE.fullmatch(text):
        raise _invalid(text)
    total_ns = sum(Fraction(number.rstrip(".")) * _UNIT_NS[unit] for number, unit in _PART.findall(text))
    if total_ns > MAX_NS:
        raise _invalid(text)
    total_us = int(total_ns / 1_000)
    return -total_us if text.startswith("-") else total_us


def _invalid(text: str) -> Invalid:
    return Invalid(f'time: invalid duration "{text[:MAX_LENGTH]}"')
