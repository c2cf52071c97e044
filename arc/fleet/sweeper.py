"""Sweeper: what time alone makes true. Agents fall silent, commands go stale, logs are joined, old rows go.

each pass: every step that is due -> a count. A step that fails is logged and does not keep the others.
Source: the remote agents specification, section 8.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc import clock
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arc.fleet.counters import FleetCounters

log = logging.getLogger(__name__)


@dataclass
class Step:
    """every_s: the least time between two passes. run(now_us) returns how much it did."""

    name: str
    every_s: float
    run: Callable[[int], int]
    due_at: int = 0


class Sweeper(PeriodicLoop):
    name = "fleet-sweeper"

    def __init__(self, steps: Sequence[Step], counters: FleetCounters, interval_s: float) -> None:
        super().__init__(interval_s)
        self._steps = steps
        self._counters = counters

    def step(self, now_us: int) -> int:
        return sum(self._pass(each, now_us) for each in self._steps if each.due_at <= now_us)

    def _pass(self, step: Step, now_us: int) -> int:
        step.due_at = now_us + round(step.every_s * clock.US_PER_S)
        began_s, changes = time.perf_counter(), 0
        try:
            changes = step.run(now_us)
        except Exception:  # one bad step must not keep the others
            log.exception("fleet: step %s failed", step.name)
        if changes:
            log.debug("fleet: step %s: %d", step.name, changes)
        self._counters.add_sweep(step.name, changes, time.perf_counter() - began_s)
        return changes
