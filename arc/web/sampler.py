"""Takes the samples of history.py: every 10 seconds one each of the host, the process and the API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from arc import clock
from arc.loop import PeriodicLoop
from arc.web.history import INTERVAL_S

if TYPE_CHECKING:
    from arc.web.history import Sample
    from arc.web.parts import Parts


class Sampler(PeriodicLoop):
    """Fills `arc.history`, the first time as soon as it starts."""

    name = "sampler"

    def __init__(self, arc: Parts) -> None:
        super().__init__(INTERVAL_S)
        self._arc = arc
        self._process = psutil.Process()
        self._before = _Totals(arc, clock.now_us())
        psutil.cpu_percent()  # the first answer of both means nothing
        self._process.cpu_percent()

    def start(self) -> None:
        super().start()
        self.wake()

    def step(self, now_us: int) -> int:
        samples = {"system": self._system(), "application": self._application(), "api": self._api(now_us)}
        self._arc.history.add(now_us, samples)
        return len(samples)

    def _system(self) -> Sample:
        memory, network = psutil.virtual_memory(), psutil.net_io_counters()
        disk = psutil.disk_usage(self._arc.config.get("storage", "dir"))
        return {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": memory.percent,
            "memory_used_mb": _mb(memory.used),
            "memory_available_mb": _mb(memory.available),
            "disk_percent": disk.percent,
            "disk_used_gb": round(disk.used / 2**30, 2),
            "disk_free_gb": round(disk.free / 2**30, 2),
            "network_bytes_sent": network.bytes_sent if network else 0,
            "network_bytes_recv": network.bytes_recv if network else 0,
            "process_count": len(psutil.pids()),
            "load_average": list(os.getloadavg()),
        }

    def _application(self) -> Sample:
        store, queries = self._arc.store.stats(), self._arc.queries.stats()
        with self._process.oneshot():
            return {
                "cpu_percent": self._process.cpu_percent(),
                "memory_rss_mb": _mb(self._process.memory_info().rss),
                "num_threads": self._process.num_threads(),
                "uptime_seconds": round(self._arc.uptime_s(), 1),
                "ingest_records_total": store["rows"],
                "buffered_records": store["buffered_rows"],
                "query_requests_total": queries["requests"],
                "active_queries": queries["running"] + queries["waiting"],
            }

    def _api(self, now_us: int) -> Sample:
        """Rates since the sample before."""
        before, now = self._before, _Totals(self._arc, now_us)
        self._before = now
        minutes = max(now_us - before.at_us, 1) / clock.US_PER_S / 60
        requests, errors = now.requests - before.requests, now.errors - before.errors
        return {
            "requests_per_minute": round(requests / minutes, 2),
            "avg_response_time_ms": round((now.took_s - before.took_s) / requests * 1000, 3) if requests else 0.0,
            "error_rate_percent": round(100 * errors / requests, 2) if requests else 0.0,
            "active_requests": self._arc.requests.active(),
            "total_requests": now.requests,
            "successful_requests": now.requests - now.errors,
            "failed_requests": now.errors,
        }


class _Totals:
    def __init__(self, arc: Parts, at_us: int) -> None:
        total, errors = arc.requests.totals()
        self.at_us = at_us
        self.requests, self.took_s, self.errors = total.count, total.sum_s, errors


def _mb(size_bytes: int) -> float:
    return round(size_bytes / 2**20, 2)
