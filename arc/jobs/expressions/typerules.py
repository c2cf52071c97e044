"""What type an operator gives for the types of its operands; None where it cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions import kinds
from arc.jobs.expressions.kinds import ANY, BOOL, INT, NUMBERS, STRING, Type, comparable, is_a

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = frozenset({"<", "<=", ">", ">="})


def _both(left: Type, right: Type, *allowed: str) -> bool:
    """Whether both may be of the same one of the kinds."""
    return any(is_a(left, kind) and is_a(right, kind) for kind in allowed)


def _numeric(left: Type, right: Type) -> bool:
    return is_a(left, *NUMBERS) and is_a(right, *NUMBERS)


def _combined(left: Type, right: Type) -> Type:
    return ANY if "any" in {left.kind, right.kind} else INT if left.kind == right.kind == "int" else kinds.FLOAT


def _sum_type(left: Type, right: Type) -> Type | None:
    if _numeric(left, right):
        return _combined(left, right)
    if _both(left, right, "string"):
        return STRING if left.kind == right.kind else ANY
    if _both(left, right, "duration"):
        return kinds.DURATION
    moves = (is_a(left, "time") and is_a(right, "duration")) or (is_a(left, "duration") and is_a(right, "time"))
    return kinds.TIME if moves else None


def _difference_type(left: Type, right: Type) -> Type | None:
    if _numeric(left, right):
        return _combined(left, right)
    if _both(left, right, "time", "duration"):
        return kinds.DURATION if "any" not in {left.kind, right.kind} else ANY
    return kinds.TIME if is_a(left, "time") and is_a(right, "duration") else None


def _product_type(left: Type, right: Type) -> Type | None:
    if _numeric(left, right):
        return _combined(left, right)
    scaled = (is_a(left, "duration") and is_a(right, *NUMBERS)) or (is_a(left, *NUMBERS) and is_a(right, "duration"))
    return kinds.DURATION if scaled else None


def _in_type(left: Type, right: Type) -> Type | None:
    if right.kind == "map":
        return BOOL if is_a(left, "string", "nil") else None
    if right.kind == "array":
        return BOOL if comparable(left, right.member) else None
    return BOOL if is_a(right, "nil") or (right.kind == "object" and is_a(left, "string")) else None


def _coalesced(left: Type, right: Type) -> Type:
    if "nil" in {left.kind, right.kind}:
        return right if left.kind == "nil" else left
    return left if left == right else ANY


def _when(condition: Callable[[Type, Type], bool], result: Type) -> Callable[[Type, Type], Type | None]:
    return lambda left, right: result if condition(left, right) else None


_logical = _when(lambda a, b: _both(a, b, "bool"), BOOL)
_texts = _when(lambda a, b: _both(a, b, "string"), BOOL)
_equality = _when(comparable, BOOL)
_order = _when(lambda a, b: _numeric(a, b) or _both(a, b, "string", "time", "duration"), BOOL)
RULES: dict[str, Callable[[Type, Type], Type | None]] = {
    "+": _sum_type,
    "-": _difference_type,
    "*": _product_type,
    "/": _when(_numeric, kinds.FLOAT),
    "**": _when(_numeric, kinds.FLOAT),
    "^": _when(_numeric, kinds.FLOAT),
    "%": lambda a, b: _combined(a, b) if _both(a, b, "int") else None,
    "..": _when(lambda a, b: _both(a, b, "int"), kinds.INTS),
    "in": _in_type,
    "??": _coalesced,
    **dict.fromkeys(("==", "!="), _equality),
    **dict.fromkeys(ORDER, _order),
    **dict.fromkeys(("and", "&&", "or", "||"), _logical),
    **dict.fromkeys(("matches", "contains", "startsWith", "endsWith"), _texts),
}
