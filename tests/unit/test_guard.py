"""What a statement may say: every refusal here is a door into the server's files or settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import duckdb
import pytest

from arc.errors import Invalid
from arc.metrics.query.guard import Guard
from arc.metrics.query.sqltext import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with duckdb.connect(config={"threads": 1}) as connection:
        guard = Guard(connection)
        yield guard
        guard.close()


def tables(guard: Guard, sql: str, database: str = "default") -> list[str]:
    return [".".join(table) for table in guard.check(sql, database).tables]


def refusal(guard: Guard, sql: str) -> str:
    with pytest.raises(Invalid) as caught:
        guard.check(sql, "default")
    return str(caught.value)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", []),
        ("SELECT * FROM cpu", ["default.cpu"]),
        ("SELECT * FROM prod.cpu;", ["prod.cpu"]),
        ("FROM prod.cpu SELECT usage", ["prod.cpu"]),
        ("TABLE cpu", ["default.cpu"]),
        ('SELECT * FROM "my-db"."m-1"', ["my-db.m-1"]),
        ("SELECT `a` FROM `my-db`.`m-1`", ["my-db.m-1"]),
        ("SELECT default.cpu.a FROM default.cpu, Default . mem", ["default.cpu", "Default.mem"]),
        ("SELECT * FROM a.cpu JOIN b.cpu USING (host)", ["b.cpu", "a.cpu"]),
        ("SELECT * FROM cpu, cpu c2, LATERAL (SELECT * FROM mem WHERE mem.n = cpu.n)", ["default.mem", "default.cpu"]),
        ("SELECT (SELECT max(n) FROM mem) FROM range(3)", ["default.mem"]),
        ("SELECT 1 WHERE EXISTS (SELECT * FROM mem) ORDER BY (SELECT 1 FROM disk) LIMIT (SELECT 2 FROM net)",
         ["default.disk", "default.mem", "default.net"]),
        ("SELECT * FROM cpu UNION ALL BY NAME SELECT * FROM mem", ["default.cpu", "default.mem"]),
        ("PIVOT cpu ON host IN ('a') USING avg(usage)", ["default.cpu"]),
        ("SUMMARIZE prod.cpu", ["prod.cpu"]),
        ("DESCRIBE prod.cpu", ["prod.cpu"]),
        ("DESC my-db.m-1 ; -- hyphens", ["my-db.m-1"]),
        ("SHOW COLUMNS FROM \"my-db\".cpu", ["my-db.cpu"]),
        ("DESCRIBE SELECT * FROM cpu", ["default.cpu"]),
        ("EXPLAIN SELECT * FROM cpu", ["default.cpu"]),
        ("/* why */ EXPLAIN ANALYZE SELECT * FROM cpu", ["default.cpu"]),
        ("EXPLAIN (FORMAT json) SELECT * FROM cpu", ["default.cpu"]),
        ("SELECT '; DROP TABLE x' FROM cpu -- ; DROP", ["default.cpu"]),
        ("SELECT 1 /* ; DELETE FROM cpu */ ;", []),
        ("SELECT 'COPY INTO', 'read_csv(''x'')' FROM cpu", ["default.cpu"]),
        ("SELECT created_at, \"update\", \"delete\", \"set\", load, install FROM cpu", ["default.cpu"]),
        ("SELECT EXTRACT(year FROM time), $$FROM mem$$ FROM cpu", ["default.cpu"]),
        ("SELECT \"glob\" FROM (SELECT host GLOB 'a*' AS \"glob\" FROM cpu)", ["default.cpu"]),
        ("SELECT row_number() OVER w, main.sum(n) OVER w FROM cpu WINDOW w AS (ORDER BY time)", ["default.cpu"]),
        ("SELECT host.upper(), cpu.host.lower() FROM cpu", ["default.cpu"]),
        ("VALUES (1), (2)", []),
        ("SELECT * FROM unnest([1]), generate_series(1, 2), json_each('{}')", []),
    ],
)  # fmt: skip
def test_measurements_of_a_statement(guard: Guard, sql: str, expected: list[str]) -> None:
    assert sorted(tables(guard, sql)) == sorted(expected)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("WITH cpu AS (SELECT 1 AS n) SELECT * FROM cpu", []),
        ("WITH cpu AS (SELECT 1 AS n) SELECT * FROM CPU, (SELECT * FROM cPu), prod.cpu", ["prod.cpu"]),
        ("WITH cpu AS (SELECT * FROM cpu WHERE n = 1) SELECT * FROM cpu", ["default.cpu"]),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", ["default.b"]),
        ("SELECT * FROM (WITH cpu AS (SELECT 1) SELECT * FROM cpu), cpu", ["default.cpu"]),
        ("WITH x AS (WITH cpu AS (SELECT 1) SELECT * FROM cpu) SELECT * FROM x, cpu", ["default.cpu"]),
        ("WITH cpu AS (SELECT 1) SELECT * FROM cpu UNION ALL SELECT * FROM cpu", []),
        ("WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT * FROM x", []),
        ("WITH RECURSIVE cpu(n) AS (SELECT n FROM cpu UNION SELECT n + 1 FROM cpu) SELECT * FROM cpu", ["default.cpu"]),
        ("WITH RECURSIVE cpu AS (SELECT n FROM cpu) SELECT * FROM cpu", ["default.cpu"]),
        ("WITH RECURSIVE x(n) USING KEY (n) AS (SELECT 1 UNION SELECT x.n FROM x, recurring.x AS r) FROM x", []),
        ("WITH x AS (SELECT 1) SELECT * FROM recurring.x", ["recurring.x"]),
        ('WITH "1st" AS (SELECT 1 AS "2nd") SELECT "2nd" FROM "1st"', []),
    ],
)
def test_cte_hides_a_measurement_only_in_its_scope(guard: Guard, sql: str, expected: list[str]) -> None:
    assert sorted(tables(guard, sql)) == expected


def test_own_database_comes_from_the_caller(guard: Guard) -> None:
    assert tables(guard, "SELECT * FROM cpu", database="prod") == ["prod.cpu"]


@pytest.mark.parametrize(
    ("sql", "listing"),
    [
        ("SHOW DATABASES", Listing("databases")),
        ("show databases ; -- all", Listing("databases")),
        ("SHOW TABLES", Listing("measurements", "default")),
        ("/* x */ SHOW MEASUREMENTS", Listing("measurements", "default")),
        ("SHOW TABLES FROM prod;", Listing("measurements", "prod")),
        ("SHOW MEASUREMENTS FROM my-db", Listing("measurements", "my-db")),
        ('Show Tables From "my-db" ;', Listing("measurements", "my-db")),
        ("SHOW TABLES IN `my-db`", Listing("measurements", "my-db")),
    ],
)
def test_listings_are_answered_by_the_store(guard: Guard, sql: str, listing: Listing) -> None:
    assert guard.check(sql, "default").listing == listing


FILE_FUNCTIONS = """
    read_parquet parquet_scan parquet_metadata parquet_schema parquet_file_metadata parquet_kv_metadata
    parquet_bloom_probe read_csv read_csv_auto sniff_csv read_json read_json_auto read_json_objects
    read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects read_text read_blob read_xlsx glob
    delta_scan iceberg_scan iceberg_metadata iceberg_snapshots st_read sqlite_scan postgres_scan mysql_scan query
    query_table read_duckdb
""".split()  # noqa: SIM905
HIDING_PLACES = [
    "SELECT * FROM {}('x')",
    "FROM {}('x') f",
    'SELECT * FROM "{}"(\'x\')',
    "SELECT * FROM main.{}('x')",
    'SELECT * FROM system.main."{}"(\'x\')',
    "SELECT * FROM /* c */ {} -- c\n ('x')",
    "WITH a AS (SELECT * FROM {}('x')) SELECT 1",
    "SELECT (SELECT 1 FROM {}('x'))",
    "SELECT * FROM cpu, LATERAL (SELECT * FROM {}(cpu.host))",
    "SELECT * FROM cpu JOIN {}('x') ON true",
    "SELECT 1 WHERE EXISTS (FROM {}('x'))",
    "SELECT {}('x')",
    "SELECT main.{}('x')",
    "SELECT host.{}() FROM cpu",
    "SELECT list_transform([1], lambda x: {}('x'))",
    "SELECT 1 ORDER BY {}('x')",
    "SELECT sum(1) OVER (ORDER BY {}('x'))",
    "SELECT {}('x') OVER ()",
    "VALUES ({}('x'))",
    "SELECT 1 UNION SELECT 1 FROM {}('x')",
    "SELECT 1 LIMIT (SELECT 1 FROM {}('x'))",
    "PIVOT (FROM {}('x')) ON a IN (1) USING sum(b)",
    "SUMMARIZE FROM {}('x')",
    "DESCRIBE SELECT * FROM {}('x')",
    "EXPLAIN ANALYZE SELECT * FROM {}('x')",
    "EXPLAIN SELECT {}('x')",
]  # fmt: skip


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_file_function_is_found_wherever_it_hides(guard: Guard, place: str) -> None:
    for spelling in ("read_text", "READ_TEXT", "Read_Csv", "gLoB", "sqlite_scan", "query_table"):
        text = refusal(guard, place.format(spelling))
        assert text == f"File I/O function not allowed in user SQL: {spelling.lower()}()"


@pytest.mark.parametrize("name", FILE_FUNCTIONS)
def test_file_function_is_named_in_the_refusal(guard: Guard, name: str) -> None:
    assert (
        refusal(guard, f"SELECT * FROM {name}('/etc/passwd')") == f"File I/O function not allowed in user SQL: {name}()"
    )
    assert refusal(guard, f"SELECT {name}('/etc/passwd')") == f"File I/O function not allowed in user SQL: {name}()"


@pytest.mark.parametrize(
    "call",
    [
        "current_setting('temp_directory')", "getvariable('x')", "getenv('HOME')", "nextval('s')", "currval('s')",
        "write_log('x')", "sleep_ms(1)", "pg_sleep(1)", "setseed(0.1)", "current_query()", "txid_current()",
        "current_connection_id()", "pg_get_viewdef(1)", "get_block_size('lake')", "json_serialize_plan('SELECT 1')",
        "stats(1)", "__internal_compress_string_hugeint('x')", "finalize(1)", "no_such_function(1)",
    ],
)  # fmt: skip
def test_function_that_tells_or_changes_something_is_refused(guard: Guard, call: str) -> None:
    name = call.partition("(")[0]
    for sql in (f"SELECT {call}", f"SELECT main.{call}", f"SELECT * FROM cpu WHERE n = {call}"):
        assert refusal(guard, sql) == f"Function does not exist or is not allowed in user SQL: {name}()"


def test_every_table_function_of_the_engine_is_refused_but_the_pure_ones(guard: Guard) -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            """SELECT DISTINCT function_name FROM duckdb_functions()
               WHERE function_type IN ('table', 'table_macro', 'pragma')"""
        ).fetchall()
    allowed = set()
    for (name,) in rows:
        try:
            guard.check(f"SELECT * FROM {name}('x')", "default")
            allowed.add(name)
        except Invalid:
            pass
    assert allowed == {
        "generate_series", "icu_calendar_names", "json_each", "json_tree", "pg_timezone_names", "range", "repeat",
        "repeat_row", "unnest",
    }  # fmt: skip


def test_harmless_functions_were_reviewed_for_this_version_of_duckdb(guard: Guard) -> None:
    suspicious = re.compile(
        "read|scan|file|glob|setting|secret|env|path|_log|attach|quer|pragma|duckdb|catalog|variable|sleep|load|install"
        "|copy|write|exec|sql|state|stats|conn|meta|memory|http|shell|process|seed|nextval|currval"
    )
    found = {name for name in guard.functions if suspicious.search(name)}
    # Each of these was looked at: paths as texts, SQL as text, a constant. Look again when the number changes.
    assert found == {
        "current_catalog", "formatreadabledecimalsize", "formatreadablesize", "json_deserialize_sql",
        "json_extract_path", "json_extract_path_text", "json_serialize_sql", "parse_dirpath",
        "parse_duckdb_log_message", "parse_filename", "parse_path", "pg_conf_load_time",
    }  # fmt: skip
    assert (duckdb.__version__, len(guard.functions)) == ("1.5.5", 779)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE cpu", "DELETE FROM cpu", "INSERT INTO cpu VALUES (1)", "UPDATE cpu SET n = 1",
        "ALTER TABLE cpu ADD COLUMN x INT", "CREATE TABLE x AS SELECT 1", "CREATE VIEW v AS SELECT 1",
        "CREATE MACRO f() AS 1", "CREATE SECRET s (TYPE s3)", "TRUNCATE cpu", "ATTACH 'x.db'", "DETACH lake",
        "COPY cpu TO 'x.csv'", "COPY (SELECT 1) TO 'x.csv'", "EXPORT DATABASE 'x'", "IMPORT DATABASE 'x'",
        "PRAGMA database_list", "SET threads = 1", "SET VARIABLE x = 1", "RESET threads", "LOAD httpfs",
        "INSTALL httpfs", "FORCE INSTALL httpfs", "CALL pragma_version()", "USE lake", "VACUUM", "ANALYZE",
        "CHECKPOINT", "FORCE CHECKPOINT", "BEGIN", "COMMIT", "ROLLBACK", "PREPARE p AS SELECT 1", "EXECUTE p",
        "DEALLOCATE p", "COMMENT ON TABLE cpu IS 'x'", "UPDATE EXTENSIONS",
        "MERGE INTO cpu USING mem ON true WHEN MATCHED THEN DELETE",
        "EXPLAIN DROP TABLE cpu", "EXPLAIN ANALYZE INSERT INTO cpu VALUES (1)", "EXPLAIN EXPLAIN SELECT 1",
    ],
)  # fmt: skip
def test_only_selecting_statements_pass(guard: Guard, sql: str) -> None:
    for text in (sql, f"/* x */ {sql.lower()};", f"-- SELECT\n{sql}"):
        assert refusal(guard, text).startswith("Dangerous SQL operation not allowed: ")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE cpu", "SELECT 1;\n--\n;DELETE FROM cpu;", "DROP TABLE a; SELECT 1",
        "SHOW DATABASES; DROP TABLE cpu", "EXPLAIN SELECT 1; SELECT 2",
    ],
)  # fmt: skip
def test_one_statement_at_a_time(guard: Guard, sql: str) -> None:
    assert refusal(guard, sql) == "Multiple SQL statements are not allowed"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM 'x.parquet'", "SELECT * FROM'x.parquet'", "SELECT * FROM cpu JOIN 'x.csv' ON true",
        "SELECT * FROM cpu, 'x.csv'", "FROM '/etc/passwd'", "SELECT * FROM 'cpu'", "WITH cpu AS (SELECT 1) FROM 'cpu'",
        "SELECT (SELECT 1 FROM $$x.csv$$)", "DESCRIBE 'x.csv'", "SUMMARIZE 'x.csv'", "SELECT * FROM /* é */ 'x.csv'",
    ],
)  # fmt: skip
def test_literal_in_table_position(guard: Guard, sql: str) -> None:
    assert refusal(guard, sql).startswith("String literal not allowed in table position")


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ('SELECT * FROM "x.parquet"', "x.parquet"),
        ('SELECT * FROM "/etc/passwd"', "/etc/passwd"),
        ('SELECT * FROM cpu JOIN "s3://b/x.csv" ON true', "s3://b/x.csv"),
        ('FROM "a/b"."c"', "a/b"),
        ('SELECT * FROM prod."../x"', "../x"),
        ('SELECT * FROM "1cpu"', "1cpu"),
        ('WITH "x.csv" AS (SELECT 1) SELECT * FROM "x.csv"', "x.csv"),
        ('SHOW TABLES FROM "a/b"', "a/b"),
        ("SELECT * FROM __ducklake_metadata_lake.ducklake_data_file", "__ducklake_metadata_lake"),
        ("SELECT * FROM information_schema.tables", "information_schema"),
        ("SELECT * FROM pg_catalog.pg_class", "pg_catalog"),
        ("SELECT * FROM temp.x", "temp"),
    ],
)
def test_identifier_that_names_no_measurement(guard: Guard, sql: str, name: str) -> None:
    assert refusal(guard, sql) == (
        "Quoted identifier in table position is not a valid database or measurement name "
        f"(replacement scans are disabled): {name}"
    )


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("", "SQL query is required"),
        (" \n", "SQL query is required"),
        ("-- nothing", "SQL query is required"),
        (";", "SQL query is required"),
        ("SELECT " + "1" * 10_000, "SQL query exceeds maximum length (10000 characters)"),
        ("SELECT '\ud800'", "SQL query is no valid text"),
        ("SELECT 1 \0; DROP TABLE cpu", "SQL query is no valid text"),
        ("SELECT * FROM lake.prod.cpu", "Names in table position have at most two parts: database.measurement"),
        ("SELECT * FROM cpu AT (VERSION => 1)", "AT (VERSION | TIMESTAMP) is not allowed"),
        ("SELECT * FROM cpu WHERE n = ?", "SQL construct not allowed: prepared parameters"),
        ("SELECT * FROM cpu WHERE n = $1", "SQL construct not allowed: prepared parameters"),
        ("SELECT * FROM cpu WHERE n = $x", "SQL construct not allowed: prepared parameters"),
        ("PIVOT cpu ON host USING avg(n)",
         "PIVOT needs its values listed: PIVOT ... ON column IN ('a', 'b') USING ..."),
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SHOW TABLES FROM a.b", "Usage: SHOW TABLES [FROM database]"),
        ("SELECT " + " + ".join(["1"] * 300), "SQL query is nested too deeply"),
        ("SELECT * FROM (" * 200 + "SELECT 1" + ")" * 200, "SQL query is nested too deeply"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(guard: Guard, sql: str, text: str) -> None:
    assert refusal(guard, sql) == text


@pytest.mark.parametrize("sql", ["SHOW ALL TABLES", "SELECT * FROM (SHOW TABLES)", "SELECT * FROM (SHOW ALL TABLES)"])
def test_show_stands_alone(guard: Guard, sql: str) -> None:
    assert refusal(guard, sql).startswith("Usage: SHOW DATABASES")


@pytest.mark.parametrize("text", ["[" * 4_900, "(" * 4_900, "/*" * 4_000, "$a$ $b$ " * 1_000, "'" * 4_999, "`" * 4_999])
def test_bombs_end_in_a_refusal(guard: Guard, text: str) -> None:
    assert refusal(guard, f"SELECT {text}")


def test_place_of_a_measurement_keeps_its_name_and_alias(guard: Guard) -> None:
    plan = guard.check("SELECT cpu.n, m.n FROM prod.cpu, mem m TABLESAMPLE 10%", "default")

    assert plan.fill([f"<{measurement}>" for _, measurement in plan.tables]) == (
        "SELECT cpu.n, m.n FROM <cpu> AS cpu , <mem> AS m TABLESAMPLE System(10.0 PERCENT)"
    )
