"""Compaction under load: exact totals in every read, and no row changed when the process is killed in the middle.

ARC_COMPACTION_SECONDS: how long eight writers and four readers work (default 20); ARC_COMPACTION_KILLS: rounds of
kill -9 (default 3).
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.server import ArcServer, Connection

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("ARC_COMPACTION_SECONDS", "20"))
KILLS = int(os.environ.get("ARC_COMPACTION_KILLS", "3"))
WRITERS, READERS = 8, 4
BATCH = 20  # rows of a request
OPTIONS = {
    "ingest.buffer_age_s": "0.1",  # many small files
    "compaction.hourly_min_files": "2",
    "compaction.max_files_per_batch": "20",
}
START_MS = 1_760_000_000_000
TOTALS = "SELECT writer, count(*), count(DISTINCT n), min(n), max(n) FROM load GROUP BY writer"


@dataclass
class Ledger:
    """Rows of each writer: asked for, and acknowledged. Each list element has one writer, so no lock is needed."""

    asked: list[int] = field(default_factory=lambda: [0] * WRITERS)
    stored: list[int] = field(default_factory=lambda: [0] * WRITERS)

    def check(self, rows: list[list[Any]], stored_before: list[int]) -> None:
        """Every writer's rows are 0 to n, each once: all that was acknowledged before, nothing never asked for."""
        found = {writer: numbers for writer, *numbers in rows}
        for writer in range(WRITERS):
            count, different, least, most = found.get(writer, (0, 0, 0, -1))
            assert count == different == most + 1, (writer, found)
            assert least == 0, (writer, found)
            assert stored_before[writer] <= count <= self.asked[writer], (writer, found, stored_before)


def write_batch(connection: Connection, ledger: Ledger, writer: int) -> None:
    first = ledger.asked[writer]
    numbers = list(range(first, first + BATCH))
    ledger.asked[writer] += BATCH
    columns = {"time": [START_MS + n for n in numbers], "writer": [writer] * BATCH, "n": numbers}
    connection.store({"m": "load", "columns": columns})
    ledger.stored[writer] = ledger.asked[writer]


def compact(connection: Connection) -> bool:
    """Whether a cycle could be started."""
    answer = connection.request("POST", "/api/v1/compaction/trigger")
    assert answer.status in (200, 409), (answer.status, answer.body)
    return answer.status == 200


def compaction_stats(connection: Connection) -> Any:
    return connection.request("GET", "/api/v1/compaction/stats").json()


class Crew:
    """Threads that call a function again and again, each with a connection of its own, until the crew is stopped."""

    def __init__(self, server: ArcServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def employ(self, work: Callable[[Connection], object], pause_s: float) -> None:
        def run() -> None:
            try:
                with self._server.connect() as connection:
                    while not self._stop.wait(pause_s):
                        work(connection)
            except BaseException as failure:  # looked at in the main thread
                self.failures.append(failure)
                self._stop.set()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def work(self, seconds: float) -> None:
        """Let them work; ends early when one fails."""
        self._stop.wait(seconds)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_every_read_is_exact_while_compaction_runs(make_server: Callable[..., ArcServer]) -> None:
    server, ledger = make_server(options=OPTIONS).start(), Ledger()

    def read(connection: Connection) -> None:
        before = list(ledger.stored)
        ledger.check(connection.query(TOTALS), before)

    with server.connect() as connection:
        write_batch(connection, ledger, 0)
    with ExitStack() as stack:
        crew = Crew(server)
        stack.callback(crew.stop)
        for writer in range(WRITERS):
            crew.employ(lambda c, w=writer: write_batch(c, ledger, w), 0.01)
        for _ in range(READERS):
            crew.employ(read, 0.01)
        crew.employ(compact, 0.2)
        crew.work(SECONDS)
    assert not crew.failures, crew.failures

    with server.connect() as connection:  # a new one: the server closes those that idle for two minutes
        wait_until(lambda: not compaction_stats(connection)["cycle_running"], "the last cycle ends")
        ledger.check(connection.query(TOTALS), ledger.stored)
        stats = compaction_stats(connection)
        assert (stats["total_jobs_failed"], stats["total_jobs_completed"] > 0) == (0, True), stats["recent_jobs"]
        connection.flush()
        wait_until(lambda: compact(connection), "a cycle after the last flush")
        wait_until(lambda: not compaction_stats(connection)["cycle_running"], "it ends")
        files = connection.request("GET", "/api/v1/measurements").json()["measurements"][0]["file_count"]
        assert files < 20 < stats["total_files_compacted"]
        ledger.check(connection.query(TOTALS), ledger.stored)
    server.stop()


def load_until_killed(server: ArcServer, ledger: Ledger, rng: random.Random) -> None:
    """Writers and compaction at work, and SIGKILL at a random moment of it."""

    def broken_off(work: Callable[[Connection], object]) -> Callable[[Connection], object]:
        def call(connection: Connection) -> None:
            with suppress(OSError, http.client.HTTPException):
                work(connection)

        return call

    crew = Crew(server)
    try:
        for writer in range(WRITERS):
            # A request broken off may be stored or not, so its writer goes on only when it was acknowledged.
            crew.employ(
                broken_off(
                    lambda c, w=writer: write_batch(c, ledger, w) if ledger.asked[w] == ledger.stored[w] else None
                ),
                0.01,
            )
        crew.employ(broken_off(compact), 0.05)
        time.sleep(rng.uniform(0.5, 2.0))  # the moment is random on purpose
        server.kill9()
    finally:
        crew.stop()
    assert not crew.failures, crew.failures


def test_kill_9_amid_compaction_changes_no_row(make_server: Callable[..., ArcServer]) -> None:
    server, ledger, rng = make_server(options=OPTIONS), Ledger(), random.Random(20251019)
    for _ in range(KILLS):
        server.start()
        load_until_killed(server, ledger, rng)
        server.start()
        with server.connect() as connection:
            rows = connection.query(TOTALS)
            ledger.check(rows, ledger.stored)
            for writer, count, *_ in rows:  # what was broken off is settled now
                ledger.asked[writer] = ledger.stored[writer] = count
            assert compaction_stats(connection)["active_jobs"] == 0
        server.kill9()
    server.start()
    with server.connect() as connection:
        ledger.check(connection.query(TOTALS), ledger.stored)
        assert compaction_stats(connection)["total_files_compacted"] > 0
    server.stop()
