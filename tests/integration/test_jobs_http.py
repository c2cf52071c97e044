"""Jobs on a started server: the documented examples, the commands, waits that a stop ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import LAUNCHER, TOKEN, ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.server import Answer, Connection

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "docs" / "jobs.md").read_text("utf-8"), re.DOTALL)
README = re.findall(r"submit --wait - <<'EOF'\n(.*?)EOF\n", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
COMMAND_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """Without an engine for containers, so that only processes run; one client may wait at a time."""
    options = {"worker.runtime": "shell", "jobs.wait_slots": "1", "log.level": "WARNING"}
    with ArcServer(tmp_path_factory.mktemp("jobs") / "data", options) as shared:
        yield shared


@pytest.fixture
def run(server: ArcServer, tmp_path: Path) -> Callable[..., Any]:
    """`run("job", ...)`: a command as a process of its own."""

    def command(*args: str, stdin: str = "", status: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, LAUNCHER, *args],
            input=stdin,
            cwd=tmp_path,
            env=os.environ | {"ARC_URL": server.url, "ARC_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    return command


def submit(client: Connection, document: dict[str, Any]) -> str:
    answer = client.request("POST", "/jobs", document)
    assert answer.status == 200, answer.body
    job_id: str = answer.json()["id"]
    return job_id


def ended(client: Connection, job_id: str) -> Any:
    def look() -> Any:
        found = client.request("GET", f"/jobs/{job_id}").json()
        return found if found["state"] in ("COMPLETED", "FAILED", "CANCELLED") else None

    return wait_until(look, f"the end of job {job_id}")


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "a", "tasks": [{"name": "t", "run": script, **more}]}


def test_the_documentation_has_three_examples() -> None:
    assert [example.split("\n", 1)[0] for example in EXAMPLES] == ["name: hello", "name: report", "name: patient"]


@pytest.mark.parametrize(
    ("example", "result", "states"),
    [
        (EXAMPLES[0], "hello, world", ["COMPLETED"]),
        (EXAMPLES[1], "42 in total", ["COMPLETED", "COMPLETED", "SKIPPED"]),
        (EXAMPLES[2], "here I am", ["FAILED", "COMPLETED"]),
        (README[0], "hello, world", ["COMPLETED"]),
    ],
    ids=["hello", "report", "patient", "readme"],
)
def test_the_documented_examples_run_as_printed(
    client: Connection, run: Callable[..., Any], tmp_path: Path, example: str, result: str, states: list[str]
) -> None:
    (tmp_path / "job.yaml").write_text(example)

    done = run("job", "submit", "job.yaml", "--wait")

    assert done.stdout == f"{result}\n"
    found = client.request("GET", f"/jobs/{done.stderr.split()[1]}").json()
    assert [task["state"] for task in found["execution"]] == states


def test_following_prints_the_log_and_ends_as_the_job_does(run: Callable[..., Any]) -> None:
    good = run("job", "submit", "-", "--follow", stdin=json.dumps(shell("echo one; sleep 0.2; echo two")))
    bad = run("job", "submit", "-", "--follow", stdin=json.dumps(shell("echo three; exit 7")), status=1)

    assert good.stdout == "one\ntwo\n"
    assert "COMPLETED after" in good.stderr.splitlines()[-1]
    assert bad.stdout == "three\n"
    assert re.fullmatch(
        r"arc: job \w{32} FAILED: error executing command: exit status 7: three", bad.stderr.splitlines()[-1]
    )


def test_a_document_with_faults_is_refused_by_line(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: a\ntasks:\n  - name: t\n    imgae: x\n    priority: high\n")

    lines = run("job", "submit", "bad.yaml", status=1).stderr.splitlines()

    assert lines[0] == "bad.yaml:4: tasks[0].imgae: unknown field"
    assert lines[1].startswith("bad.yaml:5: tasks[0].priority: ")
    assert lines[-1] == "arc: bad.yaml was not submitted"


def test_the_commands_change_and_show_jobs(client: Connection, run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    script = f"echo started; while [ -e {tmp_path}/go ]; do sleep 0.05; done"
    job_id = submit(client, {**shell(script), "name": "stoppable", "tags": ["commands"]})
    wait_until(lambda: client.request("GET", f"/jobs/{job_id}").json()["state"] == "RUNNING", "its start")

    assert f"{job_id}  RUNNING" in run("job", "list", "--tag", "commands", "--state", "RUNNING").stdout
    run("job", "cancel", job_id)
    assert ended(client, job_id)["state"] == "CANCELLED"
    (tmp_path / "go").unlink()
    run("job", "restart", job_id)
    assert ended(client, job_id)["state"] == "COMPLETED"
    assert run("job", "log", job_id).stdout == "started\nstarted\n"
    assert "stoppable" in run("job", "show", job_id).stdout
    run("job", "delete", job_id)
    assert "no job with id" in run("job", "show", job_id, status=1).stderr
    assert "default" in run("job", "queues").stdout
    assert [node["name"] for node in json.loads(run("job", "nodes", "--json").stdout)] == ["Coordinator", "Worker"]


def test_a_chunked_document_is_measured_too(client: Connection) -> None:
    def pieces(size: int) -> Iterator[bytes]:
        body = b'{"name": "a", "tasks": [{"name": "t", "run": "true"}]}'
        yield body
        yield b" " * (size - len(body))

    def answer(size: int) -> Answer:
        return client.request("POST", "/jobs", pieces(size), {"Content-Type": "application/json"})

    assert answer(500_000).status == 200
    assert answer(500_001).status == 413


def test_a_wait_ends_with_the_job(client: Connection) -> None:
    found = client.request("POST", "/jobs", {**shell("sleep 0.1; exit 3"), "wait": {"timeout": "20s"}})

    assert found.status == 200
    assert (found.json()["state"], found.json()["error"]) == ("FAILED", "error executing command: exit status 3")
    assert "execution" in found.json()


def test_a_client_that_leaves_makes_room_for_the_next_one(server: ArcServer, client: Connection) -> None:
    slow = {**shell("true", queue="nobody-serves-it"), "name": "left", "wait": {"timeout": "1h"}}
    quick = {**shell("true"), "wait": {"timeout": "20s"}}
    with server.connect() as leaving:
        leaving.send("POST", "/jobs", slow)
        wait_until(lambda: client.request("GET", "/jobs?q=left").json()["totalItems"] == 1, "the first job")
        assert client.request("POST", "/jobs", quick).status == 503

    wait_until(lambda: client.request("POST", "/jobs", quick).status == 200, "its place")


def test_a_stop_of_the_server_ends_waits_at_once(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options={"worker.runtime": "shell", "worker.queues": ""})
    server.start()
    answers: list[Answer] = []

    def wait() -> None:
        with server.connect() as connection:
            answers.append(connection.request("POST", "/jobs", {**shell("true"), "wait": {"timeout": "1h"}}))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with server.connect() as connection:
        wait_until(lambda: connection.request("GET", "/jobs").json()["totalItems"] == 1, "the job")
    server.stop()
    waiting.join(COMMAND_S)

    assert answers[0].status == 503
    assert answers[0].json()["message"] == "server shutting down"
