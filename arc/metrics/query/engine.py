"""SQL over the metrics: one statement in, one Arrow table or a stream of batches out.

    run | stream -> Guard.check -> slot -> MetricStore.views (lake and buffer as of one instant)
                 -> each measurement becomes (lake at that version UNION ALL buffered rows) -> DuckDB -> Arrow

A cursor of its own per query, at most `concurrency` at once; others wait in a bounded queue. One watchdog thread
interrupts what is over its time, cancelled, or whose client went away; it sleeps while nothing runs.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
import uuid
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import pyarrow as pa

from arc import clock
from arc.errors import ArcError, Cancelled, Damaged, Invalid, NotFound, TimedOut, Unavailable
from arc.metrics.query.explain import without_internals
from arc.metrics.query.guard import Guard, Plan
from arc.metrics.query.parsetree import fold
from arc.metrics.query.sqltext import without_end
from arc.metrics.storage.lake import exact, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from arc.metrics.query.sqltext import Listing
    from arc.metrics.store import MeasurementInfo, TableView

log = logging.getLogger(__name__)

ESTIMATE_TIMEOUT_S = 30.0
HISTORY = 100  # queries that are remembered after their end
RUNNING, COMPLETED, FAILED, CANCELLED, TIMED_OUT = "running", "completed", "failed", "cancelled", "timed_out"
_BATCH_ROWS = 100_000
_NOT_IN_ARROW = frozenset({"BIGNUM", "UHUGEINT"})  # arrive as raw bytes, and as -1 above the widest decimal
_POLL_S = 0.1  # how late a time limit or a vanished client may be noticed
_CATALOGUE = re.compile(r"(?i)(duckdb|ducklake|pragma|sqlite|pg)_")  # views of the engine, of which a user sees none
_USER_ERRORS = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError, duckdb.OutOfMemoryException)
_USER_ERROR_TEXT = re.compile(
    r"(Binder|Catalog|Conversion|Invalid Input|Invalid Type|Mismatch Type|Not implemented|Out of Memory|Out of Range"
    r"|Parser|Syntax|Sequence|Divide by Zero|Decimal) Error"
)
# A file of the lake in a message of the engine.
_LAKE_FILE = re.compile(r"/files/(?P<database>[^/\"']+)/(?P<measurement>[^/\"']+)/(?P<name>[^/\"']+\.parquet)")

# What follows in a message: the statement as rewritten, which the user never wrote, or advice for whoever runs DuckDB.
_ASIDES = re.compile(r"\n\s*(?:LINE \d+:|Possible solutions|Please try installing)")


class Store(Protocol):
    """What queries need of the MetricStore."""

    def cursor(self) -> duckdb.DuckDBPyConnection: ...
    def views(self, wanted: Iterable[tuple[str, str]], /) -> list[TableView | None]: ...
    def databases(self) -> list[str]: ...
    def measurements(self, database: str | None = None, /) -> list[MeasurementInfo]: ...


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """See [query] in arc.conf.example. wait_s: longest wait for a slot, as a waiting query holds a request thread."""

    concurrency: int = 4
    queue: int = 100
    wait_s: float = 10.0
    timeout_s: float = 300.0
    max_sql_length: int = 10_000
    max_result_bytes: int = 256 << 20  # as Arrow; rendered it takes several times as much. Streams have no limit
    slow_ms: float = 0.0
    default_database: str = "default"


@dataclass(frozen=True)
class QueryResult:
    """types: DuckDB type names, one per column of the table. planning_ms: part of execution_ms."""

    id: str
    table: pa.Table
    types: list[str]
    execution_ms: float
    wait_ms: float
    planning_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as the list of queries shows it."""

    token_id: int | None = None
    token_name: str = ""
    address: str = ""


NOBODY = Asker()


@dataclass(frozen=True, slots=True)
class Window:
    """Of this measurement a query sees only rows with start_us <= time < end_us."""

    database: str
    measurement: str
    start_us: int
    end_us: int

    def narrow(self, view: TableView, source: str) -> str:
        if (fold(view.database), fold(view.measurement)) != (fold(self.database), fold(self.measurement)):
            return source
        bounds = f"time >= make_timestamptz({self.start_us}) AND time < make_timestamptz({self.end_us})"
        return f"(SELECT * FROM {source} WHERE {bounds})"  # noqa: S608 - numbers


class ClientGone(Cancelled):
    """Nobody waits for the answer any more."""


@dataclass(slots=True)
class Counters:
    """Since the start. errors: all that did not succeed, time-outs and cancelled ones too."""

    requests: int = 0
    success: int = 0
    errors: int = 0
    timeouts: int = 0
    cancelled: int = 0
    disconnects: int = 0
    queued: int = 0  # had to wait for a slot
    slow: int = 0
    rows: int = 0
    execution_ms: float = 0.0
    wait_ms: float = 0.0

    def note_error(self, exc: BaseException) -> None:
        self.errors += 1
        self.timeouts += isinstance(exc, TimedOut)
        # A stream that is dropped half-way ends with GeneratorExit.
        is_gone = isinstance(exc, (ClientGone, GeneratorExit))
        self.disconnects += is_gone
        self.cancelled += isinstance(exc, Cancelled) and not is_gone


@dataclass
class ActiveQuery:
    """A query that waits, runs, or ran not long ago. deadline_s: time.monotonic(); verdict: why it is being stopped."""

    id: str
    sql: str
    database: str
    started_us: int
    timeout_s: float
    deadline_s: float
    is_gone: Callable[[], bool] | None = None
    asker: Asker = NOBODY
    cursor: duckdb.DuckDBPyConnection | None = None
    verdict: ArcError | None = None
    wait_ms: float = 0.0
    planning_ms: float = 0.0
    rows: int = 0  # answered so far
    status: str = RUNNING
    ended_us: int | None = None

    def judge(self) -> ArcError | None:
        """Why the query has to end; None while it may go on."""
        is_gone = self.is_gone  # another thread may be ending the query
        if self.verdict is None:
            if time.monotonic() > self.deadline_s:
                self.verdict = TimedOut(f"Query timed out after {self.timeout_s:g} seconds")
            elif is_gone is not None and is_gone():
                self.verdict = ClientGone("Query cancelled: the client went away")
        return self.verdict


@dataclass
class QueryStream:
    """Batches of a running query. It holds its slot until it is exhausted or closed."""

    id: str
    types: list[str]
    schema: pa.Schema
    _batches: Iterable[pa.RecordBatch]
    _stack: ExitStack

    def __iter__(self) -> Generator[pa.RecordBatch, None, None]:
        with self._stack:  # an error on the way passes through it and comes out in our terms
            yield from self._batches

    def close(self) -> None:
        self._stack.close()


@dataclass
class _Opened:
    """A statement DuckDB has begun to execute."""

    query: ActiveQuery
    types: list[str]
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch] = field(default_factory=list)


class QueryEngine:
    """Runs user SQL on the store, read-only. Any thread may call it."""

    def __init__(self, store: Store, options: QueryOptions | None = None) -> None:
        self.options = options or QueryOptions()
        self.counters = Counters()
        self._store = store
        self._guard: Guard | None = None
        self._slots = threading.Semaphore(self.options.concurrency)
        self._lock = threading.Condition()  # guards what follows; the watchdog waits on it
        self._active: dict[str, ActiveQuery] = {}
        self._past: deque[ActiveQuery] = deque(maxlen=HISTORY)
        self._waiting = 0
        self._watchdog: threading.Thread | None = None
        self._is_stopped = False

    def run(
        self,
        sql: str,
        *,
        database: str = "default",
        is_gone: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        window: Window | None = None,
        asker: Asker = NOBODY,
    ) -> QueryResult:
        """The whole result of one statement. `database`: where unqualified names live.

        is_gone: asked now and then whether the client went away. window: all that is seen of a measurement.
        Raises Invalid, TimedOut, Cancelled, Unavailable.
        """
        started_s = time.perf_counter()
        with self._opened(sql, database, is_gone, timeout_s, asker, window) as opened:
            table = _collect(opened, self.options.max_result_bytes)
        total_ms = (time.perf_counter() - started_s) * 1000
        query = opened.query
        execution_ms, wait_ms, planning_ms = total_ms - query.wait_ms, query.wait_ms, query.planning_ms
        return QueryResult(
            query.id, table, opened.types, round(execution_ms, 3), round(wait_ms, 3), round(planning_ms, 3)
        )

    def stream(
        self,
        sql: str,
        *,
        database: str = "default",
        is_gone: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        asker: Asker = NOBODY,
    ) -> QueryStream:
        """The result of one statement batch by batch, in constant memory. Close the stream, or read it to its end."""
        with ExitStack() as stack:
            opened = stack.enter_context(self._opened(sql, database, is_gone, timeout_s, asker))
            return QueryStream(opened.query.id, opened.types, opened.schema, opened.batches, stack.pop_all())

    def estimate(
        self,
        sql: str,
        *,
        database: str = "default",
        is_gone: Callable[[], bool] | None = None,
        asker: Asker = NOBODY,
    ) -> int:
        """How many rows a statement gives, by counting them. Raises like run()."""
        plan = self.plan(sql, database)
        if plan.listing or plan.explain:
            raise Invalid("only the rows of a SELECT can be counted")
        counting = f"SELECT count(*) AS rows FROM ({without_end(sql)})"  # noqa: S608 - checked above, and again as a whole
        table = self.run(counting, database=database, is_gone=is_gone, timeout_s=ESTIMATE_TIMEOUT_S, asker=asker).table
        return int(table.column(0)[0].as_py()) if table.num_columns else 0

    def active(self) -> list[ActiveQuery]:
        """Queries that wait or run, oldest first."""
        with self._lock:
            return list(self._active.values())

    def history(self) -> list[ActiveQuery]:
        """Queries that have ended, the latest first."""
        with self._lock:
            return list(reversed(self._past))

    def find(self, query_id: str) -> ActiveQuery:
        """A query that runs or ran not long ago. Raises NotFound."""
        with self._lock:
            for query in (*self._active.values(), *self._past):
                if query.id == query_id:
                    return query
        raise NotFound(f"no query with id {query_id}")

    def plan(self, sql: str, database: str) -> Plan:
        """What a statement would read. Raises Invalid."""
        return self.guard.check(sql, database)

    def stats(self) -> dict[str, Any]:
        """Counters, and how the slots are used."""
        with self._lock:
            active, waiting = len(self._active), self._waiting
            return asdict(self.counters) | {
                "slots": self.options.concurrency,
                "running": active - waiting,
                "waiting": waiting,
            }

    def cancel(self, query_id: str) -> bool:
        """Stop a query; False when it is not there (any more)."""
        with self._lock:
            query = self._active.get(query_id)
        if query is None or query.status != RUNNING:
            return False
        query.verdict = query.verdict or Cancelled("Query cancelled")
        _interrupt(query)
        return True

    def start(self) -> None:
        """Let the watchdog wait for queries."""
        self._watchdog = threading.Thread(target=self._watch, name="query-watchdog", daemon=True)
        self._watchdog.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Cancel what runs, take no more; may be called twice."""
        with self._lock:
            self._is_stopped = True
            for query in self._active.values():
                query.verdict = query.verdict or Unavailable("the server is stopping")
            self._lock.notify_all()
        if self._watchdog is not None:
            self._watchdog.join(timeout_s)
        if self._guard is not None:
            self._guard.close()

    @contextmanager
    def _opened(
        self,
        sql: str,
        database: str,
        is_gone: Callable[[], bool] | None,
        timeout_s: float | None,
        asker: Asker,
        window: Window | None = None,
    ) -> Iterator[_Opened]:
        """A checked statement under execution; errors of the body come out as ours."""
        timeout_s = timeout_s or self.options.timeout_s
        deadline_s = time.monotonic() + timeout_s
        query = ActiveQuery(str(uuid.uuid4()), sql, database, clock.now_us(), timeout_s, deadline_s, is_gone, asker)
        with self._registered(query), self._counted(query):
            started_s = time.perf_counter()
            plan = self.guard.check(sql, database)
            query.planning_ms = (time.perf_counter() - started_s) * 1000
            with self._slot(query), self._cursor(query) as cursor:
                buffers: list[str] = []
                try:
                    opened = self._begin(query, plan, cursor, buffers, window)
                    opened.batches = _counting(query, opened.batches)
                    yield opened
                except (duckdb.Error, OSError, pa.ArrowException) as exc:
                    raise _translated(exc, query, plan, buffers) from exc
            self._note_if_slow(query, plan)

    @contextmanager
    def _counted(self, query: ActiveQuery) -> Iterator[None]:
        counters, started_s, failure = self.counters, time.monotonic(), None
        try:
            yield
        except BaseException as exc:
            failure = exc
            raise
        finally:
            with self._lock:
                counters.requests += 1
                counters.rows += query.rows
                counters.queued += query.wait_ms > 0
                counters.wait_ms += query.wait_ms
                counters.execution_ms += (time.monotonic() - started_s) * 1000 - query.wait_ms
                if failure is None:
                    counters.success += 1
                else:
                    counters.note_error(failure)
                query.status, query.ended_us = _status(failure), clock.now_us()
                query.is_gone = query.verdict = None  # they hold on to the request
                self._past.append(query)

    @property
    def guard(self) -> Guard:
        """Checks what users wrote."""
        with self._lock:
            self._guard = self._guard or Guard(self._store.cursor(), self.options.max_sql_length)
            return self._guard

    def _begin(
        self,
        query: ActiveQuery,
        plan: Plan,
        cursor: duckdb.DuckDBPyConnection,
        buffers: list[str],
        window: Window | None,
    ) -> _Opened:
        """Start the statement on the data of this instant; fills `buffers` with the names it gave them."""
        if plan.listing is not None:
            return _all_at_once(query, self._list(plan.listing))
        views = self._store.views(plan.tables)
        missing = [table for table, view in zip(plan.tables, views, strict=True) if view is None]
        if missing and len(views) == 1 and not _CATALOGUE.match(missing[0][1]):
            return _all_at_once(query, pa.table({}))
        if missing:
            raise Invalid(f"Measurement '{'.'.join(missing[0])}' does not exist")
        # A plan names the files it reads; that of the table does not.
        sources = [_source(view, cursor, buffers, by_file=not plan.explain) for view in views if view is not None]
        if window is not None:
            sources = [window.narrow(view, source) for view, source in zip(views, sources, strict=True) if view]
        statement = plan.fill(sources)
        cursor.execute(statement)
        types = [str(column[1]) for column in cursor.description]
        for kind in _NOT_IN_ARROW.intersection(types):
            raise Invalid(f"an answer cannot hold the type {kind}; cast it to VARCHAR")
        reader = cursor.to_arrow_reader(_BATCH_ROWS)
        if plan.explain:
            return _all_at_once(query, without_internals(reader.read_all(), statement, query.sql, buffers))
        return _Opened(query, types, reader.schema, reader)

    def _list(self, listing: Listing) -> pa.Table:
        if listing.kind == "databases":
            names = sorted({self.options.default_database, *self._store.databases()})
            return pa.table({"database": pa.array(names, pa.string())})
        infos = self._store.measurements(listing.database)
        return pa.table(
            {
                "database": pa.array([info.database for info in infos], pa.string()),
                "table_name": pa.array([info.measurement for info in infos], pa.string()),
                "storage_path": pa.array([f"{info.database}/{info.measurement}" for info in infos], pa.string()),
                "file_count": pa.array([info.file_count for info in infos], pa.int64()),
                "total_size_mb": pa.array([round(info.total_size_bytes / 2**20, 3) for info in infos], pa.float64()),
            }
        )

    @contextmanager
    def _registered(self, query: ActiveQuery) -> Iterator[None]:
        with self._lock:
            if self._is_stopped:
                raise Unavailable("the server is stopping")
            if not self._active:
                self._lock.notify_all()
            self._active[query.id] = query
        try:
            yield
        finally:
            with self._lock:
                del self._active[query.id]

    @contextmanager
    def _slot(self, query: ActiveQuery) -> Iterator[None]:
        """One of the places at which queries run; waits for it."""
        if not self._slots.acquire(blocking=False):
            self._wait_for_slot(query)
        try:
            yield
        finally:
            self._slots.release()

    def _wait_for_slot(self, query: ActiveQuery) -> None:
        started_s = time.monotonic()
        with self._lock:
            if self._waiting >= self.options.queue:
                raise Unavailable("Query queue full - system under heavy load", retry_after_s=5)
            self._waiting += 1
        try:
            while not self._slots.acquire(timeout=_POLL_S):
                verdict = query.judge()
                if verdict is not None:
                    raise verdict
                if time.monotonic() - started_s > self.options.wait_s:
                    raise Unavailable("Query queue full - system under heavy load", retry_after_s=5)
        finally:
            with self._lock:
                self._waiting -= 1
        query.wait_ms = (time.monotonic() - started_s) * 1000

    @contextmanager
    def _cursor(self, query: ActiveQuery) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._store.cursor()
        query.cursor = cursor
        try:
            yield cursor
        finally:
            query.cursor = None
            cursor.close()

    def _watch(self) -> None:
        """Body of the watchdog. It interrupts again and again: an interrupt between two statements is lost."""
        while True:
            with self._lock:
                if self._is_stopped and not self._active:
                    return
                self._lock.wait(_POLL_S if self._active else None)
                queries = list(self._active.values())
            for query in queries:
                try:
                    if query.judge() is not None:
                        _interrupt(query)
                except Exception:  # one bad `is_gone` must not end the watch over the others
                    log.exception("query %s: cannot tell whether its client is there", query.id)

    def _note_if_slow(self, query: ActiveQuery, plan: Plan) -> None:
        took_ms = (clock.now_us() - query.started_us) / 1000
        if 0 < self.options.slow_ms < took_ms:
            with self._lock:
                self.counters.slow += 1
            tables = ", ".join(".".join(table) for table in plan.tables)
            log.warning("query %s of %s took %.0f ms", query.id, tables or "no measurement", took_ms)


def _damaged(file: re.Match[str], reason: str) -> Damaged:
    """What to tell of a Parquet file that cannot be read; until something is done, each query of its rows fails."""
    named = f"{file['database']}/{file['measurement']}/{file['name']}"
    log.error("file %s of the lake cannot be read: %s", named, reason)
    return Damaged(
        f"Measurement '{file['database']}.{file['measurement']}' cannot be read: its file {file['name']} is damaged or"
        " missing. Restore a backup, or stop the server and run `python arc.py check --drop-damaged`"
    )


def _status(failure: BaseException | None) -> str:
    if failure is None:
        return COMPLETED
    if isinstance(failure, TimedOut):
        return TIMED_OUT
    return CANCELLED if isinstance(failure, (Cancelled, GeneratorExit)) else FAILED


def _source(view: TableView, cursor: duckdb.DuckDBPyConnection, buffers: list[str], *, by_file: bool) -> str:
    """The sub-query that stands for a measurement: its rows in the lake and those in the buffer."""
    halves = []
    if view.lake_version is not None:
        table = f"lake.{quoted(view.database)}.{quoted(view.measurement)} AT (VERSION => {view.lake_version})"
        if view.files and by_file:
            table = f"read_parquet([{', '.join(map(literal, view.files))}], hive_partitioning => false)"
        halves.append(_selection(view, view.lake_columns, table, view.widened))
    if view.buffered is not None or not halves:
        rows = view.buffered if view.buffered is not None else pa.table({})
        name = f"arc_rows_{secrets.token_hex(8)}"  # not to be guessed, or a CTE could take its place
        cursor.register(name, rows if rows.num_columns else pa.table({"time": pa.array([], pa.int64())}))
        buffers.append(name)
        halves.append(_selection(view, frozenset(rows.column_names), name))
    return f"({' UNION ALL '.join(halves)})"


def _selection(view: TableView, present: frozenset[str], table: str, widened: frozenset[str] = frozenset()) -> str:
    """SELECT of all columns in their order; one that is not there, or has no type yet, is null."""
    columns = []
    for name, kind in view.columns:
        if kind == "NULL":
            columns.append(f"CAST(NULL AS VARCHAR) AS {quoted(name)}")
        elif name in present:
            columns.append(f"{exact(name)} AS {quoted(name)}" if name in widened else quoted(name))
        else:
            columns.append(f"CAST(NULL AS {kind}) AS {quoted(name)}")
    return f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - names are quoted


def _all_at_once(query: ActiveQuery, table: pa.Table) -> _Opened:
    """A result that is there already: listings, plans, nothing at all."""
    types = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE"}
    return _Opened(query, [types[kind] for kind in table.schema.types], table.schema, table.to_batches())


def _counting(query: ActiveQuery, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        query.rows += batch.num_rows
        yield batch


def _collect(opened: _Opened, limit_bytes: int) -> pa.Table:
    batches, size = [], 0
    for batch in opened.batches:
        batches.append(batch)
        size += batch.nbytes
        if size > limit_bytes:
            raise Invalid(f"Result is larger than {limit_bytes >> 20} MB; use LIMIT, or stream it")
    return pa.Table.from_batches(batches, opened.schema)


def _interrupt(query: ActiveQuery) -> None:
    cursor = query.cursor
    if cursor is not None:
        try:
            cursor.interrupt()
        except duckdb.Error:  # closed in this moment: the query is over
            pass


def _translated(exc: Exception, query: ActiveQuery, plan: Plan, buffers: list[str]) -> Exception:
    """An error of the engine in our terms; what no statement can cause stays as it is, a defect."""
    if query.verdict is not None:
        return query.verdict
    text = str(exc)
    if "No space left on device" in text:
        return Unavailable("No disk space left for sorting and joining", retry_after_s=30)
    file = _LAKE_FILE.search(text)
    if file and (fold(file["database"]), fold(file["measurement"])) in {(fold(a), fold(b)) for a, b in plan.tables}:
        return _damaged(file, text)
    if not isinstance(exc, _USER_ERRORS) and not _USER_ERROR_TEXT.match(text):
        return exc
    text = _ASIDES.split(text)[0].strip()
    for name in buffers:
        text = text.replace(name, "buffer")
    return Invalid(text)
