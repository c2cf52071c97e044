"""Query results as bytes: JSON rows, Arrow IPC stream.

JSON: a slice of rows becomes one Python list per column, orjson writes some rows of it at a time. Slices are large
enough for what a call of numpy costs; few rows at a time bound how long the GIL is held.
"""

from __future__ import annotations

import base64
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arc.metrics.query.engine import QueryResult

_SLICE_ROWS = 10_000
_PIECE_ROWS = 1_000
_NUMPY = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_US_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
# Outside, texts have other widths, or there is no text at all: 0000-01-01 and 9999-12-31.
_FIRST_US, _LAST_US = -62_167_219_200_000_000, 253_402_214_399_999_999
_NS_PER_S = 1_000_000_000


def json_rows(result: QueryResult) -> bytes:
    """The rows as JSON: an array of arrays, in column order. What each type becomes: docs/queries.md."""
    pieces = [*json_row_pieces(result.table, result.types)] or [b""]
    pieces[0] = b"[" + pieces[0]
    pieces[-1] += b"]"
    return b",".join(pieces)  # the one copy of a large result


def json_row_pieces(table: pa.Table, types: Sequence[str]) -> Iterator[bytes]:
    """Some rows at a time, each as a JSON array, commas between them."""
    for rows in value_rows(table, types):
        yield orjson.dumps(rows)[1:-1]


def value_rows(table: pa.Table, types: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """Some rows at a time, as tuples of what orjson writes the way we want."""
    for start in range(0, table.num_rows, _SLICE_ROWS):
        rows = table.slice(start, _SLICE_ROWS)
        columns = [json_values(column, kind) for column, kind in zip(rows.columns, types, strict=True)]
        found = zip(*columns, strict=True)
        while piece := list(islice(found, _PIECE_ROWS)):
            yield piece


def arrow_stream(table: pa.Table) -> bytes:
    """The table as one Arrow IPC stream, in types every client knows: plain numbers and plain texts."""
    columns = [plain_column(column) for column in table.columns]
    fields = [pa.field(name, column.type) for name, column in zip(table.column_names, columns, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema(fields)) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))
    return bytes(sink.getvalue())


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals and HUGEINT as int64 where they fit, else float64; dictionaries as their values."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if not pa.types.is_decimal(column.type):
        return column
    if column.type.scale == 0:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:  # above 64 bits
            pass
    return column.cast(pa.float64())


def json_values(column: pa.ChunkedArray, duckdb_type: str) -> Sequence[Any]:
    """A column as values orjson writes the way we want."""
    kind = column.type
    if duckdb_type == "JSON":
        return [None if text is None else _json_text(text) for text in column.to_pylist()]
    if pa.types.is_float64(kind) or (pa.types.is_integer(kind) and not column.null_count):
        return column.to_numpy().tolist()  # type: ignore[no-any-return]  # null becomes NaN, which orjson writes as null
    if pa.types.is_float32(kind):
        return orjson.loads(orjson.dumps(column.to_numpy(), option=_NUMPY))  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind):
        return instants(column)
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).to_pylist()  # type: ignore[no-any-return]
    if duckdb_type in ("HUGEINT", "UHUGEINT"):
        return [_integer(value) for value in column.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else f"{value:f}" for value in column.to_pylist()]
    return [_plain(value) for value in column]


def _json_text(text: str) -> Any:
    """A JSON value as it is; DuckDB allows NaN and Infinity in it, JSON does not."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
    return orjson.Fragment(text)


def _integer(value: Any) -> Any:
    return None if value is None else orjson.Fragment(str(int(value)))  # may be wider than orjson's 64 bits


def instants(column: pa.ChunkedArray) -> list[str | None]:
    """RFC 3339 in UTC, fractions without trailing zeros."""
    unit = column.type.unit
    values = column.combine_chunks().cast(pa.int64()).fill_null(0).to_numpy()
    lowest, highest = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    scale = _US_PER_UNIT.get(unit, 0)
    if scale and lowest * scale >= _FIRST_US and highest * scale <= _LAST_US:
        texts = _instants_of_us(values * scale)
    else:
        texts = [_trimmed(text) + "Z" for text in np.datetime_as_string(values.view(f"M8[{unit}]")).tolist()]
    if column.null_count:
        return [text if valid else None for text, valid in zip(texts, column.is_valid().to_pylist(), strict=True)]
    return texts


def _instants_of_us(values: np.ndarray[Any, np.dtype[np.int64]]) -> list[str | None]:
    """Texts of microseconds: orjson writes them all as wide, then trailing zeros are blanked and cut out at once."""
    is_whole = values % 1_000_000 == 0
    # orjson leaves out the fraction of a whole second; a microsecond more, blanked below, keeps its place.
    body = orjson.dumps((values + is_whole).view("M8[us]"), option=_NUMPY)
    cells = np.frombuffer(bytearray(body[1:-1] + b","), np.uint8).reshape(-1, len('"2025-10-16T12:00:00.000000Z",'))
    fraction = np.ascontiguousarray(cells[:, 20:27].T)  # the point and six digits
    is_kept = np.zeros(len(values), bool)
    for digit in fraction[:0:-1]:
        is_kept |= digit != ord("0")
        is_kept &= ~is_whole
        digit *= is_kept
    fraction[0] *= ~is_whole
    cells[:, 20:27] = fraction.T
    return orjson.loads(b"[" + cells.tobytes().translate(None, b"\0")[:-1] + b"]")  # type: ignore[no-any-return]


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(scalar: pa.Scalar) -> Any:
    """One value of the rarer types, nested ones included, as Python's JSON types."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_map(kind):
        entries = scalar.values
        return {_key(name): _plain(value) for name, value in zip(entries.field(0), entries.field(1), strict=True)}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_plain(value) for value in scalar.values]
    if pa.types.is_struct(kind):
        return {name: _plain(value) for name, value in scalar.items()}
    if pa.types.is_union(kind):
        return _plain(scalar.value)
    if pa.types.is_decimal(kind):
        # Within a nested value HUGEINT and DECIMAL(38,0) look the same; the first is what sums give.
        return _integer(scalar.as_py()) if (kind.precision, kind.scale) == (38, 0) else f"{scalar.as_py():f}"
    return _plain_leaf(scalar)


def _plain_leaf(scalar: pa.Scalar) -> Any:
    kind = scalar.type
    if pa.types.is_timestamp(kind):
        return _trimmed(str(np.datetime64(scalar.value, kind.unit))) + "Z"
    if pa.types.is_date(kind):
        return str(np.datetime64(scalar.value, "D"))
    if pa.types.is_time(kind):
        return _clock(scalar.value * (1_000 if kind.unit == "us" else 1))
    if pa.types.is_interval(kind):
        return _interval(*scalar.as_py())
    if pa.types.is_binary(kind):
        return base64.b64encode(scalar.as_py()).decode()
    if pa.types.is_float32(kind):
        return float(str(np.float32(scalar.as_py())))
    return scalar.as_py()


def _key(scalar: pa.Scalar) -> str:
    """The key of a map as the key of a JSON object."""
    value = _plain(scalar)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _clock(nanoseconds: int) -> str:
    """`01:02:03.5`"""
    seconds, fraction = divmod(nanoseconds, _NS_PER_S)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return _trimmed(f"{hours:02}:{minutes:02}:{seconds:02}.{fraction:09}")


def _interval(months: int, days: int, nanoseconds: int) -> str:
    """`1 year 2 months 3 days 04:05:06.5`, as DuckDB writes it."""
    years = abs(months) // 12 * (1 if months > 0 else -1)
    parts = [(years, "year"), (months - 12 * years, "month"), (days, "day")]
    words = [f"{count} {unit}{'' if abs(count) == 1 else 's'}" for count, unit in parts if count]
    if nanoseconds or not words:
        words.append(("-" if nanoseconds < 0 else "") + _clock(abs(nanoseconds)))
    return " ".join(words)
