"""Importing files and writing Arrow over HTTP into a started server."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.server import Answer, Connection

CSV = b"time,host,v\n2025-10-19T12:00:00Z,a,1\n2025-10-19T13:00:00.5Z,b,2.5\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """Takes requests of 1 MB and files of 8 MB."""
    options = {"server.max_body_size": "1MB", "server.max_import_size": "8MB"}
    with ArcServer(tmp_path_factory.mktemp("import") / "data", options) as made:
        yield made


def send(client: Connection, kind: str, body: bytes, headers: dict[str, str] | None = None, **params: Any) -> Answer:
    return client.request("POST", f"/api/v1/import/{kind}?{urlencode(params)}", body, headers)


def as_form(content: bytes, name: str = "file") -> tuple[bytes, dict[str, str]]:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()
    return head + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize("layout", ["form", "body", "gzip"])
def test_csv(client: Connection, layout: str) -> None:
    body, headers = as_form(CSV) if layout == "form" else (gzip.compress(CSV) if layout == "gzip" else CSV, {})

    answer = send(client, "csv", body, headers, measurement=f"csv_{layout}", db="plant")

    assert answer.status == 200, answer.body
    assert answer.json()["status"] == "ok"
    result = answer.json()["result"]
    assert result.pop("duration_ms") > 0
    assert result == {
        "database": "plant",
        "measurement": f"csv_{layout}",
        "rows_imported": 2,
        "partitions_created": 2,
        "time_range_min": "2025-10-19T12:00:00Z",
        "time_range_max": "2025-10-19T13:00:00.5Z",
        "columns": ["time", "host", "v"],
    }
    assert client.query(f"SELECT * FROM plant.csv_{layout} ORDER BY v") == [
        ["2025-10-19T12:00:00Z", "a", 1.0],
        ["2025-10-19T13:00:00.5Z", "b", 2.5],
    ]


def test_parquet_and_lines(client: Connection, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": [1, 2], "v": ["x", "y"]}), tmp_path / "f.parquet")
    parquet = (tmp_path / "f.parquet").read_bytes()

    first = send(client, "parquet", parquet, {"x-arc-database": "plant"}, measurement="p", time_column="ts")
    second = send(client, "lp", b"cpu v=1 1\nmem v=2i 2\n", db="lines", precision="s")

    assert first.json()["result"]["rows_imported"] == 2
    assert client.query("SELECT v FROM plant.p ORDER BY time") == [["x"], ["y"]]
    result = second.json()["result"]
    assert result.pop("duration_ms") > 0
    assert result == {"database": "lines", "measurements": ["cpu", "mem"], "rows_imported": 2, "precision": "s"}
    assert client.query("SELECT v FROM lines.mem") == [[2]]


@pytest.mark.parametrize(
    ("kind", "body", "params", "status", "text"),
    [
        ("csv", CSV, {"db": "x"}, 400, "measurement: Field required"),
        ("csv", CSV, {"measurement": "m", "db": ""}, 400, "invalid database name"),
        ("csv", CSV, {"db": "x", "measurement": "m", "time_format": "epoch"}, 400, "time_format"),
        ("csv", CSV, {"db": "x", "measurement": "m", "delimiter": "ab"}, 400, "delimiter"),
        ("csv", CSV, {"db": "x", "measurement": "m", "time_column": "ts"}, 400, "columns are: time, host, v"),
        ("csv", b"", {"db": "x", "measurement": "m"}, 400, "file contains no rows"),
        ("csv", b"time,v\nnoon,1\n", {"db": "x", "measurement": "m"}, 422, "row 1: 'noon' is no time"),
        ("parquet", CSV, {"db": "x", "measurement": "m"}, 422, "invalid Parquet"),
        ("lp", b"nonsense\n", {"db": "x"}, 422, "line 1"),
        ("csv", bytes(8 * 2**20 + 1), {"db": "x", "measurement": "m"}, 413, "max 8MB"),
        ("csv", gzip.compress(bytes(8 * 2**20 + 1)), {"db": "x", "measurement": "m"}, 413, "max 8MB"),
    ],
)
def test_what_is_refused(
    client: Connection, kind: str, body: bytes, params: dict[str, str], status: int, text: str
) -> None:
    answer = send(client, kind, body, **params)

    assert answer.status == status, answer.body
    assert text in answer.json()["error"]
    assert "x" not in {row[0] for row in client.query("SHOW DATABASES")}


def test_a_form_without_the_file(client: Connection) -> None:
    body, headers = as_form(CSV, "data")

    answer = send(client, "csv", body, headers, measurement="m", db="x")

    assert (answer.status, answer.json()["error"]) == (400, "the form needs a part called file")


def test_stats(client: Connection) -> None:
    before = client.request("GET", "/api/v1/import/stats").json()["stats"]
    send(client, "csv", CSV, measurement="counted", db="plant")
    send(client, "csv", b"?", measurement="counted", db="plant")

    after = client.request("GET", "/api/v1/import/stats").json()["stats"]

    assert {name: after[name] - before[name] for name in after} == {
        "total_requests": 2, "total_records": 2, "total_errors": 1,
    }  # fmt: skip


def test_an_import_needs_permission_write(server: ArcServer, client: Connection) -> None:
    made = client.request("POST", "/api/v1/auth/tokens", {"name": "reader", "permissions": ["read"]})

    with server.connect(made.json()["token"]) as reader:
        assert send(reader, "csv", CSV, measurement="m", db="x").status == 403


def test_imported_rows_survive_a_crash(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as connection:
        assert send(connection, "csv", CSV, measurement="m", db="plant").status == 200
    server.kill9()

    server.start()

    with server.connect() as connection:
        assert connection.query("SELECT count(*) FROM plant.m") == [[2]]


def peak_mb(server: ArcServer) -> int:
    """The most memory the process has had so far."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def test_a_large_file_needs_little_memory(make_server: Callable[..., ArcServer]) -> None:
    """Of CSV that DuckDB cannot read as it is, because lines end in two ways: the longest path there is."""
    line = "2025-10-19T12:00:00.{:06d}Z,server{},{},{},{},true\n"
    rows = 900_000
    body = "time,host,a,b,c,d\r\n" + "".join(line.format(n, n % 50, n, n * 0.5, "x" * 20) for n in range(rows))
    with make_server(options={"ingest.buffer_size": "32MB"}) as server, server.connect() as connection:
        before_mb = peak_mb(server)

        answer = send(connection, "csv", body.encode(), measurement="big", db="plant")

        assert answer.json()["result"]["rows_imported"] == rows
        assert connection.query("SELECT count(*), count(DISTINCT a) FROM plant.big") == [[rows, rows]]
        assert peak_mb(server) - before_mb < 350


def ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("path", ["/write/arrow", "/api/v1/write/arrow"])
def test_arrow_bodies(client: Connection, path: str) -> None:
    name = "arrow" + str(path.count("/"))
    body = ipc(pa.table({"time": pa.array([1, 2], pa.timestamp("s")), "s": pa.array(["a", "a"]).dictionary_encode()}))

    by_header = client.request("POST", path, body, {"x-arc-measurement": name, "x-arc-database": "plant"})
    by_query = client.request("POST", f"{path}?measurement={name}&db=plant", gzip.compress(body))

    assert (by_header.status, by_query.status) == (204, 204)
    assert client.query(f"SELECT s, count(*) FROM plant.{name} GROUP BY s") == [["a", 4]]
    assert client.request("POST", path, body).status == 400
    assert client.request("POST", f"{path}?measurement=m", b"x").status == 400
