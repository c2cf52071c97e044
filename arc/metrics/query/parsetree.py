"""A statement as DuckDB's parse tree: checked node by node, a marker put in place of every measurement.

Everything is refused that is not listed here: a release of DuckDB with new syntax opens nothing by itself. Common
table expressions are told from measurements by the scopes DuckDB itself would find them in.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from arc.errors import Invalid
from arc.metrics import names
from arc.metrics.query.sqltext import require_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_DEPTH = 400  # levels of the tree as JSON, two to four per level of SQL; far below what would exhaust a C stack

# Stands for a measurement in a checked statement. Random, so that no user can write one.
_MARK = f"arc_{secrets.token_hex(8)}"
MARKER = re.compile(_MARK + r"_(\d+)_")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODE_TYPES = words("""
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
_TABLE_FUNCTIONS = words("""
    range generate_series unnest repeat repeat_row json_each json_tree icu_calendar_names pg_timezone_names
""")
# Functions that are called by other names, see guard.py.
BOUNDED = {name: f"arc_{name}" for name in ("repeat", "lpad", "rpad")}
_WIDE = re.compile(r"\d{6}|\*|\{[^{}]*\{")  # a width, also one given by another argument
_FILE_FUNCTION = re.compile(r"read_|glob|scan$|parquet_|sniff_csv|st_read|delta_|iceberg_|^query")


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


class Rewriter:
    """Checks a parse tree and puts a marker in place of every measurement it reads."""

    def __init__(
        self, sql: str, database: str, functions: frozenset[str], spell: Callable[[dict[str, Any]], str]
    ) -> None:
        self.tables: list[tuple[str, str]] = []
        self.called: set[str] = set()  # folded names of functions; "sample" for a random choice of rows
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
        """Change the tree in place; fills `tables` and `called`. Raises Invalid for what is not allowed."""
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
        if node.get("sample"):
            self.called.add("sample")
        if "function_name" in node:
            self._require_function(node)
        for entry in node.get("cte_map", {}).get("map", ()):  # each definition of a WITH list sees those before it
            if re.search(r"[./\\:*?]", entry["key"]):  # DuckDB would look for a file, should it not find the CTE
                require_name(names.check_measurement, entry["key"])
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
        require_name(names.check_database, database)
        require_name(names.check_measurement, measurement)
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

    def _require_function(self, node: dict[str, Any]) -> None:
        name = fold(node["function_name"])
        self.called.add(name)
        if name not in self._functions or node.get("export_state"):
            raise _function_error(name)
        if name in ("format", "printf"):
            _require_narrow(name, node["children"])
        node["function_name"] = BOUNDED.get(name, node["function_name"])


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
            elif fold(str(node.get("function_name", ""))) in BOUNDED:
                found = True
                waiting += node.values()
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


def _require_narrow(name: str, arguments: list[dict[str, Any]]) -> None:
    """A format has to stand there as a text, so that the widths in it are known."""
    pattern = arguments[0].get("value", {}).get("value") if arguments else None
    if not isinstance(pattern, str) or _WIDE.search(pattern):
        raise Invalid(f"{name}() needs its format as a plain text, with widths below 100000")


def _function_error(name: str) -> Invalid:
    if _FILE_FUNCTION.search(name):
        return Invalid(f"File I/O function not allowed in user SQL: {name}()")
    return Invalid(f"Function does not exist or is not allowed in user SQL: {name}()")


def _spoken(kind: str) -> str:
    return "prepared parameters" if kind == "VALUE_PARAMETER" else kind.lower().replace("_", " ")
