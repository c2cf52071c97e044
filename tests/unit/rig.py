"""A real store, query engine and metadata database in a directory, with upkeep that runs only when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgpack

from arc import config
from arc.db.engine import open_database
from arc.metrics.query.engine import QueryEngine
from arc.metrics.store import MetricStore, StoreOptions
from arc.metrics.upkeep import Upkeep
from arc.metrics.upkeep.files import StoredFile, files_of

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = 1_760_875_200 * SECOND  # 2025-10-19T12:00:00Z


class Rig:
    """options: by `section.name`, as texts."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(exist_ok=True)
        self.config = config.load(None, {}, options)
        self.db = open_database(data_dir)
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.db.close()

    def reopen(self) -> None:
        """As a stop and a start would."""
        self._close()
        self._open()

    def write(self, measurement: str = "cpu", database: str = "default", **columns: list[Any]) -> None:
        body = msgpack.packb({"m": measurement, "columns": columns})
        self.store.write_msgpack(body, database)

    def write_files(self, count: int, rows: int = 10, start: int = 0, measurement: str = "cpu") -> None:
        """`count` files of `rows` rows each; `n` counts through all of them, and so does `time` in seconds."""
        for number in range(count):
            numbers = list(range(start + number * rows, start + (number + 1) * rows))
            hosts = [f"h{n % 3}" for n in numbers]
            self.write(measurement, time=[NOW + n * SECOND for n in numbers], host=hosts, n=numbers)
            self.store.flush()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        table = self.queries.run(sql).table
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def files(self, measurement: str = "cpu", database: str = "default") -> list[StoredFile]:
        return files_of(self.store.lake, database, measurement).get((database, measurement), [])

    def compact(self, *tiers: str) -> int:
        """Run a cycle; returns the number of its jobs."""
        self.upkeep.compaction.trigger(tiers)
        return self.upkeep.compaction.step(NOW)

    def _open(self) -> None:
        self.store = MetricStore(self.data_dir, StoreOptions(buffer_age_s=3600.0))
        self.store.start()
        self.queries = QueryEngine(self.store)
        self.upkeep = Upkeep(self.store, self.queries, self.db, self.config)

    def _close(self) -> None:
        self.queries.stop()
        self.store.close()
