"""Continuous queries over HTTP: make, list, change, delete, run a window, and what they did."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.metrics.upkeep.continuous import DRY_RUN, ContinuousQuery, Execution
from arc.web import audit, databases, parse
from arc.web.parts import parts
from arc.web.surface import CREATED, Surface

PATH = "/api/v1/continuous_queries"
_NULLABLE = {"retention_days", "delete_source_after_days"}
_EXAMPLE_NEW: dict[str, Any] = {
    "name": "cpu by hour",
    "database": "default",
    "source_measurement": "cpu",
    "destination_measurement": "cpu_1h",
    "query": "SELECT time_bucket(INTERVAL '1 hour', time) AS time, host, avg(usage) AS usage FROM default.cpu"
    " WHERE time >= {start_time} AND time < {end_time} GROUP BY ALL",
    "interval": "1h",
    "tag_columns": ["host"],
}
_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "description": "",
    **_EXAMPLE_NEW,
    "retention_days": None,
    "delete_source_after_days": None,
    "is_active": True,
    "last_execution_time": "2025-10-19T12:00:10Z",
    "last_execution_status": "completed",
    "last_processed_time": "2025-10-19T12:00:00Z",
    "last_records_written": 12,
    "created_at": "2025-10-01T12:00:00Z",
    "updated_at": "2025-10-01T12:00:00Z",
}

surface = Surface(
    "continuous_queries", "Continuous queries", "Queries that run window by window and store their results."
)


class QueryPath(BaseModel):
    query_id: int = Field(ge=1, le=2**63 - 1, description="Number of the continuous query")


class QueryChange(BaseModel):
    """What a caller may say about a query; what is not said stays as it is."""

    model_config = ConfigDict(json_schema_extra={"example": {"interval": "5m"}})

    name: str | None = Field(None, max_length=200)
    description: str | None = None
    database: str | None = None
    source_measurement: str | None = None
    destination_measurement: str | None = None
    query: str | None = Field(
        None,
        description="One SELECT. `{start_time}` and `{end_time}` stand for the window; without them only rows of the"
        " source within it are seen. A column `time` is the time of a row, else it is the beginning of the window.",
    )
    interval: str | None = Field(None, description="`30s`, `5m`, `1h`, `1d`; at least `10s`")
    tag_columns: list[str] | None = Field(None, description="Columns of the result that are tags")
    retention_days: int | None = Field(None, ge=1, le=100_000, description="Older rows of the destination go")
    delete_source_after_days: int | None = Field(
        None, ge=1, le=100_000, description="Older rows of the source go, when [delete] is enabled"
    )
    is_active: bool | None = None

    def values(self) -> dict[str, Any]:
        """What was said, under the store's names."""
        given = parse.said(self, _NULLABLE)
        if "tag_columns" in given:
            given["tag_columns"] = json.dumps(given["tag_columns"])
        return given


class NewQuery(QueryChange):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE_NEW})

    name: str = Field(min_length=1, max_length=200)
    database: str
    source_measurement: str
    destination_measurement: str
    query: str = Field(min_length=1)
    interval: str

    def values(self) -> dict[str, Any]:
        defaults = dict.fromkeys(_NULLABLE) | {"description": "", "tag_columns": "[]", "is_active": True}
        return defaults | super().values()


class QueryInfo(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: int
    name: str
    description: str
    database: str
    source_measurement: str
    destination_measurement: str
    query: str
    interval: str
    tag_columns: list[str]
    retention_days: int | None
    delete_source_after_days: int | None
    is_active: bool
    last_execution_time: str | None
    last_execution_status: str | None
    last_processed_time: str | None
    last_records_written: int | None
    created_at: str
    updated_at: str
    warning: str | None = Field(None, description="Of a new or changed query: its source is not there yet")


class QueriesQuery(parse.ListQuery):
    database: str | None = None
    is_active: bool | None = None


class QueryDeleteQuery(BaseModel):
    delete_destination: bool = Field(False, description="Remove the rows it wrote too")


class QueryDeleted(BaseModel):
    message: str


class RunRequest(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"start_time": "2025-10-19T11:00:00Z", "end_time": "2025-10-19T12:00:00Z", "dry_run": True}
        }
    )

    start_time: str | None = Field(None, description="RFC 3339; where the last run ended, else an hour ago")
    end_time: str | None = Field(None, description="RFC 3339; the end of the last whole interval")
    dry_run: bool = Field(False, description="Run the query, but store nothing")


class RunAnswer(BaseModel):
    query_id: int
    query_name: str
    execution_id: str
    status: str
    start_time: str
    end_time: str
    records_read: int | None
    records_written: int = Field(description="Rows; with `dry_run` those that would be stored")
    execution_time_seconds: float
    destination_measurement: str
    dry_run: bool
    executed_at: str
    executed_query: str | None = Field(None, description="The query with its window, of a dry run")


class QueryExecution(BaseModel):
    id: int
    query_id: int
    execution_id: str
    execution_time: str
    status: str
    start_time: str
    end_time: str
    records_read: int | None
    records_written: int
    execution_duration_seconds: float
    error_message: str | None


class QueryExecutions(BaseModel):
    query_id: int
    executions: list[QueryExecution]


@surface.api("POST", PATH, needs="admin", answers={CREATED: QueryInfo}, audit="continuous_query.create")
def create_continuous_query(body: NewQuery) -> tuple[Response, int]:
    """Make a continuous query. Its first window begins an hour ago.

    What cannot be planned is refused, unless a measurement it reads does not exist yet.
    """
    query = parts().upkeep.continuous.queries.create(clock.now_us(), **body.values())
    audit.note(query.id, name=query.name)
    return jsonify(query_json(query) | _warning(query)), parse.created_status()


@surface.api(
    "GET", PATH, needs="read", answers={200: {"description": "A bare array of queries; an object for some clients"}}
)
def list_continuous_queries(query: QueriesQuery) -> Response:
    """All continuous queries, or some."""
    found = [
        query_json(each)
        for each in parts().upkeep.continuous.queries.all()
        if query.database in (None, each.database) and query.is_active in (None, each.is_active)
    ]
    return parse.listed("queries", found, query)


@surface.api("GET", f"{PATH}/<int:query_id>", needs="read", answers={200: QueryInfo}, errors=[404])
def get_continuous_query(path: QueryPath) -> Response:
    """One continuous query."""
    return jsonify(query_json(parts().upkeep.continuous.queries.get(path.query_id)))


@surface.api(
    "PUT", f"{PATH}/<int:query_id>",
    needs="admin", answers={200: QueryInfo}, errors=[404], audit="continuous_query.update",
)  # fmt: skip
def update_continuous_query(path: QueryPath, body: QueryChange) -> Response:
    """Change what is named; everything else stays."""
    query = parts().upkeep.continuous.queries.update(path.query_id, clock.now_us(), **body.values())
    audit.note(query.id, name=query.name, is_active=query.is_active)
    return jsonify(query_json(query) | _warning(query))


@surface.api(
    "DELETE", f"{PATH}/<int:query_id>",
    needs="admin", answers={200: QueryDeleted}, errors=[404, 503], audit="continuous_query.delete",
)  # fmt: skip
def delete_continuous_query(path: QueryPath, query: QueryDeleteQuery) -> Response:
    """Delete a continuous query and its history; what it stored stays unless asked for."""
    parts().upkeep.continuous.delete(path.query_id, with_destination=query.delete_destination)
    audit.note(path.query_id, delete_destination=query.delete_destination)
    return jsonify(message="Continuous query deleted successfully")


@surface.api(
    "POST", f"{PATH}/<int:query_id>/execute",
    needs="admin", answers={200: RunAnswer}, errors=[404, 408, 503], audit="continuous_query.run",
)  # fmt: skip
def execute_continuous_query(path: QueryPath, body: RunRequest) -> Response:
    """Run one window now. Running it again replaces what it stored."""
    query, run = parts().upkeep.continuous.execute(
        path.query_id,
        clock.now_us(),
        start_us=_instant("start_time", body.start_time),
        end_us=_instant("end_time", body.end_time),
        dry_run=body.dry_run,
    )
    audit.note(query.id, name=query.name, rows=run.records, dry_run=body.dry_run)
    executed_query = {"executed_query": run.sql} if run.status == DRY_RUN else {}
    return jsonify(
        query_id=query.id,
        query_name=query.name,
        execution_id=run.execution_id,
        status=run.status,
        start_time=clock.rfc3339(run.start_us),
        end_time=clock.rfc3339(run.end_us),
        records_read=None,
        records_written=run.records,
        execution_time_seconds=run.took_s,
        destination_measurement=query.destination_measurement,
        dry_run=body.dry_run,
        executed_at=clock.rfc3339(run.executed_at),
        **executed_query,
    )


@surface.api("GET", f"{PATH}/<int:query_id>/executions", needs="read", answers={200: QueryExecutions}, errors=[404])
def list_continuous_query_executions(path: QueryPath, query: parse.LimitQuery) -> Response:
    """What a continuous query did in the last 30 days, newest first."""
    found = parts().upkeep.continuous.queries.executions(path.query_id, query.limit)
    return jsonify(query_id=path.query_id, executions=[_execution_json(execution) for execution in found])


def query_json(query: ContinuousQuery) -> dict[str, Any]:
    return {
        "id": query.id,
        "name": query.name,
        "description": query.description,
        "database": query.database,
        "source_measurement": query.source_measurement,
        "destination_measurement": query.destination_measurement,
        "query": query.query,
        "interval": query.interval,
        "tag_columns": list(query.tags),
        "retention_days": query.retention_days,
        "delete_source_after_days": query.delete_source_after_days,
        "is_active": query.is_active,
        "last_execution_time": clock.rfc3339(query.last_execution_at),
        "last_execution_status": query.last_execution_status,
        "last_processed_time": clock.rfc3339(query.last_processed_at),
        "last_records_written": query.last_records_written,
        "created_at": clock.rfc3339(query.created_at),
        "updated_at": clock.rfc3339(query.updated_at),
    }


def _warning(query: ContinuousQuery) -> dict[str, str]:
    text = databases.nothing_in(query.database, query.source_measurement)
    return {"warning": f"{text}; the first window will show whether the query suits it"} if text else {}


def _execution_json(execution: Execution) -> dict[str, Any]:
    return {
        "id": execution.id,
        "query_id": execution.query_id,
        "execution_id": execution.execution_id,
        "execution_time": clock.rfc3339(execution.executed_at),
        "status": execution.status,
        "start_time": clock.rfc3339(execution.start_at),
        "end_time": clock.rfc3339(execution.end_at),
        "records_read": None,
        "records_written": execution.records_written,
        "execution_duration_seconds": execution.duration_s,
        "error_message": execution.error_message,
    }


def _instant(name: str, text: str | None) -> int | None:
    if not text:
        return None
    try:
        return clock.parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise Invalid(f"{name}: {text!r} is no RFC 3339 instant") from None
