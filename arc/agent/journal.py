"""Journal: which requests this agent has had, what it replied last, and which process works on each.

accept (once per request id) -> started (process) -> reply, reply, ... -> final reply
A reply and its number are one transaction with its message in the spool, so numbers have no gap and no double,
whenever the agent is killed. What had no final reply when it was, the next start ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arc import clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc.agent.spool import Spool

KEPT_US = 86_400 * clock.US_PER_S  # how long a request is known after it has ended
RECEIPT_DELAY_S = 0.2  # the first reply tells the same, and mostly comes sooner


class Unfinished(NamedTuple):
    request_id: str
    plugin: str
    action: str
    pid: int | None
    process_start: str | None


class Journal:
    """Any thread may call it. All methods that write raise SpoolFailed."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def accept(self, request_id: str, plugin: str, action: str) -> bool:
        """Whether the request is new; it is confirmed to the server in any case."""
        with self._spool.transaction() as tx:
            is_new = tx.execute(
                "INSERT OR IGNORE INTO executions (request_id, plugin, action, accepted_at) VALUES (?, ?, ?, ?)",
                (request_id, plugin, action, clock.now_us()),
            ).rowcount
            self._spool.add(tx, "received", {"request_ids": [request_id]})
        self._spool.wake(RECEIPT_DELAY_S)
        return bool(is_new)

    def started(self, request_id: str, pid: int, process_start: str) -> None:
        with self._spool.transaction() as tx:
            tx.execute(
                "UPDATE executions SET pid = ?, process_start = ? WHERE request_id = ?",
                (pid, process_start, request_id),
            )

    def reply(self, request_id: str, fields: Mapping[str, Any], *, is_final: bool) -> None:
        """Number the reply and spool it; after the final one nothing more has an effect."""
        with self._spool.transaction() as tx:
            row = tx.execute(
                "UPDATE executions SET number = number + 1, is_final = ?, accepted_at = ?"
                " WHERE request_id = ? AND NOT is_final RETURNING number",
                (is_final, clock.now_us(), request_id),
            ).fetchone()
            if row is None:
                return
            reply = {"version": 1, "request_id": request_id, **fields, "final": is_final, "number": row[0]}
            self._spool.add(tx, "reply", reply)
        self._spool.wake()

    def unfinished(self) -> list[Unfinished]:
        with self._spool.transaction() as tx:
            rows = tx.execute(
                "SELECT request_id, plugin, action, pid, process_start FROM executions WHERE NOT is_final"
            ).fetchall()
        return [Unfinished(*row) for row in rows]

    def prune(self, now_us: int) -> None:
        """Forget what ended long ago."""
        with self._spool.transaction() as tx:
            tx.execute("DELETE FROM executions WHERE is_final AND accepted_at < ?", (now_us - KEPT_US,))
