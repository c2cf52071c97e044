"""Requests: how many, answered how, after how long. Every request counts, /metrics and its sampler read.

    Entry: mine = counters.mine(); mine.begin() -> ... -> mine.answer(route, status, took_s)

Each thread counts in a ledger of its own, so counting takes no lock and no increment is lost; a reader adds the
ledgers up. A request ends where its answer begins: what a streamed answer takes after that is its reader's time.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper bounds, inclusive
UNKNOWN = ("other", "other")  # the route of requests that met none; their paths and methods are their senders' choice

Route = tuple[str, str]  # method, path as it was declared


@dataclass(slots=True)
class Tally:
    """Answers of one kind. buckets: how many took at most BUCKETS_S[i]; the last one counts those that took longer."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    max_s: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def add(self, took_s: float) -> None:
        self.buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.sum_s += took_s
        if took_s > self.max_s:
            self.max_s = took_s

    def merge(self, other: Tally) -> None:
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)

    def quantile_s(self, share: float) -> float:
        """The time that `share` of the answers kept to, as exact as the buckets are."""
        wanted, seen, lower = share * self.count, 0, 0.0
        for upper, count in zip((*BUCKETS_S, self.max_s), self.buckets, strict=True):
            if count and seen + count >= wanted:
                upper = min(upper, self.max_s)
                return lower + (upper - lower) * (wanted - seen) / count
            seen, lower = seen + count, upper
        return 0.0


class Ledger:
    """What one thread has counted; only that thread writes it."""

    def __init__(self) -> None:
        self.begun = 0
        self.tallies: dict[tuple[Route, int], Tally] = {}

    def begin(self) -> None:
        self.begun += 1

    def answer(self, route: Route, status: int, took_s: float) -> None:
        tally = self.tallies.get((route, status))
        if tally is None:
            tally = self.tallies[route, status] = Tally()
        tally.add(took_s)


class RequestCounters:
    """All requests since the start. Any thread may call it."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._ledgers: list[Ledger] = []  # kept when their threads end, or the totals would fall

    def mine(self) -> Ledger:
        """The ledger of the calling thread."""
        try:
            found: Ledger = self._local.ledger
        except AttributeError:
            found = self._local.ledger = Ledger()
            self._ledgers.append(found)
        return found

    def tallies(self) -> dict[tuple[Route, int], Tally]:
        """By route and status."""
        merged: dict[tuple[Route, int], Tally] = {}
        for ledger in self._ledgers.copy():
            for key, tally in ledger.tallies.copy().items():
                merged.setdefault(key, Tally()).merge(tally)
        return merged

    def totals(self) -> tuple[Tally, int]:
        """All answers, and how many of them were errors (status 400 and above)."""
        total, errors = Tally(), 0
        for (_, status), tally in self.tallies().items():
            total.merge(tally)
            errors += tally.count if status >= 400 else 0
        return total, errors

    def active(self) -> int:
        """Requests whose answer has not begun."""
        # Begun is read last: a request that comes in between counts as active, never as minus one.
        answered = sum(tally.count for tally in self.tallies().values())
        return sum(ledger.begun for ledger in self._ledgers.copy()) - answered
