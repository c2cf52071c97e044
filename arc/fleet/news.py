"""News of the fleet: what changes is a log line at once and a point of metrics soon.

event -> News -> log; ship() -> line protocol -> database `arc`: fleet_events, fleet_executions, actions
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.fleet.records import Execution
    from arc.fleet.relay import Copy

log = logging.getLogger(__name__)

DATABASE = "arc"
MAX_WAITING = 10_000  # points; beyond it the oldest are lost, as when the metrics stay closed for long


class News:
    """Any thread may call it. write_lines: stores line protocol in a database."""

    def __init__(self, write_lines: Callable[[bytes, str], object]) -> None:
        self._write_lines = write_lines
        self._points: deque[str] = deque(maxlen=MAX_WAITING)

    def agent(self, agent_id: str, event: str, now_us: int, detail: str = "") -> None:
        log.info("agent %s: %s%s", agent_id, event, f" ({detail})" if detail else "")
        tags = {"agent": agent_id, "event": event}
        self._points.append(_line("fleet_events", tags, {"detail": _text(detail)}, now_us))

    def ended(self, execution: Execution) -> None:
        """An execution has ended."""
        status, began_at = execution.status.name.lower(), execution.started_at or execution.created_at
        ended_at = execution.ended_at or execution.updated_at
        log.info("job %s on %s: %s", execution.request_id, execution.agent_id, status)
        tags = {"agent": execution.agent_id, "plugin": execution.plugin, "action": execution.action, "status": status}
        fields = {"request_id": _text(execution.request_id), "duration_ms": f"{(ended_at - began_at) // 1000}i"}
        if execution.exit_code is not None:
            fields["exit_code"] = f"{execution.exit_code}i"
        self._points.append(_line("fleet_executions", tags, fields, ended_at))

    def action(self, agent_id: str, action: Copy) -> None:
        """An action of an agent has ended."""
        log.info("action %s on %s: %s", action.action_id, agent_id, action.state)
        payload = action.info["action"].get("state_payload")
        variant = payload.get("variant") if isinstance(payload, dict) else None
        tags = {"agent": agent_id, "kind": action.kind, "state": action.state, "variant": str(variant or "")}
        self._points.append(_line("actions", tags, {"id": _text(action.action_id)}, action.finished_at or 0))

    def ship(self) -> int:
        """Write the points that wait; they wait on while the metrics cannot take them."""
        points = [self._points.popleft() for _ in range(len(self._points))]
        if points:
            try:
                self._write_lines("\n".join(points).encode("utf-8", "replace"), DATABASE)
            except ArcError as error:
                self._points.extendleft(reversed(points))
                log.debug("points of the fleet wait: %s", error)
                return 0
        return len(points)


def _line(measurement: str, tags: Mapping[str, str], fields: Mapping[str, str], at_us: int) -> str:
    head = ",".join([measurement, *(f"{name}={escaped(value)}" for name, value in tags.items() if escaped(value))])
    return f"{head} {','.join(f'{name}={value}' for name, value in fields.items())} {at_us * 1000}"


def escaped(tag: str) -> str:
    r"""A tag value of line protocol; it cannot hold a line break, nor end in a backslash."""
    plain = tag.replace("\n", " ").replace("\r", " ").rstrip("\\")
    return plain.replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ")


def _text(value: str) -> str:
    plain = value.replace("\n", " ").replace("\\", r"\\")
    return '"' + plain.replace('"', r"\"") + '"'
