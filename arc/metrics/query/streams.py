"""Results on their way out, batch by batch: CSV, JSON, NDJSON and Arrow in constant memory.

QueryEngine.stream -> batches -> csv_pieces | ndjson_pieces | json_pieces | arrow_pieces -> socket
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from arc.metrics.query import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CSV_ROWS = 10_000  # written at a time
_EXACT_DIGITS = 18  # of a decimal that fit int64 whatever they are
_CSV_LIKE_PYTHON = {"include_header": False, "eol": "\r\n"}


@dataclass(frozen=True, slots=True)
class Format:
    """How a stream is sent. pieces: of schema, DuckDB types and batches."""

    mimetype: str
    pieces: Callable[[pa.Schema, list[str], Iterable[pa.RecordBatch]], Iterator[bytes]]


def csv_pieces(schema: pa.Schema, types: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """RFC 4180 with a header: nulls, NaN and infinities are empty, what has no plain text of its own is JSON."""
    header = io.StringIO()
    csv.writer(header).writerow(schema.names)
    yield header.getvalue().encode()
    for batch in batches:
        table = pa.Table.from_batches([batch])
        for start in range(0, table.num_rows, _CSV_ROWS):
            yield _csv_rows(table.slice(start, _CSV_ROWS), types)


def ndjson_pieces(schema: pa.Schema, types: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """One JSON object per line."""
    names = schema.names
    for batch in batches:
        for rows in render.value_rows(pa.Table.from_batches([batch]), types):
            objects = (dict(zip(names, row, strict=True)) for row in rows)
            yield b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in objects)


def json_pieces(schema: pa.Schema, types: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """One JSON object like that of POST /query, its number of rows behind them."""
    head = {"status": "success", "success": True, "columns": schema.names, "types": types}
    yield orjson.dumps(head)[:-1] + b',"data":['
    count, comma = 0, b""
    for batch in batches:
        for piece in render.json_row_pieces(pa.Table.from_batches([batch]), types):
            yield comma + piece
            comma = b","
        count += batch.num_rows
    yield b'],"count":%d,"row_count":%d}' % (count, count)


def arrow_pieces(schema: pa.Schema, types: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """One Arrow IPC stream. Types hold for all batches, so wide decimals are float64 whatever their values."""
    plain = pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, plain) as writer:
        for batch in batches:
            columns = [column.cast(field.type) for column, field in zip(batch.columns, plain, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=plain))
            yield _taken(sink)
    yield _taken(sink)


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", csv_pieces),
    "json": Format("application/json", json_pieces),
    "ndjson": Format("application/x-ndjson", ndjson_pieces),
    "arrow": Format("application/vnd.apache.arrow.stream", arrow_pieces),
}


def _csv_rows(rows: pa.Table, types: list[str]) -> bytes:
    columns = [_csv_column(column, kind) for column, kind in zip(rows.columns, types, strict=True)]
    table = pa.Table.from_arrays(columns, names=[str(number) for number in range(len(columns))])
    sink = pa.BufferOutputStream()
    try:
        arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(quoting_style="none", **_CSV_LIKE_PYTHON))
    except pa.ArrowInvalid:  # some text needs quotes; then all texts of these rows have them
        sink = pa.BufferOutputStream()
        arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(quoting_style="needed", **_CSV_LIKE_PYTHON))
    return bytes(sink.getvalue())


def _csv_column(column: pa.ChunkedArray, duckdb_type: str) -> pa.ChunkedArray | pa.Array:
    """A column of a type that Arrow writes the way we want."""
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))
    if pa.types.is_timestamp(kind):
        return pa.array(render.instants(column), pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or (pa.types.is_string(kind) and duckdb_type != "JSON"):
        return column
    texts = [_text(value) for value in render.json_values(column, duckdb_type)]
    return pa.array(texts, pa.string())


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_decimal(kind):
        return pa.int64() if kind.scale == 0 and kind.precision <= _EXACT_DIGITS else pa.float64()
    return kind


def _taken(sink: io.BytesIO) -> bytes:
    """What was written since the last call."""
    piece = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return piece
