"""Commands on machines over HTTP ("jobs" of the remote agents API): run, follow, read the log, cancel.

POST /api/v1/jobs -> Fleet.run -> the agent fetches it -> GET /api/v1/jobs/{id}, /log
Source: the remote agents specification, sections 2.7 to 2.11 and 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.fleet.executions import Filters
from arc.fleet.messages import MAX_PAYLOAD, BadAttribute, Command, Fields
from arc.fleet.records import Status
from arc.web import audit, pages, samples
from arc.web.fleet_requests import fleet, project, user, with_fleet_errors
from arc.web.pages import PagedQuery
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.fleet.records import Execution

MAX_DELIVER_S = 365 * 86_400
_ID = "5f6b1f0e-3c7d-4f6c-8a11-1a5a2c0d9e77"
EXAMPLE = {"to": "press-07", "timeout": 120, "agent": "execute", "action": "script", "payload": "uptime"}
_COMMAND = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["to", "timeout", "agent", "action"],
            "properties": {
                "to": {"type": "string", "description": "Agent that shall do it"},
                "timeout": {"type": "integer", "minimum": 1, "maximum": 86400, "description": "Seconds it may take"},
                "agent": {"type": "string", "description": "Plug-in: rpc, execute, or one of your own"},
                "action": {"type": "string", "description": "What the plug-in shall do"},
                "payload": {"type": "string", "maxLength": MAX_PAYLOAD, "description": "Input of the action"},
                "deliver_within": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Seconds to keep it for a machine that is offline; [fleet] deliver_within_s unless"
                    " given",
                },
            },
        },
        "example": EXAMPLE,
    }
}

surface = Surface("fleet_jobs", "Commands", "Run something on one machine, follow it, read its log, stop it.")
with_fleet_errors(surface)


class RemoteJobPath(BaseModel):
    job_id: str = Field(description="As POST /api/v1/jobs answered it")


class RemoteJobsQuery(PagedQuery):
    agent_id: str = Field("", description="Only of this agent")
    state: str = Field("", description="queued, executing, failed or complete")
    plugin: str = Field("", description="Only of this plug-in")
    user: str = Field("", description="Only what this user (name of a token) asked for")
    since: str = Field("", description="Made at this time or later, as 2025-10-19T12:00:00Z")
    until: str = Field("", description="Made before this time")

    def filters(self) -> Filters:
        """Raises Invalid."""
        return Filters(
            agent_id=self.agent_id or None,
            status=_status(self.state),
            plugin=self.plugin or None,
            user_id=self.user or None,
            since_us=_instant("since", self.since),
            until_us=_instant("until", self.until),
        )


class RemoteLogQuery(BaseModel):
    after: int = Field(-1, ge=-1, lt=2**31, description="Only parts with higher numbers, to follow a log as it grows")


class RemoteUser(BaseModel):
    id: str
    name: str = ""
    domain_id: str = ""
    roles: list[str]


class RemoteJob(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "version": 1,
                "sender": "arc",
                "request_id": _ID,
                "to": "press-07",
                "timeout": 120,
                "agent": "execute",
                "action": "script",
                "payload": "uptime",
                "status": "complete",
                "created_at": "2025-10-19T12:00:00.123456Z",
                "updated_at": "2025-10-19T12:00:00.9Z",
                "project": "plant-a",
                "user": {"id": "ada", "name": "ada", "roles": ["admin"]},
                "exit_code": 0,
                "started_at": "2025-10-19T12:00:00.2Z",
                "ended_at": "2025-10-19T12:00:00.9Z",
                "deliver_until": "2025-10-19T12:01:00.123456Z",
                "cancel_requested_at": None,
            }
        }
    )

    version: int
    sender: str = Field(description="Server that made it")
    request_id: str
    to: str
    timeout: int
    agent: str
    action: str
    payload: str
    status: str = Field(description="queued, executing, failed or complete")
    created_at: str
    updated_at: str
    project: str
    user: RemoteUser
    exit_code: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    deliver_until: str = Field(description="Until then it waits for its agent to fetch it")
    cancel_requested_at: str | None = None


class Requested(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"request_id": _ID}})

    request_id: str


_LIST = {
    "description": "One page, the newest first",
    "headers": pages.HEADERS,
    "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/RemoteJob"}}}},
}
_LOG = {
    "description": "The log so far; its parts, if JSON is asked for",
    "content": {
        "text/plain": {"schema": {"type": "string"}},
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "status": "executing",
                "parts": [{"number": 2, "content": "hello\n", "final": False, "created_at": "2025-10-19T12:00:00.5Z"}],
            },
        },
    },
}


@surface.api("GET", "/api/v1/jobs", needs="read", answers={200: _LIST})
def list_commands(query: RemoteJobsQuery) -> Response:
    """What was run on machines, the newest first."""
    found = fleet().executions.search(query.filters(), *query.wanted(), project())
    return pages.answer(found, [execution_json(each) for each in found.items])


@surface.api(
    "POST", "/api/v1/jobs",
    needs="admin", answers={200: Requested}, errors=[404, 413], body=_COMMAND, audit="command.run",
    sample=samples.request("POST", "/api/v1/jobs", EXAMPLE, token=True),
)  # fmt: skip
def run_command() -> Response:
    """Have one machine do something; the answer names the job, which then is queued.

    It does not matter whether the machine is online. What is not fetched within `deliver_within` seconds fails.
    """
    fields = Fields(request.get_json(), "the body")
    command = Command.parse(fields)
    within_s = fields.optional_integer("deliver_within")
    if within_s is not None and not 1 <= within_s <= MAX_DELIVER_S:
        raise BadAttribute("deliver_within")
    queued = fleet().run(command, user(), project(), within_s)
    audit.note(queued.request_id, agent_id=queued.agent_id, agent=queued.plugin, action=queued.action)
    return jsonify(request_id=queued.request_id)


@surface.api("GET", "/api/v1/jobs/<job_id>", needs="read", answers={200: RemoteJob}, errors=[404])
def show_command(path: RemoteJobPath) -> Response:
    """One command and what became of it."""
    return jsonify(execution_json(fleet().executions.get(path.job_id, project())))


@surface.api("GET", "/api/v1/jobs/<job_id>/log", needs="read", answers={200: _LOG}, errors=[404])
def show_command_log(path: RemoteJobPath, query: RemoteLogQuery) -> Response:
    """What the command wrote so far, as text; 404 while it has written nothing.

    With `Accept: application/json` the parts, of which there may be none yet, and the state of the job.
    """
    execution = fleet().executions.get(path.job_id, project())
    logs = fleet().executions.logs
    if request.accept_mimetypes.best_match(("text/plain", "application/json")) != "application/json":
        return Response(logs.read(path.job_id, query.after), mimetype="text/plain")
    shown = [
        {
            "number": part.number,
            "content": part.content,
            "final": part.is_final,
            "created_at": clock.rfc3339(part.created_at),
        }
        for part in logs.parts(path.job_id, query.after)
    ]
    return jsonify(status=execution.status.name.lower(), parts=shown)


@surface.api(
    "PUT", "/api/v1/jobs/<job_id>/cancel",
    needs="admin", answers={200: RemoteJob}, errors=[404, 409], audit="command.cancel",
)  # fmt: skip
def cancel_command(path: RemoteJobPath) -> Response:
    """Stop a command that is queued or executing; 409 when it has ended.

    The agent ends its processes, then the job is `failed` with `cancelled` at the end of its log. What no agent has
    fetched yet fails at once.
    """
    return jsonify(execution_json(fleet().cancel(path.job_id, project())))


@surface.api(
    "DELETE", "/api/v1/jobs/<job_id>",
    needs="admin", answers={200: RemoteJob}, errors=[404, 409], audit="command.cancel",
)  # fmt: skip
def delete_command(path: RemoteJobPath) -> Response:
    """The same as PUT /api/v1/jobs/{job_id}/cancel; the history keeps the job."""
    return jsonify(execution_json(fleet().cancel(path.job_id, project())))


def execution_json(execution: Execution) -> dict[str, Any]:
    return {
        "version": execution.version,
        "sender": execution.sender,
        "request_id": execution.request_id,
        "to": execution.agent_id,
        "timeout": execution.timeout_s,
        "agent": execution.plugin,
        "action": execution.action,
        "payload": execution.payload,
        "status": execution.status.name.lower(),
        "created_at": clock.rfc3339(execution.created_at),
        "updated_at": clock.rfc3339(execution.updated_at),
        "project": execution.project,
        "user": execution.user,
        "exit_code": execution.exit_code,
        "started_at": clock.rfc3339(execution.started_at),
        "ended_at": clock.rfc3339(execution.ended_at),
        "deliver_until": clock.rfc3339(execution.deliver_until),
        "cancel_requested_at": clock.rfc3339(execution.cancel_requested_at),
    }


def _status(state: str) -> Status | None:
    if not state:
        return None
    found = Status.__members__.get(state.upper())
    if found is None:
        raise Invalid(f"unknown state {state!r}; there are {', '.join(each.name.lower() for each in Status)}")
    return found


def _instant(name: str, text: str) -> int | None:
    try:
        return clock.parse_rfc3339(text) if text else None
    except (ValueError, OverflowError):
        raise Invalid(f"{name} must be a time such as 2025-10-19T12:00:00Z") from None
