"""Deleting rows by condition: what would go, then one lake transaction, in which whole files are simply dropped.

    flush -> Guard.condition -> count by file -> limits -> DELETE

A row goes when the condition is true for it; where it is null, the row stays. Rows that were acknowledged before the
call are covered, as they are flushed first.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from arc.errors import Denied, Invalid, NotFound
from arc.metrics import names
from arc.metrics.query.parsetree import fold
from arc.metrics.storage.lake import exact, quoted, table_name
from arc.metrics.upkeep.files import files_of

if TYPE_CHECKING:
    from arc.metrics.query.engine import QueryEngine
    from arc.metrics.storage.lake import Lake
    from arc.metrics.storage.schema import TableSchema
    from arc.metrics.store import MetricStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """See [delete] in arc.conf.example."""

    enabled: bool = False
    confirmation_threshold: int = 10_000
    max_rows: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Removal:
    """rows: how many go. dropped: names of files that go whole; reduced: of those that keep some rows."""

    rows: int = 0
    dropped: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    removal: Removal
    took_ms: float


class Deletion:
    """Any thread may call it."""

    def __init__(self, store: MetricStore, queries: QueryEngine, options: DeleteOptions) -> None:
        self.options = options
        self._store = store
        self._queries = queries

    def delete(self, database: str, measurement: str, where: str, *, dry_run: bool, confirm: bool) -> Deleted:
        """Remove the rows of a measurement for which `where` is true, or count them.

        Raises Denied while deletes are off, Invalid for a bad condition, too many rows, or a missing confirmation.
        """
        if not self.options.enabled:
            raise Denied("Delete operations are disabled. Set delete.enabled=true in arc.conf to enable.")
        started_s = time.monotonic()
        names.check_database(database)
        names.check_measurement(measurement)
        if self._store.views([(database, measurement)]) == [None]:
            raise NotFound(f"no measurement {database}.{measurement}")
        self._store.flush()
        schema = self._store.schema(database, measurement)
        condition, names_columns = self._queries.guard.condition(where, _stand_ins(schema))
        if not names_columns and not confirm:
            raise Invalid("Full table delete detected (WHERE 1=1). Set confirm=true to proceed.")
        with self._store.upkeep((database, measurement)) as lake:
            removal = removable(lake, schema, condition)
            self._check(removal.rows, dry_run, confirm)
            if not dry_run:
                rows = remove(lake, schema, condition)
                removal = Removal(rows, removal.dropped, removal.reduced)
                log.info("delete: %d rows of %s", rows, schema.full_name)
        return Deleted(removal, round((time.monotonic() - started_s) * 1000, 3))

    def _check(self, rows: int, dry_run: bool, confirm: bool) -> None:
        most, threshold = self.options.max_rows, self.options.confirmation_threshold
        if rows > most:
            raise Invalid(
                f"Delete would affect {rows} rows, exceeding maximum of {most}."
                " Adjust delete.max_rows_per_delete in arc.conf or refine WHERE clause."
            )
        if dry_run or confirm:
            return
        if rows > threshold:
            raise Invalid(f"Delete would affect {rows} rows (threshold: {threshold}). Set confirm=true to proceed.")
        raise Invalid("Confirmation required for delete operation. Set confirm=true or use dry_run=true to preview.")


def removable(lake: Lake, schema: TableSchema, condition: str) -> Removal:
    """What remove() would do now. condition: checked SQL. Raises Invalid for one that cannot be evaluated."""
    counted = dict(_count_by_file(lake, schema, condition)) if schema.in_lake else {}
    table = (schema.database, schema.measurement)
    files = [file for file in files_of(lake, *table).get(table, []) if str(file.path) in counted]
    dropped = {file.name for file in files if counted[str(file.path)] == file.rows - file.deleted_rows}
    reduced = {file.name for file in files} - dropped
    return Removal(sum(counted.values()), tuple(sorted(dropped)), tuple(sorted(reduced)))


def remove(lake: Lake, schema: TableSchema, condition: str) -> int:
    """Delete the rows for which a checked condition is true; returns their number. Hold MetricStore.upkeep()."""
    if not schema.in_lake:
        return 0
    statement = f"DELETE FROM {table_name(schema)} WHERE {condition}"  # noqa: S608 - checked
    with lake.exclusive(f"delete rows of {schema.full_name}") as cursor:
        [(rows,)] = cursor.execute(statement).fetchall()
    return int(rows)


def _count_by_file(lake: Lake, schema: TableSchema, condition: str) -> list[tuple[str, int]]:
    cursor = lake.cursor()
    try:
        return cursor.execute(
            f"SELECT filename, count(*) FROM {table_name(schema)} WHERE {condition} GROUP BY filename"  # noqa: S608
        ).fetchall()
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        raise Invalid(str(error).partition("\n")[0]) from None
    finally:
        cursor.close()


def _stand_ins(schema: TableSchema) -> dict[str, str]:
    """What stands for each column, by folded name: what queries see there, which is not always the column."""
    found = {}
    for name, kind in schema.names_and_types():
        known = exact(name) if name in schema.widened else quoted(name)
        found[fold(name)] = "CAST(NULL AS VARCHAR)" if kind == "NULL" else known
    return found
