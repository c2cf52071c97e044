"""Retention: rows older than a policy allows are removed.

    schedule or execute() -> cutoff = now - (retention_days + buffer_days) -> measurement by measurement, each in a
    transaction of its own: DELETE WHERE time < cutoff -> history

Row by row, because compaction may put years of a slow measurement into one file; files whose rows are all too old
are dropped whole.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arc import clock
from arc.db.tables import retention_executions, retention_policies
from arc.errors import Invalid, Unavailable
from arc.loop import PeriodicLoop
from arc.metrics import names
from arc.metrics.upkeep.definitions import Definitions
from arc.metrics.upkeep.deletion import removable, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arc.db.engine import Database
    from arc.metrics.store import MetricStore
    from arc.metrics.upkeep.deletion import Removal
    from arc.metrics.upkeep.schedule import Schedule

log = logging.getLogger(__name__)

_CHECK_S = 1.0
_DAY_US = 86_400 * clock.US_PER_S
_MAX_DAYS = 100_000  # the cutoff must be a date that can be written down
COMPLETED, FAILED = "completed", "failed"


@dataclass(frozen=True, slots=True)
class Policy:
    """measurement: None for all of the database. Instants in microseconds."""

    id: int
    name: str
    database: str
    measurement: str | None
    retention_days: int
    buffer_days: int
    is_active: bool
    last_execution_at: int | None
    last_execution_status: str | None
    last_deleted_count: int | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Execution:
    id: int
    policy_id: int
    executed_at: int
    status: str
    cutoff_at: int
    deleted_count: int
    files_deleted: int
    duration_ms: float
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of one measurement, or of all of a database, go after some days."""

    database: str
    measurement: str | None
    days: int

    def cutoff(self, now_us: int) -> int:
        return now_us - self.days * _DAY_US


@dataclass(slots=True)
class Outcome:
    """What a rule did, or with a dry run would have done. measurements: those that lost rows."""

    cutoff_at: int
    deleted_count: int = 0
    files_deleted: int = 0
    measurements: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    took_ms: float = 0.0

    def add(self, measurement: str, removal: Removal) -> None:
        self.deleted_count += removal.rows
        self.files_deleted += len(removal.dropped)
        if removal.rows:
            self.measurements.append(measurement)


@dataclass(slots=True)
class Counters:
    """Since the start: policies and other rules carried out, those of them that failed, rows they removed."""

    executions: int = 0
    failures: int = 0
    rows: int = 0


class Retention(PeriodicLoop):
    """Its thread carries out what is due; any thread may edit policies and execute one.

    extra_rules: more rules for each scheduled pass, which leave no history.
    """

    name = "retention"

    def __init__(
        self,
        store: MetricStore,
        db: Database,
        enabled: bool,
        schedule: Schedule,
        extra_rules: Callable[[], Iterable[Rule]] = tuple,
    ) -> None:
        super().__init__(_CHECK_S)
        self.enabled = enabled  # by schedule
        self.schedule = schedule
        self.policies: Definitions[Policy, Execution] = Definitions(
            db,
            "Retention policy",
            retention_policies,
            retention_executions,
            "policy_id",
            Policy,
            Execution,
            ("name", "database", "measurement", "retention_days", "buffer_days", "is_active"),
            _check,
        )
        # What came due while no server ran is made up for.
        past = [policy.last_execution_at or policy.created_at for policy in self.policies.all() if policy.is_active]
        self.due_us = schedule.next_after(min([*past, clock.now_us()]))
        self.counters = Counters()
        self._is_triggered = False
        self._counting = threading.Lock()
        self._store = store
        self._extra_rules = extra_rules

    def execute(self, policy_id: int, now_us: int, *, dry_run: bool = False) -> tuple[Policy, Outcome]:
        """Remove what a policy no longer allows, or count it. Raises NotFound, Invalid, Unavailable."""
        policy = self.policies.get(policy_id)
        if not policy.is_active:
            raise Invalid("Retention policy is not active")
        rule = Rule(policy.database, policy.measurement, policy.retention_days + policy.buffer_days)
        outcome = self._apply(rule, now_us, dry_run=dry_run)
        if not dry_run:
            self._record(policy, outcome, now_us)
        if outcome.errors:
            raise Unavailable(f"Retention policy {policy.name!r} failed: {'; '.join(outcome.errors)}")
        return policy, outcome

    def run_all(self, now_us: int) -> int:
        """Carry out all active policies and extra rules; returns the number of rows removed."""
        removed = 0
        for policy in self.policies.all():
            if policy.is_active and not self._stop.is_set():
                rule = Rule(policy.database, policy.measurement, policy.retention_days + policy.buffer_days)
                outcome = self._apply(rule, now_us)
                self._record(policy, outcome, now_us)
                removed += outcome.deleted_count
        for rule in self._extra_rules():
            if not self._stop.is_set():
                removed += self._apply(rule, now_us).deleted_count
        return removed

    def trigger(self) -> None:
        """Have the thread carry out everything now."""
        self._is_triggered = True
        self.wake()

    def step(self, now_us: int) -> int:
        is_due = self._is_triggered or (self.enabled and now_us >= self.due_us)
        if not is_due or not self._store.is_ready:
            return 0
        self._is_triggered = False
        self.due_us = self.schedule.next_after(now_us)
        return self.run_all(now_us)

    def _apply(self, rule: Rule, now_us: int, *, dry_run: bool = False) -> Outcome:
        started_s = time.monotonic()
        outcome = Outcome(rule.cutoff(now_us))
        self._store.flush()  # buffered rows may be too old as well
        for info in self._store.measurements(rule.database):
            if rule.measurement is None or rule.measurement.casefold() == info.measurement.casefold():
                self._apply_to(info.database, info.measurement, outcome, dry_run)
        outcome.took_ms = round((time.monotonic() - started_s) * 1000, 3)
        if not dry_run:
            with self._counting:
                self.counters.executions += 1
                self.counters.failures += bool(outcome.errors)
                self.counters.rows += outcome.deleted_count
        return outcome

    def _apply_to(self, database: str, measurement: str, outcome: Outcome, dry_run: bool) -> None:
        schema = self._store.schema(database, measurement)
        condition = f"time < make_timestamptz({outcome.cutoff_at})"
        try:
            with self._store.upkeep((database, measurement)) as lake:
                removal = removable(lake, schema, condition)
                if removal.rows and not dry_run:
                    remove(lake, schema, condition)
        except Exception as error:  # one measurement must not keep the others
            log.exception("retention: %s failed", schema.full_name)
            outcome.errors.append(f"{measurement}: {str(error).partition(chr(10))[0]}")
            return
        outcome.add(measurement, removal)
        if removal.rows and not dry_run:
            log.info("retention: removed %d rows of %s", removal.rows, schema.full_name)

    def _record(self, policy: Policy, outcome: Outcome, now_us: int) -> None:
        status = FAILED if outcome.errors else COMPLETED
        changes = {
            "last_execution_at": now_us,
            "last_execution_status": status,
            "last_deleted_count": outcome.deleted_count,
        }
        self.policies.record(
            policy.id,
            changes,
            executed_at=now_us,
            status=status,
            cutoff_at=outcome.cutoff_at,
            deleted_count=outcome.deleted_count,
            files_deleted=outcome.files_deleted,
            duration_ms=outcome.took_ms,
            error_message="; ".join(outcome.errors) or None,
        )


def _check(values: Mapping[str, Any]) -> None:
    names.check_database(values["database"])
    if values["measurement"] is not None:
        names.check_measurement(values["measurement"])
    if not values["name"]:
        raise Invalid("name must not be empty")
    if not 0 < values["retention_days"] <= _MAX_DAYS:
        raise Invalid(f"retention_days must be 1 to {_MAX_DAYS}")
    if not 0 <= values["buffer_days"] <= _MAX_DAYS:
        raise Invalid(f"buffer_days must be 0 to {_MAX_DAYS}")
    if values["retention_days"] <= values["buffer_days"]:
        raise Invalid(
            "retention_days must be greater than buffer_days: rows go after both together."
            f" With retention_days {values['retention_days']} send a buffer_days of"
            f" 0 to {values['retention_days'] - 1}, not {values['buffer_days']}"
        )
