"""Compaction over HTTP: how it goes, what it would do, what it did, and doing it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.metrics.upkeep.compaction import CycleRunning
from arc.metrics.upkeep.jobs import Totals
from arc.web import databases, errors
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arc.metrics.upkeep.compaction import Candidate, Compaction, Tier
    from arc.metrics.upkeep.jobs import Job

_EXAMPLE_JOB: dict[str, Any] = {
    "job_id": "17",
    "database": "default",
    "measurement": "cpu",
    "partition_path": "default/cpu",
    "tier": "hourly",
    "status": "completed",
    "files_compacted": 720,
    "files_created": 3,
    "bytes_before": 11534336,
    "bytes_after": 4194304,
    "compression_ratio": 0.636,
    "duration_seconds": 1.7,
    "started_at": "2025-10-19T12:05:00Z",
    "completed_at": "2025-10-19T12:05:01.7Z",
    "error": None,
    "success": True,
}

surface = Surface("compaction", "Compaction", "Small Parquet files become large ones while writes and queries go on.")


class TierSchedule(BaseModel):
    enabled: bool
    running: bool
    schedule: str = Field(description="Cron expression, UTC")
    next_run: str | None = None


class JobCounts(BaseModel):
    active_jobs: int
    total_completed: int
    total_failed: int


class RunCounts(BaseModel):
    total_jobs: int
    successful_jobs: int
    failed_jobs: int


class CompactionStatus(BaseModel):
    enabled: bool
    running: bool = Field(description="Whether a cycle is under way")
    scheduler: TierSchedule
    schedulers: dict[str, TierSchedule]
    manager: JobCounts
    stats: RunCounts
    last_run: str | None = None
    next_run: str | None = None


class CompactionJob(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE_JOB})

    job_id: str
    database: str
    measurement: str
    partition_path: str
    tier: str
    status: str = Field(description="running, completed or failed")
    files_compacted: int
    files_created: int
    bytes_before: int
    bytes_after: int
    compression_ratio: float = Field(description="1 - after/before")
    duration_seconds: float
    started_at: str
    completed_at: str | None
    error: str | None = Field(description="Of a completed job: which unreadable files were left out")
    success: bool


class TierStats(BaseModel):
    tier: str
    enabled: bool
    min_age_hours: float
    min_files: int
    target_size_bytes: int
    total_compactions: int
    total_files_compacted: int
    total_bytes_saved: int


class CompactionStats(BaseModel):
    database: str
    total_jobs_completed: int
    total_jobs_failed: int
    total_files_compacted: int
    total_bytes_saved: int
    total_bytes_saved_mb: float
    active_jobs: int
    recent_jobs: list[CompactionJob]
    tiers: list[TierStats]
    total_manifests_recover: int = Field(description="Jobs that the end of the process had interrupted")
    cycle_running: bool
    current_cycle_id: int | None


class CandidateInfo(BaseModel):
    database: str
    measurement: str
    partition_path: str
    partition: str
    file_count: int
    files: list[str]
    tier: str
    total_size_mb: float
    age_hours: float = Field(description="Since the newest row")
    eligible: bool


class Candidates(BaseModel):
    candidates: list[CandidateInfo]
    count: int
    total_candidates: int


class TriggerQuery(BaseModel):
    tier: str | None = Field(None, description="`hourly`, `daily`, or both with a comma; all unless named")
    database: str | None = None


class TriggerBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"database": "default", "measurement": "cpu"}})

    database: str | None = Field(None, description="Only this database")
    measurement: str | None = Field(None, description="Only this measurement")


class Triggered(BaseModel):
    message: str
    status: str
    job_id: str
    tiers: list[str]
    cycle_id: int
    database: str | None


class ActiveJobs(BaseModel):
    active_jobs: int
    jobs: list[CompactionJob]


class HistoryQuery(BaseModel):
    limit: int = Field(10, ge=1, le=1000)


class JobHistory(BaseModel):
    total_jobs: int
    recent_jobs: list[CompactionJob]


def _paths(name: str) -> tuple[str, str, str]:
    return f"/api/compaction/{name}", f"/api/v1/compaction/{name}", f"/compaction/{name}"


@surface.errorhandler(CycleRunning)
def on_cycle_running(exc: CycleRunning) -> Response:
    """Clients read which cycle it is."""
    return errors.respond(exc, cycle_id=exc.cycle_id)


@surface.api("GET", *_paths("status"), needs="read", answers={200: CompactionStatus})
def compaction_status() -> Response:
    """Whether it is on, whether it runs, when it runs next."""
    compaction = _compaction()
    due = compaction.next_runs()
    schedulers = {tier.name: _schedule(compaction, tier, due.get(tier.name)) for tier in compaction.options.tiers}
    totals, last = _sum(compaction.jobs.totals().values()), compaction.jobs.last()
    answer = {
        "enabled": compaction.options.enabled,
        "running": compaction.cycle is not None,
        "scheduler": schedulers["hourly"],
        "schedulers": schedulers,
        "manager": {
            "active_jobs": len(compaction.jobs.running()),
            "total_completed": totals.completed,
            "total_failed": totals.failed,
        },
        "stats": {
            "total_jobs": totals.completed + totals.failed,
            "successful_jobs": totals.completed,
            "failed_jobs": totals.failed,
        },
    }
    if last is not None:
        answer["last_run"] = clock.rfc3339(last.started_at)
    if due:
        answer["next_run"] = clock.rfc3339(min(due.values()))
    return jsonify(answer)


@surface.api("GET", *_paths("stats"), needs="read", answers={200: CompactionStats})
def compaction_stats() -> Response:
    """What it has done, by tier."""
    compaction = _compaction()
    by_tier = compaction.jobs.totals()
    totals, cycle = _sum(by_tier.values()), compaction.cycle
    return jsonify(
        database=parts().config.get("storage", "database"),
        total_jobs_completed=totals.completed,
        total_jobs_failed=totals.failed,
        total_files_compacted=totals.files_compacted,
        total_bytes_saved=totals.bytes_saved,
        total_bytes_saved_mb=round(totals.bytes_saved / 2**20, 3),
        active_jobs=len(compaction.jobs.running()),
        recent_jobs=[job_json(job) for job in compaction.jobs.recent(10)],
        tiers=[_tier_json(tier, by_tier.get(tier.name, Totals())) for tier in compaction.options.tiers],
        total_manifests_recover=compaction.recovered,
        cycle_running=cycle is not None,
        current_cycle_id=cycle.id if cycle else None,
    )


@surface.api("GET", *_paths("candidates"), needs="read", answers={200: Candidates})
def compaction_candidates() -> Response:
    """What a cycle would work on now. Changes nothing."""
    now_us = clock.now_us()
    found = [_candidate_json(candidate, now_us) for candidate in _compaction().candidates(now_us)]
    return jsonify(candidates=found, count=len(found), total_candidates=len(found))


@surface.api("POST", *_paths("trigger"), needs="admin", answers={200: Triggered}, errors=[404, 409, 503])
def trigger_compaction(query: TriggerQuery, body: TriggerBody) -> Response:
    """Start a cycle and answer at once; 409 while one is running."""
    tiers = [name.strip() for name in (query.tier or "").split(",") if name.strip()]
    return _triggered(tiers, body.database or query.database, body.measurement)


@surface.api("POST", *_paths("hourly"), needs="admin", answers={200: Triggered}, errors=[404, 409, 503])
def trigger_hourly_compaction(body: TriggerBody) -> Response:
    """Start a cycle of the hourly tier."""
    return _triggered(["hourly"], body.database, body.measurement)


@surface.api("POST", *_paths("daily"), needs="admin", answers={200: Triggered}, errors=[404, 409, 503])
def trigger_daily_compaction(body: TriggerBody) -> Response:
    """Start a cycle of the daily tier."""
    return _triggered(["daily"], body.database, body.measurement)


@surface.api("GET", *_paths("jobs"), needs="read", answers={200: ActiveJobs})
def list_compaction_jobs() -> Response:
    """The jobs that run now."""
    running = [job_json(job) for job in _compaction().jobs.running()]
    return jsonify(active_jobs=len(running), jobs=running)


@surface.api("GET", *_paths("history"), needs="read", answers={200: JobHistory})
def compaction_history(query: HistoryQuery) -> Response:
    """Past jobs of the last 30 days, newest first."""
    jobs = _compaction().jobs
    return jsonify(total_jobs=jobs.count(), recent_jobs=[job_json(job) for job in jobs.recent(query.limit)])


def job_json(job: Job) -> dict[str, Any]:
    ended_us = clock.now_us() if job.completed_at is None else job.completed_at
    return {
        "job_id": str(job.id),
        "database": job.database,
        "measurement": job.measurement,
        "partition_path": f"{job.database}/{job.measurement}",
        "tier": job.tier,
        "status": job.status,
        "files_compacted": job.files_compacted,
        "files_created": job.files_created,
        "bytes_before": job.bytes_before,
        "bytes_after": job.bytes_after,
        "compression_ratio": round(1 - job.bytes_after / job.bytes_before, 3) if job.bytes_before else 0.0,
        "duration_seconds": round((ended_us - job.started_at) / clock.US_PER_S, 3),
        "started_at": clock.rfc3339(job.started_at),
        "completed_at": clock.rfc3339(job.completed_at),
        "error": job.error,
        "success": job.status == "completed",
    }


def _compaction() -> Compaction:
    return parts().upkeep.compaction


def _triggered(tiers: list[str], database: str | None, measurement: str | None) -> Response:
    """Raises NotFound for a name that is not there: most likely it is misspelt."""
    if database is not None:
        databases.spelling(database)
    if measurement is not None:
        databases.check_measurement(database, measurement)
    cycle = _compaction().trigger(tiers, database, measurement)
    return jsonify(
        message="Compaction triggered",
        status="running",
        job_id=f"cycle-{cycle.id}",
        tiers=[tier.name for tier in cycle.tiers],
        cycle_id=cycle.id,
        database=cycle.database,
    )


def _schedule(compaction: Compaction, tier: Tier, next_run_us: int | None) -> dict[str, Any]:
    next_run = {} if next_run_us is None else {"next_run": clock.rfc3339(next_run_us)}
    return {
        "enabled": tier.enabled and compaction.options.enabled,
        "running": compaction.is_running,
        "schedule": tier.schedule.expression,
        **next_run,
    }


def _tier_json(tier: Tier, totals: Totals) -> dict[str, Any]:
    return {
        "tier": tier.name,
        "enabled": tier.enabled,
        "min_age_hours": tier.min_age_hours,
        "min_files": tier.sizes.min_files,
        "target_size_bytes": tier.sizes.target_bytes,
        "total_compactions": totals.completed,
        "total_files_compacted": totals.files_compacted,
        "total_bytes_saved": totals.bytes_saved,
    }


def _candidate_json(candidate: Candidate, now_us: int) -> dict[str, Any]:
    database, measurement = candidate.table
    newest_us = max(file.newest_us for file in candidate.files)
    return {
        "database": database,
        "measurement": measurement,
        "partition_path": f"{database}/{measurement}",
        "partition": f"{database}/{measurement}",
        "file_count": len(candidate.files),
        "files": [file.name for file in candidate.files],
        "tier": candidate.tier.name,
        "total_size_mb": round(sum(file.size_bytes for file in candidate.files) / 2**20, 3),
        "age_hours": round(max(0, now_us - newest_us) / clock.US_PER_S / 3600, 3),
        "eligible": True,
    }


def _sum(totals: Iterable[Totals]) -> Totals:
    found = list(totals)
    return Totals(*(sum(getattr(each, name) for each in found) for name in Totals.__slots__))
