"""How the server does: /metrics for Prometheus and as JSON, memory, queries, routes, an hour of history.

The figures come from figures.py and memory.py, the history from history.py. Nothing here shows SQL: a query goes by
its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field, field_validator

from arc import clock
from arc.web import memory
from arc.web.auth import ANY
from arc.web.compression import compress
from arc.web.counters import Tally
from arc.web.figures import figures, prometheus_text
from arc.web.history import INTERVAL_S, KINDS, RETENTION_MIN
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.metrics.query.engine import ActiveQuery
    from arc.web.parts import Parts

_GROUPS = {  # of /metrics/endpoints: prefix of its figures
    "http": "http_",
    "ingestion": "ingest_",
    "msgpack": "msgpack_",
    "lineprotocol": "lineprotocol_",
    "query": "query_",
    "buffer": "buffer_",
    "storage": "storage_",
    "auth": "auth_",
    "compaction": "compaction_",
    "retention": "retention_",
    "continuous_queries": "continuous_query_",
}
_NOW = "2025-10-19T12:00:00Z"

surface = Surface("monitoring", "Monitoring", "Figures for Prometheus and for dashboards.")


class Metrics(BaseModel):
    """Beside these keys every figure of `/metrics`, flat, under its name without `arc_`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "timestamp": _NOW,
                "uptime_seconds": 5025.6,
                "http_requests_total": 120,
                "ingest_records_total": 100_000,
                "buffer_records_buffered": 1200,
                "query_requests_total": 17,
                "lake_files": 12,
                "system": {"cpu_percent": 12.5, "memory_percent": 41.0, "timestamp": _NOW},
                "application": {"memory_rss_mb": 180.2, "num_threads": 21, "timestamp": _NOW},
                "api": {"requests_per_minute": 42.0, "avg_response_time_ms": 1.8, "total_requests": 120},
                "collection_status": {"running": True, "samples_collected": 360, "retention_minutes": 60},
                "jobs": {"running": 2},
                "tasks": {"running": 3},
                "nodes": {"online": 2, "cpuPercent": 12.5},
            }
        },
    )

    timestamp: str
    system: dict[str, Any] = Field(description="The host, as last sampled")
    application: dict[str, Any] = Field(description="The process, as last sampled")
    api: dict[str, Any] = Field(description="Rates as last sampled, totals of now")
    collection_status: dict[str, Any]
    jobs: dict[str, int] = Field(description="How many run")
    tasks: dict[str, int] = Field(description="How many run")
    nodes: dict[str, float] = Field(description="How many were heard of in the last five minutes, and their mean load")


class MemoryProfile(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "timestamp": _NOW,
                "process": {"pid": 4711, "rss_mb": 180.2, "vms_mb": 1800.5, "num_threads": 21, "num_fds": 40},
                "python": {
                    "version": "3.11.7",
                    "total_objects": 180_000,
                    "top_object_types": [{"type": "function", "count": 40_000}],
                },
                "tracemalloc": {"enabled": False, "top_allocations": []},
                "arrow": {"allocated_bytes": 1_048_576},
                "duckdb": {
                    "memory_usage_bytes": 1_323_264,
                    "memory_limit_bytes": 8_589_934_592,
                    "temp_bytes": 0,
                },
                "recommendations": [],
            }
        }
    )

    timestamp: str
    process: dict[str, Any]
    python: dict[str, Any]
    tracemalloc: dict[str, Any] = Field(description="Filled when the server was started with PYTHONTRACEMALLOC=1")
    arrow: dict[str, int]
    duckdb: dict[str, int] | None = Field(description="Null until the write-ahead log is replayed")
    recommendations: list[str]


class QueryPool(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "timestamp": _NOW,
                "pool": {"pool_size": 4, "active_connections": 1, "idle_connections": 3, "queue_depth": 0},
                "connections": [
                    {
                        "connection_id": "6f1c0c0e-4b7e-4a57-9a3b-0d7a9c1f2e3d",
                        "is_healthy": True,
                        "state": "running",
                        "database": "default",
                        "started_at": _NOW,
                        "last_used": _NOW,
                        "age_seconds": 0.2,
                        "rows": 0,
                    }
                ],
            }
        }
    )

    timestamp: str
    pool: dict[str, float]
    connections: list[dict[str, Any]] = Field(description="Queries that wait or run, without their SQL")


class Endpoints(BaseModel):
    """Beside these keys the figures of `/metrics` by group: http, ingestion, query, ..."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "timestamp": _NOW,
                "endpoint_stats": {
                    "/query": {"count": 17, "errors": 1, "avg_ms": 3.2, "p50_ms": 2.1, "p95_ms": 9.1, "max_ms": 12.0}
                },
                "http": {"requests_total": 120, "requests_success": 118, "requests_error": 2},
            }
        },
    )

    timestamp: str
    endpoint_stats: dict[str, dict[str, float]] = Field(description="By route, as this document spells it")


class SeriesPath(BaseModel):
    metric_type: str = Field(description="`system`, `application` or `api`")

    @field_validator("metric_type")
    @classmethod
    def _check(cls, given: str) -> str:
        if given not in KINDS:
            raise ValueError("Invalid metric type. Must be: system, application, or api")
        return given


class SeriesQuery(BaseModel):
    duration_minutes: int = Field(30, ge=1, le=1440, description="How far back; the server keeps 60 minutes")


class Series(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "timestamp": _NOW,
                "metric_type": "system",
                "type": "system",
                "duration_minutes": 30,
                "points_count": 1,
                "data": [{"timestamp": _NOW, "cpu_percent": 12.5, "values": {"cpu_percent": 12.5}}],
            }
        }
    )

    timestamp: str
    metric_type: str
    type: str
    duration_minutes: int
    points_count: int
    data: list[dict[str, Any]] = Field(description="Oldest first; each figure by itself and again in `values`")


_METRICS_ANSWER = {
    "description": "Prometheus' text format, or the JSON of `/api/v1/metrics`",
    "content": {
        "text/plain": {
            "schema": {"type": "string"},
            "example": "# HELP arc_ingest_records_total Rows acknowledged, in any format\n"
            "# TYPE arc_ingest_records_total counter\narc_ingest_records_total 100000.0\n",
        },
        "application/json": {"schema": {"type": "object"}},
    },
}


@surface.api("GET", "/metrics", needs=ANY, answers={200: _METRICS_ANSWER})
def metrics() -> Response:
    """Figures for Prometheus; with `Accept: application/json` those of `/api/v1/metrics`.

    A scraper that cannot send a token needs `/metrics` in `[auth] allowlist`.
    """
    if _wants_json():
        answer = jsonify(_metrics_json(parts()))
    else:
        answer = Response(prometheus_text(parts()), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    answer.vary.update(("Accept", "User-Agent"))
    return compress(answer)


@surface.api("GET", "/api/v1/metrics", needs=ANY, answers={200: Metrics})
def metrics_as_json() -> Response:
    """All figures in one flat object, and the last sample of each time series."""
    return jsonify(_metrics_json(parts()))


@surface.api("GET", "/metrics/memory", "/api/v1/metrics/memory", needs=ANY, answers={200: MemoryProfile})
def memory_profile() -> Response:
    """What holds memory: the process, Python's objects, Arrow arrays, the query engine."""
    return jsonify(timestamp=_now(), **memory.profile(parts()))


@surface.api("GET", "/metrics/query-pool", "/api/v1/metrics/query-pool", needs=ANY, answers={200: QueryPool})
def query_pool() -> Response:
    """The places at which queries run, and the queries that hold one or wait for one."""
    queries, now_us = parts().queries, clock.now_us()
    connections = [_connection(query, now_us) for query in queries.active()]
    return jsonify(timestamp=_now(), pool=_pool(queries.stats()), connections=connections)


@surface.api("GET", "/metrics/endpoints", "/api/v1/metrics/endpoints", needs=ANY, answers={200: Endpoints})
def endpoint_metrics() -> Response:
    """Requests by route, and the figures of `/metrics` by group."""
    found = figures(parts())
    groups = {
        group: {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        for group, prefix in _GROUPS.items()
    }
    return jsonify(timestamp=_now(), endpoint_stats=_by_route(parts()), **groups)


@surface.api(
    "GET", "/metrics/timeseries/<metric_type>", "/api/v1/metrics/timeseries/<metric_type>",
    needs=ANY, answers={200: Series},
)  # fmt: skip
def metric_history(path: SeriesPath, query: SeriesQuery) -> Response:
    """Samples of the last minutes, one every 10 seconds."""
    now_us = clock.now_us()
    from_us = now_us - query.duration_minutes * 60 * clock.US_PER_S
    samples = parts().history.since(path.metric_type, from_us)
    data = [{"timestamp": clock.rfc3339(at_us), "values": sample, **sample} for at_us, sample in samples]
    return jsonify(
        timestamp=clock.rfc3339(now_us),
        metric_type=path.metric_type,
        type=path.metric_type,
        duration_minutes=query.duration_minutes,
        points_count=len(data),
        data=data,
    )


def _wants_json() -> bool:
    """Whether JSON is named, and no less wanted than text. Web clients of jobs run in Node.js, which names nothing."""
    accepted = request.accept_mimetypes
    if "application/json" in accepted.values():
        return accepted["application/json"] >= accepted["text/plain"]
    return accepted.to_header() == "*/*" and request.headers.get("User-Agent", "") in ("node", "undici")


def _metrics_json(arc: Parts) -> dict[str, Any]:
    found = figures(arc)
    sampled_us, latest = arc.history.latest()
    of_sample = {"timestamp": clock.rfc3339(sampled_us)} if sampled_us else {}
    totals = {
        "active_requests": found["http_requests_active"],
        "total_requests": found["http_requests_total"],
        "successful_requests": found["http_requests_success"],
        "failed_requests": found["http_requests_error"],
    }
    return {
        **found,
        "timestamp": _now(),
        "system": latest["system"] | of_sample,
        "application": latest["application"] | of_sample,
        "api": latest["api"] | totals | of_sample,
        "collection_status": {
            "running": clock.now_us() - sampled_us < 3 * INTERVAL_S * clock.US_PER_S,
            "samples_collected": len(arc.history),
            "retention_minutes": RETENTION_MIN,
        },
        "jobs": {"running": found["jobs_running"]},
        "tasks": {"running": found["tasks_running"]},
        "nodes": {"online": found["nodes_online"], "cpuPercent": found["nodes_cpu_percent"]},
    }


def _pool(stats: dict[str, Any]) -> dict[str, float]:
    ended = stats["requests"] or 1
    idle = stats["slots"] - stats["running"]
    return {
        "pool_size": stats["slots"],
        "active_connections": stats["running"],
        "idle_connections": idle,
        "queue_depth": stats["waiting"],
        "total_queries_executed": stats["requests"],
        "total_queries_queued": stats["queued"],
        "total_queries_failed": stats["errors"],
        "total_queries_timeout": stats["timeouts"],
        "avg_wait_time_ms": round(stats["wait_ms"] / ended, 3),
        "avg_execution_time_ms": round(stats["execution_ms"] / ended, 3),
        # the same in the words of a later generation
        "connections_open": stats["slots"],
        "connections_in_use": stats["running"],
        "connections_idle": idle,
        "queries_total": stats["requests"],
        "query_errors_total": stats["errors"],
        "query_requests": stats["requests"],
        "query_success": stats["success"],
        "query_errors": stats["errors"],
        "query_rows_returned": stats["rows"],
        "query_latency_sum_us": round(stats["execution_ms"] * 1000),
        "query_latency_count": stats["requests"],
    }


def _connection(query: ActiveQuery, now_us: int) -> dict[str, Any]:
    started_at = clock.rfc3339(query.started_us)
    return {
        "connection_id": query.id,
        "is_healthy": True,
        "state": "waiting" if query.cursor is None else "running",
        "database": query.database,
        "started_at": started_at,
        "last_used": started_at,
        "age_seconds": round((now_us - query.started_us) / clock.US_PER_S, 3),
        "rows": query.rows,
    }


def _by_route(arc: Parts) -> dict[str, dict[str, float]]:
    totals: dict[str, tuple[Tally, Tally]] = {}  # all, errors
    for ((_, route), status), tally in arc.requests.tallies().items():
        every, errors = totals.setdefault(route, (Tally(), Tally()))
        every.merge(tally)
        if status >= 400:
            errors.merge(tally)
    return {route: _timing(every) | {"errors": errors.count} for route, (every, errors) in sorted(totals.items())}


def _timing(tally: Tally) -> dict[str, float]:
    return {
        "count": tally.count,
        "avg_ms": round(tally.sum_s / tally.count * 1000, 3),
        "p50_ms": round(tally.quantile_s(0.5) * 1000, 3),
        "p95_ms": round(tally.quantile_s(0.95) * 1000, 3),
        "max_ms": round(tally.max_s * 1000, 3),
    }


def _now() -> str | None:
    return clock.rfc3339(clock.now_us())
