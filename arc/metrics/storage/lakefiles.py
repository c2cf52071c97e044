"""The files a lake's catalog names, read from the catalog itself: what a backup takes along and a check looks at."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = "__ducklake_metadata_lake"  # under this name DuckLake attaches the catalog of the lake `lake`
CATALOG_FILE = "catalog.ducklake"
FOLDER = "files"

# A table may have several rows, one for each change of its name; where its files lie never changes.
_FILES = f"""
SELECT DISTINCT s.path, t.path, f.path, f.file_size_bytes, f.record_count, f.end_snapshot IS NULL, f.data_file_id
FROM {CATALOG}.ducklake_data_file f
JOIN {CATALOG}.ducklake_table t USING (table_id)
JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id
UNION ALL
SELECT DISTINCT s.path, t.path, d.path, d.file_size_bytes, d.delete_count, d.end_snapshot IS NULL, NULL
FROM {CATALOG}.ducklake_delete_file d
JOIN {CATALOG}.ducklake_table t USING (table_id)
JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id
"""  # noqa: S608 - constants only
_DOOMED = f"SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion"  # noqa: S608


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A Parquet file of rows or of deleted positions.

    is_current: not only older snapshots need it. number: the catalog's for a file of rows, else None.
    """

    path: Path
    size_bytes: int
    rows: int
    is_current: bool
    number: int | None


def lake_files(cursor: duckdb.DuckDBPyConnection, folder: Path) -> list[LakeFile]:
    """Every file that some snapshot needs. folder: where relative paths begin."""
    # An absolute path takes the place of what stands before it, here as in DuckLake.
    return [
        LakeFile(folder / schema / table / file, size, rows, current, number)
        for schema, table, file, size, rows, current, number in cursor.execute(_FILES).fetchall()
    ]


def doomed_files(cursor: duckdb.DuckDBPyConnection, folder: Path) -> set[Path]:
    """Files that nobody needs any more and the next clean-up removes."""
    return {folder / path for (path,) in cursor.execute(_DOOMED).fetchall()}


def forget_file(catalog: Path, number: int) -> None:
    """Strike a file of rows off the catalog of a lake that nobody has open, also for older snapshots."""
    with duckdb.connect(str(catalog)) as connection:
        connection.begin()
        for table in ("ducklake_delete_file", "ducklake_file_column_stats", "ducklake_data_file"):
            connection.execute(f"DELETE FROM {table} WHERE data_file_id = ?", [number])  # noqa: S608 - constants
        connection.commit()


def copy_lake(cursor: duckdb.DuckDBPyConnection, lake: Path, target: Path) -> None:
    """Catalog and files of an attached lake in a new directory, while nobody commits or cleans up.

    target: where the instance may write. The catalog is copied by DuckDB in one transaction, because its file on disk
    is only half of it; the other half is in a log beside it and in memory. Files never change, so they are linked.
    """
    target.mkdir(mode=0o700)
    path = str(target / CATALOG_FILE).replace("'", "''")
    cursor.execute(f"ATTACH '{path}' AS backup")
    try:
        cursor.execute(f"COPY FROM DATABASE {CATALOG} TO backup")
        cursor.execute("DELETE FROM backup.ducklake_files_scheduled_for_deletion")  # they are not taken along
    finally:
        cursor.execute("DETACH backup")
    for file in lake_files(cursor, lake / FOLDER):
        try:
            _link(file.path, target / file.path.relative_to(lake))
        except FileNotFoundError:
            if file.is_current:
                raise


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)  # a file system without links
