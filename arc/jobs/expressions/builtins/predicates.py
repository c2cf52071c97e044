"""Functions whose second argument is worked out for each element: filter, map, reduce and their like.

test(element, index) gives the value of the predicate; None where it may be left out and was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins.lists import ordered
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.values import Value, as_bool, is_number, mismatch, type_name, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Test = Callable[..., Value]


def _hits(items: list[Value], test: Test) -> Iterator[tuple[int, Value]]:
    return ((index, item) for index, item in enumerate(items) if as_bool(test(item, index)))


def _backwards(items: list[Value], test: Test) -> Iterator[tuple[int, Value]]:
    return ((index, items[index]) for index in reversed(range(len(items))) if as_bool(test(items[index], index)))


def _one(items: list[Value], test: Test) -> bool:
    return sum(1 for _ in _hits(items, test)) == 1


def _count(items: list[Value], test: Test | None) -> int:
    return sum(1 for _ in _hits(items, test or (lambda item, _: item)))


def _sum(items: list[Value], test: Test | None) -> int | float:
    total: int | float = 0
    for index, item in enumerate(items):
        term = test(item, index) if test else item
        if not is_number(term):
            raise Fault(f"invalid operation: {type_name(total)} + {type_name(term)}")
        total += term  # type: ignore[operator]
    return wrapped(total) if isinstance(total, int) else total


def _group_by(items: list[Value], test: Test) -> dict[str, Value]:
    groups: dict[Value, list[Value]] = {}
    for index, item in enumerate(items):
        key = test(item, index)
        if isinstance(key, list | dict):
            raise Fault(f"runtime error: hash of unhashable type {type_name(key)}")
        groups.setdefault(key, []).append(item)
    return groups  # type: ignore[return-value]


def _sort_by(items: list[Value], test: Test, direction: Value = "asc") -> list[Value]:
    if not isinstance(direction, str):
        raise mismatch(direction, "string")
    return ordered(items, [test(item, index) for index, item in enumerate(items)], direction)


def _reduce(items: list[Value], test: Test, *initial: Value) -> Value:
    if not items and not initial:
        raise Fault("reduce of empty array with no initial value")
    acc, start = (initial[0], 0) if initial else (items[0], 1)
    for index in range(start, len(items)):
        acc = test(items[index], index, acc)
    return acc


TABLE: dict[str, Callable[..., Value]] = {
    "all": lambda items, test: all(as_bool(test(item, index)) for index, item in enumerate(items)),
    "none": lambda items, test: next(_hits(items, test), None) is None,
    "any": lambda items, test: next(_hits(items, test), None) is not None,
    "one": _one,
    "filter": lambda items, test: [item for _, item in _hits(items, test)],
    "map": lambda items, test: [test(item, index) for index, item in enumerate(items)],
    "find": lambda items, test: next((item for _, item in _hits(items, test)), None),
    "findIndex": lambda items, test: next((index for index, _ in _hits(items, test)), None),
    "findLast": lambda items, test: next((item for _, item in _backwards(items, test)), None),
    "findLastIndex": lambda items, test: next((index for index, _ in _backwards(items, test)), None),
    "count": _count,
    "sum": _sum,
    "groupBy": _group_by,
    "sortBy": _sort_by,
    "reduce": _reduce,
}
