"""Coordinator: from submit to the end of a job, with a test that claims and reports as a worker would."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from arc import clock
from arc.config import Size
from arc.errors import Cancelled, Conflict, Denied, Invalid, TimedOut, Unavailable
from arc.jobs.coordinator import MAX_LOG_BYTES
from arc.jobs.records import JobNotFound, QueueNotFound
from tests.unit.jobsrig import LEASE_S, NODE, SECOND, JobsRig, node, steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RETRYING = "{name: r, tasks: [{name: a, run: x, retry: {limit: 2, initialDelay: 10s, scalingFactor: 3}}]}"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JobsRig]:
    with JobsRig(tmp_path) as made:
        yield made


def later(seconds: float) -> int:
    return clock.now_us() + int(seconds * SECOND)


# from submit to the end


def test_tasks_run_one_after_another(rig: JobsRig) -> None:
    job = rig.submit(steps("one", "two"))
    assert rig.states(job) == ["PENDING"]
    rig.coordinator.start_pending(clock.now_us())
    assert rig.states(job) == ["SCHEDULED", "SCHEDULED"]

    first = rig.claim()
    assert rig.states(job) == ["RUNNING", "RUNNING"]
    rig.complete(first)
    assert rig.states(job) == ["RUNNING", "COMPLETED", "SCHEDULED"]
    assert (rig.job(job).position, rig.job(job).progress) == (2, 50.0)
    rig.complete(rig.claim())

    ended = rig.job(job)
    assert rig.states(job) == ["COMPLETED", "COMPLETED", "COMPLETED"]
    assert (ended.position, ended.progress, ended.task_count) == (3, 100.0, 2)
    assert ended.completed_at


def test_results_reach_later_tasks_and_the_output(rig: JobsRig) -> None:
    job = rig.begin("""
        name: pass on
        inputs: {who: World}
        output: "{{ tasks.greeting }}!"
        tasks:
          - {name: "greet {{ inputs.who }}", var: greeting, env: {W: "{{ inputs.who }}"}, run: x}
          - {name: quiet, var: nothing, run: x}
          - {name: b, cmd: ["echo", "{{ tasks.greeting }}", "{{ tasks.nothing }}"], image: "{{ inputs.who }}"}
        """)
    first = rig.claim()
    rig.complete(first, "Hello World")
    rig.complete(rig.claim(), "")
    last = rig.claim()
    rig.complete(last)

    assert (first.task.definition["name"], first.task.definition["env"]) == ("greet World", {"W": "World"})
    assert (last.task.definition["cmd"], last.task.definition["image"]) == (["echo", "Hello World", ""], "World")
    assert rig.job(job).variables == {"greeting": "Hello World"}
    assert rig.job(job).result == "Hello World!"
    assert rig.job(job).definitions[0]["name"] == "greet {{ inputs.who }}"


def test_what_a_result_holds_is_not_evaluated_again(rig: JobsRig) -> None:
    rig.begin("{name: a, tasks: [{name: a, var: x, run: x}, {name: b, env: {A: '{{ tasks.x }}'}, run: x}]}")
    rig.complete(rig.claim(), "{{ 1 + 1 }}")

    assert rig.claim().task.definition["env"] == {"A": "{{ 1 + 1 }}"}


def test_only_false_skips_a_task(rig: JobsRig) -> None:
    conditions = ["{{ 1 == 2 }}", " false ", "FALSE", "0", "{{ true }}"]
    tasks = [{"name": "t", "run": "x", "if": condition} for condition in conditions]
    job = rig.begin(yaml.safe_dump({"name": "skips", "tasks": tasks}))
    for _ in range(3):
        rig.complete(rig.claim())

    assert rig.states(job) == ["COMPLETED", "SKIPPED", "SKIPPED", "COMPLETED", "COMPLETED", "COMPLETED"]
    skipped = rig.tasks(job)[0]
    assert skipped.scheduled_at == skipped.started_at == skipped.completed_at


def test_a_job_of_skipped_tasks_completes_without_running(rig: JobsRig) -> None:
    job = rig.begin("{name: s, tasks: [{name: a, if: 'false', run: x}], output: done}")

    assert rig.states(job) == ["COMPLETED", "SKIPPED"]
    assert "RUNNING" not in [event.new_state for event in rig.reader.events(job.id)]
    assert rig.job(job).result == "done"


def test_defaults_fill_what_a_task_leaves_open(rig: JobsRig) -> None:
    job = rig.begin("""
        name: d
        defaults: {queue: slow, timeout: 5m, priority: 3, retry: {limit: 2}, limits: {cpus: "1", memory: 10m}}
        tasks: [{name: a, image: i, timeout: 1m, limits: {memory: 20m}}]
        """)

    made = rig.tasks(job)[0]

    assert (made.queue, made.priority) == ("slow", 3)
    assert made.definition["timeout"] == "1m"
    assert made.definition["limits"] == {"cpus": "1", "memory": "20m"}
    assert made.definition["retry"]["limit"] == 2


@pytest.mark.parametrize("name", ["{{ nosuch }}", "{{ 1 + 'a' }}"])
def test_an_expression_that_fails_fails_task_and_job(rig: JobsRig, name: str) -> None:
    text = f'{{name: e, tasks: [{{name: a, run: x}}, {{name: "{name}", run: x}}]}}'
    job = rig.begin(text)
    rig.complete(rig.claim())

    assert rig.states(job) == ["FAILED", "COMPLETED", "FAILED"]
    assert "expression" in (rig.job(job).error or "")
    assert rig.job(job).error == rig.tasks(job)[1].error


def test_a_first_task_that_cannot_be_evaluated_fails_the_job(rig: JobsRig) -> None:
    job = rig.begin("{name: e, tasks: [{name: '{{ nosuch }}', run: x}]}")

    assert rig.states(job) == ["FAILED", "FAILED"]


def test_an_internal_queue_is_refused_when_it_comes_out_of_an_expression(rig: JobsRig) -> None:
    job = rig.begin("{name: q, inputs: {q: jobs}, tasks: [{name: a, queue: '{{ inputs.q }}', run: x}]}")

    assert rig.job(job).error == "invalid queue: jobs"


def test_a_queue_has_no_endless_name(rig: JobsRig) -> None:
    job = rig.begin("""{name: q, tasks: [{name: a, queue: "{{ repeat('q', 257) }}", run: x}]}""")

    assert rig.job(job).error == f"invalid queue: {'q' * 256}"


@pytest.mark.parametrize("queue", ["{{ secrets.pw }}", "q-{{ upper(secrets.pw) }}", "{{ toJSON($env) }}"])
def test_a_queue_that_tells_of_a_secret_is_refused(rig: JobsRig, queue: str) -> None:
    job = rig.begin(f"{{name: q, secrets: {{pw: s3cret}}, tasks: [{{name: a, queue: '{queue}', run: x}}]}}")

    assert rig.job(job).error == "the name of a queue must not depend on a secret"
    assert [task.queue for task in rig.tasks(job)] == [None]


def test_a_job_with_secrets_may_choose_its_queue(rig: JobsRig) -> None:
    rig.begin("{name: q, inputs: {q: slow}, secrets: {pw: s}, tasks: [{name: a, queue: '{{ inputs.q }}', run: x}]}")

    assert rig.claim("slow").task.queue == "slow"


def test_expressions_of_a_task_are_bounded_together(rig: JobsRig) -> None:
    value = "{{ repeat('x', 400000) }}"
    env = ", ".join(f'K{number}: "{value}"' for number in range(20))
    job = rig.begin(f"{{name: e, tasks: [{{name: a, run: x, env: {{{env}}}}}]}}")

    assert "all expressions together come out longer than 4000000 characters" in (rig.job(job).error or "")


def test_output_that_fails_fails_the_job_past_its_end(rig: JobsRig) -> None:
    job = rig.begin("{name: o, output: '{{ int(tasks.none) }}', tasks: [{name: a, run: x}]}")
    rig.complete(rig.claim())

    assert rig.states(job) == ["FAILED", "COMPLETED"]
    assert rig.job(job).position == 2
    with pytest.raises(Invalid, match="job has no more tasks to run"):
        rig.coordinator.restart(job.id, may_run_processes=True)


def test_auto_delete_counts_from_the_end(rig: JobsRig) -> None:
    job = rig.begin("{name: d, autoDelete: {after: 1h}, tasks: [{name: a, run: x}]}")
    rig.complete(rig.claim())

    ended = rig.job(job)
    assert ended.completed_at
    assert ended.delete_at == ended.completed_at + 3600 * SECOND


def test_processes_need_leave(rig: JobsRig) -> None:
    with pytest.raises(Denied):
        rig.submit(steps("true"), may_run_processes=False)
    hidden = "{name: h, inputs: {i: ''}, tasks: [{name: a, image: '{{ inputs.i }}', run: x}]}"
    rig.submit(hidden, may_run_processes=False)
    rig.coordinator.start_pending(clock.now_us())

    assert rig.claim().task.runtime == "container"


def test_every_change_leaves_an_event(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    rig.complete(rig.claim())

    events = [(event.task_id is not None, event.old_state, event.new_state) for event in rig.reader.events(job.id)]

    assert events == [
        (False, None, "PENDING"),
        (False, "PENDING", "SCHEDULED"),
        (True, None, "SCHEDULED"),
        (True, "SCHEDULED", "RUNNING"),
        (False, "SCHEDULED", "RUNNING"),
        (True, "RUNNING", "COMPLETED"),
        (False, "RUNNING", "COMPLETED"),
    ]


def test_one_job_that_cannot_start_does_not_keep_others(rig: JobsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = rig.submit(steps("bad")), rig.submit(steps("good"))
    advance = rig.coordinator._planner.advance

    def broken(job, position, now_us):  # type: ignore[no-untyped-def]
        if job.id == bad.id:
            raise RuntimeError("a defect")
        return advance(job, position, now_us)

    monkeypatch.setattr(rig.coordinator._planner, "advance", broken)
    rig.coordinator.start_pending(clock.now_us())

    assert rig.states(bad) == ["FAILED"]
    assert rig.states(good) == ["SCHEDULED", "SCHEDULED"]


# failure and retry


def test_a_failure_fails_the_job_and_creates_nothing_more(rig: JobsRig) -> None:
    job = rig.begin(steps("one", "two"))
    rig.fail(rig.claim(), "exit code 1: oh\n")

    assert rig.states(job) == ["FAILED", "FAILED"]
    assert rig.job(job).error == rig.tasks(job)[0].error == "exit code 1: oh\n"
    assert rig.job(job).failed_at


def test_a_retry_waits_longer_each_time(rig: JobsRig) -> None:
    job = rig.begin(RETRYING)
    rig.fail(rig.claim())
    first = rig.tasks(job)[1]
    assert first.state == "PENDING"
    assert first.available_at - first.created_at == 10 * SECOND
    rig.coordinator.start_pending(later(9))
    assert rig.coordinator.claim(NODE, "default", ["process"]) is None

    rig.coordinator.start_pending(later(11))
    rig.fail(rig.claim())

    second = rig.tasks(job)[2]
    assert second.available_at - second.created_at == 30 * SECOND
    rig.coordinator.start_pending(later(31))
    rig.fail(rig.claim(), "the end")
    assert rig.states(job) == ["FAILED", "FAILED", "FAILED", "FAILED"]
    assert [task.attempts for task in rig.tasks(job)] == [0, 1, 2]
    assert rig.job(job).error == "the end"


def test_success_at_the_second_attempt_goes_on(rig: JobsRig) -> None:
    job = rig.begin("{name: r, tasks: [{name: '{{ randomInt() }}', run: x, retry: {limit: 3}}, {name: b, run: x}]}")
    rig.fail(rig.claim())
    rig.complete(rig.claim())

    assert rig.states(job) == ["RUNNING", "FAILED", "COMPLETED", "SCHEDULED"]
    first, second, _ = rig.tasks(job)
    assert first.definition["name"] == second.definition["name"]


def test_too_large_a_result_fails_the_task(tmp_path: Path) -> None:
    with JobsRig(tmp_path, max_result_bytes=Size(1024)) as rig:
        job = rig.begin(steps("one"))
        rig.complete(rig.claim(), "é" * 513)

        assert rig.job(job).error == "task result exceeds maximum size of 1024 bytes (got 1026)"


def test_texts_that_databases_refuse_are_cleaned(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    rig.complete(rig.claim(), "a\0b\ud800c")

    assert rig.tasks(job)[0].result == "ab?c"


# claims


def test_priority_first_then_the_oldest(rig: JobsRig) -> None:
    for name, priority in (("a", 0), ("b", 5), ("c", 9), ("d", 5), ("e", 0)):
        rig.begin(f"{{name: p, tasks: [{{name: {name}, run: x, priority: {priority}}}]}}")

    assert [rig.claim().task.definition["name"] for _ in range(5)] == ["c", "b", "d", "a", "e"]


def test_a_claim_takes_only_what_the_node_can_run(rig: JobsRig) -> None:
    rig.begin("{name: c, tasks: [{name: c, image: i, priority: 9}]}")
    rig.begin(steps("p"))

    assert rig.claim(runtimes=["process"]).task.definition["name"] == "p"
    assert rig.coordinator.claim(NODE, "default", ["process"]) is None
    assert rig.coordinator.claim(NODE, "other", ["container"]) is None
    assert rig.coordinator.claim(NODE, "default", []) is None
    assert rig.claim(runtimes=["process", "container"]).task.definition["name"] == "c"


def test_each_task_is_claimed_once(rig: JobsRig) -> None:
    for _ in range(20):
        rig.submit(steps("x"))
    rig.coordinator.start_pending(clock.now_us())
    found: list[str] = []

    def work() -> None:
        while claim := rig.coordinator.claim(NODE, "default", ["process"]):
            found.append(claim.task.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == len(set(found)) == 20


def test_waiting_for_work_ends_when_some_comes(rig: JobsRig) -> None:
    assert rig.coordinator.claim(NODE, "default", ["process"]) is None
    rig.begin(steps("x"))

    rig.coordinator.wait_for_work("default", 60)  # came between the claim and the wait

    assert rig.claim()


def test_waiting_for_work_ends_when_the_server_stops(rig: JobsRig) -> None:
    waiter = threading.Thread(target=rig.coordinator.wait_for_work, args=("default", 60))
    waiter.start()

    rig.coordinator.stop()

    waiter.join(10)
    assert not waiter.is_alive()


def test_work_that_another_process_created_is_noticed(rig: JobsRig) -> None:
    assert rig.coordinator.claim(NODE, "default", ["process"]) is None
    woken = threading.Event()
    waiter = threading.Thread(target=lambda: (rig.coordinator.wait_for_work("default", 60), woken.set()))
    waiter.start()
    deadline = time.monotonic() + 10
    while not rig.coordinator._signals.waited_for():
        assert time.monotonic() < deadline
    rig.coordinator.start_pending(clock.now_us())
    assert not woken.is_set()

    with JobsRig(rig.data_dir) as other:
        other.begin(steps("x"))
    rig.coordinator.start_pending(clock.now_us())

    assert woken.wait(10)
    waiter.join()


# reports


def test_reports_of_another_claim_change_nothing(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    claim = rig.claim()
    before = (rig.states(job), rig.reader.events(job.id))

    for claim_id, task_id in (("nosuch", claim.task.id), (claim.claim_id, "nosuch")):
        assert not rig.coordinator.complete(claim_id, task_id, "r")
        assert not rig.coordinator.fail(claim_id, task_id, "e")
        assert not rig.coordinator.progress(claim_id, task_id, 50)
        assert not rig.coordinator.log(claim_id, task_id, "text")
        assert not rig.coordinator.release(claim_id, task_id)

    assert (rig.states(job), rig.reader.events(job.id)) == before


def test_a_second_report_changes_nothing(rig: JobsRig) -> None:
    job = rig.begin(steps("one", "two"))
    claim = rig.claim()
    assert rig.complete(claim)

    assert not rig.complete(claim)
    assert not rig.fail(claim)

    assert rig.states(job) == ["RUNNING", "COMPLETED", "SCHEDULED"]


def test_progress_of_a_task_is_progress_of_its_job(rig: JobsRig) -> None:
    job = rig.begin(steps("one", "two", "three"))
    rig.complete(rig.claim())
    claim = rig.claim()

    assert rig.coordinator.progress(claim.claim_id, claim.task.id, 50)
    assert rig.job(job).progress == 50.0
    rig.coordinator.progress(claim.claim_id, claim.task.id, 10)

    assert rig.job(job).progress == 36.67
    assert rig.tasks(job)[1].progress == 10.0


def test_log_parts_are_numbered_and_bounded(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    claim = rig.claim()
    rig.coordinator.log(claim.claim_id, claim.task.id, "first\n")
    rig.coordinator.log(claim.claim_id, claim.task.id, "€" * 30_000)

    parts = rig.reader.task_log(claim.task.id, 1, 10).items

    assert [part.number for part in parts] == [3, 2, 1]
    assert all(len(part.contents.encode()) <= MAX_LOG_BYTES for part in parts)
    assert parts[1].contents + parts[0].contents == "€" * 30_000
    assert rig.reader.job_log(job.id, 1, 10).items == parts


# cancel, restart, delete, purge


def test_cancel_ends_everything_active(rig: JobsRig) -> None:
    void: list[str] = []
    rig.coordinator.subscribe_stops(void.extend)
    job = rig.begin(steps("one"))
    claim = rig.claim()

    rig.coordinator.cancel(job.id)

    assert rig.states(job) == ["CANCELLED", "CANCELLED"]
    assert void == [claim.claim_id]
    assert not rig.fail(claim, "context canceled")
    ended = rig.job(job)
    assert (ended.completed_at, ended.failed_at) == (None, None)


def test_what_a_cancelled_task_said_last_is_kept(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    claim = rig.claim()
    rig.coordinator.cancel(job.id)

    assert rig.coordinator.log(claim.claim_id, claim.task.id, "last words")

    assert rig.reader.job_log(job.id, 1, 10).items[0].contents == "last words"


def test_cancel_takes_a_waiting_task_out_of_its_queue(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    rig.coordinator.cancel(job.id)

    assert rig.coordinator.claim(NODE, "default", ["process"]) is None


def test_only_jobs_that_run_can_be_cancelled(rig: JobsRig) -> None:
    pending = rig.submit(steps("one"))
    with pytest.raises(Invalid, match="job is not running"):
        rig.coordinator.cancel(pending.id)
    with pytest.raises(JobNotFound):
        rig.coordinator.cancel("nosuch")
    rig.coordinator.start_pending(clock.now_us())
    rig.coordinator.cancel(pending.id)
    with pytest.raises(Invalid, match="job is not running"):
        rig.coordinator.cancel(pending.id)


def test_restart_repeats_the_current_task(rig: JobsRig) -> None:
    job = rig.begin("""
        name: again
        tasks: [{name: a, var: x, run: x}, {name: "b {{ tasks.x }}", run: x}, {name: c, run: x}]
        """)
    rig.complete(rig.claim(), "kept")
    rig.fail(rig.claim())
    started_at = rig.job(job).started_at

    rig.coordinator.restart(job.id, may_run_processes=True)

    again = rig.job(job)
    assert (again.state, again.failed_at, again.error, again.started_at) == ("RUNNING", None, None, started_at)
    assert rig.states(job) == ["RUNNING", "COMPLETED", "FAILED", "SCHEDULED"]
    claim = rig.claim()
    assert (claim.task.position, claim.task.definition["name"]) == (2, "b kept")
    rig.complete(claim)
    rig.complete(rig.claim())
    assert rig.job(job).state == "COMPLETED"


def test_late_reports_do_not_touch_a_restarted_job(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    old = rig.claim()
    rig.coordinator.cancel(job.id)
    rig.coordinator.restart(job.id, may_run_processes=True)

    assert not rig.fail(old, "context canceled")

    assert rig.states(job) == ["RUNNING", "CANCELLED", "SCHEDULED"]


def test_only_failed_and_cancelled_jobs_can_be_restarted(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    with pytest.raises(Invalid, match="job is SCHEDULED and can not be restarted"):
        rig.coordinator.restart(job.id, may_run_processes=True)
    rig.complete(rig.claim())
    with pytest.raises(Invalid, match="job is COMPLETED and can not be restarted"):
        rig.coordinator.restart(job.id, may_run_processes=True)


def test_delete_takes_everything_of_an_ended_job(rig: JobsRig) -> None:
    job = rig.begin("{name: unusual, tags: [t], tasks: [{name: a, run: x}]}")
    claim = rig.claim()
    rig.coordinator.log(claim.claim_id, claim.task.id, "peculiar")
    with pytest.raises(Conflict):
        rig.coordinator.delete(job.id)
    rig.complete(claim)

    rig.coordinator.delete(job.id)

    with rig.db.read() as connection:
        for table in ("jobs", "tasks", "task_logs", "job_events"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
        for word, table in (("unusual", "jobs"), ("peculiar", "task_logs")):
            found = f"SELECT count(*) FROM {table}_search WHERE {table}_search MATCH '{word}'"
            assert connection.exec_driver_sql(found).scalar() == 0
    with pytest.raises(JobNotFound):
        rig.coordinator.delete(job.id)


def test_purge_cancels_the_jobs_that_wait_in_a_queue(rig: JobsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc.jobs.coordinator.BATCH", 2)
    waiting = [rig.begin("{name: w, tasks: [{name: a, queue: slow, run: x}]}") for _ in range(3)]
    other = rig.begin(steps("x"))

    assert rig.coordinator.purge_queue("slow") == 3

    assert [rig.job(job).state for job in waiting] == ["CANCELLED"] * 3
    assert rig.job(other).state == "SCHEDULED"
    with pytest.raises(QueueNotFound):
        rig.coordinator.purge_queue("slow")
    for name in ("jobs", "x-node"):
        with pytest.raises(Invalid, match=f"queue {name} is not a task queue"):
            rig.coordinator.purge_queue(name)


# waiting for a job


def test_wait_ends_with_the_job(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    ended: list[str] = []
    waiter = threading.Thread(target=lambda: ended.append(rig.coordinator.wait(job.id, 60, lambda: False).state))
    waiter.start()

    rig.coordinator.cancel(job.id)

    waiter.join(10)
    assert ended == ["CANCELLED"]


def test_wait_gives_up(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    with pytest.raises(TimedOut, match="timeout waiting for job to complete"):
        rig.coordinator.wait(job.id, 0.01, lambda: False)
    with pytest.raises(Cancelled, match="request cancelled"):
        rig.coordinator.wait(job.id, 60, lambda: True)
    with pytest.raises(JobNotFound):
        rig.coordinator.wait("nosuch", 60, lambda: False)
    rig.coordinator.stop()
    with pytest.raises(Unavailable, match="server shutting down"):
        rig.coordinator.wait(job.id, 60, lambda: False)


# nodes that die


def test_a_silent_node_loses_its_tasks(rig: JobsRig) -> None:
    void: list[str] = []
    rig.coordinator.subscribe_stops(void.extend)
    job = rig.begin(steps("one"))
    lost = rig.claim()
    assert rig.coordinator.redeliver_expired(later(LEASE_S - 1)) == 0

    assert rig.coordinator.redeliver_expired(later(LEASE_S + 1)) == 1

    assert void == [lost.claim_id]
    assert not rig.complete(lost)
    again = rig.claim(node_id="node-2")
    assert (again.task.id, again.task.redelivered, again.task.node_id) == (lost.task.id, 1, "node-2")
    assert again.task.started_at == lost.task.started_at
    assert rig.complete(again)
    assert rig.job(job).state == "COMPLETED"


def test_heartbeats_keep_a_task(rig: JobsRig) -> None:
    rig.begin(steps("one"))
    claim = rig.claim()
    with rig.store.changes(0) as changes:  # nearly over
        changes.extend_leases({claim.task.id: claim.claim_id}, later(1))

    assert rig.coordinator.heartbeat(node(), {claim.task.id: claim.claim_id}) == set()

    assert rig.coordinator.redeliver_expired(later(LEASE_S - 1)) == 0


def test_a_heartbeat_tells_what_to_stop(rig: JobsRig) -> None:
    jobs = [rig.begin(steps("x")) for _ in range(2)]
    claims = [rig.claim() for _ in jobs]
    rig.coordinator.cancel(jobs[0].id)

    told = rig.coordinator.heartbeat(node(), {claim.task.id: claim.claim_id for claim in claims} | {"gone": "c"})

    assert told == {claims[0].task.id, "gone"}


def test_a_node_that_starts_again_gives_back_what_it_ran(rig: JobsRig) -> None:
    rig.begin(steps("one"))
    rig.begin(steps("two"))
    mine, other = rig.claim(), rig.claim(node_id="node-2")

    assert rig.coordinator.recover(NODE) == 1

    assert rig.claim().task.id == mine.task.id
    assert rig.complete(other)


def test_the_sixth_redelivery_fails_the_task(rig: JobsRig) -> None:
    job = rig.begin(steps("one"))
    for _ in range(5):
        rig.claim()
        assert rig.coordinator.recover(NODE) == 1
    assert rig.claim().task.redelivered == 5

    rig.coordinator.recover(NODE)

    assert rig.job(job).error == "task redelivered too many times"
    assert rig.states(job) == ["FAILED", "FAILED"]


def test_what_could_not_be_tried_does_not_count_as_delivered(rig: JobsRig) -> None:
    rig.begin(steps("one"))
    claim = rig.claim()

    assert rig.coordinator.release(claim.claim_id, claim.task.id)

    assert rig.claim().task.redelivered == 0
