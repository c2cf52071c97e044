"""Backups of one data directory: take, list, read, delete.

    take: stage in tmp/ (metadata, then metrics, each as of one instant; data files as hard links) -> seal -> backups/ID
    Backups.start -> a thread runs take -> status()
One operation at a time, whoever asks. A staged copy costs no space and little time, as data files never change once
written: what a link keeps is what a copy would keep. It is no protection against the loss of the disk; for that the
archive leaves the machine (archive.pack).
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import arc
from arc import clock
from arc.backup import archive
from arc.backup.archive import BadBackup, Manifest
from arc.db import sqlitefile
from arc.errors import ArcError, Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_ID = re.compile(r"backup-\d{8}-\d{6}-[0-9a-f]{8}")
_STAGE = "backup-stage-"
_STOP_S = 30.0  # seconds a running backup may take to notice that it shall stop


@dataclass(frozen=True)
class Content:
    """What a backup shall hold beside the metrics. secrets: the keys that stored secrets are encrypted with."""

    metadata: bool = True
    config: bool = True
    secrets: bool = False


@dataclass(frozen=True)
class Sources:
    """Where the parts of a backup come from.

    copy_metrics(directory): put lake/ and wal/ there, which lies in tmp/; returns what the manifest says of databases.
    settings(with_secrets): the configuration as text.
    """

    data_dir: Path
    copy_metrics: Callable[[Path], list[dict[str, Any]]]
    settings: Callable[[bool], str]


@dataclass
class Progress:
    """Of the operation that runs or was the last to run. Instants are microseconds."""

    operation: str
    backup_id: str
    status: str = "running"
    total_files: int = 0
    processed_files: int = 0
    total_bytes: int = 0
    processed_bytes: int = 0
    started_at: int = 0
    completed_at: int | None = None
    error: str | None = None


class Busy(Conflict):
    def __init__(self, operation: str) -> None:
        super().__init__("A backup or restore operation is already in progress")
        self.operation = operation


class BackupNotFound(NotFound):
    def __init__(self, backup_id: str) -> None:
        super().__init__(f"no backup with id {backup_id!r}")


class Backups:
    """The backups that the server keeps in `backups/`. Any thread may call it."""

    def __init__(self, sources: Sources) -> None:
        self.directory = sources.data_dir / "backups"
        self._sources = sources
        self._lock = threading.Lock()
        self._operation = ""
        self._progress: Progress | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        remove_stages(sources.data_dir)

    def start(self, content: Content) -> str:
        """Begin a backup and return its id; status() tells how it goes. Raises Busy."""
        self._begin("backup")
        progress = self._progress = Progress("backup", new_id(), started_at=clock.now_us())
        self._thread = threading.Thread(target=self._run, args=(progress, content), name="backup", daemon=True)
        self._thread.start()
        return progress.backup_id

    def status(self) -> Progress | None:
        """None when there was no operation since the start."""
        progress = self._progress
        return None if progress is None else replace(progress)

    def list(self) -> list[Manifest]:
        """Newest first."""
        found = []
        for path in sorted(self.directory.glob("backup-*"), reverse=True):
            try:
                found.append(Manifest.read(path))
            except BadBackup as error:
                log.warning("%s", error)
        return found

    def get(self, backup_id: str) -> Manifest:
        """Raises Invalid for what is no id, BackupNotFound."""
        return Manifest.read(self.path(backup_id))

    def path(self, backup_id: str) -> Path:
        """Where it lies. Raises Invalid for what is no id, BackupNotFound."""
        if not _ID.fullmatch(backup_id):
            raise Invalid(f"{backup_id[:60]!r} is no backup id")
        path = self.directory / backup_id
        if not path.is_dir():
            raise BackupNotFound(backup_id)
        return path

    def delete(self, backup_id: str) -> None:
        """Raises Invalid, BackupNotFound, Busy."""
        with self._alone("delete"):
            path = self.path(backup_id)
            doomed = path.with_suffix(".deleted")  # half deleted it must not look like a backup
            path.rename(doomed)
            shutil.rmtree(doomed)

    def download(self, backup_id: str) -> tuple[int, Generator[bytes, None, None]]:
        """Its size as tar, and the tar, to be closed; until then nothing else can be done. Raises as delete()."""
        path = self.path(backup_id)

        def pieces() -> Generator[bytes, None, None]:
            with self._alone("download"):
                yield b""
                yield from archive.pack(path)

        made = pieces()
        next(made)  # raises Busy here and not in the middle of an answer
        return archive.packed_size(path), made

    def stop(self) -> None:
        """Give up a running backup; it leaves nothing behind."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _run(self, progress: Progress, content: Content) -> None:
        try:
            for _ in take(self._sources, content, progress, self.directory / progress.backup_id):
                if self._stop.is_set():
                    raise ArcError("the server was stopped")
        except Exception as error:  # it must end in the status, as nobody waits for the thread
            log.exception("backup %s failed", progress.backup_id)
            progress.error, ending = str(error), "failed"
        else:
            ending = "completed"
            log.info("backup %s: %d files, %d bytes", progress.backup_id, progress.total_files, progress.total_bytes)
        progress.completed_at = clock.now_us()
        self._end()
        progress.status = ending  # last: who reads it may fetch the backup at once

    @contextmanager
    def _alone(self, operation: str) -> Iterator[None]:
        self._begin(operation)
        try:
            yield
        finally:
            self._end()

    def _begin(self, operation: str) -> None:
        with self._lock:
            if self._operation:
                raise Busy(self._operation)
            self._operation = operation

    def _end(self) -> None:
        with self._lock:
            self._operation = ""


def new_id() -> str:
    digits = re.sub(r"\D", "", str(clock.rfc3339(clock.now_us())))[:14]
    return f"backup-{digits[:8]}-{digits[8:]}-{secrets.token_hex(4)}"


def take(sources: Sources, content: Content, progress: Progress, target: Path) -> Iterator[int]:
    """Make a backup at `target`, on the disk of the data directory; yields bytes as they are done."""
    stage = sources.data_dir / "tmp" / f"{_STAGE}{progress.backup_id}"
    try:
        manifest = _stage(sources, content, progress, stage)
        manifest.write(stage)
        found = archive.files(stage)
        progress.total_files, progress.total_bytes = len(found), sum(path.stat().st_size for path in found)
        for progress.processed_files, size in archive.seal(stage):
            progress.processed_bytes += size
            yield size
        progress.processed_files = len(found)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        stage.rename(target)
        archive.sync_directories(target.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def remove_stages(data_dir: Path) -> None:
    """What a killed backup or deletion left."""
    for path in (*(data_dir / "tmp").glob(f"{_STAGE}*"), *(data_dir / "backups").glob("*.deleted")):
        shutil.rmtree(path, ignore_errors=True)


def _stage(sources: Sources, content: Content, progress: Progress, stage: Path) -> Manifest:
    """Everything a backup holds but manifest and checksums; no locks are held when this returns."""
    data, kept = stage / archive.DATA, sources.data_dir
    data.mkdir(mode=0o700, parents=True)
    # Actions belong to the node, not to its data: a restored reboot or restart must not come to life elsewhere.
    databases = [path for path in sorted(kept.glob("*.db")) if content.metadata and path.name != "actions.db"]
    for path in databases:
        sqlitefile.copy(path, data / path.name)
    metrics = sources.copy_metrics(data)
    if content.secrets and (kept / "secrets").is_dir():
        shutil.copytree(kept / "secrets", data / "secrets")
    if content.config:
        archive.write(stage / archive.SETTINGS, sources.settings(content.secrets).encode())
    found = archive.files(stage)
    return Manifest(
        backup_id=progress.backup_id,
        created_at=str(clock.rfc3339(progress.started_at)),
        databases=metrics,
        has_metadata=bool(databases),
        has_config=content.config,
        has_secrets=(data / "secrets").is_dir(),
        arc_version=arc.__version__,
        total_files=len(found),
        total_size_bytes=sum(path.stat().st_size for path in found),
    )
