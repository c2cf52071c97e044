"""What the fleet counts since the start, for /metrics."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque

MESSAGE_BUCKETS_S = tuple(0.01 * 3**k for k in range(8))  # upper bounds
QUANTILES = (0.5, 0.9, 0.99)
KEPT_SIZES = 1000  # of one kind, for their quantiles


class Sizes:
    """Sizes in bytes: how many, their sum, and how the latest are spread. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: deque[int] = deque(maxlen=KEPT_SIZES)
        self.count = 0
        self.sum_bytes = 0

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._latest.append(size_bytes)
            self.count += 1
            self.sum_bytes += size_bytes

    def quantiles(self) -> dict[float, float]:
        """Of the latest, nearest rank."""
        with self._lock:
            sizes = sorted(self._latest)
        return {q: float(sizes[min(len(sizes) - 1, int(len(sizes) * q))]) if sizes else float("nan") for q in QUANTILES}


class FleetCounters:
    """Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.executed = 0
        self.succeeded = 0
        self.failed = 0
        self.expired = 0
        self.log_sizes = Sizes()
        self.request_sizes: dict[str, Sizes] = {}  # of bodies, by handler
        self.response_sizes: dict[str, Sizes] = {}
        self.messages: dict[str, list[int]] = {
            name: [0] * (len(MESSAGE_BUCKETS_S) + 1) for name in ("registration", "reply")
        }
        self.message_s = dict.fromkeys(self.messages, 0.0)
        self.sweeps: dict[str, tuple[int, int, float]] = {}  # by step: passes, changes, seconds

    def add(self, *, executed: int = 0, succeeded: int = 0, failed: int = 0, expired: int = 0) -> None:
        with self._lock:
            self.executed += executed
            self.succeeded += succeeded
            self.failed += failed
            self.expired += expired

    def add_bodies(self, handler: str, request_bytes: int, response_bytes: int) -> None:
        self.request_sizes.setdefault(handler, Sizes()).add(request_bytes)
        self.response_sizes.setdefault(handler, Sizes()).add(response_bytes)

    def add_message(self, kind: str, took_s: float) -> None:
        with self._lock:
            self.messages[kind][bisect_left(MESSAGE_BUCKETS_S, took_s)] += 1
            self.message_s[kind] += took_s

    def add_sweep(self, step: str, changes: int, took_s: float) -> None:
        with self._lock:
            passes, changed, spent_s = self.sweeps.get(step, (0, 0, 0.0))
            self.sweeps[step] = (passes + 1, changed + changes, spent_s + took_s)
