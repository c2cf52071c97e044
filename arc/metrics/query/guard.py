"""The first wall around user SQL: what a statement may say, and which measurements it reads.

    QueryEngine.run -> Guard.check -> Plan: checked text, a marker where each measurement stands
    Plan.fill -> the statement that runs

It reads DuckDB's own parse tree (json_serialize_sql), never the text: one statement, a SELECT in the widest sense,
built only from node types and functions on lists (parsetree.py). The tree, a marker in place of every measurement,
is turned back into text by DuckDB (json_deserialize_sql), as it does for every view it stores. The second wall is
seal.py.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb

from arc.errors import Invalid
from arc.metrics.query.parsetree import BOUNDED, MARKER, Rewriter, fold, words
from arc.metrics.query.sqltext import (
    LEXEME,
    Listing,
    explained,
    is_unicode,
    lexemes_of,
    own_statement,
    statements_of,
    with_double_quotes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLAN_CACHE = 256  # statements; dashboards repeat theirs


# Functions whose answer is not fixed by their arguments, but which disclose and change nothing.
_VOLATILE_ALLOWED = words("""
    random gen_random_uuid uuid uuidv4 uuidv7 error now today current_date get_current_time get_current_timestamp
    transaction_timestamp current_database current_schema
""")
# What makes two runs over the same rows differ. `age` and `ago` look at the clock, which DuckDB does not declare.
_VOLATILE = _VOLATILE_ALLOWED - words("error current_database current_schema") | words("age ago sample")
# Functions DuckDB calls consistent, but which read settings, bind SQL, wait, or trust raw bytes.
_REFUSED_FUNCTIONS = words("""
    current_setting getvariable json_serialize_plan json_execute_serialized_sql pg_sleep
    combine finalize variant_bytes_to_variant
""")


# What makes a long text out of a short one does so outside of DuckDB's memory limit: 4 GB for repeat('x', 1000000000).
# Macros of these names stand for them, which take each argument once and look at the length first.
_MAX_TEXT = 100_000  # bytes of a value; DuckDB makes 2,048 at a time
_MACROS = f"""
CREATE OR REPLACE MACRO {BOUNDED["repeat"]}(s, n) AS list_transform([struct_pack(s := s, n := n)], lambda arc_given:
    repeat(arc_given.s, CASE WHEN strlen(arc_given.s::VARCHAR) * arc_given.n::HUGEINT > {_MAX_TEXT}
        THEN error('repeat: the result is longer than {_MAX_TEXT} bytes') ELSE arc_given.n END))[1];
CREATE OR REPLACE MACRO {BOUNDED["lpad"]}(s, n, c) AS lpad(s, list_transform([n], lambda arc_given:
    CASE WHEN arc_given > {_MAX_TEXT} THEN error('lpad: longer than {_MAX_TEXT}') ELSE arc_given END)[1], c);
CREATE OR REPLACE MACRO {BOUNDED["rpad"]}(s, n, c) AS rpad(s, list_transform([n], lambda arc_given:
    CASE WHEN arc_given > {_MAX_TEXT} THEN error('rpad: longer than {_MAX_TEXT}') ELSE arc_given END)[1], c);
"""

_SELECT: dict[str, Any] = {  # SELECT without anything, as a tree
    "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "select_list": [],
    "from_table": {"type": "EMPTY", "alias": "", "sample": None, "query_location": 0},
    "where_clause": None, "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING",
    "having": None, "sample": None, "qualify": None,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A checked statement, complete but for the data its measurements stand for."""

    tables: tuple[tuple[str, str], ...] = ()  # (database, measurement), each once
    listing: Listing | None = None
    is_volatile: bool = False  # says something else at another time, over the same rows
    explain: str = ""  # what stands in front of the statement: "EXPLAIN", "EXPLAIN ANALYZE"
    _sql: str = ""

    def fill(self, sources: Sequence[str]) -> str:
        """The statement to run. sources: for each of `tables` what stands in its place, a name or a sub-query."""
        return f"{self.explain} {MARKER.sub(lambda mark: sources[int(mark[1])], self._sql)}".lstrip()


class Guard:
    """Checks statements with the parser and the function list of one DuckDB instance. Any thread may call it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, max_length: int = 10_000) -> None:
        self.max_length = max_length
        self._parser = connection.cursor()
        self._lock = threading.Lock()
        self.functions = _harmless_functions(self._parser)
        self._parser.execute(_MACROS)
        self.check = lru_cache(PLAN_CACHE)(self._check)

    def close(self) -> None:
        self._parser.close()

    def _check(self, sql: str, database: str = "default") -> Plan:
        """The plan of one statement. `database`: where unqualified names live. Raises Invalid."""
        if not sql.strip():
            raise Invalid("SQL query is required")
        if len(sql) > self.max_length:
            raise Invalid(f"SQL query exceeds maximum length ({self.max_length} characters)")
        if "\0" in sql or not is_unicode(sql):
            raise Invalid("SQL query is no valid text")
        sql = with_double_quotes(sql)
        first = next(lexemes_of(sql), None)
        word = first.text.lower() if first else ""
        if word in ("show", "describe", "desc"):
            own = own_statement(sql, database)
            return Plan(listing=own) if isinstance(own, Listing) else self._plan(own, database)
        if word == "explain":
            explain, sql = explained(sql)
            return replace(self._plan(sql, database), explain=explain)
        return self._plan(sql, database)

    def condition(self, text: str, columns: Mapping[str, str]) -> tuple[str, bool]:
        """A condition on the rows of one measurement, as SQL, and whether it names any column. Raises Invalid.

        columns: what stands for each column in the SQL, by folded name.
        """
        if len(text) > self.max_length:
            raise Invalid(f"WHERE clause exceeds maximum length ({self.max_length} characters)")
        if any(found["skip"] and found["skip"].strip() for found in LEXEME.finditer(text)):
            raise Invalid("Comments are not allowed in a WHERE clause")
        sql = f"SELECT {text}"
        statement = self._parse(sql)
        node = statement["node"]
        rest = {**node, "select_list": [], "from_table": _SELECT["from_table"]}
        if rest != _SELECT or node["from_table"]["type"] != "EMPTY" or len(node["select_list"]) != 1:
            raise Invalid("WHERE clause must be one condition, without sub-queries")
        [expression] = node["select_list"]
        if expression["alias"]:
            raise Invalid("WHERE clause must be one condition")
        named = list(_columns_named(expression))
        Rewriter(sql, "", self.functions, self._expression_text).rewrite(statement)
        for column in named:
            column.update(self._stand_in(column["column_names"], columns))
        expression["alias"] = ""  # the rewriter may have named it
        sql = self._expression_text(expression)
        if not sql:
            raise Invalid("WHERE clause says something that cannot be rewritten")
        return f"({sql})", bool(named)

    def _stand_in(self, name: list[str], columns: Mapping[str, str]) -> dict[str, Any]:
        """The tree of what stands for a column."""
        if len(name) != 1 or fold(name[0]) not in columns:
            raise Invalid(f"WHERE clause: no column {'.'.join(name)}")
        tree: dict[str, Any] = self._parse(f"SELECT {columns[fold(name[0])]}")["node"]["select_list"][0]
        return tree

    def _plan(self, sql: str, database: str) -> Plan:
        statement = self._parse(sql)
        rewriter = Rewriter(sql, database, self.functions, self._expression_text)
        try:
            rewriter.rewrite(statement)
            is_volatile = not rewriter.called.isdisjoint(_VOLATILE)
            return Plan(tables=tuple(rewriter.tables), is_volatile=is_volatile, _sql=self._text(statement))
        except (RecursionError, duckdb.Error) as exc:
            raise Invalid("SQL query is nested too deeply, or says something that cannot be rewritten") from exc

    def _text(self, statement: dict[str, Any]) -> str:
        return self._ask("SELECT json_deserialize_sql(?)", json.dumps({"error": False, "statements": [statement]}))

    def _expression_text(self, expression: dict[str, Any]) -> str:
        """An expression as DuckDB writes it, which is the name of its column; "" for one with 1e400 in it."""
        try:
            text = self._text({"node": {**_SELECT, "select_list": [expression]}, "named_param_map": []})
        except duckdb.Error:
            return ""
        return text[len("SELECT ") :]

    def _parse(self, sql: str) -> dict[str, Any]:
        """The parse tree of the only statement in `sql`, which selects."""
        try:
            answer = json.loads(self._ask("SELECT json_serialize_sql(?)", sql))
        except (RecursionError, duckdb.Error) as exc:
            raise Invalid("SQL query is nested too deeply") from exc
        if answer["error"]:
            raise _parse_error(sql, answer)
        statements = answer["statements"]
        if not statements:
            raise Invalid("SQL query is required")
        if len(statements) > 1:
            raise Invalid("Multiple SQL statements are not allowed")
        return dict(statements[0])

    def _ask(self, question: str, argument: str) -> str:
        with self._lock:
            row = self._parser.execute(question, [argument]).fetchone()
        return str(row[0]) if row else ""


def _harmless_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Functions a statement may call: their answer depends on their arguments alone.

    DuckDB declares that itself for functions; a macro is harmless unless it hides a query of the catalogue.
    """
    rows = connection.execute(
        """SELECT lower(function_name) FROM duckdb_functions()
           WHERE internal AND database_name = 'system' AND function_type IN ('scalar', 'aggregate', 'macro')
           GROUP BY 1 HAVING bool_and(coalesce(stability, 'CONSISTENT') = 'CONSISTENT'
                                      AND NOT coalesce(has_side_effects, false)
                                      AND coalesce(macro_definition NOT ILIKE '%SELECT %', true))"""
    ).fetchall()
    known = {name for (name,) in rows if not name.startswith("__internal")}
    return frozenset(known - _REFUSED_FUNCTIONS | _VOLATILE_ALLOWED | {"unnest", "unlist", "grouping", "grouping_id"})


def _parse_error(sql: str, answer: Mapping[str, Any]) -> Invalid:
    """What to tell when DuckDB gave no tree for the text."""
    statements = statements_of(sql)
    if len(statements) > 1:
        return Invalid("Multiple SQL statements are not allowed")
    if "Only SELECT statements" not in answer["error_message"]:
        return Invalid(f"Parser Error: {answer['error_message']}")
    words = [lexeme.text.upper() for lexeme in statements[0]] if statements else []
    if "PIVOT" in words or "PIVOT_WIDER" in words:
        return Invalid("PIVOT needs its values listed: PIVOT ... ON column IN ('a', 'b') USING ...")
    return Invalid(f"Dangerous SQL operation not allowed: {words[0] if words else sql[:20]}")


def _columns_named(expression: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of an expression that name a column. Raises Invalid for what reads other rows than the one at hand."""
    waiting: list[Any] = [expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if node.get("type") in ("SUBQUERY", "STAR", "POSITIONAL_REFERENCE"):
                raise Invalid("WHERE clause must be one condition, without sub-queries")
            if node.get("type") == "COLUMN_REF":
                yield node
            else:
                waiting += node.values()
