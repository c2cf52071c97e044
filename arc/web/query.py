"""Asking metrics: SQL in; JSON, Arrow, MessagePack or a stream out; and what there is to ask.

POST /query        -> ResultCache -> QueryEngine.run -> render
POST /query/stream -> QueryEngine.stream -> streams -> socket
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, Literal

import orjson
from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from waitress.channel import ClientDisconnected

from arc import clock
from arc.errors import ArcError, Invalid, TimedOut
from arc.metrics import names
from arc.metrics.query import packed, render
from arc.metrics.query.cache import HIT, Answer, Key
from arc.metrics.query.engine import Asker
from arc.metrics.query.streams import FORMATS
from arc.metrics.storage.lake import literal, quoted
from arc.web import errors, parse, samples
from arc.web.auth import IDENTITY_KEY
from arc.web.compression import compress
from arc.web.parts import parts
from arc.web.surface import DATABASE_HEADER, Surface

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.metrics.query.cache import Fetched
    from arc.metrics.query.engine import QueryResult, QueryStream
    from arc.metrics.query.guard import Plan

log = logging.getLogger(__name__)

ARROW = FORMATS["arrow"].mimetype
MSGPACK = "application/msgpack"
MSGPACK_PATH = "/api/v1/query/msgpack"
MODERATE_ROWS, LARGE_ROWS = 10_000, 100_000  # from here on JSON is a poor choice, and the answer says so
ESTIMATE_LEVELS = (  # more rows than these, level, what to tell
    (1_000_000, "high", "Large query: {rows} rows; stream it, or add a time range or LIMIT"),
    (100_000, "medium", "{rows} rows; /query/arrow or /query/stream is faster than JSON"),
    (10_000, "low", "{rows} rows"),
    (-1, "none", ""),
)

surface = Surface("query", "Querying", "SQL over all metrics. A row is there as soon as its write was answered.")


class Query(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"sql": "SELECT * FROM cpu ORDER BY time DESC LIMIT 10", "format": "json"}}
    )

    sql: str = Field(description="One SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE", min_length=1)
    format: str | None = Field(None, description="Of /query/stream: csv, json, ndjson or arrow; elsewhere ignored")
    limit: int | None = Field(None, description="Accepted for older clients, not applied; write LIMIT", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _demand_sql(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("sql"):
            raise ValueError("SQL query is required")
        return given


class QueryAnswer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "success",
                "success": True,
                "columns": ["time", "host", "usage"],
                "types": ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "DOUBLE"],
                "data": [["2025-10-16T12:00:00Z", "server01", 45.2]],
                "count": 1,
                "row_count": 1,
                "execution_time_ms": 3.1,
                "timestamp": "2025-10-19T12:00:00Z",
                "error": None,
                "warning": None,
            }
        }
    )

    status: str
    success: bool
    columns: list[str]
    types: list[str] = Field(description="DuckDB types of the columns")
    data: list[list[Any]] = Field(description="Rows, each a list in column order")
    count: int
    row_count: int
    execution_time_ms: float
    timestamp: str
    error: str | None
    warning: str | None
    profile: dict[str, Any] | None = Field(None, description="With header `x-arc-profile: true`: where the time went")


class Estimate(BaseModel):
    success: bool
    estimated_rows: int | None
    warning_level: Literal["none", "low", "medium", "high", "error"]
    warning_message: str = ""
    error: str | None = None
    execution_time_ms: float


class MeasurementPath(BaseModel):
    measurement: str


class MeasurementRows(BaseModel):
    """Which rows of a measurement."""

    database: str | None = Field(None, description="Instead of the header x-arc-database")
    start_time: str | None = Field(None, description="ISO 8601, inclusive")
    end_time: str | None = Field(None, description="ISO 8601, exclusive")
    columns: str | None = Field(None, description="Names with commas between them; without it all")
    where: str | None = Field(None, description="An SQL condition")
    order_by: str = Field("time DESC", description="As in SQL")
    limit: int | None = Field(None, ge=0, description="1000 unless given; 100 below /api/v1")
    offset: int = Field(0, ge=0, le=2**62)


class DatabaseQuery(BaseModel):
    database: str | None = None


class MeasurementNames(BaseModel):
    status: str
    success: bool
    measurements: list[str]
    data: list[str]
    count: int


class Measurement(BaseModel):
    database: str
    measurement: str
    file_count: int
    total_size_mb: float
    storage_path: str


class Measurements(BaseModel):
    status: str
    success: bool
    measurements: list[Measurement]
    data: list[Measurement]
    count: int
    execution_time_ms: float


_RESULT_HEADERS = {
    "X-Arc-Query-ID": {"schema": {"type": "string"}},
    "X-Row-Count": {"schema": {"type": "integer"}},
    "X-Execution-Time-Ms": {"schema": {"type": "number"}},
    "X-Wait-Time-Ms": {"schema": {"type": "number"}, "description": "Time spent waiting for a free engine"},
}
_CACHE_HEADERS = {
    "X-Cache": {"schema": {"type": "string", "enum": ["HIT", "MISS", "BYPASS"]}},
    "Age": {"schema": {"type": "integer"}, "description": "Of a cached answer, in seconds"},
}
_ARROW_ANSWER = {
    "description": "One Arrow IPC stream; with no rows it still holds the schema",
    "content": {ARROW: {"schema": {"type": "string", "format": "binary"}}},
    "headers": _RESULT_HEADERS,
}


_STREAM_ANSWER = {
    "description": "Rows as they are found. An answer that breaks off, without its last chunk, is not complete",
    "content": {
        "text/csv": {"schema": {"type": "string"}},
        "application/json": {"schema": {"type": "object"}},
        "application/x-ndjson": {"schema": {"type": "string"}},
        ARROW: {"schema": {"type": "string", "format": "binary"}},
    },
    "headers": {name: _RESULT_HEADERS[name] for name in ("X-Arc-Query-ID", "X-Execution-Time-Ms")},
}
_CSV_ANSWER = {**_STREAM_ANSWER, "content": {"text/csv": {"schema": {"type": "string"}}}}
_MSGPACK_ANSWER = {
    "description": "One map; `data` is a list of columns",
    "content": {MSGPACK: {"schema": {"type": "string", "format": "binary"}}},
    "headers": _RESULT_HEADERS,
}


@surface.errorhandler(ArcError)
def on_error(exc: ArcError) -> Response:
    """Query clients read how long a failed query took, and in the coding they asked for."""
    response = errors.respond(exc, execution_time_ms=_ms_since(request.environ["arc.started_s"]))
    if request.path == MSGPACK_PATH:
        response.set_data(packed.pack(orjson.loads(response.get_data())))
        response.mimetype = MSGPACK
    return response


@surface.api(
    "POST", "/query", "/api/v1/query",
    needs="read", answers={200: QueryAnswer}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query(body: Query) -> Response:
    """Run one SQL statement and answer its rows as JSON.

    The answer may be one kept from an earlier request, as long as no row of what it read has changed since; `X-Cache`
    and `Age` tell. `Cache-Control: no-cache` asks anew.
    """
    return _json_answer(body.sql, parse.query_database(_default_database()))


@surface.api(
    "POST", "/query/arrow", "/api/v1/query/arrow",
    needs="read", answers={200: _ARROW_ANSWER}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
    sample=samples.QUERY_ARROW,
)  # fmt: skip
def query_arrow(body: Query) -> Response:
    """Run one SQL statement and answer its rows as an Arrow IPC stream: the fast way for large results."""
    result = _run(body.sql)
    return _with_figures(Response(render.arrow_stream(result.table), mimetype=ARROW), result)


@surface.api(
    "POST", MSGPACK_PATH, needs="read", answers={200: _MSGPACK_ANSWER}, errors=[408, 413, 503], error_type=MSGPACK,
    headers=[DATABASE_HEADER],
)  # fmt: skip
def query_msgpack(body: Query) -> Response:
    """Run one SQL statement and answer its columns as MessagePack."""
    result = _run(body.sql)
    more = {"timestamp": clock.rfc3339(clock.now_us())} | _profile(result)
    return _with_figures(Response(packed.pack_columns(result, **more), mimetype=MSGPACK), result)


@surface.api(
    "POST", "/query/stream", "/api/v1/query/stream",
    needs="read", answers={200: _STREAM_ANSWER}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query_stream(body: Query) -> Response:
    """Run one SQL statement and send its rows as they are found, however many: CSV unless `format` says otherwise.

    `Accept` with the type of Arrow or NDJSON works too. When the client leaves, the query stops.
    """
    return _streamed(body.sql, parse.query_database(_default_database()), _stream_format(body.format))


@surface.api(
    "POST", "/query/estimate", "/api/v1/query/estimate",
    needs="read", answers={200: Estimate}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query_estimate(body: Query) -> Response:
    """How many rows a statement gives, and whether that is many. Counting them takes at most 30 seconds.

    What cannot be counted is `success: false` with status 200; below /api/v1 it has the status of its error.
    """
    started_s = time.perf_counter()
    database = parse.query_database(_default_database())
    try:
        _planned(body.sql, database)
        rows = parts().queries.estimate(body.sql, database=database, is_gone=_is_gone(), asker=asker())
    except ArcError as exc:
        return _no_estimate(exc)
    level, message = next((level, text) for above, level, text in ESTIMATE_LEVELS if rows > above)
    return jsonify(
        success=True,
        estimated_rows=rows,
        warning_level=level,
        warning_message=message.format(rows=rows),
        execution_time_ms=_ms_since(started_s),
    )


@surface.api(
    "GET", "/query/<measurement>", "/api/v1/query/<measurement>",
    needs="read", answers={200: QueryAnswer}, errors=[408, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query_measurement(path: MeasurementPath, query: MeasurementRows) -> Response:
    """Rows of one measurement as JSON, the latest first unless asked otherwise."""
    return _json_answer(*_rows_of(path.measurement, query))


@surface.api(
    "GET", "/query/<measurement>/csv", "/api/v1/query/<measurement>/csv",
    needs="read", answers={200: _CSV_ANSWER}, errors=[408, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query_measurement_csv(path: MeasurementPath, query: MeasurementRows) -> Response:
    """Rows of one measurement as CSV."""
    return _streamed(*_rows_of(path.measurement, query), "csv")


@surface.api("GET", "/measurements", needs="read", answers={200: MeasurementNames})
def list_measurement_names(query: DatabaseQuery) -> Response:
    """Names of the measurements of one database, the default one unless named."""
    database = query.database or parse.query_database(_default_database())
    names = [info.measurement for info in parts().store.measurements(database)]
    return jsonify(status="success", success=True, measurements=names, data=names, count=len(names))


@surface.api("GET", "/api/v1/measurements", needs="read", answers={200: Measurements})
def list_measurements(query: DatabaseQuery) -> Response:
    """Measurements of all databases, or of one, with what they take on disk."""
    found = [
        {
            "database": info.database,
            "measurement": info.measurement,
            "file_count": info.file_count,
            "total_size_mb": round(info.total_size_bytes / 2**20, 3),
            "storage_path": f"{info.database}/{info.measurement}",
        }
        for info in parts().store.measurements(query.database)
    ]
    return jsonify(
        status="success",
        success=True,
        measurements=found,
        data=found,
        count=len(found),
        execution_time_ms=_ms_since(request.environ["arc.started_s"]),
    )


def asker() -> Asker:
    """Who sent the current request."""
    identity = request.environ[IDENTITY_KEY]
    return Asker(identity.token_id, identity.name, request.remote_addr or "")


def _run(sql: str) -> QueryResult:
    database = parse.query_database(_default_database())
    _planned(sql, database)
    return parts().queries.run(sql, database=database, is_gone=_is_gone(), asker=asker())


def _is_gone() -> Any:
    return request.environ.get("waitress.client_disconnected")


def _planned(sql: str, database: str) -> Plan | None:
    """What a statement reads; None for one that the engine will refuse, and count.

    Raises Invalid when [query] strict_header_database keeps it within the database of the header.
    """
    try:
        plan = parts().queries.plan(sql, database)
    except Invalid:
        return None
    if "x-arc-database" in request.headers and parts().config.get("query", "strict_header_database"):
        read = {name for name, _ in plan.tables} | ({plan.listing.database} if plan.listing else set())
        if any(name.casefold() not in ("", database.casefold()) for name in read):
            raise Invalid("Cross-database queries (db.table syntax) not allowed when x-arc-database header is set")
    return plan


def _json_answer(sql: str, database: str) -> Response:
    """The rows of a statement, out of the cache where they are still what they were."""
    plan = _planned(sql, database)
    identity = request.environ[IDENTITY_KEY]
    is_fresh_wanted = "no-cache" in request.headers.get("Cache-Control", "")

    def ask() -> Answer:
        result = parts().queries.run(sql, database=database, is_gone=_is_gone(), asker=asker())
        table = result.table
        return Answer(
            result.id,
            table.column_names,
            result.types,
            render.json_rows(result),
            table.num_rows,
            result.execution_ms,
            result.wait_ms,
            result.planning_ms,
        )

    key = Key(sql.strip(), database, (identity.organization, identity.project))
    fetched = parts().cache.fetch(key, None if is_fresh_wanted else plan, parts().store.stamps, ask)
    return _with_cache_headers(Response(_json_body(fetched), mimetype="application/json"), fetched)


def _with_cache_headers(response: Response, fetched: Fetched) -> Response:
    _with_figures(response, fetched.answer)
    response.headers["X-Cache"] = fetched.state
    if fetched.state == HIT:
        response.headers["Age"] = str(int(fetched.age_s))
    return compress(response)


def _json_body(fetched: Fetched) -> bytes:
    answer = fetched.answer
    head = {
        "status": "success",
        "success": True,
        "columns": answer.columns,
        "types": answer.types,
        "count": answer.row_count,
        "row_count": answer.row_count,
        "execution_time_ms": answer.execution_ms,
        "timestamp": clock.rfc3339(clock.now_us()),
        "error": None,
        "warning": _warning(fetched),
        **_profile(answer),
    }
    # The rows are rendered already; parsing them again to put them into an object would double the work.
    return b"".join((orjson.dumps(head)[:-1], b',"data":', answer.rows, b"}"))


def _warning(fetched: Fetched) -> str | None:
    rows, texts = fetched.answer.row_count, []
    if fetched.state == HIT:
        texts.append(f"Cached result (age: {fetched.age_s:.1f}s)")
    if rows > MODERATE_ROWS:
        texts.append(f"{'Large' if rows > LARGE_ROWS else 'Moderate'} result: {rows} rows; /query/arrow is faster")
    return "; ".join(texts) or None


def _profile(result: QueryResult | Answer) -> dict[str, Any]:
    """With header x-arc-profile: where the time of the query went, in milliseconds."""
    if request.headers.get("x-arc-profile", "").lower() != "true":
        return {}
    figures = {
        "total_ms": round(result.wait_ms + result.execution_ms, 3),
        "planner_ms": result.planning_ms,
        "execution_ms": round(result.execution_ms - result.planning_ms, 3),
        "latency_ms": _ms_since(request.environ["arc.started_s"]),
    }
    return {"profile": figures}


def _stream_format(name: str | None) -> str:
    if name is None:
        known = {FORMATS[each].mimetype.partition(";")[0]: each for each in ("csv", "arrow", "ndjson")}
        return known.get(request.accept_mimetypes.best_match(list(known)) or "", "csv")
    if name not in FORMATS:
        raise Invalid(f"format: must be one of {', '.join(FORMATS)}")
    return name


def _streamed(sql: str, database: str, kind: str) -> Response:
    _planned(sql, database)
    stream = parts().queries.stream(sql, database=database, is_gone=_is_gone(), asker=asker())
    batches = iter(stream)
    first = next(batches, None)  # what goes wrong until here still has a status of its own
    ready = batches if first is None else itertools.chain([first], batches)
    pieces = FORMATS[kind].pieces(stream.schema, stream.types, ready)
    response = Response(_until_gone(pieces, stream), content_type=FORMATS[kind].mimetype)
    response.call_on_close(batches.close)  # tells the query that nobody reads on
    response.call_on_close(stream.close)
    response.headers["X-Arc-Query-ID"] = stream.id
    response.headers["X-Execution-Time-Ms"] = f"{_ms_since(request.environ['arc.started_s']):.3f}"
    if kind == "csv":
        response.headers["Content-Disposition"] = "attachment; filename=query_result.csv"
    return response


def _until_gone(pieces: Iterator[bytes], stream: QueryStream) -> Iterator[bytes]:
    """An error on the way cuts the connection, so that nobody takes a part for the whole."""
    try:
        yield from pieces
    except ArcError as exc:
        log.info("query %s: %s", stream.id, exc)
        raise ClientDisconnected from exc  # what makes Waitress close a connection without further ado


def _no_estimate(exc: ArcError) -> Response:
    timed_out = isinstance(exc, TimedOut)
    text = "Query estimation timed out (complex query structure)" if timed_out else f"Cannot estimate query: {exc}"
    figures = {"error": text, "estimated_rows": None, "warning_level": "error", "execution_time_ms": 0}
    if request.path.startswith("/api/v1/"):
        return errors.respond(exc, **figures)
    return jsonify(success=False, warning_message="", **figures)


def _rows_of(measurement: str, rows: MeasurementRows) -> tuple[str, str]:
    """The statement that gives these rows, and its database. Raises Invalid, also for an unknown measurement."""
    names.check_measurement(measurement)
    database = rows.database or parse.query_database(_default_database())
    names.check_database(database)
    if parts().store.views([(database, measurement)]) == [None]:
        raise Invalid(f"Measurement '{database}.{measurement}' does not exist")
    columns = ", ".join(quoted(name.strip()) for name in (rows.columns or "").split(",") if name.strip())
    if rows.where:  # balanced by itself: it must not lift the bounds of time by closing the bracket put around it
        parts().queries.plan(f"SELECT {rows.where}\nFROM {quoted(measurement)}", database)
    conditions = [f"(\n{rows.where}\n)"] if rows.where else []  # lines of its own, in case it ends in a comment
    if rows.start_time:
        conditions.append(f"time >= TIMESTAMPTZ {_instant('start_time', rows.start_time)}")
    if rows.end_time:
        conditions.append(f"time < TIMESTAMPTZ {_instant('end_time', rows.end_time)}")
    limit = rows.limit if rows.limit is not None else 100 if request.path.startswith("/api/v1/") else 1000
    sql = f"SELECT {columns or '*'} FROM {quoted(measurement)}"  # noqa: S608 - the guard checks it, as all SQL of users
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    return f"{sql} ORDER BY {rows.order_by}\nLIMIT {limit} OFFSET {rows.offset}", database


def _instant(field: str, text: str) -> str:
    try:
        return literal(str(clock.rfc3339(clock.parse_rfc3339(text))))
    except (ValueError, OverflowError):
        raise Invalid(f"{field}: {text[:60]!r} is no ISO 8601 instant") from None


def _with_figures(response: Response, result: QueryResult | Answer) -> Response:
    rows = result.row_count if isinstance(result, Answer) else result.table.num_rows
    response.headers["X-Arc-Query-ID"] = result.id
    response.headers["X-Row-Count"] = str(rows)
    response.headers["X-Execution-Time-Ms"] = f"{result.execution_ms:.3f}"
    response.headers["X-Wait-Time-Ms"] = f"{result.wait_ms:.3f}"
    return response


def _default_database() -> str:
    name: str = parts().config.get("storage", "database")
    return name


def _ms_since(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000, 3)
