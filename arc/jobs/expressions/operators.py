"""Operators between two values, for what the static pass could not decide: elements of lists, JSON, loop variables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from arc.jobs.expressions import patterns
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.times import Duration, Instant
from arc.jobs.expressions.values import Value, as_int, equal, is_int, is_number, mismatch, type_name, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.jobs.expressions.limits import Budget


def apply(op: str, left: Value, right: Value, budget: Budget) -> Value:
    """The value of `left op right`. Raises Fault without a place."""
    return _OPERATORS[op](op, left, right, budget)


def signed(op: str, value: Value) -> Value:
    if op == "-" and isinstance(value, Duration):
        return Duration(wrapped(-value.ns))
    if not is_number(value):
        raise Fault(f"invalid operation: {op} {type_name(value)}")
    if op == "+":
        return value
    return wrapped(-value) if isinstance(value, int) else -value  # type: ignore[operator]


def _unsuited(op: str, left: Value, right: Value) -> Fault:
    return Fault(f"invalid operation: {type_name(left)} {op} {type_name(right)}")


def _add(op: str, left: Value, right: Value, budget: Budget) -> Value:
    match left, right:
        case str(), str():
            budget.spend(len(left) + len(right))
            return left + right
        case (Instant(), Duration()):
            return left.plus(right)
        case (Duration(), Instant()):
            return right.plus(left)
        case (Duration(), Duration()):
            return Duration(wrapped(left.ns + right.ns))
    return _arithmetic(op, left, right, budget)


def _subtract(op: str, left: Value, right: Value, budget: Budget) -> Value:
    match left, right:
        case (Instant(), Instant()):
            return left.minus(right)
        case (Instant(), Duration()):
            return left.plus(Duration(-right.ns))
        case (Duration(), Duration()):
            return Duration(wrapped(left.ns - right.ns))
    return _arithmetic(op, left, right, budget)


def _multiply(op: str, left: Value, right: Value, budget: Budget) -> Value:
    if isinstance(left, Duration) and is_number(right):
        return Duration(wrapped(left.ns * as_int(right)))
    if isinstance(right, Duration) and is_number(left):
        return Duration(wrapped(right.ns * as_int(left)))
    return _arithmetic(op, left, right, budget)


def _arithmetic(op: str, left: Value, right: Value, _budget: Budget) -> Value:
    if not (is_number(left) and is_number(right)):
        raise _unsuited(op, left, right)
    result = _COMPUTED[op](left, right)
    return wrapped(result) if isinstance(result, int) else result


def _divide(op: str, left: Value, right: Value, _budget: Budget) -> Value:
    if not (is_number(left) and is_number(right)):
        raise _unsuited(op, left, right)
    dividend, divisor = float(left), float(right)  # type: ignore[arg-type]
    if divisor:
        return dividend / divisor
    if dividend == 0 or math.isnan(dividend):
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1, divisor)


def _remainder(op: str, left: Value, right: Value, _budget: Budget) -> Value:
    if not (is_int(left) and is_int(right)):
        raise _unsuited(op, left, right)
    if right == 0:
        raise Fault("integer divide by zero")
    rest = abs(left) % abs(right)  # type: ignore[arg-type]
    return -rest if left < 0 else rest  # type: ignore[operator]


def _power(op: str, left: Value, right: Value, _budget: Budget) -> Value:
    if not (is_number(left) and is_number(right)):
        raise _unsuited(op, left, right)
    base, exponent = float(left), float(right)  # type: ignore[arg-type]
    is_odd = exponent % 2 == 1
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and is_odd else math.inf
    except ValueError:  # zero to a negative power, or a root of a negative number
        return math.nan if base else math.copysign(math.inf, base) if is_odd else math.inf


def _order(op: str, left: Value, right: Value, _budget: Budget) -> Value:
    both_numbers = is_number(left) and is_number(right)
    if not both_numbers and not any(
        isinstance(left, kind) and isinstance(right, kind) for kind in (str, Instant, Duration)
    ):
        raise _unsuited(op, left, right)
    return _ORDER[op](left, right)


def _equal(_op: str, left: Value, right: Value, budget: Budget) -> Value:
    return equal(left, right, budget)


def _unequal(_op: str, left: Value, right: Value, budget: Budget) -> Value:
    return not equal(left, right, budget)


def _in(_op: str, left: Value, right: Value, budget: Budget) -> Value:
    match right:
        case list():
            return any(equal(left, item, budget) for item in right)
        case dict():
            if left is not None and not isinstance(left, str):
                raise Fault(f"cannot use {type_name(left)} as type string in map key")
            return left in right
        case None:
            return False
    raise Fault(f'operator "in" not defined on {type_name(right)}')


def _between_texts(op: str, left: Value, right: Value, budget: Budget) -> Value:
    if not isinstance(left, str):
        raise mismatch(left, "string")
    if not isinstance(right, str):
        raise mismatch(right, "string")
    if op == "matches":
        return patterns.matches(right, left, budget)
    return right in left if op == "contains" else left.startswith(right) if op == "startsWith" else left.endswith(right)


def _range(_op: str, left: Value, right: Value, budget: Budget) -> Value:
    return integers(as_int(left), as_int(right) + 1, budget)


def integers(start: int, stop: int, budget: Budget) -> list[Value]:
    budget.spend(max(stop - start, 0))
    return list(range(start, stop))


_COMPUTED: dict[str, Callable[..., int | float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_ORDER: dict[str, Callable[..., bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_OPERATORS: dict[str, Callable[[str, Value, Value, Budget], Value]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _remainder,
    "**": _power,
    "^": _power,
    "==": _equal,
    "!=": _unequal,
    "in": _in,
    "..": _range,
    **dict.fromkeys(_ORDER, _order),
    **dict.fromkeys(("matches", "contains", "startsWith", "endsWith"), _between_texts),
}
