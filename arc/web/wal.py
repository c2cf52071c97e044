"""The write-ahead log over HTTP: its state, its files, what the last start replayed.

A file of the log disappears when a flush has moved its rows to the lake, so there is nothing to clean up between
two flushes, and the log is replayed at the start, so there is nothing to recover afterwards. The calls that other
servers need for both exist and say what they found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.web.figures import wal_files
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.metrics.store import MetricStore

_LAGGING = 8  # full files on disk; from here on flushes do not keep up
_OFF = "WAL is not enabled. Set WAL_ENABLED=true in configuration."
_STATS: dict[str, Any] = {
    "worker_id": 4711,
    "current_file": "0000000000000007.wal",
    "current_size_mb": 1.25,
    "current_age_seconds": 2.1,
    "sync_mode": "always",
    "total_entries": 1200,
    "total_bytes": 72_000_000,
    "total_syncs": 400,
    "total_rotations": 6,
}
_FILE: dict[str, Any] = {
    "name": "0000000000000007.wal",
    "size_mb": 1.25,
    "modified": "2025-10-19T12:00:00Z",
    "path": "/data/wal/...",
}

surface = Surface("wal", "Write-ahead log", "What makes an acknowledged write survive a crash.")


class WalStats(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _STATS})

    worker_id: int = Field(description="The server's process id")
    current_file: str | None = Field(description="The file that is written; null directly after a flush")
    current_size_mb: float
    current_age_seconds: float = Field(description="Age of the oldest row that waits for a flush")
    sync_mode: str = Field(description="`always`, `interval` or `off`")
    total_entries: int = Field(description="Requests logged since the start")
    total_bytes: int
    total_syncs: int
    total_rotations: int


class WalStatus(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "enabled": True,
                "writer_type": "ducklake",
                "reason": None,
                "configuration": {"sync_mode": "always", "worker_id": 4711, "current_file": _FILE["name"]},
                "stats": _STATS,
            }
        }
    )

    enabled: bool
    writer_type: str
    reason: str | None = Field(description="Why it is off")
    configuration: dict[str, Any]
    stats: WalStats


class WalFile(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _FILE})

    name: str
    size_mb: float
    modified: str
    path: str


class WalFiles(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"active": [_FILE], "recovered": [], "total_size_mb": 1.25, "wal_directory": "/data/wal"}
        }
    )

    active: list[WalFile]
    recovered: list[WalFile] = Field(description="Replayed at the start and not yet flushed")
    total_size_mb: float
    wal_directory: str


class WalHealth(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "healthy": True,
                "wal_enabled": True,
                "issues": [],
                "recommendations": [],
                "stats_summary": {"total_entries": 1200, "failed_writes": 0, "files": 1, "size_mb": 1.25},
            }
        }
    )

    healthy: bool
    wal_enabled: bool
    issues: list[str]
    recommendations: list[str]
    stats_summary: dict[str, float]


class Recovery(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "recovered_files": [
                    {"name": "0000000000000006.wal", "entries": 12, "recovered_at": "2025-10-19T11:59:58Z"}
                ],
                "last_recovery": "2025-10-19T11:59:58Z",
                "total_recovered": 1,
                "entries": 12,
                "rows": 12_000,
                "damaged_entries": 0,
                "cut_bytes": 0,
            }
        }
    )

    recovered_files: list[dict[str, Any]] = Field(description="What this start replayed, oldest first")
    last_recovery: str | None
    total_recovered: int = Field(description="Files")
    entries: int
    rows: int
    damaged_entries: int = Field(description="Skipped")
    cut_bytes: int = Field(description="Of unfinished ends, as a crash leaves them")


class CleanupQuery(BaseModel):
    max_age_hours: float = Field(24, ge=0, description="Spare files changed later than that")


class Cleaned(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"deleted_count": 0, "freed_mb": 0.0, "max_age_hours": 24, "message": "Deleted 0 WAL files"}
        }
    )

    deleted_count: int
    freed_mb: float
    max_age_hours: float
    message: str


class WalDone(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"success": True, "message": "WAL synced to disk"}})

    success: bool
    message: str


class Recovered(WalDone):
    model_config = ConfigDict(
        json_schema_extra={"example": {"success": True, "message": "Nothing to recover", "recovered_count": 0}}
    )

    recovered_count: int


@surface.api("GET", "/api/wal/status", "/api/v1/wal/status", needs="admin", answers={200: WalStatus})
def wal_status() -> Response:
    """Whether the log is on, how it is set up, and what it has done."""
    stats, is_on = _stats(parts().store), _is_on()
    configuration = {name: stats[name] for name in ("sync_mode", "worker_id", "current_file")}
    return jsonify(
        enabled=is_on,
        writer_type="ducklake",
        reason=None if is_on else "[wal] enabled = false: writes are logged, but never synced to disk",
        configuration=configuration,
        stats=stats,
    )


@surface.api("GET", "/api/wal/stats", "/api/v1/wal/stats", needs="admin", answers={200: WalStats})
def wal_stats() -> Response:
    """Counters since the start; 400 when the log is off."""
    return jsonify(_stats(_store()))


@surface.api("GET", "/api/wal/files", "/api/v1/wal/files", needs="admin", answers={200: WalFiles})
def list_wal_files() -> Response:
    """The files of the log; 400 when the log is off."""
    store = _store()
    replayed = {segment.name for segment in store.wal.report.segments}
    files = [_file_json(store, *file) for file in wal_files(store)]
    return jsonify(
        active=[file for file in files if file["name"] not in replayed],
        recovered=[file for file in files if file["name"] in replayed],
        total_size_mb=round(sum(file["size_mb"] for file in files), 3),
        wal_directory=str(store.wal.directory),
    )


@surface.api("GET", "/api/wal/health", "/api/v1/wal/health", needs="admin", answers={200: WalHealth})
def wal_health() -> Response:
    """Whether the log works, and what to do when it does not."""
    store, is_on = parts().store, _is_on()
    stats, files = store.stats(), wal_files(store)
    size_bytes = sum(size for _, size, _ in files)
    issues = _issues(stats, size_bytes, store.wal.segment_bytes)
    synced = is_on and stats["wal_sync"] != "off"
    return jsonify(
        healthy=not issues,
        wal_enabled=is_on,
        issues=[issue for issue, _ in issues],
        recommendations=[advice for _, advice in issues]
        + ([] if synced else ['The log is not synced: set [wal] sync = "always" to survive a power cut']),
        stats_summary={
            "total_entries": stats["wal_entries"],
            "total_bytes": stats["wal_bytes"],
            "failed_writes": stats["wal_failed_writes"],
            "files": len(files),
            "size_mb": _mb(size_bytes),
        },
    )


@surface.api("GET", "/api/wal/recovery/history", "/api/v1/wal/recovery/history", needs="admin", answers={200: Recovery})
def wal_recovery_history() -> Response:
    """What this start replayed; 400 when the log is off."""
    store = _store()
    stats, segments = store.stats(), store.wal.report.segments
    return jsonify(
        recovered_files=[
            {"name": segment.name, "entries": segment.entries, "recovered_at": clock.rfc3339(segment.replayed_at)}
            for segment in segments
        ],
        last_recovery=clock.rfc3339(segments[-1].replayed_at) if segments else None,
        total_recovered=len(segments),
        entries=stats["wal_replayed_entries"],
        rows=stats["wal_replayed_rows"],
        damaged_entries=stats["wal_skipped_entries"],
        cut_bytes=stats["wal_cut_bytes"],
    )


@surface.api(
    "POST", "/api/wal/cleanup", "/api/v1/wal/cleanup", "/api/wal/compact", "/api/v1/wal/compact",
    needs="admin", answers={200: Cleaned},
)  # fmt: skip
def clean_up_wal(query: CleanupQuery) -> Response:
    """Delete files whose rows are in the lake. Each flush does so by itself; 400 when the log is off."""
    freed = _delete_redundant(_store(), clock.now_us() - query.max_age_hours * 3600 * clock.US_PER_S)
    return jsonify(
        deleted_count=len(freed),
        freed_mb=_mb(sum(freed)),
        max_age_hours=query.max_age_hours,
        message=f"Deleted {len(freed)} WAL files",
    )


@surface.api("POST", "/api/wal/flush", "/api/v1/wal/flush", needs="admin", answers={200: WalDone}, errors=[503])
def flush_wal() -> Response:
    """Sync the log to disk now, whatever `[wal] sync` says; 400 when the log is off."""
    _store().sync_wal()
    return jsonify(success=True, message="WAL synced to disk")


@surface.api("POST", "/api/wal/recover", "/api/v1/wal/recover", needs="admin", answers={200: Recovered})
def recover_wal() -> Response:
    """Nothing to do while the server runs: the start has replayed the log. 400 when the log is off."""
    _store()
    return jsonify(success=True, message="Nothing to recover: the start has replayed the log", recovered_count=0)


def _is_on() -> bool:
    is_on: bool = parts().config.get("wal", "enabled")
    return is_on


def _store() -> MetricStore:
    if not _is_on():
        raise Invalid(_OFF)
    return parts().store


def _stats(store: MetricStore) -> dict[str, Any]:
    stats, size_bytes = store.stats(), store.wal.size_bytes
    return {
        "worker_id": os.getpid(),
        "current_file": store.wal.path(stats["wal_segment"]).name if size_bytes else None,
        "current_size_mb": _mb(size_bytes),
        "current_age_seconds": round(stats["oldest_buffered_s"], 3),
        "sync_mode": stats["wal_sync"],
        "total_entries": stats["wal_entries"],
        "total_bytes": stats["wal_bytes"],
        "total_syncs": stats["wal_syncs"],
        "total_rotations": stats["wal_rotations"],
    }


def _issues(stats: dict[str, Any], size_bytes: int, segment_bytes: int) -> list[tuple[str, str]]:
    """What is wrong, and what helps."""
    found = []
    if stats["wal_failed_writes"]:
        found.append(
            (f"{stats['wal_failed_writes']} writes could not be logged and got 503", "See /logs; is the disk full?")
        )
    if stats["wal_skipped_entries"]:
        found.append(
            (f"{stats['wal_skipped_entries']} damaged entries were met at the start", "Check the disk for errors")
        )
    if size_bytes > _LAGGING * segment_bytes:
        found.append((f"{_mb(size_bytes)} MB wait for a flush", "See /logs for failed flushes; is the disk too slow?"))
    return found


def _delete_redundant(store: MetricStore, before_us: float) -> list[int]:
    """Sizes of the deleted files."""
    freed = []
    for name, size_bytes, modified_us in wal_files(store):
        if int(name.removesuffix(".wal")) <= store.lake.mark and modified_us < before_us:
            (store.wal.directory / name).unlink(missing_ok=True)
            freed.append(size_bytes)
    return freed


def _file_json(store: MetricStore, name: str, size_bytes: int, modified_us: int) -> dict[str, Any]:
    return {
        "name": name,
        "size_mb": _mb(size_bytes),
        "modified": clock.rfc3339(modified_us),
        "path": str(store.wal.directory / name),
    }


def _mb(size_bytes: int) -> float:
    return round(size_bytes / 2**20, 3)
