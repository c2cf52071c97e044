"""Compaction: when, for which measurements, and what came of it. merging.py does the work.

    schedule or trigger() -> cycle -> for each tier and measurement a job: step by step until nothing is worthwhile

One cycle at a time, in one thread. A step commits beside flushes; after each the thread rests as long as the step
took, so that writers keep most of the machine. A measurement whose job fails does not stop the others.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import duckdb

from arc import clock
from arc.errors import Conflict, Invalid, Unavailable
from arc.loop import PeriodicLoop
from arc.metrics.upkeep.files import StoredFile, Table, files_of
from arc.metrics.upkeep.jobs import COMPLETED, FAILED, JobHistory
from arc.metrics.upkeep.merging import Sizes, apart, copy_step, merge_step, unreadable, worn, worthwhile
from arc.metrics.upkeep.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arc.db.engine import Database
    from arc.metrics.store import MetricStore

log = logging.getLogger(__name__)

_CHECK_S = 1.0
_CONFLICTS = 3  # steps of a job that may meet another change of their measurement


@dataclass(frozen=True, slots=True)
class Tier:
    """hourly makes middle files of small ones, daily large files of middle ones."""

    name: str
    enabled: bool
    schedule: Schedule
    min_age_hours: float
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class CompactionOptions:
    """See [compaction] in arc.conf.example."""

    enabled: bool
    tiers: tuple[Tier, ...]

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> CompactionOptions:
        return cls(section["enabled"], tuple(_tier(name, section) for name in ("hourly", "daily")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A measurement that a tier would work on, and the files it would take."""

    table: Table
    tier: Tier
    files: list[StoredFile]


@dataclass(frozen=True, slots=True)
class Cycle:
    """One pass over all measurements, or those of one database, or one."""

    id: int
    tiers: tuple[Tier, ...]
    database: str | None = None
    measurement: str | None = None

    def covers(self, table: Table) -> bool:
        wanted = (self.database, self.measurement)
        return all(name is None or name.casefold() == own.casefold() for name, own in zip(wanted, table, strict=True))


class CycleRunning(Conflict):
    def __init__(self, cycle_id: int) -> None:
        super().__init__(f"compaction cycle {cycle_id} is running")
        self.cycle_id = cycle_id


@dataclass(slots=True)
class Counters:
    """Since the start. bytes: of the files that were merged, and of those they became."""

    jobs: int = 0
    failures: int = 0
    files_compacted: int = 0
    files_created: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(slots=True)
class _Progress:
    """What a job has done so far."""

    files_compacted: int = 0
    files_created: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    bad: dict[int, StoredFile] = field(default_factory=dict)  # unreadable ones, by id

    def note(self, before: Sequence[StoredFile], after: Sequence[StoredFile]) -> bool:
        """Compare a measurement's files before and after a step; whether some of them are gone."""
        kept = {file.id for file in before}
        made = [file for file in after if file.id not in kept and file.name.startswith("ducklake-")]
        still = {file.id for file in after}
        gone = [file for file in before if file.id not in still]
        self.files_compacted += len(gone)
        self.files_created += len(made)
        self.bytes_before += sum(file.size_bytes for file in gone)
        self.bytes_after += sum(file.size_bytes for file in made)
        return bool(gone)

    def values(self) -> dict[str, int]:
        return {
            "files_compacted": self.files_compacted,
            "files_created": self.files_created,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }


class Compaction(PeriodicLoop):
    """Its thread runs the cycles; any thread may ask how it goes, and trigger one."""

    name = "compactor"

    def __init__(self, store: MetricStore, db: Database, options: CompactionOptions) -> None:
        super().__init__(_CHECK_S)
        self.options = options
        self.counters = Counters()
        self.jobs = JobHistory(db)
        self.recovered = len(self.jobs.running())
        self.jobs.close_interrupted(clock.now_us())
        self._store = store
        self._lock = threading.Lock()
        self._cycle: Cycle | None = None
        self._last_cycle_id = last.cycle_id if (last := self.jobs.last()) else 0
        self._due_us = {tier.name: tier.schedule.next_after(clock.now_us()) for tier in self._scheduled()}
        self._running: duckdb.DuckDBPyConnection | None = None

    @property
    def cycle(self) -> Cycle | None:
        """The one that runs or is about to."""
        return self._cycle

    def next_runs(self) -> dict[str, int]:
        """When each scheduled tier comes due next."""
        return dict(self._due_us)

    def trigger(self, tiers: Sequence[str] = (), database: str | None = None, measurement: str | None = None) -> Cycle:
        """Have a cycle run now; returns at once. tiers: all unless named. Raises CycleRunning, Invalid, Unavailable."""
        if not self.options.enabled:
            raise Unavailable("Compaction not initialized: [compaction] enabled is false", 3600)
        known = {tier.name: tier for tier in self.options.tiers}
        if unknown := set(tiers) - set(known):
            raise Invalid(f"unknown tier {sorted(unknown)[0]!r}; there are {', '.join(known)}")
        chosen = tuple(tier for tier in self.options.tiers if tier.name in (tiers or known))
        cycle = self._begin(chosen, database, measurement)
        if cycle is None:
            raise CycleRunning(self._last_cycle_id)
        self.wake()
        return cycle

    def candidates(self, now_us: int) -> list[Candidate]:
        """What a cycle would work on now; changes nothing."""
        found = files_of(self._store.lake)
        return [
            Candidate(table, tier, chosen)
            for table, files in found.items()
            for tier in self.options.tiers
            if (chosen := [*worn(files, tier.sizes), *worthwhile(files, tier.sizes, now_us)])
        ]

    def step(self, now_us: int) -> int:
        """Run the cycle that was asked for or is due; returns the number of its jobs."""
        if not self._store.is_ready:
            return 0
        cycle = self._cycle or self._scheduled_cycle(now_us)
        if cycle is None:
            return 0
        try:
            return self._run_cycle(cycle)
        finally:
            with self._lock:
                self._cycle = None

    def stop(self, timeout_s: float = 10.0) -> None:
        """Break off the step that runs: its transaction is rolled back."""
        self._stop.set()
        running = self._running
        if running is not None:
            running.interrupt()
        super().stop(timeout_s)

    def _scheduled(self) -> list[Tier]:
        return [tier for tier in self.options.tiers if tier.enabled and self.options.enabled]

    def _scheduled_cycle(self, now_us: int) -> Cycle | None:
        due = tuple(tier for tier in self._scheduled() if self._due_us[tier.name] <= now_us)
        for tier in due:
            self._due_us[tier.name] = tier.schedule.next_after(now_us)
        return self._begin(due) if due else None

    def _begin(self, tiers: tuple[Tier, ...], *where: str | None) -> Cycle | None:
        with self._lock:
            if self._cycle is not None:
                return None
            self._last_cycle_id += 1
            self._cycle = Cycle(self._last_cycle_id, tiers, *where)
            return self._cycle

    def _run_cycle(self, cycle: Cycle) -> int:
        done = 0
        for tier in cycle.tiers:
            for table, files in files_of(self._store.lake).items():
                if self._stop.is_set():
                    return done
                if cycle.covers(table) and self._is_worthwhile(tier.sizes, files):
                    self._run_job(cycle, tier, table)
                    done += 1
        return done

    @staticmethod
    def _is_worthwhile(sizes: Sizes, files: list[StoredFile]) -> bool:
        return bool(worn(files, sizes) or worthwhile(files, sizes, clock.now_us()))

    def _run_job(self, cycle: Cycle, tier: Tier, table: Table) -> None:
        job_id = self.jobs.start(cycle.id, *table, tier.name, clock.now_us())
        progress = _Progress()
        try:
            self._compact(tier.sizes, table, progress, job_id)
        except Exception as error:  # one measurement must not keep the others from being compacted
            if not self._stop.is_set():
                log.exception("compaction: %s.%s failed", *table)
            outcome: dict[str, str | None] = {"status": FAILED, "error": str(error).partition("\n")[0]}
        else:
            left_out = ", ".join(sorted(file.name for file in progress.bad.values()))
            outcome = {"status": COMPLETED, "error": f"left out unreadable files: {left_out}" if left_out else None}
        self._count(progress, has_failed=outcome["status"] == FAILED)
        self.jobs.change(job_id, **outcome, **progress.values(), completed_at=clock.now_us())

    def _count(self, progress: _Progress, *, has_failed: bool) -> None:
        self.counters.jobs += 1
        self.counters.failures += has_failed
        for name, value in progress.values().items():
            setattr(self.counters, name, getattr(self.counters, name) + value)

    def _files(self, table: Table) -> list[StoredFile]:
        return files_of(self._store.lake, *table).get(table, [])

    def _compact(self, sizes: Sizes, table: Table, progress: _Progress, job_id: int) -> None:
        conflicts, files = 0, self._files(table)
        while not self._stop.is_set():
            started_s, bad, before = time.monotonic(), len(progress.bad), files
            try:
                self._one_step(sizes, table, before, progress)
            except duckdb.TransactionException:
                conflicts += 1
                if conflicts > _CONFLICTS:
                    raise
                files = self._files(table)
                continue
            files = self._files(table)
            if not progress.note(before, files) and len(progress.bad) == bad:
                return
            self.jobs.change(job_id, **progress.values())
            self._stop.wait(time.monotonic() - started_s)

    def _one_step(self, sizes: Sizes, table: Table, files: list[StoredFile], progress: _Progress) -> None:
        good = [file for file in files if file.id not in progress.bad]
        if progress.bad:
            merged = apart(worthwhile(good, replace(sizes, min_files=2), clock.now_us()), progress.bad.values())
        else:
            merged = worthwhile(good, sizes, clock.now_us())
        rewritten = [] if merged else worn(good, sizes)
        if not merged and not rewritten:
            return
        with self._store.upkeep() as lake:
            if rewritten:
                copy_step(lake, table, rewritten, sizes)
                return
            try:
                with lake.beside(f"merge files of {'.'.join(table)}") as cursor, self._interruptible(cursor):
                    merge_step(cursor, table, merged, sizes)
            except (duckdb.TransactionException, duckdb.InterruptException):
                raise
            except duckdb.Error:
                found = unreadable(merged)
                if not found:
                    raise
                progress.bad |= {file.id: file for file in found}

    @contextmanager
    def _interruptible(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        self._running = cursor
        try:
            yield
        finally:
            self._running = None


def _tier(name: str, section: Mapping[str, Any]) -> Tier:
    min_age_hours = section[f"{name}_min_age_hours"]
    sizes = Sizes(
        min_files=section[f"{name}_min_files"],
        target_bytes=section[f"{name}_target_size"],
        min_age_us=int(min_age_hours * 3600 * clock.US_PER_S),
        max_files=section["max_files_per_batch"],
    )
    return Tier(name, section[f"{name}_enabled"], Schedule(section[f"{name}_schedule"]), min_age_hours, sizes)
