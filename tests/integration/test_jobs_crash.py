"""Jobs survive `kill -9` of the server: each ends as its definition says, and what reported its end ran once.

ARC_JOBS_KILLS: how often the server is killed (default 3, with 40 jobs; `make crash` sets 30, with 200).
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = int(os.environ.get("ARC_JOBS_KILLS", "3"))
JOBS = 200 if KILLS >= 30 else 40
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Mix:
    """Jobs of five kinds whose tasks note in a file that they ran."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.expected: dict[str, tuple[str, str | None, list[str]]] = {}  # id: state, result, states of tasks

    def document(self, number: int) -> tuple[dict[str, Any], tuple[str, str | None, list[str]]]:
        kind = number % 5
        done, broken = "COMPLETED", "FAILED"
        if kind == 0:
            tasks = [self.task("a", "echo -n 1 > $ARC_OUTPUT"), self.task("b"), self.task("c")]
            return {"tasks": tasks, "output": "got {{ tasks.a }}"}, (done, "got 1", [done, done, done])
        if kind == 1:
            tasks = [self.task("a"), self.task("b", "echo no; exit 3"), self.task("c")]
            return {"tasks": tasks}, (broken, None, [done, broken])
        if kind == 2:  # what it leaves running must not outlive it
            tasks = [self.task("a", "sleep 300 & sleep 0.1"), self.task("b", **{"if": "{{ 1 == 2 }}"}), self.task("c")]
            return {"tasks": tasks}, (done, None, [done, "SKIPPED", done])
        if kind == 3:
            tasks = [self.task("a", "exit 1", retry={"limit": 2, "initialDelay": "20ms"}), self.task("b")]
            return {"tasks": tasks}, (broken, None, [broken, broken, broken])
        tasks = [self.task("a", "sleep 0.2"), self.task("b", "sleep 0.1")]
        return {"tasks": tasks, "secrets": {"key": "hidden"}}, (done, None, [done, done])

    def task(self, name: str, run: str = "true", **fields: Any) -> dict[str, Any]:
        return {"name": name, "var": name, "run": f'echo "$ARC_TASK_ID" >> {self.notes}\n{run}', **fields}

    def ran(self) -> Counter[str]:
        """Task id to the number of times it was started."""
        return Counter(self.notes.read_text().split()) if self.notes.exists() else Counter()

    def submit(self, server: ArcServer, count: int) -> None:
        """Until the server is gone. Only what was acknowledged counts."""
        try:
            with server.connect() as connection:
                for _ in range(count):
                    number = len(self.expected)
                    document, expected = self.document(number)
                    answer = connection.request("POST", "/jobs", {"name": f"job {number}", **document})
                    assert answer.status == 200, answer.body
                    self.expected[answer.json()["id"]] = expected
        except (OSError, HTTPException):
            return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ArcServer]:
    made = ArcServer(tmp_path / "data", {"worker.runtime": "shell"})
    try:
        yield made
    finally:
        if made.is_running:
            made.kill9()


def details(server: ArcServer, job_id: str) -> dict[str, Any]:
    with server.connect() as connection:
        answer = connection.request("GET", f"/jobs/{job_id}")
    assert answer.status == 200, (job_id, answer.body)
    found: dict[str, Any] = answer.json()
    return found


def running_count(server: ArcServer) -> int:
    with server.connect() as connection:
        pages = [connection.request("GET", f"/jobs?q={state}&size=1") for state in ("pending", "scheduled", "running")]
    return sum(page.json()["totalItems"] for page in pages)


def is_moment(server: ArcServer, mix: Mix, submitter: threading.Thread, target: int) -> bool:
    """Whether so many tasks have been started, or nothing is left to wait for."""
    return mix.ran().total() >= target or not (submitter.is_alive() or running_count(server))


def task_processes(server: ArcServer) -> list[psutil.Process]:
    """Known by their environment, which what they start inherits."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WORKDIR", "").startswith(str(server.data_dir)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_jobs_survive_kills(server: ArcServer, tmp_path: Path) -> None:
    chance, mix = random.Random(4), Mix(tmp_path / "notes")
    for kill in range(KILLS):
        server.start()
        left = JOBS - len(mix.expected)
        submitter = threading.Thread(target=mix.submit, args=(server, left // (KILLS - kill)))
        submitter.start()
        target = mix.ran().total() + chance.randrange(0, 40)
        wait_until(partial(is_moment, server, mix, submitter, target), "tasks that run")
        server.kill9()
        submitter.join()
    server.start()
    mix.submit(server, JOBS - len(mix.expected))

    wait_until(lambda: not running_count(server), "the end of all jobs", 120)

    redelivered = 0
    ran = mix.ran()
    for job_id, (state, result, states) in mix.expected.items():
        job = details(server, job_id)
        execution = job["execution"]
        assert (job["state"], job.get("result")) == (state, result), job
        assert [task["state"] for task in execution] == states, job
        redelivered += sum(task.get("redelivered", 0) for task in execution)
        for task in execution:
            deliveries = task.get("redelivered", 0) + 1
            least = 0 if task["state"] == "SKIPPED" else 1
            assert least <= ran[task["id"]] <= deliveries, task
    assert redelivered, "no kill hit a task that ran"
    server.stop()
    wait_until(lambda: not task_processes(server), "the end of all processes of tasks", 10)
    assert not list((tmp_path / "data" / "work").iterdir())
