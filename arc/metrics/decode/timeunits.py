"""Timestamps of clients, in whatever unit, as microseconds since the epoch.

Points in MessagePack and JSON carry numbers without a unit. Their size tells it: seconds stay below 10^10 until the
year 2286, and then come milliseconds, microseconds and nanoseconds, each three digits longer. In a column the first
element decides for all. The price: milliseconds before 1970-04-26 are read as seconds.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from arc import clock
from arc.errors import Invalid


class Unit(NamedTuple):
    """microseconds = value * multiply // divide"""

    multiply: int
    divide: int


SECOND, MILLISECOND, MICROSECOND, NANOSECOND = Unit(1_000_000, 1), Unit(1_000, 1), Unit(1, 1), Unit(1, 1_000)
MINUTE, HOUR = Unit(60_000_000, 1), Unit(3_600_000_000, 1)
MIN_US = clock.parse_rfc3339("0001-01-01T00:00:00Z")
MAX_US = clock.parse_rfc3339("9999-12-31T23:59:59.999999Z")


def unit_of(value: int | float) -> Unit:
    """The unit a timestamp of this size is in; negative ones go by their absolute value."""
    size = abs(value)
    if size < 10**10:
        return SECOND
    if size < 10**13:
        return MILLISECOND
    return MICROSECOND if size < 10**16 else NANOSECOND


def to_us(value: int | float, unit: Unit | None = None) -> int:
    """One timestamp in microseconds, ints rounded down, floats to the nearest.

    unit: None means by its size.
    Raises Invalid outside the years 0001-9999 and for NaN.
    """
    unit = unit or unit_of(value)
    if isinstance(value, float):
        scaled = value * unit.multiply / unit.divide
        us = round(scaled) if math.isfinite(scaled) else MAX_US + 1
    else:
        us = value * unit.multiply // unit.divide
    if not MIN_US <= us <= MAX_US:
        raise Invalid(f"timestamp {value} is outside the years 0001-9999")
    return us


def column_to_us(values: np.ndarray[Any, Any], unit: Unit | None = None) -> np.ndarray[Any, Any]:
    """Timestamps in microseconds, int64; any integer or float dtype comes in. See to_us."""
    if not len(values):
        return values.astype(np.int64)
    unit = unit or unit_of(values[0].item())
    for extreme in (np.minimum.reduce(values), np.maximum.reduce(values)):  # scaling keeps order: they speak for all
        to_us(extreme.item(), unit)
    if values.dtype.kind == "f":
        scaled = values.astype(np.float64) * unit.multiply / unit.divide
        return np.rint(scaled).astype(np.int64)
    if unit.divide == 1:
        return values.astype(np.int64) * unit.multiply
    return (values // unit.divide).astype(np.int64)  # divided first: uint64 need not fit int64


def text_to_us(text: str) -> int:
    """An RFC 3339 instant in microseconds. Raises Invalid."""
    try:
        us = clock.parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise Invalid(f"timestamp {text[:60]!r} is not an RFC 3339 instant") from None
    return to_us(us, MICROSECOND)  # an offset can leave the calendar
