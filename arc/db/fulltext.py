"""Full-text search: English words, stemmed, over rows of a table. SQLite's FTS5; nothing else knows how it is done.

create(connection, ...) in a migration -> triggers keep the index -> found(table, ...) gives numbers of rows
Row ids of the index are those of the table, so a result in order of row id needs no sort.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+")
_STOP_WORDS = (  # that every English text has
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it"
    " its itself they them their theirs themselves what which who whom this that these those am is are was were be been"
    " being have has had having do does did doing a an the and but if or because as until while of at by for with about"
    " against between into through during before after above below to from up down in out on off over under again"
    " further then once here there when where why how all any both each few more most other some such no nor not only"
    " own same so than too very s t can will just don should now"
)
_IS_STOP_WORD = frozenset(_STOP_WORDS.split()).__contains__


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


def tag_words(tags: Iterable[str]) -> str:
    """Tags as words that no stemming changes, for a column of an index: they are compared whole, case and all."""
    return " ".join(dict.fromkeys(map(_tag_word, tags)))


def found(
    table: sa.Table,
    columns: Sequence[str],
    terms: Sequence[str] = (),
    tags: Sequence[str] = (),
    between: tuple[int, int] | None = None,
) -> sa.Select[tuple[int]]:
    """A SELECT of one column, `seq`: rows that hold all terms in the columns and at least one of the tags.

    between: the first and the last `seq` that matter.
    Case, endings of words, punctuation and stop words of terms do not matter; when nothing is left, nothing is found.
    """
    words = [word for term in terms for word in _WORD.findall(term) if not _IS_STOP_WORD(word.lower())]
    name = f"{table.name}_search"
    index = sa.table(name, sa.column("rowid", sa.Integer), sa.column(name))
    seqs = sa.select(index.c.rowid.label("seq"))
    if between:
        seqs = seqs.where(index.c.rowid.between(*between))
    if terms and not words:
        return seqs.where(sa.false())
    wanted = [f"{{{' '.join(columns)}}} : ({' AND '.join(map(_quoted, words))})"] if words else []
    if tags:
        wanted.append(f"tag_words : ({' OR '.join(map(_tag_word, tags))})")
    return seqs.where(index.c[name].op("MATCH")(" AND ".join(wanted)))


def _quoted(word: str) -> str:
    return f'"{word}"'


def _tag_word(tag: str) -> str:
    return f"t{int.from_bytes(hashlib.sha256(tag.encode()).digest()[:16])}"
