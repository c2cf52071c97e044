"""Metrics over HTTP on a started server: codings, limits, answers, time-outs and clients that leave."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgpack
import psutil
import pyarrow as pa
import pytest
import zstandard

from tests.integration.server import WRITE_PATH, ArcServer, Connection, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIME = 1697472000000  # 2023-10-16T16:00:00Z in milliseconds
LONG_QUERY = "SELECT count(*) FROM range(100000000000) a(x) WHERE x % 7 = 3"  # minutes, unless it is stopped


def item(measurement: str, **fields: Any) -> dict[str, Any]:
    return {"m": measurement, "t": TIME, "h": "a", "fields": fields}


def take_a_place(server: ArcServer, connection: Connection) -> None:
    """Send a query that does not end; returns when it runs."""
    connection.send("POST", "/query", {"sql": LONG_QUERY})
    with server.connect() as watcher:
        wait_until(lambda: watcher.request("GET", "/api/v1/queries/active").json()["count"] > 0, "the query to run")


@pytest.fixture(scope="module")
def busy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """One query at a time, nobody waits, three seconds at most."""
    options = {"query.concurrency": "1", "query.queue": "0", "query.timeout_s": "3"}
    with ArcServer(tmp_path_factory.mktemp("busy") / "data", options) as server:
        yield server


@pytest.mark.parametrize("path", [WRITE_PATH, "/api/v2/msgpack", "/api/v1/write/msgpack", WRITE_PATH + "/"])
def test_write_is_answered_204_and_the_connection_stays(client: Connection, path: str) -> None:
    for _ in range(2):
        answer = client.request("POST", path, msgpack.packb(item("w_alias", v=1.0)))
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Connection"] is None


@pytest.mark.parametrize(
    ("encode", "announced"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, None),
        (zstandard.ZstdCompressor().compress, "zstd"),
        (zstandard.ZstdCompressor().compress, None),
        (bytes, "identity"),
    ],
)
def test_compressed_bodies_are_recognised(
    client: Connection, encode: Callable[[bytes], bytes], announced: str | None
) -> None:
    headers = {"Content-Encoding": announced} if announced else {}

    assert client.request("POST", WRITE_PATH, encode(msgpack.packb(item("w_coded", v=1.0))), headers).status == 204


@pytest.mark.parametrize("announced", ["gzip", "zstd"])
def test_body_that_is_not_what_it_announces_is_refused(client: Connection, announced: str) -> None:
    magic = b"\x1f\x8b" if announced == "gzip" else b"\x28\xb5\x2f\xfd"

    answer = client.request("POST", WRITE_PATH, magic + b"broken", {"Content-Encoding": announced})

    assert answer.status == 400
    assert answer.json()["detail"].startswith(f"Invalid {announced} compression")


def test_bomb_is_refused_without_being_unpacked(server: ArcServer, client: Connection) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(2_000_000_000))
    before = psutil.Process(server.pid).memory_info().rss

    answer = client.request("POST", WRITE_PATH, bomb)

    assert answer.status == 413
    assert psutil.Process(server.pid).memory_info().rss - before < 150 * 2**20


def test_body_above_the_limit_is_read_and_refused(client: Connection) -> None:
    answer = client.request("POST", WRITE_PATH, bytes(100 * 2**20 + 1))

    assert answer.status == 413
    assert answer.json()["detail"] == "Payload too large (max 100MB)"


def test_chunked_body_is_stored(server: ArcServer, client: Connection) -> None:
    body = msgpack.packb([item("w_chunked", v=float(i)) for i in range(1000)])
    pieces = (body[i : i + 100] for i in range(0, len(body), 100))
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", WRITE_PATH, pieces, {"Authorization": f"Bearer {server.token}"}, encode_chunked=True)
        assert connection.getresponse().status == 204

    assert client.query("SELECT count(*), sum(v) FROM w_chunked") == [[1000, 499500.0]]


def test_header_beats_the_query_string(client: Connection) -> None:
    body = msgpack.packb(item("w_database", v=1.0))
    client.request("POST", f"{WRITE_PATH}?db=by_query", body)
    client.request("POST", f"{WRITE_PATH}?db=by_query", body, {"x-arc-database": "by_header"})

    assert client.query("SELECT count(*) FROM by_query.w_database") == [[1]]
    assert client.query("SELECT count(*) FROM by_header.w_database") == [[1]]


@pytest.mark.parametrize("name", ["../x", "a/b", "1a", "x" * 65, "", "internal"])
def test_bad_database_name_is_refused(client: Connection, name: str) -> None:
    answer = client.write(item("w_name", v=1.0), database=name)

    assert answer.status == 400
    assert answer.json()["detail"].startswith("invalid database name")


def test_bad_item_is_named_and_nothing_is_stored(client: Connection) -> None:
    answer = client.write({"batch": [item("w_bad", v=1.0), {"m": "w_bad", "t": TIME}]})

    assert answer.status == 400
    assert "1" in answer.json()["detail"]
    assert client.query("SELECT * FROM w_bad") == []


@pytest.mark.parametrize("path", ["/query", "/api/v1/query"])
def test_rows_come_back_as_json(client: Connection, path: str) -> None:
    client.write(item("q_json", load=0.5, n=3, ok=True, text="x"))

    answer = client.request("POST", path, {"sql": "SELECT time, host, load, n, ok, text FROM q_json LIMIT 1;"})

    body = answer.json()
    assert body["columns"] == ["time", "host", "load", "n", "ok", "text"]
    assert body["data"] == [["2023-10-16T16:00:00Z", "a", 0.5, 3, True, "x"]]
    assert body["types"] == ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN", "VARCHAR"]
    assert answer.headers["X-Row-Count"] == "1"


@pytest.mark.parametrize("path", ["/query/arrow", "/api/v1/query/arrow"])
@pytest.mark.parametrize(("sql", "rows"), [("SELECT * FROM range(3) t(n)", 3), ("SELECT 1 AS n WHERE false", 0)])
def test_rows_come_back_as_arrow(client: Connection, path: str, sql: str, rows: int) -> None:
    answer = client.request("POST", path, {"sql": sql})

    table = answer.arrow()
    assert (table.num_rows, table.column_names) == (rows, ["n"])
    assert answer.headers["X-Row-Count"] == str(rows)


def test_show_databases_works_over_arrow(client: Connection) -> None:
    client.write(item("q_show", v=1.0))

    table = client.request("POST", "/api/v1/query/arrow", {"sql": "SHOW DATABASES"}).arrow()

    assert pa.types.is_string(table.schema.field("database").type)
    assert "default" in table["database"].to_pylist()


def test_large_answer_reaches_a_slow_reader_whole(server: ArcServer) -> None:
    body = json.dumps({"sql": "SELECT x, x::VARCHAR AS text FROM range(1000000) t(x)"})
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        connection.request("POST", "/query", body, {"Authorization": f"Bearer {server.token}"})
        answer = connection.getresponse()
        first = answer.read(1000)  # the server's buffers fill up long before the rest is read
        whole = json.loads(first + answer.read())

    assert whole["row_count"] == len(whole["data"]) == 1_000_000
    assert whole["data"][-1] == [999_999, "999999"]


def test_query_of_an_unknown_measurement_is_empty(client: Connection) -> None:
    answer = client.request("POST", "/query", {"sql": "SELECT * FROM never_written"})

    assert answer.status == 200
    assert (answer.json()["columns"], answer.json()["data"], answer.json()["row_count"]) == ([], [], 0)


@pytest.mark.parametrize("path", ["/query", "/api/v1/query", "/query/arrow", "/api/v1/query/arrow"])
@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT no_such_column FROM range(1)", "DROP TABLE cpu", "x" * 10_001])
def test_failed_query_is_400_in_json(client: Connection, path: str, sql: str) -> None:
    answer = client.request("POST", path, {"sql": sql})

    assert answer.status == answer.json()["status"] == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["execution_time_ms"] >= 0


def test_measurements_are_listed_in_both_shapes(client: Connection) -> None:
    client.write(item("m_listed", v=1.0), database="listing")

    names = client.request("GET", "/measurements?database=listing").json()
    infos = client.request("GET", "/api/v1/measurements?database=listing").json()
    everything = client.request("GET", "/api/v1/measurements").json()["measurements"]

    assert names["measurements"] == names["data"] == ["m_listed"]
    assert names["count"] == infos["count"] == 1
    assert infos["measurements"][0].keys() >= {"database", "measurement", "file_count", "total_size_mb", "storage_path"}
    assert everything == sorted(everything, key=lambda info: (info["database"], info["measurement"]))


def test_flush_moves_rows_to_files(client: Connection) -> None:
    client.write(item("m_flushed", v=1.0), database="flushing")

    answer = client.request("POST", "/write/flush?database=flushing&measurement=m_flushed")

    info = client.request("GET", "/api/v1/measurements?database=flushing").json()["measurements"][0]
    assert answer.json()["message"] == "Flushed buffer for measurement: m_flushed"
    assert info["file_count"] == 1
    assert client.query("SELECT v FROM flushing.m_flushed") == [[1.0]]


def test_write_path_reports_on_itself(client: Connection) -> None:
    client.write(item("s_counted", v=1.0))
    before = client.request("GET", "/write/stats").json()

    client.write([item("s_counted", v=1.0), item("s_counted", v=2.0)])
    after = client.request("GET", "/api/v1/write/stats").json()

    assert after["stats"]["total_records"] - before["stats"]["total_records"] == 2
    assert after["buffer_stats"].keys() >= {"total_records_buffered", "current_buffer_sizes", "wal_enabled"}
    assert client.request("GET", "/write/health").json()["status"] == "healthy"
    assert client.request("GET", WRITE_PATH + "/stats").json()["decoder"]["total_decoded"] > 0
    assert client.request("GET", WRITE_PATH + "/spec").json()["endpoint"] == WRITE_PATH


@pytest.mark.parametrize(("path", "status"), [("/query", 408), ("/api/v1/query", 504), ("/query/arrow", 408)])
def test_query_over_its_time_is_stopped(busy_server: ArcServer, path: str, status: int) -> None:
    with busy_server.connect() as connection:
        answer = connection.request("POST", path, {"sql": LONG_QUERY})
        assert answer.status == answer.json()["status"] == status
        assert connection.query("SELECT 1") == [[1]]


def test_query_without_a_free_place_is_503(busy_server: ArcServer) -> None:
    with busy_server.connect() as first, busy_server.connect() as second:
        take_a_place(busy_server, first)
        refused = second.request("POST", "/query", {"sql": "SELECT 'not in the cache'"})
        assert first.receive().status == 408

    assert refused.status == 503
    assert refused.headers["Retry-After"]
    assert refused.json()["code"] == "unavailable"


def test_query_ends_when_its_client_hangs_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    options = {"query.concurrency": "1", "query.queue": "0", "query.timeout_s": "600"}
    with ArcServer(tmp_path_factory.mktemp("gone") / "data", options) as server, server.connect() as other:
        with server.connect() as leaver:
            take_a_place(server, leaver)
            assert other.request("POST", "/query", {"sql": "SELECT 1"}).status == 503

        asked = {"sql": "SELECT 1"}
        wait_until(lambda: other.request("POST", "/query", asked).status == 200, "the place to be free again", 10)


def test_writes_go_on_while_queries_hold_their_places(busy_server: ArcServer) -> None:
    def ask() -> None:
        with busy_server.connect() as connection:
            connection.request("POST", "/query", {"sql": LONG_QUERY})

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 60
    with busy_server.connect() as connection:
        written = 0
        while asking.is_alive() and time.monotonic() < deadline:
            assert connection.write(item("w_meanwhile", v=1.0)).status == 204
            written += 1
        asking.join()
        assert connection.query("SELECT count(*) FROM w_meanwhile") == [[written]]
