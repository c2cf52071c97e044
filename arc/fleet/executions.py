"""Executions: commands on their way to an agent, what became of them, who stops them.

create -> pending (the agent fetches it) -> received -> reply, reply, ... -> complete | failed
A reply never lowers a status. What no agent reports is ended by the sweeps: not fetched in time, or silent beyond its
time limit; a success that comes after that still counts.
Source: the remote agents specification, sections 2.7 to 2.11, 5 and 8.2.
"""

from __future__ import annotations

import json
import operator
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, func, insert, select, update

from arc import clock
from arc.db.fleet_tables import agents, executions
from arc.errors import Conflict, Invalid
from arc.fleet.logs import ExecutionLogs
from arc.fleet.records import AgentNotFound, Execution, ExecutionNotFound, OtherProject, Page, Status
from arc.fleet.untold import Untold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import sqlalchemy as sa

    from arc.db.engine import Database
    from arc.fleet.messages import Command, Reply

GRACE_US = 60 * clock.US_PER_S  # beyond its time limit, until a silent execution fails
VERSION = 1  # of the messages

_BY_ID = select(executions).where(executions.c.request_id == bindparam("request"))
_UPDATE = update(executions).where(executions.c.request_id == bindparam("request"))
_TARGET = select(agents.c.project).where(agents.c.agent_id == bindparam("agent"))
_UNFETCHED = and_(executions.c.status == Status.QUEUED, executions.c.received_at.is_(None))
_UNTOLD = and_(
    executions.c.status < Status.FAILED,
    executions.c.received_at.is_(None) | executions.c.cancel_requested_at.is_not(None),
)
_PENDING = (
    select(executions).where(executions.c.agent_id == bindparam("agent"), _UNTOLD).order_by(executions.c.seq).limit(100)
)


@dataclass(frozen=True)
class Filters:
    """Of a list of executions; None leaves one out. since_us <= created_at < until_us."""

    agent_id: str | None = None
    status: Status | None = None
    plugin: str | None = None
    user_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Of a reply. ended: the execution, when this reply ended it."""

    is_new: bool
    ended: Execution | None = None


class ExecutionStore:
    """Executions in the metadata database. Any thread may call it; methods without `tx` are one transaction each."""

    def __init__(self, db: Database, sender: str) -> None:
        self._db = db
        self._sender = sender
        self.logs = ExecutionLogs(db)
        self._untold = Untold()

    def start(self) -> None:
        with self._db.read() as connection:
            self._untold.add(*connection.scalars(select(executions.c.agent_id).where(_UNTOLD).distinct()))

    def create(
        self, command: Command, user: dict[str, Any], now_us: int, *, deliver_within_s: int, project: str | None = None
    ) -> Execution:
        """Queue a command. Raises AgentNotFound, OtherProject."""
        request_id = str(uuid.uuid4())
        with self._db.transaction() as tx:
            target = tx.execute(_TARGET, {"agent": command.agent_id}).one_or_none()
            if target is None:
                raise AgentNotFound(command.agent_id)
            if project is not None and target.project != project:
                raise OtherProject(target.project, project)
            row = tx.execute(
                insert(executions)
                .values(
                    request_id=request_id,
                    version=VERSION,
                    sender=self._sender,
                    agent_id=command.agent_id,
                    timeout_s=command.timeout_s,
                    plugin=command.plugin,
                    action=command.action,
                    payload=command.payload,
                    status=Status.QUEUED,
                    created_at=now_us,
                    updated_at=now_us,
                    deliver_until=now_us + deliver_within_s * clock.US_PER_S,
                    project=target.project,
                    user_id=user["id"],
                    user=json.dumps(user, ensure_ascii=False, sort_keys=True),
                )
                .returning(*executions.c)
            ).one()
        self._untold.add(command.agent_id)
        return Execution.from_row(row)

    def get(self, request_id: str, project: str | None = None) -> Execution:
        """Raises ExecutionNotFound, OtherProject."""
        with self._db.read() as connection:
            return _one(connection, request_id, project)

    def search(self, filters: Filters, page: int, per_page: int, project: str | None = None) -> Page[Execution]:
        """The newest first; a page beyond the last is the last."""
        matching = _conditions(filters, project)
        found = select(executions).where(*matching).order_by(executions.c.seq.desc())
        with self._db.read() as connection:
            total = connection.scalar(select(func.count()).select_from(executions).where(*matching)) or 0
            number = min(page, -(-total // per_page))
            rows = connection.execute(found.limit(per_page).offset(max(number - 1, 0) * per_page)).all()
        return Page([Execution.from_row(row) for row in rows], number, per_page, total)

    def pending(self, agent_id: str) -> list[Execution]:
        """What the agent has not confirmed yet, and what it shall stop, in the order it was made."""

        def fetch() -> list[Execution]:
            with self._db.read() as connection:
                return [Execution.from_row(row) for row in connection.execute(_PENDING, {"agent": agent_id})]

        return self._untold.look(agent_id, fetch)

    def received(self, tx: sa.Connection, agent_id: str, request_ids: Iterable[str], now_us: int) -> None:
        """The agent has these; of others' ones nothing happens."""
        known = and_(executions.c.agent_id == agent_id, executions.c.request_id.in_(list(request_ids)))
        tx.execute(update(executions).where(known, executions.c.received_at.is_(None)).values(received_at=now_us))

    def reply(self, tx: sa.Connection, agent_id: str, reply: Reply, now_us: int) -> Outcome:
        """Store one reply. Twice the same, or of an unknown execution: no effect.

        Raises Invalid when the execution is another agent's.
        """
        row = tx.execute(_BY_ID, {"request": reply.request_id}).one_or_none()
        if row is None:
            return Outcome(is_new=False)
        if row.agent_id != agent_id:
            raise Invalid(f"job {reply.request_id!r} is another agent's")
        # No part of it would be seen any more, and nobody knows whether it was here before. A late success counts.
        if row.status >= max(reply.status, Status.FAILED) and self.logs.is_joined(tx, reply.request_id):
            return Outcome(is_new=False)
        is_new = self.logs.append(
            tx, reply.request_id, reply.number, reply.payload, is_final=reply.is_final, now_us=now_us
        )
        if not is_new:
            return Outcome(is_new=False)
        changes = _told(row, reply, now_us)
        tx.execute(_UPDATE, {"request": reply.request_id, **changes})
        if changes["status"] == row.status or changes["status"] < Status.FAILED:
            return Outcome(is_new=True)
        return Outcome(is_new=True, ended=_one(tx, reply.request_id, None))

    def cancel(
        self, request_id: str, now_us: int, is_on_its_way: Callable[[str], bool], project: str | None = None
    ) -> Execution:
        """Ask the agent to stop it; what the agent cannot have got yet fails at once.

        Raises ExecutionNotFound, OtherProject, Conflict when it has ended.
        """
        with self._db.transaction() as tx:
            execution = _one(tx, request_id, project)
            if execution.status.is_final:
                raise Conflict("job is not running")
            changes: dict[str, Any] = {"updated_at": now_us}
            if execution.cancel_requested_at is None:
                changes["cancel_requested_at"] = now_us
            if execution.status is Status.QUEUED and execution.received_at is None and not is_on_its_way(request_id):
                changes |= {"status": Status.FAILED, "ended_at": now_us}
                self.logs.append(tx, request_id, 0, "cancelled", is_final=True, now_us=now_us)  # agents count from 1
            tx.execute(_UPDATE, {"request": request_id, **changes})
            cancelled = _one(tx, request_id, project)
        self._untold.add(cancelled.agent_id)
        return cancelled

    def fail_unfetched(self, now_us: int) -> list[Execution]:
        """Those that no agent has fetched in time."""
        return self._fail(and_(_UNFETCHED, executions.c.deliver_until <= now_us), now_us)

    def fail_expired(self, now_us: int) -> list[Execution]:
        """Those that say nothing more, well beyond their time limit."""
        limit = executions.c.received_at + executions.c.timeout_s * clock.US_PER_S + GRACE_US
        return self._fail(and_(executions.c.status < Status.FAILED, limit <= now_us), now_us)

    def prune(self, before_us: int) -> int:
        """Delete what has not changed since, with its log."""
        with self._db.transaction() as tx:
            return tx.execute(delete(executions).where(executions.c.updated_at <= before_us)).rowcount

    def _fail(self, condition: Any, now_us: int) -> list[Execution]:
        failing = update(executions).where(condition).returning(*executions.c)
        with self._db.read() as connection:  # mostly there is nothing to do, and the writer's turn is for others
            if connection.execute(select(executions.c.seq).where(condition).limit(1)).first() is None:
                return []
        with self._db.transaction() as tx:
            rows = tx.execute(failing.values(status=Status.FAILED, updated_at=now_us, ended_at=now_us)).all()
        return [Execution.from_row(row) for row in rows]


def _told(row: Any, reply: Reply, now_us: int) -> dict[str, Any]:
    """What a reply changes. Who ends an execution later than a sweep did knows better when and how it ended."""
    changes: dict[str, Any] = {"status": max(row.status, reply.status), "updated_at": now_us}
    if row.received_at is None:
        changes["received_at"] = now_us
    started_at = reply.started_at or (now_us if reply.status is Status.EXECUTING else None)
    if row.started_at is None or reply.started_at:
        changes["started_at"] = started_at
    if reply.status.is_final and reply.status >= row.status:
        changes |= {"ended_at": reply.ended_at or now_us, "exit_code": reply.exit_code}
    return changes


def _conditions(filters: Filters, project: str | None) -> list[Any]:
    c = executions.c
    wanted: tuple[tuple[Any, Any, Callable[[Any, Any], Any]], ...] = (
        (c.agent_id, filters.agent_id, operator.eq),
        (c.status, filters.status, operator.eq),
        (c.plugin, filters.plugin, operator.eq),
        (c.user_id, filters.user_id, operator.eq),
        (c.created_at, filters.since_us, operator.ge),
        (c.created_at, filters.until_us, operator.lt),
        (c.project, project, operator.eq),
    )
    return [compare(column, value) for column, value, compare in wanted if value is not None]


def _one(connection: sa.Connection, request_id: str, project: str | None) -> Execution:
    row = connection.execute(_BY_ID, {"request": request_id}).one_or_none()
    if row is None:
        raise ExecutionNotFound(request_id)
    if project is not None and row.project != project:
        raise OtherProject(row.project, project)
    return Execution.from_row(row)
