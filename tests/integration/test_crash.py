"""kill -9 while eight writers send: what was acknowledged is there after the restart, once.

Every request carries an id and writes to two measurements. After each round the rows of each id are counted in
both: acknowledged ids have all their rows, ids whose answer never came have all or none, no id has a row twice.
ARC_CRASH_ROUNDS: how often the server is killed (default 5; `make crash` sets 100).
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = int(os.environ.get("ARC_CRASH_ROUNDS", "5"))
WRITERS = 8
TABLES = ("as_columns", "as_rows")
BROKEN = (OSError, http.client.HTTPException)  # how a killed server looks to its clients


class Ledger:
    """Which requests were sent and which of them were acknowledged, over all rounds."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self.rows: dict[int, int] = {}  # request id -> rows it has in each table
        self.acknowledged: set[int] = set()

    def new_request(self, rng: random.Random) -> tuple[int, int]:
        """Id and row count of the next request."""
        rows = rng.choice((1, 10, 200))
        with self._lock:
            request = next(self._ids)
            self.rows[request] = rows
        return request, rows

    def acknowledge(self, request: int) -> None:
        with self._lock:
            self.acknowledged.add(request)


def payload(request: int, rows: int) -> list[dict[str, Any]]:
    """The rows of one request: columnar for one table, a batch of rows for the other."""
    now_us = time.time_ns() // 1_000
    columns = {"time": [now_us + row for row in range(rows)], "request": [request] * rows, "row": list(range(rows))}
    items: list[dict[str, Any]] = [{"m": "as_columns", "columns": columns}]
    for row in range(rows):
        items.append({"m": "as_rows", "t": now_us + row, "h": None, "fields": {"request": request, "row": row}})
    return items


def write_until_killed(server: ArcServer, ledger: Ledger, seed: int) -> None:
    """One writer: next request as soon as the last one was answered, until the connection breaks."""
    rng = random.Random(seed)
    with server.connect() as connection:
        while True:
            request, rows = ledger.new_request(rng)
            try:
                answer = connection.write(payload(request, rows))
            except BROKEN:
                return
            assert answer.status == 204, (answer.status, answer.body)
            ledger.acknowledge(request)


def flush_until_killed(server: ArcServer, pause_s: float) -> None:
    """Flushes now and then, so that some kills hit the middle of a lake transaction."""
    with server.connect() as connection:
        stop = threading.Event()
        while not stop.wait(pause_s):
            try:
                connection.flush()
            except BROKEN:
                return


def crash_under_load(server: ArcServer, ledger: Ledger, rng: random.Random) -> None:
    """Load the started server and kill it at a moment of its own choosing."""
    acknowledged_before = len(ledger.acknowledged)
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        work = [pool.submit(write_until_killed, server, ledger, rng.randrange(2**32)) for _ in range(WRITERS)]
        work.append(pool.submit(flush_until_killed, server, rng.choice((0.02, 0.1, 0.5))))
        try:
            enough = rng.randrange(50, 600)
            wait_until(
                lambda: len(ledger.acknowledged) - acknowledged_before >= enough or any(w.done() for w in work),
                f"{enough} acknowledged requests",
                pause_s=0.001,
            )
        finally:
            server.kill9()
    for done in work:
        done.result()


def crash_during_replay(server: ArcServer, rng: random.Random) -> None:
    """Start and kill again before (or just when) the server is ready."""
    server.spawn()
    deadline = time.monotonic() + rng.uniform(0.3, 2.0)
    wait_until(lambda: time.monotonic() > deadline or server.is_ready(), "moment to kill", pause_s=0.01)
    server.kill9()


def stored(server: ArcServer, table: str) -> Iterator[tuple[int, int, int]]:
    """(request id, rows, different rows) of everything one table holds."""
    with server.connect() as connection:
        result = connection.table(f"SELECT request, count(*), count(DISTINCT row) FROM {table} GROUP BY request")
    yield from zip(*(column.to_pylist() for column in result.columns), strict=True)


def check(server: ArcServer, ledger: Ledger) -> None:
    found: dict[str, dict[int, int]] = {}
    for table in TABLES:
        found[table] = {}
        for request, rows, different in stored(server, table):
            assert rows == different, f"request {request} has rows twice in {table}"
            found[table][request] = rows
    assert found["as_columns"] == found["as_rows"], "a request is in one table and not (all) in the other"
    partial = {request: rows for request, rows in found["as_columns"].items() if rows != ledger.rows[request]}
    assert not partial, f"requests stored in part: {partial}"
    assert ledger.acknowledged <= found["as_columns"].keys(), (
        f"acknowledged and lost: {sorted(ledger.acknowledged - found['left'].keys())}"
    )


def test_kill_9_under_load_loses_and_doubles_nothing(make_server: Callable[..., ArcServer]) -> None:
    server, ledger, rng = make_server(), Ledger(), random.Random(20251019)
    server.start()
    for number in range(ROUNDS):
        crash_under_load(server, ledger, rng)
        if number % 3 == 1:
            crash_during_replay(server, rng)
        server.start()
        check(server, ledger)
    assert len(ledger.acknowledged) >= ROUNDS * 50
    server.stop()
