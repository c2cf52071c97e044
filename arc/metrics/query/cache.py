"""Answers to repeated queries, kept until the rows they show change.

    fetch -> entry with the stamps of now? -> HIT
          -> no: stamps, then ask (MetricStore.views), then keep the answer under these stamps -> MISS

Exact: every admitted write, delete, retention and drop gives the measurements it changes other stamps
(MetricStore.stamps) before it is acknowledged, and an entry counts only while the stamps of all measurements it
read are the same. The stamps are taken before the rows are, so an answer may be newer than its stamps, never older.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from arc import clock
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arc.metrics.query.guard import Plan

HIT, MISS, BYPASS = "HIT", "MISS", "BYPASS"
_LISTED = 20  # entries in the figures
_LOW_HIT_RATE = 20.0  # percent; below it, after so many requests, health() says so
_JUDGED_AFTER = 100


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """See [query_cache] in arc.conf.example."""

    enabled: bool = True
    ttl_s: float = 60.0
    max_entries: int = 100
    max_result_bytes: int = 10 << 20
    max_total_bytes: int = 200 << 20


class Key(NamedTuple):
    """What makes two requests the same. sql: as it was sent, but for blanks around it; reader: whose rows are seen."""

    sql: str
    database: str
    reader: tuple[str | None, ...] = ()

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query. rows: as JSON, the way render.json_rows writes them."""

    id: str
    columns: list[str]
    types: list[str]
    rows: bytes
    row_count: int
    execution_ms: float
    wait_ms: float
    planning_ms: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """state: HIT, MISS or BYPASS. age_s: how long ago the answer was made."""

    answer: Answer
    state: str
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    stamps: tuple[int, ...]
    made_s: float  # time.monotonic()
    made_us: int


@dataclass(slots=True)
class _Counters:
    hits: int = 0
    misses: int = 0
    evictions: int = 0  # for lack of room
    expirations: int = 0  # by age, or because rows changed


class ResultCache:
    """Keeps answers within the options; the one that was asked for longest ago goes first. Any thread may call it."""

    def __init__(self, options: CacheOptions | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        self.options = options or CacheOptions()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._counters = _Counters()

    def fetch(
        self,
        key: Key,
        plan: Plan | None,
        stamps: Callable[[Iterable[tuple[str, str]]], tuple[int, ...]],
        ask: Callable[[], Answer],
    ) -> Fetched:
        """The answer to a query, from here or by asking for it. plan: None asks anew and keeps nothing."""
        if plan is None or not self.options.enabled or plan.listing or plan.explain or plan.is_volatile:
            return Fetched(ask(), BYPASS)
        now = stamps(plan.tables)
        entry = self._get(key, now)
        if entry is not None:
            return Fetched(entry.answer, HIT, self._now_s() - entry.made_s)
        answer = ask()
        self._put(key, _Entry(answer, now, self._now_s(), clock.now_us()))
        return Fetched(answer, MISS)

    def clear(self) -> int:
        """Forget all answers; returns their number."""
        with self._lock:
            removed = len(self._entries)
            self._entries.clear()
            self._size_bytes = 0
        return removed

    def expire(self) -> int:
        """Forget answers that are too old; returns their number."""
        with self._lock:
            old = [key for key, entry in self._entries.items() if self._is_old(entry)]
            for key in old:
                self._remove(key)
            self._counters.expirations += len(old)
        return len(old)

    def stats(self) -> dict[str, Any]:
        """Counters and entries, under the names that clients read."""
        with self._lock:
            newest = list(self._entries.items())[: -_LISTED - 1 : -1]
            size, size_bytes, counters = len(self._entries), self._size_bytes, self._counters
            requests = counters.hits + counters.misses
            return {
                "enabled": True,
                "ttl_seconds": self.options.ttl_s,
                "max_size": self.options.max_entries,
                "max_result_size_mb": self.options.max_result_bytes / 2**20,
                "current_size": size,
                "current_size_bytes": size_bytes,
                "utilization_percent": round(100 * size / self.options.max_entries, 1),
                "metrics": {
                    "total_requests": requests,
                    "hits": counters.hits,
                    "misses": counters.misses,
                    "hit_rate_percent": round(100 * counters.hits / requests, 1) if requests else 0.0,
                    "evictions": counters.evictions,
                    "expirations": counters.expirations,
                },
                "entries": [self._listed(key, entry) for key, entry in newest],
            }

    def warnings(self) -> list[str]:
        """What the figures suggest to look at."""
        metrics, size = self.stats()["metrics"], len(self._entries)
        found = []
        if metrics["total_requests"] >= _JUDGED_AFTER and metrics["hit_rate_percent"] < _LOW_HIT_RATE:
            found.append(f"Low hit rate ({metrics['hit_rate_percent']} %): queries differ, or their rows keep changing")
        if metrics["evictions"] > metrics["hits"] and metrics["evictions"] >= self.options.max_entries:
            found.append(f"Many evictions ({metrics['evictions']}): raise [query_cache] max_entries or max_total_size")
        if metrics["total_requests"] >= _JUDGED_AFTER and not size:
            found.append("No answer is kept: results are larger than [query_cache] max_result_size, or too old")
        return found

    def _get(self, key: Key, stamps: tuple[int, ...]) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and (entry.stamps != stamps or self._is_old(entry)):
                self._remove(key)
                self._counters.expirations += 1
                entry = None
            if entry is None:
                self._counters.misses += 1
                return None
            self._counters.hits += 1
            self._entries.move_to_end(key)
            return entry

    def _put(self, key: Key, entry: _Entry) -> None:
        size = len(entry.answer.rows)
        if size > min(self.options.max_result_bytes, self.options.max_total_bytes):
            return
        with self._lock:
            if key in self._entries:
                self._remove(key)
            self._entries[key] = entry
            self._size_bytes += size
            while len(self._entries) > self.options.max_entries or self._size_bytes > self.options.max_total_bytes:
                self._remove(next(iter(self._entries)))
                self._counters.evictions += 1

    def _remove(self, key: Key) -> None:
        self._size_bytes -= len(self._entries.pop(key).answer.rows)

    def _is_old(self, entry: _Entry) -> bool:
        return self._now_s() - entry.made_s >= self.options.ttl_s

    def _listed(self, key: Key, entry: _Entry) -> dict[str, Any]:
        return {
            "key_hash": key.hash,
            "age_seconds": round(self._now_s() - entry.made_s, 3),
            "row_count": entry.answer.row_count,
            "columns": len(entry.answer.columns),
            "cached_at": clock.rfc3339(entry.made_us),
        }


class CacheSweeper(PeriodicLoop):
    """Gives back the memory of old answers that nobody asks for any more."""

    name = "cache-sweeper"

    def __init__(self, cache: ResultCache) -> None:
        super().__init__(max(cache.options.ttl_s / 2, 10.0))
        self._cache = cache

    def step(self, now_us: int) -> int:
        return self._cache.expire()
