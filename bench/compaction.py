"""What compaction does and costs: `python -m bench.compaction [--files 5000] [--senders 8]`.

First line: the machine. Then one JSON line:
    files_before, files_after  files of a measurement made of many small ones
    seconds                    from the trigger until its cycle ended, under load
    rows_per_s_without, rows_per_s_with, ratio   what the writers of another measurement got acknowledged, before
                               compaction and during it; slices of some seconds each
    p99_ms_without, p99_ms_with   time of one of their requests
    peak_mb_without, peak_mb_with highest resident memory of the server before the trigger and at the end
    exact                      whether count(*) of both measurements is right afterwards
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from arc.metrics.storage.schema import TableSchema
from arc.metrics.store import MetricStore
from bench import bodies
from bench.harness import machine, note, percentile, report, usage
from bench.ingest import http_request
from bench.sender import Sent, run_senders
from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from tests.integration.server import Connection

ROWS = 1_000  # of a small file
AT_ONCE = 500  # files per commit
NEVER = "0 0 29 2 *"
LOAD = next(case for case in bodies.CASES if case.name == "columnar-1000")


def rows_of(number: int, rng: random.Random) -> pa.Table:
    first = 1_760_000_000_000_000 + number * ROWS * 1_000_000
    times = pa.array(range(first, first + ROWS * 1_000_000, 1_000_000), pa.int64())
    return pa.table(
        {
            "time": times.cast(pa.timestamp("us", "UTC")),
            "host": [f"server{i % 100:02}" for i in range(ROWS)],
            "usage": [rng.random() * 100 for _ in range(ROWS)],
            "load": [rng.random() for _ in range(ROWS)],
            "n": list(range(number * ROWS, (number + 1) * ROWS)),
        }
    )


def prepare(data_dir: Path, count: int) -> None:
    """A lake with `count` files of one measurement."""
    data_dir.mkdir()
    store, rng = MetricStore(data_dir), random.Random(1)
    kinds = {"host": "VARCHAR", "usage": "DOUBLE", "load": "DOUBLE", "n": "BIGINT"}
    schema = TableSchema("default", "small")
    schema.columns |= {name: (name, kind) for name, kind in kinds.items()}
    files = ((schema, store.lake.write_file(schema, rows_of(number, rng))) for number in range(count))
    try:
        store.lake.commit([next(files)], 0)  # makes the table
        schema.in_lake = schema.lake_types()
        while some := list(islice(files, AT_ONCE)):
            store.lake.commit(some, 0)
            note(f"{len(some)} files more")
    finally:
        store.close()


def load_while(condition: Any, port: int, requests: list[bytes], senders: int, seconds: float) -> list[Sent]:
    slices = []
    while condition(len(slices)):
        slices.append(run_senders(port, requests, senders, seconds))
    return slices


def rate(slices: list[Sent]) -> float:
    return sum(sum(sent.acknowledged) for sent in slices) * LOAD.rows / sum(sent.elapsed_s for sent in slices)


def p99_ms(slices: list[Sent]) -> float:
    return round(percentile([value for sent in slices for value in sent.latencies_s], 99) * 1000, 2)


def is_running(connection: Connection) -> bool:
    running: bool = connection.request("GET", "/api/v1/compaction/status").json()["running"]
    return running


def files_of(connection: Connection, name: str) -> int:
    found = connection.request("GET", "/api/v1/measurements").json()["measurements"]
    return sum(each["file_count"] for each in found if each["measurement"] == name)


def run(files: int, senders: int, seconds: float, under: str | None) -> dict[str, Any]:
    requests = [http_request(LOAD, LOAD.make(random.Random(n), LOAD.rows)) for n in range(LOAD.bodies)]
    options = {"compaction.hourly_schedule": NEVER, "compaction.daily_schedule": NEVER}
    with tempfile.TemporaryDirectory(prefix="arc-bench-", dir=under) as folder:
        data_dir = Path(folder) / "data"
        prepare(data_dir, files)
        with ArcServer(data_dir, options) as server, server.connect(timeout_s=600) as connection:
            warm_up = load_while(lambda done: done < 1, server.port, requests, senders, seconds)
            without = load_while(lambda done: done < 3, server.port, requests, senders, seconds)
            files_before, before = files_of(connection, "small"), usage(server.pid)
            started_s = time.monotonic()
            connection.request("POST", "/api/v1/compaction/hourly", {"measurement": "small"})
            during = load_while(lambda _: is_running(connection), server.port, requests, senders, seconds)
            took_s = time.monotonic() - started_s
            after = usage(server.pid)
            slices = [*warm_up, *without, *during]
            written = sum(sum(sent.acknowledged) for sent in slices) * LOAD.rows
            measurements = [row[1] for row in connection.query("SHOW TABLES")]
            counts = {name: connection.query(f'SELECT count(*) FROM "{name}"')[0][0] for name in measurements}
            files_after = files_of(connection, "small")
    return {
        "files_before": files_before,
        "files_after": files_after,
        "seconds": round(took_s, 1),
        "rows_per_s_without": round(rate(without)),
        "rows_per_s_with": round(rate(during)),
        "ratio": round(rate(during) / rate(without), 2),
        "p99_ms_without": p99_ms(without),
        "p99_ms_with": p99_ms(during),
        "peak_mb_without": round(before.peak_mb),
        "peak_mb_with": round(after.peak_mb),
        "exact": counts.pop("small") == files * ROWS and sum(counts.values()) == written,
        "errors": [error for sent in slices for error in sent.errors],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compaction", description="What compaction does and costs.")
    parser.add_argument("--files", type=int, default=5_000, help="small files to begin with, of 1,000 rows each")
    parser.add_argument("--senders", type=int, default=8, help="connections that write without a pause")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a slice of load")
    parser.add_argument("--data", help="folder for the server's data directory; default: the system's for such")
    parser.add_argument("--json", help="file to append the JSON lines to, beside printing them")
    options = parser.parse_args()
    report(options.json, bench="compaction", senders=options.senders, **machine())
    result = run(options.files, options.senders, options.seconds, options.data)
    report(options.json, **result)
    return int(not result["exact"] or bool(result["errors"]))


if __name__ == "__main__":
    raise SystemExit(main())
