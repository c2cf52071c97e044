"""Removes what has been kept long enough: ended jobs with all that belongs to them, and parts of logs.

Source: the jobs specification, section 8.5; the pause between two passes grows while there is nothing to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select

from arc.clock import US_PER_S
from arc.db.tables import jobs, task_logs
from arc.jobs.states import JobState
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    import sqlalchemy as sa

    from arc.db.engine import Database

MIN_PAUSE_S = 60.0
MAX_PAUSE_S = 3600.0
MAX_REMOVED = 1000  # of jobs and of log parts per pass
BATCH = 100  # per transaction: others want to write too

_DUE = select(jobs.c.seq).where(jobs.c.delete_at <= bindparam("b_before")).limit(bindparam("b_limit"))
_OLD = (
    select(jobs.c.seq)
    .where(jobs.c.state == bindparam("b_state"), jobs.c.created_at < bindparam("b_before"))
    .limit(bindparam("b_limit"))
)
_OLD_LOGS = select(task_logs.c.seq).where(task_logs.c.created_at < bindparam("b_before")).limit(bindparam("b_limit"))
_DELETE_JOBS = delete(jobs).where(jobs.c.seq.in_(bindparam("b_seqs", expanding=True)))
_DELETE_LOGS = delete(task_logs).where(task_logs.c.seq.in_(bindparam("b_seqs", expanding=True)))


class JobRetention(PeriodicLoop):
    """jobs_s, logs_s: seconds that ended jobs and logs are kept."""

    name = "job-retention"

    def __init__(self, db: Database, jobs_s: float, logs_s: float) -> None:
        super().__init__(MIN_PAUSE_S)
        self._db = db
        self._jobs_us = int(jobs_s * US_PER_S)
        self._logs_us = int(logs_s * US_PER_S)

    def step(self, now_us: int) -> int:
        removed = self._remove(_OLD_LOGS, _DELETE_LOGS, b_before=now_us - self._logs_us)
        removed += self._remove(_DUE, _DELETE_JOBS, b_before=now_us)
        for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED):
            before = now_us - self._jobs_us
            removed += self._remove(_OLD, _DELETE_JOBS, b_before=before, b_state=state.value)
        pause_s = self.interval_s / 2 if removed else self.interval_s * 2
        self.interval_s = min(max(pause_s, MIN_PAUSE_S), MAX_PAUSE_S)
        return removed

    def _remove(self, found: sa.Select[Any], delete_them: sa.Delete, **asked: object) -> int:
        removed = 0
        while removed < MAX_REMOVED:
            with self._db.transaction() as connection:
                seqs = list(connection.execute(found, asked | {"b_limit": BATCH}).scalars())
                if seqs:
                    connection.execute(delete_them, {"b_seqs": seqs})
            removed += len(seqs)
            if len(seqs) < BATCH:
                break
        return removed
