"""Jobs over HTTP: submit, list, look into, cancel, restart, delete.

POST /jobs -> documents.parse -> Coordinator.submit -> summary, or after Coordinator.wait all of the job
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import TimedOut, TooLarge, Unavailable
from arc.jobs.documents import parsing
from arc.jobs.documents.models import JobDocument
from arc.jobs.durations import parse_duration
from arc.web import audit, samples
from arc.web.jobjson import details_json, event_json, log_json, page_json, summary_json
from arc.web.jobrequests import LogQuery, SearchQuery, identity, only_with_jobs, search
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.jobs.records import Job
    from arc.web.jobjson import Shape

_ID = "5f0c2b7e9d3a4c1b8e6f7a2d4c9b1e30"
_TIMES = {"createdAt": "2025-10-19T12:00:00.25Z", "startedAt": "2025-10-19T12:00:00.3Z"}
EXAMPLE_YAML = """\
name: hello
inputs: {name: world}
output: "{{ tasks.greeting }}"
tasks:
  - name: say hello
    var: greeting
    image: alpine:3.20
    env: {NAME: "{{ inputs.name }}"}
    run: echo -n "hello, $NAME" > "$ARC_OUTPUT"
"""
EXAMPLE_JSON: dict[str, Any] = {
    "name": "hello",
    "inputs": {"name": "world"},
    "output": "{{ tasks.greeting }}",
    "tasks": [
        {
            "name": "say hello",
            "var": "greeting",
            "image": "alpine:3.20",
            "env": {"NAME": "{{ inputs.name }}"},
            "run": 'echo -n "hello, $NAME" > "$ARC_OUTPUT"',
        }
    ],
}
_YAML = {"schema": {"type": "string", "description": "The same as YAML"}, "example": EXAMPLE_YAML}
_DOCUMENT = {
    "application/json": {"schema": {"$ref": "#/components/schemas/JobDocument"}, "example": EXAMPLE_JSON},
    "text/yaml": _YAML,
    "application/x-yaml": _YAML,
}

surface = Surface("jobs", "Jobs", "Workflows: tasks that run one after another, in containers or as processes.")
surface.before_request(only_with_jobs)
surface.further_models.append(JobDocument)


class JobPath(BaseModel):
    job_id: str = Field(description="32 hexadecimal digits")


class JobSummary(BaseModel):
    """What is empty is left out, but for `position`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "id": _ID,
                "name": "hello",
                "state": "COMPLETED",
                "createdBy": {"name": "ci", "username": "ci"},
                **_TIMES,
                "completedAt": "2025-10-19T12:00:01Z",
                "inputs": {"name": "world"},
                "position": 2,
                "taskCount": 1,
                "progress": 100.0,
                "result": "hello, world",
            }
        },
    )

    id: str
    name: str = ""
    state: str = Field(description="PENDING, SCHEDULED, RUNNING, COMPLETED, FAILED or CANCELLED")
    position: int = Field(
        description="Of the current task, from 1; 0 while PENDING, one more than there are at the end"
    )
    createdAt: str


class JobDetails(JobSummary):
    """What is empty is left out, but for `position`, `tasks`, `execution` and `context`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": _ID,
                "name": "hello",
                "state": "COMPLETED",
                **_TIMES,
                "position": 2,
                "taskCount": 1,
                "tasks": EXAMPLE_JSON["tasks"],
                "execution": [{"id": "c0a8...", "name": "say hello", "state": "COMPLETED", "result": "hello, world"}],
                "context": {"inputs": {"name": "world"}, "tasks": {"greeting": "hello, world"}},
                "output": EXAMPLE_JSON["output"],
                "result": "hello, world",
            }
        }
    )

    tasks: list[dict[str, Any]] = Field(description="As submitted")
    execution: list[dict[str, Any]] = Field(description="A record per attempt, in the order they ran")
    context: dict[str, Any] = Field(description="The names that expressions see")


class JobPage(BaseModel):
    items: list[JobSummary]
    number: int = Field(description="The page, as asked for")
    size: int = Field(description="How many entries are in it")
    totalPages: int
    totalItems: int


class LogPart(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "b1946ac92492d2347c6235b4d2611184",
                "number": 1,
                "taskId": _ID,
                "contents": "hello\n",
                "createdAt": _TIMES["startedAt"],
            }
        }
    )

    id: str
    number: int = Field(description="From 1 within the task")
    taskId: str
    contents: str = Field(description="About a second of output; values of secrets are hidden")
    createdAt: str


class LogPage(BaseModel):
    items: list[LogPart] = Field(description="Newest first")
    number: int
    size: int
    totalPages: int
    totalItems: int


class JobEvent(BaseModel):
    id: int
    jobId: str
    taskId: str | None = Field(None, description="Missing: the job itself")
    oldState: str | None = Field(None, description="Missing: it was made")
    newState: str
    nodeId: str | None = None
    reason: str | None = None
    createdAt: str


class JobEvents(BaseModel):
    items: list[JobEvent]


class Accepted(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"status": "OK"}})

    status: str


@surface.api(
    "POST", "/jobs",
    needs="write", answers={200: JobSummary}, errors=[408, 413, 503], body=_DOCUMENT, audit="job.submit",
    sample=samples.request("POST", "/jobs", EXAMPLE_JSON, token=True),
)  # fmt: skip
def submit_job() -> Response:
    """Submit a job as JSON or YAML, by content type; it runs as soon as a worker is free.

    With `wait: {timeout: 30s}` in the document the answer comes when the job has ended, with all of it, or is a 408
    at the time limit; the job goes on then, and `id` of that answer names it. Jobs with tasks that run as processes
    of the host need permission `admin`; tasks with an image run as containers.
    """
    document = parsing.parse(_body(), request.headers.get("Content-Type"), JobDocument)
    if document.wait is None:
        return jsonify(_summary(_submit(document)))
    timeout_s = parse_duration(document.wait.timeout) / clock.US_PER_S
    with _place_to_wait():  # before the job is stored, so that a client may try again after a 503
        return jsonify(_details(_ended(_submit(document), timeout_s)))


@surface.api("GET", "/jobs", needs="read", answers={200: JobPage}, errors=[404])
def list_jobs(query: SearchQuery) -> Response:
    """Jobs, newest first."""
    (number, size), wanted = query.wanted(), search(query.q)
    found = parts().jobs.reader.list_jobs(number, size, wanted.terms, wanted.tags, query.state or None)
    return jsonify(page_json(found, number, _summary))


@surface.api("GET", "/jobs/<job_id>", needs="read", answers={200: JobDetails}, errors=[404])
def show_job(path: JobPath) -> Response:
    """All of a job, with every attempt at its tasks."""
    return jsonify(_details(parts().jobs.reader.job(path.job_id)))


@surface.api("GET", "/jobs/<job_id>/log", needs="read", answers={200: LogPage}, errors=[404])
def show_job_log(path: JobPath, query: LogQuery) -> Response:
    """What the tasks of a job wrote, newest part first; ask again for page 1 to follow it."""
    number, size = query.wanted()
    jobs = parts().jobs
    redactor = jobs.redactor(jobs.reader.job(path.job_id))
    found = jobs.reader.job_log(path.job_id, number, size, search(query.q).terms)
    return jsonify(page_json(found, number, partial(log_json, redactor=redactor)))


@surface.api("GET", "/jobs/<job_id>/events", needs="read", answers={200: JobEvents}, errors=[404])
def list_job_events(path: JobPath) -> Response:
    """Every change of a state of a job and its tasks, oldest first."""
    return jsonify(items=[event_json(event) for event in parts().jobs.reader.events(path.job_id)])


@surface.api("PUT", "/jobs/<job_id>/cancel", needs="write", answers={200: Accepted}, errors=[404], audit="job.cancel")
def cancel_job(path: JobPath) -> Response:
    """Stop a job that is SCHEDULED or RUNNING, and whatever runs of it."""
    parts().jobs.coordinator.cancel(path.job_id)
    return jsonify(status="OK")


@surface.api("PUT", "/jobs/<job_id>/restart", needs="write", answers={200: Accepted}, errors=[404], audit="job.restart")
def restart_job(path: JobPath) -> Response:
    """Run a job that is FAILED or CANCELLED on from the task it stopped at; what earlier tasks gave is kept.

    A job with tasks that are processes needs permission `admin`, as at its submission.
    """
    parts().jobs.coordinator.restart(path.job_id, may_run_processes=identity().may("admin"))
    return jsonify(status="OK")


@surface.api("DELETE", "/jobs/<job_id>", needs="write", answers={200: Accepted}, errors=[404, 409], audit="job.delete")
def delete_job(path: JobPath) -> Response:
    """Remove a job that has ended, with its tasks, logs and events."""
    parts().jobs.coordinator.delete(path.job_id)
    return jsonify(status="OK")


def _body() -> bytes:
    """Raises TooLarge."""
    limit_bytes = parts().config.get("jobs", "max_document_size")
    body = request.get_data()
    if len(body) > limit_bytes:
        raise TooLarge(f"the document is larger than {limit_bytes} bytes ([jobs] max_document_size)")
    return body


def _submit(document: JobDocument) -> Job:
    who = identity()
    job = parts().jobs.coordinator.submit(document, created_by=who.name, may_run_processes=who.may("admin"))
    audit.note(job.id)
    return job


def _ended(job: Job, timeout_s: float) -> Job:
    """The job when it has ended. Raises TimedOut that names it, Cancelled, Unavailable."""
    is_gone = request.environ.get("waitress.client_disconnected", bool)
    try:
        return parts().jobs.coordinator.wait(job.id, timeout_s, is_gone)
    except TimedOut as exc:
        exc.details = {"id": job.id}
        raise


@contextmanager
def _place_to_wait() -> Iterator[None]:
    """Waiting answers hold a thread each, so only so many wait. Raises Unavailable."""
    slots = parts().config.get("jobs", "wait_slots")
    places: threading.Semaphore = current_app.extensions.setdefault("arc.job_waits", threading.Semaphore(slots))
    if not places.acquire(blocking=False):
        raise Unavailable(f"{slots} clients wait for their jobs already; submit without wait, or later", 5)
    try:
        yield
    finally:
        places.release()


def _summary(job: Job) -> Shape:
    return summary_json(job, parts().jobs.redactor(job))


def _details(job: Job) -> Shape:
    jobs = parts().jobs
    return details_json(job, jobs.reader.tasks(job.id), jobs.redactor(job))
