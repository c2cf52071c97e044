"""Request bodies of the write benchmarks: the generators of the published load scripts, made once per case.

Measurement at random of cpu, mem, disk; hosts server001..server999; values uniform 0-100; times from now, 1 ms apart.
"""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import pyarrow as pa

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

MEASUREMENTS = ("cpu", "mem", "disk")
REGIONS = ("us-east", "us-west", "eu-central")
ENVIRONMENTS = ("prod", "staging", "dev")
VALUES = ("usage_idle", "usage_user", "usage_system")
HOSTS = tuple(f"server{number:03d}" for number in range(1, 1000))


@dataclass(frozen=True)
class Case:
    """One kind of load. make(rng, rows): one body. headers: beside token and length."""

    name: str
    rows: int
    path: str
    make: Callable[[random.Random, int], bytes]
    headers: tuple[str, ...] = ()
    bodies: int = 64  # different bodies, sent in turn
    is_default: bool = True  # runs without --case


def columns(rng: random.Random, rows: int) -> dict[str, list[Any]]:
    """time (ms), host, region, env and three values."""
    now_ms = time.time_ns() // 1_000_000
    return {
        "time": list(range(now_ms, now_ms + rows)),
        "host": rng.choices(HOSTS, k=rows),
        "region": rng.choices(REGIONS, k=rows),
        "env": rng.choices(ENVIRONMENTS, k=rows),
        **{name: [rng.uniform(0, 100) for _ in range(rows)] for name in VALUES},
    }


def columnar(rng: random.Random, rows: int) -> bytes:
    body: bytes = msgpack.packb({"m": rng.choice(MEASUREMENTS), "columns": columns(rng, rows)})
    return body


def columnar_gzip(rng: random.Random, rows: int) -> bytes:
    return gzip.compress(columnar(rng, rows), compresslevel=1)


def row_items(rng: random.Random, rows: int) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    body: bytes = msgpack.packb({"batch": [row_item(rng, now_ms) for _ in range(rows)]})
    return body


def row_item(rng: random.Random, now_ms: int) -> dict[str, Any]:
    item = {
        "m": rng.choice(MEASUREMENTS),
        "t": now_ms + rng.randrange(1001),
        "h": rng.choice(HOSTS),
        "fields": {name: rng.uniform(0, 100) for name in VALUES},
    }
    if rng.random() < 0.3:
        item["tags"] = {"region": rng.choice(REGIONS), "env": rng.choice(ENVIRONMENTS)}
    return item


def lines(rng: random.Random, rows: int) -> bytes:
    """Line protocol of three shapes: the published scripts' cpu, mem and disk lines."""
    now_ns = time.time_ns()
    return "\n".join(line(rng, now_ns + row * 1000) for row in range(rows)).encode()


def line(rng: random.Random, time_ns: int) -> str:
    tags = f"host={rng.choice(HOSTS)},region={rng.choice(REGIONS)}"
    used = rng.uniform(0, 100)
    kind = rng.choice(MEASUREMENTS)
    if kind == "cpu":
        values = ",".join(f"{name}={rng.uniform(0, 100):.2f}" for name in VALUES)
        return f"cpu,{tags},env={rng.choice(ENVIRONMENTS)} {values} {time_ns}"
    if kind == "mem":
        used_bytes = rng.randrange(10**10)
        return (
            f"mem,{tags} used_percent={used:.2f},available_percent={100 - used:.2f},used_bytes={used_bytes}i {time_ns}"
        )
    values = f"used_percent={used:.2f},free_bytes={rng.randrange(10**12)}i,inodes_used={rng.randrange(10**7)}i"
    return f"disk,{tags},device=sda1 {values} {time_ns}"


def arrow(rng: random.Random, rows: int) -> bytes:
    """An Arrow IPC stream; the measurement goes in the query string."""
    table = pa.table(columns(rng, rows))
    times = pa.array(table["time"].to_numpy() * 1000, pa.timestamp("us", tz="UTC"))
    table = table.set_column(0, "time", times)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


MSGPACK = "/write/v2/msgpack"
GZIPPED = ("Content-Encoding: gzip",)
CASES = (
    Case("columnar-1000", 1_000, MSGPACK, columnar),
    Case("columnar-10000", 10_000, MSGPACK, columnar, bodies=24),
    Case("columnar-10000-gzip", 10_000, MSGPACK, columnar_gzip, GZIPPED, bodies=24),
    Case("rows-1000", 1_000, MSGPACK, row_items),
    Case("lines-10000", 10_000, "/write?precision=ns", lines, bodies=12, is_default=False),
    Case("arrow-10000", 10_000, "/write/arrow?measurement=cpu", arrow, bodies=24, is_default=False),
)
