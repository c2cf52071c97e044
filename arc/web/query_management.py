"""Queries that run or ran, their end, and the cache of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from flask import Response, jsonify, request
from pydantic import BaseModel, Field

from arc import clock
from arc.errors import Conflict, NotFound
from arc.web.auth import IDENTITY_KEY
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.metrics.query.engine import ActiveQuery

SHOWN_SQL = 200  # characters
DISABLED = "Query cache is disabled. Set QUERY_CACHE_ENABLED=true to enable."

surface = Surface("query_management", "Queries and their cache", "What runs, what ran, and how to stop it.")


class ListedQueryPath(BaseModel):
    query_id: str


class PastQueriesQuery(BaseModel):
    limit: int = Field(50, ge=1, le=1000)


class ListedQuery(BaseModel):
    id: str
    sql: str = Field(description="The first 200 characters")
    database: str
    token_id: int | None
    token_name: str
    remote_addr: str
    status: Literal["running", "completed", "failed", "cancelled", "timed_out"]
    start_time: str
    duration_ms: float
    row_count: int
    is_parallel: bool
    partition_count: int


class QueryList(BaseModel):
    success: bool
    queries: list[ListedQuery]
    count: int


class OneQuery(BaseModel):
    success: bool
    query: ListedQuery


class QueryCancelled(BaseModel):
    success: bool
    message: str


class QueryCacheStats(BaseModel):
    enabled: bool
    message: str | None = None
    ttl_seconds: float | None = None
    max_size: int | None = None
    max_result_size_mb: float | None = None
    current_size: int | None = None
    current_size_bytes: int | None = None
    utilization_percent: float | None = None
    metrics: dict[str, float] | None = None
    entries: list[dict[str, Any]] | None = Field(None, description="The 20 asked for last")


class QueryCacheHealth(BaseModel):
    healthy: bool
    enabled: bool
    message: str | None = None
    hit_rate_percent: float | None = None
    current_size: int | None = None
    total_requests: int | None = None
    warnings: list[str] | None = None


class QueryCacheCleared(BaseModel):
    message: str
    cleared: int


@surface.api("GET", "/api/v1/queries/active", needs="read", answers={200: QueryList})
def list_active_queries() -> Response:
    """Queries that wait or run now, oldest first: those of the token, or all for one that may administrate."""
    return _listed(parts().queries.active())


@surface.api("GET", "/api/v1/queries/history", needs="read", answers={200: QueryList})
def list_past_queries(query: PastQueriesQuery) -> Response:
    """Queries that have ended, the latest first; the server remembers 100."""
    return _listed(parts().queries.history(), query.limit)


@surface.api("GET", "/api/v1/queries/<query_id>", needs="read", answers={200: OneQuery}, errors=[404])
def show_query(path: ListedQueryPath) -> Response:
    """One query that runs or ran not long ago."""
    return jsonify(success=True, query=_info(_found(path.query_id)))


@surface.api("DELETE", "/api/v1/queries/<query_id>", needs="read", answers={200: QueryCancelled}, errors=[404, 409])
def cancel_query(path: ListedQueryPath) -> Response:
    """Stop a query of one's own, or any with permission `admin`."""
    query = _found(path.query_id)
    if not parts().queries.cancel(query.id):
        raise Conflict(f"Query already {query.status}")
    return jsonify(success=True, message="Query cancelled")


@surface.api("GET", "/cache/stats", "/api/v1/cache/stats", needs="read", answers={200: QueryCacheStats})
def query_cache_stats() -> Response:
    """How the cache of answers does."""
    cache = parts().cache
    return jsonify(cache.stats() if cache.options.enabled else {"enabled": False, "message": DISABLED})


@surface.api("GET", "/cache/health", "/api/v1/cache/health", needs="read", answers={200: QueryCacheHealth})
def query_cache_health() -> Response:
    """Whether the cache of answers is worth its memory."""
    cache = parts().cache
    if not cache.options.enabled:
        return jsonify(enabled=False, healthy=True, message="Cache disabled")
    stats, warnings = cache.stats(), cache.warnings()
    return jsonify(
        enabled=True,
        healthy=not warnings,
        hit_rate_percent=stats["metrics"]["hit_rate_percent"],
        current_size=stats["current_size"],
        total_requests=stats["metrics"]["total_requests"],
        warnings=warnings,
    )


@surface.api("POST", "/cache/clear", "/api/v1/cache/clear", needs="admin", answers={200: QueryCacheCleared})
def clear_query_cache() -> Response:
    """Forget all answers. Never needed for exact answers, as an answer goes with the rows it shows."""
    cache = parts().cache
    if not cache.options.enabled:
        return jsonify(message="Query cache is disabled", cleared=0)
    cleared = cache.clear()
    return jsonify(message=f"Cache cleared: {cleared} entries removed", cleared=cleared)


def _listed(queries: list[ActiveQuery], limit: int | None = None) -> Response:
    shown = [_info(query) for query in queries if _may_see(query)][:limit]
    return jsonify(success=True, queries=shown, count=len(shown))


def _found(query_id: str) -> ActiveQuery:
    query = parts().queries.find(query_id)
    if not _may_see(query):
        raise NotFound(f"no query with id {query_id}")
    return query


def _may_see(query: ActiveQuery) -> bool:
    identity = request.environ[IDENTITY_KEY]
    return bool(identity.may("admin") or query.asker.token_id == identity.token_id)


def _info(query: ActiveQuery) -> dict[str, Any]:
    ended_us = query.ended_us or clock.now_us()
    return {
        "id": query.id,
        "sql": query.sql[:SHOWN_SQL],
        "database": query.database,
        "token_id": query.asker.token_id,
        "token_name": query.asker.token_name,
        "remote_addr": query.asker.address,
        "status": query.status,
        "start_time": clock.rfc3339(query.started_us),
        "duration_ms": round((ended_us - query.started_us) / 1000, 3),
        "row_count": query.rows,
        "is_parallel": True,
        "partition_count": 1,
    }
