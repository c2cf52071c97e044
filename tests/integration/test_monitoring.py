"""Monitoring of a running server: exact counters under load, its log without secrets, its WAL after a kill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.server import NO_FLUSH, TOKEN, ArcServer, Connection, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS = 4
WRITES = 25  # of each writer
ROWS = 40  # of each write


def scrape(connection: Connection) -> dict[str, float]:
    """Samples without labels, by name."""
    answer = connection.request("GET", "/metrics")
    assert answer.status == 200, answer.body
    families = text_string_to_metric_families(answer.body.decode())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def logged(connection: Connection, **filters: Any) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = connection.request("GET", f"/logs?{query}")
    assert answer.status == 200, answer.body
    records: list[dict[str, Any]] = answer.json()["logs"]
    return records


def test_counters_move_by_the_exact_number_of_rows(server: ArcServer, client: Connection) -> None:
    before = scrape(client)

    def write() -> None:
        with server.connect() as connection:
            for number in range(WRITES):
                connection.store({"m": "counted", "columns": {"v": [number] * ROWS}})

    with ThreadPoolExecutor(WRITERS) as pool:
        for work in [pool.submit(write) for _ in range(WRITERS)]:
            work.result()
    client.flush()
    after = scrape(client)

    moved = {name: after[name] - before.get(name, 0) for name in after}
    writes = WRITERS * WRITES
    assert moved["arc_ingest_records_total"] == moved["arc_msgpack_records_total"] == writes * ROWS
    assert moved["arc_buffer_records_written_total"] == moved["arc_lake_records"] == writes * ROWS
    assert moved["arc_ingest_batches_total"] == moved["arc_wal_entries_total"] == writes
    assert moved["arc_http_requests_total"] == moved["arc_http_requests_success_total"] == writes + 2  # scrape, flush
    assert moved["arc_http_latency_seconds_count"] == writes + 2


def test_history_begins_with_the_server(server: ArcServer, client: Connection) -> None:
    def samples() -> list[Any]:
        found: list[Any] = client.request("GET", "/metrics/timeseries/system").json()["data"]
        return found

    first = wait_until(samples, "a first sample")[0]

    assert 0 < first["memory_percent"] <= 100
    assert client.request("GET", "/api/v1/metrics").json()["collection_status"]["running"] is True


def test_failed_request_stands_in_the_log_under_its_id(client: Connection) -> None:
    answer = client.request("POST", "/query", {"sql": "SELECT"}, {"X-Request-Id": "a-bad-query"})

    (record,) = logged(client, request_id="a-bad-query")

    assert answer.headers["X-Request-Id"] == record["request_id"] == "a-bad-query"
    assert record["message"] == "POST /query"
    assert record["extra"]["status"] == answer.status == 400


def test_log_holds_no_sql_tokens_or_bodies(client: Connection) -> None:
    client.query("SELECT 'hush' AS hush")
    client.request("POST", "/query", {"sql": "SELECT hush FROM hush"})
    client.request("POST", "/query", {"sql": "SELECT 'hush"})
    client.request("GET", "/measurements?database=hush&p=hush")
    client.request("GET", "/metrics", headers={"Authorization": "Bearer hush"})
    assert client.write(b"hush").status == 400

    answer = client.request("GET", "/logs?limit=1000&since_minutes=1440")

    assert answer.json()["count"] > 3
    assert b"hush" not in answer.body
    assert TOKEN.encode() not in answer.body


def test_wal_tells_what_a_kill_left_to_it(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as connection:
        for _ in range(3):
            connection.store({"m": "kept", "columns": {"v": [1, 2]}})

    server.kill9()
    server.start()

    with server.connect() as connection:
        history = connection.request("GET", "/api/v1/wal/recovery/history").json()
        files = connection.request("GET", "/api/v1/wal/files").json()
        found = scrape(connection)
        connection.flush()
        flushed = connection.request("GET", "/api/v1/wal/files").json()
    assert (history["total_recovered"], history["entries"], history["rows"]) == (1, 3, 6)
    assert history["last_recovery"] == history["recovered_files"][0]["recovered_at"]
    assert [file["name"] for file in files["recovered"]] == [history["recovered_files"][0]["name"]]
    assert (found["arc_wal_recovery_total"], found["arc_wal_recovery_records_total"]) == (1, 6)
    assert found["arc_ingest_records_total"] == 0
    assert flushed["active"] == flushed["recovered"] == []
    server.stop()


def test_wal_that_is_off_answers_400_but_tells_its_state(make_server: Callable[..., ArcServer]) -> None:
    with make_server(options={"wal.enabled": "false"}) as server, server.connect() as connection:
        status = connection.request("GET", "/api/wal/status")
        stats = connection.request("GET", "/api/wal/stats")

        assert (status.status, status.json()["enabled"]) == (200, False)
        assert (stats.status, stats.json()["detail"].split(".")[0]) == (400, "WAL is not enabled")
