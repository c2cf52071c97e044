"""Backups over HTTP: start, watch, list, fetch, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.backup.service import Busy, Content
from arc.errors import Conflict, Invalid
from arc.web import audit, errors
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.backup.archive import Manifest
    from arc.backup.service import Progress

TAR = "application/x-tar"
_TAR_ANSWER = {"description": "The backup as tar", "content": {TAR: {"schema": {"type": "string", "format": "binary"}}}}
_EXAMPLE_ID = "backup-20251019-120000-1f2e3d4c"

surface = Surface("backup", "Backup", "A copy of everything, taken while the server works. docs/backup.md says more.")


class BackupRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"include_metadata": True, "include_config": True}})

    include_metadata: bool = Field(True, description="Tokens and everything else that is not a metric")
    include_config: bool = Field(True, description="Options that differ from their defaults, without secret ones")
    include_secrets: bool = Field(False, description="Keys of stored secrets, and secret options")


class BackupStarted(BaseModel):
    message: str
    status: str
    backup_id: str


class BackupSummary(BaseModel):
    backup_id: str
    created_at: str
    backup_type: str
    total_files: int
    total_size_bytes: int
    database_count: int


class BackupList(BaseModel):
    backups: list[BackupSummary]
    count: int


class BackupStatus(BaseModel):
    """Of the operation that runs, or was the last; only `status` when there was none."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "operation": "backup",
                "backup_id": _EXAMPLE_ID,
                "status": "running",
                "total_files": 120,
                "processed_files": 17,
                "skipped_files": 0,
                "total_bytes": 734003200,
                "processed_bytes": 104857600,
                "started_at": "2025-10-19T12:00:00Z",
            }
        }
    )

    status: str = Field(description="idle, running, completed or failed")
    operation: str | None = None
    backup_id: str | None = None
    total_files: int | None = None
    processed_files: int | None = None
    skipped_files: int | None = None
    total_bytes: int | None = None
    processed_bytes: int | None = None
    started_at: str | None = None
    completed_at: str | None = None
    error: str | None = None


class BackupDatabase(BaseModel):
    name: str
    measurements: list[str]
    file_count: int
    size_bytes: int


class BackupManifest(BaseModel):
    backup_id: str
    created_at: str
    backup_type: str
    version: int
    arc_version: str
    databases: list[BackupDatabase]
    total_files: int
    total_size_bytes: int
    has_metadata: bool
    has_config: bool
    has_secrets: bool


class BackupDeleted(BaseModel):
    message: str
    backup_id: str


class RestoreRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"backup_id": _EXAMPLE_ID, "confirm": True}})

    backup_id: str = Field(min_length=1)
    restore_data: bool = True
    restore_metadata: bool = True
    restore_config: bool = False
    confirm: bool = False


class BackupPath(BaseModel):
    backup_id: str = Field(description="As the list shows it")


@surface.errorhandler(Busy)
def on_busy(exc: Busy) -> Response:
    """Clients of the older servers read which operation it is."""
    return errors.respond(exc, operation=exc.operation)


@surface.api("POST", "/api/v1/backup", needs="admin", answers={202: BackupStarted}, errors=[409], audit="backup.create")
def start_backup(body: BackupRequest) -> tuple[Response, int]:
    """Begin a backup of the state as of now. It takes no time to speak of away from writers and readers."""
    content = Content(body.include_metadata, body.include_config, body.include_secrets)
    backup_id = parts().backups.start(content)
    audit.note(backup_id, include_secrets=body.include_secrets)
    return jsonify(message="Backup started", status="running", backup_id=backup_id), 202


@surface.api("GET", "/api/v1/backup", needs="admin", answers={200: BackupList})
def list_backups() -> Response:
    """The backups that lie in the data directory, newest first."""
    found = [_summary(manifest) for manifest in parts().backups.list()]
    return jsonify(backups=found, count=len(found))


@surface.api("GET", "/api/v1/backup/status", needs="admin", answers={200: BackupStatus})
def backup_status() -> Response:
    """How the running backup gets on, or how the last one ended."""
    progress = parts().backups.status()
    return jsonify(status="idle") if progress is None else jsonify(_progress(progress))


@surface.api("GET", "/api/v1/backup/<backup_id>", needs="admin", answers={200: BackupManifest}, errors=[404])
def get_backup(path: BackupPath) -> Response:
    """What is in a backup."""
    return jsonify(vars(parts().backups.get(path.backup_id)))


@surface.api(
    "GET", "/api/v1/backup/<backup_id>/archive", needs="admin", errors=[404, 409],
    answers={200: _TAR_ANSWER}, audit="backup.download",
)  # fmt: skip
def download_backup(path: BackupPath) -> Response:
    """A backup as one tar file, which `python arc.py restore` takes."""
    size, pieces = parts().backups.download(path.backup_id)
    answer = Response(pieces, mimetype=TAR)
    answer.content_length = size
    answer.headers["Content-Disposition"] = f'attachment; filename="{path.backup_id}.tar"'
    return answer


@surface.api(
    "DELETE", "/api/v1/backup/<backup_id>",
    needs="admin", answers={200: BackupDeleted}, errors=[404, 409], audit="backup.delete",
)  # fmt: skip
def delete_backup(path: BackupPath) -> Response:
    """Remove a backup from the data directory."""
    parts().backups.delete(path.backup_id)
    return jsonify(message="Backup deleted", backup_id=path.backup_id)


@surface.api("POST", "/api/v1/backup/restore", needs="admin", answers={}, errors=[404, 409])
def restore_backup(body: RestoreRequest) -> Response:
    """Refused, as a running server is not written over: 409, whose text names the command that restores the backup.

    400 without `confirm`, 404 for an unknown backup.
    """
    if not body.confirm:
        raise Invalid('Restoring needs "confirm": true')
    path = parts().backups.path(body.backup_id)
    raise Conflict(
        "a running server cannot be restored; restore into a new directory and start a server on that:"
        f" python arc.py restore {path} --data NEW_DIRECTORY"
    )


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "backup_id": manifest.backup_id,
        "created_at": manifest.created_at,
        "backup_type": manifest.backup_type,
        "total_files": manifest.total_files,
        "total_size_bytes": manifest.total_size_bytes,
        "database_count": len(manifest.databases),
    }


def _progress(progress: Progress) -> dict[str, Any]:
    shown = vars(progress) | {"started_at": clock.rfc3339(progress.started_at), "skipped_files": 0}
    shown["completed_at"] = clock.rfc3339(progress.completed_at)
    return {name: value for name, value in shown.items() if value is not None}
