"""A query issued directly after a 204 on another connection sees the row, while other writers make flushes happen.

ARC_VISIBILITY_PROBES: how many times (default 10,000).
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.server import ArcServer, Connection

PROBES = int(os.environ.get("ARC_VISIBILITY_PROBES", "10000"))
PER_TABLE = 500  # probes into one measurement: without compaction its small files would slow the queries down
NOISE_ROWS = 200
FLUSH_EVERY_S = 0.05


def noise(table: str) -> dict[str, object]:
    """Rows of another writer in the measurement that is probed."""
    return {"m": table, "columns": {"n": [-1] * NOISE_ROWS, "value": [0.5] * NOISE_ROWS}}


class Disturber:
    """Another writer and a caller of flush, at work while the probes run."""

    def __init__(self, server: ArcServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self.table = "seen_0"
        self.flushes = 0

    def run(self) -> None:
        with self._server.connect() as connection:
            while not self._stop.wait(FLUSH_EVERY_S):
                connection.store(noise(self.table))
                connection.flush()
                self.flushes += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(self.run)
            try:
                yield
            finally:
                self._stop.set()
            work.result()


def probe(writer: Connection, reader: Connection, table: str, number: int) -> None:
    """One write and the query right after its 204."""
    writer.store({"m": table, "columns": {"n": [number], "value": [1.5]}})

    rows = reader.query(f"SELECT count(*), count(*) FILTER (n = {number}) FROM {table} WHERE n >= 0")

    assert rows == [[number % PER_TABLE + 1, 1]], f"probe {number}"


def test_row_is_visible_directly_after_its_204(server: ArcServer) -> None:
    disturber = Disturber(server)
    with server.connect() as writer, server.connect() as reader, disturber.at_work():
        for number in range(PROBES):
            disturber.table = f"seen_{number // PER_TABLE}"
            probe(writer, reader, disturber.table, number)
    assert disturber.flushes >= PROBES // 500
