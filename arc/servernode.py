"""The server as a node: what it says of itself, and what its actions do.

ServerNode(config, db, store, upkeep, backups, restart) -> .node for arc.web -> start() when the store is open -> stop()
Each finished action becomes a point in database `arc`, measurement `actions`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import secrets
import shutil
import socket
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

import arc
from arc import clock
from arc.actions import host
from arc.actions.attributes import META_SHARD, Datastore, Role, Shard, Shards, Version, identity
from arc.actions.errors import Draining, StoreOpFailed
from arc.actions.node import Node
from arc.actions.nodeengine import NodeEngine, Setup
from arc.actions.worker import EngineOptions
from arc.backup import archive
from arc.backup.service import Content
from arc.config import OPTIONS
from arc.db import sqlitefile
from arc.db.tables import settings
from arc.errors import ArcError, ConfigError
from arc.metrics.storage.check import check_lake, check_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.actions.records import ActionRecord
    from arc.backup.service import Backups, Progress
    from arc.config import Config, Option
    from arc.db.engine import Database
    from arc.metrics.store import MetricStore
    from arc.metrics.upkeep import Upkeep
    from arc.metrics.upkeep.compaction import Cycle

log = logging.getLogger(__name__)

OFFSET_UNIT = "wal"  # position in the write-ahead log, see docs/actions.md
POINTS_DATABASE = "arc"
MAX_POINTS = 1000  # that wait while the metrics take none; beyond it the oldest are lost
POLL_S = 0.1  # seconds between two looks at what another thread does
MAX_CYCLE_JOBS = 10_000  # of one compaction that are summed up

Args = dict[str, Any]


class ServerNode:
    """restart: has this process replaced by another soon, and returns."""

    def __init__(
        self,
        config: Config,
        data_dir: Path,
        db: Database,
        store: MetricStore,
        upkeep: Upkeep,
        backups: Backups,
        restart: Callable[[], None],
    ) -> None:
        self.tasks = StoreTasks(data_dir, store, upkeep, backups)
        self._points = Points(store.write_lines)
        datastore = _datastore(config, db)

        def asked() -> Datastore:
            """Raises when the store does not answer, as who asks for it takes that for the store's health."""
            with db.read() as connection:
                connection.execute(select(settings.c.value).limit(1))
            return datastore

        self.engine: NodeEngine | None = None
        if are_enabled(config):
            able = replace(self.tasks.host(restart), node_id=datastore.id)
            self.engine = NodeEngine(
                data_dir, able, _setup(config), lambda: _changed_setup(config), on_change=self._points.note
            )
        self.node = Node(
            self.engine,
            Version.of_sources(arc.__version__, Path(arc.__file__).parents[1]),
            asked,
            Shards(lambda: [META_SHARD, *store.databases()], lambda shard_id: _shard(store, shard_id)),
        )

    def start(self) -> None:
        log.info("actions are %s", "on" if self.engine else "off")
        if self.engine:
            self.engine.start()

    def ask_to_reload(self) -> None:
        """For a signal: an action that reads the configuration again."""
        if self.engine:
            self.engine.ask_to_reload()
        else:
            log.error("actions are off, so the configuration is read at the start only")

    def begin_stop(self) -> None:
        """Begin no more steps, and answer who waits."""
        if self.engine:
            self.engine.begin_stop()

    def is_at_work(self) -> bool:
        """After begin_stop(): whether what ran then still runs."""
        return self.engine is not None and self.engine.is_at_work

    def stop(self) -> None:
        """End after the step that runs. What long steps have begun is given up; the next start begins it again."""
        self.tasks.stop()
        if self.engine:
            self.engine.stop()


class StoreTasks:
    """What actions do with the store. Each may take long, and comes in a thread of its own."""

    def __init__(self, data_dir: Path, store: MetricStore, upkeep: Upkeep, backups: Backups) -> None:
        self._data_dir = data_dir
        self._store = store
        self._compaction = upkeep.compaction
        self._retention = upkeep.retention
        self._backups = backups
        self._stop = threading.Event()
        for left_over in (data_dir / "tmp").glob("verify-*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def host(self, restart: Callable[[], None]) -> host.Host:
        return host.Host(
            version=arc.__version__,
            flush=self.flush,
            compact=self.compact if self._compaction.options.enabled else None,
            backup=self.backup,
            check_backup=lambda backup_id: archive.faults(self._backups.path(backup_id)),
            retain=self.retain,
            verify=self.verify,
            stop_store=self.stop_store,
            resume_store=self.resume_store,
            restart=restart,
        )

    def stop(self) -> None:
        self._stop.set()

    def flush(self, args: Args) -> dict[str, Any]:
        rows = self._store.flush(args["database"], args["measurement"])
        return {"rows": rows, "durable": self._durable()}

    def compact(self, args: Args) -> dict[str, Any]:
        """One cycle; one that runs already comes to its end first."""
        self._wait_until(lambda: self._compaction.cycle is None)
        cycle = self._compaction.trigger([args["tier"]], args["database"], args["measurement"])
        self._wait_until(lambda: self._compaction.cycle is not cycle)
        return self._cycle_result(cycle)

    def backup(self, args: Args) -> dict[str, Any]:
        content = Content(metadata=args["include_metadata"], config=args["include_config"])
        backup_id = self._backups.start(content)
        self._wait_until(lambda: self._progress(backup_id).status != "running")
        ended = self._progress(backup_id)
        if ended.status != "completed":
            raise StoreOpFailed(f"the backup failed: {ended.error}")
        manifest = (self._backups.path(backup_id) / archive.MANIFEST).read_bytes()
        return {
            "backup_id": backup_id,
            "files": ended.total_files,
            "bytes": ended.total_bytes,
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        }

    def retain(self, args: Args) -> dict[str, Any]:
        active = [policy for policy in self._retention.policies.all() if policy.is_active]
        chosen = [policy for policy in active if args["database"] in (None, policy.database)]
        now_us = clock.now_us()
        outcomes = [self._retention.execute(policy.id, now_us, dry_run=args["dry_run"])[1] for policy in chosen]
        return {
            "policies": len(outcomes),
            "rows": sum(outcome.deleted_count for outcome in outcomes),
            "files": sum(outcome.files_deleted for outcome in outcomes),
        }

    def verify(self, args: Args) -> dict[str, Any]:
        """Check a copy of catalog and log, and the data files by links to them: nobody has to stop writing."""
        copy = self._data_dir / "tmp" / f"verify-{secrets.token_hex(4)}"
        copy.mkdir(mode=0o700, parents=True)
        databases = sorted(self._data_dir.glob("*.db"))
        try:
            issues = [f"{path.name}: {text}" for path in databases for text in sqlitefile.faults(path)]
            issues += self._lake_issues(copy, deep=args["deep"])
            checked = len(databases) + sum(1 for path in copy.rglob("*") if path.is_file())
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return {"checked": checked, "issues": issues}

    def stop_store(self, args: Args) -> dict[str, Any]:
        self._store.takes_writes = False
        rows = self._store.flush()
        return {"message": "the store takes no writes", "flushed_rows": rows, "durable": self._durable()}

    def resume_store(self, args: Args) -> dict[str, Any]:
        self._store.takes_writes = True
        return {"message": "the store takes writes"}

    def _durable(self) -> dict[str, Any]:
        return {"unit": OFFSET_UNIT, "value": self._store.wal.position}

    def _wait_until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if self._stop.wait(POLL_S):
                raise Draining

    def _progress(self, backup_id: str) -> Progress:
        progress = self._backups.status()
        if progress is None or progress.backup_id != backup_id:
            raise StoreOpFailed("another backup took its place")
        return progress

    def _cycle_result(self, cycle: Cycle) -> dict[str, Any]:
        jobs = [job for job in self._compaction.jobs.recent(MAX_CYCLE_JOBS) if job.cycle_id == cycle.id]
        failed = [f"{job.database}.{job.measurement}: {job.error}" for job in jobs if job.status == "failed"]
        if failed:
            raise StoreOpFailed(f"{len(failed)} of {len(jobs)} measurements were not compacted; {failed[0]}")
        counted = ("files_compacted", "files_created", "bytes_before", "bytes_after")
        return {"measurements": len(jobs)} | {name: sum(getattr(job, name) for job in jobs) for name in counted}

    def _lake_issues(self, copy: Path, *, deep: bool) -> list[str]:
        try:
            self._store.copy_to(copy)
        except FileNotFoundError as error:
            return [f"{error.filename} is missing; its rows are lost, unless a backup has them"]
        faults = (*check_log(copy / "wal"), *check_lake(copy / "lake", deep=deep))
        return [f"{fault.path.relative_to(copy)}: {fault.text}" for fault in faults if fault.is_damage]


class Points:
    """A point of metrics for each action that ends; they wait while the metrics cannot take them."""

    def __init__(self, write_lines: Callable[[bytes, str], object]) -> None:
        self._write_lines = write_lines
        self._waiting: deque[str] = deque(maxlen=MAX_POINTS)

    def note(self, record: ActionRecord) -> None:
        if record.state.is_final:
            self._waiting.append(_line(record))
            self._ship()

    def _ship(self) -> None:
        points = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            self._write_lines("\n".join(points).encode(), POINTS_DATABASE)
        except ArcError as error:
            self._waiting.extendleft(reversed(points))
            log.debug("points of actions wait: %s", error)


def are_enabled(config: Config) -> bool:
    """Actions can wreck a node, so they are off where anybody could schedule them. Raises ConfigError."""
    listens_on = config.get("server", "host")
    if not config.get("actions", "enabled"):
        return False
    if config.get("auth", "enabled") or _is_loopback(listens_on):
        return True
    if config.source("actions", "enabled") == "default":
        log.warning("actions are off: [auth] enabled = false, and %s is open to other hosts", listens_on)
        return False
    raise ConfigError(
        f"ConfigClash: [actions] enabled = true needs [auth] enabled = true or [server] host = 127.0.0.1: as it is, "
        f"everybody who reaches {listens_on} could operate this machine"
    )


def _setup(config: Config, on_reload: Callable[[], None] = lambda: None) -> Setup:
    """Raises ConfigError."""
    section = config.section("actions")
    return Setup(
        live={setting.option.key: setting.value for setting in config if _is_live(setting.option)},
        fixed={setting.option.key: setting.value for setting in config if not _is_live(setting.option)},
        engine=EngineOptions.of(section),
        node=host.NodeOptions.of(section),
        log_level=config.get("log", "level"),
        on_reload=on_reload,
    )


def _changed_setup(config: Config) -> Setup:
    """As the files are now. Raises ConfigError, also for what would stop the next start."""
    found = config.read_again()
    are_enabled(found)
    return _setup(found, lambda: config.take(found, filter(_is_live, OPTIONS)))


def _is_live(option: Option) -> bool:
    """Whether it needs no restart."""
    return option.key == "log.level" or (option.section == "actions" and option.name != "enabled")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _datastore(config: Config, db: Database) -> Datastore:
    section, port = config.section("node"), config.get("server", "port")
    address = f"{socket.gethostname()}:{port}" if port else socket.gethostname()
    ids = identity(lambda name, value: _remember(db, name, value), section["cluster_id"], section["id"], address)
    return Datastore(*ids, kind="Arc", version=arc.__version__, display_name=section["display_name"])


def _remember(db: Database, name: str, value: str) -> str:
    """The setting of this name: what was given when it was asked for first."""
    name = f"node.{name}"
    with db.transaction() as tx:
        kept = tx.scalar(select(settings.c.value).where(settings.c.name == name))
        if kept is None:
            tx.execute(insert(settings), {"name": name, "value": value})
    return value if kept is None else str(kept)


def _shard(store: MetricStore, shard_id: str) -> Shard:
    if shard_id == META_SHARD:
        return Shard(META_SHARD, Role.PRIMARY)
    if not store.is_ready:
        return Shard(shard_id, Role.RECOVERING)
    role = Role.PRIMARY if store.takes_writes else Role.OTHER
    return Shard(shard_id, role, store.offset(shard_id), unit=OFFSET_UNIT)


def _line(record: ActionRecord) -> str:
    """In line protocol. What stands in it has no character that would need an escape."""
    variant = record.payload.get("variant") if isinstance(record.payload, dict) else None
    tags = {"kind": record.kind, "state": record.state.value, "requester": record.requester, "variant": variant}
    ended_at = record.finished_at or record.scheduled_at
    took_ms, ran_ms = (ended_at - record.scheduled_at) // 1000, record.running_us // 1000
    head = ",".join(["actions", *(f"{name}={value}" for name, value in tags.items() if value)])
    fields = f'id="{record.id}",duration_ms={took_ms}i,running_ms={ran_ms}i,steps={record.invocations}i'
    return f"{head} {fields} {ended_at * 1000}"
