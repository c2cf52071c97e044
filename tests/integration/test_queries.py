"""What queries answer beyond plain rows: streams, estimates, the cache, the list of queries, MessagePack."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgpack
import pyarrow as pa
import pytest

from tests.integration.server import ArcServer, Connection, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T0_MS = 1_760_875_200_000  # 2025-10-19T12:00:00Z
SLOW = "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c"


def rows_of(count: int, first: int = 0) -> dict[str, Any]:
    numbers = range(first, first + count)
    return {"time": [T0_MS + n for n in numbers], "n": list(numbers), "host": [f"h{n % 3}" for n in numbers]}


@pytest.fixture(scope="module")
def filled(server: ArcServer) -> ArcServer:
    """1,000 rows of measurement `cpu`, half of them in a file."""
    with server.connect() as connection:
        connection.store({"m": "cpu", "columns": rows_of(500)})
        connection.flush()
        connection.store({"m": "cpu", "columns": rows_of(500, first=500)})
    return server


@pytest.fixture
def client(filled: ArcServer) -> Iterator[Connection]:
    with filled.connect() as connection:
        yield connection


def ask(client: Connection, sql: str, **headers: str) -> tuple[str, Any]:
    answer = client.request("POST", "/query", {"sql": sql}, headers)
    assert answer.status == 200, answer.body
    return answer.headers["X-Cache"], answer.json()


# ---------------------------------------------------------------------------------------------- streams


def test_stream_is_csv_with_a_header(client: Connection) -> None:
    answer = client.request("POST", "/query/stream", {"sql": "SELECT time, n, host FROM cpu ORDER BY n"})

    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == "attachment; filename=query_result.csv"
    assert answer.headers["X-Arc-Query-ID"]
    assert answer.body.startswith(b"time,n,host\r\n2025-10-19T12:00:00Z,0,h0\r\n")
    assert len(rows) == 1001
    assert rows[-1] == ["2025-10-19T12:00:00.999Z", "999", "h0"]


def test_csv_of_every_kind_of_value(client: Connection) -> None:
    sql = """SELECT 'a,"b"' AS text, NULL AS nothing, 'NaN'::DOUBLE AS nan, 1.5::DECIMAL(9, 2) AS decimal, true AS yes,
             DATE '2025-10-19' AS day, [1, 2] AS list, sum(170141183460469231731687303715884105727 - 1) AS huge"""

    answer = client.request("POST", "/query/stream", {"sql": sql})

    [_, row] = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert row[:7] == ['a,"b"', "", "", "1.50", "true", "2025-10-19", "[1,2]"]


def test_stream_of_no_rows_is_a_header(client: Connection) -> None:
    answer = client.request("POST", "/query/stream", {"sql": "SELECT n FROM cpu WHERE n < 0"})

    assert answer.body == b"n\r\n"


def test_stream_as_ndjson_json_and_arrow(client: Connection) -> None:
    def stream(kind: str) -> bytes:
        body = {"sql": "SELECT n, host FROM cpu ORDER BY n", "format": kind}
        answer = client.request("POST", "/api/v1/query/stream", body)
        assert answer.status == 200, answer.body
        return answer.body

    lines = [json.loads(line) for line in stream("ndjson").splitlines()]
    whole = json.loads(stream("json"))
    with pa.ipc.open_stream(stream("arrow")) as reader:
        table = reader.read_all()

    assert lines[999] == {"n": 999, "host": "h0"}
    assert (len(whole["data"]), whole["data"][999], whole["row_count"]) == (1000, [999, "h0"], 1000)
    assert (table.num_rows, table.column("n")[999].as_py()) == (1000, 999)


def test_accept_chooses_the_stream_too(client: Connection) -> None:
    accept = {"Accept": "application/vnd.apache.arrow.stream"}
    answer = client.request("POST", "/query/stream", {"sql": "SELECT sum(n) AS s FROM cpu"}, accept)

    assert answer.arrow().to_pydict() == {"s": [499_500.0]}


@pytest.mark.parametrize(
    ("body", "status"),
    [({"sql": "SELECT nothing FROM cpu"}, 400), ({"sql": "SELECT 1", "format": "xml"}, 400), ({"sql": ""}, 400)],
)
def test_stream_that_cannot_begin_is_an_error(client: Connection, body: dict[str, str], status: int) -> None:
    answer = client.request("POST", "/query/stream", body)

    assert answer.status == status
    assert answer.json()["success"] is False


def test_client_that_leaves_a_stream_ends_its_query(filled: ArcServer, client: Connection) -> None:
    leaving = filled.connect()
    leaving.send("POST", "/query/stream", {"sql": "SELECT * FROM range(1000000000)"})
    running = wait_until(lambda: active(client), "the stream runs")

    leaving.close()

    wait_until(lambda: not active(client), "the query ends")
    assert [query["sql"] for query in running] == ["SELECT * FROM range(1000000000)"]


def test_cancelled_stream_is_cut_off(filled: ArcServer, client: Connection) -> None:
    with socket.create_connection(("127.0.0.1", filled.port)) as reader:
        body = b'{"sql": "SELECT * FROM range(1000000000)"}'
        head = f"POST /query/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {filled.token}\r\nContent-Length: "
        reader.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        reader.settimeout(30)
        assert reader.recv(12) == b"HTTP/1.1 200"
        [query] = wait_until(lambda: active(client), "the stream runs")

        client.request("DELETE", f"/api/v1/queries/{query['id']}")

        end = b""
        while piece := reader.recv(2**20):
            end = (end + piece)[-5:]
    assert end != b"0\r\n\r\n"  # the chunk that says an answer is complete
    assert "Traceback" not in filled.stderr


# ---------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize(
    ("rows", "level"), [(10_000, "none"), (10_001, "low"), (100_001, "medium"), (1_000_001, "high")]
)
def test_estimate_has_four_levels(client: Connection, rows: int, level: str) -> None:
    answer = client.request("POST", "/query/estimate", {"sql": f"SELECT * FROM range({rows}); -- all of it"})

    estimate = answer.json()
    assert (estimate["success"], estimate["estimated_rows"], estimate["warning_level"]) == (True, rows, level)
    assert bool(estimate["warning_message"]) == (level != "none")


@pytest.mark.parametrize("sql", ["SELECT nonsense", "SHOW TABLES", "DROP TABLE cpu"])
def test_estimate_of_what_cannot_be_counted(client: Connection, sql: str) -> None:
    plain = client.request("POST", "/query/estimate", {"sql": sql})
    newer = client.request("POST", "/api/v1/query/estimate", {"sql": sql})

    assert (plain.status, newer.status) == (200, 400)
    for estimate in (plain.json(), newer.json()):
        assert (estimate["success"], estimate["estimated_rows"], estimate["warning_level"]) == (False, None, "error")
        assert estimate["error"].startswith("Cannot estimate query: ")


# ---------------------------------------------------------------------------------------------- measurements


def test_rows_of_one_measurement(client: Connection) -> None:
    path = "/api/v1/query/cpu?columns=n,host&where=host%20=%20'h1'%20OR%20n%20=%200&order_by=n&limit=2&offset=1"
    answer = client.request("GET", path)

    assert answer.status == 200, answer.body
    assert answer.json()["data"] == [[1, "h1"], [4, "h1"]]


def test_rows_of_a_time_range_as_csv(client: Connection) -> None:
    query = "columns=n&start_time=2025-10-19T12:00:00.010Z&end_time=2025-10-19T12:00:00.012Z"
    answer = client.request("GET", f"/query/cpu/csv?{query}")

    assert answer.body == b"n\r\n11\r\n10\r\n"


@pytest.mark.parametrize("path", ["/query/nothing", "/query/1a", "/query/cpu?where=1%20=%201%20;%20SELECT%201",
                                  "/query/cpu?order_by=read_csv('/etc/passwd')", "/query/cpu?limit=-1"])  # fmt: skip
def test_rows_that_cannot_be_asked_for(client: Connection, path: str) -> None:
    assert client.request("GET", path).status == 400


@pytest.mark.parametrize("field", ["start_time", "end_time"])
def test_a_bad_time_is_refused_by_the_name_of_its_parameter(client: Connection, field: str) -> None:
    answer = client.request("GET", f"/query/cpu?{field}=noon")

    assert (answer.status, answer.json()["error"]) == (400, f"{field}: 'noon' is no ISO 8601 instant")


# ------------------------------------------------------------------------- checklist rows 54 and 60 of the metrics


def test_a_hundred_thousand_rows_are_the_same_as_json_and_as_arrow(client: Connection) -> None:
    """Row 54; how fast each is, bench/query.py measures."""
    client.store({"m": "large", "columns": rows_of(60_000)})
    client.flush()
    client.store({"m": "large", "columns": rows_of(40_000, first=60_000)})
    sql = "SELECT n, host, epoch_ms(time) AS ms, n / 8 AS part FROM large ORDER BY n"

    rows = client.query(sql)
    table = client.table(sql)

    assert table.num_rows == len(rows) == 100_000
    assert rows == [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH cpu AS (SELECT 7 AS n) SELECT n FROM cpu", [[7]]),
        ('WITH "1st" AS (SELECT n AS "2nd" FROM cpu) SELECT max("2nd") FROM "1st"', [[999]]),
        ("WITH mine AS (SELECT n FROM cpu WHERE n < 2) SELECT count(*) FROM mine, (SELECT 1) AS mem", [[2]]),
        ("SELECT 'x FROM nosuch', \"1st\" -- FROM nosuch\n FROM names60 /* FROM nosuch */", [["x FROM nosuch", 5]]),
        ("SELECT created_at, \"2nd\" FROM names60 WHERE created_at LIKE 'in%'", [["insert", 1.5]]),
        ("SELECT (SELECT max(n) FROM cpu), n FROM cpu WHERE n IN (SELECT min(n) + 1 FROM cpu)", [[999, 1]]),
        ('SELECT s.n FROM names60 t, LATERAL (SELECT max(c.n) AS n FROM cpu c WHERE c.n < t."1st") s', [[4]]),
        ("SELECT EXTRACT(year FROM time), EXTRACT(hour FROM time) FROM cpu WHERE n = 0", [[2025, 12]]),
        ("SELECT count(*) FROM default.cpu WHERE time >= '2025-10-19T12:00:00Z' AND host = 'h1'", [[333]]),
    ],
)
def test_measurements_are_found_where_they_are_meant(client: Connection, sql: str, rows: list[list[Any]]) -> None:
    """Row 60: by the parse tree, not by the word that follows FROM."""
    if not client.query("SELECT 1 FROM names60 LIMIT 1"):
        columns = {"time": [T0_MS], "1st": [5], "2nd": [1.5], "created_at": ["insert"]}
        client.store({"m": "names60", "columns": columns})

    assert client.query(sql) == rows


# ---------------------------------------------------------------------------------------------- MessagePack


def test_msgpack_answers_columns(client: Connection) -> None:
    sql = "SELECT time, n, host, n / 2.0::DOUBLE AS half FROM cpu ORDER BY n LIMIT 2"
    answer = client.request("POST", "/api/v1/query/msgpack", {"sql": sql}, {"x-arc-profile": "true"})

    found = msgpack.unpackb(answer.body)
    assert answer.headers["Content-Type"] == "application/msgpack"
    assert found["types"] == ["timestamp[us]", "int64", "utf8", "float64"]
    assert found["data"][0][1] == msgpack.Timestamp(T0_MS // 1000, 1_000_000)
    assert found["data"][1:] == [[0, 1], ["h0", "h1"], [0.0, 0.5]]
    assert (found["success"], found["row_count"]) == (True, 2)
    assert found["profile"]["total_ms"] >= found["profile"]["planner_ms"] > 0


def test_msgpack_error_is_msgpack(client: Connection) -> None:
    answer = client.request("POST", "/api/v1/query/msgpack", {"sql": "SELECT nothing FROM cpu"})

    assert answer.status == 400
    assert msgpack.unpackb(answer.body)["success"] is False


# ---------------------------------------------------------------------------------------------- cache


def test_second_answer_comes_from_the_cache(client: Connection) -> None:
    state, first = ask(client, "SELECT max(n) FROM cpu")
    again, second = ask(client, "  SELECT max(n) FROM cpu\n")

    assert (state, again) == ("MISS", "HIT")
    assert second["data"] == first["data"] == [[999]]
    assert (first["warning"], second["error"]) == (None, None)
    assert second["warning"].startswith("Cached result (age: ")


def test_cache_tells_texts_and_databases_apart(client: Connection) -> None:
    assert ask(client, "SELECT 'a' AS x FROM cpu LIMIT 1")[1]["data"] == [["a"]]
    assert ask(client, "SELECT 'A' AS x FROM cpu LIMIT 1")[1]["data"] == [["A"]]
    elsewhere = ask(client, "SELECT 'a' AS x FROM cpu LIMIT 1", **{"x-arc-database": "elsewhere"})
    assert (elsewhere[0], elsewhere[1]["data"]) == ("MISS", [])


@pytest.mark.parametrize(
    "sql", ["SELECT now()", "SELECT random()", "SELECT * FROM cpu USING SAMPLE 1", "SHOW TABLES", "EXPLAIN SELECT 1"]
)
def test_what_changes_by_itself_is_not_cached(client: Connection, sql: str) -> None:
    assert [ask(client, sql)[0] for _ in range(2)] == ["BYPASS", "BYPASS"]


def test_no_cache_asks_anew(client: Connection) -> None:
    ask(client, "SELECT min(n) FROM cpu")

    assert ask(client, "SELECT min(n) FROM cpu", **{"Cache-Control": "no-cache"})[0] == "BYPASS"


def test_write_ends_the_answers_of_its_measurement_only(client: Connection) -> None:
    client.store({"m": "kept", "columns": rows_of(1)})
    client.store({"m": "changed", "columns": rows_of(1)})
    for name in ("kept", "changed"):
        ask(client, f"SELECT count(*) FROM {name}")

    client.store({"m": "Changed", "columns": rows_of(1)})
    client.flush()

    assert ask(client, "SELECT count(*) FROM kept")[0] == "HIT"
    state, body = ask(client, "SELECT count(*) FROM changed")
    assert (state, body["data"]) == ("MISS", [[2]])


def test_measurement_that_appears_ends_the_empty_answer(client: Connection) -> None:
    assert ask(client, "SELECT count(*) FROM newborn")[1]["data"] == []
    client.store({"m": "newborn", "columns": rows_of(2)})
    assert ask(client, "SELECT count(*) FROM newborn")[1]["data"] == [[2]]


def test_cached_answer_never_outlives_a_write(filled: ArcServer) -> None:
    """Writers count what was acknowledged; whoever asks afterwards must see at least that."""
    written, failures = [0], []
    stop = threading.Event()

    def read() -> None:
        with filled.connect() as connection:
            while not stop.is_set():
                acknowledged = written[0]
                rows = ask(connection, "SELECT count(*) FROM raced")[1]["data"]
                seen = rows[0][0] if rows else 0
                if seen < acknowledged:
                    failures.append((acknowledged, seen))

    readers = [threading.Thread(target=read) for _ in range(3)]
    with filled.connect() as connection:
        connection.store({"m": "raced", "columns": rows_of(1)})
        written[0] = 1
        for reader in readers:
            reader.start()
        for n in range(1, 100):
            connection.store({"m": "raced", "columns": rows_of(1, first=n)})
            written[0] = n + 1
            if n % 25 == 0:
                connection.flush()
        stop.set()
    for reader in readers:
        reader.join()

    assert not failures


def test_cache_reports_and_clears(client: Connection) -> None:
    for _ in range(2):
        ask(client, "SELECT count(*) AS reported FROM cpu")
    stats = client.request("GET", "/cache/stats").json()
    health = client.request("GET", "/cache/health").json()
    cleared = client.request("POST", "/cache/clear").json()

    assert stats["enabled"] is True
    assert stats["metrics"]["hits"] >= 1
    assert stats["entries"][0]["row_count"] == 1
    assert len(stats["entries"][0]["key_hash"]) == 16
    assert health["total_requests"] == stats["metrics"]["total_requests"]
    assert cleared == {"message": f"Cache cleared: {cleared['cleared']} entries removed", "cleared": cleared["cleared"]}
    assert ask(client, "SELECT count(*) AS reported FROM cpu")[0] == "MISS"


# ---------------------------------------------------------------------------------------------- list of queries


def active(client: Connection) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.request("GET", "/api/v1/queries/active").json()["queries"]
    return found


def test_running_query_is_listed_and_cancelled(filled: ArcServer, client: Connection) -> None:
    with filled.connect() as other:
        other.send("POST", "/query", {"sql": SLOW})
        [query] = wait_until(lambda: active(client), "the query runs")

        cancelled = client.request("DELETE", f"/api/v1/queries/{query['id']}")
        answer = other.receive()

    again = client.request("DELETE", f"/api/v1/queries/{query['id']}")
    shown = client.request("GET", f"/api/v1/queries/{query['id']}").json()["query"]
    assert (query["sql"], query["status"], query["token_name"]) == (SLOW, "running", "admin")
    assert (cancelled.status, cancelled.json()["message"]) == (200, "Query cancelled")
    assert answer.status == 409
    assert (again.status, again.json()["detail"]) == (409, "Query already cancelled")
    assert shown["status"] == "cancelled"


def test_history_has_the_latest_first(client: Connection) -> None:
    client.request("POST", "/query", {"sql": "SELECT 1 AS older"})
    client.request("POST", "/query", {"sql": "SELECT nothing_such"})

    history = client.request("GET", "/api/v1/queries/history?limit=2").json()

    assert [(query["sql"], query["status"]) for query in history["queries"]] == [
        ("SELECT nothing_such", "failed"),
        ("SELECT 1 AS older", "completed"),
    ]


def test_unknown_query_is_404(client: Connection) -> None:
    assert client.request("GET", "/api/v1/queries/nothing").status == 404
    assert client.request("DELETE", "/api/v1/queries/nothing").status == 404


def test_token_sees_its_own_queries_only(filled: ArcServer, client: Connection) -> None:
    body = {"name": "reader", "permissions": ["read"]}
    secret = client.request("POST", "/auth/tokens", body).json()["token"]
    query_id = client.request("POST", "/query", {"sql": "SELECT 2"}).headers["X-Arc-Query-ID"]

    with filled.connect(secret) as reader:
        reader.query("SELECT 3")
        history = reader.request("GET", "/api/v1/queries/history").json()["queries"]
        foreign = reader.request("GET", f"/api/v1/queries/{query_id}")

    assert [query["sql"] for query in history] == ["SELECT 3"]
    assert foreign.status == 404


def test_header_can_be_made_to_bind(tmp_path: Path) -> None:
    header = {"x-arc-database": "one"}
    with ArcServer(tmp_path / "data", {"query.strict_header_database": "true"}) as strict, strict.connect() as client:
        other = client.request("POST", "/query", {"sql": "SELECT * FROM two.cpu"}, header)
        same = client.request("POST", "/query", {"sql": "SELECT * FROM one.cpu"}, header)

    assert (other.status, same.status) == (400, 200)
