"""All databases and measurements: how they are spelled, and which columns the rows of each may have.

write -> reserve: what its batches need is there already, or claimed for them -> WAL, buffer
flush -> note_in_lake: the lake has those columns now
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.metrics.storage.schema import TableSchema, signature

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from arc.metrics.decode.batch import Batch
    from arc.metrics.storage.buffer import Key
    from arc.metrics.storage.lake import Lake


class Schemas:
    """lock: the store's, which guards schemas and buffer together; reserve() takes it, for the rest the caller holds
    it.

    Only grows but by forget(), so that a look at one measurement needs no lock.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._schemas: dict[Key, TableSchema] = {}
        self._databases: dict[str, str] = {}  # folded name -> spelling

    def load(self, lake: Lake) -> None:
        """What the lake holds, at a start."""
        for database in lake.databases():
            self.add_database(database)
        for schema in lake.schemas():
            self._schemas[schema.database.casefold(), schema.measurement.casefold()] = schema

    def __getitem__(self, key: Key) -> TableSchema:
        return self._schemas[key]

    def get(self, key: Key) -> TableSchema | None:
        return self._schemas.get(key)

    def of(self, database: str | None) -> Iterator[tuple[Key, TableSchema]]:
        """Those of one database, or all."""
        folded = None if database is None else database.casefold()
        return ((key, schema) for key, schema in self._schemas.items() if folded in (None, key[0]))

    def databases(self) -> list[str]:
        return list(self._databases.values())

    def spelling(self, database: str) -> str | None:
        """How a database was first spelled; None for an unknown one."""
        return self._databases.get(database.casefold())

    def add_database(self, name: str) -> None:
        self._databases.setdefault(name.casefold(), name)

    def reserve(self, database: str, batches: list[Batch]) -> list[tuple[Key, Batch]]:
        """Check the batches against what is stored and claim new columns and types; all or none. Raises Invalid.

        It happens before the WAL write, so that whatever is in the log can be replayed in any order.
        """
        folded = database.casefold()
        keyed: list[tuple[Key, Batch]] = []
        unknown: dict[Key, list[Batch]] = {}
        for batch in batches:
            key = (folded, batch.measurement.casefold())
            schema = self._schemas.get(key)
            renames = None if schema is None else schema.renames_of(batch)
            if renames is None:
                unknown.setdefault(key, []).append(batch)
            elif renames:
                _rename(batch, renames)
            keyed.append((key, batch))
        if unknown:
            self._grow(database, unknown)
        return keyed

    def _grow(self, database: str, unknown: dict[Key, list[Batch]]) -> None:
        with self._lock:
            spelling = self._databases.get(database.casefold(), database)
            grown = {}
            for key, batches in unknown.items():
                schema = self._schemas.get(key) or TableSchema(spelling, batches[0].measurement)
                grown[key] = schema.grown_by(batches)
            self._schemas |= grown
            self.add_database(database)
        for key, batches in unknown.items():
            for batch in batches:
                _rename(batch, grown[key].renames[signature(batch)])

    def note_in_lake(self, schemas: Iterable[tuple[Key, TableSchema]]) -> None:
        """Rows of these schemas, which may have grown since, are in the lake now."""
        for key, schema in schemas:
            current, widened, types = self._schemas[key], schema.widened_then(), schema.lake_types()
            current.widened, current.in_lake = widened, types

    def forget(self, database: str) -> list[Key]:
        """Let a database begin anew; returns the measurements it had."""
        keys = [key for key, _ in self.of(database)]
        for key in keys:
            self._schemas.pop(key).in_lake = {}  # upkeep may have looked it up already
        del self._databases[database.casefold()]
        return keys


def _rename(batch: Batch, renames: dict[str, str]) -> None:
    if renames:
        batch.columns = {renames.get(name, name): column for name, column in batch.columns.items()}
