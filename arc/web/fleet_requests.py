"""What requests about the fleet have in common: who asks, for which project, errors with the keys its clients read."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from flask import Response, request
from pydantic import BaseModel, Field

from arc import errors as families
from arc.fleet.filter import FilterError
from arc.fleet.logs import LogNotFound
from arc.fleet.records import AgentNotFound, ExecutionNotFound
from arc.web import errors
from arc.web.jobrequests import identity
from arc.web.parts import parts

if TYPE_CHECKING:
    from arc.fleet.service import Fleet
    from arc.web.surface import Surface

# `title` of an error by its kind; where a route says what it was about, that comes first.
_TITLES: dict[type[Exception], str] = {
    FilterError: "Invalid selector expression.",
    AgentNotFound: 'Agent with id "{agent_id}" not found',
    ExecutionNotFound: 'Job with id "{job_id}" not found',
    LogNotFound: 'Logs for Job with id "{job_id}" not found.',
}
_ROUTE_TITLES = {"run_command": "Error creating a job.", "set_agent_tags": "Error saving agent tags."}


class AgentPath(BaseModel):
    agent_id: str = Field(description="Identity of the machine")


def fleet() -> Fleet:
    return parts().fleet


def project() -> str | None:
    """The project that the caller is bound to; None sees all."""
    return identity().project


def user() -> dict[str, Any]:
    """The caller, as an execution remembers who asked for it."""
    who = identity()
    named = {"id": who.name, "name": who.name, "roles": sorted(who.permissions)}
    return named | ({"domain_id": who.organization} if who.organization else {})


def nothing() -> Response:
    """204, without a content type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def with_fleet_errors(surface: Surface) -> None:
    """Give the errors of a surface the keys that clients of remote agents read; the first is refuse_nul's."""
    surface.before_request(refuse_nul)
    surface.register_error_handler(Exception, _respond)


def refuse_nul() -> None:
    """Nothing has a name with U+0000, and PostgreSQL could not even look for it. Raises Invalid."""
    if "\0" in request.path or b"%00" in request.query_string:
        raise families.Invalid("the address must not contain U+0000")


def _respond(exc: Exception) -> Response:
    status = errors.status_of(exc, request.path) if isinstance(exc, families.ArcError) else 500
    query = request.query_string.decode("latin-1")
    pointer = f"({request.method}) {request.path}{'?' + query if query else ''}"
    more = {"id": str(uuid.uuid4()), "code": getattr(exc, "code", None) or status, "title": _title(exc)}
    return errors.respond(exc, **more, source={"pointer": pointer, "parameter": "map[]"})


def _title(exc: Exception) -> str:
    endpoint = (request.endpoint or "").rpartition(".")[2]
    if isinstance(exc, families.Denied | families.Unauthenticated):
        return ""
    if endpoint in _ROUTE_TITLES:
        return _ROUTE_TITLES[endpoint]
    text = next((title for kind, title in _TITLES.items() if isinstance(exc, kind)), "")
    return text.format_map({"agent_id": "", "job_id": "", **(request.view_args or {})})
