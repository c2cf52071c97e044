"""Functions on numbers and bits, and the conversions between numbers and text."""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING

from arc.jobs.expressions import operators
from arc.jobs.expressions.builtins.signature import NUMBER, Function, one_of
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import ANY, FLOAT, INT, STRING
from arc.jobs.expressions.text import float_text, to_text
from arc.jobs.expressions.values import Value, is_int, is_number, type_name, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arc.jobs.expressions.limits import Budget

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_MAX_NUMBER_TEXT = 400  # characters
_RANDOM_BITS = 63


def _int(_: Budget, value: Value) -> int:
    if isinstance(value, str):
        number = int(value) if _INTEGER.fullmatch(value) else None
        if number is None or wrapped(number) != number:
            raise Fault(f"invalid operation: int({value[:_MAX_NUMBER_TEXT]})")
        return number
    if isinstance(value, float) and not -(2**63) <= value < 2**63:
        raise Fault(f"invalid operation: int({float_text(value)})")
    return int(value)  # type: ignore[arg-type]


def _float(_: Budget, value: Value) -> float:
    if isinstance(value, str) and not (len(value) <= _MAX_NUMBER_TEXT and _FLOAT.fullmatch(value)):
        raise Fault(f"invalid operation: float({value[:_MAX_NUMBER_TEXT]})")
    return float(value)  # type: ignore[arg-type]


def _string(budget: Budget, value: Value) -> str:
    return to_text(value, budget)


def _abs(_: Budget, value: int | float) -> int | float:
    return wrapped(abs(value)) if isinstance(value, int) else abs(value)


def _rounded(how: Callable[[float], int]) -> Callable[..., float]:
    def run(_: Budget, value: int | float) -> float:
        number = float(value)
        return math.copysign(how(number), number) if math.isfinite(number) else number

    return run


def _half_away_from_zero(number: float) -> int:
    whole = math.trunc(number)
    return whole + int(math.copysign(1, number)) if abs(number - whole) >= 0.5 else whole


def _numbers(name: str, budget: Budget, arguments: tuple[Value, ...]) -> Iterator[int | float]:
    """The numbers among the arguments and in lists among them."""
    for value in arguments:
        budget.step()
        if isinstance(value, list):
            yield from _numbers(name, budget, tuple(value))
        elif is_number(value):
            yield value  # type: ignore[misc]
        else:
            raise Fault(f"invalid argument for {name} (type {type_name(value)})")


def _max(budget: Budget, *arguments: Value) -> Value:
    return max(_numbers("max", budget, arguments), default=None)


def _min(budget: Budget, *arguments: Value) -> Value:
    return min(_numbers("min", budget, arguments), default=None)


def _mean(budget: Budget, *arguments: Value) -> float:
    numbers = [float(number) for number in _numbers("mean", budget, arguments)]
    return sum(numbers) / len(numbers) if numbers else 0.0


def _median(budget: Budget, *arguments: Value) -> float:
    numbers = sorted(float(number) for number in _numbers("median", budget, arguments))
    if not numbers:
        return 0.0
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2


def _shift_count(count: int) -> int:
    if count < 0:
        raise Fault(f"invalid operation: negative shift count {count} (type int)")
    return min(count, 64)


def _integer(value: Value) -> int:
    if not is_int(value):
        raise Fault(f"invalid arg type {type_name(value)}")
    return value  # type: ignore[return-value]


def _sequence(budget: Budget, start: Value, stop: Value) -> list[Value]:
    return operators.integers(_integer(start), _integer(stop), budget)


def _random_int(_: Budget, limit: Value = 2**_RANDOM_BITS) -> int:
    if _integer(limit) <= 0:
        raise Fault("invalid argument to Intn")
    return secrets.randbelow(_integer(limit))


_NUMBERS = one_of("int", "float", "array")
_TWO_INTS = (INT, INT)

FUNCTIONS = (
    Function("int", _int, (one_of("int", "float", "string"),), INT),
    Function("float", _float, (one_of("int", "float", "string"),), FLOAT),
    Function("string", _string, (ANY,), STRING),
    Function("abs", _abs, (NUMBER,), "first"),
    Function("ceil", _rounded(math.ceil), (NUMBER,), FLOAT),
    Function("floor", _rounded(math.floor), (NUMBER,), FLOAT),
    Function("round", _rounded(_half_away_from_zero), (NUMBER,), FLOAT),
    Function("max", _max, (_NUMBERS,), ANY, is_variadic=True),
    Function("min", _min, (_NUMBERS,), ANY, is_variadic=True),
    Function("mean", _mean, (_NUMBERS,), FLOAT, is_variadic=True),
    Function("median", _median, (_NUMBERS,), FLOAT, is_variadic=True),
    Function("bitand", lambda _, a, b: a & b, _TWO_INTS, INT),
    Function("bitor", lambda _, a, b: a | b, _TWO_INTS, INT),
    Function("bitxor", lambda _, a, b: a ^ b, _TWO_INTS, INT),
    Function("bitnand", lambda _, a, b: a & ~b, _TWO_INTS, INT),
    Function("bitshl", lambda _, a, b: wrapped(a << _shift_count(b)), _TWO_INTS, INT),
    Function("bitshr", lambda _, a, b: a >> _shift_count(b), _TWO_INTS, INT),
    Function("bitushr", lambda _, a, b: wrapped(a % 2**64 >> _shift_count(b)), _TWO_INTS, INT),
    Function("bitnot", lambda _, a: ~a, (INT,), INT),
    Function("sequence", _sequence, (ANY, ANY), ANY),
    Function("randomInt", _random_int, (ANY,), ANY, required=0),
)
