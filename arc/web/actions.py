"""Attributes and actions of the server's own node, as its agents' clients know them: /api/unstable/*.

Over HTTP, a token with `write` may schedule kinds whose permission is `actions`; all other kinds, and the claim of
another requester, take `admin`.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field, RootModel
from werkzeug.exceptions import HTTPException

from arc import errors as families
from arc.actions import attributes, rules, tracing, transfer
from arc.actions.body import CONTROL, ENVELOPE, MAX_BODY_BYTES, opened, strict_json
from arc.actions.errors import ActionsDisabled, InvalidJson
from arc.web import audit, errors
from arc.web.auth import ANY, IDENTITY_KEY
from arc.web.figures import prometheus_text
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.access.tokens import Identity
    from arc.actions.engine import ActionEngine
    from arc.actions.node import Node

ROOT = "/api/unstable"
NDJSON = "application/x-ndjson"
MAX_WAITERS = 4  # requests that may wait for a change at a time; they hold a thread each
FAMILIES = {  # codes of errors that other parts raise
    families.Unauthenticated: "Unauthorized",
    families.Denied: "Forbidden",
    families.TooLarge: "TooLarge",
    families.NotFound: "NotFound",
}
waiters = threading.BoundedSemaphore(MAX_WAITERS)
_OURS = re.compile(rf"{ROOT}/|/api/v1/agents/[^/]+/(actions|info|shards)/")
_ID = "9a1f2f6e-1f0a-47a0-8e6b-2f3a0f5f7d02"

surface = Surface(
    "actions", "Actions", "Durable operations on this node, and what it says of itself. docs/actions.md says more."
)


class ProgramVersion(BaseModel):
    number: str = Field(description="SemVer")
    checkout: str = Field(description="Id of the commit, or unknown")
    taint: str = Field(description="Whether the files differ from it, or unknown")


class ProgramInfo(BaseModel):
    version: ProgramVersion


class DatastoreInfo(BaseModel):
    cluster_id: str
    id: str = Field(description="Of this node; survives a new name of the host")
    node_id: str = Field(description="The same")
    kind: str
    version: str = Field(description="SemVer")
    cluster_display_name: str | None = None


class ShardMark(BaseModel):
    unit: str
    value: int


class ShardInfo(BaseModel):
    id: str
    role: str = Field(description="PRIMARY, SECONDARY, RECOVERING or OTHER")
    commit_offset: ShardMark | None = Field(description="Of the newest durable change; it only grows")
    lag: ShardMark | None = Field(description="How far the primary is ahead; only where there is one elsewhere")


class ShardList(BaseModel):
    shards: list[ShardInfo]


class ActionsEnabled(BaseModel):
    actions: bool


class KindInfo(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: str
    description: str
    args_schema: dict[str, Any] | None = Field(description="JSON Schema of the arguments; null takes anything")
    stages: list[str]
    permission: str
    enabled: bool
    mutating: bool


class KindList(RootModel[list[KindInfo]]):
    pass


class ActionSummary(BaseModel):
    kind: str
    id: str
    state: str = Field(description="NEW, RUNNING, DONE or FAILED")


class ActionList(RootModel[list[ActionSummary]]):
    pass


class ActionRecordInfo(BaseModel):
    id: str
    kind: str
    args: Any
    headers: dict[str, str]
    requester: str
    created_ts: str
    scheduled_ts: str
    finished_ts: str | None
    state: str
    state_payload: Any


class ActionEvent(BaseModel):
    action_id: str
    timestamp: str
    state: str
    state_payload: Any


class ActionInfo(BaseModel):
    action: ActionRecordInfo
    history: list[ActionEvent] = Field(description="Newest first")


class ActionScheduled(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"id": _ID}})

    id: str


class ActionsImported(BaseModel):
    imported: int
    skipped: int = Field(description="Whose ids were known")


class ActionCancelled(BaseModel):
    id: str
    state: str
    cancel_requested: bool | None = None


class ActionPath(BaseModel):
    action_id: str = Field(description="UUID")


class KindPath(BaseModel):
    kind: str = Field(description="SCOPE/NAME, such as agent.replicante.io/test.ping")


class FinishedQuery(BaseModel):
    limit: int = Field(100, ge=1, le=1000, description="At most so many")
    before: str | None = Field(None, description="Id of an action; only what was scheduled before it")


class InfoQuery(BaseModel):
    wait: int | None = Field(None, ge=1, le=60, description="Seconds to wait for a change, if it has not come yet")
    revision: int | None = Field(
        None, ge=0, description="The revision known to you, from ETag; default: the present one"
    )


class ScheduleQuery(BaseModel):
    action_id: str | None = Field(None, description="UUID of yours; a second action with it is refused with 409")
    created_ts: str | None = Field(None, description="When it was first asked for; RFC 3339, UTC")
    requester: str | None = Field(None, description="Who asked: " + ", ".join(rules.REQUESTERS))


class ThreadInfo(BaseModel):
    name: str
    short_name: str
    activity: str | None


class ThreadList(BaseModel):
    threads: list[ThreadInfo]
    warning: list[str]


class CancelRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"reason": "not needed any more"}})

    reason: str = Field("", max_length=1000)


@surface.errorhandler(families.ArcError)
def on_error(exc: families.ArcError) -> Response:
    """Clients of the original agents read `kind`, `variant` and `layers`."""
    known = (code for family, code in FAMILIES.items() if isinstance(exc, family) and _is_of_others(exc))
    code = next(known, "InvalidRequest" if type(exc) is families.Invalid else type(exc).__name__)
    return errors.respond(exc, **_keys(code, str(exc)), details=dict(exc.details))


@surface.app_errorhandler(HTTPException)
def on_http_error(exc: HTTPException) -> Response:
    """Also where there is no route, or none for the method."""
    if not _OURS.match(f"{request.path}/"):
        return errors.respond(exc)
    text = f"Cannot {request.method} {request.path}" if exc.code == 404 else exc.name
    answer = errors.respond(exc, **_keys(exc.name.replace(" ", ""), text), details={})
    answer.headers["Cache-Control"] = "no-store"
    return answer


@surface.errorhandler(Exception)
def on_defect(exc: Exception) -> Response:
    if isinstance(exc, HTTPException):
        return on_http_error(exc)
    return errors.respond(exc, **_keys("InternalError", "Internal server error"), details={})


@surface.after_request
def not_to_be_kept(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@surface.api("GET", "/api/unstable", needs="read", answers={200: {"description": "One line of text"}})
def greet() -> Response:
    """What this is."""
    return Response("Arc: attributes and actions of this node\n", mimetype="text/plain")


@surface.api("GET", "/api/unstable/info/agent", needs="read", answers={200: ProgramInfo})
def show_program() -> Response:
    """The version of the running program."""
    return jsonify(attributes.info_agent(_node().version))


@surface.api("GET", "/api/unstable/info/datastore", needs="read", answers={200: DatastoreInfo})
def show_datastore() -> Response:
    """Who this node is and which store it has."""
    return jsonify(attributes.info_datastore(_node().datastore))


@surface.api("GET", "/api/unstable/shards", needs="read", answers={200: ShardList})
def list_shards() -> Response:
    """The shards of data on this node: `_meta` first, then one per database."""
    return jsonify(_node().shards.as_dict())


@surface.api("GET", "/api/unstable/actions", needs="read", answers={200: ActionsEnabled})
def tell_whether_actions_are_enabled() -> Response:
    """Whether this node carries out actions."""
    node = parts().node
    return jsonify(actions=node is not None and node.engine is not None)


@surface.api("GET", "/api/unstable/actions/available", needs="read", answers={200: KindList}, errors=[404])
def list_kinds() -> Response:
    """What this node can do, by name, with the schema of the arguments."""
    return jsonify([kind.as_dict() for kind in _engine().kinds()])


@surface.api("GET", "/api/unstable/actions/queue", needs="read", answers={200: ActionList}, errors=[404])
def list_queued_actions() -> Response:
    """All that has not ended, in the order of execution. To miss nothing, read this before the finished ones."""
    return jsonify([action.as_dict() for action in _engine().queue()])


@surface.api("GET", "/api/unstable/actions/finished", needs="read", answers={200: ActionList}, errors=[404])
def list_finished_actions(query: FinishedQuery) -> Response:
    """What has ended, last scheduled first. `X-Total-Count` says how many are kept."""
    engine = _engine()
    answer = jsonify([action.as_dict() for action in engine.finished(query.limit, query.before)])
    answer.headers["X-Total-Count"] = str(engine.store.finished_count())
    return answer


@surface.api("GET", "/api/unstable/actions/info/<action_id>", needs="read", answers={200: ActionInfo}, errors=[404])
def show_action(path: ActionPath, query: InfoQuery) -> Response:
    """An action and its history. With `wait`, answers when the action has changed, or when that time is over."""
    engine = _engine()
    revision = engine.get(path.action_id)[0].revision
    if query.wait and (query.revision is None or query.revision == revision) and waiters.acquire(blocking=False):
        try:
            engine.wait_for_change(path.action_id, revision, query.wait)
        finally:
            waiters.release()
        revision = engine.get(path.action_id)[0].revision
    answer = jsonify(for_old_clients(engine.info(path.action_id)))
    answer.set_etag(str(revision))
    answer.make_conditional(request)
    return answer


@surface.api(
    "POST",
    "/api/unstable/actions/schedule/<path:kind>",
    needs=ANY,  # what it takes depends on the kind
    answers={200: ActionScheduled},
    errors=[404, 409, 413, 503],
    body={"application/json": {"schema": {}, "example": {"count": 3}}},
    audit="action.schedule",
)
def schedule_action(path: KindPath, query: ScheduleQuery) -> Response:
    """Queue an action. The whole body is its arguments, any JSON that suits the kind; it is on disk when this answers.

    The token needs `write`, or `admin` for kinds whose permission is not `actions`. 429 when too many are waiting.
    """
    engine, identity = _engine(), _identity()
    kind = engine.catalogue.get(path.kind)
    identity.require(needed_for(kind.permission))
    args, given = schedule_body(query)
    created = given.get("created_ts")
    record = engine.schedule(
        path.kind,
        args,
        action_id=given.get("action_id"),
        created_us=None if created is None else rules.created_us(created),
        requester=given.get("requester"),
        may_claim=identity.may("admin"),
        headers=tracing.in_own_span(request.headers.items()),
        requested_by=identity.name,
    )
    audit.note(record.id)
    answer = jsonify(id=record.id)
    answer.headers.update(tracing.answer_headers(record.headers))
    return answer


@surface.api(
    "POST",
    "/api/unstable/actions/cancel/<action_id>",
    needs="write",
    answers={200: ActionCancelled},
    errors=[404, 409],
    audit="action.cancel",
)
def cancel_action(path: ActionPath, body: CancelRequest) -> Response:
    """End an action that waits, or ask one that runs to end itself; 409 when it has ended or its kind cannot stop."""
    record = _engine().cancel(path.action_id, body.reason)
    if record.state.is_final:
        return jsonify(id=record.id, state="CANCELLED")
    return jsonify(id=record.id, state=record.state.value, cancel_requested=True)


@surface.api(
    "GET",
    "/api/unstable/actions/export",
    needs="read",
    answers={200: {"description": "JSON lines", "content": {NDJSON: {"schema": {"type": "string"}}}}},
    errors=[404],
)
def export_actions() -> Response:
    """All actions that have ended, first scheduled first, each as a line like the answer of `actions/info`."""
    return Response(transfer.lines(_engine()), mimetype=NDJSON)


@surface.api(
    "POST",
    "/api/unstable/actions/import",
    needs="admin",
    answers={200: ActionsImported},
    errors=[404, 413, 503],
    body={NDJSON: {"schema": {"type": "string"}}},
    audit="action.import",
)
def import_actions() -> Response:
    """Take in actions that have ended elsewhere: lines like those of `actions/export`, all of them or none.

    They come before all that this node did itself. Known ids are skipped; `details` of a refusal names line and member.
    """
    engine = _engine()
    ended = transfer.read(request.get_data(), engine.options.header_deny)
    imported = engine.store.add_ended(ended)
    audit.note(imported=imported)
    return jsonify(imported=imported, skipped=len(ended) - imported)


@surface.api("GET", "/api/unstable/introspect/metrics", needs="read", answers={200: {"description": "As `/metrics`"}})
def introspect_metrics() -> Response:
    """Figures for Prometheus."""
    return Response(prometheus_text(parts()), content_type=CONTENT_TYPE_PLAIN_0_0_4)


@surface.api("GET", "/api/unstable/introspect/threads", needs="read", answers={200: ThreadList})
def introspect_threads() -> Response:
    """The threads of this program, by name."""
    found = sorted(thread.name for thread in threading.enumerate())
    listed = [{"name": f"arc:{name}", "short_name": name, "activity": None} for name in found]
    return jsonify(threads=listed, warning=["threads that are not Python's own are not listed"])


def for_old_clients(info: dict[str, Any]) -> dict[str, Any]:
    """The same; the requester as the first clients know it, if the operator wants that."""
    if info["action"]["requester"] == rules.AGENT_API and parts().config.get("actions", "requester_api"):
        info["action"]["requester"] = rules.OLD_AGENT_API
    return info


def needed_for(permission: str) -> str:
    """The permission that a token needs for kinds with this one."""
    return "write" if permission == "actions" else "admin"


def _keys(code: str, text: str) -> dict[str, Any]:
    return {"kind": code, "variant": code, "layers": [text], "trace": None}


def _node() -> Node:
    node = parts().node
    if node is None:
        raise families.NotFound("this server has no attributes of a node")
    return node


def _engine() -> ActionEngine:
    node = parts().node
    if node is None or node.engine is None:
        raise ActionsDisabled
    return node.engine


def _identity() -> Identity:
    identity: Identity = request.environ[IDENTITY_KEY]
    return identity


def _is_of_others(exc: families.ArcError) -> bool:
    return not type(exc).__module__.startswith(("arc.actions.", "arc.fleet.relay"))


def schedule_body(query: ScheduleQuery) -> tuple[Any, dict[str, str]]:
    """The arguments, and what was said beside them. Raises InvalidJson, TooLarge."""
    if any(len(request.args.getlist(name)) > 1 for name in CONTROL):
        raise InvalidJson("action_id, created_ts and requester may each be given once")
    said = query.model_dump(exclude_none=True)
    data = request.get_data()
    if len(data) > MAX_BODY_BYTES:
        raise families.TooLarge(f"the arguments of an action may have {MAX_BODY_BYTES} bytes")
    body = strict_json(data)
    return opened(body, said) if request.mimetype == ENVELOPE else (body, said)
