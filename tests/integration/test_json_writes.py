"""JSON and newline-delimited JSON over HTTP."""

from __future__ import annotations

import gzip
import json

import pytest

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
CURL = {"Content-Type": "application/x-www-form-urlencoded"}  # what `curl -d` says unless told otherwise


def post(client, body, headers=None, path="/write/json"):
    return client.request("POST", path, body, headers)


@pytest.mark.parametrize("path", ["/write/json", "/api/v1/write/json"])
@pytest.mark.parametrize("headers", [JSON, CURL], ids=["json", "curl"])
def test_batch_in_every_shape(client, path, headers):
    measurement = "batch_" + str(len(path)) + headers["Content-Type"][12:15].replace("-", "_")
    row = {"m": measurement, "t": "2025-10-19T12:00:00Z", "h": "a", "tags": {"floor": "1"}, "fields": {"celsius": 21.5}}
    columns = {"m": measurement, "columns": {"time": [1760875200], "host": ["b"], "celsius": [17]}}

    for body in (row, [row], {"batch": [row, columns]}):
        assert post(client, json.dumps(body), headers, path).status == 204

    rows = client.query(f"SELECT epoch_us(time), host, floor, celsius FROM {measurement} ORDER BY host")
    assert rows == 3 * [[1760875200000000, "a", "1", 21.5]] + [[1760875200000000, "b", None, 17.0]]


def test_one_object_per_line(client):
    lines = [{"measurement": "nd", "timestamp": 1760875200 + n, "h": "a", "fields": {"v": n}} for n in range(3)]
    body = "\n".join(json.dumps(line) for line in lines) + "\n"

    assert post(client, body, NDJSON).status == 204
    assert post(client, gzip.compress(body.encode()), NDJSON).status == 204

    assert client.query("SELECT v, count(*) FROM nd GROUP BY v ORDER BY v") == [[0, 2], [1, 2], [2, 2]]


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        ("", JSON, "Empty payload"),
        ("{", JSON, "Invalid JSON payload: "),
        ('{"m": "x", "fields": {"v": 1}}\n{', NDJSON, "Invalid JSON payload: line 2: "),
        ('{"m": "../x", "fields": {"v": 1}}', JSON, "invalid measurement name"),
        ('[{"m": "x", "fields": {"v": 1}}, {"m": "x", "fields": {"v": "t"}}]', JSON, 'column "v": cannot mix'),
    ],
)
def test_bad_bodies_are_refused_whole(client, body, headers, error):
    answer = post(client, body, headers)

    assert answer.status == 400
    assert error in answer.json()["error"]
    assert "x" not in client.request("GET", "/measurements").json()["measurements"]


def test_database_by_header_and_argument(client):
    body = json.dumps({"m": "where", "h": "a", "fields": {"v": 1}})

    assert post(client, body, {**JSON, "x-arc-database": "json_header"}).status == 204
    assert post(client, body, JSON, "/write/json?db=json_db").status == 204

    assert client.query('SELECT count(*) FROM json_header."where"') == [[1]]
    assert client.query('SELECT count(*) FROM json_db."where"') == [[1]]


def test_token_without_write_is_refused(server):
    with server.connect() as admin:
        made = admin.request("POST", "/auth/tokens", {"name": "reader", "permissions": ["read"]}).json()
    with server.connect(made["token"]) as reader:
        assert post(reader, "{}").status == 403
        assert reader.request("POST", "/write", "m v=1").status == 403
