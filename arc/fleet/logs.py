"""Logs of executions: parts as they come, joined into one text some time after the last.

reply -> append -> execution_parts -> read | parts -> (5 minutes after the final part) aggregate -> execution_logs
An empty heartbeat is kept too, as the number it had, so that it counts once; it is no part of the log.
Source: the remote agents specification, sections 5.3, 5.4 and 8.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, or_, select

from arc import clock
from arc.db.fleet_tables import execution_logs, execution_parts
from arc.errors import NotFound

if TYPE_CHECKING:
    import sqlalchemy as sa

    from arc.db.engine import Database

FINAL_AGE_US = 300 * clock.US_PER_S  # of a final part, until all are joined
ANY_AGE_US = 84_600 * clock.US_PER_S  # of any part
BATCH = 200  # logs joined in one pass

_IS_PART = or_(execution_parts.c.content != "", execution_parts.c.is_final)
_SEEN = select(execution_parts.c.number).where(
    execution_parts.c.request_id == bindparam("request"), execution_parts.c.number == bindparam("part")
)
_APPEND = insert(execution_parts)
_PARTS = (
    select(execution_parts)
    .where(
        execution_parts.c.request_id == bindparam("request"), execution_parts.c.number > bindparam("after"), _IS_PART
    )
    .order_by(execution_parts.c.number)
)
_JOINED = select(execution_logs).where(execution_logs.c.request_id == bindparam("request"))
_IS_JOINED = _JOINED.with_only_columns(execution_logs.c.request_id)


class LogNotFound(NotFound):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"no log of job {request_id!r}")


@dataclass(frozen=True)
class LogPart:
    number: int
    content: str
    is_final: bool
    created_at: int


class ExecutionLogs:
    """Any thread may call it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def append(
        self, tx: sa.Connection, request_id: str, number: int, content: str, *, is_final: bool, now_us: int
    ) -> bool:
        """Whether this number is new; what comes again is ignored."""
        if tx.execute(_SEEN, {"request": request_id, "part": number}).first():
            return False
        row = {"request_id": request_id, "number": number, "content": content, "is_final": is_final}
        tx.execute(_APPEND, row | {"created_at": now_us})
        return True

    def is_joined(self, tx: sa.Connection, request_id: str) -> bool:
        """Whether the numbers of its parts are forgotten."""
        return tx.execute(_IS_JOINED, {"request": request_id}).first() is not None

    def read(self, request_id: str, after: int = -1) -> str:
        """What was written so far, in parts with higher numbers. Raises LogNotFound when there is no part at all."""
        parts = self.parts(request_id, after)
        if not parts and (after < 0 or not self.parts(request_id)):
            raise LogNotFound(request_id)
        return "".join(part.content for part in parts)

    def parts(self, request_id: str, after: int = -1) -> list[LogPart]:
        """Parts with higher numbers, in order; a joined log is one with number 0."""
        with self._db.read() as connection:
            if joined := connection.execute(_JOINED, {"request": request_id}).one_or_none():
                return [LogPart(0, joined.content, True, joined.created_at)] if after < 0 else []
            rows = connection.execute(_PARTS, {"request": request_id, "after": after}).all()
        return [LogPart(row.number, row.content, row.is_final, row.created_at) for row in rows]

    def aggregate(self, now_us: int) -> list[int]:
        """Join the parts of executions that are over; the sizes in bytes. Parts that come later are never shown."""
        due = or_(
            execution_parts.c.is_final & (execution_parts.c.created_at <= now_us - FINAL_AGE_US),
            execution_parts.c.created_at <= now_us - ANY_AGE_US,
        )
        joined = select(execution_logs.c.request_id)
        query = select(execution_parts.c.request_id).where(due, execution_parts.c.request_id.not_in(joined), _IS_PART)
        with self._db.read() as connection:
            found = list(connection.scalars(query.distinct().limit(BATCH)))
        return [self._join(request_id, now_us) for request_id in found]

    def _join(self, request_id: str, now_us: int) -> int:
        with self._db.transaction() as tx:
            rows = tx.execute(_PARTS, {"request": request_id, "after": -1}).all()
            content = "".join(row.content for row in rows)
            row = {"request_id": request_id, "content": content, "created_at": now_us, "updated_at": now_us}
            tx.execute(insert(execution_logs).values(row))
            tx.execute(delete(execution_parts).where(execution_parts.c.request_id == request_id))
        return len(content.encode("utf-8", "surrogatepass"))
