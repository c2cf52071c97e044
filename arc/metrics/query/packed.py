"""Query results as MessagePack: one map, the data column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import orjson
import pyarrow as pa

from arc.metrics.query import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arc.metrics.query.engine import QueryResult

_NAMES = {pa.float32(): "float32", pa.float64(): "float64", pa.string(): "utf8", pa.large_string(): "large_utf8"}
_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_S = 86_400


def pack_columns(result: QueryResult, **more: Any) -> bytes:
    """types: Arrow's names. Instants and dates as timestamp extensions, decimals as numbers, nested values as in JSON.

    more: further keys of the map.
    """
    columns = [render.plain_column(column) for column in result.table.columns]
    return pack(
        {
            "success": True,
            "columns": result.table.column_names,
            "types": [type_name(column.type) for column in columns],
            "data": [_values(column, kind) for column, kind in zip(columns, result.types, strict=True)],
            "row_count": result.table.num_rows,
            "execution_time_ms": round(result.execution_ms),
            **more,
        }
    )


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def type_name(kind: pa.DataType) -> str:
    """One of a list of names that does not change with Arrow."""
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}]"
    if pa.types.is_date32(kind):
        return "date32"
    if pa.types.is_time(kind) or pa.types.is_interval(kind) or pa.types.is_duration(kind):
        return "string_encoded"
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return "struct" if pa.types.is_struct(kind) else "map"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list"
    if pa.types.is_primitive(kind) or pa.types.is_null(kind) or kind in _NAMES or pa.types.is_binary(kind):
        return _NAMES.get(kind, str(kind))
    return f"unknown:{kind}"


def _values(column: pa.ChunkedArray, duckdb_type: str) -> Sequence[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return [_timestamp(value, _PER_S[kind.unit]) for value in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32()).to_pylist()
        return [None if day is None else msgpack.Timestamp(day * _DAY_S) for day in days]
    if type_name(kind) in ("string_encoded", "struct", "map", "list") or type_name(kind).startswith("unknown"):
        values: list[Any] = orjson.loads(orjson.dumps(list(render.json_values(column, duckdb_type))))
        return values
    found: list[Any] = column.to_pylist()
    return found


def _timestamp(value: int | None, per_s: int) -> msgpack.Timestamp | None:
    if value is None:
        return None
    seconds, fraction = divmod(value, per_s)
    return msgpack.Timestamp(seconds, fraction * (1_000_000_000 // per_s))
