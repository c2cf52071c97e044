"""What a task says: its output with the last lines kept for the error text, its result file, its progress file."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from arc.runtimes.base import TaskFailed

if TYPE_CHECKING:
    from arc.runtimes.base import Reporter

PROGRESS_BYTES = 64  # no number is longer
TAIL_LINES = 10
TAIL_BYTES = 8192  # very long last lines are cut at the front

log = logging.getLogger(__name__)


class Output:
    """Output of one step on its way to the reporter. Any thread may add; after close() nothing is passed on."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._lock = threading.Lock()
        self._is_closed = False
        self._tail = b""

    def add(self, data: bytes) -> None:
        with self._lock:
            if not self._is_closed:
                self._tail = (self._tail + data)[-TAIL_BYTES:]
                self._reporter.log(data)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True

    def tail(self) -> str:
        """The last ten lines, with the line break at their end."""
        lines = self._tail.split(b"\n")
        unfinished = lines.pop()
        kept = [line + b"\n" for line in lines] + ([unfinished] if unfinished else [])
        return decode(b"".join(kept[-TAIL_LINES:]))


class Progress:
    """Reports what the progress file says when it has changed; text that is no number is logged and left out."""

    def __init__(self, reporter: Reporter, task_id: str) -> None:
        self._reporter = reporter
        self._task_id = task_id
        self._last = 0.0

    def update(self, data: bytes) -> None:
        """data: content of the file."""
        try:
            percent = parse_progress(data)
        except ValueError:
            log.warning("task %s: its progress is no number: %r", self._task_id, data)
            return
        if percent != self._last:
            self._last = percent
            self._reporter.progress(percent)


def parse_progress(data: bytes) -> float:
    """0 to 100 with two decimals; nothing is 0. Raises ValueError."""
    number = float(data.decode().strip() or "0")
    if math.isnan(number):
        raise ValueError("not a number")
    return round(min(max(number, 0.0), 100.0), 2)


def result_text(data: bytes, size_bytes: int, max_bytes: int) -> str:
    """The result of a task. size_bytes: size of the file, of which data may be the beginning only.

    Raises TaskFailed when it is too large.
    """
    if size_bytes > max_bytes:
        raise TaskFailed(f"task result exceeds maximum size of {max_bytes:d} bytes (got {size_bytes})")
    return decode(data)


def decode(data: bytes) -> str:
    """Text that every database takes: bytes that are no UTF-8 are replaced, U+0000 is removed."""
    return data.decode("utf-8", "replace").replace("\0", "")
