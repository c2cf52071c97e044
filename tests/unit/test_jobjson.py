"""The shapes of tasks that the routes cannot make yet: composites."""

from __future__ import annotations

from typing import Any

from arc.jobs.records import Task
from arc.jobs.redaction import Redactor
from arc.jobs.states import TaskState
from arc.web.jobjson import task_json


def shown(definition: dict[str, Any], **state: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(Task.__dataclass_fields__)
    values |= {"id": "t", "job_id": "j", "position": 1, "state": TaskState.RUNNING, "runtime": "none", "created_at": 0}
    values |= {"redelivered": 0, "attempts": 0, "progress": 0.0, "priority": 0, "definition": definition, **state}
    return task_json(Task(**values), Redactor({"s": "hidden"}))


def test_composites_count_their_children_where_clients_look() -> None:
    child = {"name": "c", "env": {"A": "hidden"}}

    parallel = shown({"name": "p", "parallel": {"tasks": [child]}}, completions=2)["parallel"]
    each = shown({"name": "e", "each": {"list": "x", "task": child}}, size=3, completions=1)["each"]
    subjob = shown({"name": "s", "subjob": {"name": "n", "tasks": []}}, subjob_id="sub")["subjob"]

    redacted = {"name": "c", "env": {"A": "[REDACTED]"}}
    assert parallel == {"tasks": [redacted], "completions": 2}
    assert each == {"list": "x", "task": redacted, "size": 3, "completions": 1}
    assert subjob == {"name": "n", "tasks": [], "id": "sub"}


def test_what_is_empty_is_left_out() -> None:
    assert shown({"name": "t"}) == {
        "id": "t",
        "jobId": "j",
        "name": "t",
        "position": 1,
        "state": "RUNNING",
        "runtime": "none",
        "createdAt": "1970-01-01T00:00:00Z",
    }
