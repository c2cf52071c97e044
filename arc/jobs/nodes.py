"""Nodes: who coordinates jobs and who runs tasks, known by their heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
from sqlalchemy import bindparam, insert, select, update

from arc.clock import US_PER_S
from arc.db.tables import nodes, settings
from arc.jobs.records import Node, NodeReport

if TYPE_CHECKING:
    import sqlalchemy as sa

    from arc.db.engine import Database

HEARTBEAT_S = 30.0
OFFLINE_US = 60 * US_PER_S  # a node is shown as OFFLINE when it has been silent for longer
UNLISTED_US = 300 * US_PER_S  # and not at all from then on
UP, DOWN, OFFLINE = "UP", "DOWN", "OFFLINE"

_UPDATE = update(nodes).where(nodes.c.id == bindparam("b_id"))
_INSERT = insert(nodes)
_LISTED = select(nodes).where(nodes.c.last_heartbeat_at > bindparam("b_after")).order_by(nodes.c.name, nodes.c.id)
_SETTING = select(settings.c.value).where(settings.c.name == bindparam("b_name"))


def save_node(connection: sa.Connection, report: NodeReport, now_us: int) -> None:
    """Keep what a node says of itself."""
    values: dict[str, Any] = {
        "name": report.name,
        "kind": report.kind,
        "hostname": report.hostname,
        "version": report.version,
        "status": report.status,
        "detail": report.detail,
        "queues": orjson.dumps(dict(report.queues)).decode(),
        "started_at": report.started_at,
        "last_heartbeat_at": now_us,
        "cpu_percent": report.cpu_percent,
        "task_count": report.task_count,
    }
    if connection.execute(_UPDATE.values(**values), {"b_id": report.id}).rowcount == 0:
        connection.execute(_INSERT, {"id": report.id, **values})


def listed_nodes(connection: sa.Connection, now_us: int) -> list[Node]:
    """Those heard of lately, by name."""
    return [_node(row, now_us) for row in connection.execute(_LISTED, {"b_after": now_us - UNLISTED_US})]


def consumers(connection: sa.Connection, now_us: int) -> dict[str, int]:
    """Queue to the number of its consumers, on nodes that are not silent."""
    counts: dict[str, int] = {}
    for node in listed_nodes(connection, now_us):
        if node.last_heartbeat_at >= now_us - OFFLINE_US:
            for queue, count in node.queues.items():
                counts[queue] = counts.get(queue, 0) + count
    return counts


def stable_id(db: Database, kind: str) -> str:
    """The id of a node of this installation, the same at every start."""
    name = f"node.{kind}"
    with db.transaction() as connection:
        found: str | None = connection.execute(_SETTING, {"b_name": name}).scalar_one_or_none()
        if found is None:
            found = uuid4().hex
            connection.execute(insert(settings), {"name": name, "value": found})
    return found


def _node(row: sa.Row[Any], now_us: int) -> Node:
    values = dict(row._mapping)
    values["queues"] = orjson.loads(values["queues"])
    if values["status"] == UP and values["last_heartbeat_at"] < now_us - OFFLINE_US:
        values["status"] = OFFLINE
    return Node(**values)
