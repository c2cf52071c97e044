"""Commands that actions run: no shell, a process group of their own, a time limit, the end of their output kept."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEPT_BYTES = 65_536  # of each stream, from its end
CHUNK_BYTES = 65_536
POLL_S = 0.1  # seconds between two looks whether a process has ended whose output somebody else holds open
DRAIN_S = 1.0  # seconds to read on when it has ended and output still comes
TERM_S = 5.0  # seconds between the polite end and the other
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR")  # the rest of our environment may be secret


@dataclass(frozen=True)
class Result:
    """status: exit status, negative for a signal. ended: `exit`, `timeout` or `cancel`."""

    status: int
    stdout: str
    stderr: str
    is_truncated: bool
    ended: str
    duration_s: float

    @property
    def is_good(self) -> bool:
        return self.ended == "exit" and self.status == 0

    def __str__(self) -> str:
        """For people: how it ended and what it said."""
        how = f"was ended after {self.duration_s:.0f} s" if self.ended != "exit" else f"ended with status {self.status}"
        said = " ".join(text for text in (self.stdout.strip(), self.stderr.strip()) if text)
        return f"{how}: {said[-2000:]}" if said else how


def run(argv: Sequence[str], timeout_s: float, stdin: bytes = b"") -> Result:
    """Raises OSError when it cannot be run."""
    return Command(argv, stdin).wait(timeout_s)


class Command:
    """A process that has been started; one thread waits for it. Raises OSError when it cannot be run."""

    def __init__(self, argv: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] | None = None) -> None:
        self._input = memoryview(stdin)
        self._began = time.monotonic()
        self._is_cancelled = threading.Event()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=inherited | dict(env or {}),
            start_new_session=True,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def cancel(self) -> None:
        """Have wait() end the process; from any thread."""
        self._is_cancelled.set()

    def wait(self, timeout_s: float) -> Result:
        """Pass input and output until the process has ended; end its whole group at the time limit."""
        out, err = _Tail(self._process.stdout), _Tail(self._process.stderr)
        with selectors.DefaultSelector() as selector:
            for tail in (out, err):
                selector.register(tail.stream, selectors.EVENT_READ, tail.read)
            self._feed_with(selector)
            ended = self._follow(selector, self._began + timeout_s)
        for stream in (self._process.stdin, out.stream, err.stream):
            with suppress(OSError):  # what could not be written any more
                stream and stream.close()
        duration_s = time.monotonic() - self._began
        is_truncated = out.is_truncated or err.is_truncated
        return Result(self._process.wait(), out.text(), err.text(), is_truncated, ended, duration_s)

    def _follow(self, selector: selectors.BaseSelector, deadline: float) -> str:
        """Until the process has ended and its output with it, or nearly: somebody who left it may hold that open."""
        ended, quiet_by = "exit", float("inf")
        while self._process.poll() is None or selector.get_map():
            if ended == "exit" and (self._is_cancelled.is_set() or time.monotonic() >= deadline):
                ended = "cancel" if self._is_cancelled.is_set() else "timeout"
                self._end_group()
            has_ended = self._process.poll() is not None  # asked first: what it wrote until then can be read now
            if has_ended:
                quiet_by = min(quiet_by, time.monotonic() + DRAIN_S)
            is_quiet = not self._pass_on(selector)
            if has_ended and (is_quiet or time.monotonic() > quiet_by):
                break
        return ended

    def _pass_on(self, selector: selectors.BaseSelector) -> bool:
        """Wait a little for something to read or write; False when there was nothing."""
        if not selector.get_map():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_S)
            return False
        ready = selector.select(POLL_S)
        for key, _ in ready:
            if not key.data():
                selector.unregister(key.fileobj)
        return bool(ready)

    def _feed_with(self, selector: selectors.BaseSelector) -> None:
        stdin = cast("IO[bytes]", self._process.stdin)
        if not self._input:
            stdin.close()
            return
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE, lambda: self._feed(stdin))

    def _feed(self, stdin: IO[bytes]) -> bool:
        """False when there is nothing left to write, or nobody who reads."""
        try:
            self._input = self._input[os.write(stdin.fileno(), self._input[:CHUNK_BYTES]) :]
        except OSError:
            self._input = self._input[:0]
        if not self._input:
            stdin.close()
            return False
        return True

    def _end_group(self) -> None:
        for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)


class _Tail:
    """The end of a stream."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self.stream = cast("IO[bytes]", stream)
        self.is_truncated = False
        self._kept = bytearray()

    def read(self) -> bool:
        """Take what is there; False at the end."""
        data = os.read(self.stream.fileno(), CHUNK_BYTES)
        self._kept += data
        if len(self._kept) > KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]
            self.is_truncated = True
        return bool(data)

    def text(self) -> str:
        return self._kept.decode(errors="replace")
