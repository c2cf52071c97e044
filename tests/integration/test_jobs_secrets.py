"""A secret leaves the server nowhere: not in an answer, a log, the search index, an event, nor a file it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = 'Zq7"hush/hush+Zq7'
FORMS = [form.encode() for form in (SECRET, SECRET.replace('"', '\\"'), quote(SECRET, safe=""), "Zq7", "hush")]
DOCUMENT = {
    "name": f"uses {SECRET}",
    "description": f"what {SECRET} does",
    "tags": [SECRET],
    "inputs": {"copy": f"in {SECRET}"},
    "secrets": {"token": SECRET},
    "output": "{{ tasks.found }}",
    "tasks": [
        {
            "name": "print {{ secrets.token }}",
            "var": "found",
            "env": {"TOKEN": "{{ secrets.token }}"},
            "files": {"note": f"holds {SECRET}"},
            "run": """
                echo "token $TOKEN"
                printf %s "${TOKEN:0:8}"
                sleep 1.2  # longer than a part of a log
                echo "${TOKEN:8}"
                echo "$TOKEN" > $ARC_OUTPUT
                """,
        },
        {"name": "fail", "env": {"TOKEN": "{{ secrets.token }}"}, "run": 'echo "$TOKEN is wrong"; exit 3'},
    ],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ArcServer]:
    with ArcServer(tmp_path / "data", {"worker.runtime": "shell", "log.level": "DEBUG"}) as made:
        yield made


def leaks(data: bytes) -> list[bytes]:
    return [form for form in FORMS if form in data]


def files(server: ArcServer) -> Iterator[Path]:
    yield from (path for path in server.data_dir.rglob("*") if path.is_file())
    yield from server.data_dir.parent.glob("*.std*")  # its own log


def leaking_files(server: ArcServer) -> list[Path]:
    return [path for path in files(server) if leaks(path.read_bytes())]


def test_a_secret_gets_out_nowhere(server: ArcServer) -> None:
    with server.connect() as connection:
        job_id = connection.request("POST", "/jobs", DOCUMENT).json()["id"]

        def ended() -> Any:
            job = connection.request("GET", f"/jobs/{job_id}").json()
            return job if job["state"] == "FAILED" else None

        job = wait_until(ended, "the end of the job")
        assert job["error"] == "error executing command: exit status 3: [REDACTED] is wrong\n"
        assert job["execution"][0]["result"] == "[REDACTED]\n"
        logs = connection.request("GET", f"/jobs/{job_id}/log").json()["items"]
        assert "".join(part["contents"] for part in logs[:0:-1]) == "token [REDACTED]\n[REDACTED]\n"

        paths = ["/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}/log", f"/jobs/{job_id}/events", "/api/v1/logs", "/nodes"]
        for task in job["execution"]:
            paths += [f"/tasks/{task['id']}", f"/tasks/{task['id']}/log"]
        for path in paths:
            answer = connection.request("GET", path)
            assert answer.status == 200, path
            assert not leaks(answer.body), path
        for word in ("Zq7", "hush"):
            assert connection.request("GET", f"/jobs?q={word}").json()["totalItems"] == 0
            assert connection.request("GET", f"/jobs/{job_id}/log?q={word}").json()["items"] == []
    assert any(path.name == "arc.db-wal" for path in files(server))
    assert leaking_files(server) == []
    server.stop()
    assert leaking_files(server) == []
    server.start()
