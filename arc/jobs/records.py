"""What the tables of jobs hold, as values: unsealed, and never changed in place.

Instants are microseconds since the epoch, UTC. Definitions and documents are dicts in the shape of the API (camelCase).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arc.errors import NotFound
from arc.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc.jobs.states import TaskState

T = TypeVar("T")
ENCRYPTED = "[encrypted]"  # in place of what was sealed with another key


class JobNotFound(NotFound):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job with id {job_id!r}")


class TaskNotFound(NotFound):
    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task with id {task_id!r}")


class QueueNotFound(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"queue {name} not found")


@dataclass(frozen=True)
class Job:
    """document: as submitted, without secrets. variables: results of tasks with `var`. progress: percent."""

    seq: int
    id: str
    parent_id: str | None
    schedule_id: str | None
    name: str
    description: str
    tags: tuple[str, ...]
    state: JobState
    created_at: int
    created_by: str
    started_at: int | None
    completed_at: int | None
    failed_at: int | None
    delete_at: int | None
    position: int
    task_count: int
    progress: float
    document: Mapping[str, Any] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    result: str | None = field(repr=False)
    error: str | None = field(repr=False)
    is_sealed: bool = False  # it holds secrets, so its texts are encrypted at rest
    is_readable: bool = True  # False: sealed with another key

    @property
    def is_ended(self) -> bool:
        return self.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """Top-level tasks as submitted."""
        found: list[dict[str, Any]] = self.document.get("tasks", [])
        return found


@dataclass(frozen=True)
class Task:
    """One attempt at one task. definition: evaluated, defaults merged. attempts: retries before this record."""

    seq: int
    id: str
    job_id: str
    parent_id: str | None
    subjob_id: str | None
    child_index: int | None
    position: int
    state: TaskState
    queue: str | None
    priority: int
    runtime: str  # container, process, none
    created_at: int
    available_at: int
    scheduled_at: int | None
    started_at: int | None
    completed_at: int | None
    failed_at: int | None
    node_id: str | None
    claim_id: str | None
    lease_until: int | None
    redelivered: int
    attempts: int
    progress: float
    definition: Mapping[str, Any] = field(repr=False)
    result: str | None = field(repr=False)
    error: str | None = field(repr=False)
    size: int | None = None
    completions: int | None = None
    is_sealed: bool = False
    is_readable: bool = True


@dataclass(frozen=True)
class Claim:
    """What a worker gets. claim_id: of this delivery; every report carries it. secrets: to keep out of the log."""

    claim_id: str
    task: Task
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class LogPart:
    """number: from 1 within the task."""

    id: str
    task_id: str
    number: int
    contents: str
    created_at: int


@dataclass(frozen=True)
class Event:
    """A change of a state. task_id: None for the job's own; old_state: None when it was created."""

    id: int
    job_id: str
    task_id: str | None
    old_state: str | None
    new_state: str
    at: int
    node_id: str | None
    reason: str | None


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself. status: UP, or DOWN with the reason as detail. queues: name to consumers."""

    id: str
    name: str
    kind: str  # coordinator, worker
    hostname: str
    version: str
    status: str
    detail: str
    queues: Mapping[str, int]
    started_at: int
    cpu_percent: float
    task_count: int


@dataclass(frozen=True)
class Node:
    """status: UP, DOWN, or OFFLINE when it has been silent."""

    id: str
    name: str
    kind: str
    hostname: str
    version: str
    status: str
    detail: str
    queues: Mapping[str, int]
    started_at: int
    last_heartbeat_at: int
    cpu_percent: float
    task_count: int


@dataclass(frozen=True)
class Queue:
    """size: tasks that wait. subscribers: consumers on nodes that are heard of. unacked: tasks that run."""

    name: str
    size: int
    subscribers: int
    unacked: int


@dataclass(frozen=True)
class Counts:
    """What runs now. online: nodes that are listed, whatever their status; cpu_percent: their mean."""

    running_jobs: int
    running_tasks: int
    online_nodes: int
    cpu_percent: float


@dataclass(frozen=True)
class Page(Generic[T]):
    """items: of page `number` (from 1), at most `size`. total: of all pages."""

    items: list[T]
    number: int
    size: int
    total: int

    @property
    def total_pages(self) -> int:
        return -(-self.total // self.size)
