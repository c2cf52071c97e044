"""Continuous queries: a SELECT that runs window by window and stores its rows in another measurement.

    schedule or execute() -> window [start, end) -> query -> rows, marked with query and window -> one lake transaction
    that puts them in place of what the same query wrote for times of this window, or windows within it -> history

The marks are columns that begin with "_" and are never shown. They make a window's run idempotent, also across a
crash between the lake's commit and the history: the next run of the window replaces what the first one left.
Scheduled windows are whole intervals since the epoch, so that a bucket of that length is never cut; after downtime
each missed one is made up for, oldest first.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from arc import clock
from arc.db.tables import continuous_queries, continuous_query_executions
from arc.errors import ArcError, Invalid
from arc.loop import PeriodicLoop
from arc.metrics import names
from arc.metrics.decode.batch import Batch
from arc.metrics.query.engine import Window
from arc.metrics.query.parsetree import fold
from arc.metrics.query.sqltext import without_end
from arc.metrics.storage.lake import literal
from arc.metrics.upkeep.definitions import Definitions
from arc.metrics.upkeep.deletion import remove
from arc.metrics.upkeep.retention import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arc.db.engine import Database
    from arc.metrics.query.engine import QueryEngine
    from arc.metrics.query.guard import Plan
    from arc.metrics.store import MetricStore

log = logging.getLogger(__name__)

_CHECK_S = 1.0
LEAST_INTERVAL_US = 10 * clock.US_PER_S
_FIRST_WINDOW_US = 3600 * clock.US_PER_S  # how far back a query begins that never ran
_RETRY_US = 60 * clock.US_PER_S
_PASS_S = 60.0  # one query catches up for at most so long before others have their turn
QUERY, START, END = "_query", "_window_start", "_window_end"  # the marks
_PLACEHOLDER = re.compile(r"'\{(start|end)_time\}'|\{(start|end)_time\}")
COMPLETED, FAILED, DRY_RUN = "completed", "failed", "dry_run"


@dataclass(frozen=True, slots=True)
class ContinuousOptions:
    """See [continuous_queries] in arc.conf.example. deletes_sources: [delete] enabled."""

    enabled: bool = True
    grace_s: float = 10.0
    timeout_s: float = 600.0
    deletes_sources: bool = False


@dataclass(frozen=True, slots=True)
class ContinuousQuery:
    """interval: as given, such as 5m. tag_columns: a JSON list. Instants in microseconds."""

    id: int
    name: str
    description: str
    database: str
    source_measurement: str
    destination_measurement: str
    query: str
    interval: str
    tag_columns: str
    retention_days: int | None
    delete_source_after_days: int | None
    is_active: bool
    last_execution_at: int | None
    last_execution_status: str | None
    last_processed_at: int | None
    last_records_written: int | None
    created_at: int
    updated_at: int

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(json.loads(self.tag_columns))

    @property
    def interval_us(self) -> int:
        return clock.parse_duration(self.interval)

    def window(self, start_us: int, end_us: int) -> Window:
        return Window(self.database, self.source_measurement, start_us, end_us)

    def windows(self, now_us: int) -> Iterator[tuple[int, int]]:
        """Windows that are over by now and have not been processed; the first may be shorter than an interval."""
        length = self.interval_us
        start = self.last_processed_at
        if start is None:  # counted from the last change, as a failed first window must not be passed over
            start = (self.updated_at - max(_FIRST_WINDOW_US, length)) // length * length
        while (end := (start // length + 1) * length) <= now_us:
            yield start, end
            start = end


@dataclass(frozen=True, slots=True)
class Execution:
    id: int
    query_id: int
    execution_id: str
    executed_at: int
    status: str
    start_at: int
    end_at: int
    records_written: int
    duration_s: float
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution, or with a dry run what it would have done. sql: with the window filled in."""

    execution_id: str
    status: str
    start_us: int
    end_us: int
    records: int
    took_s: float
    executed_at: int
    sql: str


@dataclass(slots=True)
class Counters:
    """Since the start: windows that were run, those of them that failed, rows that were stored, time it took."""

    windows: int = 0
    failures: int = 0
    rows: int = 0
    took_s: float = 0.0


class ContinuousQueries(PeriodicLoop):
    """Its thread runs what is due; any thread may edit queries and execute one."""

    name = "continuous-queries"

    def __init__(self, store: MetricStore, engine: QueryEngine, db: Database, options: ContinuousOptions) -> None:
        super().__init__(_CHECK_S)
        self.options = options
        self.queries: Definitions[ContinuousQuery, Execution] = Definitions(
            db,
            "Continuous query",
            continuous_queries,
            continuous_query_executions,
            "query_id",
            ContinuousQuery,
            Execution,
            (
                "name", "description", "database", "source_measurement", "destination_measurement", "query", "interval",
                "tag_columns", "retention_days", "delete_source_after_days", "is_active",
            ),
            self._check,
        )  # fmt: skip
        self.counters = Counters()
        self._counting = threading.Lock()
        self._store = store
        self._engine = engine

    def execute(
        self,
        query_id: int,
        now_us: int,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        dry_run: bool = False,
    ) -> tuple[ContinuousQuery, Run]:
        """Run one window. Raises NotFound, Invalid, and whatever ends a query.

        start_us: else where the last run ended, else an hour ago. end_us: else the end of the last whole interval,
        so that no bucket is cut, or now when none has ended since start_us.
        """
        query = self.queries.get(query_id)
        if start_us is None:
            start_us = query.last_processed_at if query.last_processed_at is not None else now_us - _FIRST_WINDOW_US
        if end_us is None:
            whole_us = now_us // query.interval_us * query.interval_us
            end_us = whole_us if whole_us > start_us else now_us
        if start_us >= end_us:
            raise Invalid("start_time must be before end_time")
        return query, self._run_window(query, start_us, end_us, now_us, dry_run=dry_run)

    def delete(self, query_id: int, *, with_destination: bool = False) -> None:
        """Delete a query with its history and, if asked for, the rows it wrote. Raises NotFound."""
        query = self.queries.get(query_id)
        self.queries.delete(query_id)
        if with_destination:
            self._store.flush()
            destination = (query.database, query.destination_measurement)
            with self._store.upkeep(destination) as lake:
                schema = self._store.schema(*destination)
                if QUERY in schema.in_lake:  # else no query ever wrote there
                    remove(lake, schema, f"{QUERY} = {literal(query.name)}")

    def rules(self) -> list[Rule]:
        """What retention has to remove on behalf of continuous queries."""
        found = []
        for query in self.queries.all():
            if query.is_active and query.retention_days:
                found.append(Rule(query.database, query.destination_measurement, query.retention_days))
            if query.is_active and query.delete_source_after_days and self.options.deletes_sources:
                found.append(Rule(query.database, query.source_measurement, query.delete_source_after_days))
        return found

    def step(self, now_us: int) -> int:
        """Returns the number of windows that were processed."""
        if not self._store.is_ready or not self.options.enabled:
            return 0
        ready_us = now_us - int(self.options.grace_s * clock.US_PER_S)
        return sum(self._catch_up(query, ready_us, now_us) for query in self.queries.all() if query.is_active)

    def _catch_up(self, query: ContinuousQuery, ready_us: int, now_us: int) -> int:
        """A window that fails is tried again after a while, and holds back those after it."""
        if query.last_execution_status == FAILED and now_us < (query.last_execution_at or 0) + _RETRY_US:
            return 0
        done, until_s = 0, time.monotonic() + _PASS_S
        for start_us, end_us in query.windows(ready_us):
            if self._stop.is_set() or time.monotonic() > until_s:
                break
            try:
                self._run_window(query, start_us, end_us, now_us)
            except ArcError as error:
                log.warning("continuous query %s: %s", query.name, error)
                break
            except Exception:  # one query must not keep the others from running
                log.exception("continuous query %s failed", query.name)
                break
            done += 1
        return done

    def _run_window(
        self, query: ContinuousQuery, start_us: int, end_us: int, now_us: int, *, dry_run: bool = False
    ) -> Run:
        execution_id = f"cq-exec-{secrets.token_hex(4)}"
        started_s, records, failure = time.monotonic(), 0, None
        sql = _filled(query.query, start_us, end_us)
        try:
            records = self._process(query, sql, start_us, end_us, dry_run)
        except Exception as error:
            failure = str(error)
            raise
        finally:
            took_s = round(time.monotonic() - started_s, 6)
            status = FAILED if failure is not None else DRY_RUN if dry_run else COMPLETED
            is_broken_off = failure is not None and self._stop.is_set()
            if not dry_run and not is_broken_off:  # else the next start does it
                self._record(query, execution_id, status, start_us, end_us, now_us, records, took_s, failure)
        return Run(execution_id, status, start_us, end_us, records, took_s, now_us, sql)

    def _process(self, query: ContinuousQuery, sql: str, start_us: int, end_us: int, dry_run: bool) -> int:
        """Ask, and put the rows in place of those an earlier run wrote; returns their number."""
        window = None if _PLACEHOLDER.search(query.query) else query.window(start_us, end_us)
        timeout_s = self.options.timeout_s
        result = self._engine.run(
            sql, database=query.database, is_gone=self._stop.is_set, timeout_s=timeout_s, window=window
        )
        batch = _batch(query, result.table, start_us, end_us)
        destination = self._store.schema(query.database, query.destination_measurement)
        if not dry_run and (batch.rows or destination.in_lake):
            # By time too: a run of a part of an earlier window replaces the buckets that lie in it.
            own = (
                f"{QUERY} = {literal(query.name)} AND ({START} >= {start_us} AND {END} <= {end_us}"
                f" OR {names.TIME} >= make_timestamptz({start_us}) AND {names.TIME} < make_timestamptz({end_us}))"
            )
            self._store.replace_rows(query.database, batch, own)
        return batch.rows

    def _record(
        self, query: ContinuousQuery, execution_id: str, status: str, start_us: int, end_us: int, now_us: int,
        records: int, took_s: float, failure: str | None,
    ) -> None:  # fmt: skip
        with self._counting:
            self.counters.windows += 1
            self.counters.failures += status == FAILED
            self.counters.rows += records
            self.counters.took_s += took_s
        changes = {"last_execution_at": now_us, "last_execution_status": status}
        if status == COMPLETED:
            processed_us = max(end_us, self.queries.get(query.id).last_processed_at or end_us)
            changes |= {"last_records_written": records, "last_processed_at": processed_us}
        self.queries.record(
            query.id,
            changes,
            execution_id=execution_id,
            executed_at=now_us,
            status=status,
            start_at=start_us,
            end_at=end_us,
            records_written=records,
            duration_s=took_s,
            error_message=failure,
        )

    def _check(self, values: Mapping[str, Any]) -> None:
        for name in ("name", "query"):
            if not values[name].strip():
                raise Invalid(f"{name} must not be empty")
        names.check_database(values["database"])
        names.check_measurement(values["source_measurement"])
        names.check_measurement(values["destination_measurement"])
        if fold(values["source_measurement"]) == fold(values["destination_measurement"]):
            raise Invalid("destination_measurement must not be source_measurement")
        _check_interval(values["interval"])
        for tag in json.loads(values["tag_columns"]):
            _check_tag(tag)
        self._check_query(values)

    def _check_query(self, values: Mapping[str, Any]) -> None:
        query, database = values["query"], values["database"]
        kinds = {found.group(1) or found.group(2) for found in _PLACEHOLDER.finditer(query)}
        if len(kinds) == 1:
            raise Invalid("query must contain both {start_time} and {end_time}, or neither")
        try:
            plan = self._engine.guard.check(_filled(query, 0, 1), database)
        except Invalid as error:
            raise Invalid(f"invalid query: {error}") from None
        if plan.listing is not None or plan.explain:
            raise Invalid("invalid query: it must be a SELECT")
        source = (fold(database), fold(values["source_measurement"]))
        if not kinds and source not in [(fold(name), fold(table)) for name, table in plan.tables]:
            raise Invalid(
                f"invalid query: without {{start_time}} and {{end_time}} it must read {'.'.join(source)},"
                " of which it then sees one window"
            )
        if values["is_active"]:  # one that does not fit its tables any more can still be switched off
            self._check_result(values, plan, has_bounds=bool(kinds))

    def _check_result(self, values: Mapping[str, Any], plan: Plan, *, has_bounds: bool) -> None:
        """Have the query planned, not run. While a table of it does not exist that has to wait for the first window."""
        if None in self._store.views(plan.tables):
            return
        database, window = values["database"], Window(values["database"], values["source_measurement"], 0, 1)
        sql = f"SELECT * FROM ({without_end(_filled(values['query'], 0, 1))}) LIMIT 0"  # noqa: S608 - the guard checks it
        try:
            result = self._engine.run(sql, database=database, window=None if has_bounds else window)
            _columns(result.table, 0)
        except Invalid as error:
            raise Invalid(f"invalid query: {error}") from None


def _check_interval(interval: str) -> None:
    try:
        length_us = clock.parse_duration(interval)
    except ValueError as error:
        raise Invalid(f"interval: {error}") from None
    if length_us < LEAST_INTERVAL_US:
        raise Invalid(f"interval must be at least {LEAST_INTERVAL_US // clock.US_PER_S}s, not {interval}")


def _check_tag(tag: str) -> None:
    if fold(tag) == names.TIME:
        raise Invalid('tag column "time" is reserved: it holds the time of the row')
    if not tag or tag.startswith("_"):
        raise Invalid(f'invalid tag column "{tag}"')


def _filled(query: str, start_us: int, end_us: int) -> str:
    """The query with the bounds of its window, as texts of SQL, in place of the placeholders."""
    bounds = {"start": literal(str(clock.rfc3339(start_us))), "end": literal(str(clock.rfc3339(end_us)))}
    return _PLACEHOLDER.sub(lambda found: bounds[found.group(1) or found.group(2)], query)


def _batch(query: ContinuousQuery, table: pa.Table, start_us: int, end_us: int) -> Batch:
    """A result as rows to store, with their marks. Raises Invalid."""
    columns = _columns(table, start_us)
    tags = tuple(name for name in columns if fold(name) in {fold(tag) for tag in query.tags})
    columns[QUERY] = _constant(query.name, table.num_rows, pa.string())
    columns[START] = _constant(start_us, table.num_rows, pa.int64())
    columns[END] = _constant(end_us, table.num_rows, pa.int64())
    return Batch(query.destination_measurement, columns, table.num_rows, tags)


def _columns(table: pa.Table, start_us: int) -> dict[str, pa.Array]:
    """The columns of a result, time first, in types that are stored. Raises Invalid."""
    columns: dict[str, pa.Array] = {names.TIME: _constant(start_us, table.num_rows, pa.timestamp("us", "UTC"))}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if fold(name) == names.TIME:
            columns[names.TIME] = _times(column)
        elif names.is_stored(name):
            columns[name] = _stored(name, column)
    if len({fold(name) for name in columns}) < len(columns):
        raise Invalid("two columns of the result have the same name; name them with AS")
    return columns


def _constant(value: object, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _times(column: pa.ChunkedArray) -> pa.Array:
    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        raise Invalid(f'column "time" of the result must be a timestamp, not {column.type}')
    if column.null_count:
        raise Invalid('column "time" of the result must not be null')
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        column = pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    return column.cast(pa.timestamp("us", "UTC"), safe=False).combine_chunks()


def _stored(name: str, column: pa.ChunkedArray) -> pa.Array:
    """A column in the nearest type that is stored."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        raise Invalid(f'column "{name}" of the result is {kind}, which cannot be stored')
    for test, stored in _STORED:
        if test(kind):
            return column.cast(stored, safe=False).combine_chunks()
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        try:
            return column.cast(pa.int64()).combine_chunks()
        except pa.ArrowInvalid:  # sums may be larger
            return column.cast(pa.float64(), safe=False).combine_chunks()
    return column.cast(pa.string()).combine_chunks()


_STORED = (
    (pa.types.is_null, pa.null()),
    (pa.types.is_floating, pa.float64()),
    (lambda kind: pa.types.is_decimal(kind) and kind.scale != 0, pa.float64()),
    (pa.types.is_boolean, pa.bool_()),
    (pa.types.is_binary, pa.binary()),
    (pa.types.is_large_binary, pa.binary()),
)
