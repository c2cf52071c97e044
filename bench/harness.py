"""What the benchmarks share: the machine's description, a server on a fresh directory, its CPU time and memory."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PACKAGES = ("duckdb", "pyarrow", "numpy", "msgpack", "Flask", "waitress", "orjson")


def report(file: str | None = None, **values: Any) -> None:
    """One JSON line on standard output and, if asked for, at the end of a file."""
    line = json.dumps(values)
    print(line, flush=True)
    if file:
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


@contextmanager
def fresh_server(under: str | None = None, options: Mapping[str, str] | None = None) -> Iterator[ArcServer]:
    """A started server on an empty directory, gone afterwards. under: where the directory is made."""
    with (
        tempfile.TemporaryDirectory(prefix="arc-bench-", dir=under) as folder,
        ArcServer(Path(folder) / "data", options) as server,
    ):
        yield server


@dataclass(frozen=True)
class Usage:
    """What a process and its children have used so far."""

    cpu_s: float
    rss_mb: float
    peak_mb: float


def usage(pid: int) -> Usage:
    """User and system seconds, resident and peak memory of a process tree, ended children included."""
    root = psutil.Process(pid)
    ended = root.cpu_times()
    cpu = getattr(ended, "children_user", 0.0) + getattr(ended, "children_system", 0.0)
    rss = peak = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        cpu += times.user + times.system
        rss += process.memory_info().rss / 2**20
        peak += peak_mb(process)
    return Usage(cpu, rss, peak)


def peak_mb(process: psutil.Process) -> float:
    """Highest resident memory so far; what is resident now where the system does not tell."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return float(process.memory_info().rss) / 2**20
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank; 0.0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def latency_ms(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}_ms": round(percentile(seconds, percent) * 1000, 2) for percent in (50, 95, 99)}


def note(text: str) -> None:
    """For the person watching; standard output carries JSON lines only."""
    print(text, file=sys.stderr, flush=True)
