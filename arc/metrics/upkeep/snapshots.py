"""Snapshots that no query can ask for any more are forgotten, and files that only they needed leave the disk.

A query reads the snapshot of its beginning to its end, so what is forgotten must be older than any query may become.
The same pass drops history that nobody will look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc import clock
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arc.metrics.store import MetricStore

_PASS_S = 60.0
_LEAST_AGE_S = 600.0
_MARGIN_S = 60.0  # a query's time begins when it asks, and its end may be noticed a little late
HISTORY_DAYS = 30


class SnapshotKeeper(PeriodicLoop):
    """longest_query_s: after which a query is stopped. histories: each drops what began before an instant."""

    name = "snapshots"

    def __init__(
        self, store: MetricStore, longest_query_s: float, histories: Sequence[Callable[[int], int]] = ()
    ) -> None:
        super().__init__(_PASS_S)
        self.age_us = int(max(_LEAST_AGE_S, longest_query_s + _MARGIN_S) * clock.US_PER_S)
        self._store = store
        self._histories = histories

    def step(self, now_us: int) -> int:
        """Returns the number of files removed."""
        if not self._store.is_ready:
            return 0
        for forget in self._histories:
            forget(now_us - HISTORY_DAYS * 86_400 * clock.US_PER_S)
        with self._store.upkeep() as lake:
            return lake.clean_up(now_us - self.age_us)
