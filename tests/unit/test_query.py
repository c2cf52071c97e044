"""Queries see lake and buffer as one table, end in time, and give away nothing of how that is done."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import duckdb_extension_ducklake
import pyarrow as pa
import pytest

from arc.errors import Cancelled, ConfigError, Damaged, Invalid, TimedOut, Unavailable
from arc.metrics.query.engine import QueryEngine, QueryOptions
from arc.metrics.storage import seal as sealing
from arc.metrics.storage.seal import seal
from arc.metrics.store import MeasurementInfo, TableView
from tests.unit.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE range % 7 = 3"
DEADLINE_S = 20.0


@dataclass
class StandIn:
    """A lake of its own, and views set by hand: what the store hands out, without its writing side."""

    connection: duckdb.DuckDBPyConnection
    known: dict[tuple[str, str], TableView]

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self.connection.cursor()

    def views(self, wanted: Iterable[tuple[str, str]]) -> list[TableView | None]:
        return [self.known.get((database.lower(), measurement.lower())) for database, measurement in wanted]

    def databases(self) -> list[str]:
        return sorted({view.database for view in self.known.values()})

    def measurements(self, database: str | None = None) -> list[MeasurementInfo]:
        return [
            MeasurementInfo(view.database, view.measurement, 2, 3 << 20, list(view.columns), 0, 0)
            for view in self.known.values()
            if database is None or view.database == database
        ]

    def show(
        self,
        database: str,
        measurement: str,
        columns: dict[str, str],
        *,
        in_lake: bool = True,
        buffered: pa.Table | None = None,
    ) -> None:
        """Make a measurement known at the lake's version of now."""
        self.known[database.lower(), measurement.lower()] = TableView(
            database,
            measurement,
            tuple(columns.items()),
            self._version() if in_lake else None,
            self._lake_columns(database, measurement) if in_lake else frozenset(),
            buffered,
        )

    def _version(self) -> int:
        row = self.connection.execute("SELECT id FROM lake.current_snapshot()").fetchone()
        assert row is not None
        return int(row[0])

    def _lake_columns(self, database: str, measurement: str) -> frozenset[str]:
        rows = self.connection.execute(f'DESCRIBE lake."{database}"."{measurement}"').fetchall()
        return frozenset(row[0] for row in rows)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    (directory / "lake" / "files").mkdir(parents=True)
    (directory / "tmp").mkdir()
    return directory


@pytest.fixture(scope="module")
def connection(directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An instance with a lake, sealed: all tests share it, as it takes half a second."""
    with duckdb.connect(config={"threads": 2, "temp_directory": str(directory / "tmp")}) as connection:
        attach_lake(connection, directory / "lake")
        seal(connection, [directory / "lake", directory / "tmp"])
        yield connection


@pytest.fixture
def store(connection: duckdb.DuckDBPyConnection) -> Iterator[StandIn]:
    yield StandIn(connection, {})
    connection.execute("DROP SCHEMA IF EXISTS lake.prod CASCADE")


@pytest.fixture
def engine(store: StandIn) -> Iterator[QueryEngine]:
    engine = QueryEngine(store, QueryOptions(concurrency=2, queue=2, wait_s=DEADLINE_S))
    engine.start()
    yield engine
    engine.stop()


def attach_lake(connection: duckdb.DuckDBPyConnection, directory: Path) -> None:
    package = duckdb_extension_ducklake.__path__[0]
    connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/ducklake.duckdb_extension'")
    connection.execute(
        f"ATTACH 'ducklake:{directory}/catalog.ducklake' AS lake "
        f"(DATA_PATH '{directory}/files', DATA_INLINING_ROW_LIMIT 0)"
    )


CPU = {"time": "TIMESTAMP WITH TIME ZONE", "host": "VARCHAR", "usage": "DOUBLE"}


@pytest.fixture
def cpu(store: StandIn) -> StandIn:
    """prod.cpu: two rows in the lake (usage 1, 2), two in the buffer (3, 4) with a new column and an all-null one."""
    store.connection.execute("CREATE SCHEMA lake.prod")
    store.connection.execute("CREATE TABLE lake.prod.cpu (time TIMESTAMPTZ, host VARCHAR, usage DOUBLE)")
    store.connection.execute("INSERT INTO lake.prod.cpu VALUES (to_timestamp(1), 'a', 1), (to_timestamp(2), 'b', 2)")
    buffered = pa.table(
        {
            "time": pa.array([3_000_000, 4_000_000], pa.timestamp("us", "UTC")),
            "usage": [3.0, 4.0],
            "cores": pa.array([8, None], pa.int64()),
        }
    )
    store.show("prod", "cpu", {**CPU, "cores": "BIGINT", "note": "NULL"}, buffered=buffered)
    return store


def rows(engine: QueryEngine, sql: str, database: str = "prod") -> list[tuple[object, ...]]:
    table = engine.run(sql, database=database).table
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ------------------------------------------------------------------------------------- lake and buffer


def test_rows_of_lake_and_buffer_are_one_table(engine: QueryEngine, cpu: StandIn) -> None:
    result = engine.run("SELECT * FROM cpu ORDER BY time", database="prod")

    assert result.table.column_names == ["time", "host", "usage", "cores", "note"]
    assert result.types == ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "DOUBLE", "BIGINT", "VARCHAR"]
    assert result.table.drop_columns(["time"]).to_pydict() == {
        "host": ["a", "b", None, None],
        "usage": [1.0, 2.0, 3.0, 4.0],
        "cores": [None, None, 8, None],
        "note": [None, None, None, None],
    }
    assert result.table.schema.field("time").type == pa.timestamp("us", "UTC")


def test_lake_is_read_at_the_version_of_the_view(engine: QueryEngine, cpu: StandIn) -> None:
    cpu.connection.execute("INSERT INTO lake.prod.cpu VALUES (to_timestamp(3), 'c', 3), (to_timestamp(4), 'd', 4)")

    assert rows(engine, "SELECT count(*), sum(usage) FROM cpu") == [(4, 10.0)]


def test_measurement_that_is_only_buffered(engine: QueryEngine, store: StandIn) -> None:
    buffered = pa.table({"time": pa.array([1], pa.timestamp("us", "UTC")), "host": ["a"]})
    store.show("prod", "new", CPU, in_lake=False, buffered=buffered)

    assert rows(engine, "SELECT host, usage FROM new") == [("a", None)]


def test_measurement_without_any_row_has_its_columns(engine: QueryEngine, store: StandIn) -> None:
    store.show("prod", "new", CPU, in_lake=False)

    result = engine.run("SELECT * FROM new", database="prod")

    assert (result.table.num_rows, result.types) == (0, list(CPU.values()))


def test_strange_names_of_columns_and_tables(engine: QueryEngine, store: StandIn) -> None:
    buffered = pa.table({"time": pa.array([1], pa.timestamp("us", "UTC")), 'a "b"': [1], "select": [2]})
    columns = {"time": CPU["time"], 'a "b"': "BIGINT", "select": "BIGINT"}
    store.show("my-db", "m-1", columns, in_lake=False, buffered=buffered)

    assert rows(engine, 'SELECT "a ""b""", "select", "m-1"."select" FROM "my-db"."m-1"') == [(1, 2, 2)]
    assert rows(engine, "SELECT `select` FROM `MY-DB`.`M-1`") == [(2,)]


def test_describe_and_summarize_see_both_halves(engine: QueryEngine, cpu: StandIn) -> None:
    described = engine.run("DESCRIBE prod.cpu").table.to_pydict()

    assert list(described) == ["column_name", "column_type", "null", "key", "default", "extra"]
    assert described["column_name"] == ["time", "host", "usage", "cores", "note"]
    assert described["column_type"] == ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "DOUBLE", "BIGINT", "VARCHAR"]
    assert rows(engine, "SELECT max FROM (SUMMARIZE prod.cpu) WHERE column_name = 'usage'") == [("4.0",)]


def test_unknown_measurement_alone_is_empty(engine: QueryEngine, cpu: StandIn) -> None:
    result = engine.run("SELECT host FROM nope WHERE time > now()", database="prod")

    assert (result.table.column_names, result.table.num_rows, result.types) == ([], 0, [])


def test_unknown_measurement_beside_another_is_named(engine: QueryEngine, cpu: StandIn) -> None:
    with pytest.raises(Invalid, match=r"^Measurement 'prod\.nope' does not exist$"):
        engine.run("SELECT * FROM cpu JOIN nope USING (time)", database="prod")


@pytest.mark.parametrize("name", ["duckdb_settings", "DuckDB_Secrets", "pragma_database_list", "sqlite_master"])
def test_views_of_the_engine_are_not_there(engine: QueryEngine, store: StandIn, name: str) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        engine.run(f"SELECT * FROM {name}")


def test_listings(engine: QueryEngine, cpu: StandIn) -> None:
    assert engine.run("SHOW DATABASES").table.to_pydict() == {"database": ["default", "prod"]}
    assert engine.run("SHOW TABLES FROM prod;").table.to_pylist() == [
        {"database": "prod", "table_name": "cpu", "storage_path": "prod/cpu", "file_count": 2, "total_size_mb": 3.0}
    ]
    assert engine.run("SHOW MEASUREMENTS", database="prod").types == ["VARCHAR"] * 3 + ["BIGINT", "DOUBLE"]
    assert engine.run("SHOW TABLES FROM nope").table.num_rows == 0


# ------------------------------------------------------------------------------- the same as plain DuckDB


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    """Databases as schemas with real tables, which a statement finds without any rewriting."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        for number, database in enumerate(("default", "prod", "my-db")):
            connection.execute(f'CREATE SCHEMA "{database}"')
            for offset, measurement in enumerate(("cpu", "mem", "m-1"), start=3 * number):
                connection.execute(
                    f"""CREATE TABLE "{database}"."{measurement}" AS
                    SELECT to_timestamp(1735689600 + i * 30 + {offset}) AS time, 'h' || ((i + {offset}) % 4) AS host,
                           ((i * 7 + {offset}) % 50) / 4.0::DOUBLE AS usage, (i + {offset}) % 5 AS n, i % 2 = 0 AS ok,
                           CASE WHEN i % 6 > 0 THEN 'r' || (i % 3) END AS region, i AS "order"
                    FROM range(40) t(i)"""
                )
        yield connection


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory, plain: duckdb.DuckDBPyConnection) -> Iterator[QueryEngine]:
    """The same rows in a store: half of them in the lake, the others buffered."""
    directory = tmp_path_factory.mktemp("halved")
    with duckdb.connect(config={"threads": 1}) as connection:
        attach_lake(connection, directory)
        seal(connection, [directory])
        store = StandIn(connection, {})
        for database, measurement in [(d, m) for d in ("default", "prod", "my-db") for m in ("cpu", "mem", "m-1")]:
            table = plain.execute(f'SELECT * FROM "{database}"."{measurement}" ORDER BY "order"').to_arrow_table()
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS lake."{database}"')
            connection.register("stored", table.slice(0, 20))
            connection.execute(f'CREATE TABLE lake."{database}"."{measurement}" AS SELECT * FROM stored')
            columns = {row[0]: row[1] for row in plain.execute(f'DESCRIBE "{database}"."{measurement}"').fetchall()}
            store.show(database, measurement, columns, buffered=table.slice(20))
        engine = QueryEngine(store)
        yield engine
        engine.stop()


SAME = """
SELECT * FROM cpu
SELECT prod.cpu.usage, cpu.host FROM prod.cpu ORDER BY time LIMIT 3
SELECT * FROM "my-db"."m-1" WHERE n > 2
SELECT * FROM prod.cpu c JOIN prod.mem m ON c.time = m.time - INTERVAL 1 SECOND
SELECT * FROM prod.cpu c LEFT JOIN mem m USING (host, n)
SELECT * FROM prod.cpu c RIGHT JOIN mem m USING (host)
SELECT * FROM prod.cpu FULL OUTER JOIN mem USING (n)
SELECT * FROM prod.cpu c FULL JOIN mem m ON c.host = m.host AND c.n = m.n AND m.ok
SELECT * FROM prod.cpu SEMI JOIN mem USING (n)
SELECT * FROM prod.cpu ANTI JOIN mem ON cpu.usage = mem.usage
SELECT * FROM prod.cpu ASOF JOIN mem ON prod.cpu.host = mem.host AND prod.cpu.time >= mem.time
SELECT * FROM prod.cpu ASOF LEFT JOIN mem USING (host, time)
SELECT count(*) FROM (SELECT * FROM prod.cpu POSITIONAL JOIN mem)
SELECT count(*) FROM prod.cpu CROSS JOIN mem
SELECT count(*) FROM prod.cpu, mem, "my-db"."m-1" z WHERE z.n = mem.n
SELECT * FROM prod.cpu NATURAL JOIN mem
SELECT c.host, x.top FROM prod.cpu c, LATERAL (SELECT max(usage) AS top FROM mem m WHERE m.host = c.host) x
SELECT prod.cpu.usage, "default".cpu.usage FROM prod.cpu JOIN "default".cpu USING (n)
SELECT prod.cpu.usage, "my-db".cpu.usage FROM prod.cpu, "my-db".cpu WHERE prod.cpu.n = "my-db".cpu.n
SELECT * EXCLUDE (prod.cpu.usage) FROM prod.cpu JOIN "my-db".cpu USING (time)
SELECT count(*) FROM prod.cpu JOIN "default".cpu USING (time) WHERE EXISTS (FROM mem WHERE mem.n = prod.cpu.n)
SELECT cpu.* EXCLUDE (usage) REPLACE (n + 1 AS n) FROM prod.cpu
SELECT * RENAME (host AS machine) FROM cpu
SELECT row_number() OVER (PARTITION BY host ORDER BY time), lag(usage) OVER w FROM cpu WINDOW w AS (ORDER BY time)
SELECT sum(usage) OVER (ORDER BY time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW) FROM cpu
SELECT first_value(usage IGNORE NULLS) OVER (ORDER BY time RANGE INTERVAL 1 MINUTE PRECEDING) FROM cpu
SELECT host, usage FROM cpu QUALIFY row_number() OVER (PARTITION BY host ORDER BY usage DESC, time) = 1
SELECT host, region, count(*), grouping(host) FROM cpu GROUP BY GROUPING SETS ((host), (region), (host, region), ())
SELECT host, region, sum(n) FROM cpu GROUP BY CUBE (host, region)
SELECT host, region, sum(n) FROM cpu GROUP BY ROLLUP (host, region)
SELECT host, sum(n) FROM cpu GROUP BY ALL ORDER BY ALL
SELECT host h, sum(n) FILTER (WHERE ok) FROM cpu GROUP BY 1 HAVING sum(n) > 3 ORDER BY 2 DESC NULLS LAST, 1 LIMIT 2
PIVOT cpu ON host IN ('h0', 'h1') USING avg(usage) GROUP BY n
FROM cpu PIVOT (sum(usage) FOR host IN ('h0' AS zero, 'h1') GROUP BY n)
UNPIVOT cpu ON n, "order" INTO NAME metric VALUE v
SELECT * FROM cpu UNPIVOT INCLUDE NULLS (v FOR k IN (host, region))
SELECT host FROM cpu UNION SELECT host FROM mem
SELECT host, n FROM cpu UNION ALL BY NAME SELECT n, host FROM mem
SELECT n FROM cpu EXCEPT ALL SELECT n FROM mem WHERE n < 3
SELECT host FROM cpu INTERSECT SELECT host FROM mem
(SELECT n FROM cpu ORDER BY time LIMIT 3) UNION ALL (SELECT n FROM mem ORDER BY n DESC LIMIT 2)
WITH RECURSIVE x(a, b) AS (SELECT 1, 'h' UNION SELECT a + 1, c.host FROM x JOIN cpu c ON c.n = x.a WHERE a < 4) FROM x
WITH RECURSIVE cpu(n) AS (SELECT n FROM mem WHERE n = 1 UNION SELECT n + 1 FROM cpu WHERE n < 7) SELECT * FROM cpu
WITH RECURSIVE x USING KEY (a) AS (SELECT 1 a, 0 b UNION SELECT x.a, x.b + 1 FROM x, recurring.x y WHERE y.b < 5) FROM x
WITH cpu AS (SELECT * FROM cpu WHERE n = 1) SELECT count(*) FROM cpu
WITH cpu AS (SELECT * FROM prod.cpu WHERE n = 1) SELECT count(*) FROM cpu, prod.cpu
WITH a AS (SELECT 1 v) SELECT * FROM cpu WHERE n IN (FROM a) AND EXISTS (WITH a AS (SELECT 2 v) FROM a WHERE v = n + 1)
SELECT host FROM cpu c WHERE usage > (SELECT avg(usage) FROM cpu i WHERE i.host = c.host)
SELECT host FROM prod.cpu WHERE prod.cpu.n = (SELECT max(prod.mem.n) FROM prod.mem WHERE prod.mem.host = prod.cpu.host)
SELECT host FROM cpu WHERE n = ANY (SELECT n FROM mem) AND n NOT IN (SELECT n FROM prod.mem WHERE n > 3)
SELECT (SELECT max(usage) FROM mem), ARRAY(SELECT n FROM mem ORDER BY n LIMIT 3)
SELECT EXTRACT(hour FROM time), EXTRACT(epoch FROM time), date_part('minute', time) FROM cpu
SELECT time_bucket('5 minutes', time) b, avg(usage) FROM cpu GROUP BY b ORDER BY b
SELECT time_bucket(INTERVAL '5 minutes', time), date_trunc('day', time), time AT TIME ZONE 'Europe/Berlin' FROM cpu
SELECT list_transform([n], x -> x + 1), list_filter([n], lambda x: x > 2), [x * 2 FOR x IN [n, 3] IF x > 2] FROM cpu
SELECT {'a': n}.a, ({'a': {'b': n}}).a.b, map {'k': n}['k'], [n, 1][1], [n, 1, 2][2:], (n, host) FROM cpu
SELECT COLUMNS('n|usage') FROM cpu
SELECT min(COLUMNS(c -> c LIKE 'u%')) FROM cpu
SELECT COLUMNS(* EXCLUDE (ok)) FROM cpu
SELECT count(*) FROM cpu TABLESAMPLE 100%
SELECT count(*) FROM cpu USING SAMPLE 5 ROWS
VALUES (1, 'a'), (2, NULL)
FROM cpu SELECT host, n WHERE n > 3
TABLE cpu
SELECT DISTINCT ON (host) host, usage FROM cpu ORDER BY host, usage, time
SELECT string_agg(region, ',' ORDER BY region), arg_max(host, usage), quantile_cont(usage, 0.95), median(n) FROM cpu
SELECT CASE WHEN n = 1 THEN 'one' ELSE 'x' END, CASE n WHEN 1 THEN 'a' END, n BETWEEN 1 AND 3, region IS NULL FROM cpu
SELECT host LIKE 'h!%' ESCAPE '!', host SIMILAR TO 'h[0-2]', host ~ 'h1', n IS DISTINCT FROM 3, ok IS TRUE FROM cpu
SELECT n::VARCHAR, usage::DECIMAL(10, 2), TRY_CAST(host AS INT), [n]::VARCHAR[], {'a': n}::STRUCT(a BIGINT) FROM cpu
SELECT -n, n % 2, n ** 2, n // 2, n << 1, ~n, @(-3), 4!, host || '-' || region FROM cpu
SELECT INTERVAL '1 day 2 hours', INTERVAL (n) MINUTE, time + INTERVAL '1 month', DATE '2025-01-01' + 1 FROM cpu
SELECT 1e10, 1e-7, 0.1, 0.1e0, 3 * 1e10, 1e400, -1e400, 0.30000000000000004e0, 5e-324, 1.7976931348623157e308
SELECT 170141183460469231731687303715884105727, -170141183460469231731687303715884105728, 18446744073709551615, 1_000
SELECT 99999999999999999999999999999999999999, 123456789012345678901234567890, 1.5, 0.10, 'nan'::DOUBLE = 'nan'::DOUBLE
SELECT 'it''s', e'a\\nb', $$raw$$, 'é', '\\xAA'::BLOB, TIMESTAMPTZ '2025-01-01 00:00:00+02', TIME '24:00:00', '101'::BIT
SELECT host.upper(), cpu.host.lower().length() FROM cpu
SELECT unnest([n, 1]), n FROM cpu
SELECT * FROM cpu, unnest([cpu.n]) u(x) WHERE x > 3
SELECT * FROM range(3), generate_series(1, 2) g(x)
SELECT '{"a": {"b": 2}}'::JSON -> 'a', to_json({'n': n}), json_object('k', n) FROM cpu
SELECT n AS a, a + 1 AS b FROM cpu WHERE a > 2
SELECT cpu FROM prod.cpu WHERE n = 1
SELECT cpu."order", prod.cpu."order" FROM prod.cpu
SELECT t.a FROM cpu AS t(a, b)
SELECT c.n FROM c: prod.cpu
SELECT 'COPY INTO', 'FROM x' /* FROM mem */ FROM cpu -- FROM disk
SELECT host AS created_at, n AS "update" FROM cpu WHERE 'insert into' <> 'x'
SELECT count(*) FROM cpu a JOIN (mem b JOIN prod.mem c ON b.n = c.n) ON a.n = b.n
SELECT host FROM cpu ORDER BY host COLLATE NOCASE DESC, time
SELECT #2, host FROM cpu ORDER BY #1, time
SELECT column_name, column_type FROM (DESCRIBE cpu)
SELECT column_name, min, max FROM (SUMMARIZE cpu)
SELECT time FROM cpu WHERE time >= '2025-01-01 00:05:00' AND time < TIMESTAMPTZ '2025-01-01 00:10:00Z'
SELECT count(*) FROM cpu WHERE time BETWEEN TIMESTAMPTZ '2025-01-01' AND TIMESTAMPTZ '2025-01-01 00:05:00' OR n = 1
SELECT prod.n FROM cpu prod WHERE prod.n = 1
""".strip().split("\n")  # fmt: skip


@pytest.mark.parametrize("sql", SAME)
def test_same_answer_as_plain_duckdb(halved: QueryEngine, plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    plain.execute("SET search_path = '\"default\"'")
    expected = plain.execute(sql)
    types = [str(column[1]) for column in expected.description]
    wanted = expected.to_arrow_table()

    result = halved.run(sql)

    assert result.types == types
    assert _values(result.table, sql) == _values(wanted, sql)


def _values(table: pa.Table, sql: str) -> list[str]:
    columns = [[repr(value) for value in column] for column in table.columns]
    found = [", ".join(row) for row in zip(*columns, strict=True)]
    return found if "ORDER BY" in sql else sorted(found)


def test_columns_are_called_as_in_plain_duckdb(halved: QueryEngine, plain: duckdb.DuckDBPyConnection) -> None:
    for sql in (
        "SELECT host, avg(usage), count(*), n + 1, cpu.n, cpu.time::DATE, [host] FROM cpu GROUP BY ALL",
        "SELECT max(n) OVER (), extract(hour FROM time), upper(host) || 'x' FROM cpu",
        "SELECT (SELECT max(usage) FROM mem), EXISTS (FROM mem), 1e10, [1.5e0], count(*) FROM cpu",
        "SELECT * FROM (SELECT (SELECT max(n) FROM prod.mem))",
        "SELECT * FROM prod.cpu JOIN mem USING (time)",
        "SELECT repeat(host, 2), count(*), lpad(max(host), 3, '.') FROM cpu GROUP BY repeat(host, 2)",
    ):
        assert halved.run(sql).table.column_names == [column[0] for column in plain.execute(sql).description]


# --------------------------------------------------------------------------------------- errors and plans


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nope FROM cpu", 'Binder Error: Referenced column "nope" not found in FROM clause!'),
        ("SELECT host::INT FROM cpu", "Conversion Error: Could not convert string 'a' to INT32"),
        ("SELECT error('mine')", "Invalid Input Error: mine"),
        ("SELECT sum(host) FROM cpu", "Binder Error: No function matches the given name"),
        ("SELECT 1::nonsense", "Catalog Error: Type with name nonsense does not exist!"),
        ("SELECT 99999999999::INT", "Conversion Error: Type INT64 with value 99999999999 can't be cast"),
        ("SELECT 9223372036854775807 + 1 + n FROM range(1) t(n)", "Out of Range Error"),
        ("SELECT repeat('x', 1000000000)", "Invalid Input Error: repeat: the result is longer than 100000 bytes"),
        (
            "SELECT length(repeat(a, 99998)) FROM (SELECT repeat('xx', 2) a FROM cpu)",
            "Invalid Input Error: repeat: ",
        ),
        ("SELECT length(rpad(host, 1000000000, 'y')) FROM cpu", "Invalid Input Error: rpad: longer than 100000"),
        (
            "SELECT length(lpad(host, (SELECT 1000000000), 'y')) FROM cpu",
            "Invalid Input Error: lpad: longer than 100000",
        ),
        ("SELECT length(printf('%1000000000d', n)) FROM cpu", "printf() needs its format as a plain text"),
        ("SELECT length(format('{:>{}}', host, 1000000000)) FROM cpu", "format() needs its format as a plain text"),
        ("SELECT length(printf('%*d', 1000000000, 1))", "printf() needs its format as a plain text"),
    ],
)
def test_errors_of_a_statement_are_the_clients(engine: QueryEngine, cpu: StandIn, sql: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        engine.run(sql, database="prod")

    text = str(caught.value)
    assert text.startswith(message)
    assert "LINE 1" not in text
    assert "arc_" not in text
    assert "lake" not in text


def test_memory_that_does_not_suffice_is_the_clients_problem() -> None:
    with duckdb.connect(config={"threads": 1, "memory_limit": "20MB", "temp_directory": ""}) as connection:
        engine = QueryEngine(StandIn(connection, {}))

        with pytest.raises(Invalid, match=r"^Out of Memory Error: "):
            engine.run("SELECT list(range) FROM range(100000000)")

        engine.stop()


@pytest.mark.parametrize("kind", ["BIGNUM", "UHUGEINT"])
def test_types_an_answer_cannot_hold_are_named(engine: QueryEngine, kind: str) -> None:
    with pytest.raises(Invalid, match=f"cannot hold the type {kind}"):
        engine.run(f"SELECT 1::{kind}")


def test_explain_shows_neither_files_nor_buffers(engine: QueryEngine, cpu: StandIn, directory: Path) -> None:
    for sql in (
        "EXPLAIN SELECT avg(usage) FROM cpu",
        "EXPLAIN ANALYZE SELECT c.host, d.usage FROM cpu c JOIN cpu d USING (time) WHERE c.usage > 0",
        "EXPLAIN (FORMAT json) SELECT * FROM cpu",
    ):
        result = engine.run(sql, database="prod")
        text = result.table.column("explain_value")[0].as_py()
        assert result.types == ["VARCHAR", "VARCHAR"]
        assert "usage" in text
        for secret in ("arc_", ".parquet", "ducklake-", directory.name, "VERSION", "Filename"):
            assert secret not in text


@pytest.mark.parametrize("size", [None, 0, 100])
def test_a_damaged_file_is_named_with_its_measurement_and_the_cure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int | None
) -> None:
    with Rig(tmp_path) as rig:
        rig.write_files(2)
        rig.write_files(1, measurement="mem")
        file = rig.files()[0].path
        if size is None:
            file.unlink()
        else:
            os.truncate(file, size)
        rig.reopen()

        with pytest.raises(Damaged, match=f"'default.cpu' cannot be read: its file {file.name} .* --drop-damaged"):
            rig.query("SELECT sum(n) FROM cpu")

        assert f"default/cpu/{file.name} of the lake cannot be read" in caplog.text
        assert rig.query("SELECT count(*) FROM mem") == [(10,)]
        with pytest.raises(Invalid, match="Conversion Error"):
            rig.query("SELECT '/files/default/cpu/x.parquet'::INT FROM mem")


def test_result_that_is_too_large_is_refused(store: StandIn) -> None:
    engine = QueryEngine(store, QueryOptions(max_result_bytes=10_000_000))

    with pytest.raises(Invalid, match="Result is larger than 9 MB"):
        engine.run("SELECT * FROM range(1000000000000)")

    engine.stop()


# ----------------------------------------------------------------------------------- slots, time, cancelling


class Running:
    """A query in a thread of its own."""

    def __init__(self, engine: QueryEngine, sql: str = ENDLESS, is_gone: Callable[[], bool] | None = None) -> None:
        self.outcome: object = None
        self._ask = lambda: engine.run(sql, is_gone=is_gone)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._ask()
        except Exception as error:
            self.outcome = error

    def result(self) -> object:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.outcome


def test_query_ends_at_its_time_limit(engine: QueryEngine) -> None:
    with pytest.raises(TimedOut, match=r"^Query timed out after 0\.2 seconds$"):
        engine.run(ENDLESS, timeout_s=0.2)

    assert rows(engine, "SELECT 1") == [(1,)]
    assert engine.active() == []


def test_time_limit_holds_while_rows_are_fetched(engine: QueryEngine) -> None:
    with pytest.raises(TimedOut):
        list(engine.stream("SELECT * FROM range(1000000000000)", timeout_s=0.2))


def test_query_whose_client_went_away_is_stopped(engine: QueryEngine) -> None:
    gone = threading.Event()
    running = Running(engine, is_gone=gone.is_set)
    wait_until(lambda: any(query.cursor is not None for query in engine.active()))

    gone.set()

    assert isinstance(running.result(), Cancelled)


def test_query_whose_client_cannot_be_asked_still_ends_in_time(
    engine: QueryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def is_gone() -> bool:
        raise OSError("no socket")

    with pytest.raises(TimedOut):
        engine.run(ENDLESS, is_gone=is_gone, timeout_s=0.3)

    assert "cannot tell" in caplog.text


def test_query_can_be_cancelled_by_its_id(engine: QueryEngine) -> None:
    running = Running(engine)
    wait_until(lambda: any(query.cursor is not None for query in engine.active()))
    [query] = engine.active()

    assert engine.cancel(query.id)

    assert isinstance(running.result(), Cancelled)
    assert not engine.cancel(query.id)


def test_queries_beyond_the_slots_wait_for_their_turn(engine: QueryEngine) -> None:
    streams = [engine.stream("SELECT * FROM range(1000000000)") for _ in range(2)]
    waiting = Running(engine, "SELECT 42 AS answer")
    wait_until(lambda: engine.stats()["waiting"] == 1)

    streams[0].close()

    result = waiting.result()
    assert result.table.to_pydict() == {"answer": [42]}
    assert result.wait_ms > 0
    streams[1].close()


def test_queries_beyond_the_queue_are_turned_away(engine: QueryEngine) -> None:
    streams = [engine.stream("SELECT * FROM range(1000000000)") for _ in range(2)]
    waiting = [Running(engine, "SELECT 1") for _ in range(2)]
    wait_until(lambda: engine.stats()["waiting"] == 2)

    with pytest.raises(Unavailable, match="Query queue full - system under heavy load"):
        engine.run("SELECT 1")

    for stream in streams:
        stream.close()
    for query in waiting:
        assert not isinstance(query.result(), Exception)


def test_query_does_not_wait_for_ever(store: StandIn) -> None:
    engine = QueryEngine(store, QueryOptions(concurrency=1, wait_s=0.05))
    stream = engine.stream("SELECT * FROM range(1000000000)")

    with pytest.raises(Unavailable, match="heavy load"):
        engine.run("SELECT 1")
    with pytest.raises(TimedOut):
        engine.run("SELECT 1", timeout_s=0.01)

    stream.close()
    engine.stop()


def test_stop_ends_what_runs_and_takes_no_more(engine: QueryEngine) -> None:
    running = Running(engine)
    wait_until(lambda: any(query.cursor is not None for query in engine.active()))

    engine.stop()

    assert isinstance(running.result(), Unavailable)
    with pytest.raises(Unavailable):
        engine.run("SELECT 1")


def test_stream_gives_batches_and_frees_its_slot(engine: QueryEngine, cpu: StandIn) -> None:
    stream = engine.stream("SELECT usage FROM cpu, range(100000)", database="prod")

    assert (stream.types, stream.schema.names, len(engine.active())) == (["DOUBLE"], ["usage"], 1)
    assert sum(batch.num_rows for batch in stream) == 400_000
    assert engine.active() == []


def test_stream_that_is_left_early_frees_its_slot(engine: QueryEngine) -> None:
    stream = engine.stream("SELECT * FROM range(1000000000000)")
    next(iter(stream))

    stream.close()

    assert engine.active() == []


def test_error_within_a_stream_is_the_clients(engine: QueryEngine) -> None:
    sql = "SELECT CASE WHEN range > 500000 THEN error('boom') END FROM range(1000000)"

    with pytest.raises(Invalid, match="boom"):
        list(engine.stream(sql))

    assert engine.active() == []


def test_slow_query_is_logged_without_its_text(store: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    engine = QueryEngine(store, QueryOptions(slow_ms=0.001))

    engine.run("SELECT 'secret'")

    assert "took" in caplog.text
    assert "secret" not in caplog.text
    engine.stop()


# ------------------------------------------------------------------------------------------ the second wall


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{outside}')", "SELECT * FROM '{outside}'", "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM read_blob('{inside}/../../{name}/outside.csv')", "SELECT * FROM glob('{parent}/*')",
        "COPY (SELECT 1) TO '{parent}/new.csv'", "EXPORT DATABASE '{parent}/dump'", "ATTACH '{parent}/new.db'",
        "ATTACH '{parent}/new.db' (TYPE sqlite)", "INSTALL httpfs", "LOAD httpfs", "LOAD '{parent}/x.duckdb_extension'",
        "SELECT * FROM sqlite_scan('{parent}/new.db', 't')", "SET enable_external_access = true",
        "SET allowed_directories = ['/']", "RESET lock_configuration", "SET GLOBAL temp_directory = '{parent}'",
        "CREATE SECRET s (TYPE s3)",
    ],
)  # fmt: skip
def test_engine_stays_inside_even_without_the_guard(store: StandIn, directory: Path, sql: str) -> None:
    outside = directory / "outside.csv"
    outside.write_text("a\n1\n")
    names = {"outside": outside, "inside": directory / "lake", "parent": directory, "name": directory.name}
    before = sorted(directory.iterdir())

    problem = r"disabled|locked|not in the catalog|not exist"
    with store.cursor() as cursor, pytest.raises(duckdb.Error, match=problem):
        cursor.execute(sql.format(**names)).fetchall()

    assert sorted(directory.iterdir()) == before


def test_python_variables_are_no_tables(store: StandIn) -> None:
    secret_table = pa.table({"a": [1]})

    with store.cursor() as cursor, pytest.raises(duckdb.CatalogException):
        cursor.execute("SELECT * FROM secret_table")

    assert secret_table.num_rows == 1


def test_lake_works_behind_the_seal(store: StandIn, directory: Path) -> None:
    table = pa.table({"time": pa.array([1], pa.timestamp("us", "UTC")), "n": [1]})
    path = directory / "lake" / "files" / "prod" / "added.parquet"
    path.parent.mkdir(exist_ok=True)
    with store.cursor() as cursor:
        cursor.register("arrow_rows", table)
        cursor.execute("CREATE SCHEMA lake.prod; CREATE TABLE lake.prod.cpu AS SELECT * FROM arrow_rows")
        pa.parquet.write_table(table, path)
        cursor.execute(f"CALL ducklake_add_data_files('lake', 'cpu', '{path}', schema => 'prod')")
        cursor.execute("CALL ducklake_merge_adjacent_files('lake', 'cpu', schema => 'prod')")

        assert cursor.execute("SELECT sum(n) FROM lake.prod.cpu").fetchall() == [(2,)]


def test_sort_spills_behind_the_seal(directory: Path) -> None:
    config = {"threads": 1, "memory_limit": "25MB", "temp_directory": str(directory / "tmp")}
    with duckdb.connect(config=config) as connection:
        seal(connection, [directory / "lake"])

        rows = connection.execute(
            "SELECT s FROM (SELECT 'xxxxxxxxxxxxxxxx' || hash(i) AS s FROM range(400000) t(i)) ORDER BY s OFFSET 399999"
        ).fetchall()

        assert len(rows) == 1


def test_instance_that_cannot_be_sealed_is_not_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_setting", lambda connection, name: "true")

    with (
        duckdb.connect(config={"threads": 1}) as connection,
        pytest.raises(ConfigError, match="enable_external_access"),
    ):
        seal(connection, [directory])
