"""Writing metrics: MessagePack, line protocol, JSON and Arrow in, flush, and what the write path reports of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from pydantic import BaseModel, Field

from arc import clock
from arc.metrics.decode.lineprotocol import PRECISIONS, LinesRejected
from arc.web import parse, samples
from arc.web.auth import ANY
from arc.web.parts import parts
from arc.web.surface import DATABASE_HEADER, Surface

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from arc.web.parts import Parts
    from arc.web.surface import Finish

EXAMPLE_COLUMNAR = {"m": "cpu", "columns": {"time": [1760875200000], "host": ["server01"], "usage": [45.2]}}
EXAMPLE_ROW = {"m": "cpu", "t": 1760875200000, "h": "server01", "tags": {"region": "eu"}, "fields": {"usage": 45.2}}

surface = Surface("write", "Writing", "Metrics in. 204 means: on disk, and visible to the next query.")

_DATABASE_ARGUMENT = {
    "name": "db",
    "in": "query",
    "description": "Database to write to; the header wins.",
    "schema": {"type": "string"},
}
_MEASUREMENT = [
    {"name": "x-arc-measurement", "in": "header", "description": "Where rows go", "schema": {"type": "string"}},
    {
        "name": "measurement",
        "in": "query",
        "description": "Measurement to write to; the header wins. One of the two is needed.",
        "schema": {"type": "string"},
    },
]
_ARROW_BODY = {
    "application/vnd.apache.arrow.stream": {
        "schema": {"type": "string", "format": "binary", "description": "Arrow IPC, stream format"}
    }
}
_ENCODING_HEADER = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "gzip and zstd bodies are recognised by their first bytes; the header may be missing.",
    "schema": {"type": "string", "enum": ["gzip", "zstd", "identity"]},
}
_BUCKET_ARGUMENT = {
    "name": "bucket",
    "in": "query",
    "description": "Like `db`, as InfluxDB 2.x clients say it; `name/policy` means the database `name`.",
    "schema": {"type": "string"},
}
_PRECISION_ARGUMENT = {
    "name": "precision",
    "in": "query",
    "description": "Unit of the timestamps",
    "schema": {"type": "string", "default": "ns", "enum": [name for name in PRECISIONS if name]},
}
_STRICT_ARGUMENT = {
    "name": "strict",
    "in": "query",
    "description": "1: answer 400 when a line was not stored. The others are stored all the same.",
    "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
}
_LINES_BODY = {
    "text/plain": {
        "schema": {"type": "string", "format": "binary", "description": "Lines in UTF-8"},
        "example": "cpu,host=server01,region=eu usage=45.2,cores=8i 1760875200000000000",
    }
}
# Bytes to the description, because that is what clients made from it can send; WriteItem says what is in them.
_MSGPACK_BODY = {
    "application/msgpack": {
        "schema": {"type": "string", "format": "binary", "description": "MessagePack of what the examples show"},
        "examples": {
            "columnar (fastest)": {"value": EXAMPLE_COLUMNAR},
            "row": {"value": EXAMPLE_ROW},
            "batch": {"value": {"batch": [EXAMPLE_ROW, EXAMPLE_COLUMNAR]}},
        },
    }
}


_EXAMPLES = _MSGPACK_BODY["application/msgpack"]["examples"]
_ITEM = {"$ref": "#/components/schemas/WriteItem"}
_JSON_BODY = {
    "application/json": {"schema": {"anyOf": [_ITEM, {"type": "array", "items": _ITEM}]}, "examples": _EXAMPLES},
    "application/x-ndjson": {
        "schema": {"type": "string", "format": "binary", "description": "One item per line"},
        "example": '{"m": "room", "t": "2025-10-19T12:00:00Z", "fields": {"celsius": 21.5}}',
    },
}


class WriteItem(BaseModel):
    """One item of a MessagePack or JSON body: a row (`t`, `h`, `tags`, `fields`) or many rows by column (`columns`).

    A body is an item, an array of items, or `{"batch": [item, ...]}`. Times are seconds, milliseconds, microseconds
    or nanoseconds since the epoch; their size tells which.
    """

    m: str = Field(description="Measurement; made by the first write")
    columns: dict[str, list[Any]] | None = Field(None, description="Equally long lists; `time` may be missing: now")
    t: float | None = Field(None, description="Time of the row; the server's when missing")
    h: str | None = Field(None, description="Host")
    tags: dict[str, str] | None = None
    fields: dict[str, Any] | None = None


surface.further_models.append(WriteItem)


class FlushQuery(BaseModel):
    measurement: str | None = Field(None, description="Flush this measurement only")
    database: str | None = Field(None, description="Flush this database only")


class Flushed(BaseModel):
    status: str
    success: bool
    message: str
    rows: int


class WriterHealth(BaseModel):
    status: str
    service: str
    stats: dict[str, Any]


class WriteStats(BaseModel):
    status: str
    stats: dict[str, Any]
    buffer_stats: dict[str, Any]
    timestamp: str


class DecoderStats(BaseModel):
    decoder: dict[str, Any]
    buffer: dict[str, Any]


class MsgpackSpec(BaseModel):
    version: str
    protocol: str
    endpoint: str
    content_type: str
    compression: list[str]
    authentication: str
    format: dict[str, str]
    example_columnar: dict[str, Any]
    example_row: dict[str, Any]
    performance: str


@surface.hot(
    "POST", "/write/v2/msgpack", "/api/v2/msgpack", "/api/v1/write/msgpack",
    needs="write", answers={204: None}, errors=[413, 503],
    headers=[DATABASE_HEADER, _DATABASE_ARGUMENT, _ENCODING_HEADER],
    body=_MSGPACK_BODY, sample=samples.WRITE_MSGPACK,
)  # fmt: skip
def write_msgpack(arc: Parts, environ: WSGIEnvironment) -> Finish:
    """Store rows sent as MessagePack: the whole request or nothing. What a body holds is in schema `WriteItem`.

    204 means that the rows are on disk and that the next query sees them.
    """
    database = parse.write_database(environ, arc.config.get("storage", "database"))
    return arc.store.accept_msgpack(parse.body(environ), database, environ.get("HTTP_CONTENT_ENCODING", "")).finish


@surface.hot(
    "POST", "/write", "/api/v1/write", "/api/v2/write", "/api/v1/write/line-protocol", "/api/v1/write/influxdb",
    needs="write", answers={204: None}, errors=[413, 503],
    headers=[
        DATABASE_HEADER, _DATABASE_ARGUMENT, _BUCKET_ARGUMENT, _PRECISION_ARGUMENT, _STRICT_ARGUMENT, _ENCODING_HEADER
    ],
    body=_LINES_BODY, sample=samples.WRITE_LINES,
)  # fmt: skip
def write_lines(arc: Parts, environ: WSGIEnvironment) -> Finish:
    """Store lines of line protocol, as InfluxDB's clients and Telegraf send them: `measurement,tag=a field=1 time`.

    A line that cannot be read, or whose values do not go with what is stored, is left out and counted at
    `/write/stats`; the others are stored. The answer is an error only when no line is good, or with `strict=1`; it
    then names the lines in `errors`.
    """
    args = parse.arguments(environ)
    database = parse.write_database(environ, arc.config.get("storage", "database"))
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    write = arc.store.accept_lines(parse.body(environ), database, args.get("precision", ""), encoding)

    def finish() -> None:
        write.finish()
        if write.rejected and args.get("strict") == "1":
            raise LinesRejected("partial write", write.rejected)

    return finish


@surface.hot(
    "POST", "/write/json", "/api/v1/write/json",
    needs="write", answers={204: None}, errors=[413, 503],
    headers=[DATABASE_HEADER, _DATABASE_ARGUMENT, _ENCODING_HEADER],
    body=_JSON_BODY, sample=samples.request("POST", "/write/json", EXAMPLE_ROW, token=True),
)  # fmt: skip
def write_json(arc: Parts, environ: WSGIEnvironment) -> Finish:
    """Store the rows of a JSON body, shaped like a MessagePack one: the whole request or nothing.

    With content type `application/x-ndjson` a body has one item per line. Times may be RFC 3339 text too.
    """
    database = parse.write_database(environ, arc.config.get("storage", "database"))
    is_ndjson = "ndjson" in environ.get("CONTENT_TYPE", "").lower()
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    return arc.store.accept_json(parse.body(environ), database, is_ndjson, encoding).finish


@surface.hot(
    "POST", "/write/arrow", "/api/v1/write/arrow",
    needs="write", answers={204: None}, errors=[413, 503],
    headers=[DATABASE_HEADER, _DATABASE_ARGUMENT, *_MEASUREMENT, _ENCODING_HEADER],
    body=_ARROW_BODY, sample=samples.WRITE_ARROW,
)  # fmt: skip
def write_arrow(arc: Parts, environ: WSGIEnvironment) -> Finish:
    """Store the rows of an Arrow IPC stream, the fastest way in: the whole request or nothing.

    Column `time` is a timestamp of any unit, or numbers as in MessagePack; without it all rows are of now. Nested
    columns become JSON text, dictionaries their values, decimals floats.
    """
    database = parse.write_database(environ, arc.config.get("storage", "database"))
    measurement = parse.write_measurement(environ)
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    return arc.store.accept_arrow(parse.body(environ), database, measurement, encoding).finish


@surface.api(
    "GET", "/write/v2/msgpack/stats", "/api/v2/msgpack/stats", "/api/v1/write/msgpack/stats",
    needs=ANY, answers={200: DecoderStats},
)  # fmt: skip
def msgpack_stats() -> Response:
    """Counters of the decoder and of the buffer behind it."""
    stats = parts().store.stats()
    return jsonify(decoder=_decoder(stats), buffer=_buffer(stats))


@surface.api(
    "GET", "/write/v2/msgpack/spec", "/api/v2/msgpack/spec", "/api/v1/write/msgpack/spec",
    needs=ANY, answers={200: MsgpackSpec},
)  # fmt: skip
def msgpack_spec() -> Response:
    """The MessagePack format in short, for people who write a client."""
    return jsonify(
        version="2.0",
        protocol="MessagePack",
        endpoint="/write/v2/msgpack",
        content_type="application/msgpack",
        compression=["gzip", "zstd", "none"],
        authentication="Authorization: Bearer <token>, or x-api-key: <token>",
        format={
            "columnar (RECOMMENDED)": "{m: measurement, columns: {time: [...], name: [...]}}",
            "row (LEGACY)": "{m: measurement, t: time, h: host, tags: {...}, fields: {...}}",
            "batch": "{batch: [item, ...]}, or an array of items",
        },
        example_columnar=EXAMPLE_COLUMNAR,
        example_row=EXAMPLE_ROW,
        performance="columnar bodies are decoded without an object per value; send 1,000 rows or more per request",
    )


@surface.api("POST", "/write/flush", "/api/v1/write/flush", needs="write", answers={200: Flushed}, errors=[503])
def flush(query: FlushQuery) -> Response:
    """Move buffered rows to Parquet files. Queries see rows before that too; files do not."""
    return _flush(query)


@surface.api("POST", "/api/v1/write/line-protocol/flush", needs="admin", answers={200: Flushed}, errors=[503])
def flush_line_protocol(query: FlushQuery) -> Response:
    """The same, where older clients look for it."""
    return _flush(query)


@surface.api(
    "GET", "/write/health", "/api/v1/write/health", "/api/v1/write/line-protocol/health",
    needs=ANY, answers={200: WriterHealth},
)  # fmt: skip
def write_health() -> Response:
    """Whether the write path works."""
    store = parts().store
    status = "healthy" if store.is_ready else "starting"
    return jsonify(status=status, service="line_protocol_writer", stats=_buffer(store.stats()))


@surface.api(
    "GET", "/write/stats", "/api/v1/write/stats", "/api/v1/write/line-protocol/stats",
    needs=ANY, answers={200: WriteStats},
)  # fmt: skip
def write_stats() -> Response:
    """Counters of the write path since the start."""
    stats = parts().store.stats()
    totals = {
        "total_requests": stats["requests"],
        "total_records": stats["rows"],
        "total_bytes": stats["bytes"],
        "total_errors": stats["rejected"],
        "lines_rejected": stats["rejected_lines"],
    }
    return jsonify(
        status="success",
        stats=totals,
        buffer_stats=_buffer(stats),
        timestamp=clock.rfc3339(clock.now_us()),
    )


def _flush(query: FlushQuery) -> Response:
    rows = parts().store.flush(query.database, query.measurement)
    message = f"Flushed buffer for measurement: {query.measurement}" if query.measurement else "Flushed all buffers"
    return jsonify(status="success", success=True, message=message, rows=rows)


def _decoder(stats: dict[str, Any]) -> dict[str, Any]:
    total = stats["requests"] + stats["rejected"]
    return {
        "total_decoded": stats["requests"],
        "total_errors": stats["rejected"],
        "error_rate": stats["rejected"] / total if total else 0.0,
    }


def _buffer(stats: dict[str, Any]) -> dict[str, Any]:
    """The store's figures under the names that clients of the older servers read."""
    return {
        "total_records_buffered": stats["rows"],
        "total_records_written": stats["flushed_rows"],
        "total_flushes": stats["flushes"],
        "total_errors": stats["flush_failures"],
        "current_buffer_sizes": stats["buffered_by_measurement"],
        "oldest_buffer_age_seconds": stats["oldest_buffered_s"],
        "active_buffers": len(stats["buffered_by_measurement"]),
        "flush_queue_depth": 0,  # one flush at a time takes whatever there is
        "writer_type": "ducklake",
        "wal_enabled": True,
        "wal": {name: value for name, value in stats.items() if name.startswith("wal_")},
        "total_wal_errors": stats["wal_failed_writes"],
        "total_wal_dropped": stats["wal_skipped_entries"],
    }
