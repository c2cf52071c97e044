"""Task: one execution as a plug-in sees it; Owner: who runs it and takes its replies."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from arc import clock
from arc.agent import processes
from arc.agent.errors import ActionStopped

if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTING, FAILED, COMPLETE = "executing", "failed", "complete"


class Task:
    """One execution, as a plug-in sees it.

    payload: text of the request. deadline: monotonic seconds. exit_code: of the process, once there was one.
    """

    def __init__(self, request_id: str, payload: str, timeout_s: float, owner: Owner) -> None:
        self.request_id = request_id
        self.payload = payload
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.exit_code: int | None = None
        self.started_at: int | None = None
        self.stopped_with = ""
        self.is_abandoned = False
        self._owner = owner
        self._stopped = threading.Event()
        self.interruption, self._interrupt = os.pipe()  # readable when the task is stopped

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def has_room(self) -> bool:
        return self._owner.has_room()

    def run(
        self, program: list[str], directory: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run a program; its output goes to the log as it comes. Raises ActionFailed unless it exits with 0."""
        processes.run(self, program, directory, environment)

    def heartbeat(self, text: str = "") -> None:
        """Tell the server that the execution goes on; text is a piece of its log."""
        self.started_at = self.started_at or clock.now_us()
        self._owner.report(self, EXECUTING, text)

    def wait(self, seconds: float) -> None:
        """Raises ActionStopped when the execution is stopped or its time is over."""
        left_s = self.deadline - time.monotonic()
        self._stopped.wait(max(0.0, min(seconds, left_s)))
        if self.is_stopped or seconds > left_s:
            self.check()

    def check(self) -> None:
        """Raises ActionStopped when the execution is stopped or its time is over."""
        if self.is_stopped:
            raise ActionStopped("context canceled")
        if time.monotonic() >= self.deadline:
            raise ActionStopped("context deadline exceeded")

    def started(self, pid: int, process_start: str) -> None:
        """Note the process that works on it."""
        self._owner.started(self, pid, process_start)

    def stop(self, text: str, *, abandon: bool = False) -> None:
        """End it with this text, from any thread. abandon: at once, without a reply."""
        if not self.is_stopped:
            self.stopped_with, self.is_abandoned = text, abandon
            self._stopped.set()
            with contextlib.suppress(OSError):  # it has just ended
                os.write(self._interrupt, b"x")

    def close(self) -> None:
        self._stopped.set()  # so that nobody writes into a pipe that is another's by now
        for descriptor in (self.interruption, self._interrupt):
            os.close(descriptor)


class Owner:
    """What a task needs of the one that runs it."""

    def report(self, task: Task, state: str, text: str) -> None:
        raise NotImplementedError

    def started(self, task: Task, pid: int, process_start: str) -> None:
        """Nothing to note, where nothing survives the program."""

    def has_room(self) -> bool:
        return True
