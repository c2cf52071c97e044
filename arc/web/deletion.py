"""Deleting rows by condition."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc.web import audit
from arc.web.parts import parts
from arc.web.surface import Surface

surface = Surface("deletion", "Deletion", "Rows that a condition is true for are removed. Off unless [delete] enabled.")


class DeleteRequest(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "database": "default",
                "measurement": "cpu",
                "where": "host = 'server01' AND time < '2025-10-01'",
                "dry_run": True,
                "confirm": False,
            }
        }
    )

    database: str
    measurement: str
    where: str = Field(min_length=1, description="One condition on the columns, without sub-queries and comments")
    dry_run: bool = Field(False, description="Count, but remove nothing")
    confirm: bool = Field(False, description="Needed for whatever removes rows")


class DeleteAnswer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "success": True,
                "deleted_count": 86400,
                "affected_files": 2,
                "rewritten_files": 1,
                "execution_time_ms": 41.5,
                "dry_run": True,
                "files_processed": ["arc-1f2e.parquet", "arc-3d4c.parquet"],
                "error": None,
            }
        }
    )

    success: bool
    deleted_count: int = Field(description="Rows; with `dry_run` those that would go")
    affected_files: int = Field(description="Files with such rows")
    rewritten_files: int = Field(description="Of these, files that keep some rows")
    execution_time_ms: float
    dry_run: bool
    files_processed: list[str]
    error: str | None


class DeleteConfig(BaseModel):
    enabled: bool
    confirmation_threshold: int
    max_rows_per_delete: int
    implementation: str
    performance_impact: dict[str, str]


@surface.api(
    "POST", "/api/v1/delete", needs="delete", answers={200: DeleteAnswer}, errors=[404, 503], audit="rows.delete"
)
def delete_rows(body: DeleteRequest) -> Response:
    """Remove the rows of a measurement for which the condition is true; where it is null, a row stays."""
    deleted = parts().upkeep.deletion.delete(
        body.database, body.measurement, body.where, dry_run=body.dry_run, confirm=body.confirm
    )
    removal = deleted.removal
    audit.note(f"{body.database}.{body.measurement}", rows=removal.rows, dry_run=body.dry_run)
    return jsonify(
        success=True,
        deleted_count=removal.rows,
        affected_files=len(removal.dropped) + len(removal.reduced),
        rewritten_files=len(removal.reduced),
        execution_time_ms=deleted.took_ms,
        dry_run=body.dry_run,
        files_processed=sorted(removal.dropped + removal.reduced),
        error=None,
    )


@surface.api("GET", "/api/v1/delete/config", needs="read", answers={200: DeleteConfig})
def delete_config() -> Response:
    """Whether deletes are allowed, and of how many rows."""
    options = parts().upkeep.deletion.options
    impact: dict[str, Any] = {
        "writes": "none; flushes wait while the delete is carried out",
        "queries": "none; they see all of it or nothing",
        "deletes": "reads the columns of the condition in files that may match",
    }
    return jsonify(
        enabled=options.enabled,
        confirmation_threshold=options.confirmation_threshold,
        max_rows_per_delete=options.max_rows,
        implementation="rewrite-based",
        performance_impact=impact,
    )
