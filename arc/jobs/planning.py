"""What comes next in a job: evaluates the definitions of its tasks and decides; touches no database.

Planner.advance(job, position) -> Plan: the job as it will be, and the records of tasks to create
Every field is evaluated exactly once, from the definition; a retry reuses what was evaluated.
Source: the jobs specification, sections 4.3, 4.8, 5.2 and 5.3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from arc.clock import US_PER_S
from arc.errors import ArcError, Invalid
from arc.jobs.durations import parse_duration
from arc.jobs.expressions import Allowance, Scope, render
from arc.jobs.queuenames import is_for_tasks
from arc.jobs.records import Task
from arc.jobs.states import JobState, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arc.jobs.records import Job

    Definition = Mapping[str, Any]
    Fill = Callable[[str], str]  # replaces the blocks of a template

CONTAINER, PROCESS = "container", "process"
DEFAULT_QUEUE = "default"
MAX_QUEUE = 256  # characters of a name
MAX_DELAY_US = 3600 * US_PER_S  # between two attempts
SCALING_FACTOR = 2.0  # of the delay, unless the document says otherwise
_TEXTS = ("name", "var", "image", "queue", "if")  # fields that are templates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """job: as it will be. tasks: to be created, in this order; all but the last are skipped ones."""

    job: Job
    tasks: tuple[Task, ...] = ()


class Planner:
    """runtime: auto, docker or shell, as [worker] runtime says."""

    def __init__(self, runtime: str = "auto") -> None:
        self._runtime = runtime

    def runtime_of(self, definition: Definition) -> str:
        """Decided by the definition as submitted: an expression cannot turn a container into a process."""
        if self._runtime == "auto":
            return CONTAINER if definition.get("image") else PROCESS
        return CONTAINER if self._runtime == "docker" else PROCESS

    def has_processes(self, definitions: Iterable[Definition]) -> bool:
        """Whether one of the tasks, or of those inside them, runs as a process."""
        return any(self._is_process(definition) for definition in definitions)

    def advance(self, job: Job, position: int, now_us: int) -> Plan:
        """The job from the task at `position` on: up to the first that is not skipped, or to its end."""
        if not job.is_readable:
            return Plan(failed(job, "what the job was submitted with cannot be decrypted", now_us))
        fill = partial(render, scope=scope_of(job), allowance=Allowance())
        created: list[Task] = []
        while position <= job.task_count:
            created.append(self._create(job, position, fill, now_us))
            if created[-1].state is not TaskState.SKIPPED:
                break
            position += 1
        percent = round((position - 1) / job.task_count * 100, 2)
        moved = replace(job, position=position, progress=max(job.progress, percent))
        if position > job.task_count:
            return Plan(_ended(moved, fill, now_us), tuple(created))
        if created[-1].state is TaskState.FAILED:
            moved = failed(moved, created[-1].error, now_us)
        return Plan(moved, tuple(created))

    def _is_process(self, definition: Definition) -> bool:
        inner = [
            *(definition.get("parallel") or {}).get("tasks", ()),
            *(definition.get("subjob") or {}).get("tasks", ()),
        ]
        if each := definition.get("each"):
            inner.append(each["task"])
        return self.has_processes(inner) if inner else self.runtime_of(definition) == PROCESS

    def _create(self, job: Job, position: int, fill: Fill, now_us: int) -> Task:
        submitted = job.definitions[position - 1]
        task = _new_task(job, position, self.runtime_of(submitted), submitted, now_us)
        try:
            definition = with_defaults(_evaluated(submitted, fill), job.document.get("defaults") or {})
            _check_queue(definition["queue"], submitted.get("queue") or "", job)
        except ArcError as error:
            return replace(task, state=TaskState.FAILED, failed_at=now_us, error=str(error))
        except Exception:
            log.exception("job %s: task %d cannot be created", job.id, position)
            return replace(task, state=TaskState.FAILED, failed_at=now_us, error="internal error, see the server's log")
        task = replace(task, definition=definition, queue=definition["queue"], priority=definition.get("priority", 0))
        if definition.get("if", "").strip() == "false":
            return replace(task, state=TaskState.SKIPPED, queue=None, started_at=now_us, completed_at=now_us)
        return task


def retry_of(task: Task, now_us: int) -> Task | None:
    """The next attempt at a failed task; None when there is none left."""
    retry = task.definition.get("retry") or {}
    if task.attempts >= retry.get("limit", 0):
        return None
    delay_us = _delay_us(retry, task.attempts)
    return replace(
        task,
        id=uuid4().hex,
        state=TaskState.PENDING if delay_us else TaskState.SCHEDULED,
        created_at=now_us,
        available_at=now_us + delay_us,
        scheduled_at=None if delay_us else now_us,
        started_at=None,
        failed_at=None,
        node_id=None,
        claim_id=None,
        lease_until=None,
        redelivered=0,
        attempts=task.attempts + 1,
        progress=0.0,
        error=None,
    )


def failed(job: Job, error: str | None, now_us: int) -> Job:
    return replace(job, state=JobState.FAILED, failed_at=now_us, error=error)


def scope_of(job: Job) -> Scope:
    """What expressions of a job see."""
    return Scope(
        inputs=job.document.get("inputs") or {},
        secrets=job.secrets,
        tasks=job.variables,
        job={"id": job.id, "name": job.name},
    )


def with_defaults(definition: Definition, defaults: Definition) -> dict[str, Any]:
    """What the task leaves open, as the job's defaults say; field by field."""
    merged = dict(definition)
    for name in ("queue", "timeout", "priority"):
        if not merged.get(name) and defaults.get(name):
            merged[name] = defaults[name]
    if limits := {**(defaults.get("limits") or {}), **_given(merged.get("limits"))}:
        merged["limits"] = limits
    if not (merged.get("retry") or {}).get("limit") and defaults.get("retry"):
        merged["retry"] = defaults["retry"]
    merged["queue"] = merged.get("queue") or DEFAULT_QUEUE
    return merged


def _new_task(job: Job, position: int, runtime: str, definition: Definition, now_us: int) -> Task:
    return Task(
        seq=0,  # the database gives it
        id=uuid4().hex,
        job_id=job.id,
        parent_id=None,
        subjob_id=None,
        child_index=None,
        position=position,
        state=TaskState.SCHEDULED,
        queue=None,
        priority=0,
        runtime=runtime,
        created_at=now_us,
        available_at=now_us,
        scheduled_at=now_us,
        started_at=None,
        completed_at=None,
        failed_at=None,
        node_id=None,
        claim_id=None,
        lease_until=None,
        redelivered=0,
        attempts=0,
        progress=0.0,
        definition=definition,
        result=None,
        error=None,
        is_sealed=job.is_sealed,
    )


def _check_queue(name: str, template: str, job: Job) -> None:
    """Names of queues are shown to everybody, so nothing of a secret may get into one. Raises Invalid."""
    if not is_for_tasks(name) or len(name) > MAX_QUEUE:
        raise Invalid(f"invalid queue: {name[:MAX_QUEUE]}")
    if job.secrets and "{{" in template and name != render(template, scope_of(replace(job, secrets={}))):
        raise Invalid("the name of a queue must not depend on a secret")


def _ended(job: Job, fill: Fill, now_us: int) -> Job:
    """All tasks are done: what the job results in."""
    try:
        result = fill(job.document.get("output") or "")
    except ArcError as error:
        return failed(job, str(error), now_us)
    keep = (job.document.get("autoDelete") or {}).get("after")
    return replace(
        job,
        state=JobState.COMPLETED,
        completed_at=now_us,
        result=result or None,
        delete_at=now_us + parse_duration(keep) if keep else None,
    )


def _evaluated(definition: Definition, fill: Fill) -> dict[str, Any]:
    """The definition of a task, or of a part before or after it, with its templates replaced."""
    made = dict(definition)
    for name in _TEXTS:
        if text := made.get(name):
            made[name] = fill(text)
    if cmd := made.get("cmd"):
        made["cmd"] = [fill(element) for element in cmd]
    if env := made.get("env"):
        made["env"] = {name: fill(value) for name, value in env.items()}
    for name in ("pre", "post"):
        if steps := made.get(name):
            made[name] = [_evaluated(step, fill) for step in steps]
    return made


def _given(values: Definition | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value}


def _delay_us(retry: Definition, attempts: int) -> int:
    """initialDelay x scalingFactor ^ attempts, at most an hour."""
    initial_us = parse_duration(retry.get("initialDelay") or "0")
    factor = retry.get("scalingFactor") or SCALING_FACTOR
    return max(0, min(int(initial_us * factor**attempts), MAX_DELAY_US))
