"""Full-text search: English words, stemmed, over rows of a table. SQLite's FTS5; nothing else knows how it is done.

create(connection, ...) in a migration -> triggers keep the index -> matches(...) as a condition of a SELECT
Row ids of the index are those of the table, so a result in order of row id needs no sort.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+")


def create(connection: sa.Connection, table: str, columns: Sequence[str], *, row_id: str = "seq") -> None:
    """An index `<table>_search` over text columns of a table, kept by triggers from now on."""
    index, names = f"{table}_search", ", ".join(columns)
    new, old = (", ".join(f"{row}.{column}" for column in columns) for row in ("new", "old"))
    drop = f"INSERT INTO {index} ({index}, rowid, {names}) VALUES ('delete', old.{row_id}, {old});"  # noqa: S608  # names of ours
    add = f"INSERT INTO {index} (rowid, {names}) VALUES (new.{row_id}, {new});"  # noqa: S608
    for statement in (
        f"CREATE VIRTUAL TABLE {index} USING fts5({names}, content='{table}', content_rowid='{row_id}',"
        " tokenize='porter unicode61')",
        f"CREATE TRIGGER {index}_insert AFTER INSERT ON {table} BEGIN {add} END",
        f"CREATE TRIGGER {index}_delete AFTER DELETE ON {table} BEGIN {drop} END",
        f"CREATE TRIGGER {index}_update AFTER UPDATE OF {names} ON {table} BEGIN {drop} {add} END",
    ):
        connection.exec_driver_sql(statement)


def matches(table: sa.Table, terms: Iterable[str]) -> sa.ColumnElement[bool]:
    """Rows that hold all terms; case, word endings and punctuation do not matter. Without a word nothing matches."""
    words = [word for term in terms for word in _WORD.findall(term)]
    if not words:
        return sa.false()
    index = sa.table(f"{table.name}_search", sa.column("rowid"), sa.column(f"{table.name}_search"))
    phrase = " AND ".join(f'"{word}"' for word in words)
    found = sa.select(index.c.rowid).where(index.c[f"{table.name}_search"].op("MATCH")(phrase))
    return table.c.seq.in_(found)
