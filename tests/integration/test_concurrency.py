"""Many clients at once: exact totals, no refusals, no resets, bounded memory.

ARC_CONCURRENCY_S: seconds the writers and readers run (default 15; the product promises 120).
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgpack
import psutil
import pytest

from tests.integration.server import WRITE_PATH, ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("ARC_CONCURRENCY_S", "15"))
WRITERS = 50
READERS = 10
ROWS = 100  # per request
MAX_RSS_MB = 1_000
QUERIES = (
    "SELECT count(*) FROM load",
    "SELECT writer, count(*), max(seq) FROM load GROUP BY writer",
    "SELECT avg(value) FROM load WHERE time > now() - INTERVAL '10 seconds'",
)


class Load:
    """What the clients did; each client adds its own numbers when it ends."""

    def __init__(self, server: ArcServer, seconds: float) -> None:
        self.server = server
        self.ends_at = time.monotonic() + seconds
        self.statuses: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def add(self, statuses: Counter[tuple[str, int]]) -> None:
        with self._lock:
            self.statuses += statuses

    def write(self, writer: int) -> None:
        mine: Counter[tuple[str, int]] = Counter()
        with self.server.connect() as connection:
            seq = 0
            while not self.is_over:
                columns = {"writer": [writer] * ROWS, "seq": list(range(seq, seq + ROWS)), "value": [0.5] * ROWS}
                answer = connection.write({"m": "load", "columns": columns})
                mine["write", answer.status] += 1
                seq += ROWS
        self.add(mine)

    def read(self, reader: int) -> None:
        mine: Counter[tuple[str, int]] = Counter()
        with self.server.connect() as connection:
            while not self.is_over:
                sql = QUERIES[(reader + mine.total()) % len(QUERIES)]
                mine["query", connection.request("POST", "/query", {"sql": sql}).status] += 1
        self.add(mine)


def rss_mb(server: ArcServer) -> float:
    """Resident memory of the server's process tree."""
    root = psutil.Process(server.pid)
    return float(sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))) / 2**20


def test_fifty_writers_and_ten_readers_get_exact_totals(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as connection:
        connection.store({"m": "load", "columns": {"writer": [-1], "seq": [0], "value": [0.5]}})
    load, peak_mb = Load(server, SECONDS), 0.0

    with ThreadPoolExecutor(WRITERS + READERS) as pool:
        work = [pool.submit(load.write, number) for number in range(WRITERS)]
        work += [pool.submit(load.read, number) for number in range(READERS)]
        pending = set(work)
        while pending:
            peak_mb = max(peak_mb, rss_mb(server))
            pending = wait(pending, timeout=0.2).not_done
    for done in work:
        done.result()

    assert set(load.statuses) == {("write", 204), ("query", 200)}
    with server.connect() as connection:
        counted = connection.query("SELECT count(*), count(DISTINCT (writer, seq)) FROM load WHERE writer >= 0")
    assert counted == [[load.statuses["write", 204] * ROWS] * 2]
    assert peak_mb < MAX_RSS_MB
    server.stop()


def test_hundred_keep_alive_connections_serve_ten_thousand_requests(server: ArcServer) -> None:
    body = msgpack.packb({"m": "pooled", "t": None, "h": "a", "fields": {"value": 1.5}})
    with ExitStack() as parts:
        connections = [parts.enter_context(server.connect()) for _ in range(100)]
        for _ in range(100):  # all hundred requests are under way before the first answer is read
            for connection in connections:
                connection.send("POST", WRITE_PATH, body)
            assert {connection.receive().status for connection in connections} == {204}
        counted = connections[0].query("SELECT count(*) FROM pooled")
        idle = {connection.request("GET", "/health").status for connection in connections}
    assert counted == [[10_000]]
    assert idle == {200}


def test_nothing_is_rate_limited(server: ArcServer) -> None:
    statuses: Counter[int] = Counter()
    body = msgpack.packb({"m": "unlimited", "fields": {"value": 1.5}})
    with server.connect() as connection:
        statuses.update(connection.request("GET", "/auth/tokens").status for _ in range(500))
        statuses.update(connection.write(body).status for _ in range(5_000))
        counted = connection.query("SELECT count(*) FROM unlimited")
    assert statuses == {200: 500, 204: 5_000}
    assert counted == [[5_000]]
