"""What an expression can hold while it runs, and the names of types in error texts.

Nothing else ever enters an evaluation: no object of the server, no function, no attribute of Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.limits import CHARACTERS_PER_STEP, ITEMS_PER_STEP, MAX_DEPTH, TOO_DEEP
from arc.jobs.expressions.times import Duration, Instant, Named, Zone

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | Instant | Duration | Zone | None"

_INTEGERS = frozenset({int, Named})
_NUMBERS = _INTEGERS | {float}
_MASK = 2**64 - 1
_SIGN = 2**63


class StringMap(dict[str, "Value"]):
    """A map from string to string, such as inputs: a missing key is the empty string."""

    def __missing__(self, key: str) -> str:
        return ""


class Summary(dict[str, "Value"]):
    """An object with fixed fields, such as the job of a webhook's condition. label: its name in error texts."""

    def __init__(self, label: str, fields: dict[str, Value]) -> None:
        super().__init__(fields)
        self.label = label


def type_name(value: Value) -> str:
    """The type as error texts name it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case StringMap():
            return "map[string]string"
        case Summary():
            return value.label
        case dict():
            return "map[string]interface {}"
        case Instant():
            return "time.Time"
        case Duration():
            return "time.Duration"
    return "*time.Location"


def mismatch(value: Value, wanted: str) -> Fault:
    name = "nil" if value is None else type_name(value)
    return Fault(f"interface conversion: interface {{}} is {name}, not {wanted}")


def is_number(value: Value) -> bool:
    return type(value) in _NUMBERS  # by type, because bool is an int to isinstance, and this is asked all the time


def is_int(value: Value) -> bool:
    return type(value) in _INTEGERS


def as_bool(value: Value) -> bool:
    if not isinstance(value, bool):
        raise mismatch(value, "bool")
    return value


def as_int(value: Value) -> int:
    """Integers, and the whole part of floats: every number that came through fromJSON is a float."""
    if isinstance(value, float) and -_SIGN <= value < _SIGN:  # NaN and the infinities are not
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Fault(f"invalid operation: int({type_name(value)})")
    return value


def wrapped(number: int) -> int:
    """The number in 64 bits, as processors add and multiply."""
    return ((number + _SIGN) & _MASK) - _SIGN


def size(value: Value) -> int:
    """Elements that a new value costs: a container itself counts as one."""
    return len(value) + 1 if isinstance(value, list | dict) else len(value) if isinstance(value, str) else 0


def reading_steps(value: Value) -> int:
    """Steps that an operator or function may need to read a value."""
    if isinstance(value, str):
        return len(value) // CHARACTERS_PER_STEP
    return len(value) // ITEMS_PER_STEP if isinstance(value, list | dict) else 0


def bounded(value: Value, budget: Budget) -> Value:
    """The value itself, for code outside the budget to walk through. Raises Fault when that could take forever.

    A list may hold one list many times over: forty such levels are a few hundred bytes, but a million million elements.
    """
    level = [value] if isinstance(value, list | dict) else []
    for depth in range(MAX_DEPTH):
        elements = sum(map(size, level))
        budget.step(elements // ITEMS_PER_STEP)
        budget.spend(elements if depth else 0)  # the outermost was paid when it was made
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (list, dict))
        ]
        if not level:
            return value
    raise Fault(TOO_DEEP)


def equal(left: Value, right: Value, budget: Budget) -> bool:
    """Deep comparison; 1 == 1.0, but true is not 1."""
    budget.step()
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(equal(a, b, budget) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key], budget) for key in left)
    return left == right
