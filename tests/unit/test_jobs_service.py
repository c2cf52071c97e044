"""Jobs as a part of the server: built from the configuration, with the real shell runtime."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from arc import config
from arc.db.engine import open_database
from arc.errors import ConfigError
from arc.jobs.documents.parsing import parse
from arc.jobs.service import Jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.jobs.records import Job

DEADLINE_S = 30.0


@contextmanager
def served(data_dir: Path, *, is_started: bool = True, **options: str) -> Iterator[Jobs]:
    """options: `section__name`, as texts."""
    named = {"worker.runtime": "shell"} | {name.replace("__", "."): value for name, value in options.items()}
    db = open_database(data_dir)
    try:
        jobs = Jobs(db, config.load(None, {}, named), data_dir)
        try:
            if is_started:
                jobs.start()
            yield jobs
        finally:
            jobs.stop()
    finally:
        db.close()


def run(jobs: Jobs, text: str) -> Job:
    """The job when it has ended."""
    document = parse(text.encode(), "text/yaml")
    job = jobs.coordinator.submit(document, created_by="tester", may_run_processes=True)
    return jobs.coordinator.wait(job.id, DEADLINE_S, lambda: False)


def test_a_job_runs_as_processes_of_this_host(tmp_path: Path) -> None:
    with served(tmp_path) as jobs:
        job = run(
            jobs,
            """
            name: hello
            inputs: {who: World}
            output: "{{ tasks.greeting }}!"
            tasks:
              - {name: greet, var: greeting, env: {WHO: "{{ inputs.who }}"}, run: echo -n "Hello $WHO" > $TORK_OUTPUT}
              - {name: shout, run: "echo loud; exit 0"}
            """,
        )

        assert (job.state, job.result, job.error) == ("COMPLETED", "Hello World!", None)
        assert [part.contents for part in jobs.reader.job_log(job.id, 1, 10).items] == ["loud\n"]
    assert list((tmp_path / "work").iterdir()) == []


def test_errors_and_timeouts_of_processes_reach_the_job(tmp_path: Path) -> None:
    with served(tmp_path, worker__default_timeout="200ms") as jobs:
        failed = run(jobs, "{name: f, tasks: [{name: a, run: echo oh; exit 7}]}")
        slow = run(jobs, "{name: s, tasks: [{name: a, run: sleep 60}]}")
        own = run(jobs, "{name: o, tasks: [{name: a, timeout: 20s, run: sleep 0.3}]}")

    assert failed.error == "error executing command: exit status 7: oh\n"
    assert slow.error == "context deadline exceeded"
    assert own.state == "COMPLETED"


def test_nodes_keep_their_ids(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with served(tmp_path, worker__name="edge", worker__queues="default=2,slow=1") as jobs:
            run(jobs, "{name: a, tasks: [{name: a, run: 'true'}]}")  # by then both have been heard of
            jobs.pool.beat()
            seen.append({node.name: (node.id, node.queues) for node in jobs.reader.nodes() if node.kind == "worker"})

    assert seen[0] == seen[1]
    assert seen[0]["edge"][1] == {"default": 2, "slow": 1}


def test_redaction_follows_the_options(tmp_path: Path) -> None:
    text = "{name: a, secrets: {t: geheim}, tasks: [{name: a, env: {T: '{{ secrets.t }}'}, run: echo $T}]}"
    with served(tmp_path, jobs__redact="false") as jobs:
        job = run(jobs, text)
        assert jobs.reader.job_log(job.id, 1, 1).items[0].contents == "geheim\n"
        assert jobs.redactor(job).text("geheim") == "geheim"
    with served(tmp_path, jobs__redact_patterns="pin*") as jobs:
        job = run(jobs, text)
        assert jobs.reader.job_log(job.id, 1, 1).items[0].contents == "[REDACTED]\n"
        assert jobs.redactor(job).mapping({"pin1": "x", "password": "y"}) == {"pin1": "[REDACTED]", "password": "y"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("worker__queues", "jobs=1", "free for tasks"),
        ("worker__queues", "x-1=1", "free for tasks"),
        ("worker__queues", "a=0", "NAME=NUMBER"),
        ("worker__queues", "a=b", "NAME=NUMBER"),
        ("worker__default_timeout", "10", "default_timeout"),
    ],
)
def test_options_that_cannot_be_used_stop_the_start(tmp_path: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), served(tmp_path, is_started=False, **{option: value}):
        pass


def test_a_queue_without_a_number_runs_one_task_at_a_time(tmp_path: Path) -> None:
    with served(tmp_path, is_started=False, worker__queues="video") as jobs:
        assert jobs.pool.options.queues == {"video": 1}
