"""The audit trail: what is recorded of requests, and the list of it.

@surface.api(..., audit="token.create") -> handler: note(id, ...) -> answer -> record -> on disk -> answer leaves
Recorded is what was done and what the token was not allowed to do. A request without any token is in the log only: or
everybody who reaches the port could fill the disk.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from arc import clock
from arc.web.auth import IDENTITY_KEY, PUBLIC
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.access.audit import Entry

log = logging.getLogger(__name__)

# Of these there may be many in a second. They are on disk with the next commit that waits for it.
FREQUENT = frozenset({"job.submit"})
_NOTE_KEY = "arc.audit"
_EXAMPLE: dict[str, Any] = {
    "id": 812,
    "at": "2025-10-19T12:00:00.25Z",
    "token_id": 3,
    "token": "ada",
    "client": "10.0.0.7",
    "request_id": "7c0e0f5c-0f0b-4f5e-9d3c-5f6c4a3e2b1a",
    "action": "action.schedule",
    "object": "9f1c2c3e-7f0a-4a86-9b59-0d8b9a1f6a11",
    "details": {"kind": "agent.replicante.io/test.ping"},
    "status": 200,
}

surface = Surface("audit", "Audit", "Who changed access, commanded machines or destroyed data. docs/operations.md.")


class AuditQuery(BaseModel):
    limit: int = Field(100, ge=1, le=1000, description="At most so many")
    before: int | None = Field(None, ge=1, le=2**63 - 1, description="Id of an entry; only older ones")
    since: str | None = Field(None, description="RFC 3339; only what was recorded then or later")
    until: str | None = Field(None, description="RFC 3339; only what was recorded earlier")
    action: str = Field("", description="`token.create`, or `token` for everything done to tokens")
    token: str = Field("", max_length=100, description="Name or id of the token that asked")

    @field_validator("since", "until")
    @classmethod
    def _check_instant(cls, given: str | None) -> str | None:
        _instant_us(given)
        return given


class AuditEntry(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: int
    at: str
    token_id: int | None
    token: str = Field(description="Name of the token at that time")
    client: str = Field(description="Address of the other end of the connection")
    request_id: str
    action: str
    object: str = Field(description="Id or name of what it was done to")
    details: dict[str, Any]
    status: int = Field(description="Of the answer; 403: it was not allowed")


class AuditEntries(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"entries": [_EXAMPLE], "count": 1}})

    entries: list[AuditEntry]
    count: int


@surface.api("GET", "/api/v1/audit", needs="admin", answers={200: AuditEntries})
def list_audit_entries(query: AuditQuery) -> Response:
    """What was done and what was refused, newest first; `before` with the last id gives the next page."""
    since_us, until_us = _instant_us(query.since), _instant_us(query.until)
    found = parts().audit.find(query.limit, query.before, since_us, until_us, query.action, query.token)
    return jsonify(entries=[entry_json(entry) for entry in found], count=len(found))


def note(object_name: object = None, **details: object) -> None:
    """Say what the current request has done; it is recorded then, whatever becomes of the answer.

    object_name: what it was done to, where the path does not name it. details: beyond the path; no arguments.
    """
    request.environ[_NOTE_KEY] = (object_name, details)


def record(response: Response) -> Response:
    """Make an entry of the request if its route asks for it; for after_request."""
    view = current_app.view_functions.get(request.endpoint or "")
    action = getattr(view, "audit", "")
    is_real = request.method not in ("HEAD", "OPTIONS")
    if action and is_real and (_is_done(response) or _is_denied(response)):
        in_path: dict[str, Any] = {} if view.needs == PUBLIC else request.view_args or {}  # type: ignore[union-attr]
        _record(action, in_path, response.status_code)
    return response


def entry_json(entry: Entry) -> dict[str, Any]:
    shown = vars(entry) | {"at": clock.rfc3339(entry.at), "token": entry.token_name}
    del shown["token_name"]
    return shown


def _is_done(response: Response) -> bool:
    """Also of a job that was submitted and then not waited for to its end."""
    return response.status_code < 300 or _NOTE_KEY in request.environ


def _is_denied(response: Response) -> bool:
    return response.status_code == 403 and IDENTITY_KEY in request.environ


def _record(action: str, in_path: dict[str, Any], status: int) -> None:
    """in_path: variables of the path; what is public has its secret there, so then none of them."""
    noted, more = request.environ.get(_NOTE_KEY, (None, {}))
    named = next((name for name in reversed(in_path) if name.endswith(("_id", "name"))), "")
    object_name = str(noted if noted is not None else in_path.get(named, ""))
    details = {name: str(value)[:255] for name, value in in_path.items() if str(value) != object_name} | more
    try:
        parts().audit.record(
            action,
            object_name,
            details,
            status=status,
            client=request.remote_addr or "",
            who=request.environ.get(IDENTITY_KEY),
            request_id=request.environ["arc.request_id"],
            is_durable=action not in FREQUENT,
        )
    except Exception:  # it is done, and an error would have the client do it again
        log.exception("not in the audit trail: %s %s", action, object_name)


def _instant_us(text: str | None) -> int | None:
    """Raises ValueError."""
    if text is None:
        return None
    try:
        return clock.parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no RFC 3339 instant") from None
