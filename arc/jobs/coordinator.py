"""Owns every change of a job: what is submitted, what workers report, what users ask for.

submit -> PENDING -> JobStarter -> first task SCHEDULED -> claim -> complete or fail -> next task or end of the job
Expressions are evaluated before a transaction begins, and its UPDATEs ask for the state that was read; so nobody
waits for an expression, and who comes too late changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from arc.jobs.document import JobDocument
    from arc.jobs.records import Claim, Job, NodeReport


class Coordinator:
    """Any thread may call it; each method is one transaction."""

    def submit(self, document: JobDocument, *, created_by: str, may_run_processes: bool) -> Job:
        """Raises Denied when a task would run as a process of this host and may_run_processes is False."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> None:
        """Raises JobNotFound, Invalid."""
        raise NotImplementedError

    def restart(self, job_id: str) -> None:
        """Run the current task of a failed or cancelled job again. Raises JobNotFound, Invalid."""
        raise NotImplementedError

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its tasks, logs and events. Raises JobNotFound, Conflict."""
        raise NotImplementedError

    def purge_queue(self, name: str) -> int:
        """Cancel the jobs whose tasks wait in a queue; returns how many. Raises QueueNotFound, Invalid."""
        raise NotImplementedError

    def wait(self, job_id: str, timeout_s: float, is_gone: Callable[[], bool]) -> Job:
        """The job once it has ended. is_gone: whether nobody waits for the answer any more.

        Raises TimedOut, Cancelled, JobNotFound, and Unavailable when the server stops.
        """
        raise NotImplementedError

    def claim(self, node_id: str, queue: str, runtimes: Collection[str]) -> Claim | None:
        """Start the next task of a queue that one of the runtimes (container, process) can run."""
        raise NotImplementedError

    def wait_for_work(self, queue: str, timeout_s: float) -> None:
        """Return when a task may have come into the queue since this thread's last claim, or after timeout_s."""
        raise NotImplementedError

    def progress(self, claim_id: str, task_id: str, percent: float) -> bool:
        raise NotImplementedError

    def log(self, claim_id: str, task_id: str, contents: str) -> bool:
        """contents: redacted by the worker, which alone sees secrets that two parts share."""
        raise NotImplementedError

    def complete(self, claim_id: str, task_id: str, result: str) -> bool:
        raise NotImplementedError

    def fail(self, claim_id: str, task_id: str, error: str) -> bool:
        raise NotImplementedError

    def release(self, claim_id: str, task_id: str) -> bool:
        """Back into its queue: it could not be tried."""
        raise NotImplementedError

    def heartbeat(self, node: NodeReport, claims: Mapping[str, str]) -> set[str]:
        """claims: task id to claim id of what the node runs. Returns ids of tasks that it has to stop."""
        raise NotImplementedError

    def subscribe_stops(self, callback: Callable[[Collection[str]], None]) -> None:
        """The callback is told the claims that have become void, from any thread."""
        raise NotImplementedError

    def recover(self, node_id: str) -> int:
        """Give back what a node ran when it died. Returns how many tasks."""
        raise NotImplementedError
