"""Values of facts and tags as the filter language sees them: a text and, where it reads as one, a number.

Source: the remote agents specification, section 3.4.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from arc.errors import Invalid

_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def text_of(value: Any) -> str | None:
    """The text a filter compares; None for null, which every comparison leaves undecided.

    Objects and arrays: JSON with `, ` and `: `, keys by length, then by bytes.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _decimal(value)
    return json.dumps(_ordered(value), ensure_ascii=False)


def number_of(text: str | None) -> float | None:
    """The number a text reads as: sign, fraction, exponent and surrounding blanks are fine."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _decimal(value: float) -> str:
    """Without exponent, without a fraction that is zero: 91, 1.5."""
    return str(int(value)) if value.is_integer() else f"{value:.17f}".rstrip("0") if abs(value) < 1e-4 else repr(value)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: _ordered(value[key]) for key in keys}
    return [_ordered(each) for each in value] if isinstance(value, list) else value


def refuse_nul(name: str, text: str) -> None:
    """For texts that users give: PostgreSQL cannot hold U+0000. Raises Invalid."""
    if "\0" in text:
        raise Invalid(f"{name} must not contain U+0000")
