"""Jobs on a real SQLite file, with a test in the place of the workers and loops that run only when it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import yaml

from arc import clock
from arc.db.engine import open_database
from arc.jobs.coordinator import Coordinator, CoordinatorOptions
from arc.jobs.documents.parsing import parse
from arc.jobs.planning import Planner
from arc.jobs.queries import JobReader
from arc.jobs.records import NodeReport
from arc.jobs.sealing import Sealer
from arc.jobs.store import JobStore

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from arc.jobs.records import Claim, Job, Task

SECOND = 1_000_000
LEASE_S = 60.0
BOTH = ("process", "container")
NODE = "node-1"


class JobsRig:
    """key: what secrets are sealed with."""

    def __init__(self, data_dir: Path, key: bytes = b"k" * 32, **options: Any) -> None:
        self.data_dir = data_dir
        self.db = open_database(data_dir)
        sealer = Sealer(key)
        self.store = JobStore(self.db, sealer)
        self.coordinator = Coordinator(self.store, Planner(), CoordinatorOptions(lease_s=LEASE_S, **options))
        self.reader = JobReader(self.db, sealer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.db.close()

    def submit(self, text: str, *, may_run_processes: bool = True) -> Job:
        """Store a job given as YAML, and leave it at that."""
        document = parse(text.encode(), "text/yaml")
        return self.coordinator.submit(document, created_by="tester", may_run_processes=may_run_processes)

    def begin(self, text: str) -> Job:
        """Store a job and create its first task."""
        job = self.submit(text)
        self.coordinator.start_pending(clock.now_us())
        return self.reader.job(job.id)

    def claim(self, queue: str = "default", runtimes: Collection[str] = BOTH, node_id: str = NODE) -> Claim:
        found = self.coordinator.claim(node_id, queue, runtimes)
        assert found is not None, f"nothing waits in {queue}"
        return found

    def complete(self, claim: Claim, result: str = "") -> bool:
        return self.coordinator.complete(claim.claim_id, claim.task.id, result)

    def fail(self, claim: Claim, error: str = "broken") -> bool:
        return self.coordinator.fail(claim.claim_id, claim.task.id, error)

    def job(self, job: Job) -> Job:
        """As it is now."""
        return self.reader.job(job.id)

    def tasks(self, job: Job) -> list[Task]:
        return self.reader.tasks(job.id)

    def states(self, job: Job) -> list[str]:
        """Of the job, then of its tasks in order."""
        return [self.job(job).state.value, *(task.state.value for task in self.tasks(job))]


def steps(*runs: str, **fields: Any) -> str:
    """A job of tasks that run these scripts."""
    return yaml.safe_dump({"name": "steps", "tasks": [{"name": run, "run": run} for run in runs], **fields})


def node(**fields: Any) -> NodeReport:
    values: dict[str, Any] = {"id": NODE, "name": "Worker", "kind": "worker", "hostname": "host", "version": "1"}
    values |= {"status": "UP", "detail": "", "queues": {"default": 4}, "started_at": 0, "cpu_percent": 10.0}
    return NodeReport(**values | {"task_count": 0} | fields)
