"""States of jobs and tasks, and the only changes between them that are legal.

JobStore -> sources(new state) -> conditional UPDATE + event row, in one transaction
Source: the state machines of the jobs specification, section 4.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobState(StrEnum):
    PENDING = "PENDING"  # stored, nothing created yet
    SCHEDULED = "SCHEDULED"  # its first task exists
    RUNNING = "RUNNING"  # a regular task of it has started
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskState(StrEnum):
    CREATED = "CREATED"  # waits for a place among its siblings
    PENDING = "PENDING"  # waits for its time: a retry with delay
    SCHEDULED = "SCHEDULED"  # in its queue
    RUNNING = "RUNNING"  # claimed by a node; of a composite task: its children run
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


JOB_CHANGES: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.SCHEDULED, JobState.FAILED}),
    JobState.SCHEDULED: frozenset({JobState.RUNNING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset({JobState.RUNNING}),  # restart
    JobState.CANCELLED: frozenset({JobState.RUNNING}),  # restart
}
TASK_CHANGES: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.CREATED: frozenset({TaskState.PENDING, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.PENDING: frozenset(
        {TaskState.SCHEDULED, TaskState.RUNNING, TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.SCHEDULED: frozenset({TaskState.RUNNING, TaskState.FAILED, TaskState.CANCELLED}),
    # Back to SCHEDULED: its node died, the same task is delivered again.
    TaskState.RUNNING: frozenset({TaskState.SCHEDULED, TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}
JOB_ACTIVE = frozenset({JobState.SCHEDULED, JobState.RUNNING})
TASK_ACTIVE = frozenset({TaskState.CREATED, TaskState.PENDING, TaskState.SCHEDULED, TaskState.RUNNING})


def sources(new: JobState | TaskState) -> frozenset[str]:
    """States from which `new` may be reached: what a conditional UPDATE asks for."""
    table: Mapping[JobState, frozenset[JobState]] | Mapping[TaskState, frozenset[TaskState]]
    table = JOB_CHANGES if isinstance(new, JobState) else TASK_CHANGES
    return frozenset(old.value for old, targets in table.items() if new in targets)
