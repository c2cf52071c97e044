"""Reads of jobs, tasks, logs, events, queues and nodes.

Lists go by indexes only: a page costs the same however many jobs there are. A page is found in two steps, first the
numbers of its rows, then the rows, so that nothing reads documents it does not show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select

from arc import clock
from arc.db import fulltext
from arc.db.tables import job_events, jobs, task_logs, tasks
from arc.jobs.nodes import consumers, listed_nodes
from arc.jobs.records import (
    Counts,
    Event,
    Job,
    JobNotFound,
    LogPart,
    Page,
    Queue,
    QueueNotFound,
    Task,
    TaskNotFound,
)
from arc.jobs.rows import Rows
from arc.jobs.states import JobState, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arc.db.engine import Database
    from arc.jobs.records import Node
    from arc.jobs.sealing import Sealer

_SEARCHED = ("name", "description", "state")
MAX_OFFSET = 2**62  # what databases take

_JOB = select(jobs).where(jobs.c.id == bindparam("b_id"))
_JOB_ROWS = (
    select(jobs)
    .where(jobs.c.seq.in_(bindparam("b_seqs", expanding=True)))
    .order_by(jobs.c.created_at.desc(), jobs.c.seq.desc())
)
_SEQS = select(jobs.c.seq)
_TASK = select(tasks).where(tasks.c.id == bindparam("b_id"))
_TASKS = (
    select(tasks)
    .where(tasks.c.job_id == bindparam("b_id"))
    .order_by(tasks.c.position, tasks.c.started_at.asc().nulls_last(), tasks.c.seq)
)
_EVENTS = select(job_events).where(job_events.c.job_id == bindparam("b_id")).order_by(job_events.c.id)
_LOG = select(task_logs.c.id, task_logs.c.task_id, task_logs.c.number, task_logs.c.contents, task_logs.c.created_at)
_TASK_LOG = _LOG.where(task_logs.c.task_id == bindparam("b_id")).order_by(task_logs.c.number.desc())
_JOB_LOG = (
    _LOG.join(tasks, tasks.c.id == task_logs.c.task_id)
    .where(tasks.c.job_id == bindparam("b_id"))
    .order_by(
        tasks.c.position.desc(), tasks.c.created_at.desc(), task_logs.c.number.desc(), task_logs.c.created_at.desc()
    )
)
_LOG_EXTENT = select(func.count(), func.min(task_logs.c.seq), func.max(task_logs.c.seq))
_TASK_LOG_EXTENT = _LOG_EXTENT.where(task_logs.c.task_id == bindparam("b_id"))
_JOB_LOG_EXTENT = _LOG_EXTENT.join(tasks, tasks.c.id == task_logs.c.task_id).where(tasks.c.job_id == bindparam("b_id"))
_BY_QUEUE = (
    select(tasks.c.queue, func.count())
    .where(tasks.c.state == bindparam("b_state"), tasks.c.queue.is_not(None))
    .group_by(tasks.c.queue)
)
_RUNNING_JOBS = select(func.count()).select_from(jobs).where(jobs.c.state == JobState.RUNNING.value)
_RUNNING_TASKS = select(func.count()).select_from(tasks).where(tasks.c.state == TaskState.RUNNING.value)


class JobReader:
    """Any thread may call it; each method sees one state of the database."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        self._db = db
        self._rows = Rows(sealer)

    def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        with self._db.read() as connection:
            return self._job(connection, job_id)

    def tasks(self, job_id: str) -> list[Task]:
        """All attempts at tasks of a job, in the order they ran; those that have not started come last."""
        with self._db.read() as connection:
            return [self._rows.task(row) for row in connection.execute(_TASKS, {"b_id": job_id})]

    def task(self, task_id: str) -> tuple[Task, Job]:
        """The task and its job, whose secrets hide in it. Raises TaskNotFound."""
        with self._db.read() as connection:
            task = self._task(connection, task_id)
            return task, self._job(connection, task.job_id)

    def list_jobs(
        self,
        page: int,
        size: int,
        terms: Sequence[str] = (),
        tags: Sequence[str] = (),
        state: JobState | None = None,
    ) -> Page[Job]:
        """Newest first: those that hold all terms and at least one of the tags, and are in this state."""
        seqs: sa.Select[Any]
        if terms or tags:
            seqs = fulltext.found(jobs, _SEARCHED, terms, tags)
            seqs = seqs if state is None else _SEQS.where(jobs.c.seq.in_(seqs), jobs.c.state == state.value)
            ordered = seqs.order_by(sa.desc("seq"))
        else:
            seqs = _SEQS if state is None else _SEQS.where(jobs.c.state == state.value)
            ordered = seqs.order_by(jobs.c.created_at.desc(), jobs.c.seq.desc())
        with self._db.read() as connection:
            total = connection.execute(select(func.count()).select_from(seqs.subquery())).scalar_one()
            shown = connection.execute(_paged(ordered, page, size)).scalars().all()
            rows = connection.execute(_JOB_ROWS, {"b_seqs": shown}).fetchall() if shown else []
        return Page([self._rows.job(row) for row in rows], page, size, total)

    def job_log(self, job_id: str, page: int, size: int, terms: Sequence[str] = ()) -> Page[LogPart]:
        """Newest first; total ignores the terms. Raises JobNotFound."""
        with self._db.read() as connection:
            self._job(connection, job_id)
            return _log(connection, _JOB_LOG, _JOB_LOG_EXTENT, job_id, page, size, terms)

    def task_log(self, task_id: str, page: int, size: int, terms: Sequence[str] = ()) -> Page[LogPart]:
        """Newest first; total ignores the terms. Raises TaskNotFound."""
        with self._db.read() as connection:
            self._task(connection, task_id)
            return _log(connection, _TASK_LOG, _TASK_LOG_EXTENT, task_id, page, size, terms)

    def events(self, job_id: str) -> list[Event]:
        """Every change of a state, oldest first. Raises JobNotFound."""
        with self._db.read() as connection:
            self._job(connection, job_id)
            return [Event(**row._mapping) for row in connection.execute(_EVENTS, {"b_id": job_id})]

    def queues(self) -> list[Queue]:
        """Work queues that somebody serves or that tasks wait in, by name."""
        with self._db.read() as connection:
            waiting = _by_queue(connection, TaskState.SCHEDULED)
            running = _by_queue(connection, TaskState.RUNNING)
            served = consumers(connection, clock.now_us())
        names = sorted(waiting.keys() | running.keys() | served.keys())
        return [Queue(name, waiting.get(name, 0), served.get(name, 0), running.get(name, 0)) for name in names]

    def queue(self, name: str) -> Queue:
        """Raises QueueNotFound."""
        for queue in self.queues():
            if queue.name == name:
                return queue
        raise QueueNotFound(name)

    def nodes(self) -> list[Node]:
        """Nodes heard of in the last five minutes, by name."""
        with self._db.read() as connection:
            return listed_nodes(connection, clock.now_us())

    def counts(self) -> Counts:
        with self._db.read() as connection:
            running_jobs = connection.execute(_RUNNING_JOBS).scalar_one()
            running_tasks = connection.execute(_RUNNING_TASKS).scalar_one()
            nodes = listed_nodes(connection, clock.now_us())
        cpu_percent = sum(node.cpu_percent for node in nodes) / len(nodes) if nodes else 0.0
        return Counts(running_jobs, running_tasks, len(nodes), cpu_percent)

    def _job(self, connection: sa.Connection, job_id: str) -> Job:
        row = connection.execute(_JOB, {"b_id": job_id}).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        return self._rows.job(row)

    def _task(self, connection: sa.Connection, task_id: str) -> Task:
        row = connection.execute(_TASK, {"b_id": task_id}).one_or_none()
        if row is None:
            raise TaskNotFound(task_id)
        return self._rows.task(row)


def _paged(statement: sa.Select[Any], page: int, size: int) -> sa.Select[Any]:
    return statement.limit(size).offset(min((page - 1) * size, MAX_OFFSET))


def _log(
    connection: sa.Connection,
    statement: sa.Select[Any],
    extent: sa.Select[*tuple[Any, ...]],
    owner_id: str,
    page: int,
    size: int,
    terms: Sequence[str],
) -> Page[LogPart]:
    total, first, last = connection.execute(extent, {"b_id": owner_id}).one()
    if terms and total:  # without its bounds the index would list every part of every log that holds the terms
        found = fulltext.found(task_logs, ("contents",), terms, between=(first, last))
        statement = statement.where(task_logs.c.seq.in_(found))
    rows = connection.execute(_paged(statement, page, size), {"b_id": owner_id})
    return Page([LogPart(**row._mapping) for row in rows], page, size, total)


def _by_queue(connection: sa.Connection, state: TaskState) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(_BY_QUEUE, {"b_state": state.value})}
