"""Tasks as processes of this host.

run() -> for pre, main, post: a directory of its own -> files and script written -> process group -> follow -> kill

Everything of a step lies in <work dir>/<name>/, which belongs to the user the step runs as; the record of its process
lies beside it, where the step cannot write. Standard library, psutil and leaves only: the edge agent uses this too.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arc.errors import ConfigError
from arc.runtimes import hostenv, processes
from arc.runtimes.base import Deadline, RuntimeUnavailable, TaskFailed
from arc.runtimes.names import relative_name
from arc.runtimes.output import PROGRESS_BYTES, Output, Progress, result_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from arc.runtimes.base import Reporter, Step, Stop, Work

SCRIPT, RESULT, PROGRESS = "entrypoint", "stdout", "progress"
RECORD_SUFFIX = ".pid"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShellOptions:
    """cmd: what the path of the script is appended to. uid, gid: numbers or names; empty or `-` keeps the server's.

    work_dir: for the directories of steps; a uid must be able to reach it. result_bytes: the largest result.
    progress_s: seconds between two looks at the progress file.
    """

    work_dir: Path
    cmd: tuple[str, ...] = ("bash", "-c")
    uid: str = ""
    gid: str = ""
    host_env: tuple[str, ...] = ()
    result_bytes: int = 1 << 16
    progress_s: float = 10.0


class ShellRuntime:
    """instance: marks the processes of this installation, so that its next start finds what a crash left.

    Raises ConfigError.
    """

    name = "shell"

    def __init__(self, options: ShellOptions, instance: str) -> None:
        self._options = options
        self._cmd = (shutil.which(options.cmd[0]) or options.cmd[0], *options.cmd[1:])  # a task may have its own PATH
        self._instance = instance
        self._identity = identity_of(options.uid, options.gid)
        self._home = _home(self._identity)
        self._host_env = hostenv.parse(options.host_env)
        self._work_dir = options.work_dir.absolute()
        self._make_work_dir()
        self._lock = threading.Lock()
        self._running: set[str] = set()  # task ids
        self._directories: set[str] = set()  # names of directories in use

    def run(self, work: Work, reporter: Reporter, stop: Stop) -> str:
        refuse_unsupported(work)
        deadline = Deadline(stop, work.timeout_s)
        with self._registered(work.task_id):
            for step in work.pre:
                self._run_step(work, step, reporter, deadline)
            result = self._run_step(work, work.main, reporter, deadline)
            for step in work.post:
                self._run_step(work, step, reporter, deadline)
        return result

    def check_health(self) -> None:
        if shutil.which(self._cmd[0]) is None:
            raise RuntimeUnavailable(f"the interpreter of shell tasks, {self._cmd[0]!r}, is not installed")
        try:
            self._make_work_dir()
        except OSError as exc:
            raise RuntimeUnavailable(f"the work directory of shell tasks cannot be made: {exc}") from exc
        if self._identity.is_switch:
            self._check_identity()

    def reap(self, keep: Collection[str] = ()) -> int:
        with self._lock:  # a directory is known before it is made, so what is unknown here is a dead run's
            entries = [entry for entry in self._work_dir.iterdir() if entry.stem not in self._directories]
        records = {entry.stem: processes.read_record(entry) for entry in entries if entry.suffix == RECORD_SUFFIX}
        kept = {stem for stem, record in records.items() if record is not None and record.task_id in keep}
        dead = [record for stem, record in records.items() if record is not None and stem not in kept]
        removed = sum(processes.kill_recorded(record) for record in dead)
        removed += processes.kill_marked(self._instance, lambda task_id: task_id in keep or self._is_running(task_id))
        for path in entries:
            if path.stem not in kept:
                removed += path.is_dir()
                _remove(path)
        return removed

    def close(self) -> None:
        """Nothing is held open between tasks."""

    def _run_step(self, work: Work, step: Step, reporter: Reporter, whole: Deadline) -> str:
        deadline = whole.within(step.timeout_s)
        deadline.check()
        output, progress = Output(reporter), Progress(reporter, work.task_id)
        try:
            with self._directory() as directory:
                self._fill(directory, step)
                status = self._execute(self._command(work, step, directory), output, progress, deadline)
                if status != 0:
                    raise TaskFailed(_exit_text(status, output.tail()))
                return _result(directory / RESULT, self._options.result_bytes)
        except (OSError, ValueError) as exc:  # no space, no such interpreter, no such variable
            raise TaskFailed(f"error executing command: {exc}") from exc

    def _execute(self, command: processes.Command, output: Output, progress: Progress, deadline: Deadline) -> int:
        """Exit status of one process. When this returns or raises, nothing of it runs any more."""

        def look() -> None:
            progress.update(_read(command.cwd / PROGRESS, PROGRESS_BYTES))

        task_id = command.env[processes.TASK_MARK]
        process = processes.ProcessGroup(command)
        is_clean = False
        try:
            process.record(command.cwd.with_suffix(RECORD_SUFFIX), task_id)
            process.follow(deadline, output.add, look, self._options.progress_s)
            look()
            is_clean = True
        finally:
            status = process.kill()
            is_clean &= process.drain(output.add)
            process.close()
            if not is_clean:  # somebody who left the group may still be there
                processes.kill_marked(self._instance, lambda other: other != task_id)
        return status

    def _command(self, work: Work, step: Step, directory: Path) -> processes.Command:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": self._home, **step.env}
        environment |= hostenv.values(self._host_env)
        environment |= {"WORKDIR": str(directory)}
        environment |= {f"{prefix}_OUTPUT": str(directory / RESULT) for prefix in ("TORK", "ARC")}
        environment |= {f"{prefix}_PROGRESS": str(directory / PROGRESS) for prefix in ("TORK", "ARC")}
        environment |= {processes.INSTANCE_MARK: self._instance, processes.TASK_MARK: work.task_id}
        args = (*self._cmd, str(directory / SCRIPT))
        return processes.Command(args, directory, environment, self._identity)

    def _fill(self, directory: Path, step: Step) -> None:
        """Files of the task, then ours."""
        for name, content in step.files.items():
            relative = relative_name(name)
            if relative.parts[0] in (SCRIPT, RESULT, PROGRESS):
                raise TaskFailed(f"invalid file name: {name!r} is taken")
            path = directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, content, 0o444)
        with processes.SPAWNING:
            self._write(directory / SCRIPT, step.run, 0o555)
        self._write(directory / RESULT, "", 0o600)
        self._write(directory / PROGRESS, "", 0o600)
        if self._identity.is_switch:
            for folder, _, _ in os.walk(directory):
                self._give(Path(folder))

    def _write(self, path: Path, content: str, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(content.encode("utf-8", "replace"))
        if self._identity.is_switch:
            self._give(path)

    def _give(self, path: Path) -> None:
        """-1 keeps."""
        uid, gid = (-1 if number is None else number for number in (self._identity.uid, self._identity.gid))
        os.chown(path, uid, gid, follow_symlinks=False)

    def _make_work_dir(self) -> None:
        """Again before each health check: somebody may tidy up."""
        self._work_dir.mkdir(mode=0o711 if self._identity.is_switch else 0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _directory(self) -> Iterator[Path]:
        name = secrets.token_hex(8)
        path = self._work_dir / name
        with self._lock:
            self._directories.add(name)
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            _remove(path)
            _remove(path.with_suffix(RECORD_SUFFIX))
            with self._lock:
                self._directories.discard(name)

    @contextlib.contextmanager
    def _registered(self, task_id: str) -> Iterator[None]:
        with self._lock:
            self._running.add(task_id)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(task_id)

    def _is_running(self, task_id: str) -> bool:
        with self._lock:
            return task_id in self._running

    def _check_identity(self) -> None:
        """Whether a process can become the other user and reach its directory."""
        identity = self._identity
        try:
            test = subprocess.run(
                ["test", "-x", self._work_dir], user=identity.uid, group=identity.gid, extra_groups=[], check=False
            )
        except PermissionError:
            raise RuntimeUnavailable("shell tasks with a uid or gid of their own need a server run by root") from None
        if test.returncode != 0:
            raise RuntimeUnavailable(f"user {identity.uid} of shell tasks cannot reach {self._work_dir}")


def refuse_unsupported(work: Work) -> None:
    """Raises TaskFailed for the first thing that only containers can do."""
    steps = (work.main, *work.pre, *work.post)
    if not work.task_id:
        raise TaskFailed("task id is required")
    refused = (
        ("mounts are", work.mounts),
        ("entrypoint is", any(step.entrypoint for step in steps)),
        ("image is", any(step.image for step in steps)),
        ("limits are", work.limits.cpus or work.limits.memory),
        ("networks are", work.networks),
        ("registry is", any(step.registry for step in steps)),
        ("cmd is", any(step.cmd for step in steps)),
        ("sidecars are", work.sidecars),
    )
    for what, is_used in refused:
        if is_used:
            raise TaskFailed(f"{what} not supported on shell runtime")


def identity_of(uid: str, gid: str) -> processes.Identity:
    """Raises ConfigError. Without a gid the user's own group is taken, never the server's."""
    user = _number("uid", uid, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number("gid", gid, lambda name: grp.getgrnam(name).gr_gid)
    if user is not None and group is None:
        try:
            group = pwd.getpwuid(user).pw_gid
        except (KeyError, OverflowError):
            raise ConfigError(f"[shell] gid: user {user} has no group of its own, so it must be given") from None
    return processes.Identity(user, group)


def _number(option: str, text: str, look_up: Callable[[str], int]) -> int | None:
    if text in ("", "-"):
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return look_up(text)
    except KeyError:
        raise ConfigError(f"[shell] {option}: {text!r} is neither a number nor a name that this host knows") from None


def _home(identity: processes.Identity) -> str:
    """Home of the user that tasks run as."""
    if identity.uid is not None:
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(identity.uid).pw_dir
    return os.environ.get("HOME", "/")


def _exit_text(status: int, tail: str) -> str:
    how = f"exit status {status}" if status > 0 else f"signal: {signal.Signals(-status).name}"
    return f"error executing command: {how}" + (f": {tail}" if tail else "")


def _result(path: Path, max_bytes: int) -> str:
    with _opened(path) as descriptor:
        if descriptor is None:
            return ""
        size_bytes = os.fstat(descriptor).st_size
        return result_text(_read_all(descriptor, max_bytes), size_bytes, max_bytes)


def _read(path: Path, max_bytes: int) -> bytes:
    with _opened(path) as descriptor:
        return b"" if descriptor is None else _read_all(descriptor, max_bytes)


def _read_all(descriptor: int, max_bytes: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(max_bytes)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A regular file that a task may have replaced; None when it is gone or something else now.

    A link is not followed: the server may read what the task's user may not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """A file or a whole directory, also one whose directories were made read-only."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except OSError:
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("%s cannot be removed yet", path)
