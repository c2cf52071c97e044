"""A query issued directly after a 204 on another connection sees the row, while other writers make flushes happen.

ARC_VISIBILITY_PROBES: how many times (default 1,500; `make crash` sets 10,000).
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.server import ArcServer, Connection

pytestmark = pytest.mark.alone

PROBES = int(os.environ.get("ARC_VISIBILITY_PROBES", "1500"))
LANES = 2  # pairs of a writer and a reader that probe at the same time, each in measurements of its own
PER_TABLE = 250  # probes into one measurement: without compaction its small files would slow the queries down
NOISE_ROWS = 200
FLUSH_EVERY_S = 0.25


class Disturber:
    """Another writer into the probed measurements and a caller of flush, at work while the probes run."""

    def __init__(self, server: ArcServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self.tables = {lane: f"seen_{lane}_0" for lane in range(LANES)}  # what each lane probes now
        self.flushes = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(self._run)
            try:
                yield
            finally:
                self._stop.set()
            work.result()

    def _run(self) -> None:
        with self._server.connect() as connection:
            while not self._stop.wait(FLUSH_EVERY_S):
                noise = {"n": [-1] * NOISE_ROWS, "value": [0.5] * NOISE_ROWS}
                connection.store([{"m": table, "columns": noise} for table in self.tables.values()])
                connection.flush()
                self.flushes += 1


def probe_lane(server: ArcServer, disturber: Disturber, lane: int) -> None:
    with server.connect() as writer, server.connect() as reader:
        for number in range(PROBES // LANES):
            table = disturber.tables[lane] = f"seen_{lane}_{number // PER_TABLE}"
            probe(writer, reader, table, number)
            if (number + 1) % PER_TABLE == 0:
                check_table(reader, table)


def probe(writer: Connection, reader: Connection, table: str, number: int) -> None:
    """One write and the query right after its 204; n only grows, so the newest row is the highest."""
    writer.store({"m": table, "columns": {"n": [number], "value": [1.5]}})

    assert reader.query(f"SELECT max(n) FROM {table}") == [[number]], f"probe {number} of {table}"


def check_table(reader: Connection, table: str) -> None:
    """Every probe of a measurement is there, once."""
    counted = reader.query(f"SELECT count(*), count(DISTINCT n) FROM {table} WHERE n >= 0")

    assert counted == [[PER_TABLE, PER_TABLE]], table


def test_row_is_visible_directly_after_its_204(server: ArcServer) -> None:
    disturber = Disturber(server)
    with disturber.at_work(), ThreadPoolExecutor(LANES) as pool:
        lanes = [pool.submit(probe_lane, server, disturber, lane) for lane in range(LANES)]
        for lane in lanes:
            lane.result()
    assert disturber.flushes >= PROBES // 500
