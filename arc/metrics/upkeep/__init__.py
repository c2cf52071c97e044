"""Upkeep: what keeps stored metrics few in files, young enough and summed up, while writes and queries go on.

    compaction.py    many small Parquet files become few large ones; merging.py says how, jobs.py remembers
    retention.py     rows older than a policy allows are removed
    continuous.py    queries run window by window and store their results
    deletion.py      rows that a condition is true for are removed
    snapshots.py     what no query can ask for any more leaves the disk

All of it changes the lake through MetricStore.upkeep(): one change at a time, each of them one lake transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.metrics.upkeep.compaction import Compaction, CompactionOptions
from arc.metrics.upkeep.continuous import ContinuousOptions, ContinuousQueries
from arc.metrics.upkeep.deletion import DeleteOptions, Deletion
from arc.metrics.upkeep.retention import Retention
from arc.metrics.upkeep.schedule import Schedule
from arc.metrics.upkeep.snapshots import SnapshotKeeper

if TYPE_CHECKING:
    from arc.config import Config
    from arc.db.engine import Database
    from arc.loop import PeriodicLoop
    from arc.metrics.query.engine import QueryEngine
    from arc.metrics.store import MetricStore


class Upkeep:
    """All parts of it, as configured. Nothing runs before the loops are started."""

    def __init__(self, store: MetricStore, queries: QueryEngine, db: Database, config: Config) -> None:
        retention, delete, continuous = (config.section(name) for name in ("retention", "delete", "continuous_queries"))
        self.compaction = Compaction(store, db, CompactionOptions.of(config.section("compaction")))
        self.deletion = Deletion(
            store,
            queries,
            DeleteOptions(delete["enabled"], delete["confirmation_threshold"], delete["max_rows_per_delete"]),
        )
        self.continuous = ContinuousQueries(
            store,
            queries,
            db,
            ContinuousOptions(
                continuous["enabled"], continuous["grace_s"], continuous["timeout_s"], deletes_sources=delete["enabled"]
            ),
        )
        self.retention = Retention(
            store, db, retention["enabled"], Schedule(retention["schedule"]), self.continuous.rules
        )
        self.snapshots = SnapshotKeeper(
            store,
            max(config.get("query", "timeout_s"), continuous["timeout_s"]),
            [self.compaction.jobs.forget, self.retention.policies.forget, self.continuous.queries.forget],
        )

    def loops(self) -> list[PeriodicLoop]:
        """In the order in which to start them."""
        return [self.snapshots, self.compaction, self.retention, self.continuous]
