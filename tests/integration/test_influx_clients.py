"""InfluxDB's own client libraries, unchanged, against Arc: pip's `influxdb` (1.x) and `influxdb-client` (2.x)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import influxdb
import influxdb_client
import pandas as pd
import pytest
from influxdb.exceptions import InfluxDBClientError
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException

from tests.integration.server import TOKEN

NOON = datetime(2025, 10, 19, 12, tzinfo=UTC)
NOON_TEXT = "2025-10-19T12:00:00Z"


@pytest.fixture
def v1(server):
    """A 1.x client: the token is the password of any user."""
    with influxdb.InfluxDBClient("127.0.0.1", server.port, "anyone", TOKEN, database="plant") as connected:
        yield connected


@pytest.fixture
def v2(server):
    with influxdb_client.InfluxDBClient(server.url, token=TOKEN, org="acme") as connected:
        yield connected


def names(listed):
    return [item["name"] for item in listed]


def make_token(client, *permissions):
    body = {"name": "-".join(permissions), "permissions": permissions}
    return client.request("POST", "/auth/tokens", body).json()["token"]


class TestVersion1:
    def test_ping_tells_the_version(self, v1):
        assert v1.ping().startswith("1.8")

    def test_created_database_is_listed_also_after_a_restart(self, make_server):
        with make_server() as server:
            with influxdb.InfluxDBClient("127.0.0.1", server.port, "anyone", TOKEN) as client:
                client.create_database("empty-one")
                client.create_database("empty-one")
                assert names(client.get_list_database()) == ["empty-one"]
            server.restart()
            with influxdb.InfluxDBClient("127.0.0.1", server.port, "anyone", TOKEN) as client:
                assert names(client.get_list_database()) == ["empty-one"]

    def test_points_as_dicts(self, v1, client):
        point = {"measurement": "dicts", "tags": {"host": "a b"}, "time": NOON_TEXT, "fields": {"v": 1.5, "n": 2}}

        assert v1.write_points([point, {**point, "tags": {"host": 'c,d=5"'}}], time_precision="s")

        rows = client.query("SELECT time, host, v, n FROM plant.dicts ORDER BY host")
        assert rows == [[NOON_TEXT, "a b", 1.5, 2], [NOON_TEXT, 'c,d=5"', 1.5, 2]]

    def test_points_as_lines_compressed(self, server, client):
        with influxdb.InfluxDBClient("127.0.0.1", server.port, "u", TOKEN, database="plant", gzip=True) as v1:
            assert v1.write_points([f"lines v={n} {n}" for n in range(100)], protocol="line", time_precision="ms")

        assert client.query("SELECT count(*), epoch_ms(max(time)) FROM plant.lines") == [[100, 99]]

    def test_keys_and_policies(self, v1):
        v1.write_points([{"measurement": "keys", "tags": {"host": "a"}, "fields": {"v": 1.5, "n": 2, "ok": True}}])

        assert "keys" in names(v1.get_list_measurements())
        assert list(v1.query('SHOW TAG KEYS FROM "keys"').get_points()) == [{"tagKey": "host"}]
        assert list(v1.query('SHOW FIELD KEYS FROM "keys"').get_points()) == [
            {"fieldKey": "n", "fieldType": "integer"},
            {"fieldKey": "ok", "fieldType": "boolean"},
            {"fieldKey": "v", "fieldType": "float"},
        ]
        v1.create_retention_policy("weekly", "7d", "1", database="plant")
        assert names(v1.get_list_retention_policies("plant")) == ["autogen"]

    def test_what_arc_does_not_do_is_an_error_of_the_client(self, v1):
        with pytest.raises(InfluxDBClientError, match="InfluxQL SELECT is not supported; use SQL"):
            v1.query("SELECT * FROM cpu")
        with pytest.raises(InfluxDBClientError, match="unable to parse 'nonsense'"):
            v1.write_points(["nonsense"], protocol="line")

    def test_agent_that_may_only_write_can_create_its_database(self, server, client):
        secret = make_token(client, "write")
        with influxdb.InfluxDBClient("127.0.0.1", server.port, "agent", secret) as agent:
            agent.create_database("agents")
            with pytest.raises(InfluxDBClientError, match="read permission required"):
                agent.get_list_database()

    def test_reader_cannot_create_a_database(self, server, client):
        secret = make_token(client, "read")
        with influxdb.InfluxDBClient("127.0.0.1", server.port, "reader", secret) as reader:
            with pytest.raises(InfluxDBClientError, match="write permission required"):
                reader.create_database("forbidden")
            assert "forbidden" not in names(reader.get_list_database())

    def test_form_and_sql_share_a_path(self, client):
        form = {"Content-Type": "application/x-www-form-urlencoded"}

        asked = client.request("POST", "/query", "q=CREATE+DATABASE+%22by-form%22", form)
        assert asked.json() == {"results": [{"statement_id": 0}]}
        assert client.request("POST", "/api/v1/query?q=SHOW+DATABASES", b"").status == 200
        # curl -d calls JSON a form
        assert client.request("POST", "/query", '{"sql": "SELECT 1"}', form).json()["data"] == [[1]]

    def test_query_without_a_token_is_refused(self, server):
        with server.connect(token="wrong") as stranger:
            assert stranger.request("GET", "/query?q=SHOW+DATABASES").status == 401
            assert stranger.request("POST", "/query?q=CREATE+DATABASE+x").status == 401


class TestVersion2:
    def test_health_ping_and_version(self, v2):
        with pytest.deprecated_call():
            health = v2.health()

        assert (health.name, health.status) == ("arc", "pass")
        assert v2.ping() is True
        assert v2.version().startswith("1.8")
        assert v2.ready().status == "ready"

    def test_buckets_are_databases(self, v2):
        buckets = v2.buckets_api()

        made = [buckets.create_bucket(bucket_name=name) for name in ("bucket-a", "bucket-b", "bucket-c")]

        assert buckets.find_bucket_by_name("bucket-b").id == made[1].id
        assert buckets.find_bucket_by_name("bucket-x") is None
        listed = [bucket.name for bucket in buckets.find_buckets_iter(limit=2)]
        assert [name for name in listed if name.startswith("bucket-")] == ["bucket-a", "bucket-b", "bucket-c"]
        with pytest.raises(ApiException, match="already exists"):
            buckets.create_bucket(bucket_name="bucket-a")

    def test_synchronous_writes(self, v2, client):
        writer = v2.write_api(write_options=SYNCHRONOUS)

        writer.write("factory", record=influxdb_client.Point("sync").tag("host", "a").field("v", 1.5).time(NOON))
        writer.write("factory", record="sync,host=b v=2 1760875200", write_precision="s")
        writer.write("factory", record={"measurement": "sync", "tags": {"host": "c"}, "fields": {"v": 3}, "time": NOON})

        rows = client.query("SELECT time, host, v FROM factory.sync ORDER BY host")
        assert rows == [[NOON_TEXT, "a", 1.5], [NOON_TEXT, "b", 2.0], [NOON_TEXT, "c", 3.0]]

    def test_batching_writes(self, v2, client):
        errors = []
        options = WriteOptions(batch_size=100, flush_interval=10_000)
        with v2.write_api(options, error_callback=lambda *failed: errors.append(failed)) as writer:
            for number in range(250):
                point = influxdb_client.Point("batched").tag("unit", str(number % 3)).field("v", number)
                writer.write("factory", record=point.time(number))

        assert errors == []
        assert client.query("SELECT count(*), sum(v) FROM factory.batched") == [[250, sum(range(250))]]

    def test_dataclass_points(self, v2, client):
        @dataclass
        class Reading:
            room: str
            celsius: float
            at: datetime

        v2.write_api(write_options=SYNCHRONOUS).write(
            "factory",
            record=[Reading("kitchen", 21.5, NOON), Reading("attic", 17.0, NOON)],
            record_measurement_name="readings",
            record_tag_keys=["room"],
            record_field_keys=["celsius"],
            record_time_key="at",
        )

        rows = client.query("SELECT time, room, celsius FROM factory.readings ORDER BY room")
        assert rows == [[NOON_TEXT, "attic", 17.0], [NOON_TEXT, "kitchen", 21.5]]

    def test_data_frames(self, v2, client):
        index = pd.date_range(NOON, periods=3, freq="1min")
        frame = pd.DataFrame({"room": ["a", "b", "a"], "celsius": [1.0, None, 3.0], "n": [1, 2, 3]}, index=index)

        v2.write_api(write_options=SYNCHRONOUS).write(
            "factory", record=frame, data_frame_measurement_name="frame", data_frame_tag_columns=["room"]
        )

        rows = client.query("SELECT room, celsius, n FROM factory.frame ORDER BY time")
        assert rows == [["a", 1.0, 1], ["b", None, 2], ["a", 3.0, 3]]

    def test_errors_reach_the_program(self, v2, server):
        with pytest.raises(ApiException, match="unable to parse 'nonsense'") as caught:
            v2.write_api(write_options=SYNCHRONOUS).write("factory", record="nonsense")
        assert caught.value.status == 400
        with influxdb_client.InfluxDBClient(server.url, token="wrong", org="acme") as stranger:
            with pytest.raises(ApiException) as caught:
                stranger.write_api(write_options=SYNCHRONOUS).write("factory", record="m v=1")
            assert caught.value.status == 401

    def test_flux_and_delete_are_not_there(self, v2):
        with pytest.raises(ApiException, match="Flux is not supported") as caught:
            v2.query_api().query('from(bucket: "factory")')
        assert caught.value.status == 501
        with pytest.raises(ApiException) as caught:
            v2.delete_api().delete(NOON, NOON, "", "factory")
        assert caught.value.status == 501
