"""Jobs as one part of the server: builds what belongs together and starts it in order.

Jobs(db, config, data_dir) -> .coordinator .reader .redactor(job) -> start(), stop()
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import arc
from arc import clock
from arc.errors import ConfigError, Invalid
from arc.jobs.coordinator import Coordinator, CoordinatorOptions
from arc.jobs.durations import parse_duration
from arc.jobs.nodes import HEARTBEAT_S, UP, stable_id
from arc.jobs.planning import CONTAINER, PROCESS, Planner
from arc.jobs.queries import JobReader
from arc.jobs.queuenames import is_for_tasks
from arc.jobs.records import NodeReport
from arc.jobs.redaction import Redactor
from arc.jobs.retention import JobRetention
from arc.jobs.sealing import Sealer, load_key
from arc.jobs.store import JobStore
from arc.jobs.work import WorkDefaults
from arc.jobs.workers import WorkerOptions, WorkerPool
from arc.loop import PeriodicLoop
from arc.runtimes.base import RuntimeUnavailable
from arc.runtimes.docker import DockerOptions, DockerRuntime
from arc.runtimes.shell import ShellOptions, ShellRuntime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arc.config import Config
    from arc.db.engine import Database
    from arc.jobs.records import Job
    from arc.runtimes.base import Runtime

DAY_S = 86_400
PRUNE_S = 3600.0


class Jobs:
    """Raises ConfigError."""

    def __init__(self, db: Database, config: Config, data_dir: Path) -> None:
        self._options = config.section("jobs")
        sealer = Sealer(load_key(self._options["encryption_key"], data_dir / "secrets"))
        worker_id = stable_id(db, "worker")
        self.reader = JobReader(db, sealer)
        self.coordinator = Coordinator(
            JobStore(db, sealer),
            Planner(config.get("worker", "runtime")),
            CoordinatorOptions(self._options["lease_s"], self._options["max_result_size"]),
        )
        runtimes = _runtimes(config, data_dir, worker_id)
        self.pool = WorkerPool(
            self.coordinator,
            runtimes,
            self._redactor,
            _worker_options(config, worker_id),
        )
        self._heartbeat = CoordinatorHeartbeat(self.coordinator, stable_id(db, "coordinator"))
        self._loops: tuple[PeriodicLoop, ...] = (
            self.coordinator.starter,
            self.coordinator.sweeper,
            self._heartbeat,
            JobRetention(db, self._options["retention_days"] * DAY_S, self._options["log_retention_days"] * DAY_S),
            *(ImagePruner(runtime) for runtime in runtimes.values() if isinstance(runtime, DockerRuntime)),
        )

    def redactor(self, job: Job) -> Redactor:
        """Hides the secrets of a job in what is shown of it, as [jobs] redact and redact_patterns say."""
        return self._redactor(job.secrets)

    def start(self) -> None:
        self.pool.start()
        for loop in self._loops:
            loop.start()
        self.coordinator.starter.wake()
        self._heartbeat.wake()

    def begin_stop(self) -> None:
        """Start no more tasks, let nobody wait for the end of a job."""
        self.pool.stop_claiming()
        self.coordinator.stop()

    def stop(self) -> None:
        """Tasks that run get some time; what is not done by then goes on at the next start. May be called twice."""
        self.begin_stop()
        for loop in self._loops:
            loop.stop()
        self.pool.stop()

    def _redactor(self, secrets: Mapping[str, str]) -> Redactor:
        return Redactor(secrets, self._options["redact_patterns"], enabled=self._options["redact"])


class CoordinatorHeartbeat(PeriodicLoop):
    name = "coordinator-heartbeat"

    def __init__(self, coordinator: Coordinator, node_id: str) -> None:
        super().__init__(HEARTBEAT_S)
        self._coordinator = coordinator
        self._node_id = node_id
        self._started_at = clock.now_us()

    def step(self, now_us: int) -> int:
        report = NodeReport(
            id=self._node_id,
            name="Coordinator",
            kind="coordinator",
            hostname=socket.gethostname(),
            version=arc.__version__,
            status=UP,
            detail="",
            queues={},
            started_at=self._started_at,
            cpu_percent=psutil.cpu_percent(),
            task_count=0,
        )
        self._coordinator.heartbeat(report, {})
        return 1


class ImagePruner(PeriodicLoop):
    """Removes images that nobody has needed for long."""

    name = "image-pruner"

    def __init__(self, docker: DockerRuntime) -> None:
        super().__init__(PRUNE_S)
        self._docker = docker

    def step(self, now_us: int) -> int:
        try:
            return self._docker.prune(now_us)
        except RuntimeUnavailable:
            return 0  # the health check says so


def _runtimes(config: Config, data_dir: Path, instance: str) -> dict[str, Runtime]:
    """By kind of task."""
    chosen = config.get("worker", "runtime")
    runtimes: dict[str, Runtime] = {}
    if chosen != "docker":
        runtimes[PROCESS] = _shell(config, data_dir, instance)
    if chosen != "shell":
        runtimes[CONTAINER] = _docker(config, instance)
    return runtimes


def _shell(config: Config, data_dir: Path, instance: str) -> Runtime:
    shell = config.section("shell")
    options = ShellOptions(
        work_dir=Path(shell["work_dir"]) if shell["work_dir"] else data_dir / "work",
        cmd=tuple(shell["cmd"]),
        uid=shell["uid"],
        gid=shell["gid"],
        host_env=tuple(config.get("worker", "host_env")),
        result_bytes=config.get("jobs", "max_result_size"),
    )
    return ShellRuntime(options, instance)


def _docker(config: Config, instance: str) -> Runtime:
    docker, mounts = config.section("docker"), config.section("mounts")
    options = DockerOptions(
        host=docker["host"],
        config=docker["config"],
        privileged=docker["privileged"],
        image_ttl_s=docker["image_ttl_s"],
        image_verify=docker["image_verify"],
        bind_allowed=mounts["bind_allowed"],
        bind_sources=tuple(mounts["bind_sources"]),
        host_env=tuple(config.get("worker", "host_env")),
        result_bytes=config.get("jobs", "max_result_size"),
    )
    return DockerRuntime(options, instance)


def _worker_options(config: Config, node_id: str) -> WorkerOptions:
    worker = config.section("worker")
    try:
        parse_duration(worker["default_timeout"] or "0")
    except Invalid as error:
        raise ConfigError(f"[worker] default_timeout: {error}") from None
    return WorkerOptions(
        node_id=node_id,
        name=worker["name"],
        queues=dict(_queue(spec) for spec in _listed(worker["queues"])),
        defaults=WorkDefaults(worker["default_cpus"], worker["default_memory"], worker["default_timeout"]),
        waits_for_engine=config.get("docker", "when_down") == "wait",
        lease_s=config.get("jobs", "lease_s"),
        max_log_bytes=config.get("jobs", "max_log_size"),
    )


def _listed(specs: Iterable[str]) -> list[str]:
    return [spec.strip() for spec in specs if spec.strip()]


def _queue(spec: str) -> tuple[str, int]:
    """`name=4`, or a name for one task at a time."""
    name, _, count = (part.strip() for part in spec.partition("="))
    if not name or not is_for_tasks(name) or not (count or "1").isdigit() or int(count or 1) < 1:
        raise ConfigError(f"[worker] queues: {spec!r} must be NAME=NUMBER, with a name that is free for tasks")
    return name, int(count or 1)
