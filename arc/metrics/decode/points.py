"""Points as plain Python objects (of msgpack or JSON) into columns.

    items_to_batches -> envelopes opened -> columnar items: columnar_item, one batch each
                                         -> row items: Row each, rows_to_batches, one batch per measurement

Rows are sorted by measurement and the names of tags and fields: names are looked at once for many rows, values column
by column. Names and types: spec metrics 2.6.1 and 3.4. All or nothing: a bad item refuses the request.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import msgpack
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, UnsetType

from arc.errors import Invalid
from arc.metrics.decode.batch import Batch, time_array
from arc.metrics.decode.columns import NULL, BadValue, FoldedLists, arrow_column, json_text, kind_of, twice
from arc.metrics.decode.timeunits import NANOSECOND, Unit, column_to_us, text_to_us, to_us, unit_of
from arc.metrics.names import TIME, check_measurement, column_names, is_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOST = "host"
UNKNOWN_HOST = "unknown"  # of row items that do not mention a host
MAX_NESTING = 32  # batches inside batches
_NO_TAGS: dict[Any, Any] = {}

Item = dict[Any, Any]
_Keys = tuple[Any, ...]
Times = np.ndarray[Any, Any]  # int64, microseconds


class BadItem(Invalid):
    """An item does not have the shape of a point."""


class Row(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row item under the usual spellings of its keys.

    The types are those a decoder may take over as they are. Of any other item _row() makes one, and then fields and
    tags can have keys and values of other types too. gc=False: rows are many, and no row is part of a cycle.
    """

    m: str
    fields: Annotated[dict[str, bool | int | float | str | None], msgspec.Meta(min_length=1)]
    t: int | float | None = None
    h: str | UnsetType | None = UNSET
    tags: dict[str, str | None] | None = None


def items_to_batches(
    objects: Iterable[Any], received_us: int, payload: str = "MessagePack", *, text_times: bool = False
) -> list[Batch]:
    """All points of a request body; at least one row.

    objects: what the body holds: items, arrays of items, {"batch": [...]}.
    received_us: time of rows without one. payload: name of the format, for errors.
    text_times: whether times may be RFC 3339 text.
    Raises Invalid, which numbers the bad item (from 0) unless it is the only one.
    """
    try:
        items: list[Item] = []
        for entry in objects:
            _open_envelope(entry, items, MAX_NESTING)
        batches = _batches(items, received_us, text_times)
    except BadItem as error:
        raise Invalid(f"Invalid {payload} payload: {error}") from None
    if not batches:
        raise Invalid("No records in payload")
    return batches


def columnar_item(item: Item, received_us: int, *, text_times: bool = False) -> Batch:
    """The rows of an item {"m": measurement, "columns": {name: [value, ...]}}."""
    lists = item.get("columns")
    if not isinstance(lists, dict) or not lists:
        raise BadItem("Columnar format requires 'columns' dict")
    columns: dict[str, Any] = {}
    for key, values in lists.items():
        name = _text_key(key)
        if not isinstance(values, list):
            raise BadItem(f'Columnar format: column "{name}" must be an array, not {kind_of(values)}')
        columns[name] = _column_times(values, text_times) if name == TIME else arrow_column(name, values)
    return batch_of_columns(_measurement(item), columns, received_us)


def batch_of_columns(measurement: str, columns: dict[str, Any], received_us: int) -> Batch:
    """A batch of Arrow arrays by name; "time", if there is one, is an int64 numpy array of microseconds."""
    check_measurement(measurement)
    rows = len(next(iter(columns.values())))
    for name, column in columns.items():
        if len(column) != rows:
            raise BadItem(f'Columnar format: array length mismatch: column "{name}" has {len(column)}, not {rows}')
    times = columns.pop(TIME, None)
    if times is None:
        times = np.full(rows, received_us, np.int64)
    columns = {TIME: time_array(times), **columns}
    return Batch(measurement, columns if _are_plain(tuple(columns)) else _merged(columns), rows)


def rows_to_batches(rows: Sequence[Row], received_us: int, *, text_times: bool = False) -> list[Batch]:
    """A batch for each measurement, its rows in their order.

    Raises BadValue with the index of the row in `rows`, or Invalid for a bad name, which _row() refuses earlier.
    """
    tables: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        tables[row.m].append(index)
    return [_Table(name, rows, indexes).batch(received_us, text_times) for name, indexes in tables.items()]


class _Shape:
    """Where the columns of some rows come from: pairs of the key in tags or fields and the column's name."""

    def __init__(self, tags: _Keys, fields: _Keys) -> None:
        names = {key: _text_key(key) for key in tags}
        hosts = [key for key, name in names.items() if name.casefold() == HOST]
        self.host_key = hosts[0] if hosts else None
        names.pop(self.host_key, None)  # tags.host is a source of the column host, not a column of its own
        tag_columns, field_columns = column_names(names.values(), map(_text_key, fields), (TIME, HOST))
        self.tags = [(key, column) for key, column in zip(names, tag_columns, strict=True) if column]
        self.fields = [(key, column) for key, column in zip(fields, field_columns, strict=True) if column]
        # No name had to make way for another: rows that lack some of the keys have the same columns for the others.
        self.is_plain = len(hosts) < 2 and all(_text_key(key) == column for key, column in self.tags + self.fields)


@lru_cache(512)
def _shape_of(tags: _Keys, fields: _Keys) -> _Shape:
    """Clients send the same names again and again. Raises Invalid for a bad one."""
    return _Shape(tags, fields)


class _Table:
    """The rows of one measurement on their way into columns. indexes: theirs among the rows of the request."""

    def __init__(self, measurement: str, rows: Sequence[Row], indexes: list[int]) -> None:
        check_measurement(measurement)
        self.measurement = measurement
        self.indexes = indexes
        self.rows = [rows[index] for index in indexes]
        self.tags: list[Item] = [row.tags or _NO_TAGS for row in self.rows]
        self.fields: list[Item] = [row.fields for row in self.rows]
        self.shapes = self._shapes()

    def _shapes(self) -> list[tuple[_Shape, list[int] | None]]:
        """Shapes and the positions of their rows; None for all rows, as is usual."""
        shape = _shape_of(_keys(self.tags), _keys(self.fields))
        if shape.is_plain:
            return [(shape, None)]
        groups: defaultdict[tuple[_Keys, _Keys], list[int]] = defaultdict(list)
        for position, (tags, fields) in enumerate(zip(self.tags, self.fields, strict=True)):
            groups[tuple(tags), tuple(fields)].append(position)
        return [(_shape_of(*keys), positions) for keys, positions in groups.items()]

    def batch(self, received_us: int, text_times: bool) -> Batch:
        try:
            times = self._times(received_us, text_times)
            lists = FoldedLists(len(self.rows))
            lists.add(HOST, self._hosts(), None)
            tags = {HOST: None}
            for shape, positions in self.shapes:
                for key, name in shape.tags:
                    tags[lists.add(name, _tag_texts(_values(self.tags, key, positions)), positions)] = None
            for shape, positions in self.shapes:
                for key, name in shape.fields:
                    lists.add(name, _values(self.fields, key, positions), positions)
            columns = {name: arrow_column(name, values) for name, values in lists.columns.values()}
        except BadValue as error:
            raise BadValue(str(error), self.indexes[error.row]) from None
        return Batch(self.measurement, {TIME: time_array(times), **columns}, len(self.rows), tuple(tags))

    def _times(self, received_us: int, text_times: bool) -> Times:
        values = [row.t for row in self.rows]
        times = _times_of_one_unit(values)
        if times is not None:
            return times
        times = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            times[row] = received_us if value is None else _instant_us(value, row, text_times)
        return times

    def _hosts(self) -> list[str | None]:
        hosts: list[Any] = [row.h for row in self.rows]
        if set(map(type, hosts)) == {str}:
            return hosts
        for shape, positions in self.shapes:
            for position in positions or range(len(hosts)):
                hosts[position] = _host(hosts[position], self.tags[position].get(shape.host_key))
        return hosts


def _keys(maps: list[Item]) -> _Keys:
    """Those of all maps, in the order in which they come."""
    first = next(filter(None, maps), _NO_TAGS)
    if first.keys() >= set().union(*maps):  # far faster than to look at the maps one by one
        return tuple(first)
    return tuple(dict.fromkeys(chain.from_iterable(maps)))


def _values(maps: list[Item], key: Any, positions: list[int] | None) -> list[Any]:
    chosen = maps if positions is None else [maps[position] for position in positions]
    try:
        return [values[key] for values in chosen]
    except KeyError:  # not in all
        return [values.get(key) for values in chosen]


def _open_envelope(entry: Any, items: list[Item], depth: int) -> None:
    if isinstance(entry, dict):
        if "m" not in entry:
            entry = {_text_key(key): value for key, value in entry.items()}
            entry = entry.get("batch", entry)
        if isinstance(entry, dict):
            items.append(entry)
            return
    if not isinstance(entry, list):
        raise BadItem(f"expected an item or an array of items, not {kind_of(entry)}")
    if not depth:
        raise BadItem("batches are nested too deeply")
    for inner in entry:
        _open_envelope(inner, items, depth - 1)


def _batches(items: list[Item], received_us: int, text_times: bool) -> list[Batch]:
    batches: list[Batch] = []
    rows: list[Row] = []
    numbers: list[int] = []
    for number, item in enumerate(items):
        try:
            if "columns" in item:
                batches.append(columnar_item(item, received_us, text_times=text_times))
            else:
                rows.append(_row(item))
                numbers.append(number)
        except Invalid as error:
            raise _numbered(error, number, len(items)) from None
    try:
        batches += rows_to_batches(rows, received_us, text_times=text_times)
    except BadValue as error:
        raise _numbered(error, numbers[error.row], len(items)) from None
    return [batch for batch in batches if batch.rows]


def _numbered(error: Invalid, number: int, count: int) -> Invalid:
    text = f"{error} (item {number})" if count > 1 else str(error)
    return BadItem(text) if isinstance(error, BadItem) else Invalid(text)


def _row(item: Item) -> Row:
    """A row item in whatever spelling. Raises Invalid, also for its names."""
    measurement = _measurement(item)
    check_measurement(measurement)
    fields = item.get("fields") or item.get("f")
    if type(fields) is not dict or not fields:
        fields = _field_map(fields)
    tags = item.get("tags") or _NO_TAGS
    if type(tags) is not dict:
        raise BadItem(f"'tags' must be a map, not {kind_of(tags)}")
    _shape_of(tuple(tags), tuple(fields))
    time = item["t"] if "t" in item else item.get(TIME, item.get("timestamp"))
    return Row(measurement, fields, time, item.get("h", UNSET), tags)


def _measurement(item: Item) -> str:
    name = item["m"] if "m" in item else item.get("measurement")
    if isinstance(name, str):
        return name
    if isinstance(name, bytes):
        return _text_key(name)
    if type(name) is int:
        return f"measurement_{name}"
    if name is None:
        raise BadItem("Missing required field 'm' (measurement)")
    raise BadItem(f"'m' (measurement) must be text, not {kind_of(name)}")


def _field_map(fields: Any) -> Item:
    if not fields:
        raise BadItem("Missing required field 'fields' or 'f'")
    if isinstance(fields, list):
        return {f"field_{index}": value for index, value in enumerate(fields)}
    raise BadItem(f"'fields' must be a map or an array, not {kind_of(fields)}")


def _text_key(key: Any) -> str:
    """Old packers write keys as binary."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    raise BadItem(f"names must be text, not {kind_of(key)}")


def _host(host: Any, tag: Any) -> str | None:
    if host is not None and host is not UNSET:
        return f"host_{host}" if type(host) is int else _tag_text(host)
    if tag is not None:
        return _tag_text(tag)
    return UNKNOWN_HOST if host is UNSET else None


def _tag_texts(values: list[Any]) -> list[str | None]:
    if set(map(type, values)) <= {str, NULL}:
        return values
    return [None if value is None else _tag_text(value) for value in values]


def _tag_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else json_text(value)


def _times_of_one_unit(values: list[Any]) -> Times | None:
    """Whole numbers that are all in the same unit, as is usual; None for anything else."""
    if set(map(type, values)) != {int}:
        return None
    try:
        times = np.array(values, np.int64)
        low, high = np.minimum.reduce(times).item(), np.maximum.reduce(times).item()
        return column_to_us(times) if low >= 0 and unit_of(low) == unit_of(high) else None
    except (OverflowError, Invalid):
        return None


def _column_times(values: list[Any], text_times: bool) -> Times:
    """A time column; the first number decides the unit of all."""
    types = set(map(type, values))
    if types in ({int}, {float}):
        try:
            return column_to_us(np.array(values, np.int64 if types == {int} else np.float64))
        except OverflowError:
            pass
    unit = unit_of(values[0]) if values and type(values[0]) in (int, float) else None
    return np.array([_instant_us(value, row, text_times, unit) for row, value in enumerate(values)], np.int64)


def _instant_us(value: Any, row: int, text_times: bool, unit: Unit | None = None) -> int:
    try:
        if type(value) in (int, float):
            return to_us(value, unit)
        if isinstance(value, msgpack.Timestamp):
            return to_us(value.to_unix_nano(), NANOSECOND)
        if isinstance(value, str) and text_times:
            return text_to_us(value)
    except Invalid as error:
        raise BadValue(str(error), row) from None
    raise BadValue(f"time must be a number, not {kind_of(value)}", row)


@lru_cache(4096)
def _are_plain(names: tuple[str, ...]) -> bool:
    """Whether columns are all stored under the names they have. Clients send the same names again and again."""
    return all(is_stored(name) for name in names) and len({name.casefold() for name in names}) == len(names)


def _merged(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Columns that are stored, those that differ only in case as one."""
    merged: dict[str, tuple[str, pa.Array]] = {}
    for name, column in columns.items():
        if is_stored(name):
            _merge(merged, name, column)
    return dict(merged.values())


def _merge(columns: dict[str, tuple[str, pa.Array]], name: str, column: pa.Array) -> None:
    """Adds a column, or fills the nulls of the one that differs from it only in case."""
    folded = name.casefold()
    if folded not in columns:
        columns[folded] = (name, column)
        return
    spelling, known = columns[folded]
    if column.null_count == len(column):
        return
    if (
        known.null_count + column.null_count < len(column)
        or pc.any(pc.and_(known.is_valid(), column.is_valid())).as_py()
    ):
        raise Invalid(twice(spelling, name))
    values = [
        later if value is None else value for value, later in zip(known.to_pylist(), column.to_pylist(), strict=True)
    ]
    columns[folded] = (spelling, arrow_column(spelling, values))
