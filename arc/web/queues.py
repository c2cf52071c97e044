"""Queues and nodes over HTTP: where tasks wait, and who runs them."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc.web.jobjson import node_json, queue_json
from arc.web.jobrequests import only_with_jobs
from arc.web.parts import parts
from arc.web.surface import Surface

_QUEUE: dict[str, Any] = {"name": "default", "size": 12, "subscribers": 4, "unacked": 4}
_NODE: dict[str, Any] = {
    "id": "5DYSYbGtxJxrxKrBkFz7tc",
    "name": "Worker",
    "status": "UP",
    "hostname": "edge-1",
    "startedAt": "2025-10-19T12:00:00Z",
    "lastHeartbeatAt": "2025-10-19T12:30:00Z",
    "cpuPercent": 12.5,
    "taskCount": 4,
    "queue": "x-5DYSYbGtxJxrxKrBkFz7tc",
    "queues": {"default": 4},
    "version": "1.0.0",
}

surface = Surface("queues", "Queues and nodes", "Where tasks wait, and who runs them.")
surface.before_request(only_with_jobs)


class QueuePath(BaseModel):
    name: str


class QueueInfo(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _QUEUE})

    name: str
    size: int = Field(description="Tasks that wait")
    subscribers: int = Field(description="How many tasks of it can run at a time, on all nodes")
    unacked: int = Field(description="Tasks that run")


class NodeInfo(BaseModel):
    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _NODE})

    id: str
    name: str
    status: str = Field(description="UP, DOWN (`detail` says why) or OFFLINE: not heard of for a minute")
    cpuPercent: float
    taskCount: int
    version: str


def _list_of(model: type[BaseModel]) -> dict[str, Any]:
    """An answer that is a bare array. The operation for one element makes the model known."""
    schema = {"type": "array", "items": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"description": "OK", "content": {"application/json": {"schema": schema}}}


@surface.api("GET", "/queues", needs="read", answers={200: _list_of(QueueInfo)})
def list_queues() -> Response:
    """Queues that a node serves or that tasks wait in, by name."""
    return jsonify([queue_json(queue) for queue in parts().jobs.reader.queues()])


@surface.api("GET", "/queues/<name>", needs="read", answers={200: QueueInfo}, errors=[404])
def show_queue(path: QueuePath) -> Response:
    """One queue."""
    return jsonify(queue_json(parts().jobs.reader.queue(path.name)))


@surface.api(
    "DELETE", "/queues/<name>",
    needs="write", answers={200: {"description": "Done; no body"}}, errors=[404], audit="queue.purge",
)  # fmt: skip
def purge_queue(path: QueuePath) -> Response:
    """Cancel the jobs whose tasks wait in a queue. Who serves the queue goes on to."""
    parts().jobs.coordinator.purge_queue(path.name)
    return Response(status=200)


@surface.api("GET", "/nodes", needs="read", answers={200: _list_of(NodeInfo)})
def list_nodes() -> Response:
    """Nodes heard of in the last five minutes, by name."""
    return jsonify([node_json(node) for node in parts().jobs.reader.nodes()])


surface.further_models.append(NodeInfo)
