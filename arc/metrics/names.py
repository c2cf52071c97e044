"""Rules for the names of databases, measurements and columns (docs: letters, digits, underscores, hyphens)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from arc.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names that would collide with schemas DuckDB answers itself, or that the original kept for its own use.
RESERVED = frozenset({"system", "internal", "_internal", "information_schema", "pg_catalog", "temp"})
TIME = "time"  # the timestamp column of every measurement

MAX_COLUMN_NAME = 255  # characters

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATABASE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_MEASUREMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}", re.ASCII)
_SHAPE = "must start with a letter and contain only alphanumeric characters, underscores, or hyphens"


@lru_cache(4096)
def check_database(name: str) -> None:
    """Raises Invalid unless a database may be called so."""
    if not _DATABASE.fullmatch(name):
        raise Invalid(f"invalid database name: {_SHAPE} (max 64 characters)")
    if name.lower() in RESERVED:
        raise Invalid(f'invalid database name: "{name}" is reserved')


@lru_cache(4096)  # remembers good names only: a raised error is not kept
def check_measurement(name: str) -> None:
    """Raises Invalid unless a measurement may be called so (at most 128 characters)."""
    if not _MEASUREMENT.fullmatch(name):
        raise Invalid(f'invalid measurement name "{name[:140]}": {_SHAPE}')


def is_stored(column: str) -> bool:
    """False for columns that are dropped silently: names that start with an underscore belong to exporters.

    Raises Invalid for a name that is empty, too long, or has control characters (SQL cannot quote all of them).
    """
    if not column:
        raise Invalid("column name must not be empty")
    if len(column) > MAX_COLUMN_NAME or _CONTROL.search(column):
        raise Invalid(
            f"column name {column[:40]!r} must have at most {MAX_COLUMN_NAME} characters and no control characters"
        )
    return column[0] != "_"


def column_names(
    tags: Iterable[str], fields: Iterable[str], reserved: Iterable[str] = (TIME,)
) -> tuple[list[str | None], list[str | None]]:
    """Columns of a row's tags and of its fields, in their order; None for those that are not stored.

    A name that is taken already, by `reserved` or, for a field, by a tag, becomes <name>_value.
    Raises Invalid for an empty name.
    """
    taken, fields = set(reserved), list(fields)
    others = {name.casefold() for name in fields}
    tag_columns = [_free_name(name, taken, set()) if is_stored(name) else None for name in tags]
    taken.update(name.casefold() for name in tag_columns if name)
    return tag_columns, [_free_name(name, taken, others) if is_stored(name) else None for name in fields]


def _free_name(name: str, taken: set[str], others: set[str]) -> str:
    """taken: folded names it may not have; others: folded names a new one may not have either (it is added)."""
    if name.casefold() not in taken:
        return name
    while name.casefold() in taken or name.casefold() in others:
        name += "_value"
    others.add(name.casefold())
    return name
