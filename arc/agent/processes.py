"""Processes: a program in a process group of its own, its output as it comes, ended in time.

run(task, program) -> heartbeat -> pieces of output -> exit code, or ActionFailed with the exit text
A program is done when it has exited and both its pipes are closed. At its time limit it gets SIGTERM, two seconds
later its whole group SIGKILL. It is reaped at the very end, so that its number is nobody else's until then.
Source: the remote agents specification, section 7.4.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from arc.agent.errors import ActionFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arc.agent.task import Task

PIECE_BYTES = 4096
TAIL_BYTES = PIECE_BYTES // 10  # of a full piece, in which a line end is looked for
PIECE_S = 1.0  # how long output may gather
GRACE_S = 2.0  # from SIGTERM to SIGKILL, and between two SIGKILLs
GIVE_UP_S = 10.0  # after SIGTERM: who still holds the pipes has left the group
FULL_SPOOL_S = 0.5  # between two looks whether there is room again
NO_PIDFD_S = 0.05  # between two looks for an exit, where the system cannot tell
MARK = "ARC_REQUEST_ID"  # variable by which the processes of an execution are known
HIDDEN = "ARC_AGENT_TOKEN"  # variable that no program gets

_SIGNALS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def run(
    task: Task, program: Sequence[str], directory: str | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end. Raises ActionFailed.

    environment: added to the agent's own. directory: the agent's own unless given.
    """
    process = _start(task, program, directory, environment or {})
    try:
        task.started(process.pid, start_of(process.pid))
        task.heartbeat()
        status = _Supervision(task, process).finish()
    except BaseException:
        kill_group(process.pid)
        process.wait()
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    task.exit_code = exit_code(status)
    if status != 0:
        raise ActionFailed(exit_text(status))


def exit_text(status: int) -> str:
    """status: as waitpid gives it, not 0."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal: {_SIGNALS.get(number, number)}{' (core dumped)' if os.WCOREDUMP(status) else ''}"
    return f"exit status {os.WEXITSTATUS(status)}"


def exit_code(status: int) -> int:
    """As a shell shows it: 128 and the number of the signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def start_of(pid: int) -> str:
    """What tells a process from a later one of the same number; empty when it is gone or the system has no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot, open(f"/proc/{pid}/stat") as stat:
            return f"{boot.read().strip()} {stat.read().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""


def kill_group(group: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_strays(request_id: str, pid: int | None, process_start: str | None) -> int:
    """End what an agent that was killed left running for a request. Returns how many groups."""
    mark = f"{MARK}={request_id}".encode()
    groups = {group for member, group in _group_of_all() if mark in _environment(member)}
    if pid is not None and process_start and start_of(pid) == process_start:
        groups.add(pid)
    for group in groups - {os.getpgrp()}:
        kill_group(group)
    return len(groups)


def files_of(request_id: str) -> str:
    """What the names of an execution's temporary files and directories begin with."""
    return f"execute-{request_id}-"


def remove_files(request_id: str) -> None:
    """Remove what an agent that was killed left of them."""
    import shutil  # here, because most starts of an agent need neither
    import tempfile

    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(files_of(request_id))]:
            try:
                os.unlink(path)
            except OSError:
                shutil.rmtree(path, ignore_errors=True)


class _Supervision:
    """Of one program that runs."""

    def __init__(self, task: Task, process: subprocess.Popen[bytes]) -> None:
        self._task = task
        self._process = process
        self._pieces = {pipe: Pieces() for pipe in (process.stdout, process.stderr) if pipe is not None}
        self._is_reading = True
        self._has_exited = False
        self._next_piece_at = time.monotonic() + PIECE_S
        self._kill_at = self._give_up_at = float("inf")

    def finish(self) -> int:
        """Status as waitpid gives it."""
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as open_files:
            for pipe in self._pieces:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
            selector.register(self._task.interruption, selectors.EVENT_READ)
            has_pidfd = self._watch_exit(selector, open_files)
            while self._pieces or not self._has_exited:
                self._turn(selector, has_pidfd)
                if time.monotonic() >= self._give_up_at:
                    break
        for pieces in self._pieces.values():
            self._send(pieces.rest())
        if self._kill_at < float("inf"):
            kill_group(self._process.pid)  # what closed its pipes and stayed
        return self._reap()

    def _watch_exit(self, selector: selectors.BaseSelector, open_files: contextlib.ExitStack) -> bool:
        try:
            descriptor = os.pidfd_open(self._process.pid)
        except (AttributeError, OSError):  # not Linux, or an old one
            return False
        open_files.callback(os.close, descriptor)
        selector.register(descriptor, selectors.EVENT_READ, "exit")
        return True

    def _turn(self, selector: selectors.BaseSelector, has_pidfd: bool) -> None:
        """Wait for the next thing to do, and do it."""
        self._read_while_there_is_room(selector)
        due_at = min(self._next_piece_at if self._pieces else float("inf"), self._stop_at(), self._give_up_at)
        wait_s = max(0.0, due_at - time.monotonic())
        if not self._is_reading:
            wait_s = min(wait_s, FULL_SPOOL_S)
        elif not has_pidfd and not self._has_exited:
            wait_s = min(wait_s, NO_PIDFD_S)
        for key, _ in selector.select(None if wait_s == float("inf") else wait_s):
            if key.fileobj in self._pieces:
                self._read(selector, key.fileobj)
            elif key.fileobj is self._task.interruption:
                selector.unregister(key.fileobj)  # it stays readable
            elif key.data == "exit":
                selector.unregister(key.fileobj)
        self._has_exited = self._has_exited or _has_exited(self._process.pid)
        if time.monotonic() >= self._next_piece_at:
            self._next_piece_at = time.monotonic() + PIECE_S
            for pieces in self._pieces.values():
                self._send(pieces.gathered())
        self._stop_if_due()

    def _read_while_there_is_room(self, selector: selectors.BaseSelector) -> None:
        """A full spool holds the program up: its output has nowhere to go."""
        has_room = self._task.has_room
        if has_room != self._is_reading:
            self._is_reading = has_room
            for pipe in self._pieces:
                if has_room:
                    selector.register(pipe, selectors.EVENT_READ)
                else:
                    selector.unregister(pipe)

    def _read(self, selector: selectors.BaseSelector, pipe: object) -> None:
        pieces = self._pieces[pipe]  # type: ignore[index]
        try:
            data = os.read(pipe.fileno(), 65_536)  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        if data:
            for piece in pieces.add(data):
                self._send(piece)
            return
        self._send(pieces.rest())
        selector.unregister(pipe)  # type: ignore[arg-type]
        del self._pieces[pipe]  # type: ignore[arg-type]

    def _send(self, piece: str) -> None:
        if piece:
            self._task.heartbeat(piece)

    def _stop_at(self) -> float:
        if self._kill_at < float("inf"):
            return self._kill_at
        return 0.0 if self._task.is_stopped else self._task.deadline

    def _stop_if_due(self) -> None:
        now = time.monotonic()
        if now < self._stop_at() or (self._has_exited and not self._pieces):
            return
        if self._kill_at < float("inf") or self._task.is_abandoned:
            kill_group(self._process.pid)
        elif self._task.is_stopped:
            kill_group(self._process.pid, signal.SIGTERM)
        else:
            os.kill(self._process.pid, signal.SIGTERM)  # a zombie at worst: it is not reaped yet
        self._give_up_at = min(self._give_up_at, now + GIVE_UP_S)
        self._kill_at = now + GRACE_S

    def _reap(self) -> int:
        _, status = os.waitpid(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return status


class Pieces:
    """Output of one stream on its way into pieces: of at most 4096 bytes, at a line end where there is one near."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> list[str]:
        """The pieces that are full with it."""
        self._data += data
        found = []
        while len(self._data) > PIECE_BYTES:
            line_end = self._data.rfind(b"\n", PIECE_BYTES - TAIL_BYTES, PIECE_BYTES) + 1
            found.append(self._take(line_end or _whole_characters(self._data[:PIECE_BYTES])))
        return found

    def gathered(self) -> str:
        """What there is, but for a character that has begun."""
        return self._take(_whole_characters(self._data))

    def rest(self) -> str:
        return self._take(len(self._data))

    def _take(self, size: int) -> str:
        piece = self._data[:size].decode("utf-8", "replace").replace("\0", "\ufffd")  # no database takes a NUL as text
        del self._data[:size]
        return piece


def _whole_characters(data: bytes | bytearray) -> int:
    """Length without the beginning of a UTF-8 character at the end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if size > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def _start(
    task: Task, program: Sequence[str], directory: str | None, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    if not program or not program[0]:
        raise ActionFailed("exec: no command")
    own = {name: value for name, value in os.environ.items() if name != HIDDEN}
    merged = {**own, **environment, MARK: task.request_id}
    path = program[0] if "/" in program[0] else _found_in_path(program[0])
    try:
        return subprocess.Popen(
            program, executable=path, cwd=directory, env=merged, bufsize=0, process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise ActionFailed(f"fork/exec {path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:  # a NUL in an argument
        raise ActionFailed(f"fork/exec {path}: invalid argument ({error})") from None


def _found_in_path(name: str) -> str:
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or ".", name)
        with contextlib.suppress(ValueError):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    raise ActionFailed(f'exec: "{name}": executable file not found in $PATH')


def _has_exited(pid: int) -> bool:
    """Without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _group_of_all() -> Iterable[tuple[int, int]]:
    """Process and group of all that run; nothing where there is no /proc."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    yield int(name), os.getpgid(int(name))


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
