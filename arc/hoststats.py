"""What this host and this process do right now, through psutil, as points that any write route takes.

    HostSampler(host, program).sample(now_us) -> items {"m", "t", "h", "tags", "fields"}

Measurements, each with the tag `host`: cpu, mem, disk (a row per file system), net (a row per interface that is up),
load (with the whole system's counts), process (the caller's own, tag `program`). Counters come as they are and as
change per second since the sample before, None where there is nothing to compare with.
Server and agent share this module; it needs nothing but psutil.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Fields = dict[str, int | float | None]
    Row = tuple[dict[str, str], Fields]  # tags, fields
    Counter = tuple[str, ...]

log = logging.getLogger(__name__)

_IDLE = ("idle", "iowait")  # time in which a core did nothing
_IN_USER = ("guest", "guest_nice")  # Linux counts these in user and nice already
_DISK = {"read_bytes": "read_bytes", "write_bytes": "write_bytes", "reads": "read_count", "writes": "write_count"}
_NET = {
    "recv_bytes": "bytes_recv",
    "sent_bytes": "bytes_sent",
    "recv_packets": "packets_recv",
    "sent_packets": "packets_sent",
    "recv_errors": "errin",
    "sent_errors": "errout",
    "recv_drops": "dropin",
    "sent_drops": "dropout",
}


class HostSampler:
    """Remembers the counters of the last sample; the first one is taken here. One thread at a time.

    host: value of the tag. program: who samples, as the tag of its own process.
    """

    def __init__(self, host: str, program: str) -> None:
        self.host = host
        self.program = program
        self._parts: dict[str, Callable[[], Iterator[Row]]] = {
            "cpu": self._cpu,
            "mem": _mem,
            "disk": self._disks,
            "net": self._nets,
            "load": _load,
            "process": self._own_process,
        }
        self._refused: set[str] = set()
        self._process = psutil.Process()
        self._at_s = time.monotonic()
        self._elapsed_s = 0.0
        self._before: dict[Counter, float] = {}
        self._last: dict[Counter, float] = {}
        self.sample(0)

    def sample(self, now_us: int) -> list[dict[str, Any]]:
        """One item per row. now_us: their time, microseconds UTC."""
        at_s = time.monotonic()
        self._elapsed_s, self._at_s = at_s - self._at_s, at_s
        self._before, self._last = self._last, {}
        return [
            {"m": measurement, "t": now_us, "h": self.host, "tags": tags, "fields": fields}
            for measurement in self._parts
            for tags, fields in self._rows(measurement)
        ]

    def _rows(self, measurement: str) -> list[Row]:
        """What a host does not tell, as some containers do, costs this measurement and one line in the log."""
        try:
            return list(self._parts[measurement]())
        except (OSError, RuntimeError, psutil.Error) as error:
            if measurement not in self._refused:
                log.warning("this host tells no %s figures: %s", measurement, error)
            self._refused.add(measurement)
            return []

    def _cpu(self) -> Iterator[Row]:
        changes = {
            name: self._change(("cpu", name), spent_s)
            for name, spent_s in psutil.cpu_times()._asdict().items()
            if name not in _IN_USER
        }
        spent = {name: max(0.0, change or 0.0) for name, change in changes.items()}  # iowait may go back a little
        total = sum(spent.values())
        busy = total - sum(spent.get(name, 0.0) for name in _IDLE)
        percents = {f"{name}_percent": _percent(each, total) for name, each in spent.items()}
        yield {}, {"usage_percent": _percent(busy, total), **percents, "cores": psutil.cpu_count()}

    def _disks(self) -> Iterator[Row]:
        counters = psutil.disk_io_counters(perdisk=True) or {}
        for device, path, kind in _file_systems():
            try:
                usage = psutil.disk_usage(path)
            except OSError:  # not ours to read, or gone meanwhile
                continue
            tags = {"path": path, "device": device, "fstype": kind}
            space: Fields = {
                "total_bytes": usage.total,
                "used_bytes": usage.used,
                "free_bytes": usage.free,
                "used_percent": float(usage.percent),
            }
            done = counters.get(os.path.basename(os.path.realpath(device)))
            yield tags, space | self._counters(("disk", device), done, _DISK)

    def _nets(self) -> Iterator[Row]:
        are_up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        for name, done in psutil.net_io_counters(pernic=True).items():
            if name in are_up:
                yield {"interface": name}, self._counters(("net", name), done, _NET)

    def _own_process(self) -> Iterator[Row]:
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
            cpu_s = times.user + times.system
            cores_used = self._per_s(("process", "cpu"), cpu_s)
            fields: Fields = {
                "cpu_percent": None if cores_used is None else round(100 * cores_used, 2),
                "cpu_s": cpu_s,
                "rss_bytes": memory.rss,
                "vms_bytes": memory.vms,
                "threads": self._process.num_threads(),
                "open_files": self._process.num_fds() if hasattr(self._process, "num_fds") else None,
                "uptime_s": round(time.time() - self._process.create_time(), 1),
            }
        yield {"program": self.program}, fields

    def _counters(self, of: Counter, done: Any, columns: Mapping[str, str]) -> Fields:
        """Counters and their change per second; nulls when the system does not count here."""
        fields: Fields = {}
        for column, name in columns.items():
            value = None if done is None else getattr(done, name)
            fields[column] = value
            fields[f"{column}_per_s"] = None if value is None else self._per_s((*of, name), value)
        return fields

    def _per_s(self, counter: Counter, value: float) -> float | None:
        """None also for a counter that was set back."""
        change = self._change(counter, value)
        return None if change is None or change < 0 or not self._elapsed_s else round(change / self._elapsed_s, 2)

    def _change(self, counter: Counter, value: float) -> float | None:
        """Since the last sample; None for a counter that is new."""
        self._last[counter] = value
        before = self._before.get(counter)
        return None if before is None else value - before


def _mem() -> Iterator[Row]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    fields: Fields = {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "used_bytes": memory.used,
        "used_percent": float(memory.percent),
        "swap_total_bytes": swap.total,
        "swap_used_bytes": swap.used,
        "swap_used_percent": float(swap.percent),
    }
    yield {}, fields


def _load() -> Iterator[Row]:
    of_1m, of_5m, of_15m = psutil.getloadavg()
    fields: Fields = {
        "load_1m": of_1m,
        "load_5m": of_5m,
        "load_15m": of_15m,
        "processes": len(psutil.pids()),
        "uptime_s": round(time.time() - psutil.boot_time(), 1),
    }
    yield {}, fields


def _percent(part: float, total: float) -> float | None:
    return round(100 * part / total, 2) if total else None


def _file_systems() -> Iterator[tuple[str, str, str]]:
    """Device, path and type of each file system on a device, at its first mount, and of `/` whatever it is."""
    seen = set()
    mounts = psutil.disk_partitions()
    if not any(mount.mountpoint == "/" for mount in mounts):  # in a container it is an overlay
        mounts = [mount for mount in psutil.disk_partitions(all=True) if mount.mountpoint == "/"][:1] + mounts
    for mount in mounts:
        if mount.device not in seen:
            seen.add(mount.device)
            yield mount.device, mount.mountpoint, mount.fstype
