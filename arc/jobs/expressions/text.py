"""Values as text: what a block of a template is replaced by, and JSON.

Floats are shown with the fewest digits that read back to the same number; from a million on in exponent form.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING

from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.layouts import formatted
from arc.jobs.expressions.limits import STEPS_PER_PART
from arc.jobs.expressions.times import Duration, Instant, Named

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget
    from arc.jobs.expressions.values import Value

_JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def to_text(value: Value, budget: Budget) -> str:
    """The text form: `[a b c]`, `map[k1:v1 k2:v2]`, `<nil>`, `1e+06`. Raises Fault when the budget is used up."""
    if isinstance(value, str):
        return value
    parts: list[str] = []
    _write_text(value, parts, budget)
    return "".join(parts)


def _write_text(value: Value, parts: list[str], budget: Budget) -> None:
    """A list may hold one list many times over, so the text of a small value can be huge: every part is paid."""
    budget.step(STEPS_PER_PART)
    if isinstance(value, list):
        parts.append("[")
        for index, item in enumerate(value):
            parts.append(" " if index else "")
            _write_text(item, parts, budget)
        parts.append("]")
    elif isinstance(value, dict):
        parts.append("map[")
        for index, key in enumerate(sorted(value, key=sort_key)):
            parts.append(f"{' ' if index else ''}{scalar_text(key)}:")
            _write_text(value[key], parts, budget)
        parts.append("]")
    else:
        parts.append(scalar_text(value))
    budget.spend(1 + len(parts[-1]))


def scalar_text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    return value.name if isinstance(value, Named) else str(value)


def sort_key(key: object) -> tuple[str, object]:
    """Keys of one kind side by side: groupBy makes maps with other keys than strings."""
    kind = "number" if isinstance(key, int | float) and not isinstance(key, bool) else type(key).__name__
    return kind, 0 if key is None else key


def float_text(number: float) -> str:
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    return _digits(number, lowest=-4, highest=5, exponent_digits=2)


def _digits(number: float, lowest: int, highest: int, exponent_digits: int) -> str:
    """Shortest digits; with an exponent when the decimal exponent is below lowest or above highest."""
    shortest = Decimal(repr(number)).normalize()
    if number == 0 or lowest <= shortest.adjusted() <= highest:
        return f"{shortest:f}"
    sign, digits, _ = shortest.as_tuple()
    exponent = shortest.adjusted()
    fraction = "".join(map(str, digits[1:]))
    mantissa = f"{'-' if sign else ''}{digits[0]}{'.' if fraction else ''}{fraction}"
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):0{exponent_digits}d}"


def to_json(value: Value, budget: Budget) -> str:
    """JSON indented by two spaces, keys sorted, `<`, `>` and `&` escaped. Raises Fault."""
    parts: list[str] = []
    _write_json(value, parts, "\n", budget)
    return "".join(parts)


def _write_json(value: Value, parts: list[str], line: str, budget: Budget) -> None:
    """line: a line break and the indentation of the current level."""
    budget.step(STEPS_PER_PART)
    if isinstance(value, list) and value:
        for index, item in enumerate(value):
            parts.append(f"{',' if index else '['}{line}  ")
            _write_json(item, parts, line + "  ", budget)
        parts.append(f"{line}]")
    elif isinstance(value, dict) and value:
        for index, key in enumerate(sorted(value, key=sort_key)):
            parts.append(f"{',' if index else '{'}{line}  {_quoted(scalar_text(key))}: ")
            _write_json(value[key], parts, line + "  ", budget)
        parts.append(f"{line}}}")
    else:
        parts.append(_json_scalar(value))
    budget.spend(len(line) + len(parts[-1]))


def _json_scalar(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            if not math.isfinite(value):
                raise Fault(f"json: unsupported value: {float_text(value)}")
            return _digits(value, lowest=-6, highest=20, exponent_digits=1)
        case int():
            return str(int(value))
        case list():
            return "[]"
        case dict():
            return "{}"
        case Instant():
            return _quoted(formatted(value.moment, "2006-01-02T15:04:05.999999999Z07:00"))
        case Duration():
            return str(value.ns)
    return _quoted(str(value))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_JSON_ESCAPES)
