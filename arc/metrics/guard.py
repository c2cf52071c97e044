"""The first wall around user SQL: what a statement may say, and which measurements it reads.

    QueryEngine.run -> Guard.check -> Plan: checked text, a marker where each measurement stands
    Plan.fill -> the statement that runs

It reads DuckDB's own parse tree (json_serialize_sql), never the text: one statement, a SELECT in the widest sense,
built only from node types and functions listed here. What is not listed is refused, so that a new release of
DuckDB cannot open a hole silently. The tree, with every measurement replaced by a marker, is turned back into text
by DuckDB (json_deserialize_sql), as it does for every view it stores. The second wall is seal.py.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from arc.errors import Invalid
from arc.metrics import names
from arc.metrics.lake import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_DEPTH = 400  # levels of the tree as JSON, two to four per level of SQL; far below what would exhaust a C stack
PLAN_CACHE = 256  # statements; dashboards repeat theirs

# Stands for a measurement in a checked statement. Random, so that no user can write one.
_MARK = f"arc_{secrets.token_hex(8)}"
_MARKER = re.compile(_MARK + r"_(\d+)_")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODE_TYPES = _words("""
    SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE
    BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST EMPTY PIVOT SHOW_REF
    ORDER_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING
    COLUMN_REF VALUE_CONSTANT FUNCTION CASE_EXPR STAR LAMBDA COLLATE POSITIONAL_REFERENCE GROUPING_FUNCTION
    OPERATOR_CAST OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_UNPACK OPERATOR_COALESCE
    OPERATOR_NULLIF OPERATOR_TRY ARRAY_CONSTRUCTOR ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT ARROW
    COMPARE_EQUAL COMPARE_NOTEQUAL COMPARE_LESSTHAN COMPARE_GREATERTHAN COMPARE_LESSTHANOREQUALTO
    COMPARE_GREATERTHANOREQUALTO COMPARE_IN COMPARE_NOT_IN COMPARE_DISTINCT_FROM COMPARE_NOT_DISTINCT_FROM
    COMPARE_BETWEEN COMPARE_NOT_BETWEEN CONJUNCTION_AND CONJUNCTION_OR
    WINDOW_AGGREGATE WINDOW_RANK WINDOW_RANK_DENSE WINDOW_NTILE WINDOW_PERCENT_RANK WINDOW_CUME_DIST
    WINDOW_ROW_NUMBER WINDOW_FIRST_VALUE WINDOW_LAST_VALUE WINDOW_LEAD WINDOW_LAG WINDOW_NTH_VALUE WINDOW_FILL
    GENERIC_TYPE_INFO DECIMAL_TYPE_INFO STRING_TYPE_INFO LIST_TYPE_INFO STRUCT_TYPE_INFO ARRAY_TYPE_INFO
    UNBOUND_TYPE_INFO INTEGER_LITERAL_TYPE_INFO
""")
# Table functions that compute from their arguments alone.
_TABLE_FUNCTIONS = _words("""
    range generate_series unnest repeat repeat_row json_each json_tree icu_calendar_names pg_timezone_names
""")
# Functions whose answer is not fixed by their arguments, but which disclose and change nothing.
_VOLATILE_ALLOWED = _words("""
    random gen_random_uuid uuid uuidv4 uuidv7 error now today current_date get_current_time get_current_timestamp
    transaction_timestamp current_database current_schema
""")
# Functions DuckDB calls consistent, but which read settings, bind SQL, wait, or trust raw bytes.
_REFUSED_FUNCTIONS = _words("""
    current_setting getvariable json_serialize_plan json_execute_serialized_sql pg_sleep
    combine finalize variant_bytes_to_variant
""")
_FILE_FUNCTION = re.compile(r"read_|glob|scan$|parquet_|sniff_csv|st_read|delta_|iceberg_|^query")

_SELECT: dict[str, Any] = {  # SELECT without anything, as a tree
    "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "select_list": [],
    "from_table": {"type": "EMPTY", "alias": "", "sample": None, "query_location": 0},
    "where_clause": None, "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING",
    "having": None, "sample": None, "qualify": None,
}  # fmt: skip

# Lexemes of SQL, only as far as needed to tell statements apart, to find our own and to give messages.
_LEXEME = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`)
      | (?P<literal>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|(?P<tag>\$\w*\$).*?(?P=tag))
      | (?P<word>\w+)
      | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_EXPLAIN = re.compile(r"(?i)explain(?: analyze| \( format (?:text|json) \))?")


@dataclass(frozen=True)
class Listing:
    """A question the store answers itself: its databases, or the measurements of one."""

    kind: str  # "databases" or "measurements"
    database: str = ""


@dataclass(frozen=True)
class Plan:
    """A checked statement, complete but for the data its measurements stand for."""

    tables: tuple[tuple[str, str], ...] = ()  # (database, measurement), each once
    listing: Listing | None = None
    explain: str = ""  # what stands in front of the statement: "EXPLAIN", "EXPLAIN ANALYZE"
    _sql: str = ""

    def fill(self, sources: Sequence[str]) -> str:
        """The statement to run. sources: for each of `tables` what stands in its place, a name or a sub-query."""
        return f"{self.explain} {_MARKER.sub(lambda mark: sources[int(mark[1])], self._sql)}".lstrip()


class Lexeme(NamedTuple):
    kind: str
    text: str
    start: int


class Guard:
    """Checks statements with the parser and the function list of one DuckDB instance. Any thread may call it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, max_length: int = 10_000) -> None:
        self.max_length = max_length
        self._parser = connection.cursor()
        self._lock = threading.Lock()
        self.functions = _harmless_functions(self._parser)
        self.check = lru_cache(PLAN_CACHE)(self._check)

    def close(self) -> None:
        self._parser.close()

    def _check(self, sql: str, database: str = "default") -> Plan:
        """The plan of one statement. `database`: where unqualified names live. Raises Invalid."""
        if not sql.strip():
            raise Invalid("SQL query is required")
        if len(sql) > self.max_length:
            raise Invalid(f"SQL query exceeds maximum length ({self.max_length} characters)")
        if "\0" in sql or not _is_unicode(sql):
            raise Invalid("SQL query is no valid text")
        sql = _with_double_quotes(sql)
        first = next(_lexemes(sql), None)
        word = first.text.lower() if first else ""
        if word in ("show", "describe", "desc"):
            own = _own_statement(sql, database)
            return own if isinstance(own, Plan) else self._plan(own, database)
        if word == "explain":
            explain, sql = _explained(sql)
            return replace(self._plan(sql, database), explain=explain)
        return self._plan(sql, database)

    def condition(self, text: str, columns: Mapping[str, str]) -> tuple[str, bool]:
        """A condition on the rows of one measurement, as SQL, and whether it names any column. Raises Invalid.

        columns: what stands for each column in the SQL, by folded name.
        """
        if len(text) > self.max_length:
            raise Invalid(f"WHERE clause exceeds maximum length ({self.max_length} characters)")
        if any(found["skip"] and found["skip"].strip() for found in _LEXEME.finditer(text)):
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
        _Rewriter(sql, "", self.functions, self._expression_text).rewrite(statement)
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
        rewriter = _Rewriter(sql, database, self.functions, self._expression_text)
        try:
            rewriter.rewrite(statement)
            return Plan(tables=tuple(rewriter.tables), _sql=self._text(statement))
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
    statements = _statements(sql)
    if len(statements) > 1:
        return Invalid("Multiple SQL statements are not allowed")
    if "Only SELECT statements" not in answer["error_message"]:
        return Invalid(f"Parser Error: {answer['error_message']}")
    words = [lexeme.text.upper() for lexeme in statements[0]] if statements else []
    if "PIVOT" in words or "PIVOT_WIDER" in words:
        return Invalid("PIVOT needs its values listed: PIVOT ... ON column IN ('a', 'b') USING ...")
    return Invalid(f"Dangerous SQL operation not allowed: {words[0] if words else sql[:20]}")


# ---------------------------------------------------------------------------------------------- the text


def _lexemes(sql: str) -> Iterator[Lexeme]:
    """The lexemes of a text without blanks and comments."""
    for found in _LEXEME.finditer(sql):
        if found["skip"] is None:
            yield Lexeme(str(found.lastgroup), found.group(), found.start())


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can express but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _statements(sql: str) -> list[list[Lexeme]]:
    """The statements of a text that are not empty."""
    parts: list[list[Lexeme]] = [[]]
    for lexeme in _lexemes(sql):
        if lexeme.text == ";":
            parts.append([])
        else:
            parts[-1].append(lexeme)
    return [part for part in parts if part]


def _with_double_quotes(sql: str) -> str:
    """Names in back quotes, which DuckDB does not know, in double quotes."""
    if "`" not in sql:
        return sql
    pieces = list(sql)
    for kind, text, start in _lexemes(sql):
        if kind == "quoted" and text[0] == "`" and '"' not in text:
            pieces[start] = pieces[start + len(text) - 1] = '"'
    return "".join(pieces)


def _explained(sql: str) -> tuple[str, str]:
    """The EXPLAIN in front of a statement, and the statement."""
    lexemes = list(_lexemes(sql))
    for length in (5, 2, 1):  # EXPLAIN (FORMAT json), EXPLAIN ANALYZE, EXPLAIN
        prefix = " ".join(lexeme.text for lexeme in lexemes[:length])
        if length < len(lexemes) and _EXPLAIN.fullmatch(prefix):
            return prefix.upper(), sql[lexemes[length].start :]
    return "", sql


def _own_statement(sql: str, database: str) -> Plan | str:
    """The plan of a SHOW the store answers, else the text for DuckDB, in its own words where ours differ."""
    statements = _statements(sql)
    if len(statements) != 1:
        return sql
    first, *rest = statements[0]
    words = [lexeme.text.lower() for lexeme in rest]
    if first.text.lower() == "show":
        if words == ["databases"]:
            return Plan(listing=Listing("databases"))
        if words in (["tables"], ["measurements"]):
            return Plan(listing=Listing("measurements", database))
        if words[:1] in (["tables"], ["measurements"]) and words[1:2] in (["from"], ["in"]):
            return _measurements_of(_dotted_name(rest[2:]))
        if words[:1] == ["columns"] and words[1:2] in (["from"], ["in"]):
            rest = rest[2:]
    name = _dotted_name(rest)
    return sql if name is None else "DESCRIBE " + ".".join(quoted(part) for part in name)


def _measurements_of(name: list[str] | None) -> Plan:
    if name is None or len(name) != 1:
        raise Invalid("Usage: SHOW TABLES [FROM database]")
    _require_name(names.check_database, name[0])
    return Plan(listing=Listing("measurements", name[0]))


def _dotted_name(lexemes: list[Lexeme]) -> list[str] | None:
    """The parts of a name such as `db.t`, `my-db.t` or `"my-db"."t"`; None when it is something else."""
    parts, expects_word = [""], True
    for kind, text, _ in lexemes:
        if expects_word and kind == "quoted":
            parts[-1] += text[1:-1].replace('""', '"')
        elif expects_word and kind == "word":
            parts[-1] += text
        elif not expects_word and text == "-":
            parts[-1] += "-"
        elif not expects_word and text == ".":
            parts.append("")
        else:
            return None
        expects_word = not expects_word
    return None if expects_word else parts


def _require_name(check: Callable[[str], None], name: str) -> None:
    try:
        check(name)
    except Invalid:
        raise Invalid(
            "Quoted identifier in table position is not a valid database or measurement name "
            f"(replacement scans are disabled): {name}"
        ) from None


# ---------------------------------------------------------------------------------------------- the tree


def fold(name: str) -> str:
    """A name as DuckDB compares it: ASCII letters without case."""
    return name.encode().lower().decode()


@dataclass(frozen=True)
class _Scope:
    """What names mean at one place of the tree."""

    ctes: frozenset[str] = frozenset()  # folded names that hide measurements
    recurring: frozenset[str] = frozenset()  # of these, the ones being defined: also known as recurring.<name>
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (database, measurement) -> name in FROM

    def with_cte(self, name: str) -> _Scope:
        return replace(self, ctes=self.ctes | {fold(name)})


class _Rewriter:
    """Checks a parse tree and puts a marker in place of every measurement it reads."""

    def __init__(
        self, sql: str, database: str, functions: frozenset[str], spell: Callable[[dict[str, Any]], str]
    ) -> None:
        self.tables: list[tuple[str, str]] = []
        self._spell = spell
        self._text = sql.encode()
        self._database = database
        self._functions = functions
        self._handlers = {
            "BASE_TABLE": self._base_table,
            "TABLE_FUNCTION": self._table_function,
            "SHOW_REF": self._show,
            "SELECT_NODE": self._select,
            "RECURSIVE_CTE_NODE": self._recursive_cte,
            "COLUMN_REF": self._column,
            "STAR": self._star,
            "VALUE_CONSTANT": self._constant,
        }

    def rewrite(self, statement: dict[str, Any]) -> None:
        """Change the tree in place; fills `tables`. Raises Invalid for what is not allowed."""
        waiting: list[tuple[Any, _Scope, int]] = [(statement, _Scope(), 0)]
        while waiting:  # a loop, not recursion: the depth is the user's
            node, scope, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise Invalid("SQL query is nested too deeply")
            if isinstance(node, dict):
                waiting.extend((child, inner, depth + 1) for child, inner in self._visit(node, scope))
            elif isinstance(node, list):
                waiting.extend((child, scope, depth + 1) for child in node)

    def _visit(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        """Check one node; gives its children, each with the scope that holds for it."""
        kind = node.get("type")
        if isinstance(kind, str) and kind not in _NODE_TYPES:
            raise Invalid(f"SQL construct not allowed: {_spoken(kind)}")
        if "function_name" in node:
            self._require_function(node)
        for entry in node.get("cte_map", {}).get("map", ()):  # each definition of a WITH list sees those before it
            if re.search(r"[./\\:*?]", entry["key"]):  # DuckDB would look for a file, should it not find the CTE
                _require_name(names.check_measurement, entry["key"])
            yield entry["value"], scope
            scope = scope.with_cte(entry["key"])
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        yield from handler(node, scope) if handler else _children(node, scope)

    def _recursive_cte(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        """Only the recursive side of the union sees the name that is being defined."""
        inner = scope.with_cte(node["cte_name"])
        inner = replace(inner, recurring=inner.recurring | {fold(node["cte_name"])})
        yield from ((child, inner if key == "right" else scope) for key, child in node.items() if key != "cte_map")

    def _select(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        """A SELECT: name the measurements of its FROM, then look at its parts."""
        found = [ref for ref in _from_tables(node["from_table"]) if not ref["alias"] and not self._is_cte(ref, scope)]
        aliases = dict(scope.aliases)
        by_name: dict[str, tuple[str, str]] = {}
        for ref in found:
            database = ref["schema_name"] or self._database
            key = (fold(database), fold(ref["table_name"]))
            # a.cpu JOIN b.cpu: the second needs a name of its own, for both would be called cpu
            is_first = by_name.setdefault(key[1], key) == key
            aliases[key] = ref["alias"] = ref["table_name"] if is_first else f"{database}.{ref['table_name']}"
        inner = replace(scope, aliases=aliases)
        for item in node["select_list"]:
            if not item["alias"] and _is_renamed(item):
                item["alias"] = self._spell(item)
        yield from _children(node, inner)

    def _base_table(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        place = node["query_location"]
        if re.match(rb"['$]|[eE]'", self._text[place : place + 2]):
            raise Invalid(
                "String literal not allowed in table position (replacement scans are disabled); "
                "reference a table by name"
            )
        if node["at_clause"] is not None:
            raise Invalid("AT (VERSION | TIMESTAMP) is not allowed")
        if not self._is_cte(node, scope):
            self._mark(node)
        return iter(())

    def _is_cte(self, node: Mapping[str, Any], scope: _Scope) -> bool:
        if node["catalog_name"]:
            return False
        name = fold(node["table_name"])
        if node["schema_name"]:
            return fold(node["schema_name"]) == "recurring" and name in scope.recurring
        return name in scope.ctes

    def _mark(self, node: dict[str, Any]) -> None:
        """Put the marker of its measurement in place of a table."""
        if node["catalog_name"]:
            raise Invalid("Names in table position have at most two parts: database.measurement")
        database, measurement = node["schema_name"] or self._database, node["table_name"]
        _require_name(names.check_database, database)
        _require_name(names.check_measurement, measurement)
        if (database, measurement) not in self.tables:
            self.tables.append((database, measurement))
        node["alias"] = node["alias"] or measurement
        node["schema_name"] = ""
        node["table_name"] = f"{_MARK}_{self.tables.index((database, measurement))}_"

    def _table_function(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        function = node["function"]
        name = fold(str(function.get("function_name")))
        if function.get("type") != "FUNCTION" or name not in _TABLE_FUNCTIONS:
            raise _function_error(name)
        yield from _children(function, scope)  # not the function itself: as a scalar its name may mean another one
        yield from ((child, scope) for key, child in node.items() if key != "function")

    def _show(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        if node["show_type"] not in ("DESCRIBE", "SUMMARY") or node["query"] is None or node["table_name"]:
            raise Invalid("Usage: SHOW DATABASES, SHOW TABLES [FROM database], DESCRIBE or SUMMARIZE a table or query")
        yield node["query"], scope

    def _column(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        """`database.measurement.column` becomes `alias.column`: a sub-query has no database."""
        parts = node["column_names"]
        alias = scope.aliases.get((fold(parts[0]), fold(parts[1]))) if len(parts) > 2 else None
        if alias is not None:
            node["column_names"] = [alias, *parts[2:]]
        return iter(())

    def _constant(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        """Data, not syntax. DuckDB would write a DOUBLE such as 1e10 as the DECIMAL 10000000000.0: cast its text."""
        value = node["value"]
        if value["type"]["id"] == "DOUBLE" and not value["is_null"]:
            kind = {"id": "VARCHAR", "type_info": None}
            text = {**node, "alias": "", "value": {"type": kind, "is_null": False, "value": repr(value["value"])}}
            node.update(
                {"class": "CAST", "type": "OPERATOR_CAST", "child": text, "cast_type": value["type"], "try_cast": False}
            )
            del node["value"]
        return iter(())

    def _star(self, node: dict[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
        for column in node["qualified_exclude_list"]:
            alias = scope.aliases.get((fold(column["schema"]), fold(column["table"])))
            if alias is not None:
                column.update(schema="", table=alias)
        yield from _children(node, scope)

    def _require_function(self, node: Mapping[str, Any]) -> None:
        name = fold(node["function_name"])
        if name not in self._functions or node.get("export_state"):
            raise _function_error(name)


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


def _is_renamed(expression: dict[str, Any]) -> bool:
    """Whether rewriting changes the text of an expression, and so the name DuckDB gives its column."""
    found = False
    waiting: list[Any] = [expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if node.get("type") == "STAR":  # stands for several columns, which have names
                return False
            if node.get("type") == "SUBQUERY":
                found = True  # no need to look at what it selects
            elif node.get("type") == "VALUE_CONSTANT":
                found = found or node["value"]["type"]["id"] == "DOUBLE"
            else:
                waiting += node.values()
    return found


def _children(node: Mapping[str, Any], scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
    return ((child, scope) for key, child in node.items() if key != "cte_map")


def _from_tables(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables that stand directly in a FROM, those of sub-queries not."""
    waiting = [source]
    while waiting:
        node = waiting.pop()
        if node["type"] == "JOIN":
            waiting += [node["right"], node["left"]]
        elif node["type"] == "BASE_TABLE":
            yield node


def _function_error(name: str) -> Invalid:
    if _FILE_FUNCTION.search(name):
        return Invalid(f"File I/O function not allowed in user SQL: {name}()")
    return Invalid(f"Function does not exist or is not allowed in user SQL: {name}()")


def _spoken(kind: str) -> str:
    return "prepared parameters" if kind == "VALUE_PARAMETER" else kind.lower().replace("_", " ")
