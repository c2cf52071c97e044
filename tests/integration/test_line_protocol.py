"""Line protocol over HTTP: every spelling of the route, precision, bad lines, types, and what is reported."""

from __future__ import annotations

import gzip

import pytest
import zstandard

ROUTES = ["/write", "/api/v1/write", "/api/v2/write", "/api/v1/write/line-protocol", "/api/v1/write/influxdb"]
TIME = "SELECT epoch_us(time) FROM {}"


def post(client, body, path="/write", **headers):
    return client.request("POST", path, body, headers)


def store(client, body, path="/write", **headers):
    answer = post(client, body, path, **headers)
    assert (answer.status, answer.body) == (204, b""), answer.body


def stats(client):
    return client.request("GET", "/write/stats").json()["stats"]


@pytest.mark.parametrize("path", [*ROUTES, "/write/"])
def test_every_route_takes_lines(client, path):
    measurement = "route_" + path.strip("/").replace("/", "_").replace("-", "_") + str(len(path))

    store(client, f'{measurement},host=a v=1.5,n=2i,u=3u,ok=T,s="x y" 1760875200000000000\r\n# note\n\n', path)

    rows = client.query(f"SELECT epoch_us(time), host, v, n, u, ok, s FROM {measurement}")
    assert rows == [[1760875200000000, "a", 1.5, 2, 3, True, "x y"]]


def test_names_and_texts_are_unescaped(client):
    store(client, rb'esc,tag\ a=x\,y\=z field\=b="q \" and \\, d=e" 1')

    assert client.query("SELECT * EXCLUDE (time) FROM esc") == [["x,y=z", 'q " and \\, d=e']]
    assert client.request("POST", "/query", {"sql": "SELECT * FROM esc"}).json()["columns"] == [
        "time",
        "tag a",
        "field=b",
    ]


@pytest.mark.parametrize(
    ("precision", "number"),
    [
        ("ns", 3_600_000_000_000), ("n", 3_600_000_000_000), ("us", 3_600_000_000), ("u", 3_600_000_000),
        ("%C2%B5", 3_600_000_000), ("ms", 3_600_000), ("s", 3600), ("m", 60), ("h", 1),
        ("nanosecond", 3_600_000_000_000), ("microsecond", 3_600_000_000), ("millisecond", 3_600_000), ("second", 3600),
    ],
)  # fmt: skip
def test_precision(client, precision, number):
    measurement = "p_" + precision.replace("%", "")

    store(client, f"{measurement} v=1 {number}", f"/write?precision={precision}")

    assert client.query(TIME.format(measurement)) == [[3_600_000_000]]


def test_unknown_precision_is_refused(client):
    answer = post(client, "m v=1 1", "/write?precision=d")

    assert answer.status == 400
    assert answer.json()["error"].startswith('invalid precision "d": must be one of ns, n, nanosecond, us,')


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_bodies_with_and_without_a_header(client, compress):
    measurement = f"packed_{compress.__module__}"

    store(client, compress(f"{measurement} v=1 1".encode()))
    store(client, compress(f"{measurement} v=2 2".encode()), **{"Content-Encoding": compress.__module__[:4]})

    assert client.query(f"SELECT count(*) FROM {measurement}") == [[2]]


def test_bad_lines_are_left_out_and_counted(client):
    before = stats(client)["lines_rejected"]

    store(client, "partly v=1 1\npartly\npartly v= 2\npartly v=4 4")

    assert client.query("SELECT v FROM partly ORDER BY time") == [[1.0], [4.0]]
    assert stats(client)["lines_rejected"] == before + 2
    assert client.request("GET", "/api/v1/metrics").json()["ingest_lines_rejected_total"] == before + 2


def test_strict_reports_bad_lines_after_storing_the_good_ones(client):
    answer = post(client, "strict v=1 1\nstrict", "/write?strict=1")

    assert answer.status == 400
    error = answer.json()
    assert error["error"].startswith("partial write: unable to parse 'strict': ")
    assert error["error"].endswith(" dropped=1")
    assert [line["line_number"] for line in error["errors"]] == [2]
    assert client.query("SELECT v FROM strict") == [[1.0]]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "Empty request body"),
        (b"# nothing\n\n", "No valid records in request"),
        (b"bad", "No valid records in request: unable to parse 'bad': "),
        (b"../x v=1", "invalid measurement name"),
    ],
)
def test_body_without_a_good_line_is_refused(client, body, error):
    for path in ("/write", "/api/v2/write?bucket=default"):
        answer = post(client, body, path)

        assert answer.status == 400
        assert answer.json()["error"].startswith(error)
        assert answer.json()["message"] == answer.json()["error"]
        assert answer.json()["code"] == "invalid"


def test_line_that_clashes_with_the_stored_type_is_left_out(client):
    store(client, "typed v=1 1")
    store(client, 'typed v="text" 2\ntyped v=3i 3')

    assert client.query("SELECT v FROM typed ORDER BY time") == [[1.0], [3.0]]


def test_field_named_like_a_tag_becomes_a_value(client):
    store(client, "clash,host=a host=2 1")

    assert client.query("SELECT host, host_value FROM clash") == [["a", 2.0]]


def test_lines_of_one_time_that_differ_in_a_tag_are_two_rows(client):
    store(client, "twins,unusual=a v=1 1\ntwins,unusual=b v=1 1")

    assert client.query("SELECT unusual FROM twins ORDER BY ALL") == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("path", "headers", "database"),
    [
        ("/write?db=by_db", {}, "by_db"),
        ("/api/v2/write?bucket=by_bucket&org=any", {}, "by_bucket"),
        ("/api/v2/write?bucket=by_policy/autogen", {}, "by_policy"),
        ("/api/v2/write", {}, "default"),
        ("/write?db=loser", {"x-arc-database": "by_header"}, "by_header"),
    ],
)
def test_database_is_chosen_by_header_db_or_bucket(client, path, headers, database):
    store(client, "chosen v=1 1", path, **headers)

    assert client.query(f'SELECT count(*) FROM "{database}".chosen') == [[1]]


def test_all_lines_survive_kill_9(make_server):
    with make_server() as server:
        with server.connect() as connection:
            store(connection, "kept v=1 1")
            store(connection, 'kept v="bad" 2\nnonsense\nkept v=3i 3\nkept,new=t v=4')
            store(connection, '[{"m": "kept", "h": "a", "fields": {"v": 5}}]', "/write/json")
            before = connection.query("SELECT * FROM kept ORDER BY ALL")
        server.kill9()
        server.start()
        with server.connect() as connection:
            assert connection.query("SELECT * FROM kept ORDER BY ALL") == before
            assert len(before) == 4
