"""Attributes and actions of the machines of the fleet, by way of their agents: /api/v1/agents/ID/*.

The answers are those of /api/unstable, as the agent reported them last; how long ago that was stands in `Age`. What is
scheduled here waits until the agent asks for work.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from pydantic import Field

from arc import clock
from arc import errors as families
from arc.actions import rules, schema, tracing
from arc.actions.errors import ActionNotAvailable
from arc.actions.records import ActionRecord, HistoryItem, State
from arc.errors import Unavailable
from arc.web import actions, audit
from arc.web.auth import ANY
from arc.web.fleet_requests import AgentPath, fleet, project, refuse_nul
from arc.web.jobrequests import identity
from arc.web.parts import parts
from arc.web.surface import Surface

ROOT = "/api/v1/agents/<agent_id>"
REQUESTER = "CORE_API"  # of what is scheduled by way of the server

surface = Surface(
    "agent_actions", "Agent actions", "What the engine of a machine's agent says and does. docs/actions.md says more."
)
surface.register_error_handler(families.ArcError, actions.on_error)
surface.register_error_handler(Exception, actions.on_defect)
surface.before_request(refuse_nul)
surface.after_request(actions.not_to_be_kept)


class AgentActionPath(AgentPath):
    action_id: str = Field(description="UUID")


class AgentKindPath(AgentPath):
    kind: str = Field(description="SCOPE/NAME, such as agent.replicante.io/test.ping")


class NodeUnreachable(Unavailable):
    def __init__(self, agent_id: str) -> None:
        super().__init__(f"the agent {agent_id!r} has not reported what it can do", retry_after_s=5)


@surface.api("GET", f"{ROOT}/info/agent", needs="read", answers={200: actions.ProgramInfo}, errors=[404, 503])
def show_agent_program(path: AgentPath) -> Response:
    """The version of the agent."""
    return _reported(path.agent_id, "agent")


@surface.api("GET", f"{ROOT}/info/datastore", needs="read", answers={200: actions.DatastoreInfo}, errors=[404, 503])
def show_agent_datastore(path: AgentPath) -> Response:
    """Who the machine is, in the cluster of this server."""
    return _reported(path.agent_id, "datastore", _our_cluster())


@surface.api("GET", f"{ROOT}/shards", needs="read", answers={200: actions.ShardList}, errors=[404, 503])
def list_agent_shards(path: AgentPath) -> Response:
    """The shards of data on the machine."""
    return _reported(path.agent_id, "shards")


@surface.api("GET", f"{ROOT}/actions", needs="read", answers={200: actions.ActionsEnabled}, errors=[404])
def tell_whether_agent_actions_are_enabled(path: AgentPath) -> Response:
    """Whether the agent carries out actions, as far as it has said."""
    _check(path.agent_id)
    return jsonify(actions=fleet().relay.report(path.agent_id) is not None)


@surface.api("GET", f"{ROOT}/actions/available", needs="read", answers={200: actions.KindList}, errors=[404, 503])
def list_agent_kinds(path: AgentPath) -> Response:
    """What the machine can do, by name, with the schema of the arguments."""
    return _reported(path.agent_id, "kinds")


@surface.api("GET", f"{ROOT}/actions/queue", needs="read", answers={200: actions.ActionList}, errors=[404])
def list_queued_agent_actions(path: AgentPath) -> Response:
    """All that has not ended: what the agent works on, what waits there, what it has yet to be told of."""
    _check(path.agent_id)
    return jsonify(fleet().relay.queue(path.agent_id))


@surface.api("GET", f"{ROOT}/actions/finished", needs="read", answers={200: actions.ActionList}, errors=[404])
def list_finished_agent_actions(path: AgentPath, query: actions.FinishedQuery) -> Response:
    """What has ended, the last first. `X-Total-Count` says how many are kept."""
    _check(path.agent_id)
    found, total = fleet().relay.finished(path.agent_id, query.limit, query.before)
    answer = jsonify(found)
    answer.headers["X-Total-Count"] = str(total)
    return answer


@surface.api("GET", f"{ROOT}/actions/info/<action_id>", needs="read", answers={200: actions.ActionInfo}, errors=[404])
def show_agent_action(path: AgentActionPath, query: actions.InfoQuery) -> Response:
    """An action and its history, as the agent reported them last. With `wait`, answers when that changes."""
    _check(path.agent_id)
    relay, action = fleet().relay, (path.agent_id, path.action_id)
    info, revision = relay.info(*action)
    if query.wait and query.revision in (None, revision) and actions.waiters.acquire(blocking=False):
        try:
            relay.wait_for_change(*action, revision, query.wait)
        finally:
            actions.waiters.release()
        info, revision = relay.info(*action)
    answer = jsonify(actions.for_old_clients(info))
    answer.set_etag(str(revision))
    answer.make_conditional(request)
    return answer


@surface.api(
    "POST",
    f"{ROOT}/actions/schedule/<path:kind>",
    needs=ANY,  # what it takes depends on the kind
    answers={200: actions.ActionScheduled},
    errors=[404, 409, 413, 503],
    body={"application/json": {"schema": {}, "example": {"count": 3}}},
    audit="action.schedule",
)
def schedule_agent_action(path: AgentKindPath, query: actions.ScheduleQuery) -> Response:
    """Queue an action for a machine, also while it is offline. The whole body is its arguments.

    They are checked here against what the agent said of the kind, and there again. The token needs `write`, or
    `admin` for kinds whose permission is not `actions` and for machines whose kinds are not known yet.
    """
    _check(path.agent_id)
    kind = _kind(path.agent_id, path.kind)
    identity().require(actions.needed_for(kind["permission"]))
    args, given = actions.schedule_body(query)
    if kind["args_schema"] is not None:
        schema.check(kind["args_schema"], args)
    record = _record(path.kind, args, given)
    sent = {"id": record.id, "kind": record.kind, "args": args, "headers": dict(record.headers)}
    sent |= {"requester": record.requester, "requested_by": record.requested_by, "created_at": record.created_at}
    fleet().schedule_action(path.agent_id, sent, _info(record, kind["args_schema"]))
    audit.note(record.id)
    answer = jsonify(id=record.id)
    answer.headers.update(tracing.answer_headers(record.headers))
    return answer


@surface.api(
    "POST",
    f"{ROOT}/actions/cancel/<action_id>",
    needs="write",
    answers={200: actions.ActionCancelled},
    errors=[404, 409],
    audit="action.cancel",
)
def cancel_agent_action(path: AgentActionPath, body: actions.CancelRequest) -> Response:
    """End an action that the agent has not been told of, else have the agent told."""
    _check(path.agent_id)
    state = fleet().cancel_action(path.agent_id, path.action_id, body.reason)
    if state == "CANCELLED":
        return jsonify(id=path.action_id, state=state)
    return jsonify(id=path.action_id, state=state, cancel_requested=True)


def _check(agent_id: str) -> None:
    """Raises AgentNotFound, OtherProject."""
    fleet().agent(agent_id, project())


def _reported(agent_id: str, name: str, more: dict[str, str] | None = None) -> Response:
    agent = fleet().agent(agent_id, project())
    report = fleet().relay.report(agent_id)
    if report is None:
        fleet().ask_for_report(agent_id)  # it may have, before it was deleted or the server restored
        raise NodeUnreachable(agent_id)
    said, observed_at = report
    answer = jsonify(said[name] | more if more else said[name])
    # What it said held when it was heard of last: it says so when something changes.
    answer.headers["Age"] = str(max(0, clock.now_us() - agent.last_seen_at) // clock.US_PER_S)
    answer.headers["X-Arc-Observed-At"] = str(clock.rfc3339(observed_at))
    if not agent.is_online:
        answer.headers["X-Arc-Stale"] = "true"
    return answer


def _our_cluster() -> dict[str, str]:
    """The cluster that a machine belongs to is that of its server."""
    node = parts().node
    ours = node.datastore().as_dict() if node else {}
    return {name: ours[name] for name in ("cluster_id", "cluster_display_name") if name in ours}


def _kind(agent_id: str, name: str) -> dict[str, Any]:
    """What the agent said of a kind; of an agent that has said nothing yet, the least. Raises ActionNotAvailable."""
    report = fleet().relay.report(agent_id)
    if report is None:
        return {"permission": "admin", "args_schema": {"x-secret": True}}  # any argument may be a secret
    found: dict[str, Any] | None = next(
        (kind for kind in report[0]["kinds"] if name in (kind["kind"], *kind["aliases"])), None
    )
    if found is None:
        raise ActionNotAvailable(name)
    return found


def _record(kind: str, args: Any, given: dict[str, str]) -> ActionRecord:
    """Raises InvalidId, InvalidTime, InvalidRequester, ActionEncode, Forbidden."""
    now_us, claim = clock.now_us(), given.get("requester")
    created = given.get("created_ts")
    return ActionRecord(
        id=rules.action_id(given.get("action_id")),
        kind=kind,
        args=args,
        created_at=now_us if created is None else rules.created_us(created),
        scheduled_at=now_us,
        touched_at=now_us,
        headers=rules.headers(
            tracing.in_own_span(request.headers.items()), parts().config.get("actions", "header_deny")
        ),
        requester=REQUESTER if claim is None else rules.requester(claim, may_claim=identity().may("admin")),
        requested_by=identity().name,
    )


def _info(record: ActionRecord, args_schema: dict[str, Any] | None) -> dict[str, Any]:
    """What clients see until the agent reports."""
    history = [HistoryItem(record.id, record.scheduled_at, State.NEW, None).as_dict()]
    return {"action": record.as_dict() | {"args": schema.masked(args_schema, record.args)}, "history": history}
