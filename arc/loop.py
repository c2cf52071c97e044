"""Threads: background loops that call `step(now_us)` until they are told to stop, and which cores a thread may use."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arc import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def pin() -> None:
    """Keep the calling thread on the last core that the process may use; Linux only, elsewhere without effect.

    Threads that take turns with the interpreter lock wake each other up on every turn, and numpy and pyarrow take
    turns dozens of times per write. Between cores such a wake-up costs so much that four request threads on two
    cores did half the work per CPU second of four on one. A thread inherits the cores of the one that starts it.
    """
    if len(_CORES) > 1:
        os.sched_setaffinity(0, {max(_CORES)})


def unpin() -> None:
    """Let the calling thread use every core again: for work outside the interpreter lock."""
    if len(_CORES) > 1:
        os.sched_setaffinity(0, _CORES)


@contextmanager
def unpinned() -> Iterator[None]:
    """Around long work outside the interpreter lock in a thread that may be pinned; threads it starts are free too."""
    if not _CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    unpin()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class PeriodicLoop:
    """Owns thread, name and stop event; a loop of ours writes only `step`.

    interval_s: seconds between the end of one pass and the start of the next.
    """

    name = "loop"

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self, now_us: int) -> int:
        """One pass. Returns how much it did."""
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Start the next pass now instead of at the end of the interval."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the loop after the pass that runs; may be called twice."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.warning("%s: still running after %.0f s", self.name, timeout_s)

    def _run(self) -> None:
        unpin()  # a loop that a request thread started would share that thread's core
        while not self._stop.is_set():
            self._wake.wait(self.interval_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self.step(clock.now_us())
            except Exception:  # one bad pass must not end the loop
                log.exception("%s: pass failed, next in %s s", self.name, self.interval_s)
