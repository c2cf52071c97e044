"""Tasks over HTTP: one attempt at one task, and what it wrote."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc.web.jobjson import log_json, page_json, task_json
from arc.web.jobrequests import LogQuery, only_with_jobs, search
from arc.web.jobs import LogPage
from arc.web.parts import parts
from arc.web.surface import Surface

_EXAMPLE: dict[str, Any] = {
    "id": "0cc175b9c0f1b6a831c399e269772661",
    "jobId": "5f0c2b7e9d3a4c1b8e6f7a2d4c9b1e30",
    "position": 1,
    "name": "say hello",
    "state": "COMPLETED",
    "runtime": "container",
    "createdAt": "2025-10-19T12:00:00.26Z",
    "scheduledAt": "2025-10-19T12:00:00.26Z",
    "startedAt": "2025-10-19T12:00:00.3Z",
    "completedAt": "2025-10-19T12:00:01Z",
    "image": "alpine:3.20",
    "env": {"NAME": "world"},
    "queue": "default",
    "nodeId": "5DYSYbGtxJxrxKrBkFz7tc",
    "result": "hello, world",
    "var": "greeting",
}

surface = Surface("tasks", "Tasks", "Attempts at the tasks of jobs.")
surface.before_request(only_with_jobs)


class TaskPath(BaseModel):
    task_id: str = Field(description="32 hexadecimal digits")


class TaskDetails(BaseModel):
    """The definition with expressions replaced and defaults filled in, and what became of it."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _EXAMPLE})

    id: str
    jobId: str
    state: str = Field(description="CREATED, PENDING, SCHEDULED, RUNNING, COMPLETED, FAILED, SKIPPED or CANCELLED")


@surface.api("GET", "/tasks/<task_id>", needs="read", answers={200: TaskDetails}, errors=[404])
def show_task(path: TaskPath) -> Response:
    """One attempt at a task."""
    jobs = parts().jobs
    task, job = jobs.reader.task(path.task_id)
    return jsonify(task_json(task, jobs.redactor(job)))


@surface.api("GET", "/tasks/<task_id>/log", needs="read", answers={200: LogPage}, errors=[404])
def show_task_log(path: TaskPath, query: LogQuery) -> Response:
    """What one attempt at a task wrote, newest part first."""
    number, size = query.wanted()
    jobs = parts().jobs
    _, job = jobs.reader.task(path.task_id)
    found = jobs.reader.task_log(path.task_id, number, size, search(query.q).terms)
    return jsonify(page_json(found, number, partial(log_json, redactor=jobs.redactor(job))))
