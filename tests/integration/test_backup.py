"""Backup and restore of a started server: under load, over HTTP, by command."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import LAUNCHER, TOKEN, ArcServer, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.server import Connection

WRITERS = 4
COMMAND_S = 120.0  # longest a command may take


def arc(
    *args: str | Path, server: ArcServer | None = None, status: int = 0, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user of the server's host does."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
    if server:
        environ |= {"ARC_TOKEN": TOKEN, "ARC_SERVER_PORT": str(server.port)}
    environ |= more
    command = [sys.executable, LAUNCHER, *map(str, args)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == status, done.stderr
    return done


class Load:
    """Writers that number their requests, flushes, compactions; each request writes to two measurements."""

    def __init__(self, server: ArcServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WRITERS + 1)
        self.sent = 0
        self.acknowledged: set[int] = set()

    def __enter__(self) -> Load:
        self._work = [self._pool.submit(self._write, seed) for seed in range(WRITERS)]
        self._work.append(self._pool.submit(self._flush))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for done in self._work:
            done.result()

    def _write(self, seed: int) -> None:
        rng = random.Random(seed)
        with self._server.connect() as connection:
            while not self._stop.is_set():
                with self._lock:
                    self.sent += 1
                    request = self.sent
                connection.store(payload(request, rng.choice((1, 10, 200))))
                with self._lock:
                    self.acknowledged.add(request)

    def _flush(self) -> None:
        with self._server.connect() as connection:
            while not self._stop.wait(0.05):
                connection.flush()
                connection.request("POST", "/api/v1/compaction/trigger", {})  # 409 while the last one runs


def payload(request: int, rows: int) -> list[dict[str, Any]]:
    now_us = time.time_ns() // 1_000
    columns = {
        "time": [now_us + row for row in range(rows)],
        "request": [request] * rows,
        "row": list(range(rows)),
        "rows": [rows] * rows,
    }
    return [{"m": table, "columns": columns} for table in ("first", "second-half")]


def requests_in(connection: Connection, table: str) -> set[int]:
    """Numbers of the requests a table has; each must be there whole and once."""
    is_whole = 'count(*) = any_value("rows") AND count(DISTINCT row) = count(*)'
    found = connection.query(f'SELECT request, {is_whole} FROM "{table}" GROUP BY request')
    assert all(whole for _, whole in found)
    return {request for request, _ in found}


def backed_up(connection: Connection) -> str:
    """Id of a backup that is finished."""
    started = connection.request("POST", "/api/v1/backup", {})
    assert started.status == 202, started.body
    assert started.json()["status"] == "running"

    def finished() -> dict[str, Any] | None:
        status: dict[str, Any] = connection.request("GET", "/api/v1/backup/status").json()
        return status if status["status"] != "running" else None

    status = wait_until(finished, "end of the backup", timeout_s=60)
    assert status["status"] == "completed", status
    assert status["processed_bytes"] == status["total_bytes"] > 0
    backup_id: str = status["backup_id"]
    return backup_id


def test_a_backup_under_load_holds_what_was_acknowledged_before_it(
    make_server: Callable[..., ArcServer], tmp_path: Path
) -> None:
    server = make_server(options={"compaction.hourly_min_files": "2"}).start()
    taken = []
    with Load(server) as load, server.connect() as connection:
        for number in range(3):
            enough = len(load.acknowledged) + 100
            wait_until(lambda enough=enough: len(load.acknowledged) >= enough, "acknowledged requests")  # type: ignore[misc]
            with load._lock:
                before = set(load.acknowledged)
            backup_id = backed_up(connection)
            taken.append((number, server.data_dir / "backups" / backup_id, before, load.sent))
        assert connection.request("GET", "/api/v1/compaction/stats").json()["total_files_compacted"] > 0
    server.kill9()

    for number, backup, before, sent in taken:
        arc("restore", backup, "--data", tmp_path / f"new{number}")
        assert arc("check", "--deep", "--data", tmp_path / f"new{number}").stdout.endswith("is sound\n")
        with make_server(f"new{number}") as again, again.connect() as connection:
            found = requests_in(connection, "first")
            assert found == requests_in(connection, "second-half")
            assert before <= found <= set(range(1, sent + 1))


def test_restored_server_gives_the_same_answers_to_the_same_tokens(
    make_server: Callable[..., ArcServer], tmp_path: Path
) -> None:
    sql = "SELECT * FROM plant.cpu ORDER BY time"
    with make_server() as server, server.connect() as connection:
        columns = {"time": list(range(1, 4)), "host": ["a", None, "c"], "v": [1.5, None, 3.0], "n": [None] * 3}
        connection.store({"m": "cpu", "columns": columns}, "plant")
        made = connection.request("POST", "/api/v1/auth/tokens", {"name": "reader", "permissions": ["read"]})
        reader = made.json()["token"]
        answers = connection.query(sql)
        backup_id = backed_up(connection)
        tar = connection.request("GET", f"/api/v1/backup/{backup_id}/archive")
    (tmp_path / "b.tar").write_bytes(tar.body)

    arc("restore", tmp_path / "b.tar", "--data", tmp_path / "new")

    with make_server("new", token=None) as again, again.connect(reader) as connection:
        assert connection.query(sql) == answers
        assert connection.request("GET", "/api/v1/backup").status == 403


def test_commands_on_a_running_and_on_a_stopped_server(make_server: Callable[..., ArcServer], tmp_path: Path) -> None:
    server = make_server().start()
    with server.connect() as connection:
        connection.store({"m": "cpu", "columns": {"time": [1], "v": [7]}})
    data = server.data_dir

    arc("backup", tmp_path / "running", "--data", data, server=server)
    arc("backup", tmp_path / "running.tar", "--data", data, server=server)
    arc("backup", tmp_path / "remote.tar", "--url", server.url, server=server)
    no_token = arc("backup", tmp_path / "no.tar", "--data", data, "--set", f"server.port={server.port}", status=1)
    elsewhere = arc("backup", tmp_path / "no.tar", "--data", data, "--set", f"server.port={free_port()}", status=1)
    in_use = arc("check", "--data", data, status=1)
    server.kill9()
    arc("backup", tmp_path / "stopped", "--data", data)
    arc("backup", tmp_path / "stopped.tar", "--data", data, ARC_URL=server.url)

    assert "wants a token" in no_token.stderr
    assert "is in use by process" in in_use.stderr
    assert "name the address of the one that runs with --url" in elsewhere.stderr
    assert not list((data / "backups").glob("*"))
    assert "is there already" in arc("backup", tmp_path / "stopped.tar", "--data", data, status=1).stderr
    for number, name in enumerate(("running", "running.tar", "remote.tar", "stopped", "stopped.tar")):
        new = tmp_path / f"new{number}"
        done = arc("restore", tmp_path / name, "--data", new)
        assert "restored backup-" in done.stderr
        assert arc("check", "--data", new).stdout == f"{new} is sound\n"
        assert "is not empty" in arc("restore", tmp_path / name, "--data", new, status=1).stderr
    for number in (0, 4):
        with make_server(f"new{number}") as again, again.connect() as connection:
            assert connection.query("SELECT v FROM cpu") == [[7]]


@pytest.fixture
def backup_id(client: Connection) -> str:
    client.store({"m": "cpu", "columns": {"time": [1], "v": [7]}}, "plant")
    return backed_up(client)


def test_routes(client: Connection, backup_id: str) -> None:
    listed = client.request("GET", "/api/v1/backup").json()
    [summary] = [found for found in listed["backups"] if found["backup_id"] == backup_id]
    assert summary.keys() == {
        "backup_id", "created_at", "backup_type", "total_files", "total_size_bytes", "database_count",
    }  # fmt: skip
    manifest = client.request("GET", f"/api/v1/backup/{backup_id}").json()
    assert {"name": "plant", "measurements": ["cpu"]}.items() <= manifest["databases"][0].items()
    assert (manifest["has_metadata"], manifest["has_config"], manifest["version"]) == (True, True, 1)
    deleted = client.request("DELETE", f"/api/v1/backup/{backup_id}")
    assert deleted.json() == {"message": "Backup deleted", "backup_id": backup_id}
    assert client.request("GET", f"/api/v1/backup/{backup_id}").status == 404


def test_what_the_routes_refuse(client: Connection, backup_id: str) -> None:
    def restore(**body: Any) -> tuple[int, str]:
        answer = client.request("POST", "/api/v1/backup/restore", body)
        return answer.status, answer.json()["error"]

    assert restore(backup_id=backup_id)[0] == 400
    status, text = restore(backup_id=backup_id, confirm=True)
    assert status == 409
    assert "python arc.py restore /" in text
    assert f"{backup_id} --data NEW_DIRECTORY" in text
    assert restore(backup_id="backup-20250101-000000-00000000", confirm=True)[0] == 404
    assert client.request("GET", "/api/v1/backup/nonsense").status == 400
    assert client.request("DELETE", "/api/v1/backup/backup-20250101-000000-00000000").status == 404
