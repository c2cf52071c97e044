"""Every DuckDB type has one spelling in JSON, and Arrow answers hold types that all clients know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from arc import clock
from arc.metrics.query.engine import QueryResult
from arc.metrics.query.render import arrow_stream, json_rows

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        yield connection.cursor()


def result(connection: duckdb.DuckDBPyConnection, sql: str) -> QueryResult:
    relation = connection.execute(sql)
    types = [str(column[1]) for column in relation.description]
    return QueryResult("id", relation.to_arrow_table(), types, 0.0, 0.0)


def rendered(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    return json_rows(result(connection, sql)).decode()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1", "1"),
        ("(-9223372036854775808)::BIGINT", "-9223372036854775808"),
        ("18446744073709551615::UBIGINT", "18446744073709551615"),
        ("7::UTINYINT", "7"),
        ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
        ("sum(n) FROM (VALUES (1), (2)) t(n)", "3"),
        ("45.2::DOUBLE", "45.2"),
        ("45::DOUBLE", "45.0"),
        ("0.1::FLOAT", "0.1"),
        ("1e300::DOUBLE", "1e+300"),
        ("'nan'::DOUBLE", "null"),
        ("'-inf'::FLOAT", "null"),
        ("1.50::DECIMAL(10, 2)", '"1.50"'),
        ("0.00000001::DECIMAL(38, 10)", '"0.0000000100"'),
        ("12::DECIMAL(38, 0)", '"12"'),
        ("true", "true"),
        ("'a\"b\\é😀\n'", '"a\\"b\\\\é😀\\n"'),
        ("'a'::ENUM('a', 'b')", '"a"'),
        ("'00000000-0000-0000-0000-000000000001'::UUID", '"00000000-0000-0000-0000-000000000001"'),
        ("TIMESTAMPTZ '2025-10-16 14:00:00.25+02'", '"2025-10-16T12:00:00.25Z"'),
        ("TIMESTAMP '2025-10-16 12:00:00'", '"2025-10-16T12:00:00Z"'),
        ("TIMESTAMP '1969-12-31 23:59:59.000001'", '"1969-12-31T23:59:59.000001Z"'),
        ("TIMESTAMP_S '2025-10-16 10:20:30'", '"2025-10-16T10:20:30Z"'),
        ("TIMESTAMP_MS '2025-10-16 12:00:00.1'", '"2025-10-16T12:00:00.1Z"'),
        ("TIMESTAMP_NS '2025-10-16 12:00:00.123456780'", '"2025-10-16T12:00:00.12345678Z"'),
        ("TIMESTAMP '0001-01-01'", '"0001-01-01T00:00:00Z"'),
        ("TIMESTAMP '20000-01-01 00:00:00.5'", '"20000-01-01T00:00:00.5Z"'),
        ("TIMESTAMP '9999-12-31 12:00:00'", '"9999-12-31T12:00:00Z"'),
        ("DATE '2025-10-16'", '"2025-10-16"'),
        ("DATE '12025-10-16'", '"12025-10-16"'),
        ("TIME '01:02:03.500'", '"01:02:03.5"'),
        ("TIME '24:00:00'", '"24:00:00"'),
        ("'\\xAA\\x00'::BLOB", '"qgA="'),
        ("[1, NULL, 3]", "[1,null,3]"),
        ("[1, 2]::INT[2]", "[1,2]"),
        ("[]::INT[]", "[]"),
        ("['nan'::DOUBLE, 0.1::FLOAT]", "[null,0.10000000149011612]"),
        ("[0.1::FLOAT]", "[0.1]"),
        ("{'a': 1, 'b': {'c': [1.50], 'd': 'x'}}", '{"a":1,"b":{"c":["1.50"],"d":"x"}}'),
        ("{'t': TIMESTAMPTZ '2025-10-16 12:00:00.5Z', 'd': DATE '2025-10-16', 'x': '\\xAA'::BLOB}",
         '{"t":"2025-10-16T12:00:00.5Z","d":"2025-10-16","x":"qg=="}'),
        ("{'n': 170141183460469231731687303715884105727::HUGEINT}", '{"n":170141183460469231731687303715884105727}'),
        ("map {'a': 1, 'b': NULL}", '{"a":1,"b":null}'),
        ("map {1: 'x', 2: 'y'}", '{"1":"x","2":"y"}'),
        ("union_value(n := 5)", "5"),
        ("'{\"a\": [1, 2.50, 12345678901234567890123]}'::JSON", '{"a": [1, 2.50, 12345678901234567890123]}'),
        ("to_json('nan'::DOUBLE)", "null"),
        ("NULL", "null"),
    ],
)  # fmt: skip
def test_value_in_json(connection: duckdb.DuckDBPyConnection, expression: str, expected: str) -> None:
    assert rendered(connection, f"SELECT {expression}") == f"[[{expected}]]"


@pytest.mark.parametrize(
    "value",
    [
        "1 year", "-2 years", "14 months", "-14 months 3 days", "1 day", "2 days -00:00:01", "00:00:00", "1.5 seconds",
        "-5 minutes", "100 hours 0.000001 seconds", "1 year -1 month",
    ],
)  # fmt: skip
def test_interval_reads_as_in_duckdb(connection: duckdb.DuckDBPyConnection, value: str) -> None:
    [[shown, expected]] = json.loads(
        rendered(connection, f"SELECT INTERVAL '{value}', CAST(INTERVAL '{value}' AS VARCHAR)")
    )

    assert shown == expected


@pytest.mark.parametrize(
    "kind",
    [
        "BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL(9, 2)", "BOOLEAN", "VARCHAR", "TIMESTAMPTZ", "TIMESTAMP_NS",
        "DATE", "TIME", "INTERVAL", "BLOB", "JSON", "INT[]", "STRUCT(a INT)", "MAP(VARCHAR, INT)", "ENUM('a')", "UUID",
    ],
)  # fmt: skip
def test_null_is_null_in_every_type(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    assert rendered(connection, f"SELECT NULL::{kind} FROM range(3)") == "[[null],[null],[null]]"


def test_null_beside_values(connection: duckdb.DuckDBPyConnection) -> None:
    sql = """SELECT nullif(n, 1), nullif(n, 1)::DOUBLE, nullif(n, 1)::VARCHAR, to_timestamp(nullif(n, 1)),
                    nullif(n, 1)::HUGEINT, nullif(n, 1)::DECIMAL(9, 1) FROM range(3) t(n)"""

    assert json.loads(rendered(connection, sql)) == [
        [0, 0.0, "0", "1970-01-01T00:00:00Z", 0, "0.0"],
        [None, None, None, None, None, None],
        [2, 2.0, "2", "1970-01-01T00:00:02Z", 2, "2.0"],
    ]


def test_rows_of_many_slices_keep_their_order(connection: duckdb.DuckDBPyConnection) -> None:
    rows = json.loads(rendered(connection, "SELECT range, range::VARCHAR FROM range(10001) ORDER BY 1"))

    assert rows == [[number, str(number)] for number in range(10_001)]


def test_instants_are_those_of_the_clock() -> None:
    generator = np.random.default_rng(1)
    values = generator.integers(-30_000_000_000_000_000, 250_000_000_000_000_000, 3_000)
    scales = generator.choice([1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 60_000_000], 3_000)
    instants: list[int] = (values // scales * scales).tolist()
    table = pa.table({"t": pa.array(instants, pa.timestamp("us", "UTC"))})

    rows = json.loads(json_rows(QueryResult("id", table, ["TIMESTAMP WITH TIME ZONE"], 0.0, 0.0)))

    assert rows == [[clock.rfc3339(instant)] for instant in instants]


def test_results_without_rows_or_columns(connection: duckdb.DuckDBPyConnection) -> None:
    assert rendered(connection, "SELECT 1 AS a WHERE false") == "[]"
    assert json_rows(QueryResult("id", pa.table({}), [], 0.0, 0.0)) == b"[]"


def test_columns_of_one_name_are_kept_apart(connection: duckdb.DuckDBPyConnection) -> None:
    assert rendered(connection, "SELECT 1 AS a, 'x' AS a") == '[[1,"x"]]'


def read(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return pa.ipc.open_stream(arrow_stream(result(connection, sql).table)).read_all()


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("1.50::DECIMAL(10, 2)", pa.float64(), 1.5),
        ("12::DECIMAL(38, 0)", pa.int64(), 12),
        ("9223372036854775807::HUGEINT", pa.int64(), 9223372036854775807),
        ("10::HUGEINT ** 20", pa.float64(), 1e20),
        ("(10000000000 * 10000000000::HUGEINT)::HUGEINT", pa.float64(), 1e20),
        ("'a'::ENUM('a', 'b')", pa.string(), "a"),
        ("'a'", pa.string(), "a"),
        ("1.5::DOUBLE", pa.float64(), 1.5),
        ("[1]", pa.list_(pa.int32()), [1]),
    ],
)
def test_type_in_arrow(connection: duckdb.DuckDBPyConnection, expression: str, kind: pa.DataType, value: Any) -> None:
    table = read(connection, f"SELECT {expression} AS v UNION ALL SELECT NULL")

    assert table.schema.field("v").type.equals(kind) or pa.types.is_list(kind)
    assert table.schema.field("v").nullable
    assert table.column("v").to_pylist() == [value, None]


def test_arrow_without_rows_has_its_schema(connection: duckdb.DuckDBPyConnection) -> None:
    table = read(connection, "SELECT 1::BIGINT AS a, now() AS t WHERE false")

    assert table.schema == pa.schema({"a": pa.int64(), "t": pa.timestamp("us", "UTC")})
    assert pa.ipc.open_stream(arrow_stream(pa.table({}))).read_all().num_columns == 0


def test_arrow_keeps_every_row(connection: duckdb.DuckDBPyConnection) -> None:
    table = read(connection, "SELECT range AS n, range AS n, (range % 3)::VARCHAR AS s FROM range(300000)")

    assert table.num_rows == 300_000
    assert table.column(1).to_pylist() == list(range(300_000))
