"""The Databases API: list, create, look into, drop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import NO_FLUSH, ArcServer, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = "/api/v1/databases"
T0_MS = 1_760_875_200_000  # 2025-10-19T12:00:00Z


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    options = {"delete.enabled": "true", **NO_FLUSH}
    with ArcServer(tmp_path_factory.mktemp("databases") / "data", options) as shared:
        yield shared


def point(value: Any, time_ms: int = T0_MS) -> dict[str, Any]:
    return {"m": "cpu", "columns": {"time": [time_ms], "x": [value]}}


def names(client: Connection) -> list[str]:
    return [found["name"] for found in client.request("GET", PATH).json()["databases"]]


def test_created_database_is_listed_and_empty(client: Connection) -> None:
    created = client.request("POST", PATH, {"name": "made"})

    assert created.status == 201
    assert (created.json()["name"], created.json()["measurement_count"]) == ("made", 0)
    assert client.request("GET", f"{PATH}/made").json()["measurement_count"] == 0
    assert client.request("GET", f"{PATH}/made/measurements").json() == {
        "database": "made", "measurements": [], "count": 0,
    }  # fmt: skip
    assert {"default", "made"} <= set(names(client))


@pytest.mark.parametrize(
    ("name", "status"), [("twice", 409), ("Twice", 409), ("system", 400), ("1a", 400), ("a/b", 400), ("", 400)]
)
def test_database_that_cannot_be_created(client: Connection, name: str, status: int) -> None:
    client.request("POST", PATH, {"name": "twice"})

    assert client.request("POST", PATH, {"name": name}).status == status


def test_unknown_database_is_404(client: Connection) -> None:
    for method, path in (("GET", ""), ("GET", "/measurements"), ("DELETE", "?confirm=true")):
        answer = client.request(method, f"{PATH}/nowhere{path}")
        assert (answer.status, answer.json()["error"]) == (404, "Database 'nowhere' not found")


def test_measurements_of_a_database(client: Connection) -> None:
    client.store([point(1), point(2, T0_MS + 1000)], "shown")
    client.flush()
    client.store(point(3, T0_MS + 2500), "shown")

    answer = client.request("GET", f"{PATH}/Shown/measurements").json()

    [found] = answer["measurements"]
    assert found.pop("size_bytes") > 0
    assert (answer["database"], found) == (
        "shown",
        {
            "name": "cpu",
            "file_count": 1,
            "row_count": 3,
            "buffered_rows": 1,
            "columns": [{"name": "time", "type": "TIMESTAMP WITH TIME ZONE"}, {"name": "x", "type": "BIGINT"}],
            "first_time": "2025-10-19T12:00:00Z",
            "last_time": "2025-10-19T12:00:02.5Z",
        },
    )


def test_drop_needs_confirmation(client: Connection) -> None:
    client.store(point(1), "guarded")

    answer = client.request("DELETE", f"{PATH}/guarded")

    assert answer.status == 400
    assert answer.json()["error"] == "Confirmation required. Add ?confirm=true to delete the database."
    assert client.query("SELECT count(*) FROM guarded.cpu") == [[1]]


def test_dropped_database_is_gone_and_begins_anew(client: Connection) -> None:
    client.store(point(1), "dropped")
    client.flush()
    client.store(point(2), "dropped")
    assert client.query("SELECT count(*) FROM dropped.cpu") == [[2]]  # an answer that is cached now

    answer = client.request("DELETE", f"{PATH}/dropped?confirm=true")

    assert answer.json() == {"message": "Database 'dropped' deleted successfully", "files_deleted": 2}
    assert "dropped" not in names(client)
    assert client.query("SELECT count(*) FROM dropped.cpu") == []
    client.store(point("now a text"), "dropped")
    assert client.query("SELECT x FROM dropped.cpu") == [["now a text"]]


def test_dropping_is_off_unless_deletes_are_on(make_server: Callable[..., ArcServer]) -> None:
    with make_server() as server, server.connect() as client:
        client.store(point(1), "safe")
        answer = client.request("DELETE", f"{PATH}/safe?confirm=true")

    assert answer.status == 403


def test_database_stays_dropped_after_a_crash(make_server: Callable[..., ArcServer]) -> None:
    with make_server(options={"delete.enabled": "true", **NO_FLUSH}) as server:
        with server.connect() as client:
            client.store(point(1), "gone")
            client.request("POST", PATH, {"name": "empty"})
            client.request("DELETE", f"{PATH}/gone?confirm=true")
            client.store(point("text"), "gone")
        server.kill9()
        server.start()
        with server.connect() as client:
            assert client.query("SELECT x FROM gone.cpu") == [["text"]]
            assert names(client) == ["default", "empty", "gone"]


def test_delete_ends_cached_answers(client: Connection) -> None:
    client.store([point(1), point(2)], "reduced")
    assert client.query("SELECT count(*) FROM reduced.cpu") == [[2]]

    body = {"database": "reduced", "measurement": "cpu", "where": "x = 1", "confirm": True}
    assert client.request("POST", "/api/v1/delete", body).status == 200

    assert client.query("SELECT count(*) FROM reduced.cpu") == [[1]]


def test_writes_and_flushes_go_on_while_databases_are_dropped(client: Connection, server: ArcServer) -> None:
    stop, refused = threading.Event(), []

    def write(value: Any) -> None:
        with server.connect() as connection:
            while not stop.is_set():
                answer = connection.write(point(value), "contested")
                if answer.status not in (204, 400):  # 400: the other writer's type holds just now
                    refused.append((answer.status, answer.body))

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, "text")]
    for writer in writers:
        writer.start()
    for _ in range(8):
        client.request("DELETE", f"{PATH}/contested?confirm=true")
        client.flush()
    stop.set()
    for writer in writers:
        writer.join()

    client.flush()
    assert not refused
    client.request("DELETE", f"{PATH}/contested?confirm=true")
    assert client.query("SELECT count(*) FROM contested.cpu") == []
