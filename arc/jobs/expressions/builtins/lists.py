"""Functions on lists and maps that take no predicate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins.signature import Function, one_of
from arc.jobs.expressions.faults import Fault
from arc.jobs.expressions.kinds import ANY, ARRAY, INT, MAP, STRING
from arc.jobs.expressions.text import sort_key
from arc.jobs.expressions.times import Duration, Instant
from arc.jobs.expressions.values import StringMap, Value, as_int, equal, is_number, mismatch, type_name

if TYPE_CHECKING:
    from arc.jobs.expressions.limits import Budget


def _get(_: Budget, target: Value, key: Value) -> Value:
    """The element, or nil where an index or key has none."""
    if isinstance(target, StringMap) and isinstance(key, str):
        return target[key]
    if isinstance(target, dict):
        return target.get(key) if isinstance(key, str | int | float) else None  # type: ignore[arg-type]
    if isinstance(target, list) and is_number(key) and -len(target) <= as_int(key) < len(target):
        return target[as_int(key)]
    return None


def _take(_: Budget, items: list[Value], count: int) -> list[Value]:
    if count < 0:
        raise Fault(f"cannot take {count} elements")
    return items[:count]


def _keys(_: Budget, mapping: dict[str, Value]) -> list[Value]:
    return sorted(mapping, key=sort_key)


def _values(budget: Budget, mapping: dict[str, Value]) -> list[Value]:
    return [mapping[key] for key in _keys(budget, mapping)]  # type: ignore[index]


def _to_pairs(budget: Budget, mapping: dict[str, Value]) -> list[Value]:
    budget.spend(3 * len(mapping))
    return [[key, mapping[key]] for key in _keys(budget, mapping)]  # type: ignore[index]


def _from_pairs(budget: Budget, pairs: list[Value]) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for pair in pairs:
        budget.step()
        if not isinstance(pair, list) or len(pair) != 2:
            raise Fault("invalid pair: a list of a key and a value is wanted")
        if not isinstance(pair[0], str):
            raise mismatch(pair[0], "string")
        result[pair[0]] = pair[1]
    return result


def _uniq(budget: Budget, items: list[Value]) -> list[Value]:
    kept: list[Value] = []
    seen: set[tuple[bool, Value]] = set()
    for item in items:
        budget.step()
        if isinstance(item, list | dict):
            if any(equal(item, other, budget) for other in kept):
                continue
        elif (isinstance(item, bool), item) in seen:  # a set, because comparing each with each takes too long
            continue
        else:
            seen.add((isinstance(item, bool), item))
        kept.append(item)
    return kept


def _concat(budget: Budget, *lists: list[Value]) -> list[Value]:
    budget.spend(sum(map(len, lists)))
    return [item for items in lists for item in items]


def _flatten(budget: Budget, items: list[Value]) -> list[Value]:
    flat: list[Value] = []
    for item in items:
        budget.step()
        if isinstance(item, list):
            inner = _flatten(budget, item)
            budget.spend(len(inner))
            flat += inner
        else:
            flat.append(item)
    return flat


def ordered(items: list[Value], keys: list[Value], direction: str) -> list[Value]:
    """The items in the order of their keys, which must be of one kind."""
    if direction not in {"asc", "desc"}:
        raise Fault(f"invalid order {direction}, expected asc or desc")
    kinds = (str, Instant, Duration)
    if not all(map(is_number, keys)) and not any(all(isinstance(key, kind) for key in keys) for kind in kinds):
        other = next((key for key in keys if type(key) is not type(keys[0])), keys[0])
        raise Fault(f"invalid operation: {type_name(keys[0])} < {type_name(other)}")
    order = sorted(range(len(items)), key=keys.__getitem__, reverse=direction == "desc")  # type: ignore[arg-type]
    return [items[index] for index in order]


def _sort(_: Budget, items: list[Value], direction: str = "asc") -> list[Value]:
    return ordered(items, items, direction)


def _reverse(_: Budget, items: list[Value]) -> list[Value]:
    return items[::-1]


def _type(_: Budget, value: Value) -> str:
    if value is None:
        return "nil"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "map"
    return "float" if isinstance(value, float) else type_name(value)


FUNCTIONS = (
    Function("len", lambda _, value: len(value), (one_of("string", "array", "map", "object"),), INT),
    Function("type", _type, (ANY,), STRING),
    Function("first", lambda budget, items: _get(budget, items, 0), (ARRAY,), "element"),
    Function("last", lambda budget, items: _get(budget, items, -1), (ARRAY,), "element"),
    Function("get", _get, (ANY, ANY), "element"),
    Function("take", _take, (ARRAY, INT), "first"),
    Function("keys", _keys, (MAP,), ARRAY),
    Function("values", _values, (MAP,), ARRAY),
    Function("toPairs", _to_pairs, (MAP,), ARRAY),
    Function("fromPairs", _from_pairs, (ARRAY,), MAP),
    Function("reverse", _reverse, (ARRAY,), "first"),
    Function("uniq", _uniq, (ARRAY,), "first"),
    Function("concat", _concat, (ARRAY,), ARRAY, is_variadic=True),
    Function("flatten", _flatten, (ARRAY,), ARRAY),
    Function("sort", _sort, (ARRAY, STRING), "first", required=1),
)
