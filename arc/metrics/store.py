"""The metric store: what happens to a write, and what a query sees.

    write_* -> inflate -> decode -> reserve types -> WAL (one block and one sync for all who wait) -> buffer -> answer
    flusher -> flush: freeze buffer, close WAL segment -> Parquet files -> lake commit with the segment's number -> drop
    views   -> lake version and buffered rows, as of one instant

Locks, always taken in this order: `_large` (inflating and decoding a large body), `_changing` (upkeep), `_flushing`
(one flush at a time), `_committing` (WAL and what enters the buffer, held during the sync), `_lock` (schemas, buffer,
lake version; never during I/O or decoding).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from arc import clock
from arc.errors import Conflict, Invalid, NotFound, Unavailable
from arc.loop import PeriodicLoop
from arc.metrics import names
from arc.metrics.decode import formats
from arc.metrics.decode.inflate import inflate
from arc.metrics.decode.lineprotocol import LinesRejected, decode_lines, without_lines
from arc.metrics.storage.buffer import Chunk, Key, Rows, WriteBuffer
from arc.metrics.storage.lake import Lake, Stored
from arc.metrics.storage.schema import TableSchema, rows_as_table
from arc.metrics.storage.schemas import Schemas
from arc.metrics.storage.wal import Entry, WriteAheadLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from arc.metrics.decode.batch import Batch
    from arc.metrics.decode.lineprotocol import Rejected

log = logging.getLogger(__name__)

# Arrow's own allocator takes huge pages, again and again; clearing them was a third of the work of line protocol.
pa.set_memory_pool(pa.system_memory_pool())

_LARGE_BYTES = 1 << 18  # bodies above it are decoded one at a time,
_TURN_S = 1.0  # unless that would make one wait longer
_LINE_PASSES = 5  # over a body of lines until all that is left of it can be stored
_CHECK_INTERVAL_S = 0.25  # how late a flush by age may be
_RETRY_S = (1, 2, 5, 10, 30)  # waits after failed flushes; the last one repeats
_SPACE_RETRY_AFTER_S = 5
_ROOM_WAIT_S = 2.0  # a flush that works takes less
_MAX_ROOM_SEEKERS = 4  # they hold request threads, and queries need some too


@dataclass(frozen=True)
class MeasurementInfo:
    """One measurement as a listing shows it. columns: (name, DuckDB type).

    file_count, total_size_bytes, first_us and last_us (least and greatest time): of the lake.
    """

    database: str
    measurement: str
    file_count: int
    total_size_bytes: int
    columns: list[tuple[str, str]]
    buffered_rows: int
    rows: int
    first_us: int | None = None
    last_us: int | None = None


@dataclass(frozen=True)
class TableView:
    """One measurement as of one instant: the rows of `lake_version` and, disjoint from them, `buffered`.

    columns: (name, DuckDB type) in order, `time` first; type NULL while only nulls were seen.
    lake_version: None while the lake has no such table. lake_columns: what its table has at that version; widened:
    those of them to be read through lake.exact().
    buffered: may lack columns; None when no row waits. files: see lake.few_files().
    """

    database: str
    measurement: str
    columns: tuple[tuple[str, str], ...]
    lake_version: int | None
    lake_columns: frozenset[str]
    buffered: pa.Table | None
    widened: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


@dataclass(slots=True)
class PendingWrite:
    """A request that was decoded and found good. finish() must follow, from any thread."""

    store: MetricStore
    entry: Entry
    batches: list[tuple[Key, Batch]]
    plain_bytes: int
    rejected: list[Rejected] = field(default_factory=list)
    is_done: bool = False
    error: Exception | None = None

    @property
    def rows(self) -> int:
        return sum(batch.rows for _, batch in self.batches)

    def finish(self) -> None:
        """Return once the rows are on disk and in sight, with those of all requests that are pending by then."""
        self.store.finish(self)


@dataclass(slots=True)
class Counters:
    """Since the start."""

    requests: int = 0
    rows: int = 0
    bytes: int = 0
    rejected: int = 0
    rejected_lines: int = 0
    flushes: int = 0
    flush_failures: int = 0
    flushed_rows: int = 0
    files: int = 0  # written by flushes
    file_bytes: int = 0
    replayed_rows: int = 0
    replay_errors: int = 0
    by_kind: dict[int, list[int]] = field(default_factory=dict)  # requests and rows


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """See [wal], [ingest] and [query] in arc.conf.example."""

    wal_sync: str = "always"
    wal_sync_interval_ms: int = 100
    wal_segment_bytes: int = 64 << 20
    buffer_rows: int = 500_000
    buffer_age_s: float = 60.0  # rows are on disk and visible before it; a flush makes files of them
    buffer_bytes: int = 256 << 20
    max_inflated_bytes: int = 100 << 20
    compression: str = "snappy"
    memory_limit: str = ""
    threads: int = 0


class MetricStore:
    """All metrics of one server. Any thread may call it.

    data_dir: holds wal/, lake/ and tmp/. Until start() has replayed the WAL, writes and queries raise Unavailable.
    """

    def __init__(self, data_dir: Path, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self.counters = Counters()
        self.is_ready = False
        self.takes_writes = True  # an action may stop them for a while
        self._flushing = threading.Lock()
        self._committing = threading.Lock()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._room_by: float | None = None  # monotonic seconds; until then writers wait for room
        self._room_seekers = threading.Semaphore(_MAX_ROOM_SEEKERS)
        self._closing = threading.Lock()
        self._large = threading.Lock()
        self._changing = threading.Lock()
        self._is_closed = False
        self._waiting: deque[PendingWrite] = deque()
        self._schemas = Schemas(self._lock)
        self._buffer = WriteBuffer()
        self._lake_version = 0
        self._start_offset = 0
        self._dropped_us = 0  # when a database was dropped last
        self._writes: dict[Key, int] = {}  # number of batches, or changes by upkeep, by measurement
        self._offsets: dict[str, int] = {}  # position in the log behind the last write of a database
        self._flusher = _Flusher(self)
        self.wal = WriteAheadLog(
            data_dir / "wal",
            self.options.wal_sync,
            self.options.wal_sync_interval_ms,
            self.options.wal_segment_bytes,
        )
        self.lake = Lake(
            data_dir / "lake",
            data_dir / "tmp",
            self.options.memory_limit,
            self.options.threads,
            self.options.compression,
        )

    def start(self) -> None:
        """Load schemas, replay the WAL, then take writes and queries."""
        self._lake_version = self.lake.version
        self._schemas.load(self.lake)
        self._replay()
        self._start_offset = self.wal.position
        self.is_ready = True
        self._flusher.start()

    def close(self) -> None:
        """Flush what is buffered and close; may be called twice. What cannot be flushed stays in the WAL."""
        self._flusher.stop()
        was_ready, self.is_ready = self.is_ready, False
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                if was_ready:
                    self._flush_or_refuse()
            except Unavailable:
                log.error("store: the last flush failed; its rows stay in the WAL")
            self.wal.close()
            self.lake.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection to the instance in which the lake is attached as `lake`."""
        return self.lake.cursor()

    def write_msgpack(self, body: bytes, database: str, announced_encoding: str = "") -> int:
        """Store the rows of one MessagePack body, all or nothing. Returns their number once they are on disk.

        Raises Invalid, TooLarge, Unavailable (no space, or the buffer is full).
        """
        return _finished(self.accept_msgpack(body, database, announced_encoding)).rows

    def write_arrow(self, body: bytes, database: str, measurement: str, announced_encoding: str = "") -> int:
        """Like write_msgpack, for the rows of one Arrow IPC stream."""
        return _finished(self.accept_arrow(body, database, measurement, announced_encoding)).rows

    def write_json(self, body: bytes, database: str, ndjson: bool = False, announced_encoding: str = "") -> int:
        """Like write_msgpack, for JSON; ndjson: one object per line."""
        return _finished(self.accept_json(body, database, ndjson, announced_encoding)).rows

    def write_lines(
        self, body: bytes, database: str, precision: str = "", announced_encoding: str = ""
    ) -> PendingWrite:
        """Like accept_lines, and finished."""
        return _finished(self.accept_lines(body, database, precision, announced_encoding))

    def accept_msgpack(self, body: bytes, database: str, announced_encoding: str = "") -> PendingWrite:
        """The first half of write_msgpack; finish() is the second.

        Whoever has several requests accepts them all before finishing any: then they share one write and one sync.
        """
        return self._accept(formats.MSGPACK, body, database, announced_encoding)

    def accept_arrow(self, body: bytes, database: str, measurement: str, announced_encoding: str = "") -> PendingWrite:
        return self._accept(formats.ARROW, body, database, announced_encoding, measurement)

    def accept_json(
        self, body: bytes, database: str, ndjson: bool = False, announced_encoding: str = ""
    ) -> PendingWrite:
        return self._accept(formats.JSON, body, database, announced_encoding, "ndjson" if ndjson else "")

    def accept_lines(
        self, body: bytes, database: str, precision: str = "", announced_encoding: str = ""
    ) -> PendingWrite:
        """The lines of a line protocol body that can be stored, and in `rejected` those that cannot.

        precision: of the timestamps, see lineprotocol.PRECISIONS. Raises like write_msgpack, if no line is good too.
        """
        self._check_writable(database)
        received_us = clock.now_us()
        with self._decoding(body):
            plain = inflate(body, announced_encoding, self.options.max_inflated_bytes)
            good, keyed, rejected = self._accept_lines(plain, database, precision, received_us)
        if rejected:
            first = rejected[0]
            log.warning(
                "%d lines for %s rejected; line %d: %s", len(rejected), database, first.line_number, first.reason
            )
        # Whether a line is good can depend on what was stored before it, so the log gets good lines only.
        logged = Entry(formats.LINES, database, good if rejected else body, received_us, precision)
        return self._pending(PendingWrite(self, logged, keyed, len(good), rejected))

    def flush(self, database: str | None = None, measurement: str | None = None) -> int:
        """Make every buffered row part of the lake; returns the number of rows.

        database, measurement: all is flushed whatever they say, as WAL segments cover all measurements.
        Raises Unavailable when the disk has no space, and while the log is replayed: a flush of what was read so
        far would pass for one of the whole log.
        """
        self._check_ready()
        return self._flush_or_refuse()

    def _flush_or_refuse(self) -> int:
        with self._flushing:
            try:
                return self._flush()
            except (OSError, duckdb.Error, pa.ArrowException) as exc:
                self.counters.flush_failures += 1
                log.exception("flush failed; the rows are kept")
                raise Unavailable(f"flush failed: {exc}", _SPACE_RETRY_AFTER_S) from exc

    @contextmanager
    def upkeep(self, *changed: tuple[str, str]) -> Iterator[Lake]:
        """The lake, to change how rows lie in it or which stay: one part of upkeep at a time.

        Queries see what it committed as soon as it is left. changed: measurements (database, name) of which rows come
        or go; no cached answer outlives that.
        """
        self._check_ready()
        with self._changing:
            try:
                yield self.lake
            finally:
                with self._flushing, self._lock:  # not amid a flush, whose rows would be seen in the buffer too
                    self._lake_version = self.lake.version
                    self._note_changes(changed)

    def replace_rows(self, database: str, batch: Batch, stale: str) -> None:
        """Put rows into the lake in place of those that `stale` (SQL) is true for, at once and without the WAL.

        For rows that can be made again: that is what makes up for a crash before the commit. Raises Invalid.
        """
        with self.upkeep((database, batch.measurement)) as lake, self._flushing:
            [(key, batch)] = self._schemas.reserve(database, [batch])
            schema = self._schemas[key]
            path = lake.write_file(schema, rows_as_table(schema, [batch.columns])) if batch.rows else None
            try:
                lake.replace(schema, stale, path)
            except BaseException:
                if path is not None:
                    path.unlink(missing_ok=True)
                raise
            with self._lock:
                self._lake_version = lake.version
                self._schemas.note_in_lake([(key, schema)])

    def create_database(self, name: str) -> None:
        """Make an empty database. Raises Invalid, Conflict."""
        names.check_database(name)
        with self.upkeep() as lake:
            if self._schemas.spelling(name) is not None:
                raise Conflict(f"Database '{name}' already exists")
            lake.create_database(name)
            with self._lock:
                self._schemas.add_database(name)

    def drop_database(self, name: str) -> int:
        """Remove a database with every row acknowledged so far; returns the number of its files. Raises NotFound.

        Writes wait meanwhile, as the rows of one that comes between would be in the log under forgotten types.
        """
        self._check_ready()
        self.flush()  # so that they do not wait long
        with self.upkeep() as lake, self._flushing, self._committing:
            spelling = self._schemas.spelling(name)
            if spelling is None:
                raise NotFound(f"Database '{name}' not found")
            self._move_to_lake(*self._freeze())
            files = lake.drop_database(spelling)
            with self._lock:
                self._note_changes(self._schemas.forget(name))
                self._dropped_us = clock.now_us()
                self._lake_version = lake.version
        return files

    def _note_changes(self, changed: Iterable[tuple[str, str]]) -> None:
        for database, measurement in changed:
            key = (database.casefold(), measurement.casefold())
            self._writes[key] = self._writes.get(key, 0) + 1

    def stamps(self, wanted: Iterable[tuple[str, str]]) -> tuple[int, ...]:
        """Numbers that are others once the rows of one of these measurements (database, name) have changed.

        Ask before views(): then rows that come between the two make the stamps too old, never too new.
        """
        keys = ((database.casefold(), measurement.casefold()) for database, measurement in wanted)
        return tuple(self._writes.get(key, 0) for key in keys)

    def sync_wal(self) -> None:
        """Have all that was acknowledged on disk, whatever [wal] sync says. Raises Unavailable."""
        with self._committing:
            try:
                self.wal.sync_now()
            except OSError as exc:
                raise Unavailable(f"write-ahead log: {exc.strerror}", _SPACE_RETRY_AFTER_S) from exc

    def copy_to(self, target: Path) -> dict[tuple[str, str], Stored]:
        """Put `wal/` and `lake/` into a directory below tmp/; returns what the lake there holds, by measurement.

        The copy has every row acknowledged before the call, all or nothing of each request, and nobody waits for it.
        The log comes first, the lake second. Any segment that a flush makes redundant in between is marked as such
        in the lake copied later, and replay skips it; any that no flush has touched was copied. The other order
        could miss the rows that such a flush moved.
        """
        if self.is_ready:
            self.flush()  # so that the log to be copied is short
        with self._committing:
            closed = self.wal.rotate()
        self.wal.copy_to(target / "wal", closed)
        return self.lake.copy_to(target / "lake")

    def databases(self) -> list[str]:
        """Names of all databases that hold something, sorted."""
        with self._lock:
            return sorted(self._schemas.databases())

    def offset(self, database: str) -> int:
        """Position in the log behind the last acknowledged write of a database; it only grows.

        That of the start for one that was not written to since.
        """
        return self._offsets.get(database.casefold(), self._start_offset)

    def measurements(self, database: str | None = None) -> list[MeasurementInfo]:
        """All measurements, or those of one database, sorted."""
        stored = self.lake.stored()
        with self._lock:
            buffered = self._buffer.sizes()
            schemas = [found for found in self._schemas.of(database) if found[1].in_lake or found[0] in buffered]
        infos = [_info(schema, stored, buffered.get(key, 0)) for key, schema in schemas]
        return sorted(infos, key=lambda info: (info.database, info.measurement))

    def views(self, wanted: Iterable[tuple[str, str]]) -> list[TableView | None]:
        """Measurements (database, name) as of one instant; None for an unknown one. Raises Unavailable."""
        self._check_ready()
        keys = [(database.casefold(), measurement.casefold()) for database, measurement in wanted]
        with self._lock:
            version = self._lake_version
            # copies: what the lake has of a schema changes with the next flush
            found = [(key, copy(self._schemas.get(key)), self._buffer.chunks(key)) for key in keys]
        return [self._view(key, schema, chunks, version) for key, schema, chunks in found]

    def schema(self, database: str, measurement: str) -> TableSchema:
        """What is known of a measurement; without columns but `time` for a new one."""
        with self._lock:
            known = self._schemas.get((database.casefold(), measurement.casefold()))
        return known or TableSchema(database, measurement)

    def stats(self) -> dict[str, Any]:
        """Counters and sizes, for the routes that report them."""
        with self._lock:
            sizes = {self._schemas[key].full_name: rows for key, rows in self._buffer.sizes().items()}
            oldest = self._buffer.oldest_us
            rows, size = self._buffer.rows, self._buffer.size_bytes
        counters = self.counters
        return {
            "requests": counters.requests,
            "rows": counters.rows,
            "bytes": counters.bytes,
            "rejected": counters.rejected,
            "rejected_lines": counters.rejected_lines,
            "flushes": counters.flushes,
            "flush_failures": counters.flush_failures,
            "flushed_rows": counters.flushed_rows,
            "files": counters.files,
            "file_bytes": counters.file_bytes,
            "by_format": {formats.NAMES[kind]: tuple(counts) for kind, counts in counters.by_kind.copy().items()},
            "buffered_rows": rows,
            "buffered_bytes": size,
            "buffered_by_measurement": sizes,
            "oldest_buffered_s": 0.0 if oldest is None else max(0.0, (clock.now_us() - oldest) / clock.US_PER_S),
            "lake_version": self._lake_version,
            "wal_sync": self.wal.sync,
            "wal_segment": self.wal.number,
            "wal_entries": self.wal.entries,
            "wal_bytes": self.wal.bytes_written,
            "wal_syncs": self.wal.syncs,
            "wal_rotations": self.wal.rotations,
            "wal_failed_writes": self.wal.failed_writes,
            "wal_replayed_entries": self.wal.report.entries,
            "wal_replayed_rows": counters.replayed_rows,
            "wal_skipped_entries": self.wal.report.skipped,
            "wal_cut_bytes": self.wal.report.cut_bytes,
        }

    def flush_is_due(self, now_us: int) -> bool:
        """By rows, age, or the size of the open WAL segment."""
        oldest = self._buffer.oldest_us
        if oldest is None:
            return False
        age_s = (now_us - oldest) / clock.US_PER_S
        return age_s >= self.options.buffer_age_s or self._is_full()

    def _accept(
        self, kind: int, body: bytes, database: str, announced_encoding: str, options: str = ""
    ) -> PendingWrite:
        self._check_writable(database)
        received_us = clock.now_us()
        with self._decoding(body):
            plain = inflate(body, announced_encoding, self.options.max_inflated_bytes)
            batches = formats.decode(kind, plain, received_us, options)
            keyed = self._schemas.reserve(database, batches)
        entry = Entry(kind, database, body, received_us, options)
        return self._pending(PendingWrite(self, entry, keyed, formats.size_bytes(kind, plain, batches)))

    def _accept_lines(
        self, text: bytes, database: str, precision: str, received_us: int
    ) -> tuple[bytes, list[tuple[Key, Batch]], list[Rejected]]:
        """The text without its bad lines, its rows, and the bad lines.

        What is stored is what the remaining text alone decodes to, because that is what a replay will see.
        """

        def known(measurement: str) -> dict[str, str]:
            return self.schema(database, measurement).kinds()

        rejected: list[Rejected] = []
        clash = Invalid("the quotes of the lines do not match")
        for _ in range(_LINE_PASSES):
            lines = decode_lines(text, precision, received_us, known)
            if lines.rejected:
                rejected += lines.rejected
                self.counters.rejected_lines += len(lines.rejected)
                text = without_lines(text, lines.rejected)
            if not lines.batches:
                raise LinesRejected("No valid records in request", rejected)
            if not lines.rejected:
                try:
                    return text, self._schemas.reserve(database, lines.batches), rejected
                except Invalid as exc:  # another request has just claimed a type
                    clash = exc
        raise clash

    def _pending(self, write: PendingWrite) -> PendingWrite:
        self._waiting.append(write)
        return write

    def finish(self, write: PendingWrite) -> None:
        """Rows to disk, then into sight."""
        self._commit(write)
        if isinstance(write.error, Invalid):  # a drop came between, and then other types
            raise write.error
        if write.error is not None:
            reason = getattr(write.error, "strerror", None) or "the write failed"
            raise Unavailable(f"write-ahead log: {reason}", _SPACE_RETRY_AFTER_S) from write.error
        if self._is_full():
            self._flusher.wake()

    def _check_writable(self, database: str) -> None:
        self._check_ready()
        if not self.takes_writes:
            raise Unavailable("writes are stopped by an action; arc.edge/store.resume takes them again", 5)
        self._check_room()
        names.check_database(database)

    @contextmanager
    def _decoding(self, body: bytes) -> Iterator[None]:
        """Count refusals, and let large bodies take turns.

        Decoders that run side by side change turns at the interpreter lock with every native call; for bodies of
        10,000 lines that cost as much CPU time again as decoding. No body waits long for one that takes long.
        """
        has_turn = len(body) > _LARGE_BYTES and self._large.acquire(timeout=_TURN_S)
        try:
            yield
        except Invalid:
            self.counters.rejected += 1
            raise
        finally:
            if has_turn:
                self._large.release()

    def _check_ready(self) -> None:
        if not self.is_ready:
            raise Unavailable("the server is starting or stopping", 1)

    def _check_room(self) -> None:
        """Let a writer wait a moment for the flush that makes room, unless too many wait already."""
        if self._buffer.size_bytes <= self.options.buffer_bytes:
            return
        self._flusher.wake()
        if self._room_seekers.acquire(blocking=False):
            try:
                with self._room:
                    # One deadline for all: writes that wait one after the other would hold up those behind them.
                    self._room_by = self._room_by or time.monotonic() + _ROOM_WAIT_S
                    wait_s = max(0.0, self._room_by - time.monotonic())
                    if self._room.wait_for(lambda: self._buffer.size_bytes <= self.options.buffer_bytes, wait_s):
                        return
            finally:
                self._room_seekers.release()
        raise Unavailable("Write rejected (buffer full, flushing)", 1)

    def _is_full(self) -> bool:
        return self._buffer.active_rows >= self.options.buffer_rows or self.wal.is_full

    def _commit(self, commit: PendingWrite) -> None:
        """Group commit: whoever gets the lock writes and syncs for all who wait for it."""
        with self._committing:
            if commit.is_done:
                return
            group = [self._waiting.popleft() for _ in range(len(self._waiting))]
            group = [waiting for waiting in group if self._is_reserved(waiting)]
            try:
                self.wal.append([waiting.entry for waiting in group])
                self._admit(group)
            except Exception as exc:  # whatever it was, none of the group may take it for success
                log.error("wal: %r", exc)
                for waiting in group:
                    waiting.error = exc
            for waiting in group:
                waiting.is_done = True

    def _is_reserved(self, commit: PendingWrite) -> bool:
        """False for a request that does not fit any more; what was checked before a drop is checked again."""
        if commit.entry.received_us > self._dropped_us:
            return True
        try:
            commit.batches = self._schemas.reserve(commit.entry.database, [batch for _, batch in commit.batches])
        except Invalid as exc:
            commit.error, commit.is_done = exc, True
        return not commit.is_done

    def _admit(self, group: list[PendingWrite]) -> None:
        """Rows that are on disk become visible."""
        with self._lock:
            for waiting in group:
                size_bytes = waiting.plain_bytes // len(waiting.batches)
                rows = 0
                for key, batch in waiting.batches:
                    self._buffer.add(key, batch, size_bytes, waiting.entry.received_us)
                    self._writes[key] = self._writes.get(key, 0) + 1
                    rows += batch.rows
                of_kind = self.counters.by_kind.setdefault(waiting.entry.kind, [0, 0])
                of_kind[0] += 1
                of_kind[1] += rows
                self.counters.rows += rows
                self.counters.requests += 1
                self.counters.bytes += len(waiting.entry.body)
                self._offsets[waiting.entry.database.casefold()] = self.wal.position

    def _view(self, key: Key, schema: TableSchema | None, chunks: list[Chunk], version: int) -> TableView | None:
        if schema is None or not (schema.in_lake or chunks):
            return None
        buffered = None
        if chunks:
            buffered = rows_as_table(schema, chunks)
            # Chunks with different columns stay apart: together their nulls could take far more than the rows.
            if len(chunks) > 1 and all(chunk.keys() == chunks[0].keys() for chunk in chunks):
                buffered = buffered.combine_chunks()
                merged = {name: buffered.column(name).chunk(0) for name in buffered.column_names}
                with self._lock:
                    self._buffer.replace(key, chunks, merged)
        return TableView(
            schema.database,
            schema.measurement,
            schema.names_and_types(),
            version if schema.in_lake else None,
            frozenset(schema.in_lake),
            buffered,
            schema.widened,
            self.lake.few_files(schema, version) if schema.in_lake else (),
        )

    def _flush(self) -> int:
        with self._committing:
            frozen, segment = self._freeze()
        return self._move_to_lake(frozen, segment)

    def _freeze(self) -> tuple[dict[Key, Rows], int]:
        """Take what is buffered, and close the WAL segment it is in. Hold `_committing`."""
        segment = self.wal.rotate()
        with self._lock:
            return self._buffer.freeze(), segment

    def _move_to_lake(self, frozen: dict[Key, Rows], segment: int) -> int:
        """Frozen rows become files and a lake commit that says which WAL segments it covers."""
        schemas = {key: self._schemas[key] for key in frozen}
        try:
            written = self._write_files([(schemas[key], waiting) for key, waiting in frozen.items()])
            file_bytes = sum(path.stat().st_size for _, path in written)
            version = self.lake.commit(written, segment) if written else self._lake_version
        except BaseException:
            with self._lock:
                self._buffer.thaw()
            raise
        rows = sum(waiting.rows for waiting in frozen.values())
        with self._lock:
            self._lake_version = version
            self._schemas.note_in_lake(schemas.items())
            self._buffer.drop()
            self._room_by = None
            self._room.notify_all()
        if rows:
            self.counters.flushes += 1
            self.counters.flushed_rows += rows
            self.counters.files += len(written)
            self.counters.file_bytes += file_bytes
        self.wal.remove_through(self.lake.mark)
        return rows

    def _write_files(self, waiting: list[tuple[TableSchema, Rows]]) -> list[tuple[TableSchema, Path]]:
        """A Parquet file for the rows of each measurement; all or none."""
        written: list[tuple[TableSchema, Path]] = []
        try:
            for schema, rows in waiting:
                written.append((schema, self.lake.write_file(schema, rows_as_table(schema, rows.chunks))))
        except BaseException:
            for _, path in written:
                path.unlink(missing_ok=True)
            raise
        return written

    def _replay(self) -> None:
        started = time.monotonic()
        self.wal.start_after(self.lake.mark)
        for number in self.wal.segments():
            if number <= self.lake.mark:
                continue
            for entry in self.wal.read(number):
                self._replay_entry(entry)
            if self._buffer.rows >= self.options.buffer_rows:
                self._move_to_lake(self._buffer.freeze(), number)
        self.wal.remove_through(self.lake.mark)
        if self.wal.report.entries:
            log.info(
                "wal: replayed %d requests, %d rows in %.1f s",
                self.wal.report.entries,
                self.counters.replayed_rows,
                time.monotonic() - started,
            )

    def _replay_entry(self, entry: Entry) -> None:
        try:
            body = inflate(entry.body, "", self.options.max_inflated_bytes)
            batches = formats.decode(entry.kind, body, entry.received_us, entry.options)
            keyed = self._schemas.reserve(entry.database, batches)
            size_bytes = formats.size_bytes(entry.kind, body, batches) // len(keyed)
        except Exception:  # an entry that cannot be read must not keep the rest from the user
            self.counters.replay_errors += 1
            log.exception("wal: an entry of %d bytes could not be replayed", len(entry.body))
            return
        for key, batch in keyed:
            self._buffer.add(key, batch, size_bytes, entry.received_us)
            self.counters.replayed_rows += batch.rows


def _finished(write: PendingWrite) -> PendingWrite:
    write.finish()
    return write


def _info(schema: TableSchema, stored: dict[tuple[str, str], Stored], buffered_rows: int) -> MeasurementInfo:
    files = stored.get((schema.database, schema.measurement), Stored(0, 0, 0))
    return MeasurementInfo(
        database=schema.database,
        measurement=schema.measurement,
        file_count=files.file_count,
        total_size_bytes=files.size_bytes,
        columns=list(schema.names_and_types()),
        buffered_rows=buffered_rows,
        rows=files.rows + buffered_rows,
        first_us=files.first_us,
        last_us=files.last_us,
    )


class _Flusher(PeriodicLoop):
    """Flushes what is old or much; after a failure it waits longer each time, and nothing is dropped."""

    name = "flusher"

    def __init__(self, store: MetricStore) -> None:
        super().__init__(_CHECK_INTERVAL_S)
        self._store = store
        self._failures = 0
        self._not_before_s = 0.0

    def step(self, now_us: int) -> int:
        if time.monotonic() < self._not_before_s or not self._store.flush_is_due(now_us):
            return 0
        try:
            rows = self._store.flush()
        except Exception:
            self._not_before_s = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
            self._failures += 1
            raise
        self._failures = 0
        return rows
