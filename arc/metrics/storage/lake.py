"""The lake: all flushed rows, as Parquet files under a DuckLake catalog.

    lake/catalog.ducklake       DuckLake's catalog (a DuckDB file): schema = database, table = measurement
    lake/files/DB/M/arc-*.parquet   files a flush wrote; merged files are named by DuckLake

    commit: Parquet files (written and synced) + schema growth + number of the WAL segment, one transaction

The segment's number travels in the commit's extra info, so every snapshot says which part of the WAL it holds, and
replay begins behind it. Columns that held only nulls so far have no type DuckLake knows; the table's comment
remembers them, which columns are tags, and which were integers in older files.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import os
import random
import re
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from arc import clock
from arc.metrics.storage.lakefiles import CATALOG, CATALOG_FILE, FOLDER, copy_lake
from arc.metrics.storage.schema import TIME, TableSchema
from arc.metrics.storage.seal import seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)

_FILE_PREFIX = "arc-"
_FILE_PREFIXES = (_FILE_PREFIX, "ducklake-")
_TIME_COLUMN = 1  # DuckLake's number of the first column of a table
_FEW_FILES = 12  # up to here DuckDB reads a list of files faster than DuckLake finds and scans them
_COMMIT_RETRY_MS = 10  # two commits met: the next try works, as the write lock keeps others out

_GLOB = re.compile(r"[*?\[]")  # a list of files cannot name these as they are

# every catalog has a schema `main`; it is a database of ours only when it holds something
_DATABASES = """
SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'lake' AND schema_name <> 'main'
UNION SELECT schema_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY ALL
"""
_TABLES = """
SELECT t.schema_name, t.table_name, t.comment, c.column_name, c.data_type
FROM duckdb_tables() t JOIN duckdb_columns() c USING (database_name, schema_name, table_name)
WHERE t.database_name = 'lake' ORDER BY t.schema_name, t.table_name, c.column_index
"""
_STORED = f"""
SELECT s.schema_name, t.table_name, count(f.data_file_id), coalesce(sum(f.file_size_bytes), 0),
    coalesce(sum(f.record_count - coalesce(d.delete_count, 0)), 0),
    epoch_us(min(c.min_value::TIMESTAMPTZ)), epoch_us(max(c.max_value::TIMESTAMPTZ))
FROM {CATALOG}.ducklake_table t
JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
LEFT JOIN {CATALOG}.ducklake_data_file f ON f.table_id = t.table_id AND f.end_snapshot IS NULL
LEFT JOIN {CATALOG}.ducklake_delete_file d ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
LEFT JOIN {CATALOG}.ducklake_file_column_stats c ON c.data_file_id = f.data_file_id AND c.column_id = {_TIME_COLUMN}
WHERE t.end_snapshot IS NULL GROUP BY ALL
"""  # noqa: S608 - constants only
_FILES_AT = f"""
SELECT s.path, t.path, f.path, coalesce(f.partial_max, 0) <= $version
    AND NOT EXISTS (FROM {CATALOG}.ducklake_delete_file d WHERE d.data_file_id = f.data_file_id)
    AND $columns = (SELECT count(*) FROM {CATALOG}.ducklake_file_column_stats c WHERE c.data_file_id = f.data_file_id)
FROM {CATALOG}.ducklake_data_file f
JOIN {CATALOG}.ducklake_table t ON t.table_id = f.table_id
JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id
WHERE s.schema_name = $database AND t.table_name = $measurement
    AND t.begin_snapshot <= $version AND coalesce(t.end_snapshot > $version, true)
    AND s.begin_snapshot <= $version AND coalesce(s.end_snapshot > $version, true)
    AND f.begin_snapshot <= $version AND coalesce(f.end_snapshot > $version, true)
LIMIT {_FEW_FILES + 1}
"""  # noqa: S608
_MARK = f"""
SELECT commit_extra_info FROM {CATALOG}.ducklake_snapshot_changes
WHERE commit_extra_info IS NOT NULL ORDER BY snapshot_id DESC LIMIT 1
"""  # noqa: S608
_KNOWN_FILES = f"""
SELECT path FROM {CATALOG}.ducklake_data_file
UNION ALL SELECT path FROM {CATALOG}.ducklake_delete_file
UNION ALL SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Stored:
    """What the lake holds of one measurement; size_bytes of its Parquet files."""

    file_count: int
    size_bytes: int
    rows: int
    first_us: int | None = None  # least and greatest time in its files
    last_us: int | None = None


class Lake:
    """One DuckDB instance with the lake attached as `lake`; readers take a cursor, one writer at a time commits.

    memory_limit: DuckDB's, as text; empty leaves DuckDB's own default. threads: 0 means one per core.
    """

    def __init__(
        self,
        directory: Path,
        temp_directory: Path,
        memory_limit: str = "",
        threads: int = 0,
        compression: str = "snappy",
    ) -> None:
        self.directory = directory.resolve()
        self.files = self.directory / FOLDER
        self.temp_directory = temp_directory.resolve()
        self.version = 0
        self.mark = 0
        self._compression = compression
        self._write_lock = threading.Lock()
        self._notes: dict[tuple[str, str], str] = {}
        self._few: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}  # last answers of few_files, with versions
        for folder in (self.directory, self.files, self.temp_directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = duckdb.connect(":memory:", config=_settings(memory_limit, threads, self.temp_directory))
        self._attach()
        self._read_position()
        self._remove_orphans()
        seal(self._connection, [self.directory, self.temp_directory])
        self._writer = self._connection.cursor()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same instance; close it after use."""
        return self._connection.cursor()

    def close(self) -> None:
        with self._write_lock:
            self._writer.close()
            try:
                self._connection.execute("USE memory; DETACH lake")
            except duckdb.Error as exc:  # a full disk takes no checkpoint; the catalog's own log has what it would hold
                log.error("lake: closed without a checkpoint: %s", exc)
            self._connection.close()

    def schemas(self) -> list[TableSchema]:
        """Every measurement the lake holds."""
        found: dict[tuple[str, str], TableSchema] = {}
        with self._reading() as cursor:
            rows = cursor.execute(_TABLES).fetchall()
        for database, measurement, notes, column, kind in rows:
            table = found.get((database, measurement))
            if table is None:
                table = found[database, measurement] = TableSchema(database, measurement, columns={})
                self._notes[database, measurement] = notes or ""
                table.tags = tuple(_noted(notes, "tags"))
                table.widened = frozenset(_noted(notes, "widened"))
            table.columns[column.casefold()] = (column, kind)
            table.in_lake[column] = kind
        for (database, measurement), table in found.items():
            for name in _noted(self._notes[database, measurement], "null_columns"):
                table.columns.setdefault(name.casefold(), (name, "NULL"))
        return list(found.values())

    def databases(self) -> list[str]:
        with self._reading() as cursor:
            return [name for (name,) in cursor.execute(_DATABASES).fetchall()]

    def stored(self) -> dict[tuple[str, str], Stored]:
        """Files, bytes and rows by (database, measurement)."""
        with self._reading() as cursor:
            rows = cursor.execute(_STORED).fetchall()
        return {(database, measurement): Stored(*numbers) for database, measurement, *numbers in rows}

    def few_files(self, schema: TableSchema, version: int) -> tuple[str, ...]:
        """All files of a measurement at a version, if they are few and hold its rows and columns as they are.

        DuckLake takes some milliseconds a query to find out which files there are, and more to make their rows fit the
        table. Where nothing is deleted, no column came later and no merged file has rows of later versions, the plain
        files will do. Empty when that is not so.
        """
        table = (schema.database, schema.measurement)
        known = self._few.get(table)
        if known is None or known[0] != version:
            known = self._few[table] = (version, self._files_at(schema, version))
        return known[1]

    def _files_at(self, schema: TableSchema, version: int) -> tuple[str, ...]:
        if schema.widened:
            return ()
        values = {"database": schema.database, "measurement": schema.measurement, "version": version}
        with self._reading() as cursor:
            rows = cursor.execute(_FILES_AT, values | {"columns": len(schema.in_lake)}).fetchall()
        paths = tuple(str(self.files / schema_path / table_path / path) for schema_path, table_path, path, _ in rows)
        is_plain = len(rows) <= _FEW_FILES and all(row[3] for row in rows)
        return paths if is_plain and not any(_GLOB.search(path) for path in paths) else ()

    def copy_to(self, target: Path) -> dict[tuple[str, str], Stored]:
        """A copy as of now in a new directory, which lies in the temporary one; returns what it holds."""
        with self._write_lock, self._reading() as cursor:
            copy_lake(cursor, self.directory, target)
            return self.stored()

    def write_file(self, schema: TableSchema, rows: pa.Table) -> Path:
        """Rows as a Parquet file on disk, not yet part of the lake."""
        folder = self.files / schema.database / schema.measurement
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{_FILE_PREFIX}{uuid.uuid4().hex}.parquet"
        texts = [
            name for name, kind in zip(rows.column_names, rows.schema.types, strict=True) if pa.types.is_string(kind)
        ]
        # Parquet keeps a level for every value of a column that may be null.
        fields = [pa.field(name, rows[name].type, bool(rows[name].null_count)) for name in rows.column_names]
        # Padding makes the sizes of files differ: it is by size that compaction leaves an unreadable one out.
        metadata = {"padding": "." * random.randrange(256)}  # noqa: S311
        rows = pa.Table.from_arrays(rows.columns, schema=pa.schema(fields, metadata))
        try:
            pq.write_table(
                rows,
                path,
                compression=self._compression,
                use_dictionary=texts,
                # Files are told apart by time; smallest and largest of all else would cost a third of the writing.
                write_statistics=[TIME],
                # neighbouring times differ little; with other columns the encoding costs more than it saves
                column_encoding={TIME: "DELTA_BINARY_PACKED"},
            )
            _sync(path)
            _sync(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def commit(self, files: Sequence[tuple[TableSchema, Path]], mark: int) -> int:
        """Make files part of the lake, with the columns of their schemas and the WAL mark, in one transaction.

        Returns the version (snapshot) that holds them. On an error nothing of it is in the lake, and the files are
        removed.
        """
        with self._write_lock:
            before = self.version
            try:
                with self.transaction(f"flush {len(files)} measurements", mark) as cursor:
                    for schema, path in files:
                        self._grow(cursor, schema)
                        self._add_file(cursor, schema, path)
            except duckdb.Error:
                # An error of COMMIT itself leaves open whether it took place; the catalog knows. When it does not
                # answer either, the files stay: the next start removes them unless they are part of the lake.
                self._read_position()
                if self.version == before:
                    for _, path in files:
                        path.unlink(missing_ok=True)
                    raise
            for schema, _ in files:
                self._notes[schema.database, schema.measurement] = _notes(schema)
            return self.version

    def replace(self, schema: TableSchema, stale: str, path: Path | None) -> None:
        """Put a file of write_file in place of the rows that `stale` (SQL) is true for, in one transaction."""
        with self.exclusive(f"replace rows of {schema.full_name}") as cursor:
            self._grow(cursor, schema)
            cursor.execute(f"DELETE FROM {table_name(schema)} WHERE {stale}")  # noqa: S608 - no user's text
            if path is not None:
                self._add_file(cursor, schema, path)
        self._notes[schema.database, schema.measurement] = _notes(schema)

    def create_database(self, name: str) -> None:
        """Make an empty schema. That of `main` is there from the start, and listed only while it has tables."""
        with self.exclusive(f"create database {name}") as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quoted(name)}")

    def drop_database(self, name: str) -> int:
        """Remove a schema with its tables; returns the number of their files, which the clean-up removes."""
        tables = {table: found for table, found in self.stored().items() if table[0] == name}
        with self.exclusive(f"drop database {name}") as cursor:
            for _, measurement in tables:
                cursor.execute(f"DROP TABLE lake.{quoted(name)}.{quoted(measurement)}")
            if name != "main":
                cursor.execute(f"DROP SCHEMA IF EXISTS lake.{quoted(name)}")
        for table in tables:
            self._notes.pop(table, None)
        return sum(found.file_count for found in tables.values())

    @contextmanager
    def transaction(self, message: str, mark: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """One lake transaction of the only writer; every commit repeats the WAL mark. Hold the write lock."""
        with _rolled_back_on_error(self._writer):
            self._writer.execute("BEGIN TRANSACTION")
            yield self._writer
            self._finish(self._writer, message, self.mark if mark is None else mark)

    @contextmanager
    def exclusive(self, message: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction that flushes wait for: in DuckLake, deleting from a table and adding to it are a conflict."""
        with self._write_lock, self.transaction(message) as cursor:
            yield cursor

    @contextmanager
    def beside(self, message: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction on a connection of its own; only its commit takes turns with flushes. For merging files."""
        with self._reading() as cursor, _rolled_back_on_error(cursor):
            cursor.execute("BEGIN TRANSACTION")
            yield cursor
            with self._write_lock:
                self._finish(cursor, message, self.mark)

    def clean_up(self, before_us: int) -> int:
        """Forget snapshots made before an instant and remove files needed by none since; returns their number.

        Hold no snapshot older than that. Removing files takes time, but it is nobody's concern any more, not even a
        backup's: what is scheduled for removal is no part of any snapshot.
        """
        before = {"older_than": clock.rfc3339(before_us)}
        with self._reading() as cursor:
            with self._write_lock:
                cursor.execute("CALL ducklake_expire_snapshots('lake', older_than => $older_than::TIMESTAMPTZ)", before)
            removed = cursor.execute(
                "CALL ducklake_cleanup_old_files('lake', older_than => $older_than::TIMESTAMPTZ)", before
            )
            return len(removed.fetchall())

    def _finish(self, cursor: duckdb.DuckDBPyConnection, message: str, mark: int) -> None:
        """Commit. Hold the write lock."""
        cursor.execute("CALL lake.set_commit_message('arc', ?, extra_info => ?)", [message, json.dumps({"wal": mark})])
        cursor.execute("COMMIT")
        self.mark = mark
        self.version = _one(cursor.execute("SELECT id FROM lake.current_snapshot()"))

    def _add_file(self, cursor: duckdb.DuckDBPyConnection, schema: TableSchema, path: Path) -> None:
        cursor.execute(
            "CALL ducklake_add_data_files('lake', ?, ?, schema => ?, allow_missing => true)",
            [schema.measurement, str(path), schema.database],
        )

    def _grow(self, cursor: duckdb.DuckDBPyConnection, schema: TableSchema) -> None:
        """Bring the lake's table to the columns and notes of the schema."""
        table = table_name(schema)
        if not schema.in_lake:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quoted(schema.database)}")
            columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in schema.lake_types().items())
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        have = schema.in_lake or schema.lake_types()
        for name, kind in schema.lake_types().items():
            if name not in have:
                cursor.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
            elif have[name] != kind:
                cursor.execute(f"ALTER TABLE {table} ALTER COLUMN {quoted(name)} SET DATA TYPE {kind}")
        self._note(cursor, schema)

    def _note(self, cursor: duckdb.DuckDBPyConnection, schema: TableSchema) -> None:
        """Keep what DuckLake has no place for; only on change, as files merge only within one schema version."""
        notes = _notes(schema)
        if notes != self._notes.get((schema.database, schema.measurement), ""):
            cursor.execute(f"COMMENT ON TABLE {table_name(schema)} IS {literal(notes)}")

    def _attach(self) -> None:
        package = importlib.resources.files("duckdb_extension_ducklake")
        extension = next(Path(str(package)).glob("extensions/*/ducklake.duckdb_extension"))
        self._connection.execute(f"LOAD {literal(str(extension))}")
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        # DuckLake 1.5 loses track of a table's statistics: of nulls when a file lacks a column, of the least and
        # greatest text when a file does not say, as for texts above 4 kB. The optimizer would take `IS NULL` for false.
        # And late materialization reads what a LIMIT wants a second time: three times the work of 100,000 rows.
        self._connection.execute("SET GLOBAL disabled_optimizers = 'statistics_propagation,late_materialization'")
        self._connection.execute(f"SET GLOBAL ducklake_retry_wait_ms = {_COMMIT_RETRY_MS}")
        self._connection.execute(
            f"ATTACH {literal(f'ducklake:{self.directory}/{CATALOG_FILE}')} AS lake "
            f"(DATA_PATH {literal(str(self.files))}, OVERRIDE_DATA_PATH true, DATA_INLINING_ROW_LIMIT 0)"
        )
        self._set_options()

    def _set_options(self) -> None:
        """How DuckLake writes files, those of compaction for one: version 2 of Parquet takes 40 % less space."""
        compression = "uncompressed" if self._compression == "none" else self._compression
        known = dict(self._connection.execute("SELECT option_name, value FROM lake.options()").fetchall())
        for name, value, shown in (("parquet_version", "2", "V2"), ("parquet_compression", compression, compression)):
            if known.get(name) != shown:
                self._connection.execute(f"CALL lake.set_option({literal(name)}, {literal(value)})")

    def _read_position(self) -> None:
        with self._reading() as cursor:
            self.version = _one(cursor.execute("SELECT id FROM lake.current_snapshot()"))
            row = cursor.execute(_MARK).fetchone()
        self.mark = int(json.loads(row[0]).get("wal", 0)) if row else 0

    def _remove_orphans(self) -> None:
        """Remove files of our naming that the catalog does not know: a crash between writing and commit leaves them."""
        with self._reading() as cursor:
            known = {os.path.basename(path) for (path,) in cursor.execute(_KNOWN_FILES).fetchall()}
        for path in self.files.glob("*/*/*.parquet"):
            if path.name.startswith(_FILE_PREFIXES) and path.name not in known:
                log.warning("lake: removing %s, which no commit made part of the lake", path.name)
                path.unlink()

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


@contextmanager
def _rolled_back_on_error(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.Error:
            log.debug("lake: nothing to roll back")
        raise


def table_name(schema: TableSchema) -> str:
    """The lake's table of a measurement, as SQL."""
    return f"lake.{quoted(schema.database)}.{quoted(schema.measurement)}"


def exact(column: str) -> str:
    """A widened column in a query, as SQL: its own value, as an expression.

    Were it the column itself, DuckDB 1.5 would compare the files' integers with the condition's constant rounded to
    an integer: 1 > 0.7 would be false (duckdb issue 24900, fixed after 1.5).
    """
    return f"{quoted(column)} * 1.0"


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def _notes(schema: TableSchema) -> str:
    null_columns = [name for name, kind in schema.columns.values() if kind == "NULL"]
    notes = {"null_columns": null_columns, "tags": list(schema.tags), "widened": sorted(schema.widened_then())}
    notes = {key: names for key, names in notes.items() if names}
    return json.dumps(notes, sort_keys=True) if notes else ""


def _noted(notes: str | None, key: str) -> list[str]:
    return list(json.loads(notes).get(key, ())) if notes else []


def _settings(memory_limit: str, threads: int, temp_directory: Path) -> dict[str, Any]:
    # DuckDB would check the signature of the extension, 35 MB of a package installed as DuckDB itself is, for 0.2 s at
    # every start. seal() takes the permission back.
    settings: dict[str, Any] = {"temp_directory": str(temp_directory), "allow_unsigned_extensions": True}
    if memory_limit:
        settings["memory_limit"] = memory_limit
    if threads:
        settings["threads"] = threads
    return settings


def _one(cursor: duckdb.DuckDBPyConnection) -> int:
    [(value,)] = cursor.fetchall()
    return int(value)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
