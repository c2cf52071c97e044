"""Audit trail: who changed access, commanded machines or destroyed data, and who was not allowed to.

web.audit, when the answer is known | commands.token -> AuditTrail.record -> row of `audit` -> GET /api/v1/audit
An entry says what was done to what, never with which arguments: those may hold secrets, and more people read this.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, or_, select

from arc import clock
from arc.db.tables import audit
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row

    from arc.access.tokens import Identity
    from arc.db.engine import Database

RETENTION_PAUSE_S = 3600.0
BATCH = 1000  # rows removed in one transaction: others want to write too

_ID = re.compile(r"[0-9]{1,9}")
_INSERT = insert(audit)
_OLD = select(audit.c.id).where(audit.c.at < bindparam("before")).limit(BATCH)
_DELETE = delete(audit).where(audit.c.id.in_(bindparam("ids", expanding=True)))
_NEWEST_FIRST = select(audit).order_by(audit.c.id.desc())


@dataclass(frozen=True)
class Entry:
    """at: microseconds since the epoch. token_id, token_name: None and "" where nobody had to show a token."""

    id: int
    at: int
    token_id: int | None
    token_name: str
    client: str
    request_id: str
    action: str
    object: str
    details: dict[str, Any]
    status: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Entry:
        values = dict(row._mapping)
        return cls(**values | {"details": json.loads(values["details"])})


class AuditTrail:
    """Entries in the metadata database. Any thread may call it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(
        self,
        action: str,
        object_name: str,
        details: Mapping[str, object],
        *,
        status: int,
        client: str,
        who: Identity | None = None,
        request_id: str = "",
        is_durable: bool = True,
    ) -> None:
        """Add an entry; is_durable as for a transaction."""
        row = {
            "at": clock.now_us(),
            "token_id": who and who.token_id,
            "token_name": who.name if who else "",
            "client": client[:64],
            "request_id": request_id,
            "action": action,
            "object": object_name[:255],
            "details": json.dumps(details),
            "status": status,
        }
        with self._db.transaction(is_durable=is_durable) as tx:
            tx.execute(_INSERT, row)

    def find(
        self,
        limit: int,
        before: int | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        action: str = "",
        token: str = "",
    ) -> list[Entry]:
        """The newest entries first.

        before: only older ones than the entry of this id. since_us, until_us: since_us <= at < until_us.
        action: one as `token.create`, or all that begin with `token.` as `token`. token: its name or its id.
        """
        wanted = _NEWEST_FIRST.limit(limit)
        if before is not None:
            wanted = wanted.where(audit.c.id < before)
        if since_us is not None:
            wanted = wanted.where(audit.c.at >= since_us)
        if until_us is not None:
            wanted = wanted.where(audit.c.at < until_us)
        if action:
            wanted = wanted.where(
                or_(audit.c.action == action, audit.c.action.startswith(f"{action}.", autoescape=True))
            )
        if token:
            is_id = [audit.c.token_id == int(token)] if _ID.fullmatch(token) else []
            wanted = wanted.where(or_(audit.c.token_name == token, *is_id))
        with self._db.read() as connection:
            return [Entry.from_row(row) for row in connection.execute(wanted)]

    def prune(self, before_us: int) -> int:
        """Delete what is older; returns how many entries."""
        removed = 0
        while True:
            with self._db.read() as connection:  # most passes find nothing, and nobody has to wait for those
                ids = list(connection.scalars(_OLD, {"before": before_us}))
            if not ids:
                return removed
            with self._db.transaction() as tx:
                removed += tx.execute(_DELETE, {"ids": ids}).rowcount


class AuditRetention(PeriodicLoop):
    """Deletes entries when they have been kept long enough."""

    name = "audit-retention"

    def __init__(self, trail: AuditTrail, retention_days: float) -> None:
        super().__init__(RETENTION_PAUSE_S)
        self._trail = trail
        self._kept_us = int(retention_days * 86_400 * clock.US_PER_S)

    def step(self, now_us: int) -> int:
        return self._trail.prune(now_us - self._kept_us)
