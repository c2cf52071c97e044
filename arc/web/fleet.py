"""Agents over HTTP: list with a filter, look into, tag, remove. Facts come from the machines, tags from users.

GET /api/v1/agents?q=... -> AgentStore.search -> one page. Source: the remote agents specification, sections 2 to 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

import arc
from arc import clock
from arc.errors import Invalid
from arc.web import errors, pages
from arc.web.auth import PUBLIC
from arc.web.fleet_requests import AgentPath, fleet, nothing, project, with_fleet_errors
from arc.web.pages import PagedQuery
from arc.web.parse import LimitQuery
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.fleet.records import Agent

_AT = "2025-10-19T12:00:00.25Z"

surface = Surface(
    "fleet", "Fleet", "Machines with an agent: what they are, how they are called, whether they are there."
)
with_fleet_errors(surface)


class FactsQuery(BaseModel):
    facts: str = Field("", description="Facts to show, as `os,online`; `all` for all")

    def shown(self, found: dict[str, Any]) -> dict[str, Any]:
        """Names are taken as they are, blanks included."""
        if self.facts == "all":
            return found
        return {name: found[name] for name in self.facts.split(",") if name in found}


class AgentsQuery(FactsQuery, PagedQuery):
    q: str = Field("", description='A filter such as `@os = "linux" AND site = "north"`; `@` stands before facts')


class EventsQuery(LimitQuery):
    pass


class TagPath(AgentPath):
    key: str


class AgentInfo(BaseModel):
    """`facts` and `tags` are left out when there is nothing in them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "display_name": "Press hall gateway",
                "agent_id": "press-07",
                "project": "plant-a",
                "organization": "dom1",
                "facts": {"online": True, "os": "linux"},
                "tags": {"name": "Press hall gateway", "site": "north"},
                "created_at": "2025-10-01T06:00:00.5Z",
                "updated_at": _AT,
                "updated_with": "b2a6d0d4-7c45-4a07-8b1a-6b8f7a0c1e35",
                "updated_by": "arc",
                "online": True,
                "last_seen_at": _AT,
            }
        }
    )

    display_name: str = Field(description="Tag `name`, else fact `hostname`, else the id")
    agent_id: str
    project: str
    organization: str
    facts: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    created_at: str
    updated_at: str
    updated_with: str = Field(description="Id of the last registration")
    updated_by: str = Field(description="Server that took it")
    online: bool
    last_seen_at: str


class AgentEventInfo(BaseModel):
    event: str = Field(description="online, offline, enrolled, deleted")
    at: str
    detail: str


_LIST = {
    "description": "One page",
    "headers": pages.HEADERS,
    "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
}
_OBJECT = {"description": "By name", "content": {"application/json": {"schema": {"type": "object"}}}}
_EVENTS = {
    "description": "The newest first",
    "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
}
_TAGS = {
    "application/json": {
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        "example": {"site": "north", "name": "Press hall gateway"},
    }
}


@surface.api("GET", "/healthcheck", needs=PUBLIC, answers={200: {"description": "Text"}})
def healthcheck() -> Response:
    """That the process is alive, and its version."""
    return Response(f"Arc api-server {arc.__version__}", mimetype="text/plain")


@surface.api(
    "GET", "/readiness", needs=PUBLIC, answers={200: {"description": "Text"}, 502: {"description": "What is not there"}}
)
def readiness() -> Response:
    """Whether the database answers, and with it the transport of agents."""
    try:
        fleet().ping()
    except Exception:
        body = errors.error_body(502, "Ping to the DB failed")
        return Response(jsonify(body).get_data(), 502, mimetype="application/json")
    return Response("Ready!!!", mimetype="text/plain")


@surface.api("GET", "/api/v1/agents", needs="read", answers={200: _LIST})
def list_agents(query: AgentsQuery) -> Response:
    """Agents by display name, those of the token's project if it has one."""
    found = fleet().agents.search(query.q, *query.wanted(), project())
    return pages.answer(found, [agent_json(agent, query) for agent in found.items])


@surface.api("GET", "/api/v1/agents/<agent_id>", needs="read", answers={200: AgentInfo}, errors=[404])
def show_agent(path: AgentPath, query: FactsQuery) -> Response:
    """One agent."""
    return jsonify(agent_json(fleet().agents.get(path.agent_id, project()), query))


@surface.api(
    "DELETE", "/api/v1/agents/<agent_id>", needs="admin", answers={204: None}, errors=[404], audit="agent.delete"
)
def delete_agent(path: AgentPath) -> Response:
    """Forget an agent with its facts and tags; what was run on it stays.

    An agent that still runs is back with its next registration. Delete its token too to be rid of it.
    """
    fleet().delete_agent(path.agent_id, project())
    return nothing()


@surface.api("GET", "/api/v1/agents/<agent_id>/facts", needs="read", answers={200: _OBJECT}, errors=[404])
def show_agent_facts(path: AgentPath) -> Response:
    """All facts of an agent."""
    return jsonify(fleet().agents.get(path.agent_id, project()).facts or None)


@surface.api("GET", "/api/v1/agents/<agent_id>/tags", needs="read", answers={200: _OBJECT}, errors=[404])
def show_agent_tags(path: AgentPath) -> Response:
    """All tags of an agent."""
    return jsonify(fleet().agents.get(path.agent_id, project()).tags)


@surface.api("GET", "/api/v1/agents/<agent_id>/events", needs="read", answers={200: _EVENTS}, errors=[404])
def list_agent_events(path: AgentPath, query: EventsQuery) -> Response:
    """When an agent came and went, the newest first."""
    fleet().agents.get(path.agent_id, project())
    events = fleet().agents.events(path.agent_id, query.limit)
    return jsonify([{"event": each.event, "at": clock.rfc3339(each.at), "detail": each.detail} for each in events])


@surface.api(
    "POST", "/api/v1/agents/<agent_id>/tags",
    needs="admin", answers={204: None}, errors=[404], body=_TAGS, audit="agent.tag",
)  # fmt: skip
def set_agent_tags(path: AgentPath) -> Response:
    """Add or overwrite tags, all or none; others stay. Keys are letters, digits and underscores, at most 128.

    Values have 1 to 1,000 characters, and an agent at most 64 tags.
    """
    fleet().agents.set_tags(path.agent_id, _tags(request.get_json()), clock.now_us(), project())
    return nothing()


@surface.api(
    "DELETE", "/api/v1/agents/<agent_id>/tags/<key>",
    needs="admin", answers={204: None}, errors=[404], audit="agent.untag",
)  # fmt: skip
def delete_agent_tag(path: TagPath) -> Response:
    """Remove a tag; fine too if there is none."""
    fleet().agents.delete_tag(path.agent_id, path.key, clock.now_us(), project())
    return nothing()


def agent_json(agent: Agent, query: FactsQuery) -> dict[str, Any]:
    agent = fleet().fresh(agent)
    facts = query.shown(agent.facts)
    return {
        "display_name": agent.display_name,
        "agent_id": agent.agent_id,
        "project": agent.project,
        "organization": agent.organization,
        **({"facts": facts} if facts else {}),
        **({"tags": agent.tags} if agent.tags else {}),
        "created_at": clock.rfc3339(agent.created_at),
        "updated_at": clock.rfc3339(agent.updated_at),
        "updated_with": agent.updated_with,
        "updated_by": agent.updated_by,
        "online": agent.is_online,
        "last_seen_at": clock.rfc3339(agent.last_seen_at),
    }


def _tags(body: Any) -> dict[str, str]:
    """Null is an empty text, which the rules for tags refuse. Raises Invalid."""
    if body is not None and not isinstance(body, dict):
        raise Invalid("tags must be a JSON object")
    tags = {key: "" if value is None else value for key, value in (body or {}).items()}
    if not all(isinstance(value, str) for value in tags.values()):
        raise Invalid("values of tags must be texts")
    return tags
