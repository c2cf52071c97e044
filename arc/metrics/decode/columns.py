"""Columns out of Python values: one Arrow array per column, typed by what is in it; spec metrics 3.4."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from arc.errors import Invalid

KINDS = {bool: "boolean", int: "integer", float: "float", str: "text", bytes: "binary", list: "text", dict: "text"}
NUMBERS = frozenset({"integer", "float"})
NULL = type(None)
_ARROW_TYPES: dict[str | None, pa.DataType] = {
    "boolean": pa.bool_(),
    "float": pa.float64(),
    "text": pa.string(),
    "binary": pa.binary(),
}


class BadValue(Invalid):
    """A value does not fit its column. row: its index there."""

    def __init__(self, reason: str, row: int) -> None:
        super().__init__(reason)
        self.row = row


def arrow_column(name: str, values: list[Any]) -> pa.Array:
    """Values of one column, typed by the first that is not null; integers and floats together are floats.

    Raises BadValue for a mixture of other types.
    """
    types = set(map(type, values))
    types.discard(NULL)
    kinds: set[str | None] = {KINDS.get(kind) for kind in types}
    if len(kinds) > 1 or None in kinds:
        _check_mixture(name, values)
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {"integer"}:
        try:
            return pa.array(values, pa.int64())
        except OverflowError:  # above int64 a column becomes float
            kinds |= NUMBERS
    if kinds == NUMBERS:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if not types.isdisjoint((list, dict)):
        values = [json_text(value) if isinstance(value, list | dict) else value for value in values]
    return pa.array(values, _ARROW_TYPES[kinds.pop()])


class FoldedLists:
    """Columns of one table as lists; names that differ only in case share one under the first spelling."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.columns: dict[str, tuple[str, list[Any]]] = {}

    def add(self, name: str, values: list[Any], positions: list[int] | None) -> str:
        """Puts the values at their positions (None: all); returns the column's spelling."""
        folded = name.casefold()
        if folded not in self.columns and positions is None:
            self.columns[folded] = (name, values)
            return name
        spelling, column = self.columns.setdefault(folded, (name, [None] * self._rows))
        for position, value in zip(positions or range(self._rows), values, strict=True):
            if value is not None:
                if column[position] is not None:
                    raise BadValue(twice(spelling, name), position)
                column[position] = value
        return spelling


def can_mix(kind: str, other: str) -> bool:
    """Whether values of two kinds can share a column."""
    return kind == other or {kind, other} == NUMBERS


def twice(spelling: str, name: str) -> str:
    return f'columns "{spelling}" and "{name}" differ only in case'


def kind_of(value: Any) -> str:
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "a map"
    return "null" if value is None else KINDS.get(type(value), type(value).__name__.lower())


def json_text(value: Any) -> str:
    """Compact JSON. Raises Invalid where the nesting is too deep or a map has keys JSON cannot hold."""
    try:
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        raise Invalid(f"a list or map cannot be stored as JSON: {error}") from None


def _json_default(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _check_mixture(name: str, values: list[Any]) -> None:
    """Raises BadValue at the first value that does not go with the first that is not null."""
    first = None
    for row, value in enumerate(values):
        if value is None:
            continue
        kind = KINDS.get(type(value))
        if kind is None:
            raise BadValue(f'column "{name}": cannot store a {kind_of(value)}', row)
        first = first or kind
        if not can_mix(first, kind):
            raise BadValue(f'column "{name}": cannot mix {first} and {kind}', row)
