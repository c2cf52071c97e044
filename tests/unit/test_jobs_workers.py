"""Worker pool: claims, runs, reports; runtimes that go down and come up, stops, log parts. The runtime is a fake."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from arc.errors import Unavailable
from arc.jobs.logship import CUT
from arc.jobs.redaction import Redactor
from arc.jobs.work import WorkDefaults, work_of
from arc.jobs.workers import WorkerOptions, WorkerPool
from arc.runtimes.base import RuntimeUnavailable, TaskFailed
from tests.unit.jobsrig import NODE, JobsRig, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from arc.jobs.records import Job
    from arc.runtimes.base import Reporter, Stop, Work

DEADLINE_S = 20.0


class FakeRuntime:
    """Tasks do what their `run` says, such as `print`, `fail` or `sleep` until they are stopped; others succeed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault = ""
        self.works: list[Work] = []
        self.reaped: list[list[str]] = []
        self.go = threading.Event()
        self.is_closed = False

    def run(self, work: Work, reporter: Reporter, stop: Stop) -> str:
        if self.fault:
            raise RuntimeUnavailable(self.fault)
        self.works.append(work)
        what, _, text = work.main.run.partition(" ")
        if what == "print":
            for piece in text.split("|"):
                reporter.log(piece.encode())
        if what == "flood":
            for _ in range(int(text)):
                reporter.log(b"x" * 1000)
            text = ""
        if what == "bytes":
            reporter.log(bytes.fromhex(text))
        if what == "sleep" and stop.wait(DEADLINE_S):
            raise TaskFailed(stop.reason)
        if what == "wait":
            self.go.wait(DEADLINE_S)
        if what == "fail":
            raise TaskFailed(text)
        if what == "raise":
            raise RuntimeError(text)
        reporter.progress(25.0)
        return text

    def check_health(self) -> None:
        if self.fault:
            raise RuntimeUnavailable(self.fault)

    def reap(self, keep: Collection[str] = ()) -> int:
        self.reaped.append(list(keep))
        return 1

    def close(self) -> None:
        self.is_closed = True


class Host:
    """A worker pool on a rig."""

    def __init__(self, rig: JobsRig, **options: Any) -> None:
        self.rig = rig
        self.shell, self.docker = FakeRuntime("shell"), FakeRuntime("docker")
        options = {"node_id": NODE, "queues": {"default": 2}} | options
        runtimes = {"process": self.shell, "container": self.docker}
        self.pool = WorkerPool(rig.coordinator, runtimes, Redactor, WorkerOptions(**options))
        self.rig.coordinator.starter.start()
        self.pool.start()

    def stop(self, grace_s: float = DEADLINE_S) -> None:
        self.pool.stop_claiming()
        self.rig.coordinator.stop()
        self.rig.coordinator.starter.stop()
        self.pool.stop(grace_s)

    def run(self, text: str) -> Job:
        """The job when it has ended."""
        job = self.rig.submit(text)
        return self.rig.coordinator.wait(job.id, DEADLINE_S, lambda: False)

    def log(self, job: Job) -> list[str]:
        """Parts, oldest first."""
        return [part.contents for part in self.rig.reader.job_log(job.id, 1, 100).items][::-1]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JobsRig]:
    with JobsRig(tmp_path) as made:
        yield made


@pytest.fixture
def host(rig: JobsRig) -> Iterator[Host]:
    made = Host(rig)
    yield made
    made.stop()


def test_a_job_runs_to_its_end(host: Host) -> None:
    job = host.run("""
        name: hello
        output: "{{ tasks.a }}"
        tasks: [{name: a, var: a, run: say one}, {name: b, run: "print x"}]
        """)

    assert (job.state, job.result) == ("COMPLETED", "one")
    assert host.log(job) == ["x"]
    assert [task.progress for task in host.rig.tasks(job)] == [25.0, 25.0]
    assert [task.node_id for task in host.rig.tasks(job)] == [NODE, NODE]


def test_failures_are_reported(host: Host) -> None:
    assert host.run(steps("fail exit code 1: oh")).error == "exit code 1: oh"
    assert host.run(steps("raise a defect")).error == "internal error, see the server's log"


def test_what_one_task_prints_is_stored_before_its_end(host: Host) -> None:
    job = host.run(steps("print a|b|c"))

    assert host.log(job) == ["abc"]


def test_secrets_are_redacted_across_pieces(host: Host) -> None:
    job = host.run("{name: s, secrets: {t: geheim}, tasks: [{name: a, run: 'print is ge|heim, ge|h'}]}")

    assert host.log(job) == ["is [REDACTED], geh"]


def test_no_secret_comes_together_when_zero_bytes_are_removed(host: Host) -> None:
    spread = "geheim".encode("utf-16-le").hex()
    job = host.run(f"{{name: s, secrets: {{t: geheim}}, tasks: [{{name: a, run: bytes {spread}}}]}}")

    assert host.log(job) == ["[REDACTED]"]


def test_bytes_that_are_no_text_are_replaced(host: Host) -> None:
    assert host.log(host.run(steps("bytes 61ff62"))) == ["a\ufffdb"]


def test_much_output_does_not_fill_the_memory(host: Host) -> None:
    job = host.run(steps("flood 3000"))
    page = host.rig.reader.job_log(job.id, 1, 100)

    assert sum(len(part.contents) for part in page.items) == 3_000_000
    assert max(len(part.contents) for part in page.items) <= 64 * 1024


def test_a_log_without_end_is_cut(rig: JobsRig) -> None:
    host = Host(rig, max_log_bytes=5)
    try:
        assert host.log(host.run(steps("print ab|cdé|more"))) == [f"abcd{CUT}"]
    finally:
        host.stop()


def test_queues_run_so_many_tasks_at_a_time(host: Host) -> None:
    jobs = [host.rig.submit(steps("wait")) for _ in range(5)]
    until(lambda: len(host.shell.works) == 2)

    assert host.rig.reader.queue("default").unacked == 2
    host.shell.go.set()
    for job in jobs:
        host.rig.coordinator.wait(job.id, DEADLINE_S, lambda: False)
    assert len(host.shell.works) == 5


def test_cancel_stops_what_runs(host: Host) -> None:
    job = host.rig.submit(steps("sleep", "never"))
    until(lambda: host.pool.running())

    host.rig.coordinator.cancel(job.id)

    until(lambda: not host.pool.running())
    assert host.rig.states(job) == ["CANCELLED", "CANCELLED"]


def test_a_void_claim_is_stopped_by_the_next_heartbeat(host: Host) -> None:
    host.rig.submit(steps("sleep"))
    until(lambda: host.pool.running())
    with host.rig.db.transaction() as connection:
        connection.exec_driver_sql("UPDATE tasks SET claim_id = 'other'")

    host.pool.beat()

    until(lambda: not host.pool.running())


def test_what_runs_at_a_stop_is_given_back(rig: JobsRig) -> None:
    host = Host(rig)
    job = rig.submit(steps("sleep"))
    until(lambda: host.pool.running())

    host.stop(grace_s=0.01)

    assert rig.states(job) == ["RUNNING", "SCHEDULED"]
    assert rig.tasks(job)[0].redelivered == 0
    assert host.shell.is_closed


def test_a_start_removes_what_a_dead_run_left_and_runs_it_again(rig: JobsRig) -> None:
    job = rig.begin(steps("say again"))
    rig.claim()  # by a run that died
    host = Host(rig)
    try:
        assert rig.coordinator.wait(job.id, DEADLINE_S, lambda: False).state == "COMPLETED"
    finally:
        host.stop()

    assert rig.tasks(job)[0].redelivered == 1
    assert host.shell.reaped == [[]]


def test_containers_wait_while_no_engine_answers(host: Host) -> None:
    host.docker.fault = "no engine answers"
    host.pool.health.step(0)
    until(lambda: host.rig.reader.nodes())
    host.pool.beat()
    job = host.rig.submit("{name: c, tasks: [{name: a, image: i}]}")

    assert host.run(steps("say hi")).state == "COMPLETED"
    assert host.rig.states(job) == ["SCHEDULED", "SCHEDULED"]
    assert [(node.status, node.detail) for node in host.rig.reader.nodes()] == [("DOWN", "no engine answers")]

    host.docker.fault = ""
    host.pool.health.step(0)
    assert host.rig.coordinator.wait(job.id, DEADLINE_S, lambda: False).state == "COMPLETED"
    host.pool.beat()
    assert host.rig.reader.nodes()[0].status == "UP"


def test_a_container_whose_engine_dies_at_its_start_goes_back(host: Host) -> None:
    until(lambda: "container" in host.pool.health.up())
    host.docker.fault = "gone"
    job = host.rig.submit("{name: c, tasks: [{name: a, image: i}]}")
    until(lambda: host.pool.health.detail() == "gone")
    until(lambda: host.rig.states(job) == ["RUNNING", "SCHEDULED"])

    host.docker.fault = ""
    host.pool.health.wake()

    assert host.rig.coordinator.wait(job.id, DEADLINE_S, lambda: False).state == "COMPLETED"
    assert host.rig.tasks(job)[0].redelivered == 0
    assert len(host.docker.reaped) == 2  # at the start, and what could not be removed while it was gone


def test_containers_fail_while_no_engine_answers_if_told_so(rig: JobsRig) -> None:
    host = Host(rig, waits_for_engine=False)
    host.docker.fault = "no engine answers"
    try:
        assert host.run("{name: c, tasks: [{name: a, image: i}]}").error == "no engine answers"
    finally:
        host.stop()


def test_a_report_is_made_again_when_the_database_is_busy(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, refused = host.rig.coordinator.complete, []

    def busy_once(*report: str) -> bool:
        if not refused:
            refused.append(report)
            raise Unavailable("the metadata database is busy")
        return complete(*report)

    monkeypatch.setattr("arc.jobs.workers.RETRY_S", 0.01)
    monkeypatch.setattr(host.rig.coordinator, "complete", busy_once)

    assert host.run(steps("say x")).state == "COMPLETED"
    assert refused


def test_work_is_what_the_definition_says(rig: JobsRig) -> None:
    rig.begin("""
        name: all
        tasks:
          - name: main
            image: i
            cmd: [c]
            entrypoint: [e]
            env: {A: b}
            files: {f: x}
            registry: {username: u, password: p}
            timeout: 1m30s
            limits: {cpus: "2"}
            mounts: [{type: volume, target: /data, opts: {o: v}}]
            networks: [n]
            gpus: all
            workdir: /w
            pre: [{name: before, image: i, run: x, timeout: 500ms}]
            post: [{name: after, image: i}]
            sidecars: [{name: side, image: s, probe: {path: /ok, port: 80}}]
        """)

    work = work_of(rig.claim().task, WorkDefaults(cpus="1", memory="10m", timeout="1h"))

    assert (work.timeout_s, work.gpus, work.workdir, work.networks) == (90.0, "all", "/w", ("n",))
    assert (work.main.image, work.main.cmd, work.main.entrypoint, work.main.env) == ("i", ("c",), ("e",), {"A": "b"})
    assert (work.main.files, work.main.timeout_s) == ({"f": "x"}, None)
    assert work.main.registry is not None
    assert work.main.registry.password == "p"
    assert (work.limits.cpus, work.limits.memory) == ("2", "10m")
    assert (work.mounts[0].target, work.mounts[0].opts) == ("/data", {"o": "v"})
    assert [(step.name, step.timeout_s) for step in (*work.pre, *work.post)] == [("before", 0.5), ("after", None)]
    assert work.sidecars[0].probe is not None
    assert (work.sidecars[0].probe.port, work.sidecars[0].probe.timeout_s) == (80, 60.0)


def test_limits_of_containers_do_not_reach_processes(rig: JobsRig) -> None:
    rig.begin(steps("x"))

    work = work_of(rig.claim().task, WorkDefaults(cpus="1", memory="10m", timeout="1h"))

    assert (work.limits.cpus, work.limits.memory, work.timeout_s) == ("", "", 3600.0)
