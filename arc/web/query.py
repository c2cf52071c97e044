"""Asking metrics: SQL in, JSON or Arrow out, and what there is to ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from arc import clock
from arc.errors import ArcError
from arc.metrics import render
from arc.web import errors, parse, samples
from arc.web.compression import compress
from arc.web.parts import parts
from arc.web.surface import DATABASE_HEADER, Surface

if TYPE_CHECKING:
    from arc.metrics.query import QueryResult

ARROW = "application/vnd.apache.arrow.stream"
LARGE_ROWS = 100_000  # from here on JSON is a poor choice, and the answer says so

surface = Surface("query", "Querying", "SQL over all metrics. A row is there as soon as its write was answered.")


class Query(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"sql": "SELECT * FROM cpu ORDER BY time DESC LIMIT 10", "format": "json"}}
    )

    sql: str = Field(description="One SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE", min_length=1)
    format: str | None = Field(None, description="Accepted for older clients; the route decides")
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
_ARROW_ANSWER = {
    "description": "One Arrow IPC stream; with no rows it still holds the schema",
    "content": {ARROW: {"schema": {"type": "string", "format": "binary"}}},
    "headers": _RESULT_HEADERS,
}


@surface.errorhandler(ArcError)
def on_error(exc: ArcError) -> Response:
    """Query clients read how long a failed query took."""
    return errors.respond(exc, execution_time_ms=_ms_since(request.environ["arc.started_s"]))


@surface.api(
    "POST", "/query", "/api/v1/query",
    needs="read", answers={200: QueryAnswer}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
)  # fmt: skip
def query(body: Query) -> Response:
    """Run one SQL statement and answer its rows as JSON."""
    result = _run(body)
    return compress(_with_figures(Response(_json_body(result), mimetype="application/json"), result))


@surface.api(
    "POST", "/query/arrow", "/api/v1/query/arrow",
    needs="read", answers={200: _ARROW_ANSWER}, errors=[408, 413, 503], headers=[DATABASE_HEADER],
    sample=samples.QUERY_ARROW,
)  # fmt: skip
def query_arrow(body: Query) -> Response:
    """Run one SQL statement and answer its rows as an Arrow IPC stream: the fast way for large results."""
    result = _run(body)
    return _with_figures(Response(render.arrow_stream(result.table), mimetype=ARROW), result)


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


def _run(body: Query) -> QueryResult:
    return parts().queries.run(
        body.sql,
        database=parse.query_database(_default_database()),
        is_gone=request.environ.get("waitress.client_disconnected"),
    )


def _json_body(result: QueryResult) -> bytes:
    rows = result.table.num_rows
    head = {
        "status": "success",
        "success": True,
        "columns": result.table.column_names,
        "types": result.types,
        "count": rows,
        "row_count": rows,
        "execution_time_ms": result.execution_ms,
        "timestamp": clock.rfc3339(clock.now_us()),
        "error": None,
        "warning": f"Large result: {rows} rows; /query/arrow is faster" if rows > LARGE_ROWS else None,
    }
    # The rows are rendered already; parsing them again to put them into an object would double the work.
    return orjson.dumps(head)[:-1] + b',"data":' + render.json_rows(result) + b"}"


def _with_figures(response: Response, result: QueryResult) -> Response:
    response.headers["X-Arc-Query-ID"] = result.id
    response.headers["X-Row-Count"] = str(result.table.num_rows)
    response.headers["X-Execution-Time-Ms"] = f"{result.execution_ms:.3f}"
    response.headers["X-Wait-Time-Ms"] = f"{result.wait_ms:.3f}"
    return response


def _default_database() -> str:
    name: str = parts().config.get("storage", "database")
    return name


def _ms_since(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000, 3)
