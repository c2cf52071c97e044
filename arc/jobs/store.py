"""Jobs in the metadata database: the statements that change them, one transaction at a time.

with store.changes(now_us) as changes: changes.job(old, new); changes.task(old, new); changes.add_task(job, task)
Every change of a state is checked against the table of states, asks for the old state in its UPDATE, and leaves an
event. What the rest of the server must hear about (work for a queue, jobs that ended, claims that are void) is kept
in `changes` for the caller, who tells it when the transaction is done.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy import bindparam, func, insert, select, update

from arc import clock
from arc.db.tables import job_events, jobs, task_logs, tasks
from arc.jobs.nodes import consumers
from arc.jobs.records import Job, JobNotFound, Task
from arc.jobs.rows import Rows
from arc.jobs.states import JOB_ACTIVE, TASK_ACTIVE, JobState, TaskState, sources

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from arc.db.engine import Database
    from arc.jobs.sealing import Sealer

MAX_BOUND = 500  # values in one IN list

_best = tasks.alias("best")
_waits = (tasks.c.state == TaskState.SCHEDULED.value, tasks.c.queue == bindparam("b_queue"))
_runs = (
    tasks.c.id == bindparam("b_id"),
    tasks.c.claim_id == bindparam("b_claim"),
    tasks.c.state == TaskState.RUNNING.value,
)

_JOB = select(jobs).where(jobs.c.id == bindparam("b_id"))
_PENDING_JOBS = (
    select(jobs)
    .where(jobs.c.state == JobState.PENDING.value)
    .order_by(jobs.c.created_at, jobs.c.seq)
    .limit(bindparam("b_limit"))
)
_INSERT_JOB = insert(jobs).returning(jobs.c.seq)
_CHANGED_JOB = update(jobs).where(
    jobs.c.id == bindparam("b_id"),
    jobs.c.state == bindparam("b_old_state"),
    jobs.c.position == bindparam("b_old_position"),
)
_CHANGE_JOB = _CHANGED_JOB.values(
    {
        name: bindparam(name)
        for name in (
            *("state", "started_at", "completed_at", "failed_at", "delete_at"),
            *("position", "progress", "variables", "result", "error"),
        )
    }
)
# Without `state`: naming it would write the job into the search index again.
_ADVANCE_JOB = _CHANGED_JOB.values({name: bindparam(name) for name in ("position", "progress", "variables")})
_RUN_JOB = (
    update(jobs).where(jobs.c.id == bindparam("b_id"), jobs.c.state == JobState.SCHEDULED.value).values(state="RUNNING")
)
_DELETE_JOB = jobs.delete().where(jobs.c.id == bindparam("b_id"), jobs.c.state == bindparam("b_old_state"))
_JOB_PROGRESS = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"), jobs.c.state.in_(sorted(JOB_ACTIVE)))
    .values(progress=((jobs.c.position - 1) + bindparam("b_part", type_=sa.Float)) * 100.0 / jobs.c.task_count)
)

_RUNNING = select(tasks).where(*_runs)
_INSERT_TASK = insert(tasks)
_CHANGE_TASK = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("b_id"),
        tasks.c.state == bindparam("b_old_state"),
        tasks.c.claim_id.is_not_distinct_from(bindparam("b_old_claim", type_=sa.String)),
    )
    .values(
        {
            name: bindparam(name)
            for name in (
                *("state", "scheduled_at", "started_at", "completed_at", "failed_at", "node_id", "claim_id"),
                *("lease_until", "redelivered", "result", "error"),
            )
        }
    )
)
_NEXT_IN_QUEUE = (  # two probes of ix_tasks_claim: the highest priority, then the oldest task that has it
    select(tasks.c.seq, tasks.c.priority)
    .where(
        *_waits,
        tasks.c.runtime == bindparam("b_runtime"),
        tasks.c.priority
        == select(func.max(_best.c.priority))
        .where(
            _best.c.state == TaskState.SCHEDULED.value,
            _best.c.queue == bindparam("b_queue"),
            _best.c.runtime == bindparam("b_runtime"),
        )
        .scalar_subquery(),
    )
    .order_by(tasks.c.seq)
    .limit(1)
)
_CLAIM = (
    update(tasks)
    .where(tasks.c.seq == bindparam("b_seq"), tasks.c.state == TaskState.SCHEDULED.value)
    .values(
        state=TaskState.RUNNING.value,
        node_id=bindparam("node_id"),
        claim_id=bindparam("claim_id"),
        lease_until=bindparam("lease_until"),
        started_at=func.coalesce(tasks.c.started_at, bindparam("b_now")),
    )
    .returning(*tasks.c)
)
_CLAIMED_JOB = select(jobs.c.state, jobs.c.secrets).where(jobs.c.id == bindparam("b_id"))
_IS_WAITED_FOR = select(tasks.c.seq).where(*_waits).limit(1)
_WAITING_JOBS = select(tasks.c.job_id).where(*_waits).limit(bindparam("b_limit"))
_ACTIVE_TASKS = select(tasks).where(tasks.c.job_id == bindparam("b_job"), tasks.c.state.in_(sorted(TASK_ACTIVE)))
_DUE_TASKS = (
    select(tasks)
    .where(tasks.c.state == TaskState.PENDING.value, tasks.c.available_at <= bindparam("b_now"))
    .order_by(tasks.c.available_at)
    .limit(bindparam("b_limit"))
)
_NEXT_DUE = select(func.min(tasks.c.available_at)).where(tasks.c.state == TaskState.PENDING.value)
_EXPIRED_TASKS = (
    select(tasks)
    .where(tasks.c.state == TaskState.RUNNING.value, tasks.c.lease_until < bindparam("b_now"))
    .limit(bindparam("b_limit"))
)
_TASKS_OF_NODE = select(tasks).where(
    tasks.c.state == TaskState.RUNNING.value,
    tasks.c.node_id == bindparam("b_node"),
    tasks.c.lease_until.is_not(None),  # composites have none
)
_EXTEND_LEASES = (
    update(tasks)
    .where(
        tasks.c.id.in_(bindparam("b_ids", expanding=True)),
        tasks.c.claim_id.in_(bindparam("b_claims", expanding=True)),
        tasks.c.state == TaskState.RUNNING.value,
    )
    .values(lease_until=bindparam("lease_until"))
    .returning(tasks.c.id)
)
_TASK_PROGRESS = update(tasks).where(*_runs).values(progress=bindparam("progress")).returning(tasks.c.job_id)
_IS_CLAIMED = select(tasks.c.seq).where(tasks.c.id == bindparam("b_id"), tasks.c.claim_id == bindparam("b_claim"))
_LAST_LOG = select(func.max(task_logs.c.number)).where(task_logs.c.task_id == bindparam("b_task"))
_INSERT_LOG = insert(task_logs)
_INSERT_EVENTS = insert(job_events)


class Illegal(RuntimeError):
    """A change that the table of states does not know: a defect of ours."""


@dataclass
class Changes:
    """What one transaction does, and what has to be told when it is done."""

    connection: sa.Connection
    rows: Rows
    now_us: int
    queues: list[str] = field(default_factory=list)  # one entry for each task that came into a queue
    ended: list[str] = field(default_factory=list)  # jobs
    void: list[str] = field(default_factory=list)  # claims of tasks that shall stop
    has_delayed: bool = False  # a task waits for its time
    events: list[dict[str, Any]] = field(default_factory=list)

    def add_job(self, job: Job) -> Job:
        seq = self.connection.execute(_INSERT_JOB, self.rows.new_job_values(job)).scalar_one()
        self._record(job.id, None, None, job.state)
        return replace(job, seq=seq)

    def job(self, old: Job, new: Job, reason: str | None = None) -> bool:
        """False when the job is no longer what was read."""
        statement = _ADVANCE_JOB if old.state is new.state else _CHANGE_JOB
        values = self.rows.job_values(new)
        if old.state is new.state:
            values = {name: values[name] for name in ("position", "progress", "variables")}
        else:
            _check(old.state, new.state)
        asked = {"b_id": old.id, "b_old_state": old.state.value, "b_old_position": old.position}
        if self.connection.execute(statement, values | asked).rowcount == 0:
            return False
        if old.state is not new.state:
            self._record(old.id, None, old.state, new.state, reason=reason)
            if new.state not in JOB_ACTIVE:
                self.ended.append(old.id)
        return True

    def delete_job(self, job: Job) -> bool:
        return self.connection.execute(_DELETE_JOB, {"b_id": job.id, "b_old_state": job.state.value}).rowcount > 0

    def add_tasks(self, added: Sequence[Task]) -> None:
        if added:
            self.connection.execute(_INSERT_TASK, [self.rows.new_task_values(task) for task in added])
        for task in added:
            self._record(task.job_id, task.id, None, task.state)
            self._announce(task)

    def task(self, old: Task, new: Task, reason: str | None = None) -> bool:
        """False when the task is no longer what was read, or claimed by somebody else."""
        _check(old.state, new.state)
        asked = {"b_id": old.id, "b_old_state": old.state.value, "b_old_claim": old.claim_id}
        if self.connection.execute(_CHANGE_TASK, self.rows.task_values(new) | asked).rowcount == 0:
            return False
        self._record(old.job_id, old.id, old.state, new.state, old.node_id, reason)
        self._announce(new)
        return True

    def cancel_tasks(self, job_id: str, reason: str) -> None:
        """Everything of a job that waits or runs."""
        for row in self.connection.execute(_ACTIVE_TASKS, {"b_job": job_id}).fetchall():
            task = self.rows.task(row)
            self.task(task, replace(task, state=TaskState.CANCELLED, lease_until=None), reason)
            if task.claim_id:
                self.void.append(task.claim_id)

    def claim(self, node_id: str, queue: str, runtimes: Collection[str], lease_until: int) -> tuple[Task, str] | None:
        """The next task of a queue, RUNNING from now on, and the sealed secrets of its job."""
        found = [
            (-row.priority, row.seq)
            for runtime in runtimes
            for row in self.connection.execute(_NEXT_IN_QUEUE, {"b_queue": queue, "b_runtime": runtime})
        ]
        if not found:
            return None
        claimed = {"node_id": node_id, "claim_id": uuid4().hex, "lease_until": lease_until}
        asked = {"b_seq": min(found)[1], "b_now": self.now_us}
        row = self.connection.execute(_CLAIM, claimed | asked).one_or_none()
        if row is None:
            return None
        self._record(row.job_id, row.id, TaskState.SCHEDULED, TaskState.RUNNING, node_id)
        state, secrets = self.connection.execute(_CLAIMED_JOB, {"b_id": row.job_id}).one()
        if state == JobState.SCHEDULED:
            self.connection.execute(_RUN_JOB, {"b_id": row.job_id})
            self._record(row.job_id, None, JobState.SCHEDULED, JobState.RUNNING)
        return self.rows.task(row), secrets

    def progress(self, claim_id: str, task_id: str, percent: float) -> bool:
        asked = {"b_id": task_id, "b_claim": claim_id, "progress": percent}
        job_id = self.connection.execute(_TASK_PROGRESS, asked).scalar_one_or_none()
        if job_id is not None:
            self.connection.execute(_JOB_PROGRESS, {"b_id": job_id, "b_part": percent / 100})
        return job_id is not None

    def log(self, claim_id: str, task_id: str, parts: Iterable[str]) -> bool:
        """Also of a task that was cancelled: what it said last is worth knowing."""
        if self.connection.execute(_IS_CLAIMED, {"b_id": task_id, "b_claim": claim_id}).scalar_one_or_none() is None:
            return False
        last = self.connection.execute(_LAST_LOG, {"b_task": task_id}).scalar_one() or 0
        common = {"task_id": task_id, "created_at": self.now_us}
        values = [
            {**common, "id": uuid4().hex, "number": number, "contents": contents}
            for number, contents in enumerate(parts, last + 1)
        ]
        if values:
            self.connection.execute(_INSERT_LOG, values)
        return True

    def extend_leases(self, claims: Mapping[str, str], lease_until: int) -> set[str]:
        """Ids of the tasks whose claim still stands. claims: task id to claim id."""
        kept: set[str] = set()
        for start in range(0, len(claims), MAX_BOUND):
            some = dict(list(claims.items())[start : start + MAX_BOUND])
            asked = {"b_ids": list(some), "b_claims": list(some.values()), "lease_until": lease_until}
            kept.update(self.connection.execute(_EXTEND_LEASES, asked).scalars())
        return kept

    def _announce(self, task: Task) -> None:
        if task.state is TaskState.SCHEDULED and task.queue is not None:
            self.queues.append(task.queue)
        elif task.state is TaskState.PENDING:
            self.has_delayed = True

    def _record(
        self,
        job_id: str,
        task_id: str | None,
        old: JobState | TaskState | None,
        new: JobState | TaskState,
        node_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        self.events.append(
            {
                "job_id": job_id,
                "task_id": task_id,
                "old_state": old,
                "new_state": new,
                "at": self.now_us,
                "node_id": node_id,
                "reason": reason,
            }
        )

    def write_events(self) -> None:
        if self.events:
            self.connection.execute(_INSERT_EVENTS, self.events)


class JobStore:
    """Any thread may call it."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        self._db = db
        self.rows = Rows(sealer)

    @contextmanager
    def changes(self, now_us: int, *, is_durable: bool = True) -> Iterator[Changes]:
        """One transaction; kept whole, or not at all. is_durable: see Database.transaction()."""
        with self._db.transaction(is_durable=is_durable) as connection:
            made = Changes(connection, self.rows, now_us)
            yield made
            made.write_events()

    def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        with self._db.read() as connection:
            row = connection.execute(_JOB, {"b_id": job_id}).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        return self.rows.job(row)

    def running(self, claim_id: str, task_id: str) -> tuple[Task, Job] | None:
        """A task and its job while the claim stands."""
        with self._db.read() as connection:
            task = connection.execute(_RUNNING, {"b_id": task_id, "b_claim": claim_id}).one_or_none()
            if task is None:
                return None
            job = connection.execute(_JOB, {"b_id": task.job_id}).one()
        return self.rows.task(task), self.rows.job(job)

    def pending_jobs(self, limit: int) -> list[Job]:
        """Oldest first."""
        with self._db.read() as connection:
            return [self.rows.job(row) for row in connection.execute(_PENDING_JOBS, {"b_limit": limit})]

    def due_tasks(self, now_us: int, limit: int) -> list[Task]:
        """PENDING ones whose time has come."""
        return self._tasks(_DUE_TASKS, b_now=now_us, b_limit=limit)

    def next_due(self) -> int | None:
        """When the time of the next PENDING one comes."""
        with self._db.read() as connection:
            found: int | None = connection.execute(_NEXT_DUE).scalar_one()
        return found

    def expired_tasks(self, now_us: int, limit: int) -> list[Task]:
        """RUNNING ones whose node has been silent for too long."""
        return self._tasks(_EXPIRED_TASKS, b_now=now_us, b_limit=limit)

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return self._tasks(_TASKS_OF_NODE, b_node=node_id)

    def is_waited_for(self, queue: str) -> bool:
        """Whether a task waits in the queue."""
        with self._db.read() as connection:
            return connection.execute(_IS_WAITED_FOR, {"b_queue": queue}).first() is not None

    def waiting_jobs(self, queue: str, limit: int) -> list[str]:
        """Ids of jobs that have a task in the queue."""
        with self._db.read() as connection:
            return list(connection.execute(_WAITING_JOBS, {"b_queue": queue, "b_limit": limit}).scalars())

    def is_served(self, queue: str) -> bool:
        """Whether a node takes tasks from the queue."""
        with self._db.read() as connection:
            return queue in consumers(connection, clock.now_us())

    def _tasks(self, statement: sa.Select[Any], **asked: object) -> list[Task]:
        with self._db.read() as connection:
            return [self.rows.task(row) for row in connection.execute(statement, asked)]


def _check(old: JobState | TaskState, new: JobState | TaskState) -> None:
    if old.value not in sources(new):
        raise Illegal(f"{old} -> {new}")
