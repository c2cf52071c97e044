"""Places: how many machines may be out of service at a time because of actions that the server handed to them.

Relay.messages -> must_wait -> handed | held back; Relay.settle -> next_in_line -> woken
An action counts from the moment it is handed over (or reported, if it was scheduled on the machine itself) until it
has ended, or until nothing has been heard of it for `longest_s`: a machine that is gone must not block the others.
Free places are for those that have waited longest. Source: the actions specification, F-46.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from arc import clock
from arc.db.fleet_tables import agent_actions, agents

if TYPE_CHECKING:
    import sqlalchemy as sa

INTERRUPTING = frozenset(  # kinds that take a machine, or its agent, out of service
    f"arc.edge/{name}" for name in ("node.reboot", "node.shutdown", "agent.restart", "agent.update", "store.restore")
)

_C = agent_actions.c
_OPEN = (
    select(_C.agent_id, _C.handed_at, agents.c.is_online)
    .join(agents, agents.c.agent_id == _C.agent_id)
    .where(_C.kind.in_(sorted(INTERRUPTING)), _C.finished_at.is_(None))
    .order_by(_C.number)
)


class Places:
    """Any thread may call it. limit: 0 holds nothing back."""

    def __init__(self, limit: int, longest_s: float) -> None:
        self._limit = limit
        self._longest_us = round(longest_s * clock.US_PER_S)
        self._lock = threading.Lock()
        self._in_line: set[str] = set()  # agents that asked and were held back; others would let their place go unused

    def must_wait(self, tx: sa.Connection, row: Any, now_us: int) -> bool:
        """Whether an agent that asks for its work cannot have this action yet."""
        if not self._limit or row.kind not in INTERRUPTING or row.handed_at is not None:
            return False
        with self._lock:
            self._in_line.add(row.agent_id)
        if row.agent_id not in self.next_in_line(tx, now_us):
            return True
        with self._lock:
            self._in_line.discard(row.agent_id)
        return False

    @property
    def is_contended(self) -> bool:
        """Whether anything was held back."""
        return bool(self._in_line)

    def next_in_line(self, connection: sa.Connection, now_us: int) -> list[str]:
        """Agents that may have an action that was held back."""
        with self._lock:
            in_line = set(self._in_line)
        rows = connection.execute(_OPEN).all()
        heard_since = now_us - self._longest_us
        out = {row.agent_id for row in rows if row.handed_at is not None and row.handed_at > heard_since}
        held = [row for row in rows if row.handed_at is None and row.agent_id in in_line]
        with self._lock:
            self._in_line -= in_line - {row.agent_id for row in held}  # cancelled, or the agent was deleted
        line = dict.fromkeys(row.agent_id for row in held if row.is_online and row.agent_id not in out)
        return list(line)[: max(self._limit - len(out), 0)]
