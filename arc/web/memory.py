"""The memory profile: what the process, Python, Arrow and the query engine hold."""

from __future__ import annotations

import gc
import platform
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa

from arc.web.figures import duckdb_memory

if TYPE_CHECKING:
    from arc.web.parts import Parts

TOP = 20  # object types and allocations shown
_TIGHT_PERCENT = 80.0  # of the machine's memory in use


def profile(arc: Parts) -> dict[str, Any]:
    """Walks all objects that Python's collector knows, for some ten milliseconds in which nothing else runs."""
    return {
        "process": _process(),
        "python": _python(),
        "tracemalloc": _traced(),
        "arrow": {"allocated_bytes": pa.total_allocated_bytes()},
        "duckdb": _duckdb(arc) if arc.store.is_ready else None,
        "recommendations": _recommendations(arc),
    }


def _process() -> dict[str, Any]:
    process = psutil.Process()
    with process.oneshot():
        memory = process.memory_info()
        return {
            "pid": process.pid,
            "memory_percent": round(process.memory_percent(), 2),
            "rss_mb": _mb(memory.rss),
            "vms_mb": _mb(memory.vms),
            "shared_mb": _mb(getattr(memory, "shared", 0)),
            "num_threads": process.num_threads(),
            "num_fds": process.num_fds() if hasattr(process, "num_fds") else None,
            "cpu_percent": process.cpu_percent(),
        }


def _python() -> dict[str, Any]:
    objects = gc.get_objects()
    types = Counter(type(each).__name__ for each in objects)
    return {
        "version": platform.python_version(),
        "gc_enabled": gc.isenabled(),
        "gc_thresholds": list(gc.get_threshold()),
        "gc_counts": dict(zip(("gen0", "gen1", "gen2"), gc.get_count(), strict=True)),
        "total_objects": len(objects),
        "top_object_types": [{"type": name, "count": count} for name, count in types.most_common(TOP)],
    }


def _traced() -> dict[str, Any]:
    """Empty unless the server was started with PYTHONTRACEMALLOC."""
    if not tracemalloc.is_tracing():
        return {"enabled": False, "top_allocations": []}
    top = tracemalloc.take_snapshot().statistics("lineno")[:TOP]
    allocations = [{"location": str(each.traceback), "size_mb": _mb(each.size), "count": each.count} for each in top]
    return {"enabled": True, "top_allocations": allocations}


def _duckdb(arc: Parts) -> dict[str, int]:
    used, temp = duckdb_memory(arc.store)
    limit = arc.config.get("query", "memory_limit") or psutil.virtual_memory().total // 2
    return {"memory_usage_bytes": used, "memory_limit_bytes": limit, "temp_bytes": temp}


def _recommendations(arc: Parts) -> list[str]:
    found = []
    if psutil.virtual_memory().percent > _TIGHT_PERCENT:
        found.append("The machine is short of memory: lower [query] memory_limit or [ingest] buffer_size")
    if arc.store.stats()["buffered_bytes"] > arc.config.get("ingest", "buffer_size") // 2:
        found.append("The write buffer is half full: flushes do not keep up with the writes")
    return found


def _mb(size_bytes: int) -> float:
    return round(size_bytes / 2**20, 2)
