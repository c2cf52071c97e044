"""Texts of a task that become numbers for the container engine: cpus, memory, GPUs. All raise TaskFailed."""

from __future__ import annotations

import csv
import re
from fractions import Fraction
from typing import Any

from arc.runtimes.base import TaskFailed

NANO = 1_000_000_000
_RATIONAL = re.compile(r"\+?(\d{1,9}/\d{1,9}|\d{1,9}(\.\d{0,18})?|\.\d{1,18})")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgtp])?i?b?", re.IGNORECASE)
_GPU_KEYS = ("count", "device", "driver", "capabilities", "options")


def nano_cpus(text: str) -> int:
    """`.5`, `1` or `1/2` of a core in billionths; nothing is 0, which is no limit."""
    if not text:
        return 0
    try:
        cpus = Fraction(text if _RATIONAL.fullmatch(text) else "")
    except (ValueError, ZeroDivisionError):
        raise TaskFailed(f"invalid CPUs value: failed to parse {text} as a rational number") from None
    nano = cpus * NANO
    if nano.denominator != 1:
        raise TaskFailed("invalid CPUs value: value is too precise")
    return nano.numerator


def memory_bytes(text: str) -> int:
    """`10m`, `1.5g` or `500KB` in bytes, units of 1024; nothing is 0, which is no limit."""
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise TaskFailed(f"invalid memory value: invalid size: '{text}'")
    power = " kmgtp".index((match[2] or " ").lower())
    return int(Fraction(match[1]) * 1024**power)


def device_requests(text: str) -> list[dict[str, Any]]:
    """`all`, `2` or `count=1,"device=0,1",capabilities=compute`: the syntax of `docker run --gpus`."""
    if not text:
        return []
    try:
        return [_device_request(_pairs(text))]
    except ValueError as exc:
        raise TaskFailed(f"error setting GPUs: {exc}") from None


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in next(csv.reader([text], strict=True)):
        key, is_pair, value = part.partition("=")
        if not is_pair:
            key, value = "count", part
        if key not in _GPU_KEYS:
            raise ValueError(f"unexpected key '{key}' in '{part}'")
        if key in pairs:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        pairs[key] = value
    return pairs


def _device_request(pairs: dict[str, str]) -> dict[str, Any]:
    devices = _values(pairs.get("device", ""))
    count = pairs.get("count", "" if devices else "1")
    options = dict(pair.partition("=")[::2] for pair in _values(pairs.get("options", "")))
    return {
        "Driver": pairs.get("driver", ""),
        "Count": _count(count) if count else 0,
        "DeviceIDs": devices or None,
        "Capabilities": [[*_values(pairs.get("capabilities", "")), "gpu"]],
        "Options": options,
    }


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise ValueError(f"invalid count ({text}): value must be either 'all' or an integer")
    return int(text)


def _values(text: str) -> list[str]:
    return text.split(",") if text else []
