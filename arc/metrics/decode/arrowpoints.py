"""Arrow IPC bodies into columns: the fastest way in, as nothing has to be parsed; spec metrics 3.4.

decode_arrow -> message by message: what its compressed buffers will take -> one table, proven sound -> column by column
    to the few types that are stored
The bytes are a stranger's: a body may announce buffers of terabytes, offsets outside of its texts, or a million
references to one long text.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arc.errors import Invalid, TooLarge
from arc.metrics.decode import timeunits
from arc.metrics.decode.columns import json_text
from arc.metrics.decode.points import batch_of_columns
from arc.metrics.names import TIME

if TYPE_CHECKING:
    from arc.metrics.decode.batch import Batch
    from arc.metrics.decode.timeunits import Unit

TAGS = b"arc.tags"  # key of the schema's metadata: names of the columns that are tags
MAX_BYTES = 256 << 20  # of one body, as plain columns
_UNITS = {
    "s": timeunits.SECOND,
    "ms": timeunits.MILLISECOND,
    "us": timeunits.MICROSECOND,
    "ns": timeunits.NANOSECOND,
}
_I32, _U16, _I64 = struct.Struct("<i"), struct.Struct("<H"), struct.Struct("<q")


def decode_arrow(body: bytes, measurement: str, received_us: int) -> list[Batch]:
    """The rows of one inflated IPC stream, at least one.

    received_us: microseconds UTC, the time of rows when there is no column `time`.
    Raises Invalid, TooLarge; nothing is taken in part.
    """
    if not body:
        raise Invalid("Empty payload")
    try:
        table = _read(body)
        batch = batch_of_table(table, measurement, received_us)
    except (pa.ArrowException, struct.error, OSError, UnicodeDecodeError) as error:
        raise Invalid(f"Invalid Arrow payload: {error}") from None
    if not batch.rows:
        raise Invalid("No records in payload")
    return [batch]


def batch_of_table(table: pa.Table, measurement: str, received_us: int) -> Batch:
    """The rows of a table whose columns are of any Arrow type. Raises Invalid, TooLarge."""
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f'column "{twice}" is there twice')
    columns: dict[str, Any] = {}
    for name, column in zip(names, table.columns, strict=True):
        columns[name] = times_us(column) if name == TIME else plain_column(name, column)
    batch = batch_of_columns(measurement, columns or {TIME: np.empty(0, np.int64)}, received_us)
    batch.tags = _tags(table.schema, batch)
    return batch


def times_us(column: pa.ChunkedArray, unit: Unit | None = None) -> np.ndarray[Any, Any]:
    """A time column in microseconds, int64; unit: of numbers, None means by the size of the first.

    Raises Invalid.
    """
    column = _unpacked(TIME, column)
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(value=True)).as_py()
        raise Invalid(f"time must not be null (row {row})")
    kind = column.type
    if pa.types.is_date(kind):
        kind, column = pa.timestamp("ms"), column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(kind):
        unit, column = _UNITS[kind.unit], column.cast(pa.int64())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise Invalid(f"time must be a timestamp or a number, not {kind}")
    return timeunits.column_to_us(column.to_numpy(), unit)


def plain_column(name: str, column: pa.ChunkedArray) -> pa.Array:
    """A column as int64, double, text, boolean, binary or null. Raises Invalid for what cannot be stored."""
    column = _unpacked(name, column)
    kind = column.type
    if pa.types.is_integer(kind):
        return _one(_integers(column))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _one(column.cast(pa.float64(), safe=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _one(column.cast(pa.string()))
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return _one(column)
    if any(test(kind) for test in _BINARY):
        return _one(column.cast(pa.binary()))
    if pa.types.is_duration(kind):
        return _one(column.cast(pa.int64()))
    if pa.types.is_temporal(kind):
        return _texts(column)
    if pa.types.is_nested(kind):
        return pa.array([None if value is None else json_text(value) for value in column.to_pylist()], pa.string())
    raise Invalid(f'column "{name}": Arrow type {kind} cannot be stored')


def arrow_body(columns: dict[str, pa.Array], tags: tuple[str, ...] = ()) -> bytes:
    """Columns as a body for decode_arrow."""
    metadata = {TAGS: json.dumps(tags)} if tags else None
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _tags(schema: pa.Schema, batch: Batch) -> tuple[str, ...]:
    try:
        named = json.loads((schema.metadata or {}).get(TAGS, b"[]"))
        return tuple(name for name in batch.columns if name in named)
    except (ValueError, TypeError):
        raise Invalid(f"schema metadata {TAGS.decode()} must be a JSON array of column names") from None


_BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)


def _integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # uint64 above int64: such a column becomes float, as everywhere
        return column.cast(pa.float64(), safe=False)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Instants as RFC 3339, dates and times of day as ISO 8601."""
    if pa.types.is_timestamp(column.type):
        format_ = "%Y-%m-%dT%H:%M:%SZ"  # %S brings the fraction along
        return _one(pc.strftime(column.cast(pa.timestamp(column.type.unit, "UTC")), format=format_))
    if pa.types.is_interval(column.type):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return _one(column.cast(pa.string()))


def _unpacked(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without what only saves space: extension types, dictionaries, run lengths."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return _unpacked(name, pa.chunked_array(chunks, kind.storage_type))
    if pa.types.is_dictionary(kind):
        _check_size(name, sum(map(_size_of_references, column.chunks)))
        return _unpacked(name, column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        _check_size(name, sum(len(chunk) * _longest(chunk.values) for chunk in column.chunks))
        return _unpacked(name, pc.run_end_decode(column))
    return column


def _size_of_references(chunk: pa.DictionaryArray) -> int:
    return len(chunk) * _longest(chunk.dictionary)


def _longest(values: pa.Array) -> int:
    """Bytes of the longest value, nested ones together."""
    if not len(values):
        return 1
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return int(pc.max(pc.binary_length(values)).as_py() or 1)
    return 8 if pa.types.is_primitive(values.type) else int(values.nbytes)


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise TooLarge(f'column "{name}": its plain values would take more than {MAX_BYTES >> 20} MB')


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _read(body: bytes) -> pa.Table:
    _check_messages(body)
    with pa.ipc.open_stream(body) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table


def _check_messages(body: bytes) -> None:
    """Raises TooLarge when what is compressed inside the stream would take too much memory."""
    size = 0
    reader = pa.ipc.MessageReader.open_stream(body)
    while (message := _next_message(reader)) is not None:
        if message.type in ("record batch", "dictionary"):
            size += _inflated_size(message)
    if size > MAX_BYTES:
        raise TooLarge(f"Arrow payload: inflated it would take more than {MAX_BYTES >> 20} MB")


def _next_message(reader: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _inflated_size(message: pa.ipc.Message) -> int:
    """Bytes of a message's buffers: a compressed one begins with its plain length, or -1 if it is plain.

    The header is a flatbuffer, https://arrow.apache.org/docs/format/Columnar.html: Message.header (its third field)
    is a RecordBatch, or a DictionaryBatch whose second field is one; a RecordBatch's third field lists the buffers
    as pairs of offset and length, its fourth tells the compression.
    """
    head, data = memoryview(message.metadata), memoryview(message.body)
    batch = _table(head, _field(head, _I32.unpack_from(head)[0], 2))
    if message.type == "dictionary":
        batch = _table(head, _field(head, batch, 1))
    buffers = _field(head, batch, 2)
    if not _field(head, batch, 3) or not buffers:
        return len(data)
    vector = _table(head, buffers)
    size = 0
    for number in range(_I32.unpack_from(head, vector)[0]):
        at, length = struct.unpack_from("<qq", head, vector + 4 + 16 * number)
        if length >= _I64.size:
            plain = _I64.unpack_from(data, at)[0]
            size += plain if plain >= 0 else length
    return size


def _field(head: memoryview, table: int, index: int) -> int:
    """Where a field of a flatbuffer table begins; 0 when it is not there."""
    vtable = table - _I32.unpack_from(head, table)[0]
    entry = 4 + 2 * index
    if entry >= _U16.unpack_from(head, vtable)[0]:
        return 0
    offset: int = _U16.unpack_from(head, vtable + entry)[0]
    return table + offset if offset else 0


def _table(head: memoryview, field: int) -> int:
    """Follows a reference."""
    return field + int(_I32.unpack_from(head, field)[0])
