"""Monitoring: what is counted, and how /metrics, /logs and the routes of the write-ahead log show it."""

from __future__ import annotations

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from arc import clock, config, logs
from arc.access.tokens import TokenStore
from arc.db.engine import open_database
from arc.fleet.service import Fleet
from arc.jobs.documents.models import JobDocument
from arc.jobs.service import Jobs
from arc.metrics.query.engine import QueryEngine
from arc.metrics.store import MetricStore
from arc.metrics.upkeep import Upkeep
from arc.web import action_figures
from arc.web.application import create_app
from arc.web.counters import BUCKETS_S, UNKNOWN, RequestCounters, Tally
from arc.web.figures import FAMILIES, figures
from arc.web.history import INTERVAL_S, KINDS, RETENTION_MIN, History
from arc.web.logview import record_json
from arc.web.parts import Parts
from arc.web.sampler import Sampler
from tests.unit.web import ADMIN, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

WRITE = "/write/v2/msgpack"
MINUTE_US = 60 * clock.US_PER_S
DOCS = Path(__file__).parents[2] / "docs" / "monitoring.md"
REQUIRED = [part.name for part in fields(Parts) if part.default is MISSING and part.default_factory is MISSING]
FLEET_FAMILIES = {  # of arc/web/fleet_figures.py
    *("arc_job_executed", "arc_job_succeeded", "arc_job_failed", "arc_job_expired", "arc_job_log_size_bytes"),
    "arc_api_mqtt_message_duration_seconds",
    *("arc_fleet_sweeps_total", "arc_fleet_sweep_changes_total", "arc_fleet_sweep_seconds_total"),
}
WAL_GETS = ("status", "stats", "files", "health", "recovery/history")
WAL_POSTS = ("cleanup", "compact", "flush", "recover")


class Monitored:
    """A web application over a real store and query engine."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        self.db = open_database(data_dir)
        tokens = TokenStore(self.db)
        tokens.bootstrap(SECRET)
        self.store = MetricStore(data_dir)
        self.queries = QueryEngine(self.store)
        settings = config.load(None, {}, {"storage.dir": str(data_dir), **options})
        upkeep = Upkeep(self.store, self.queries, self.db, settings)
        given = {
            "config": settings,
            "tokens": tokens,
            "store": self.store,
            "queries": self.queries,
            "upkeep": upkeep,
            "jobs": Jobs(self.db, settings, data_dir),  # its workers are not started
            "fleet": Fleet(self.db, settings, tokens, self.store.write_lines),
        }
        self.parts = Parts(**dict.fromkeys(REQUIRED) | given)  # type: ignore[arg-type]  # no other part is asked
        self.client: FlaskClient = create_app(self.parts).test_client()

    def close(self) -> None:
        self.queries.stop()
        self.store.close()
        self.db.close()

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=ADMIN | headers)

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def write(self, rows: int) -> None:
        body = msgpack.packb({"m": "cpu", "columns": {"v": list(range(rows))}})
        assert self.client.post(WRITE, data=body, headers=ADMIN).status_code == 204

    def query(self, sql: str) -> int:
        return self.client.post("/query", json={"sql": sql}, headers=ADMIN).status_code

    def token(self, *permissions: str) -> dict[str, str]:
        tokens = self.parts.tokens
        _, secret = tokens.create(f"token-{len(tokens.list())}", permissions=permissions)
        return {"Authorization": f"Bearer {secret}"}

    def scrape(self) -> dict[str, float]:
        """Samples without labels, by name."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Monitored]]:
    made: list[Monitored] = []

    def build(**options: str) -> Monitored:
        made.append(Monitored(tmp_path, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def arc(make: Callable[..., Monitored]) -> Monitored:
    ready = make()
    ready.store.start()
    return ready


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """For tests that do not care what others have counted."""
    ready = Monitored(tmp_path_factory.mktemp("shared"))
    ready.store.start()
    yield ready
    ready.close()


# --- counting requests


def test_no_request_is_lost_between_threads() -> None:
    counters = RequestCounters()

    def count() -> None:
        for _ in range(5000):
            mine = counters.mine()
            mine.begin()
            mine.answer(("GET", "/x"), 200, 0.003)

    with ThreadPoolExecutor(4) as pool:
        for work in [pool.submit(count) for _ in range(4)]:
            work.result()

    assert counters.tallies()[("GET", "/x"), 200].count == 20_000
    assert counters.active() == 0


def test_request_is_active_until_it_is_answered() -> None:
    counters = RequestCounters()
    mine = counters.mine()

    mine.begin()
    assert counters.active() == 1

    mine.answer(UNKNOWN, 404, 0.1)
    assert counters.active() == 0
    assert counters.totals()[1] == 1


@pytest.mark.parametrize("took_s", [0.0, 0.001, 0.0011, 1.0, 9.9, 100.0])
def test_tally_keeps_each_answer_in_its_bucket(took_s: float) -> None:
    tally = Tally()

    tally.add(took_s)

    at_most = [bound for bound in (*BUCKETS_S, float("inf")) if took_s <= bound]
    assert tally.buckets[len(BUCKETS_S) + 1 - len(at_most)] == 1
    assert tally.quantile_s(0.95) <= took_s


def test_quantile_lies_in_the_bucket_that_holds_it() -> None:
    tally = Tally()
    for took_s in [0.002] * 90 + [0.2] * 10:
        tally.add(took_s)

    assert 0.001 < tally.quantile_s(0.5) <= 0.005
    assert 0.1 < tally.quantile_s(0.95) <= 0.2
    assert Tally().quantile_s(0.5) == 0.0


# --- /metrics


def test_prometheus_reads_every_family_with_help_and_type(arc: Monitored) -> None:
    arc.write(3)

    answer = arc.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}

    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert all(
        family.documentation and family.type in ("counter", "gauge", "histogram", "summary")
        for family in families.values()
    )
    shown = {name for name, family in families.items() if name.startswith("arc_")}
    unused = {family.name for family in FAMILIES if re.match("arc_(lineprotocol|json|arrow)_re", family.name)}
    expected = {family.name for family in FAMILIES} - unused
    assert {name.removesuffix("_total") for name in expected} <= shown
    assert families["arc_http_latency_seconds"].type == "histogram"


def test_ingest_counters_move_by_the_rows_written(arc: Monitored) -> None:
    arc.write(5)
    before = arc.scrape()

    arc.write(1000)
    arc.write(7)
    after = arc.scrape()

    moved = {name: after[name] - before[name] for name in after if name in before}
    assert moved["arc_ingest_records_total"] == moved["arc_msgpack_records_total"] == 1007
    assert moved["arc_ingest_batches_total"] == moved["arc_wal_entries_total"] == 2
    assert after["arc_buffer_records_buffered"] == 1012
    assert "arc_lineprotocol_records_total" not in after


def test_flush_moves_rows_from_buffer_to_lake(arc: Monitored) -> None:
    arc.write(12)

    arc.store.flush()
    found = arc.scrape()

    assert found["arc_buffer_records_buffered"] == 0
    assert found["arc_buffer_records_written_total"] == found["arc_lake_records"] == 12
    assert found["arc_storage_writes_total"] == found["arc_lake_files"] == 1
    assert found["arc_storage_write_bytes_total"] == found["arc_lake_bytes"] > 0
    assert (found["arc_databases"], found["arc_measurements"], found["arc_wal_files"]) == (1, 1, 0)


def test_queries_are_counted_by_how_they_end(arc: Monitored) -> None:
    arc.write(4)

    arc.query("SELECT * FROM cpu")
    arc.query("SELECT nonsense FROM cpu")
    arc.query("SELEC")
    found = arc.scrape()

    assert found["arc_query_requests_total"] == 3
    assert (found["arc_query_success_total"], found["arc_query_errors_total"]) == (1, 2)
    assert found["arc_query_rows_total"] == 4
    assert found["arc_query_execution_seconds_total"] > 0
    assert found["arc_query_mgmt_active_queries"] == 0


def test_refused_requests_count_as_errors(arc: Monitored) -> None:
    arc.client.get("/metrics")
    arc.client.post(WRITE, data=b"\xc1", headers=ADMIN)
    arc.get("/no/such/path")

    found = arc.scrape()

    assert found["arc_http_requests_error_total"] == 3
    assert found["arc_auth_failures_total"] == 1
    assert found["arc_ingest_errors_total"] == 1


def test_paths_and_methods_of_strangers_make_no_series(arc: Monitored) -> None:
    for number in range(5):
        arc.get(f"/made/up/{number}")
        arc.client.open("/query", method=f"MADE{number}", headers=ADMIN)

    routes = {route for route, _ in arc.parts.requests.tallies()}

    assert routes == {UNKNOWN}


def test_json_comes_when_accept_prefers_it(arc: Monitored) -> None:
    arc.write(2)

    answer = arc.get("/metrics", Accept="application/json")

    assert answer.get_json()["ingest_records_total"] == 2
    assert "Accept" in answer.vary


@pytest.mark.parametrize(
    ("accept", "agent", "kind"),
    [
        ("*/*", "curl/8.5.0", "text/plain"),
        ("*/*", "node", "application/json"),
        ("text/plain", "node", "text/plain"),
        ("text/html,*/*;q=0.8", "Mozilla/5.0", "text/plain"),
        ("application/json, text/plain, */*", "axios/1.7.2", "application/json"),
        ("application/json;q=0.5,text/plain", "x", "text/plain"),
        ("application/openmetrics-text;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "Prometheus/2", "text/plain"),
    ],
)
def test_metrics_come_in_the_format_a_client_reads(shared: Monitored, accept: str, agent: str, kind: str) -> None:
    assert shared.get("/metrics", Accept=accept, **{"User-Agent": agent}).mimetype == kind


def test_jobs_are_counted_and_clients_of_jobs_find_their_keys(arc: Monitored) -> None:
    document = JobDocument.model_validate({"name": "a", "tasks": [{"name": "t", "queue": "video"}] * 2})
    coordinator = arc.parts.jobs.coordinator
    for _ in range(2):
        coordinator.submit(document, created_by="x", may_run_processes=True)
    coordinator.starter.step(clock.now_us())
    assert coordinator.claim("node", "video", ["process"]) is not None

    found = arc.json("/api/v1/metrics")

    assert found["jobs"] == found["tasks"] == {"running": 1}
    assert found["nodes"] == {"online": 0, "cpuPercent": 0.0}
    assert arc.scrape()["arc_jobs_running"] == 1
    assert 'arc_queue_tasks_waiting{queue="video"} 1.0' in arc.get("/metrics").text


def test_json_has_every_figure_and_the_blocks(arc: Monitored) -> None:
    arc.write(2)
    Sampler(arc.parts).step(clock.now_us())

    found = arc.json("/api/v1/metrics")

    assert found.keys() >= figures(arc.parts).keys()
    assert found["http_latency_count"] == found["http_requests_total"] == found["api"]["total_requests"] == 1
    assert found["system"].keys() >= {"cpu_percent", "disk_free_gb", "load_average", "timestamp"}
    assert found["application"]["ingest_records_total"] == 2
    assert found["collection_status"] == {"running": True, "samples_collected": 1, "retention_minutes": 60}


def test_metrics_work_before_the_store_is_open(make: Callable[..., Monitored]) -> None:
    starting = make()

    found = starting.scrape()

    assert found["arc_ingest_records_total"] == 0
    assert "arc_lake_files" not in found
    assert starting.json("/metrics/memory")["duckdb"] is None
    assert starting.json("/api/v1/metrics")["collection_status"]["running"] is False


def test_scraper_needs_a_token_unless_the_operator_says_otherwise(make: Callable[..., Monitored]) -> None:
    open_arc = make(**{"auth.allowlist": "/metrics"})

    assert open_arc.client.get("/metrics").status_code == 200
    assert open_arc.client.get("/api/v1/metrics").status_code == 401
    assert open_arc.client.get("/api/v1/metrics", headers=open_arc.token("write")).status_code == 200


def test_families_have_names_of_their_kind_and_stand_in_the_documentation() -> None:
    documented = re.findall(r"^\| `(arc_\w+)", DOCS.read_text("utf-8"), re.MULTILINE)

    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert len({family.figure for family in FAMILIES}) == len(names)
    assert set(documented) == {
        *names,
        "arc_info",
        "arc_http_responses_total",
        "arc_http_latency_seconds",
        "arc_queue_tasks_waiting",
        *FLEET_FAMILIES,
        *(family.name for family in action_figures.FAMILIES),
    }


# --- memory, queries, routes, history


def test_memory_profile_agrees_with_the_system(shared: Monitored) -> None:
    found = shared.json("/metrics/memory")

    resident_mb = psutil.Process().memory_info().rss / 2**20
    assert found["process"]["rss_mb"] == pytest.approx(resident_mb, rel=0.2)
    assert found["python"]["total_objects"] > 1000
    assert found["python"]["gc_counts"].keys() == {"gen0", "gen1", "gen2"}
    assert len(found["python"]["top_object_types"]) == 20
    assert found["tracemalloc"] == {"enabled": False, "top_allocations": []}
    assert found["duckdb"]["memory_limit_bytes"] > found["duckdb"]["memory_usage_bytes"] >= 0


def test_query_pool_shows_running_queries_without_their_sql(arc: Monitored) -> None:
    stream = arc.queries.stream("SELECT 'hush' AS secret FROM range(10)")
    try:
        answer = arc.get("/metrics/query-pool")
    finally:
        stream.close()

    found = answer.get_json()
    assert found["pool"]["active_connections"] == found["pool"]["connections_in_use"] == 1
    assert found["pool"]["pool_size"] == found["pool"]["idle_connections"] + 1
    assert [each["connection_id"] for each in found["connections"]] == [stream.id]
    assert "hush" not in answer.text
    assert arc.json("/metrics/query-pool")["pool"]["total_queries_executed"] == 1


def test_endpoints_show_each_route_with_its_times(arc: Monitored) -> None:
    arc.write(1)
    arc.query("SELECT 1")
    arc.query("SELEC")

    found = arc.json("/metrics/endpoints")

    assert found["endpoint_stats"]["/query"]["count"] == 2
    assert found["endpoint_stats"]["/query"]["errors"] == 1
    assert found["endpoint_stats"][WRITE]["p95_ms"] <= found["endpoint_stats"][WRITE]["max_ms"]
    assert found["http"]["requests_total"] == 3
    assert found["ingestion"]["records_total"] == 1


def test_sampler_reports_the_rate_since_the_sample_before(arc: Monitored) -> None:
    sampler = Sampler(arc.parts)
    sampler.step(0)
    for _ in range(3):
        arc.query("SELECT 1")
    arc.query("SELEC")

    sampler.step(MINUTE_US)

    api = arc.parts.history.latest()[1]["api"]
    assert (api["requests_per_minute"], api["error_rate_percent"]) == (4.0, 25.0)
    assert api["avg_response_time_ms"] > 0
    assert (api["total_requests"], api["failed_requests"]) == (4, 1)


def test_history_shows_the_minutes_asked_for(arc: Monitored) -> None:
    sampler, now_us = Sampler(arc.parts), clock.now_us()
    for minutes_ago in (50, 20, 1):
        sampler.step(now_us - minutes_ago * MINUTE_US)

    for kind in KINDS:
        found = arc.json(f"/metrics/timeseries/{kind}?duration_minutes=30")
        assert (found["points_count"], found["metric_type"], found["type"]) == (2, kind, kind)
        first = found["data"][0]
        assert first["timestamp"] == clock.rfc3339(now_us - 20 * MINUTE_US)
        assert first["values"].items() <= first.items()
    assert arc.json("/metrics/timeseries/api?duration_minutes=1440")["points_count"] == 3


def test_history_keeps_an_hour() -> None:
    history = History()
    for number in range(1000):
        history.add(number, {kind: {} for kind in KINDS})

    assert len(history) * INTERVAL_S == RETENTION_MIN * 60
    assert history.latest()[0] == 999


def test_wrong_series_and_spans_are_refused(shared: Monitored) -> None:
    answer = shared.get("/metrics/timeseries/disk")

    assert answer.status_code == 400
    assert answer.get_json()["detail"] == "Invalid metric type. Must be: system, application, or api"
    for minutes in (0, 1441):
        assert shared.get(f"/metrics/timeseries/api?duration_minutes={minutes}").status_code == 400


# --- logs


def record(level: int, message: str, at_us: int | None = None, **more: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": message, **more})
    made.name = "arc.test"
    if at_us is not None:
        made.created = at_us / clock.US_PER_S
    return made


def messages(arc: Monitored, query: str = "") -> list[str]:
    return [each["message"] for each in arc.json(f"/logs?{query}")["logs"]]


def test_logs_come_newest_first_by_level_and_time(arc: Monitored) -> None:
    now_us = clock.now_us()
    for level, message, minutes_ago in [
        (logging.ERROR, "old", 90),
        (logging.INFO, "info", 30),
        (logging.WARNING, "warning", 20),
        (logging.ERROR, "error", 1),
    ]:
        arc.parts.log_ring.emit(record(level, message, now_us - minutes_ago * MINUTE_US))

    assert messages(arc) == ["error", "warning", "info"]
    assert messages(arc, "level=warning") == messages(arc, "level=WARN") == ["error", "warning"]
    assert messages(arc, "level=&limit=2") == ["error", "warning"]
    assert messages(arc, "since_minutes=120&level=ERROR") == ["error", "old"]
    assert messages(arc, "since_minutes=10") == ["error"]


def test_logs_of_one_request(shared: Monitored) -> None:
    token = logs.request_id.set("request-7")
    shared.parts.log_ring.emit(record(logging.INFO, "GET /x", status=404))
    logs.request_id.set("request-8")
    shared.parts.log_ring.emit(record(logging.INFO, "GET /y"))
    logs.request_id.reset(token)

    found = shared.json("/logs?request_id=request-7")

    assert found["count"] == 1
    assert (
        found["logs"][0].items() >= {"request_id": "request-7", "message": "GET /x", "extra": {"status": 404}}.items()
    )
    assert found["filters"] == {"limit": 100, "level": None, "since_minutes": 60, "request_id": "request-7"}


def test_wrong_log_filters_are_refused(shared: Monitored) -> None:
    for query in ("limit=0", "limit=1001", "since_minutes=0", "since_minutes=1441", "level=LOUD"):
        assert shared.get(f"/logs?{query}").status_code == 400, query


@pytest.mark.parametrize("path", ["/logs", "/api/v1/logs"])
def test_logs_are_for_administrators(shared: Monitored, path: str) -> None:
    assert shared.get(path).status_code == 200
    assert shared.client.get(path, headers=shared.token("read", "write", "delete")).status_code == 403
    assert shared.client.get(path).status_code == 401


def raised(exc: BaseException) -> dict[str, Any]:
    """The log entry of an exception, as /logs shows it."""
    try:
        raise exc
    except type(exc) as caught:
        entry = logs.Entry.of(record(logging.ERROR, "failed", exc_info=(type(caught), caught, caught.__traceback__)))
    found: dict[str, Any] = record_json(entry)["exception"]
    return found


def test_exception_shows_type_and_place_but_not_what_it_quotes() -> None:
    found = raised(ValueError("near 'SELECT hush':\nalso: hush"))

    assert (found["type"], found["message"]) == ("ValueError", "")
    assert re.fullmatch(r'File ".*test_monitoring\.py", line \d+, in raised', found["traceback"])


def test_exception_of_the_system_keeps_its_text() -> None:
    found = raised(OSError(28, "No space left on device"))

    assert found["type"] == "OSError"
    assert found["message"] == "[Errno 28] No space left on device"


# --- the write-ahead log


@pytest.mark.parametrize("prefix", ["/api/wal", "/api/v1/wal"])
def test_wal_shows_what_it_holds(arc: Monitored, prefix: str) -> None:
    arc.write(10)

    stats, files = arc.json(f"{prefix}/stats"), arc.json(f"{prefix}/files")
    status, health = arc.json(f"{prefix}/status"), arc.json(f"{prefix}/health")

    name = "0000000000000001.wal"
    assert (stats["current_file"], stats["total_entries"], stats["sync_mode"]) == (name, 1, "always")
    assert [file["name"] for file in files["active"]] == [name]
    assert Path(files["active"][0]["path"]).stat().st_size > stats["total_bytes"] > 0
    assert (status["enabled"], status["configuration"]["current_file"]) == (True, name)
    assert (health["healthy"], health["wal_enabled"], health["issues"]) == (True, True, [])


def test_wal_is_empty_after_a_flush(arc: Monitored) -> None:
    arc.write(10)
    arc.store.flush()

    assert arc.json("/api/wal/stats")["current_file"] is None
    assert arc.json("/api/wal/files")["active"] == []
    assert arc.json("/api/wal/recovery/history")["total_recovered"] == 0


@pytest.mark.parametrize(("max_age_hours", "deleted"), [(24, 0), (1, 1), (0, 1)])
def test_cleanup_deletes_old_files_that_the_lake_has_made_redundant(
    arc: Monitored, max_age_hours: int, deleted: int
) -> None:
    arc.write(10)
    arc.store.flush()
    left_over = arc.store.wal.path(arc.store.lake.mark)
    left_over.write_bytes(bytes(2**20))
    os.utime(left_over, (clock.now_us() / clock.US_PER_S - 2 * 3600,) * 2)
    arc.write(3)

    answer = arc.client.post(f"/api/wal/cleanup?max_age_hours={max_age_hours}", headers=ADMIN).get_json()

    assert (answer["deleted_count"], answer["freed_mb"]) == (deleted, deleted)
    assert left_over.exists() is not bool(deleted)
    assert arc.store.wal.path(arc.store.wal.number).exists(), "rows that wait for a flush"


def test_wal_is_synced_on_demand(arc: Monitored) -> None:
    arc.write(1)
    before = arc.store.wal.syncs

    answer = arc.client.post("/api/v1/wal/flush", headers=ADMIN)

    assert (answer.status_code, answer.get_json()["success"]) == (200, True)
    assert arc.store.wal.syncs == before + 1


def test_wal_health_names_what_is_wrong(arc: Monitored) -> None:
    arc.store.wal.failed_writes = 2
    arc.store.wal.report.skipped = 1
    arc.store.wal.segment_bytes = 1
    arc.write(1)

    found = arc.json("/api/wal/health")

    assert found["healthy"] is False
    assert len(found["issues"]) == len(found["recommendations"]) == 3


def test_wal_that_is_off_answers_400(make: Callable[..., Monitored]) -> None:
    off = make(**{"wal.enabled": "false"})
    off.store.start()

    status = off.json("/api/wal/status")
    assert status["enabled"] is False
    assert "wal" in status["reason"]
    assert off.json("/api/wal/health")["wal_enabled"] is False
    for name in ("stats", "files", "recovery/history"):
        answer = off.get(f"/api/wal/{name}")
        assert answer.status_code == 400
        assert answer.get_json()["detail"] == "WAL is not enabled. Set WAL_ENABLED=true in configuration."
    for name in WAL_POSTS:
        assert off.client.post(f"/api/wal/{name}", headers=ADMIN).status_code == 400


def test_wal_is_for_administrators(shared: Monitored) -> None:
    reader = shared.token("read", "write")

    statuses = {shared.client.get(f"/api/wal/{name}", headers=reader).status_code for name in WAL_GETS}
    statuses |= {shared.client.post(f"/api/wal/{name}", headers=reader).status_code for name in WAL_POSTS}

    assert statuses == {403}
