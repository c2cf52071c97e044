"""The transport of agents over HTTP: batches in, long polls out. Only our agent calls these.

POST messages -> Fleet.post -> number of the last message that had its effect
GET  messages -> Fleet.poll -> (waits, at most [fleet] long_poll_slots at a time) requests, cancellations
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from arc.errors import Invalid
from arc.fleet.intake import Speaker
from arc.fleet.messages import Fields, read_json
from arc.fleet.values import refuse_nul
from arc.metrics.decode.inflate import inflate
from arc.web import parse
from arc.web.auth import IDENTITY_KEY
from arc.web.surface import Surface

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from arc.access.tokens import Identity
    from arc.web.parts import Parts
    from arc.web.surface import Finish

MAX_BATCH_BYTES = 2**20  # as sent, and inflated
EXAMPLE: dict[str, Any] = {
    "epoch": "3f0c1d8a",
    "messages": [
        {
            "seq": 1,
            "type": "registration",
            "version": 1,
            "sender": "press-07",
            "registration_id": "b2a6d0d4-7c45-4a07-8b1a-6b8f7a0c1e35",
            "payload": {"os": "linux", "hostname": "press-07"},
        }
    ],
}
_BATCH = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["epoch", "messages"],
            "properties": {
                "epoch": {"type": "string", "description": "Names the agent's spool; numbers begin anew with it"},
                "messages": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["seq", "type"],
                        "properties": {
                            "seq": {"type": "integer", "minimum": 1},
                            "type": {
                                "type": "string",
                                "enum": ["registration", "reply", "received", "metrics", "actions"],
                            },
                        },
                    },
                },
            },
        },
        "example": EXAMPLE,
    }
}

surface = Surface("fleet_transport", "Agent transport", "What the agent on a machine calls.")


class Rejected(BaseModel):
    seq: int
    error: str


class Receipt(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"last_seq": 1, "rejected": []}})

    last_seq: int = Field(description="Messages of the epoch up to this number need not be sent again")
    rejected: list[Rejected] = Field(description="Messages that had no effect, and never will")


class Work(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "messages": [
                    {
                        "version": 1,
                        "sender": "arc",
                        "to": "press-07",
                        "request_id": "5f6b1f0e-3c7d-4f6c-8a11-1a5a2c0d9e77",
                        "timeout": 120,
                        "agent": "execute",
                        "action": "command",
                        "payload": "uptime",
                        "type": "request",
                    }
                ],
                "retry_in_s": 0.0,
            }
        }
    )

    messages: list[dict[str, Any]] = Field(description="Of type `request`, `cancel` or `action`")
    retry_in_s: float = Field(description="Seconds to wait until the next poll")


_AGENT_ID = {
    "name": "agent_id",
    "in": "path",
    "required": True,
    "description": "Identity of the machine",
    "schema": {"type": "string"},
}
_POLL = (
    _AGENT_ID,
    {
        "name": "wait_s",
        "in": "query",
        "description": "How long to wait for a message, at most",
        "schema": {"type": "number", "minimum": 0, "default": 0},
    },
    {
        "name": "offline",
        "in": "query",
        "description": "The agent stops: it is offline from now on, and gets nothing",
        "schema": {"type": "boolean", "default": False},
    },
)


@surface.hot(
    "POST", "/api/v1/agents/<agent_id>/messages",
    needs="agent", answers={200: Receipt}, errors=[413, 503], headers=[_AGENT_ID], body=_BATCH,
)  # fmt: skip
def post_agent_messages(arc: Parts, environ: WSGIEnvironment, agent_id: str) -> Finish:
    """Take in registrations, replies, confirmations and metrics of an agent, each once, in the order of `seq`.

    Any request is a sign of life. A body may be compressed with gzip or zstd, and has at most 1 MB.
    """
    environ["arc.is_routine"] = True
    refuse_nul("the agent's id", agent_id)
    body = inflate(parse.body(environ), environ.get("HTTP_CONTENT_ENCODING", ""), MAX_BATCH_BYTES)
    epoch, messages = _batch(body)

    def finish() -> dict[str, Any]:
        receipt = arc.fleet.post(agent_id, _speaker(environ), epoch, messages)
        rejected = [{"seq": seq, "error": error} for seq, error in receipt.rejected]
        return {"last_seq": receipt.last_seq, "rejected": rejected}

    return finish


@surface.hot(
    "GET", "/api/v1/agents/<agent_id>/messages",
    needs="agent", answers={200: Work}, errors=[503], headers=_POLL,
)  # fmt: skip
def poll_agent_messages(arc: Parts, environ: WSGIEnvironment, agent_id: str) -> Finish:
    """What the agent shall do; waits for it while a place is free, else says when to ask again.

    A request is handed out again until the agent has confirmed it, so the agent remembers which it has.
    """
    environ["arc.is_routine"] = True
    refuse_nul("the agent's id", agent_id)
    args, speaker = parse.arguments(environ), _speaker(environ)
    wait_s = _wait_s(args.get("wait_s", "0"))
    is_gone = environ.get("waitress.client_disconnected", bool)

    def finish() -> dict[str, Any]:
        if args.get("offline", "").lower() in ("true", "1"):
            arc.fleet.leave(agent_id, speaker)
            return {"messages": [], "retry_in_s": 0.0}
        messages, retry_in_s = arc.fleet.poll(agent_id, speaker, wait_s, is_gone)
        return {"messages": messages, "retry_in_s": retry_in_s}

    return finish


def _speaker(environ: WSGIEnvironment) -> Speaker:
    who: Identity = environ[IDENTITY_KEY]
    return Speaker(who.token_id, who.agent_id, who.project, who.organization)


def _wait_s(text: str) -> float:
    """Raises Invalid."""
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < math.inf:
        raise Invalid(f"wait_s must be a number of seconds, not {text[:40]!r}")
    return wait_s


def _batch(body: bytes) -> tuple[str, list[Any]]:
    """Epoch and messages. Raises Invalid."""
    try:
        fields = Fields(read_json(body), "the body")
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"Invalid request body: {exc}") from None
    epoch, messages = fields.text("epoch"), fields.raw("messages")
    if not 1 <= len(epoch) <= 64:
        raise Invalid("epoch must be a text of 1 to 64 characters")
    if not isinstance(messages, list):
        raise Invalid("messages must be a list")
    return epoch, messages
