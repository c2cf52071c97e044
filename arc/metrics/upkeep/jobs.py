"""Compaction jobs in the metadata database: one row for each measurement and tier that a cycle worked on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, delete, func, insert, select, update

from arc.db.tables import compaction_jobs as jobs

if TYPE_CHECKING:
    from sqlalchemy import Row

    from arc.db.engine import Database

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """Instants in microseconds. error: of a completed job, what it had to leave out."""

    id: int
    cycle_id: int
    database: str
    measurement: str
    tier: str
    status: str
    files_compacted: int
    files_created: int
    bytes_before: int
    bytes_after: int
    started_at: int
    completed_at: int | None
    error: str | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Job:
        return cls(**row._mapping)


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all jobs that are remembered."""

    completed: int = 0
    failed: int = 0
    files_compacted: int = 0
    bytes_saved: int = 0


class JobHistory:
    """Any thread may call it; each method is one transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def close_interrupted(self, now_us: int) -> None:
        """Jobs that ran when the process ended; a merge is one lake transaction, so nothing is left half done."""
        with self._db.transaction() as tx:
            tx.execute(
                update(jobs)
                .where(jobs.c.status == RUNNING)
                .values(status=FAILED, completed_at=now_us, error="interrupted by the end of the process")
            )

    def start(self, cycle_id: int, database: str, measurement: str, tier: str, now_us: int) -> int:
        counts = dict.fromkeys(("files_compacted", "files_created", "bytes_before", "bytes_after"), 0)
        values = {"cycle_id": cycle_id, "database": database, "measurement": measurement, "tier": tier}
        with self._db.transaction() as tx:
            row = insert(jobs).values(**values, **counts, status=RUNNING, started_at=now_us)
            return int(tx.execute(row.returning(jobs.c.id)).scalar_one())

    def change(self, job_id: int, **values: Any) -> None:
        with self._db.transaction() as tx:
            tx.execute(update(jobs).where(jobs.c.id == job_id).values(**values))

    def recent(self, limit: int) -> list[Job]:
        """Newest first."""
        with self._db.read() as connection:
            return [
                Job.from_row(row) for row in connection.execute(select(jobs).order_by(jobs.c.id.desc()).limit(limit))
            ]

    def running(self) -> list[Job]:
        with self._db.read() as connection:
            found = connection.execute(select(jobs).where(jobs.c.status == RUNNING).order_by(jobs.c.id))
            return [Job.from_row(row) for row in found]

    def count(self) -> int:
        with self._db.read() as connection:
            return connection.scalar(select(func.count()).select_from(jobs)) or 0

    def totals(self) -> dict[str, Totals]:
        """By tier."""
        query = select(
            jobs.c.tier,
            func.sum(case((jobs.c.status == COMPLETED, 1), else_=0)),
            func.sum(case((jobs.c.status == FAILED, 1), else_=0)),
            func.sum(jobs.c.files_compacted),
            func.sum(jobs.c.bytes_before - jobs.c.bytes_after),
        ).group_by(jobs.c.tier)
        with self._db.read() as connection:
            return {tier: Totals(*numbers) for tier, *numbers in connection.execute(query)}

    def last(self) -> Job | None:
        return next(iter(self.recent(1)), None)

    def forget(self, before_us: int) -> int:
        with self._db.transaction() as tx:
            return tx.execute(delete(jobs).where(jobs.c.started_at < before_us)).rowcount
