"""The plain peer of a write case: decode bodies with the usual libraries and write Parquet files.

No HTTP, no log, no buffer that can be queried, nothing survives a crash: what is left when everything Arc promises
is taken away. One thread of one process; the ratio to it shows what the promises cost.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_ROWS = 500_000  # rows of one Parquet file, as the server's flush


def columnar(body: bytes) -> pa.Table:
    return pa.table(msgpack.unpackb(body)["columns"])


def columnar_gzip(body: bytes) -> pa.Table:
    return columnar(gzip.decompress(body))


def row_items(body: bytes) -> pa.Table:
    """Rows of all measurements in one table, which favours the peer."""
    rows: list[dict[str, Any]] = [
        {"time": item["t"], "host": item["h"], **item["fields"], **item.get("tags", {})}
        for item in msgpack.unpackb(body)["batch"]
    ]
    return pa.Table.from_pylist(rows)


def lines(body: bytes) -> pa.Table:
    """Splits only; escapes and quotes, which a server must honour, are not."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for number, line in enumerate(body.decode().split("\n")):
        head, fields, time_ns = line.split(" ")
        columns["time"].append(int(time_ns))
        for pair in (*head.split(",")[1:], *fields.split(",")):
            key, _, value = pair.partition("=")
            column = columns[key]
            column.extend([None] * (number - len(column)))
            column.append(value)
    rows = len(columns["time"])
    return pa.table({key: column + [None] * (rows - len(column)) for key, column in columns.items()})


def arrow(body: bytes) -> pa.Table:
    with pa.ipc.open_stream(body) as reader:
        return reader.read_all()


DECODERS: dict[str, Callable[[bytes], pa.Table]] = {
    "columnar-1000": columnar,
    "columnar-10000": columnar,
    "columnar-10000-gzip": columnar_gzip,
    "rows-1000": row_items,
    "lines-10000": lines,
    "arrow-10000": arrow,
}


def decode_and_write(case: str, bodies: list[bytes], rows: int, seconds: float) -> float:
    """Rows per CPU second of this process, for about the given time."""
    decode, per_file, done = DECODERS[case], max(1, BATCH_ROWS // rows), 0
    source: Iterator[bytes] = cycle(bodies)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(prefix="arc-peer-") as folder:
        start = time.process_time()
        while time.process_time() - start < seconds:
            tables = [decode(body) for body in islice(source, per_file)]
            whole = pa.concat_tables(tables, promote_options="default")
            pq.write_table(whole, Path(folder) / "peer.parquet", use_dictionary=False)
            done += per_file * rows
        return done / (time.process_time() - start)


def run_peer(case: str, bodies: list[bytes], rows: int, seconds: float) -> float:
    """decode_and_write in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(decode_and_write, case, bodies, rows, seconds).result()
