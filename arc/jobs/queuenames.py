"""Names of queues: which ones tasks may wait in."""

from __future__ import annotations

# Queues between the parts of the server. Clients know these names, so no task may use them.
INTERNAL = frozenset(
    {"jobs", "pending", "started", "completed", "error", "heartbeat", "logs", "progress", "redeliveries"}
)
NODE_PREFIX = "x-"  # one queue per node, for cancellations


def is_for_tasks(name: str) -> bool:
    return name not in INTERNAL and not name.startswith(NODE_PREFIX)
