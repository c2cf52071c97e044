"""Runs tasks on this host: threads that claim from the queues they serve.

WorkerPool: claim -> Runtime.run -> report; per queue as many threads as tasks may run at a time
Beside them: Heartbeat extends the leases, HealthCheck asks the runtimes, LogShipper stores output.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

import arc
from arc import clock
from arc.errors import ArcError, Invalid
from arc.jobs.logship import TaskReport
from arc.jobs.nodes import DOWN, HEARTBEAT_S, UP
from arc.jobs.records import NodeReport
from arc.jobs.work import WorkDefaults, work_of
from arc.loop import PeriodicLoop
from arc.runtimes.base import RuntimeUnavailable, Stop, TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from arc.jobs.coordinator import Coordinator
    from arc.jobs.records import Claim
    from arc.jobs.redaction import Redactor
    from arc.runtimes.base import Runtime

WAIT_S = 30.0  # for work, before a thread looks again by itself
HEALTH_S = 30.0
SHIP_S = 1.0
RETRY_S = 1.0  # until the database is asked again
MAX_TRIES = 60  # to report an end; then the lease runs out and the task is given to another
GRACE_S = 15.0  # for tasks that run at a stop
KILL_S = 10.0  # for their processes to be gone after it
STOPPED = "server shutting down"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerOptions:
    """queues: name to the number of tasks at a time. waits_for_engine: container tasks wait while no engine answers,
    else they fail. lease_s: how long the coordinator believes a silent worker. max_log_bytes: of an attempt.
    """

    node_id: str
    name: str = "Worker"
    queues: Mapping[str, int] = field(default_factory=lambda: {"default": 4})
    defaults: WorkDefaults = field(default_factory=WorkDefaults)
    waits_for_engine: bool = True
    lease_s: float = 60.0
    max_log_bytes: int = 100 << 20


@dataclass(frozen=True)
class Running:
    claim: Claim
    report: TaskReport
    stop: Stop


class WorkerPool:
    """runtimes: kind of task (container, process) to what runs it. redactor: for the log of a task with secrets."""

    def __init__(
        self,
        coordinator: Coordinator,
        runtimes: Mapping[str, Runtime],
        redactor: Callable[[Mapping[str, str]], Redactor],
        options: WorkerOptions,
    ) -> None:
        self.options = options
        self.health = HealthCheck(runtimes, self.running_ids, lambda: self._heartbeat.wake())
        self._coordinator = coordinator
        self._runtimes = runtimes
        self._redactor = redactor
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}  # by claim
        self._threads: list[threading.Thread] = []
        self._heartbeat = Heartbeat(self)
        self._shipper = LogShipper(self)

    def start(self) -> None:
        """Give back what a dead run left, then take work."""
        self._coordinator.subscribe_stops(self.stop_claims)
        self.health.step(clock.now_us(), ("process",))
        self._coordinator.recover(self.options.node_id)
        self._heartbeat.step(clock.now_us())
        for loop in (self.health, self._heartbeat, self._shipper):
            loop.start()
        self.health.wake()  # asking an engine may take seconds; nothing waits for it
        for queue, count in self.options.queues.items():
            for number in range(1, count + 1):
                thread = threading.Thread(target=self._serve, args=(queue,), name=f"task-{queue}-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop_claiming(self) -> None:
        """To be followed by stop()."""
        self._stopping.set()

    def stop(self, timeout_s: float = GRACE_S) -> None:
        """What still runs after timeout_s seconds is killed and given back. May be called twice."""
        self.stop_claiming()
        self._join(timeout_s)
        for running in self.running():
            running.stop.set(STOPPED)
        self._join(KILL_S)
        for loop in (self._shipper, self._heartbeat, self.health):
            loop.stop()
        if left := [thread.name for thread in self._threads if thread.is_alive()]:
            log.warning("tasks still run in %s; the next start removes them", ", ".join(left))
        for runtime in self._runtimes.values():
            runtime.close()

    def running(self) -> list[Running]:
        with self._lock:
            return list(self._running.values())

    def running_ids(self) -> list[str]:
        """Ids of tasks."""
        return [running.claim.task.id for running in self.running()]

    def stop_claims(self, claim_ids: Collection[str]) -> None:
        """End tasks whose claims have become void: their reports would change nothing."""
        for claim_id in claim_ids:
            with self._lock:
                running = self._running.get(claim_id)
            if running:
                running.stop.set()

    def beat(self) -> None:
        """Say that this node and its tasks are alive."""
        claims = {running.claim.task.id: running.claim.claim_id for running in self.running()}
        detail = self.health.detail()
        report = NodeReport(
            id=self.options.node_id,
            name=self.options.name,
            kind="worker",
            hostname=socket.gethostname(),
            version=arc.__version__,
            status=DOWN if detail else UP,
            detail=detail,
            queues=self.options.queues,
            started_at=self._heartbeat.started_at,
            cpu_percent=psutil.cpu_percent(),
            task_count=len(claims),
        )
        void = self._coordinator.heartbeat(report, claims)
        self.stop_claims([claims[task_id] for task_id in void])

    def _join(self, timeout_s: float) -> None:
        ends_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _serve(self, queue: str) -> None:
        while not self._stopping.is_set():
            try:
                claim = self._coordinator.claim(self.options.node_id, queue, self._usable())
            except Exception:  # the database is busy or full; a thread must not end for that
                log.exception("queue %s: no claim, next try in %s s", queue, RETRY_S)
                self._stopping.wait(RETRY_S)
                continue
            if claim is None:
                self._coordinator.wait_for_work(queue, WAIT_S)
            else:
                self._run(claim)

    def _usable(self) -> Collection[str]:
        """Kinds of tasks to ask for."""
        return self.health.up() if self.options.waits_for_engine else self.health.asked()

    def _run(self, claim: Claim) -> None:
        redactor = self._redactor(claim.secrets)
        report = TaskReport(self._coordinator, claim, redactor, self.options.max_log_bytes)
        running = Running(claim, report, Stop())
        with self._lock:
            self._running[claim.claim_id] = running
        try:
            tell = self._execute(running)
            running.report.ship(is_last=True)
            self._insist(tell)
        finally:
            with self._lock:
                del self._running[claim.claim_id]

    def _execute(self, running: Running) -> Callable[[], object]:
        """Run the task; what to report of its end."""
        claim_id, task = running.claim.claim_id, running.claim.task
        runtime = self._runtimes[task.runtime]
        try:
            result = runtime.run(work_of(task, self.options.defaults), running.report, running.stop)
            return lambda: self._coordinator.complete(claim_id, task.id, result)
        except RuntimeUnavailable as exc:
            self.health.report_failure(task.runtime, str(exc))
            if self.options.waits_for_engine:
                return lambda: self._coordinator.release(claim_id, task.id)
            error = str(exc)
        except (TaskFailed, Invalid) as exc:
            error = str(exc)
        except Exception:
            log.exception("task %s cannot be run", task.id)
            error = "internal error, see the server's log"
        if error == STOPPED:
            return lambda: self._coordinator.release(claim_id, task.id)
        return lambda: self._coordinator.fail(claim_id, task.id, error)

    def _insist(self, tell: Callable[[], object]) -> None:
        """A report that the database does not take is made again: the task has ended, and that must not be lost."""
        for _ in range(MAX_TRIES):
            try:
                tell()
                return
            except ArcError as exc:
                log.warning("a report is not taken, next try in %s s: %s", RETRY_S, exc)
            except Exception:
                log.exception("a report is not taken, next try in %s s", RETRY_S)
            if self._stopping.wait(RETRY_S):
                return  # the next start gives the task back


class Heartbeat(PeriodicLoop):
    name = "worker-heartbeat"

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__(min(HEARTBEAT_S, pool.options.lease_s / 3))
        self._pool = pool
        self.started_at = clock.now_us()

    def step(self, now_us: int) -> int:
        self._pool.beat()
        return 1


class LogShipper(PeriodicLoop):
    """Stores the output of tasks while they run."""

    name = "log-shipper"

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__(SHIP_S)
        self._pool = pool

    def step(self, now_us: int) -> int:
        running = self._pool.running()
        for each in running:
            each.report.ship()
        return len(running)


class HealthCheck(PeriodicLoop):
    """Knows which runtimes can run tasks now. A runtime comes up once what dead runs left has been removed.

    running_ids: ids of tasks that run now. on_change: called when one comes up or goes down.
    """

    name = "runtime-health"

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        running_ids: Callable[[], Collection[str]],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(HEALTH_S)
        self._runtimes = runtimes
        self._running_ids = running_ids
        self._on_change = on_change
        self._faults = dict.fromkeys(runtimes, "")  # kind to why it is down; empty: not asked yet
        self._is_clean = dict.fromkeys(runtimes, False)

    def step(self, now_us: int, kinds: Collection[str] | None = None) -> int:
        """Ask all runtimes, or those of some kinds. Returns how many are down."""
        for kind, runtime in self._runtimes.items():
            if kinds is None or kind in kinds:
                self._check(kind, runtime)
        return len(self._faults)

    def up(self) -> list[str]:
        return [kind for kind in self._runtimes if kind not in self._faults]

    def asked(self) -> list[str]:
        """Those whose state is known: up, or down."""
        return [kind for kind in self._runtimes if self._faults.get(kind) != ""]

    def detail(self) -> str:
        """Why tasks of a kind cannot run; empty when all can."""
        return "; ".join(filter(None, self._faults.copy().values()))

    def report_failure(self, kind: str, fault: str) -> None:
        """It failed in use: ask it again now."""
        self._faults[kind] = fault
        self._is_clean[kind] = False
        self.wake()

    def _check(self, kind: str, runtime: Runtime) -> None:
        try:
            runtime.check_health()
            if not self._is_clean[kind]:
                if removed := runtime.reap(self._running_ids()):
                    log.info("%s: removed %d things that a dead run left", runtime.name, removed)
                self._is_clean[kind] = True
        except RuntimeUnavailable as exc:
            self._is_clean[kind] = False  # what ran when it went down could not be removed
            if self._faults.get(kind) != str(exc):
                log.warning("%s: %s", runtime.name, exc)
                self._faults[kind] = str(exc)
                self._on_change()
        else:
            if self._faults.pop(kind, None) is not None:
                log.info("%s: ready", runtime.name)
                self._on_change()
