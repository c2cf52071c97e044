"""Records of jobs and tasks to rows and back. What may hold a secret is sealed on its way in, opened on its way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from arc.db import fulltext
from arc.jobs.records import ENCRYPTED, Job, Task
from arc.jobs.sealing import WrongKey, is_sealed
from arc.jobs.states import JobState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

    from arc.jobs.sealing import Sealer


class Rows:
    """All sealed columns of a job and its tasks are sealed, or none: `document` and `definition` tell."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def job(self, row: sa.Row[Any]) -> Job:
        values: dict[str, Any] = dict(row._mapping)
        opened = self._open(values, ("document", "secrets", "variables"), ("result", "error"), "document")
        opened["state"] = JobState(opened["state"])
        del opened["tag_words"]
        opened["progress"] = round(opened["progress"], 2)
        return Job(tags=tuple(opened["document"].get("tags") or ()), **opened)

    def task(self, row: sa.Row[Any]) -> Task:
        opened = self._open(dict(row._mapping), ("definition",), ("result", "error"), "definition")
        opened["state"] = TaskState(opened["state"])
        return Task(**opened)

    def secrets(self, column: str) -> dict[str, str]:
        """The column `secrets` of a job; empty when they cannot be read."""
        try:
            found: dict[str, str] = self._parsed(column)
        except WrongKey:
            return {}
        return found

    def job_values(self, job: Job) -> dict[str, Any]:
        """Columns that change while a job runs."""
        seal = self._sealing(job.is_sealed)
        return {
            "state": job.state,
            "started_at": job.started_at,
            "completed_at": job.completed_at,
            "failed_at": job.failed_at,
            "delete_at": job.delete_at,
            "position": job.position,
            "progress": job.progress,
            "variables": seal(_dumped(job.variables)),
            "result": seal(job.result),
            "error": seal(job.error),
        }

    def new_job_values(self, job: Job) -> dict[str, Any]:
        seal = self._sealing(job.is_sealed)
        return self.job_values(job) | {
            "id": job.id,
            "parent_id": job.parent_id,
            "schedule_id": job.schedule_id,
            "name": job.name,
            "description": job.description,
            "tag_words": fulltext.tag_words(job.tags),
            "created_at": job.created_at,
            "created_by": job.created_by,
            "task_count": job.task_count,
            "document": seal(_dumped(job.document)),
            "secrets": self._sealer.seal(_dumped(job.secrets)) if job.secrets else "",
        }

    def task_values(self, task: Task) -> dict[str, Any]:
        """Columns that change while a task runs."""
        seal = self._sealing(task.is_sealed)
        return {
            "state": task.state,
            "scheduled_at": task.scheduled_at,
            "started_at": task.started_at,
            "completed_at": task.completed_at,
            "failed_at": task.failed_at,
            "node_id": task.node_id,
            "claim_id": task.claim_id,
            "lease_until": task.lease_until,
            "redelivered": task.redelivered,
            "result": seal(task.result),
            "error": seal(task.error),
        }

    def new_task_values(self, task: Task) -> dict[str, Any]:
        seal = self._sealing(task.is_sealed)
        return self.task_values(task) | {
            "id": task.id,
            "job_id": task.job_id,
            "parent_id": task.parent_id,
            "subjob_id": task.subjob_id,
            "child_index": task.child_index,
            "position": task.position,
            "queue": task.queue,
            "priority": task.priority,
            "runtime": task.runtime,
            "created_at": task.created_at,
            "available_at": task.available_at,
            "attempts": task.attempts,
            "progress": task.progress,
            "definition": seal(_dumped(task.definition)),
            "size": task.size,
            "completions": task.completions,
        }

    def _sealing(self, is_sealed: bool) -> Any:
        return (lambda text: None if text is None else self._sealer.seal(text)) if is_sealed else lambda text: text

    def _open(
        self, values: dict[str, Any], parsed: tuple[str, ...], texts: tuple[str, ...], witness: str
    ) -> dict[str, Any]:
        if not is_sealed(values[witness]):
            return values | {name: self._parsed(values[name]) for name in parsed}
        opened: dict[str, Any] = {"is_sealed": True}
        try:
            opened |= {name: self._parsed(values[name]) for name in parsed}
            opened |= {name: values[name] and self._sealer.open(values[name]) for name in texts}
        except WrongKey:
            opened |= {name: {} for name in parsed} | {name: values[name] and ENCRYPTED for name in texts}
            opened["is_readable"] = False
        return values | opened

    def _parsed(self, column: str) -> Any:
        text = self._sealer.open(column) if is_sealed(column) else column
        return orjson.loads(text) if text else {}


def holds_secrets(secrets: Mapping[str, str], document: Any) -> bool:
    """Whether a job has secrets of its own, of a sub-job or of a registry."""
    return bool(secrets) or _mentions_secrets(document)


def _mentions_secrets(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("password") or value.get("secrets")) or any(map(_mentions_secrets, value.values()))
    return isinstance(value, list) and any(map(_mentions_secrets, value))


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()
