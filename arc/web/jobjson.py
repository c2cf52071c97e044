"""Jobs, tasks and what belongs to them in the shape of the API: camelCase, and what is empty is left out.

What a user wrote or a task said passes a Redactor here, so no route can forget it.
Source: the jobs specification, sections 2.6, 2.7, 2.11 and 2.12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arc.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arc.jobs.records import Event, Job, LogPart, Node, Page, Queue, Task
    from arc.jobs.redaction import Redactor

Shape = dict[str, Any]


def summary_json(job: Job, redactor: Redactor) -> Shape:
    """A job of a list."""
    shown = _head(job) | {"inputs": job.document.get("inputs"), "result": job.result, "error": job.error}
    return redactor.job(_filled(shown) | {"position": job.position})


def details_json(job: Job, tasks: Iterable[Task], redactor: Redactor) -> Shape:
    """All of a job: `tasks` as submitted, `execution` as they ran."""
    document = job.document
    shown = _head(job) | {
        **{key: document.get(key) for key in ("inputs", "output", "defaults", "webhooks", "permissions", "autoDelete")},
        "result": job.result,
        "error": job.error,
        "deleteAt": rfc3339(job.delete_at),
        "secrets": dict(job.secrets),
    }
    always = {
        "position": job.position,
        "tasks": job.definitions,
        "execution": [_task(task) for task in tasks],
        "context": _context(job),
    }
    return redactor.job(_filled(shown) | always)


def task_json(task: Task, redactor: Redactor) -> Shape:
    return redactor.task(_task(task))


def log_json(part: LogPart, redactor: Redactor) -> Shape:
    return {
        "id": part.id,
        "number": part.number,
        "taskId": part.task_id,
        "contents": redactor.text(part.contents),
        "createdAt": rfc3339(part.created_at),
    }


def event_json(event: Event) -> Shape:
    """A change of a state; its texts are ours, so there is nothing to hide."""
    return _filled(
        {
            "id": event.id,
            "jobId": event.job_id,
            "taskId": event.task_id,
            "oldState": event.old_state,
            "newState": event.new_state,
            "nodeId": event.node_id,
            "reason": event.reason,
            "createdAt": rfc3339(event.at),
        }
    )


def queue_json(queue: Queue) -> Shape:
    return {
        "name": queue.name,
        "size": queue.size,
        "subscribers": queue.subscribers,
        "unacked": queue.unacked,
    }


def node_json(node: Node) -> Shape:
    """`queue` is what clients know as the node's private one; `queues` are those it serves."""
    shown = {
        "id": node.id,
        "name": node.name,
        "status": node.status,
        "detail": node.detail,
        "hostname": node.hostname,
        "startedAt": rfc3339(node.started_at),
        "lastHeartbeatAt": rfc3339(node.last_heartbeat_at),
        "queue": f"x-{node.id}" if node.kind == "worker" else None,
        "queues": dict(node.queues),
    }
    figures = {"cpuPercent": node.cpu_percent, "taskCount": node.task_count, "version": node.version}
    return _filled(shown) | figures


def page_json(found: Page[Any], number: int, shape: Callable[[Any], Shape]) -> Shape:
    """number: as asked for. `size` is how many entries the page has, as clients of the original know it."""
    items = [shape(item) for item in found.items]
    return {
        "items": items,
        "number": number,
        "size": len(items),
        "totalPages": found.total_pages,
        "totalItems": found.total,
    }


def _head(job: Job) -> Shape:
    """What lists and details have in common."""
    return {
        "id": job.id,
        "parentId": job.parent_id,
        "name": job.name,
        "description": job.description,
        "tags": list(job.tags),
        "state": job.state.value,
        "createdAt": rfc3339(job.created_at),
        "createdBy": {"name": job.created_by, "username": job.created_by},
        "startedAt": rfc3339(job.started_at),
        "completedAt": rfc3339(job.completed_at),
        "failedAt": rfc3339(job.failed_at),
        "taskCount": job.task_count,
        "progress": round(job.progress, 2),
        "schedule": {"id": job.schedule_id} if job.schedule_id else None,
    }


def _context(job: Job) -> Shape:
    """The names that expressions of the job see."""
    return _filled(
        {
            "job": {"id": job.id, "name": job.name},
            "inputs": job.document.get("inputs"),
            "secrets": dict(job.secrets),
            "tasks": dict(job.variables),
        }
    )


def _task(task: Task) -> Shape:
    """A definition with what became of it."""
    return _filled(
        {
            **task.definition,
            **_composite(task),
            "id": task.id,
            "jobId": task.job_id,
            "parentId": task.parent_id,
            "position": task.position,
            "state": task.state.value,
            "runtime": task.runtime,
            "createdAt": rfc3339(task.created_at),
            "scheduledAt": rfc3339(task.scheduled_at),
            "startedAt": rfc3339(task.started_at),
            "completedAt": rfc3339(task.completed_at),
            "failedAt": rfc3339(task.failed_at),
            "nodeId": task.node_id,
            "queue": task.queue,
            "priority": task.priority,
            "redelivered": task.redelivered,
            "retry": _filled({**task.definition.get("retry", {}), "attempts": task.attempts}),
            "progress": round(task.progress, 2),
            "result": task.result,
            "error": task.error,
        }
    )


def _composite(task: Task) -> Shape:
    """How far the children of a composite task are, in the place where clients look for it."""
    counts = {"size": task.size, "completions": task.completions, "id": task.subjob_id}
    keys = {"parallel": ("completions",), "each": ("size", "completions"), "subjob": ("id",)}
    return {
        kind: task.definition[kind] | _filled({key: counts[key] for key in of_kind})
        for kind, of_kind in keys.items()
        if kind in task.definition
    }


def _filled(shape: Shape) -> Shape:
    """Without what is empty."""
    return {key: value for key, value in shape.items() if value not in (None, "", 0, False, [], {})}
