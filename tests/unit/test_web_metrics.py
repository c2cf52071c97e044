"""Write and query routes: what reaches the metrics, and what comes back."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pytest
import zstandard

from arc.errors import Invalid
from tests.unit.web import ADMIN, FakeResult, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITES = ("/write/v2/msgpack", "/api/v2/msgpack", "/api/v1/write/msgpack")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


@pytest.mark.parametrize("path", WRITES)
def test_write_answers_204_without_a_body(web: WebApp, path: str) -> None:
    answer = web.client.post(path, data=b"\x80", headers={**ADMIN, "Content-Encoding": "gzip"})

    assert (answer.status_code, answer.data) == (204, b"")
    assert "Content-Type" not in answer.headers
    assert web.store.writes == [(b"\x80", "default", "gzip")]


@pytest.mark.parametrize(
    ("query", "headers", "database"),
    [
        ("", {}, "default"),
        ("?db=a", {}, "a"),
        ("?bucket=b/autogen", {}, "b"),
        ("?db=a&bucket=b", {}, "a"),
        ("?db=a", {"x-arc-database": "h"}, "h"),
        ("?db=", {}, ""),
        ("?precision=ms", {}, "default"),
    ],
)
def test_database_of_a_write(web: WebApp, query: str, headers: dict[str, str], database: str) -> None:
    web.client.post(WRITES[0] + query, data=b"x", headers={**ADMIN, **headers})

    assert web.store.writes[0][1] == database


def test_default_database_is_an_option(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"storage.database": "plant"}) as web:
        web.client.post(WRITES[0], data=b"x", headers=ADMIN)
        web.client.post("/query", json={"sql": "SELECT 1"}, headers=ADMIN)

    assert web.store.writes[0][1] == web.queries.asked[0]["database"] == "plant"


@pytest.mark.parametrize("path", ["/query", "/api/v1/query"])
def test_query_answers_rows_with_the_keys_of_every_generation(web: WebApp, path: str) -> None:
    answer = web.client.post(path, json={"sql": "SELECT n", "format": "csv", "limit": 1}, headers=ADMIN)

    body = answer.get_json()
    assert answer.headers["Content-Type"] == "application/json"
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "status": "success",
        "success": True,
        "columns": ["n"],
        "types": ["BIGINT"],
        "data": [[1], [2]],
        "count": 2,
        "row_count": 2,
        "execution_time_ms": 1.5,
        "error": None,
        "warning": None,
    }
    assert answer.headers["X-Arc-Query-ID"] == "q-1"
    assert answer.headers["X-Row-Count"] == "2"
    assert float(answer.headers["X-Execution-Time-Ms"]) == 1.5
    assert float(answer.headers["X-Wait-Time-Ms"]) == 0.25


def test_failed_query_says_how_long_it_took(web: WebApp) -> None:
    web.queries.fails_with = Invalid("Parser Error: nonsense")

    body = web.client.post("/query", json={"sql": "x"}, headers=ADMIN).get_json()

    assert body["detail"] == "Parser Error: nonsense"
    assert body["execution_time_ms"] >= 0
    assert body["timestamp"].endswith("Z")


@pytest.mark.parametrize("path", ["/query/arrow", "/api/v1/query/arrow"])
def test_arrow_answer_is_one_stream(web: WebApp, path: str) -> None:
    answer = web.client.post(path, json={"sql": "SELECT n"}, headers={**ADMIN, "Accept-Encoding": "zstd, gzip"})

    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert "Content-Encoding" not in answer.headers
    assert pa.ipc.open_stream(answer.data).read_all() == web.queries.result.table


def test_query_database_comes_from_the_header(web: WebApp) -> None:
    web.client.post("/query", json={"sql": "SELECT 1"}, headers={**ADMIN, "x-arc-database": "my-db"})
    answer = web.client.post("/query", json={"sql": "SELECT 1"}, headers={**ADMIN, "x-arc-database": "../x"})

    assert web.queries.asked[0]["database"] == "my-db"
    assert answer.status_code == 400
    assert answer.get_json()["detail"].startswith("invalid x-arc-database header: ")


def test_query_is_told_how_to_ask_whether_its_client_is_gone(web: WebApp) -> None:
    gone = lambda: True  # noqa: E731
    web.client.post(
        "/query", json={"sql": "SELECT 1"}, headers=ADMIN, environ_overrides={"waitress.client_disconnected": gone}
    )

    assert web.queries.asked[0]["is_gone"] is gone


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, zstd", "zstd"),
        ("gzip, deflate", "gzip"),
        ("zstd;q=0, gzip;q=0.5", "gzip"),
        ("identity", None),
        ("", None),
    ],
)
def test_large_json_is_compressed_as_the_client_likes(web: WebApp, accepted: str, coding: str | None) -> None:
    web.queries.result = FakeResult(table=pa.table({"n": list(range(5000))}))

    answer = web.client.post("/query", json={"sql": "SELECT n"}, headers={**ADMIN, "Accept-Encoding": accepted})

    undo = {"zstd": lambda body: zstandard.ZstdDecompressor().decompress(body), "gzip": gzip.decompress, None: bytes}
    assert answer.headers.get("Content-Encoding") == coding
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert orjson.loads(undo[coding](answer.data))["row_count"] == 5000


def test_small_json_is_left_alone(web: WebApp) -> None:
    answer = web.client.post("/query", json={"sql": "SELECT n"}, headers={**ADMIN, "Accept-Encoding": "zstd"})

    assert "Content-Encoding" not in answer.headers
    assert "Accept-Encoding" in answer.headers["Vary"]


def test_ready_follows_the_store(web: WebApp) -> None:
    ready = web.client.get("/ready")
    web.store.is_ready = False
    not_ready = web.client.get("/ready")

    assert (ready.status_code, ready.get_json()["status"]) == (200, "ready")
    assert (not_ready.status_code, not_ready.get_json()["status"]) == (503, "not_ready")
    assert ready.get_json().keys() >= {"checks", "details", "message", "timestamp", "time", "uptime_sec"}
    assert not_ready.get_json()["reason"]


def test_health_has_the_keys_that_clients_check(web: WebApp) -> None:
    body = web.client.get("/health").get_json()

    assert body["status"] == "UP"
    assert isinstance(body["uptime"], str)
    assert isinstance(body["uptime_sec"], float)
    assert all(body[key] for key in ("service", "version", "timestamp", "time", "name", "message", "storage"))


def test_ping_answers_influx_clients(web: WebApp) -> None:
    ping = web.client.get("/ping", headers={"X-Request-ID": "r-1"})

    assert (ping.status_code, ping.data) == (204, b"")
    assert ping.headers["X-Influxdb-Version"].startswith("1.8")
    assert ping.headers["Request-Id"] == "r-1"
    assert web.client.head("/ping").status_code == 204
    assert web.client.get("/ping?verbose=true").get_json()["version"].startswith("1.8")
