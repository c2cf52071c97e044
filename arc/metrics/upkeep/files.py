"""The Parquet files of the lake as upkeep sees them: how large, how old, how much of them is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc.metrics.storage.lakefiles import CATALOG

if TYPE_CHECKING:
    from pathlib import Path

    from arc.metrics.storage.lake import Lake

# In the order in which DuckLake takes files for a merge.
_FILES = f"""
SELECT s.schema_name, t.table_name, f.data_file_id, s.path, t.path, f.path, f.file_size_bytes, f.record_count,
    coalesce(d.delete_count, 0), coalesce(epoch_us(try_cast(x.max_value AS TIMESTAMPTZ)), 0),
    (SELECT max(v.begin_snapshot) FROM {CATALOG}.ducklake_schema_versions v
     WHERE v.table_id = f.table_id AND v.begin_snapshot <= f.begin_snapshot)
FROM {CATALOG}.ducklake_data_file f
JOIN {CATALOG}.ducklake_table t ON t.table_id = f.table_id AND t.end_snapshot IS NULL
JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
JOIN {CATALOG}.ducklake_column c ON c.table_id = f.table_id AND c.column_name = 'time' AND c.end_snapshot IS NULL
LEFT JOIN {CATALOG}.ducklake_file_column_stats x ON x.data_file_id = f.data_file_id AND x.column_id = c.column_id
LEFT JOIN {CATALOG}.ducklake_delete_file d ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
WHERE f.end_snapshot IS NULL AND ($database IS NULL OR s.schema_name = $database)
    AND ($measurement IS NULL OR t.table_name = $measurement)
ORDER BY s.schema_name, t.table_name, f.begin_snapshot, f.row_id_start, f.data_file_id
"""  # noqa: S608 - constants only

Table = tuple[str, str]  # database, measurement, in the lake's spelling


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that the newest snapshot needs.

    rows: with the deleted ones. newest_us: time of its newest row. schema: files merge only within one.
    """

    id: int
    path: Path
    size_bytes: int
    rows: int
    deleted_rows: int
    newest_us: int
    schema: int

    @property
    def name(self) -> str:
        return self.path.name


def files_of(lake: Lake, database: str | None = None, measurement: str | None = None) -> dict[Table, list[StoredFile]]:
    """Files by measurement, in the order in which DuckLake merges them; names in the lake's own spelling."""
    cursor = lake.cursor()
    try:
        rows = cursor.execute(_FILES, {"database": database, "measurement": measurement}).fetchall()
    finally:
        cursor.close()
    found: dict[Table, list[StoredFile]] = {}
    for schema_name, table_name, number, schema_path, table_path, path, size, count, deleted, newest, schema in rows:
        file = StoredFile(
            id=number,
            # an absolute path takes the place of what stands before it, here as in DuckLake
            path=lake.files / schema_path / table_path / path,
            size_bytes=size,
            rows=count,
            deleted_rows=deleted,
            newest_us=newest,
            schema=schema or 0,
        )
        found.setdefault((schema_name, table_name), []).append(file)
    return found
