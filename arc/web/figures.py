"""What the server counts, under the names that /metrics and /api/v1/metrics promise.

    store, queries, tokens, requests, process -> figures() -> JSON keys -> FAMILIES -> Prometheus text

Nothing is counted here; each part counts its own and is read when somebody asks. A figure that a part cannot give
now (the lake while the WAL is replayed, a format nobody has written) is left out, not zero. docs/monitoring.md lists
the families for operators, and a test holds it against the table below.
"""

from __future__ import annotations

import gc
import threading
from contextlib import closing
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
import pyarrow as pa
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

import arc
from arc.web import action_figures
from arc.web.counters import BUCKETS_S
from arc.web.fleet_figures import fleet_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from arc.fleet.service import Fleet
    from arc.jobs.service import Jobs
    from arc.metrics.store import MetricStore
    from arc.metrics.upkeep import Upkeep
    from arc.web.parts import Parts

Figures = dict[str, float]


class Family(NamedTuple):
    """A Prometheus family without labels. A counter's name ends in _total; all others are gauges.

    key: of the figure in the JSON, where it is not the name without `arc_`.
    """

    name: str
    help: str
    key: str = ""

    @property
    def figure(self) -> str:
        return self.key or self.name.removeprefix("arc_")


FAMILIES: Final = (
    Family("arc_uptime_seconds", "Seconds since the start of the server"),
    Family("arc_threads", "Threads of Python"),
    Family("arc_gc_cycles_total", "Passes of Python's garbage collector", "gc_cycles"),
    Family("arc_memory_sys_bytes", "Memory the process holds (resident set)"),
    Family("arc_arrow_allocated_bytes", "Memory that Arrow arrays hold: decoded rows, buffer, results"),
    Family("arc_duckdb_memory_bytes", "Memory the query engine holds"),
    Family("arc_duckdb_temp_bytes", "Disk space the query engine uses for what does not fit its memory"),
    Family("arc_http_requests_total", "Requests answered"),
    Family("arc_http_requests_success_total", "Requests answered with a status below 400", "http_requests_success"),
    Family("arc_http_requests_error_total", "Requests answered with a status of 400 or above", "http_requests_error"),
    Family("arc_http_requests_active", "Requests whose answer has not begun"),
    Family("arc_auth_requests_total", "Tokens checked"),
    Family("arc_auth_cache_hits_total", "Tokens checked that were in the cache", "auth_cache_hits"),
    Family("arc_auth_cache_misses_total", "Tokens checked that were looked up in the database", "auth_cache_misses"),
    Family("arc_auth_failures_total", "Requests answered with 401"),
    Family("arc_ingest_records_total", "Rows acknowledged, in any format"),
    Family("arc_ingest_bytes_total", "Bytes of acknowledged write requests, as sent"),
    Family("arc_ingest_batches_total", "Write requests acknowledged"),
    Family("arc_ingest_errors_total", "Write requests refused because of what was in them"),
    Family("arc_ingest_lines_rejected_total", "Lines of line protocol that were not stored"),
    Family("arc_msgpack_requests_total", "Write requests acknowledged: MessagePack"),
    Family("arc_msgpack_records_total", "Rows acknowledged: MessagePack"),
    Family("arc_lineprotocol_requests_total", "Write requests acknowledged: line protocol"),
    Family("arc_lineprotocol_records_total", "Rows acknowledged: line protocol"),
    Family("arc_json_requests_total", "Write requests acknowledged: JSON"),
    Family("arc_json_records_total", "Rows acknowledged: JSON"),
    Family("arc_arrow_requests_total", "Write requests acknowledged: Arrow"),
    Family("arc_arrow_records_total", "Rows acknowledged: Arrow"),
    Family("arc_buffer_records_buffered", "Rows that wait for a flush; queries see them"),
    Family("arc_buffer_bytes", "Memory of the rows that wait for a flush"),
    Family("arc_buffer_oldest_seconds", "How long the oldest row has waited for its flush"),
    Family("arc_buffer_records_written_total", "Rows that flushes moved to Parquet files", "buffer_records_written"),
    Family("arc_buffer_flushes_total", "Flushes that moved rows"),
    Family("arc_buffer_flush_failures_total", "Flushes that failed; their rows wait for the next"),
    Family("arc_storage_writes_total", "Parquet files that flushes wrote"),
    Family("arc_storage_write_bytes_total", "Bytes of the Parquet files that flushes wrote"),
    Family("arc_databases", "Databases"),
    Family("arc_measurements", "Measurements"),
    Family("arc_lake_files", "Parquet files in use"),
    Family("arc_lake_bytes", "Bytes of the Parquet files in use"),
    Family("arc_lake_records", "Rows in the Parquet files in use"),
    Family("arc_lake_snapshot", "Number of the lake's snapshot"),
    Family("arc_wal_entries_total", "Requests appended to the log"),
    Family("arc_wal_bytes_total", "Bytes appended to the log"),
    Family("arc_wal_syncs_total", "Syncs of the log to disk"),
    Family("arc_wal_rotations_total", "Log files completed"),
    Family("arc_wal_failed_writes_total", "Appends that failed; their requests got 503"),
    Family("arc_wal_files", "Log files on disk"),
    Family("arc_wal_size_bytes", "Bytes of the log files on disk"),
    Family("arc_wal_recovery_total", "1 when this start found something to replay"),
    Family("arc_wal_recovery_records_total", "Rows this start replayed"),
    Family("arc_wal_dropped_entries_total", "Damaged entries this start met while it replayed"),
    Family("arc_query_requests_total", "Queries that ended, one way or another"),
    Family("arc_query_success_total", "Queries answered"),
    Family("arc_query_errors_total", "Queries that failed, were stopped or refused"),
    Family("arc_query_timeouts_total", "Queries stopped at their time limit"),
    Family("arc_query_mgmt_cancelled_total", "Queries cancelled on request"),
    Family("arc_query_client_disconnects_total", "Queries stopped because the client went away"),
    Family("arc_slow_queries_total", "Queries above [query] slow_query_threshold_ms", "query_slow_total"),
    Family("arc_query_rows_total", "Rows that queries answered"),
    Family("arc_query_queued_total", "Queries that had to wait for a place"),
    Family("arc_query_execution_seconds_total", "Time queries took, without waiting"),
    Family("arc_query_wait_seconds_total", "Time queries waited for a place"),
    Family("arc_query_mgmt_active_queries", "Queries that wait or run now"),
    Family("arc_query_cache_hits_total", "Queries answered out of the cache"),
    Family("arc_query_cache_misses_total", "Queries that could have been, but were run"),
    Family("arc_query_cache_bytes", "Memory of the answers in the cache"),
    Family("arc_compaction_running", "1 while a cycle of compaction is under way"),
    Family("arc_compaction_jobs_total", "Jobs of compaction that ended: one measurement in one tier"),
    Family("arc_compaction_jobs_success_total", "Jobs of compaction that did their work"),
    Family("arc_compaction_jobs_failed_total", "Jobs of compaction that failed"),
    Family("arc_compaction_files_merged_total", "Parquet files that became part of others"),
    Family("arc_compaction_files_written_total", "Parquet files that compaction wrote"),
    Family("arc_compaction_bytes_merged_total", "Bytes of the files that became part of others"),
    Family("arc_compaction_bytes_written_total", "Bytes of the files that compaction wrote"),
    Family("arc_compaction_manifests_recovered_total", "Jobs that the end of the process before had interrupted"),
    Family("arc_retention_executions_total", "Retention policies carried out, and rules of continuous queries"),
    Family("arc_retention_failures_total", "Of these, those that failed in some measurement"),
    Family("arc_retention_records_deleted_total", "Rows that retention removed"),
    Family("arc_continuous_query_executions_total", "Windows that continuous queries ran"),
    Family("arc_continuous_query_failures_total", "Of these, those that failed"),
    Family("arc_continuous_query_records_written_total", "Rows that continuous queries stored"),
    Family("arc_continuous_query_seconds_total", "Time continuous queries took, storing included"),
    Family("arc_jobs_running", "Jobs that run"),
    Family("arc_tasks_running", "Tasks that run"),
    Family("arc_nodes_online", "Nodes that coordinate jobs or run tasks and were heard of in the last five minutes"),
    Family("arc_agents_online", "Agents that were heard of lately"),
    Family("arc_agents_offline", "Agents that are known and silent"),
    Family("arc_agents_waiting", "Agents whose poll waits for work now"),
    Family("arc_nodes_cpu_percent", "Mean load of these nodes"),
    Family("arc_db_connections_open", "Places at which queries run, [query] concurrency"),
    Family("arc_db_connections_in_use", "Places in use"),
)


def figures(parts: Parts) -> Figures:
    """All figures by JSON key, each part read once."""
    return {
        "uptime_seconds": round(parts.uptime_s(), 3),
        **_process(),
        **_http(parts),
        **_tokens(parts),
        **_query_cache(parts),
        **_ingest(parts.store),
        **_wal(parts.store),
        **(_lake(parts.store) if parts.store.is_ready else {}),
        **_queries(parts),
        **_upkeep(parts.upkeep),
        **_jobs(parts.jobs),
        **_fleet(parts.fleet),
    }


def prometheus_text(parts: Parts) -> bytes:
    """Text exposition format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Collector(parts))
    ProcessCollector(registry=registry)
    return generate_latest(registry) + fleet_text(parts)


class _Collector:
    """One scrape."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        return []  # or the registry would collect once to learn the names

    def collect(self) -> Iterator[Metric]:
        found = figures(self._parts)
        version = GaugeMetricFamily("arc_info", "Version of the server", labels=["version"])
        version.add_metric([arc.__version__], 1)
        yield version
        for family in FAMILIES:
            if family.figure in found:
                kind = CounterMetricFamily if family.name.endswith("_total") else GaugeMetricFamily
                yield kind(family.name, family.help, value=found[family.figure])
        yield from self._requests()
        yield self._queues()
        yield from action_figures.families(self._parts.node.engine if self._parts.node else None)

    def _requests(self) -> Iterator[Metric]:
        labels = ["method", "route", "status"]
        by_route = CounterMetricFamily(
            "arc_http_responses_total", "Requests answered, by route and status", labels=labels
        )
        for ((method, route), status), tally in sorted(self._parts.requests.tallies().items()):
            by_route.add_metric([method, route, str(status)], tally.count)
        yield by_route
        total, _ = self._parts.requests.totals()
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        yield HistogramMetricFamily(
            "arc_http_latency_seconds",
            "Time from the start of work on a request to the first byte of its answer",
            buckets=list(zip(bounds, accumulate(total.buckets), strict=True)),
            sum_value=total.sum_s,
        )

    def _queues(self) -> Metric:
        waiting = GaugeMetricFamily("arc_queue_tasks_waiting", "Tasks that wait in a queue", labels=["queue"])
        for queue in self._parts.jobs.reader.queues():
            waiting.add_metric([queue.name], queue.size)
        return waiting


def duckdb_memory(store: MetricStore) -> tuple[int, int]:
    """Bytes of memory and of disk that the query engine holds."""
    with closing(store.cursor()) as cursor:
        rows = cursor.execute("SELECT memory_usage_bytes, temporary_storage_bytes FROM duckdb_memory()").fetchall()
    return sum(memory for memory, _ in rows), sum(temp for _, temp in rows)


def wal_files(store: MetricStore) -> list[tuple[str, int, int]]:
    """Name, bytes and time of the last change (microseconds UTC) of each file of the log, oldest first."""
    found = []
    for number in store.wal.segments():
        path = store.wal.path(number)
        try:
            status = path.stat()
        except FileNotFoundError:  # flushed and removed in this moment
            continue
        found.append((path.name, status.st_size, status.st_mtime_ns // 1000))
    return found


def _process() -> Figures:
    return {
        "threads": threading.active_count(),
        "gc_cycles": sum(generation["collections"] for generation in gc.get_stats()),
        "num_cpu": psutil.cpu_count() or 1,
        "memory_sys_bytes": psutil.Process().memory_info().rss,
        "arrow_allocated_bytes": pa.total_allocated_bytes(),
    }


def _http(parts: Parts) -> Figures:
    total, errors = parts.requests.totals()
    return {
        "http_requests_total": total.count,
        "http_requests_success": total.count - errors,
        "http_requests_error": errors,
        "http_requests_active": parts.requests.active(),
        "http_latency_sum_us": round(total.sum_s * 1e6),
        "http_latency_count": total.count,
        "auth_failures_total": sum(
            tally.count for (_, status), tally in parts.requests.tallies().items() if status == 401
        ),
    }


def _tokens(parts: Parts) -> Figures:
    stats = parts.tokens.cache_stats()
    return {
        "auth_requests_total": stats["total_requests"],
        "auth_cache_hits": stats["cache_hits"],
        "auth_cache_misses": stats["cache_misses"],
    }


def _query_cache(parts: Parts) -> Figures:
    stats = parts.cache.stats()
    return {
        "query_cache_hits_total": stats["metrics"]["hits"],
        "query_cache_misses_total": stats["metrics"]["misses"],
        "query_cache_bytes": stats["current_size_bytes"],
    }


def _ingest(store: MetricStore) -> Figures:
    stats = store.stats()
    found: Figures = {
        "ingest_records_total": stats["rows"],
        "ingest_bytes_total": stats["bytes"],
        "ingest_batches_total": stats["requests"],
        "ingest_errors_total": stats["rejected"],
        "ingest_lines_rejected_total": stats["rejected_lines"],
        "buffer_records_buffered": stats["buffered_rows"],
        "buffer_bytes": stats["buffered_bytes"],
        "buffer_oldest_seconds": stats["oldest_buffered_s"],
        "buffer_records_written": stats["flushed_rows"],
        "buffer_flushes_total": stats["flushes"],
        "buffer_flush_failures_total": stats["flush_failures"],
        "storage_writes_total": stats["files"],
        "storage_write_bytes_total": stats["file_bytes"],
    }
    for name, (requests, rows) in stats["by_format"].items():
        found |= {f"{name}_requests_total": requests, f"{name}_records_total": rows}
    return found


def _wal(store: MetricStore) -> Figures:
    stats, files = store.stats(), wal_files(store)
    return {
        "wal_entries_total": stats["wal_entries"],
        "wal_bytes_total": stats["wal_bytes"],
        "wal_syncs_total": stats["wal_syncs"],
        "wal_rotations_total": stats["wal_rotations"],
        "wal_failed_writes_total": stats["wal_failed_writes"],
        "wal_files": len(files),
        "wal_size_bytes": sum(size_bytes for _, size_bytes, _ in files),
        "wal_recovery_total": int(stats["wal_replayed_entries"] > 0),
        "wal_recovery_records_total": stats["wal_replayed_rows"],
        "wal_dropped_entries_total": stats["wal_skipped_entries"],
    }


def _lake(store: MetricStore) -> Figures:
    memory_bytes, temp_bytes = duckdb_memory(store)
    stored = store.measurements()
    return {
        "databases": len(store.databases()),
        "measurements": len(stored),
        "lake_files": sum(info.file_count for info in stored),
        "lake_bytes": sum(info.total_size_bytes for info in stored),
        "lake_records": sum(info.rows - info.buffered_rows for info in stored),
        "lake_snapshot": store.lake.version,
        "duckdb_memory_bytes": memory_bytes,
        "duckdb_temp_bytes": temp_bytes,
    }


def _queries(parts: Parts) -> Figures:
    stats = parts.queries.stats()
    return {
        "query_requests_total": stats["requests"],
        "query_success_total": stats["success"],
        "query_errors_total": stats["errors"],
        "query_timeouts_total": stats["timeouts"],
        "query_mgmt_cancelled_total": stats["cancelled"],
        "query_client_disconnects_total": stats["disconnects"],
        "query_slow_total": stats["slow"],
        "query_rows_total": stats["rows"],
        "query_queued_total": stats["queued"],
        "query_latency_sum_us": round(stats["execution_ms"] * 1000),
        "query_latency_count": stats["requests"],
        "query_execution_seconds_total": stats["execution_ms"] / 1000,
        "query_wait_seconds_total": stats["wait_ms"] / 1000,
        "query_mgmt_active_queries": stats["running"] + stats["waiting"],
        "db_connections_open": stats["slots"],
        "db_connections_in_use": stats["running"],
        "db_connections_idle": stats["slots"] - stats["running"],
    }


def _upkeep(upkeep: Upkeep) -> Figures:
    compaction, retention, continuous = (
        upkeep.compaction.counters,
        upkeep.retention.counters,
        upkeep.continuous.counters,
    )
    return {
        "compaction_running": int(upkeep.compaction.cycle is not None),
        "compaction_jobs_total": compaction.jobs,
        "compaction_jobs_success_total": compaction.jobs - compaction.failures,
        "compaction_jobs_failed_total": compaction.failures,
        "compaction_files_merged_total": compaction.files_compacted,
        "compaction_files_written_total": compaction.files_created,
        "compaction_bytes_merged_total": compaction.bytes_before,
        "compaction_bytes_written_total": compaction.bytes_after,
        "compaction_manifests_recovered_total": upkeep.compaction.recovered,
        "retention_executions_total": retention.executions,
        "retention_failures_total": retention.failures,
        "retention_records_deleted_total": retention.rows,
        "continuous_query_executions_total": continuous.windows,
        "continuous_query_failures_total": continuous.failures,
        "continuous_query_records_written_total": continuous.rows,
        "continuous_query_seconds_total": round(continuous.took_s, 6),
    }


def _fleet(fleet: Fleet) -> Figures:
    counts = fleet.agents.counts()
    return {"agents_online": counts[True], "agents_offline": counts[False], "agents_waiting": fleet.hub.waiting}


def _jobs(jobs: Jobs) -> Figures:
    counts = jobs.reader.counts()
    return {
        "jobs_running": counts.running_jobs,
        "tasks_running": counts.running_tasks,
        "nodes_online": counts.online_nodes,
        "nodes_cpu_percent": round(counts.cpu_percent, 2),
    }
