"""Processes of tasks: started in a session of their own, followed until they end, found again after a crash.

ProcessGroup(command) -> follow() -> kill(): the whole group, whose leader stays a zombie until then so that its id
cannot be reused

A record (id and start time of the leader) lies beside the directory of a step, for kill_recorded() after the server
died. Processes that left the group are known by two variables of their environment, the marks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from arc.runtimes.base import Deadline

INSTANCE_MARK, TASK_MARK = "ARC_INSTANCE", "ARC_TASK_ID"  # variables
CHUNK_BYTES = 65_536
DRAIN_BYTES = 1 << 20  # the most a pipe holds
CLOCK_SLACK_S = 1.0  # the start time of a process moves a little when the clock is set
POLL_S = 0.02  # seconds between two looks at a process where the system has no pidfd

# Held while a script is written and while a process starts. A child that is between fork and exec has every open file
# of this process; a script that is still open for writing there cannot be executed ("Text file busy").
SPAWNING = threading.Lock()


@dataclass(frozen=True)
class Identity:
    """Who a process runs as. None keeps the server's; the supplementary groups are dropped when one is given."""

    uid: int | None = None
    gid: int | None = None

    @property
    def is_switch(self) -> bool:
        return self.uid is not None or self.gid is not None


@dataclass(frozen=True)
class Command:
    args: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)  # may hold secrets
    identity: Identity = field(default_factory=Identity)


@dataclass(frozen=True)
class Record:
    """started: start time of the leader, seconds since the epoch."""

    pid: int
    started: float
    task_id: str


class ProcessGroup:
    """A process, the leader, and what it starts. stdout and stderr come out of one pipe.

    One thread may use it. Raises OSError or ValueError when it cannot start.
    """

    def __init__(self, command: Command) -> None:
        self._output, writer = os.pipe()
        try:
            self._leader = _start(command, writer)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(writer)
        os.set_blocking(self._output, False)

    def follow(
        self,
        deadline: Deadline,
        on_output: Callable[[bytes], None],
        on_tick: Callable[[], None],
        tick_s: float,
    ) -> None:
        """Pass output on until the leader has ended; on_tick() every tick_s seconds.

        Raises TaskStopped when the deadline or a stop comes first; the group still runs then.
        """
        with contextlib.ExitStack() as cleanup:
            selector = cleanup.enter_context(selectors.DefaultSelector())
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(_wake_up(deadline, cleanup), selectors.EVENT_READ)
            exit_fd = self._exit_fd(cleanup)
            if exit_fd is not None:
                selector.register(exit_fd, selectors.EVENT_READ)
            next_tick = time.monotonic() + tick_s
            while True:
                deadline.check()
                if time.monotonic() >= next_tick:
                    on_tick()
                    next_tick += tick_s
                waits = (next_tick - time.monotonic(), deadline.remaining_s(), POLL_S if exit_fd is None else None)
                ready = {key.fd for key, _ in selector.select(min(wait for wait in waits if wait is not None))}
                if self._output in ready and not self._read(on_output, CHUNK_BYTES):
                    selector.unregister(self._output)
                if exit_fd in ready or (exit_fd is None and self._leader.poll() is not None):
                    return

    def kill(self) -> int:
        """End the whole group. Returns the exit status of the leader, negative when a signal ended it."""
        if self._leader.returncode is None:
            _kill_group(self._leader.pid)
        return self._leader.wait()

    def drain(self, on_output: Callable[[bytes], None]) -> bool:
        """Pass on what is left of the output; False when somebody who left the group still holds it open."""
        return not self._read(on_output, DRAIN_BYTES)

    def record(self, path: Path, task_id: str) -> None:
        """Write down what kill_recorded() needs to find this group again."""
        started = psutil.Process(self._leader.pid).create_time()
        path.write_text(f"{self._leader.pid} {started:.2f} {task_id}\n")

    def close(self) -> None:
        os.close(self._output)

    def _read(self, on_output: Callable[[bytes], None], limit_bytes: int) -> bool:
        """Pass on what is there, up to limit_bytes; False at the end of the output. Never waits for that end."""
        taken = 0
        while taken < limit_bytes:
            try:
                data = os.read(self._output, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            on_output(data)
            taken += len(data)
        return True

    def _exit_fd(self, cleanup: contextlib.ExitStack) -> int | None:
        """A file descriptor that becomes readable when the leader has ended; None where the system has none."""
        try:
            exit_fd = os.pidfd_open(self._leader.pid)
        except (AttributeError, OSError):
            return None
        cleanup.callback(os.close, exit_fd)
        return exit_fd


def read_record(path: Path) -> Record | None:
    """None when it was cut off while it was written."""
    try:
        pid, started, task_id = path.read_text().removesuffix("\n").split(" ", 2)
        return Record(int(pid), float(started), task_id)
    except (OSError, ValueError):
        return None


def kill_recorded(record: Record) -> bool:
    """End the group of a record if its leader still runs; another process may have got the same id since."""
    try:
        drift_s = psutil.Process(record.pid).create_time() - record.started
    except (psutil.Error, OverflowError, ValueError):
        return False
    if abs(drift_s) > CLOCK_SLACK_S:
        return False
    _kill_group(record.pid)
    return True


def kill_marked(instance: str, keep: Callable[[str], bool]) -> int:
    """End processes that carry the marks of an instance unless keep(task id). Returns how many."""
    killed = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marks = process.environ()
            task_id = marks.get(TASK_MARK)
            if marks.get(INSTANCE_MARK) == instance and task_id is not None and not keep(task_id):
                process.kill()
                killed += 1
    return killed


def _start(command: Command, output: int) -> subprocess.Popen[bytes]:
    identity = command.identity
    with SPAWNING:
        return subprocess.Popen(
            command.args,
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o022,
            user=identity.uid,
            group=identity.gid,
            extra_groups=[] if identity.is_switch else None,
        )


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; a member that became another user
        os.killpg(pid, signal.SIGKILL)


def _wake_up(deadline: Deadline, cleanup: contextlib.ExitStack) -> int:
    """A file descriptor that becomes readable when the work is told to stop."""
    reader, writer = os.pipe()
    cleanup.callback(os.close, reader)
    cleanup.callback(os.close, writer)

    def wake() -> None:
        os.write(writer, b"!")

    cleanup.enter_context(deadline.stop.calling(wake))
    return reader
