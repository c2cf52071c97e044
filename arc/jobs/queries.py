"""Reads of jobs, tasks, logs, events, queues and nodes.

Lists go by indexes only: a page costs the same however many jobs there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arc.db.engine import Database
    from arc.jobs.records import Counts, Event, Job, LogPart, Node, Page, Queue, Task
    from arc.jobs.sealing import Sealer


class JobReader:
    """Any thread may call it; each method sees one state of the database."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        self._db = db
        self._sealer = sealer

    def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        raise NotImplementedError

    def tasks(self, job_id: str) -> list[Task]:
        """All attempts at tasks of a job, in the order they ran; those that have not started come last."""
        raise NotImplementedError

    def task(self, task_id: str) -> tuple[Task, Job]:
        """The task and its job, whose secrets hide in it. Raises TaskNotFound."""
        raise NotImplementedError

    def list_jobs(self, page: int, size: int, terms: Sequence[str] = (), tags: Sequence[str] = ()) -> Page[Job]:
        """Newest first: those that hold all terms and at least one of the tags."""
        raise NotImplementedError

    def job_log(self, job_id: str, page: int, size: int, terms: Sequence[str] = ()) -> Page[LogPart]:
        """Newest first; total ignores the terms. Raises JobNotFound."""
        raise NotImplementedError

    def task_log(self, task_id: str, page: int, size: int, terms: Sequence[str] = ()) -> Page[LogPart]:
        """Newest first; total ignores the terms. Raises TaskNotFound."""
        raise NotImplementedError

    def events(self, job_id: str) -> list[Event]:
        """Every change of a state, oldest first. Raises JobNotFound."""
        raise NotImplementedError

    def queues(self) -> list[Queue]:
        """Work queues that somebody serves or that tasks wait in, by name."""
        raise NotImplementedError

    def queue(self, name: str) -> Queue:
        """Raises QueueNotFound."""
        raise NotImplementedError

    def nodes(self) -> list[Node]:
        """Nodes heard of in the last five minutes, by name."""
        raise NotImplementedError

    def counts(self) -> Counts:
        raise NotImplementedError
