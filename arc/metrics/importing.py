"""Bulk import of files: CSV, Parquet, line protocol; spec metrics 2.17.2.

    file -> a copy on disk, inflated, bounded -> read once to the end, nothing stored -> read again, piece by piece
         -> MetricStore.write_arrow: write-ahead log and buffer, as any write -> flush -> answer
The first reading decides the types and finds what cannot be read, so a bad file is refused whole and can be sent again
after it was mended, without rows that are there twice. Memory is bounded by the size of a piece.
"""

from __future__ import annotations

import gzip
import logging
import tempfile
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arc import clock
from arc.errors import ArcError, Invalid, TooLarge, Unavailable, Unreadable
from arc.metrics import names
from arc.metrics.decode import timeunits
from arc.metrics.decode.arrowpoints import arrow_body, plain_column, times_us
from arc.metrics.decode.batch import Batch, time_array
from arc.metrics.decode.csvfile import CsvFile
from arc.metrics.decode.lineprotocol import decode_lines
from arc.metrics.decode.linetext import NEWLINE, unescaped_quotes
from arc.metrics.names import TIME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.metrics.decode.timeunits import Unit
    from arc.metrics.storage.schema import TableSchema
    from arc.metrics.store import MetricStore

log = logging.getLogger(__name__)

FORMATS = {
    "auto": None,
    "epoch_s": timeunits.SECOND,
    "epoch_ms": timeunits.MILLISECOND,
    "epoch_us": timeunits.MICROSECOND,
    "epoch_ns": timeunits.NANOSECOND,
}
_GZIP = b"\x1f\x8b"
_COPY_BYTES = 1 << 20
_LINES_BYTES = 8 << 20  # of line protocol that are read at a time
_MAX_TEXT_BYTES = 8 * _LINES_BYTES  # of a text with newlines in it
_CELLS = 2_000_000  # of Parquet that are read at a time
_ROWS = 100_000
_BODY_BYTES = 16 << 20  # of a write
_MEMORY = "256MB"  # of the DuckDB instance that reads CSV
_ATTEMPTS = 10  # to write a piece while others fill the buffer
_HOUR_US = 3600 * clock.US_PER_S


@dataclass
class Imported:
    """What became of a file. hours: into how many hours the rows fall. first_us, last_us: the range of their times."""

    database: str
    measurements: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: int = 0
    first_us: int | None = None
    last_us: int | None = None
    duration_ms: float = 0.0
    hours: set[int] = field(default_factory=set)

    def add(self, batch: Batch) -> None:
        times = np.asarray(batch.columns[TIME].view(pa.int64()))
        if batch.measurement not in self.measurements:
            self.measurements.append(batch.measurement)
        self.rows += batch.rows
        low, high = int(times.min()), int(times.max())
        self.first_us = low if self.first_us is None else min(self.first_us, low)
        self.last_us = high if self.last_us is None else max(self.last_us, high)
        self.hours.update(np.unique(times // _HOUR_US).tolist())


@dataclass
class ImportCounters:
    """Since the start."""

    requests: int = 0
    rows: int = 0
    errors: int = 0


class Importer:
    """Reads files into a store, one at a time; any thread may call it.

    max_bytes: of a file, as it comes and inflated. Every import raises Invalid for wrong parameters and for what does
    not go with the rows that are stored, Unreadable for the file, TooLarge, Unavailable.
    """

    def __init__(self, store: MetricStore, temp_directory: Path, max_bytes: int) -> None:
        self.counters = ImportCounters()
        self._store = store
        self._temp_directory = temp_directory
        self._max_bytes = max_bytes
        self._running = threading.Lock()

    def import_csv(
        self,
        file: IO[bytes],
        database: str,
        measurement: str,
        *,
        time_column: str = TIME,
        time_format: str = "auto",
        delimiter: str = ",",
        skip_rows: int = 0,
    ) -> Imported:
        """Rows of a CSV file with a header. delimiter: one character; skip_rows: lines before the header."""
        unit = _unit(time_format)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise Invalid("delimiter must be one character")
        with (
            self._importing(file, database, measurement) as (path, done),
            _reader(self._temp_directory) as connection,
        ):
            found = CsvFile(
                connection, path, time_column=time_column, delimiter=delimiter, skip_rows=skip_rows, unit=unit
            )
            done.columns = _time_first(found.names, time_column)
            for table in found.tables():
                self._write(_batch(table, measurement, TIME, found.unit), done)
        return done

    def import_parquet(
        self,
        file: IO[bytes],
        database: str,
        measurement: str,
        *,
        time_column: str = TIME,
        time_format: str = "auto",
    ) -> Imported:
        """Rows of a Parquet file."""
        unit = _unit(time_format)
        with self._importing(file, database, measurement) as (path, done), _parquet(path) as found:
            columns = found.schema_arrow.names
            time_column = _known(columns, time_column)
            done.columns = _time_first(columns, time_column)
            unit = _check_parquet_times(found, time_column, unit)
            for rows in found.iter_batches(max(1, min(_ROWS, _CELLS // len(columns)))):
                self._write(_batch(pa.table(rows), measurement, time_column, unit), done)
        return done

    def import_lines(self, file: IO[bytes], database: str, *, measurement: str = "", precision: str = "ns") -> Imported:
        """Points of a file of line protocol, all or those of one measurement."""
        received_us = clock.now_us()
        with self._importing(file, database, measurement) as (path, done):
            self._check_lines(path, database, precision)
            for _, piece in _line_pieces(path):
                for batch in decode_lines(piece, precision, received_us).batches:
                    if not measurement or batch.measurement.casefold() == measurement.casefold():
                        self._write(batch, done)
        return done

    @contextmanager
    def _importing(self, file: IO[bytes], database: str, measurement: str) -> Iterator[tuple[Path, Imported]]:
        """Around one import: what comes before the first row, and what after the last."""
        names.check_database(database)
        if measurement:
            names.check_measurement(measurement)
        if not self._running.acquire(blocking=False):
            raise Unavailable("another import is running", 5)
        started_s = time.monotonic()
        done = Imported(database)
        self.counters.requests += 1
        try:
            with self._saved(file) as path:
                yield path, done
                if not done.rows:
                    raise Invalid("file contains no rows")
                self._store.flush()
        except ArcError as error:
            self.counters.errors += 1
            if done.rows:  # the disk is full, or another client took a column for another type meanwhile
                raise type(error)(f"{error}; the first {done.rows} rows of the file are stored") from error
            raise
        finally:
            self._running.release()
        done.duration_ms = round((time.monotonic() - started_s) * 1000, 3)
        self.counters.rows += done.rows
        log.info("imported %d rows into %s.%s", done.rows, database, ",".join(done.measurements))

    @contextmanager
    def _saved(self, file: IO[bytes]) -> Iterator[Path]:
        """The file as it is without gzip, on disk. Raises TooLarge, Unreadable."""
        head = file.read(len(_GZIP))
        file.seek(0)
        with tempfile.NamedTemporaryFile(dir=self._temp_directory, prefix="import-") as copy:
            source = gzip.GzipFile(fileobj=file) if head == _GZIP else file
            try:
                while piece := source.read(_COPY_BYTES):
                    if copy.tell() + len(piece) > self._max_bytes:
                        raise TooLarge(f"File too large (max {self._max_bytes >> 20}MB)")
                    copy.write(piece)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise Unreadable(f"invalid gzip: {error}") from None
            except OSError as error:
                raise Unavailable(f"the file cannot be kept while it is read: {error.strerror}", 5) from None
            copy.flush()
            yield Path(copy.name)

    def _check_lines(self, path: Path, database: str, precision: str) -> None:
        """Raises Unreadable for lines that are no points, Invalid for what does not go with what is stored."""
        schemas: dict[str, TableSchema] = {}
        for first_line, piece in _line_pieces(path):
            lines = decode_lines(piece, precision, 0)
            if lines.rejected:
                bad = lines.rejected[0]
                more = f" (and {len(lines.rejected) - 1} lines after it)" if len(lines.rejected) > 1 else ""
                raise Unreadable(f"line {first_line + bad.line_number}: {bad.reason}: {bad.text!r}{more}")
            for batch in lines.batches:
                known = schemas.get(batch.measurement) or self._store.schema(database, batch.measurement)
                schemas[batch.measurement] = known.grown_by([batch])

    def _write(self, batch: Batch, done: Imported) -> None:
        size = sum(column.nbytes for column in batch.columns.values())
        rows = -(-batch.rows // (size // _BODY_BYTES + 1))
        for start in range(0, batch.rows, rows or 1):
            columns = {name: column.slice(start, rows) for name, column in batch.columns.items()}
            part = Batch(batch.measurement, columns, len(columns[TIME]), batch.tags)
            self._write_body(arrow_body(columns, part.tags), done.database, part.measurement)
            done.add(part)

    def _write_body(self, body: bytes, database: str, measurement: str) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._store.write_arrow(body, database, measurement)
            except Unavailable as error:
                full = error
                self._store.flush()  # files come faster than the buffer is flushed
            else:
                return
        raise full


@contextmanager
def _reader(temp_directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An instance of its own, as the store's may open nothing but the lake."""
    config: dict[str, Any] = {"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(temp_directory)}
    with duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Raises Unreadable for whatever is wrong with the file until the end of the block."""
    try:
        schema = pq.read_schema(path)
        # Texts stay references until their plain size was looked at: a small file may hold a long one a million times.
        texts = [column.name for column in schema if column.type in (pa.string(), pa.binary())]
        with pq.ParquetFile(path, buffer_size=_COPY_BYTES, pre_buffer=False, read_dictionary=texts) as found:
            yield found
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"invalid Parquet: {error}") from None


def _check_parquet_times(found: pq.ParquetFile, time_column: str, unit: Unit | None) -> Unit | None:
    """Reads all times and returns the unit of numbers. Raises Unreadable."""
    for rows in found.iter_batches(_ROWS, columns=[time_column]):
        column = pa.chunked_array([rows.column(0)])
        if unit is None and len(column) and isinstance(first := column[0].as_py(), int | float):
            unit = timeunits.unit_of(first)
        _times(column, unit)
    return unit


def _times(column: pa.ChunkedArray, unit: Unit | None) -> np.ndarray:
    try:
        return times_us(column, unit)
    except Invalid as error:
        raise Unreadable(str(error)) from None


def _batch(table: pa.Table, measurement: str, time_column: str, unit: Unit | None) -> Batch:
    """Raises Unreadable for a column of a type that cannot be stored."""
    columns = {TIME: time_array(_times(table.column(time_column), unit))}
    for name in table.column_names:
        if name == time_column:
            continue
        if name.casefold() == TIME:
            raise Invalid(f'column "{name}" is in the way, as "{time_column}" becomes the time')
        try:
            columns[name] = plain_column(name, table.column(name))
        except Invalid as error:
            raise Unreadable(str(error)) from None
    return Batch(measurement, columns, table.num_rows)


def _line_pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines, and how many lines of the file come before them. Raises Unreadable for what is not UTF-8."""
    before, rest = 0, b""
    with path.open("rb") as file:
        while piece := file.read(_LINES_BYTES):
            body = rest + piece
            cut = _end_of_lines(body)
            rest = body[cut:]
            if cut:
                yield before, _utf8(body[:cut], before)
                before += body.count(b"\n", 0, cut)
    if rest:
        yield before, _utf8(rest, before)


def _end_of_lines(body: bytes) -> int:
    """Behind the last newline that does not stand inside quotes; 0 when there is none.

    After a forgotten quote there is none up to the next one; then every newline ends a line once this gets too long.
    """
    newlines = np.flatnonzero(np.frombuffer(body, np.uint8) == NEWLINE)
    outside = newlines[np.searchsorted(unescaped_quotes(body), newlines) % 2 == 0]
    ends = outside if len(outside) or len(body) < _MAX_TEXT_BYTES else newlines
    return int(ends[-1]) + 1 if len(ends) else 0


def _utf8(body: bytes, before: int) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        line = before + body.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: not UTF-8") from None
    return body


def _unit(time_format: str) -> Unit | None:
    if time_format not in FORMATS:
        raise Invalid(f"time_format must be one of {', '.join(FORMATS)}")
    return FORMATS[time_format]


def _known(columns: list[str], time_column: str) -> str:
    if len({name.casefold() for name in columns}) < len(columns):
        raise Invalid(f"two columns have the same name: {', '.join(columns)}")
    found = next((name for name in columns if name.casefold() == time_column.casefold()), None)
    if found is None:
        raise Invalid(f'time column "{time_column}" not found; columns are: {", ".join(columns)}')
    return found


def _time_first(columns: list[str], time_column: str) -> list[str]:
    return [TIME, *(name for name in columns if name.casefold() != time_column.casefold())]
