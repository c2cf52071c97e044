"""The last hour of a few figures, for charts: samples by kind, in memory only.

    Sampler.step (sampler.py) -> History -> /metrics/timeseries/...

For longer there is database `host`, and Prometheus.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

INTERVAL_S: Final = 10
RETENTION_MIN: Final = 60
KINDS: Final = ("system", "application", "api")

Sample = dict[str, Any]


class History:
    """Samples by kind, oldest first. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[tuple[int, dict[str, Sample]]] = deque(maxlen=RETENTION_MIN * 60 // INTERVAL_S)

    def add(self, at_us: int, samples: dict[str, Sample]) -> None:
        with self._lock:
            self._samples.append((at_us, samples))

    def since(self, kind: str, from_us: int) -> list[tuple[int, Sample]]:
        with self._lock:
            return [(at_us, samples[kind]) for at_us, samples in self._samples if at_us >= from_us]

    def latest(self) -> tuple[int, dict[str, Sample]]:
        """When, and one sample of each kind; 0 and empty ones before the first."""
        with self._lock:
            return self._samples[-1] if self._samples else (0, {kind: {} for kind in KINDS})

    def __len__(self) -> int:
        return len(self._samples)
