"""Background loops: threads that call `step(now_us)` until they are told to stop."""

from __future__ import annotations

import logging
import threading

from arc import clock

log = logging.getLogger(__name__)


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
        while not self._stop.is_set():
            self._wake.wait(self.interval_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self.step(clock.now_us())
            except Exception:  # one bad pass must not end the loop
                log.exception("%s: pass failed, next in %s s", self.name, self.interval_s)
