"""Reads of jobs: pages, search, logs, queues, nodes; and that no list and no claim scans a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from arc import clock
from arc.jobs.records import JobNotFound, QueueNotFound, TaskNotFound
from arc.jobs.retention import JobRetention
from arc.jobs.states import JobState
from tests.unit.jobsrig import BOTH, NODE, SECOND, JobsRig, node, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JobsRig]:
    with JobsRig(tmp_path) as made:
        yield made


def named(rig: JobsRig, name: str, *tags: str, description: str = "") -> str:
    return rig.submit(steps("x", name=name, tags=list(tags), description=description)).id


def found(rig: JobsRig, *terms: str, tags: tuple[str, ...] = ()) -> list[str]:
    return [job.name for job in rig.reader.list_jobs(1, 20, terms, tags).items]


def test_jobs_come_newest_first_in_pages(rig: JobsRig) -> None:
    ids = [named(rig, str(number)) for number in range(5)]

    pages = [rig.reader.list_jobs(number, 2) for number in (1, 2, 3, 4)]

    assert [[job.id for job in page.items] for page in pages] == [ids[:2:-1], ids[2:0:-1], ids[:1], []]
    assert {(page.total, page.total_pages, page.size) for page in pages} == {(5, 3, 2)}
    assert rig.reader.list_jobs(10**18, 20).items == []


def test_search_stems_words_and_joins_them(rig: JobsRig) -> None:
    rig.begin(steps("x", name="fails"))
    rig.fail(rig.claim())
    named(rig, "Transcodes videos", description="for the big screen")
    named(rig, "my-big-job")

    assert found(rig, "transcode") == ["Transcodes videos"]
    assert found(rig, "VIDEO", "screens") == ["Transcodes videos"]
    assert found(rig, "video", "job") == []
    assert found(rig, "big") == ["my-big-job", "Transcodes videos"]
    assert found(rig, "my-big-job") == ["my-big-job"]
    assert found(rig, '"big', 'job"') == ["my-big-job"]
    assert found(rig, "trans*") == []
    assert found(rig, "the", "big", "screen") == ["Transcodes videos"]
    assert found(rig, "the") == found(rig, "*", "_") == []
    assert found(rig, "fail") == found(rig, "FAILED") == ["fails"]


def test_search_follows_the_state(rig: JobsRig) -> None:
    job = rig.submit(steps("x"))
    assert found(rig, "pending") == ["steps"]

    rig.coordinator.start_pending(clock.now_us())
    rig.fail(rig.claim())

    assert found(rig, "pending") == []
    assert found(rig, "failed") == ["steps"]
    rig.coordinator.delete(job.id)
    assert found(rig, "failed") == []


def test_a_state_selects_beside_words_and_tags(rig: JobsRig) -> None:
    rig.begin(steps("x", name="big job", tags=["a"]))
    rig.fail(rig.claim())
    named(rig, "FAILED is only its name", "a")

    for terms, tags in (((), ()), (("big",), ()), ((), ("a",))):
        page = rig.reader.list_jobs(1, 20, terms, tags, JobState.FAILED)
        assert ([job.name for job in page.items], page.total) == (["big job"], 1)


def test_tags_match_exactly_and_any_will_do(rig: JobsRig) -> None:
    named(rig, "one", "a", "b", "a")
    named(rig, "two", "B")
    named(rig, "three", "b")

    assert found(rig, tags=("b",)) == ["three", "one"]
    assert found(rig, tags=("a", "B", "b")) == ["three", "two", "one"]
    assert found(rig, "one", tags=("b",)) == ["one"]
    assert found(rig, "two", tags=("b",)) == []
    assert found(rig, tags=("",)) == []
    assert rig.reader.list_jobs(1, 20, (), ("a", "b")).total == 2


def test_executions_come_by_position_then_start(rig: JobsRig) -> None:
    job = rig.begin("{name: r, tasks: [{name: a, run: x, retry: {limit: 2}}, {name: b, run: x}]}")
    rig.fail(rig.claim())
    rig.complete(rig.claim())

    assert [(task.position, task.attempts, task.started_at is None) for task in rig.tasks(job)] == [
        (1, 0, False),
        (1, 1, False),
        (2, 0, True),
    ]


def test_logs_come_newest_first_and_can_be_searched(rig: JobsRig) -> None:
    job = rig.begin(steps("one", "two"))
    for task in ("one", "two"):
        claim = rig.claim()
        for number in (1, 2):
            rig.coordinator.log(claim.claim_id, claim.task.id, f"{task} number{number}\n")
        rig.complete(claim)

    page = rig.reader.job_log(job.id, 1, 3)
    searched = rig.reader.job_log(job.id, 1, 3, ["number1"])

    assert [part.contents for part in page.items] == ["two number2\n", "two number1\n", "one number2\n"]
    assert (page.total, page.total_pages) == (4, 2)
    assert [part.contents for part in searched.items] == ["two number1\n", "one number1\n"]
    assert searched.total == 4
    assert [part.number for part in rig.reader.task_log(claim.task.id, 1, 10, ["two"]).items] == [2, 1]


def test_unknown_ids_are_not_found(rig: JobsRig) -> None:
    for read in (rig.reader.job, rig.reader.events, lambda id_: rig.reader.job_log(id_, 1, 10)):
        with pytest.raises(JobNotFound):
            read("nosuch")
    for read in (rig.reader.task, lambda id_: rig.reader.task_log(id_, 1, 10)):
        with pytest.raises(TaskNotFound):
            read("nosuch")
    with pytest.raises(QueueNotFound, match="queue nosuch not found"):
        rig.reader.queue("nosuch")


def test_queues_show_what_waits_and_who_serves(rig: JobsRig) -> None:
    rig.coordinator.heartbeat(node(queues={"default": 4, "idle": 1}), {})
    for _ in range(3):
        rig.begin(steps("x"))
    rig.begin("{name: w, tasks: [{name: a, queue: alone, run: x}]}")
    rig.claim()

    queues = [(queue.name, queue.size, queue.subscribers, queue.unacked) for queue in rig.reader.queues()]

    assert queues == [("alone", 1, 0, 0), ("default", 2, 4, 1), ("idle", 0, 1, 0)]
    assert rig.reader.counts().running_jobs == rig.reader.counts().running_tasks == 1


def test_nodes_fall_silent_and_disappear(rig: JobsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = clock.now_us()
    rig.coordinator.heartbeat(node(id="b", name="B", status="DOWN", detail="no engine"), {})
    rig.coordinator.heartbeat(node(id="a", name="A", cpu_percent=30.0), {})
    rig.coordinator.heartbeat(node(id="a", name="A", cpu_percent=50.0), {})
    assert [(each.name, each.status, each.detail) for each in rig.reader.nodes()] == [
        ("A", "UP", ""),
        ("B", "DOWN", "no engine"),
    ]
    assert rig.reader.counts().cpu_percent == 30.0

    monkeypatch.setattr(clock, "now_us", lambda: now_us + 70 * SECOND)
    assert [each.status for each in rig.reader.nodes()] == ["OFFLINE", "DOWN"]
    assert rig.reader.queues() == []
    monkeypatch.setattr(clock, "now_us", lambda: now_us + 310 * SECOND)
    assert rig.reader.nodes() == []
    assert rig.reader.counts().online_nodes == 0


def test_retention_removes_what_is_old_enough(rig: JobsRig) -> None:
    ended, running = rig.begin(steps("x")), rig.begin(steps("x"))
    claim = rig.claim()
    rig.coordinator.log(claim.claim_id, claim.task.id, "text")
    rig.complete(claim)
    retention = JobRetention(rig.db, jobs_s=1000, logs_s=100)

    assert retention.step(clock.now_us()) == 0
    assert retention.interval_s == 120
    assert retention.step(clock.now_us() + 101 * SECOND) == 1
    assert retention.interval_s == 60
    assert rig.reader.job_log(ended.id, 1, 10).total == 0
    assert retention.step(clock.now_us() + 1001 * SECOND) == 1

    assert [job.id for job in rig.reader.list_jobs(1, 10).items] == [running.id]


def test_auto_delete_removes_completed_jobs_when_their_time_comes(rig: JobsRig) -> None:
    rig.begin("{name: d, autoDelete: {after: 10m}, tasks: [{name: a, run: x}]}")
    rig.complete(rig.claim())
    retention = JobRetention(rig.db, jobs_s=10**9, logs_s=10**9)

    assert retention.step(clock.now_us() + 590 * SECOND) == 0
    assert retention.step(clock.now_us() + 610 * SECOND) == 1


# query plans


def plans(rig: JobsRig, act: Callable[[], Any]) -> list[str]:
    """What SQLite does for each statement that `act` makes."""
    made: list[str] = []
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, ___: Any, is_many: bool) -> None:
        asked.append((statement, values[0] if is_many else values))

    event.listen(rig.db._engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(rig.db._engine, "before_cursor_execute", note)
    with rig.db.read() as connection:
        for statement, values in asked:
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                made += [f"{row.detail}   <- {statement}" for row in rows]
    return made


def test_nothing_scans_a_whole_table(rig: JobsRig) -> None:
    job = rig.begin(steps("x", "y", tags=["t"]))
    coordinator, reader = rig.coordinator, rig.reader
    now_us = clock.now_us()

    def everything() -> None:
        claim = rig.claim(runtimes=BOTH)
        ids = (claim.claim_id, claim.task.id)
        coordinator.log(*ids, "text")
        coordinator.progress(*ids, 10)
        coordinator.heartbeat(node(), {claim.task.id: claim.claim_id})
        coordinator.redeliver_expired(now_us)
        coordinator.recover("nosuch")
        coordinator.complete(*ids, "r")
        coordinator.start_pending(now_us)
        coordinator.starter.step(now_us)
        rig.store.is_waited_for("default")
        for tags in ((), ("t",)):
            for terms in ((), ("steps",)):
                for state in (None, JobState.RUNNING):
                    reader.list_jobs(1, 10, terms, tags, state)
        reader.tasks(job.id)
        reader.task(claim.task.id)
        reader.events(job.id)
        reader.job_log(job.id, 1, 10)
        reader.job_log(job.id, 1, 10, ["text"])
        reader.task_log(claim.task.id, 1, 10, ["text"])
        reader.queues()
        reader.counts()
        JobRetention(rig.db, 1000, 1000).step(now_us)
        coordinator.purge_queue("default")
        coordinator.restart(job.id, may_run_processes=True)
        coordinator.cancel(job.id)
        coordinator.delete(job.id)

    made = plans(rig, everything)

    # Counting all jobs and the newest page go along an index; a node table has a handful of rows.
    allowed = ("SCAN jobs USING COVERING INDEX", "SCAN nodes", "_search VIRTUAL TABLE INDEX", "SCAN anon_1")
    scans = [plan for plan in made if plan.startswith("SCAN") and not any(text in plan for text in allowed)]
    assert not scans, "\n\n".join(scans)
    claims = [plan for plan in made if "ix_tasks_claim" in plan]
    assert any("state=? AND queue=? AND runtime=? AND priority=?" in plan for plan in claims)
    assert not [plan for plan in made if "TEMP B-TREE" in plan and "FROM tasks" in plan and "LIMIT" in plan]


def test_nobody_but_its_node_is_told_of_a_task(rig: JobsRig) -> None:
    rig.begin(steps("x"))
    rig.claim(node_id="other")

    assert rig.coordinator.recover(NODE) == 0
