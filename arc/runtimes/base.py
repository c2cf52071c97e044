"""What every runtime of tasks has in common: the work it is handed, how it reports, how it is stopped.

worker thread -> Runtime.run(work, reporter, stop) -> result text, or TaskFailed whose text is the task's error

The text in a Work is final: expressions are evaluated and defaults merged before it gets here. Nothing here knows
jobs or their database. Standard library only, so that the edge agent can use it.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from arc.errors import ArcError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

CANCELED = "context canceled"
DEADLINE_EXCEEDED = "context deadline exceeded"


class TaskFailed(ArcError):
    """The task did not succeed; the text is its error, such as `exit code 7: last ten lines`."""


class TaskStopped(TaskFailed):
    """It was stopped or ran out of time; the text is the reason and nothing else."""


class RuntimeUnavailable(Unavailable):
    """Nothing can run at all at the moment: no container engine answers."""


@dataclass(frozen=True)
class Registry:
    """Credentials for the pull of an image."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Step:
    """One process or container: the main part of a task, or one that runs before, after or beside it.

    files: name to content, written into the working directory. timeout_s: for this step alone, None is no limit.
    """

    name: str = ""
    image: str = ""
    run: str = ""
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    registry: Registry | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Probe:
    """A sidecar is ready when a GET of path at port answers 200. timeout_s: the longest it may take."""

    path: str
    port: int
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Sidecar:
    """Runs beside the main step and ends with it."""

    step: Step
    probe: Probe | None = None


@dataclass(frozen=True)
class Mount:
    """type: volume, bind or tmpfs. opts: driver options of a volume."""

    type: str
    source: str = ""
    target: str = ""
    opts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """As written in the job: cpus `.5`, `1` or `1/2`; memory `10m` or `1.5g`. Empty is no limit."""

    cpus: str = ""
    memory: str = ""


@dataclass(frozen=True)
class Work:
    """One attempt of one task. timeout_s spans all of it, the pull of images included; None is no limit."""

    task_id: str
    job_id: str
    main: Step
    pre: tuple[Step, ...] = ()
    post: tuple[Step, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    gpus: str = ""
    workdir: str = ""
    timeout_s: float | None = None


class Reporter(Protocol):
    """Told what happens while a task runs. Called from threads of the runtime, never after run() has ended; cheap."""

    def log(self, data: bytes) -> None:
        """The next bytes of output, in the order of their arrival; may cut a character in two."""

    def progress(self, percent: float) -> None:
        """A changed progress, 0 to 100, two decimals."""


class Stop:
    """Asks a running task to end. The reason becomes its error. Any thread may call any method."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []
        self.reason = ""

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self, reason: str = CANCELED) -> None:
        """The first reason counts."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            for call in self._calls:  # inside the lock: nobody leaves calling() while its call runs
                call()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was set within timeout_s seconds."""
        return self._event.wait(timeout_s)

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Inside, set() also calls `call`, once, from the thread that sets; at once if it is set already.

        The call must be short and must not use this object.
        """
        with self._lock:
            self._calls.append(call)
            is_set = self._event.is_set()
        if is_set:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(call)


class Deadline:
    """How long a piece of work may still take: until a moment, or until it is stopped."""

    def __init__(self, stop: Stop, timeout_s: float | None = None, ends_at: float | None = None) -> None:
        moments = [] if ends_at is None else [ends_at]
        if timeout_s is not None:
            moments.append(time.monotonic() + timeout_s)
        self.stop = stop
        self.ends_at = min(moments, default=None)  # monotonic seconds

    def within(self, timeout_s: float | None) -> Deadline:
        """The deadline of a part of the work: it ends with the whole, or earlier."""
        return Deadline(self.stop, timeout_s, self.ends_at)

    def remaining_s(self) -> float | None:
        """Seconds left, never below 0; None without a limit."""
        return None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Raises TaskStopped once the work has to end."""
        if self.stop.is_set:
            raise TaskStopped(self.stop.reason)
        if self.remaining_s() == 0.0:
            raise TaskStopped(DEADLINE_EXCEEDED)


class Runtime(Protocol):
    """Runs tasks. Any number of threads may call run() at a time."""

    name: str  # docker, podman, shell

    def run(self, work: Work, reporter: Reporter, stop: Stop) -> str:
        """The result: what the main step wrote to its output file. Blocks until everything of the task is gone.

        Raises TaskFailed, and RuntimeUnavailable when the task could not be tried.
        """

    def check_health(self) -> None:
        """Raises RuntimeUnavailable, with a text that says what to do, when no task could run now."""

    def reap(self, keep: Collection[str] = ()) -> int:
        """Remove what dead runs of this instance left: containers, volumes, networks, processes, directories.

        keep: ids of tasks that still run; those of this object are known. Returns how many things were removed.
        Raises RuntimeUnavailable when nobody can say now what is left.
        """

    def close(self) -> None:
        """Release connections; tasks that run are not waited for. May be called twice."""
