"""What a query costs beyond the engine: `python -m bench.query [--case NAME] [--runs 100] [--rows 1000000]`.

First line: the machine. Then one JSON line per case. `overhead` cases run each statement over HTTP and, directly
after it, with plain DuckDB in this process over the same Parquet files; overhead_ms is the median difference.
    count, last-hour, group-by   overhead_ms of POST /query
    arrow-100k                   100,000 rows by POST /query/arrow over DuckDB-to-Arrow in process: ratio of medians
    json-100k                    100,000 rows x 7 columns by POST /query: rows per second until the last byte
    stream                       5,000,000 rows by POST /query/stream as CSV: seconds to the first byte and to the last,
                                 growth of the server's memory meanwhile
    start                        seconds from start to ready on the directory just filled, memory idle for 10 s
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import duckdb
import requests

from bench import bodies
from bench.harness import fresh_server, machine, note, report, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.server import ArcServer, Connection

DAYS = 7
BODY_ROWS = 10_000
IDLE_S = 10.0
COLUMNS = "time, host, region, env, usage_idle, usage_user, usage_system"

OVERHEAD = {
    "count": "SELECT count(*) FROM cpu",
    "last-hour": "SELECT avg(usage_idle) FROM cpu WHERE time >= TIMESTAMPTZ '{last_hour}'",
    "group-by": "SELECT host, avg(usage_idle), max(usage_user) FROM cpu GROUP BY host ORDER BY host",
}
STREAM_ROWS = 5_000_000
HUNDRED_THOUSAND = f"SELECT {COLUMNS} FROM cpu LIMIT 100000"


class Bench:
    """A server filled with `rows` rows of the last days, and plain DuckDB over the files it wrote."""

    def __init__(self, server: ArcServer, rows: int, runs: int) -> None:
        self.server, self.rows, self.runs = server, rows, runs
        self.end_ms = time.time_ns() // 1_000_000
        self.plain = duckdb.connect()
        self.plain.execute("SET TimeZone = 'UTC'")

    def fill(self) -> None:
        """Rows in order of time, as they come from machines that report all the time."""
        rng = random.Random(7)
        step_ms = DAYS * 86_400_000 / self.rows
        with self.server.connect(timeout_s=600) as connection:
            for first in range(0, self.rows, BODY_ROWS):
                columns = bodies.columns(rng, min(BODY_ROWS, self.rows - first))
                start_ms = self.end_ms - DAYS * 86_400_000 + first * step_ms
                columns["time"] = [int(start_ms + row * step_ms) for row in range(len(columns["time"]))]
                connection.store({"m": "cpu", "columns": columns})
            connection.flush()
            assert connection.query("SELECT count(*) FROM cpu") == [[self.rows]]

    def open_files(self) -> int:
        """Make `cpu` in plain DuckDB a view of the server's Parquet files; how many there are."""
        files = [str(path) for path in self.server.data_dir.glob("lake/**/*.parquet")]
        self.plain.execute(f"CREATE OR REPLACE VIEW cpu AS SELECT * FROM read_parquet({files})")
        assert self.plain.sql("SELECT count(*) FROM cpu").fetchone() == (self.rows,)
        return len(files)

    def overhead(self, sql: str) -> dict[str, Any]:
        """Median of HTTP minus plain over the runs, in turns, so that both meet the same machine."""
        statement = sql.format(last_hour=self._last_hour())
        with self.server.connect() as connection:
            pairs = [
                (timed(lambda: connection.query(statement)), timed(lambda: self.plain.sql(statement).fetchall()))
                for _ in range(self.runs + 5)
            ][5:]  # the first runs warm up
        return {
            "overhead_ms": round(median(http - plain for http, plain in pairs) * 1000, 2),
            "http_ms": round(median(http for http, _ in pairs) * 1000, 2),
            "plain_ms": round(median(plain for _, plain in pairs) * 1000, 2),
        }

    def _last_hour(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.end_ms / 1000 - 3600))

    def arrow(self) -> dict[str, Any]:
        with self.server.connect() as connection:
            pairs = [
                (
                    timed(lambda: connection.table(HUNDRED_THOUSAND)),
                    timed(lambda: self.plain.sql(HUNDRED_THOUSAND).to_arrow_table()),
                )
                for _ in range(self.runs // 4 + 5)
            ][5:]
        http, plain = (median(column) for column in zip(*pairs, strict=True))
        return {"ratio": round(http / plain, 2), "http_ms": round(http * 1000, 2), "plain_ms": round(plain * 1000, 2)}

    def json(self) -> dict[str, Any]:
        with self.server.connect() as connection:
            seconds = [timed(lambda: self._json_body(connection)) for _ in range(self.runs // 10 + 3)][3:]
        return {"rows_per_s": round(100_000 / median(seconds)), "http_ms": round(median(seconds) * 1000, 2)}

    def _json_body(self, connection: Connection) -> None:
        answer = connection.request("POST", "/query", {"sql": HUNDRED_THOUSAND})
        assert answer.status == 200, answer.body

    def stream(self) -> dict[str, Any]:
        """Read as fast as it comes, keep nothing; the peak includes what earlier cases left."""
        sql = f"SELECT {COLUMNS} FROM cpu, range({-(-STREAM_ROWS // self.rows)}) LIMIT {STREAM_ROWS}"
        before = usage(self.server.pid)
        started_s = time.perf_counter()
        with requests.post(
            f"{self.server.url}/query/stream",
            json={"sql": sql},
            headers={"Authorization": f"Bearer {self.server.token}"},
            stream=True,
            timeout=600,
        ) as answer:
            pieces = answer.iter_content(2**20)
            first = next(pieces)
            first_s = time.perf_counter() - started_s
            lines, peak_mb = first.count(b"\n"), before.rss_mb
            for number, piece in enumerate(pieces):
                lines += piece.count(b"\n")
                if number % 16 == 0:
                    peak_mb = max(peak_mb, usage(self.server.pid).rss_mb)
        assert lines == STREAM_ROWS + 1, lines
        last_s = time.perf_counter() - started_s
        return {
            "rows": STREAM_ROWS,
            "first_byte_s": round(first_s, 3),
            "last_byte_s": round(last_s, 2),
            "rows_per_s": round(STREAM_ROWS / last_s),
            "growth_mb": round(peak_mb - before.rss_mb),
        }

    def start(self) -> dict[str, Any]:
        """Stop, start on the same directory, wait, look at the memory."""
        self.server.stop()
        start_s = timed(self.server.start)
        time.sleep(IDLE_S)
        return {"ready_s": round(start_s, 2), "idle_mb": round(usage(self.server.pid).rss_mb)}


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    overhead = {name: lambda sql=sql: bench.overhead(sql) for name, sql in OVERHEAD.items()}
    return {
        **overhead,
        "arrow-100k": bench.arrow,
        "json-100k": bench.json,
        "stream": bench.stream,
        "start": bench.start,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.query", description="What a query costs beyond the engine.")
    names = [*OVERHEAD, "arrow-100k", "json-100k", "stream", "start"]
    parser.add_argument("--case", action="append", choices=names, help="may be repeated; default: all")
    parser.add_argument("--runs", type=int, default=100, help="runs of each overhead case")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to query")
    parser.add_argument("--data", help="folder for the server's data directory; default: the system's for such")
    parser.add_argument("--json", help="file to append the JSON lines to, beside printing them")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    report(options.json, bench="query", rows=options.rows, runs=options.runs, **machine())
    with fresh_server(options.data, {"query_cache.enabled": "false"}) as server:
        bench = Bench(server, options.rows, options.runs)
        note("storing rows")
        bench.fill()
        files = bench.open_files()
        for name, run in cases(bench).items():
            if not options.case or name in options.case:
                report(options.json, case=name, files=files, **run())
        bench.plain.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
