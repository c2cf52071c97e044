"""Owns every change of a job: what is submitted, what workers report, what users ask for.

submit -> PENDING -> JobStarter -> first task SCHEDULED -> claim -> complete or fail -> next task or end of the job
Expressions are evaluated before a transaction begins, and its UPDATEs ask for the state that was read; so nobody
waits for an expression, and who comes too late changes nothing.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from arc import clock
from arc.clock import US_PER_S
from arc.errors import Cancelled, Conflict, Denied, Invalid, TimedOut, Unavailable
from arc.jobs.documents.unbuilt import refuse_unbuilt
from arc.jobs.nodes import save_node
from arc.jobs.planning import Plan, failed, retry_of
from arc.jobs.queuenames import is_for_tasks
from arc.jobs.records import Claim, Job, QueueNotFound
from arc.jobs.redaction import Redactor
from arc.jobs.rows import holds_secrets
from arc.jobs.signals import EndWaiters, WorkSignals
from arc.jobs.states import JOB_ACTIVE, JobState, TaskState
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from arc.jobs.documents.models import JobDocument
    from arc.jobs.planning import Planner
    from arc.jobs.records import NodeReport, Task
    from arc.jobs.store import Changes, JobStore

BATCH = 50  # jobs or tasks per transaction
FALLBACK_S = 1.0  # how late a change by another process is noticed
MAX_REDELIVERIES = 5
MAX_LOG_BYTES = 64 * 1024  # of one log part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CoordinatorOptions:
    lease_s: float = 60.0
    max_result_bytes: int = 64 * 1024


class Coordinator:
    """Any thread may call it; each method is one transaction."""

    def __init__(self, store: JobStore, planner: Planner, options: CoordinatorOptions) -> None:
        self._store = store
        self._planner = planner
        self._options = options
        self._signals = WorkSignals()
        self._stop_listeners: list[Callable[[Collection[str]], None]] = []
        self._waiters = EndWaiters()
        self.starter = JobStarter(self)
        self.sweeper = LeaseSweeper(self)

    # what users ask for

    def submit(self, document: JobDocument, *, created_by: str, may_run_processes: bool) -> Job:
        """Raises Invalid, and Denied when a task would run as a process of this host and may_run_processes is False."""
        refuse_unbuilt(document)
        submitted = document.as_submitted()
        self._check_leave(submitted, may_run_processes)
        with self._changes(now_us := clock.now_us()) as changes:
            job = changes.add_job(_new_job(submitted, created_by, now_us))
        self.starter.wake()
        return job

    def cancel(self, job_id: str) -> None:
        """Raises JobNotFound, Invalid."""
        if not self._cancel(job_id, "cancelled by a user"):
            raise Invalid("job is not running")

    def restart(self, job_id: str, *, may_run_processes: bool) -> None:
        """Run the current task of a failed or cancelled job again. Raises JobNotFound, Invalid; Denied as submit()."""
        job = self._store.job(job_id)
        self._check_leave(job.document, may_run_processes)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            raise Invalid(f"job is {job.state} and can not be restarted")
        if job.position > job.task_count:
            raise Invalid("job has no more tasks to run")
        now_us = clock.now_us()
        again = replace(
            job,
            state=JobState.RUNNING,
            started_at=job.started_at or now_us,
            failed_at=None,
            error=None,
            position=max(job.position, 1),
        )
        plan = self._planner.advance(again, again.position, now_us)
        with self._changes(now_us) as changes:
            if not changes.job(job, again, "restarted by a user"):
                raise Conflict("the job was restarted by somebody else")
            _apply(changes, again, plan)

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its tasks, logs and events. Raises JobNotFound, Conflict."""
        job = self._store.job(job_id)
        with self._changes(clock.now_us()) as changes:
            is_deleted = job.is_ended and changes.delete_job(job)
        if not is_deleted:
            raise Conflict(f"job is {job.state}; only ended jobs can be deleted")

    def purge_queue(self, name: str) -> int:
        """Cancel the jobs whose tasks wait in a queue; returns how many. Raises Invalid, QueueNotFound."""
        if not is_for_tasks(name):
            raise Invalid(f"queue {name} is not a task queue")
        purged = 0
        while waiting := self._store.waiting_jobs(name, BATCH):
            jobs, now_us = [self._store.job(job_id) for job_id in dict.fromkeys(waiting)], clock.now_us()
            with self._changes(now_us) as changes:
                purged += sum(_cancelled(changes, job, "its queue was purged") for job in jobs)
        if not purged and not self._store.is_served(name):
            raise QueueNotFound(name)
        return purged

    def wait(self, job_id: str, timeout_s: float, is_gone: Callable[[], bool]) -> Job:
        """The job once it has ended. is_gone: whether nobody waits for the answer any more.

        Raises TimedOut, Cancelled, JobNotFound, and Unavailable when the server stops.
        """
        ends_at = time.monotonic() + timeout_s
        with self._waiters.waiting_for(job_id) as ended:
            while not (job := self._store.job(job_id)).is_ended:
                if self._waiters.is_closed:
                    raise Unavailable("server shutting down")
                if is_gone():
                    raise Cancelled("request cancelled")
                if (left_s := ends_at - time.monotonic()) <= 0:
                    raise TimedOut("timeout waiting for job to complete")
                ended.wait(min(left_s, FALLBACK_S))
                ended.clear()  # it may have been restarted by now
        return job

    def stop(self) -> None:
        """Wake everybody who waits."""
        self._waiters.close()
        self._signals.close()

    # what workers ask for and report

    def claim(self, node_id: str, queue: str, runtimes: Collection[str]) -> Claim | None:
        """Start the next task of a queue that one of the runtimes (container, process) can run."""
        self._signals.look(queue)
        now_us = clock.now_us()
        with self._changes(now_us, is_durable=False) as changes:
            found = changes.claim(node_id, queue, runtimes, self._lease_until(now_us))
        if found is None:
            return None
        task, secrets = found
        assert task.claim_id is not None  # noqa: S101 - for the type checker
        return Claim(task.claim_id, task, self._store.rows.secrets(secrets))

    def wait_for_work(self, queue: str, timeout_s: float) -> None:
        """Return when a task may have come into the queue since this thread's last claim, or after timeout_s."""
        self._signals.wait(queue, timeout_s)

    def progress(self, claim_id: str, task_id: str, percent: float) -> bool:
        with self._changes(clock.now_us(), is_durable=False) as changes:
            return changes.progress(claim_id, task_id, round(min(max(percent, 0.0), 100.0), 2))

    def log(self, claim_id: str, task_id: str, contents: str) -> bool:
        """contents: redacted by the worker, which alone sees secrets that two parts share."""
        with self._changes(clock.now_us(), is_durable=False) as changes:
            return changes.log(claim_id, task_id, _parts(_clean(contents)))

    def complete(self, claim_id: str, task_id: str, result: str) -> bool:
        result = _clean(result)
        if (size := len(result.encode())) > (limit := self._options.max_result_bytes):
            return self.fail(claim_id, task_id, f"task result exceeds maximum size of {limit:d} bytes (got {size})")
        found = self._store.running(claim_id, task_id)
        if found is None:
            return False
        (task, job), now_us = found, clock.now_us()
        done = replace(task, state=TaskState.COMPLETED, completed_at=now_us, result=result or None, lease_until=None)
        name = task.definition.get("var")
        variables = {**job.variables, name: result} if name and result else job.variables
        plan = self._planner.advance(replace(job, variables=variables), job.position + 1, now_us)
        with self._changes(now_us) as changes:
            is_done = changes.task(task, done)
            if is_done:
                _apply(changes, job, plan)
        return is_done

    def fail(self, claim_id: str, task_id: str, error: str) -> bool:
        found = self._store.running(claim_id, task_id)
        return found is not None and self._fail(*found, _clean(error))

    def release(self, claim_id: str, task_id: str) -> bool:
        """Back into its queue: it could not be tried, or its worker stops."""
        found = self._store.running(claim_id, task_id)
        return found is not None and self._give_back(found[0], found[0].redelivered, "given back by its node")

    def heartbeat(self, node: NodeReport, claims: Mapping[str, str]) -> set[str]:
        """claims: task id to claim id of what the node runs. Returns ids of tasks that it has to stop."""
        now_us = clock.now_us()
        with self._changes(now_us, is_durable=False) as changes:
            save_node(changes.connection, node, now_us)
            return set(claims) - changes.extend_leases(claims, self._lease_until(now_us))

    def subscribe_stops(self, callback: Callable[[Collection[str]], None]) -> None:
        """The callback is told the claims that have become void, from any thread."""
        self._stop_listeners.append(callback)

    def recover(self, node_id: str) -> int:
        """Give back what a node ran when it died. Returns how many tasks."""
        found = self._store.tasks_of_node(node_id)
        return sum(self._redeliver(task, "its node was started again") for task in found)

    # what loops do

    def start_pending(self, now_us: int) -> int:
        """Create the first tasks of jobs that were submitted; put tasks into their queues whose time has come."""
        started = self._start_jobs(now_us) + self._schedule_due(now_us)
        for queue in self._signals.waited_for():
            if self._store.is_waited_for(queue):
                self._signals.send_all(queue)
        return started

    def next_due(self) -> int | None:
        """When the time of the next delayed task comes."""
        return self._store.next_due()

    def redeliver_expired(self, now_us: int) -> int:
        """Give tasks to another node whose own has been silent for too long."""
        expired = self._store.expired_tasks(now_us, BATCH)
        return sum(self._redeliver(task, "its node is silent") for task in expired)

    def _start_jobs(self, now_us: int) -> int:
        started = 0
        while found := self._store.pending_jobs(BATCH):
            try:
                self._start(found, now_us)
            except Exception:  # one of them; the others shall not wait for it
                log.exception("jobs cannot be started together")
                for job in found:
                    self._start_alone(job, now_us)
            started += len(found)
        return started

    def _start(self, found: Sequence[Job], now_us: int) -> None:
        started = [replace(job, state=JobState.SCHEDULED, started_at=now_us, position=1) for job in found]
        plans = [self._planner.advance(job, 1, now_us) for job in started]
        with self._changes(now_us, is_durable=False) as changes:
            for old, new, plan in zip(found, started, plans, strict=True):
                if changes.job(old, new):
                    _apply(changes, new, plan)

    def _start_alone(self, job: Job, now_us: int) -> None:
        try:
            self._start([job], now_us)
        except Unavailable:
            raise  # the next pass tries again
        except Exception:
            log.exception("job %s cannot be started", job.id)
            with self._changes(now_us) as changes:
                changes.job(job, failed(job, "internal error, see the server's log", now_us))

    def _schedule_due(self, now_us: int) -> int:
        due = self._store.due_tasks(now_us, BATCH)
        if due:
            with self._changes(now_us) as changes:
                for task in due:
                    changes.task(task, replace(task, state=TaskState.SCHEDULED, scheduled_at=now_us))
        return len(due)

    def _fail(self, task: Task, job: Job, error: str) -> bool:
        now_us = clock.now_us()
        ended = replace(task, state=TaskState.FAILED, failed_at=now_us, error=error, lease_until=None)
        retry = retry_of(task, now_us)
        with self._changes(now_us) as changes:
            if not changes.task(task, ended):
                return False
            if retry is not None:
                changes.add_tasks([retry])
            else:
                _apply(changes, job, Plan(failed(job, error, now_us)))
                changes.cancel_tasks(job.id, "the job failed")
        return True

    def _check_leave(self, document: Mapping[str, Any], may_run_processes: bool) -> None:
        if not may_run_processes and self._planner.has_processes(document["tasks"]):
            raise Denied("tasks without an image run as processes of this host; that needs a token that may administer")

    def _cancel(self, job_id: str, reason: str) -> bool:
        job = self._store.job(job_id)
        while job.state in JOB_ACTIVE:
            with self._changes(clock.now_us()) as changes:
                if _cancelled(changes, job, reason):
                    return True
            job = self._store.job(job_id)  # it went on meanwhile
        return False

    def _redeliver(self, task: Task, reason: str) -> bool:
        if task.redelivered >= MAX_REDELIVERIES:
            return self._fail(task, self._store.job(task.job_id), "task redelivered too many times")
        return self._give_back(task, task.redelivered + 1, reason)

    def _give_back(self, task: Task, redelivered: int, reason: str) -> bool:
        waiting = replace(task, state=TaskState.SCHEDULED, claim_id=None, lease_until=None, redelivered=redelivered)
        with self._changes(clock.now_us()) as changes:
            is_given = changes.task(task, waiting, reason)
            if is_given and task.claim_id:
                changes.void.append(task.claim_id)
        return is_given

    def _lease_until(self, now_us: int) -> int:
        return now_us + int(self._options.lease_s * US_PER_S)

    @contextmanager
    def _changes(self, now_us: int, *, is_durable: bool = True) -> Iterator[Changes]:
        """is_durable: False for what nobody relies on after a power cut, since all that runs ends with it."""
        with self._store.changes(now_us, is_durable=is_durable) as changes:
            yield changes
        for queue in changes.queues:
            self._signals.send(queue)
        for job_id in changes.ended:
            self._waiters.tell(job_id)
        if changes.has_delayed:
            self.starter.wake()
        if changes.void:
            for listener in self._stop_listeners:
                listener(changes.void)


class JobStarter(PeriodicLoop):
    """Takes up what was submitted, at once; and what only time or another process tells, every second."""

    name = "job-starter"

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(FALLBACK_S)
        self._coordinator = coordinator

    def step(self, now_us: int) -> int:
        started = self._coordinator.start_pending(now_us)
        due = self._coordinator.next_due()
        self.interval_s = FALLBACK_S if due is None else min(FALLBACK_S, max(0, due - clock.now_us()) / US_PER_S)
        return started


class LeaseSweeper(PeriodicLoop):
    """Notices nodes that died."""

    name = "lease-sweeper"

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(5.0)
        self._coordinator = coordinator

    def step(self, now_us: int) -> int:
        return self._coordinator.redeliver_expired(now_us)


def _apply(changes: Changes, job: Job, plan: Plan) -> None:
    """Carry out a plan for a job as it is now. Raises Conflict, which undoes the transaction."""
    if plan.job != job and not changes.job(job, plan.job):
        raise Conflict(f"job {job.id} has changed meanwhile")
    changes.add_tasks(plan.tasks)


def _new_job(submitted: dict[str, Any], created_by: str, now_us: int) -> Job:
    """Name and description can be searched for, so they must not hold secrets."""
    secrets = submitted.pop("secrets", None) or {}
    redactor = Redactor(secrets)
    return Job(
        seq=0,  # the database gives it
        id=uuid4().hex,
        parent_id=None,
        schedule_id=None,
        name=redactor.text(submitted["name"]),
        description=redactor.text(submitted.get("description") or ""),
        tags=tuple(map(redactor.text, submitted.get("tags") or ())),
        state=JobState.PENDING,
        created_at=now_us,
        created_by=created_by,
        started_at=None,
        completed_at=None,
        failed_at=None,
        delete_at=None,
        position=0,
        task_count=len(submitted["tasks"]),
        progress=0.0,
        document=submitted,
        secrets=secrets,
        variables={},
        result=None,
        error=None,
        is_sealed=holds_secrets(secrets, submitted),
    )


def _cancelled(changes: Changes, job: Job, reason: str) -> bool:
    """False when the job has ended or is no longer what was read."""
    if job.is_ended or not changes.job(job, replace(job, state=JobState.CANCELLED), reason):
        return False
    changes.cancel_tasks(job.id, reason)
    return True


def _clean(text: str) -> str:
    """Text that every database takes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _parts(text: str) -> Iterator[str]:
    """Pieces of at most MAX_LOG_BYTES that cut no character in two."""
    data = text.encode()
    while data:
        end = MAX_LOG_BYTES
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[:end].decode()
        data = data[end:]
