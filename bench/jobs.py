"""What jobs cost: `python -m bench.jobs [--case NAME] [--jobs 2000] [--stored 100000]`.

First line: the machine. Then one JSON line per case:
    run      jobs of 3 no-op shell tasks, one worker queue of 4: tasks per second from the first submission to the last
             end, CPU seconds of the server alone and with the shells, whether each task ran once
    wait     one such job at a time, submitted with `wait`: milliseconds until its end is answered
    list     pages and searches among stored jobs: milliseconds per request, p50_ms by what was asked
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from arc import clock, datadir
from arc.db.engine import open_database
from arc.jobs.records import Job
from arc.jobs.sealing import Sealer, load_key
from arc.jobs.states import JobState
from arc.jobs.store import JobStore
from bench.harness import fresh_server, latency_ms, machine, note, percentile, report, usage
from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.server import Connection

CASES = ("run", "wait", "list")
TASKS = 3
OPTIONS = {"worker.runtime": "shell", "log.level": "WARNING"}
DOCUMENT = {"name": "no-op", "tasks": [{"name": f"task {number}", "run": ":"} for number in range(TASKS)]}
WORDS = ("transcode", "report", "backup", "video", "nightly", "import", "export", "sync", "clean", "index")
ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
AT_ONCE = 1_000  # jobs per transaction
SEARCHES = {
    "first_page": "/jobs",
    "page_1000": "/jobs?page=1000&size=20",
    "one_word": "/jobs?q=transcode",
    "two_words": "/jobs?q=nightly+reports",
    "rare_word": "/jobs?q=unicorn",
    "state": "/jobs?q=completed",
    "tag": "/jobs?q=tag:team-7",
    "tag_and_word": "/jobs?q=tag:team-7+failed",
}


def run(count: int) -> dict[str, Any]:
    """Submit all jobs over one connection, then wait for the end of the last one."""
    with fresh_server(options=OPTIONS) as server, server.connect() as connection:
        before, own_before = usage(server.pid), own_cpu_s(server.pid)
        started_s = time.perf_counter()
        for _ in range(count):
            submit(connection, DOCUMENT)
        submitted_s = time.perf_counter() - started_s
        wait_until(lambda: total(connection, "completed") == count, "the end of all jobs", timeout_s=3600, pause_s=0.1)
        took_s = time.perf_counter() - started_s
        after = usage(server.pid)
        return {
            "jobs": count,
            "tasks": count * TASKS,
            "submitted_per_s": round(count / submitted_s),
            "tasks_per_s": round(count * TASKS / took_s, 1),
            "server_cpu_s": round(own_cpu_s(server.pid) - own_before, 2),
            "all_cpu_s": round(after.cpu_s - before.cpu_s, 2),
            "peak_mb": round(after.peak_mb),
            "exact": runs_once(connection),
        }


def wait(runs: int) -> dict[str, Any]:
    document = {**DOCUMENT, "tasks": DOCUMENT["tasks"][:1], "wait": {"timeout": "60s"}}
    with fresh_server(options=OPTIONS) as server, server.connect() as connection:
        seconds = []
        for _ in range(runs):
            started_s = time.perf_counter()
            assert submit(connection, document)["state"] == "COMPLETED"
            seconds.append(time.perf_counter() - started_s)
        return {"runs": runs, **latency_ms(seconds)}


def listing(stored: int, runs: int) -> dict[str, Any]:
    """Requests in turns, so that none profits from the others' cache alone."""
    with tempfile.TemporaryDirectory(prefix="arc-bench-") as folder:
        data_dir = Path(folder) / "data"
        note(f"storing {stored} jobs")
        fill(data_dir, stored)
        with ArcServer(data_dir, OPTIONS) as server, server.connect() as connection:
            found = {name: total_of(connection, path) for name, path in SEARCHES.items()}
            seconds: dict[str, list[float]] = {name: [] for name in SEARCHES}
            for _ in range(runs):
                for name, path in SEARCHES.items():
                    started_s = time.perf_counter()
                    total_of(connection, path)
                    seconds[name].append(time.perf_counter() - started_s)
    return {
        "stored": stored,
        "found": found,
        "p50_ms": {name: round(percentile(values, 50) * 1000, 2) for name, values in seconds.items()},
        "p95_ms": {name: round(percentile(values, 95) * 1000, 2) for name, values in seconds.items()},
    }


def fill(data_dir: Path, count: int) -> None:
    """Ended jobs, straight into the database."""
    db, rng = open_database(datadir.create(data_dir)), random.Random(7)
    store = JobStore(db, Sealer(load_key("", data_dir / "secrets")))
    first_us = clock.now_us() - count * clock.US_PER_S
    for start in range(0, count, AT_ONCE):
        with store.changes(clock.now_us()) as changes:
            for number in range(start, min(start + AT_ONCE, count)):
                changes.add_job(made_job(number, first_us + number * clock.US_PER_S, rng))
    db.close()


def made_job(number: int, at_us: int, rng: random.Random) -> Job:
    words = rng.sample(WORDS, 3)
    return Job(
        seq=0,
        id=f"{number:032x}",
        parent_id=None,
        schedule_id=None,
        name=f"{words[0]} {words[1]} {'unicorn' if number % 5_000 == 0 else number}",
        description=f"{words[2]} of host-{number % 1_000}",
        tags=(f"team-{number % 100}", words[0]),
        state=ENDED[number % 10 % 3],
        created_at=at_us,
        created_by="bench",
        started_at=at_us,
        completed_at=at_us + clock.US_PER_S,
        failed_at=None,
        delete_at=None,
        position=TASKS + 1,
        task_count=TASKS,
        progress=100.0,
        document=DOCUMENT,
        secrets={},
        variables={},
        result=None,
        error=None,
    )


def submit(connection: Connection, document: dict[str, Any]) -> Any:
    answer = connection.request("POST", "/jobs", document)
    assert answer.status == 200, answer.body
    return answer.json()


def total(connection: Connection, words: str) -> int:
    return total_of(connection, f"/jobs?size=1&q={words}")


def total_of(connection: Connection, path: str) -> int:
    answer = connection.request("GET", path)
    assert answer.status == 200, answer.body
    found: int = answer.json()["totalItems"]
    return found


def runs_once(connection: Connection) -> bool:
    """Whether jobs, looked at a page of each hundred, have one record per task."""
    pages = connection.request("GET", "/jobs?size=20").json()["totalPages"]
    for page in range(1, pages + 1, 5):
        for job in connection.request("GET", f"/jobs?size=20&page={page}").json()["items"]:
            attempts = connection.request("GET", f"/jobs/{job['id']}").json()["execution"]
            if [task["position"] for task in attempts] != list(range(1, TASKS + 1)):
                return False
    return True


def own_cpu_s(pid: int) -> float:
    """User and system seconds of the server's process alone."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description="What jobs cost.")
    parser.add_argument("--case", action="append", choices=CASES, help="may be repeated; default: all")
    parser.add_argument("--jobs", type=int, default=2_000, help="jobs to run")
    parser.add_argument("--stored", type=int, default=100_000, help="jobs to list and search")
    parser.add_argument("--runs", type=int, default=100, help="requests of each kind")
    parser.add_argument("--json", help="file to append the JSON lines to, beside printing them")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted: Sequence[str] = options.case or CASES
    report(options.json, bench="jobs", **machine())
    if "run" in wanted:
        report(options.json, case="run", **run(options.jobs))
    if "wait" in wanted:
        report(options.json, case="wait", **wait(options.runs))
    if "list" in wanted:
        report(options.json, case="list", **listing(options.stored, options.runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
