"""Schemas of measurements: which columns there are, under which spelling, of which type.

Types only widen: NULL (only nulls so far) < any, BIGINT < DOUBLE; BOOLEAN, VARCHAR and BLOB stand alone. The widening
is a semilattice, so requests may be replayed in any order and meet the same types. Names compare without case,
as SQL does; the first spelling stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from arc.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arc.metrics.decode.batch import Batch

TIME = "time"
TIME_TYPE = "TIMESTAMP WITH TIME ZONE"
ARROW_TYPES = {
    TIME_TYPE: pa.timestamp("us", "UTC"),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "NULL": pa.null(),
}
_DUCKDB_TYPES = {kind.id: name for name, kind in ARROW_TYPES.items()}

MAX_COLUMNS = 1_000  # of a measurement; a flush of 4,000 new ones took 20 s and 5 GB
_MAX_SIGNATURES = 1_000  # of one measurement; beyond, they are learned anew

Signature = tuple[tuple[str, int], ...]


def widen(stored: str, arriving: str) -> str | None:
    """The narrowest type that holds both; None when there is none."""
    if stored == arriving or arriving == "NULL":
        return stored
    if stored == "NULL":
        return arriving
    return "DOUBLE" if {stored, arriving} == {"BIGINT", "DOUBLE"} else None


def signature(batch: Batch) -> Signature:
    """Names and types of a batch: equal signatures are treated alike."""
    return tuple((name, column.type.id) for name, column in batch.columns.items())


@dataclass(slots=True)
class TableSchema:
    """Columns of one measurement, `time` first, in order of their first appearance.

    columns: folded name -> (name, DuckDB type). tags: columns that ever came as tags. in_lake: what the lake's
    table has. renames: for signatures met before, how their columns are to be renamed.
    widened: columns of which the lake has files of a narrower type, see lake.exact().
    """

    database: str
    measurement: str
    columns: dict[str, tuple[str, str]] = field(default_factory=lambda: {TIME: (TIME, TIME_TYPE)})
    tags: tuple[str, ...] = ()
    in_lake: dict[str, str] = field(default_factory=dict)
    renames: dict[Signature, dict[str, str]] = field(default_factory=dict)
    widened: frozenset[str] = frozenset()

    @property
    def full_name(self) -> str:
        return f"{self.database}.{self.measurement}"

    def names_and_types(self) -> tuple[tuple[str, str], ...]:
        """What users see. Columns beginning with "_", which no user can write, are notes of continuous queries."""
        return tuple(column for column in self.columns.values() if not column[0].startswith("_"))

    def kinds(self) -> dict[str, str]:
        """What columns with a type hold, in the words of decode.columns, by folded name; without the time."""
        return {folded: _plain(kind) for folded, (_, kind) in self.columns.items() if kind not in ("NULL", TIME_TYPE)}

    def lake_types(self) -> dict[str, str]:
        """What the lake's table has once the rows of this schema are in it."""
        return {name: kind for name, kind in self.columns.values() if kind != "NULL"}

    def widened_then(self) -> frozenset[str]:
        """`widened` once the rows of this schema are in the lake."""
        return self.widened | {name for name, kind in self.lake_types().items() if self.in_lake.get(name, kind) != kind}

    def grown_by(self, batches: Iterable[Batch]) -> TableSchema:
        """This schema with the columns of the batches; raises Invalid and changes nothing."""
        grown = replace(self, columns=dict(self.columns), renames={})
        if len(self.renames) < _MAX_SIGNATURES:
            grown.renames = dict(self.renames)  # what fitted once fits for ever, as types only widen
        for batch in batches:
            renames = {}
            for name, column in batch.columns.items():
                spelling = grown._add(name, _DUCKDB_TYPES[column.type.id])
                if spelling != name:
                    renames[name] = spelling
            grown.tags += tuple(tag for tag in _spelled(batch.tags, renames) if tag not in grown.tags)
            grown.renames[signature(batch)] = renames
        if len(grown.columns) > MAX_COLUMNS:
            raise Invalid(f"{self.full_name} would have more than {MAX_COLUMNS} columns")
        return grown

    def renames_of(self, batch: Batch) -> dict[str, str] | None:
        """How to spell the columns of a batch; None when a batch like this has not been checked yet."""
        renames = self.renames.get(signature(batch))
        if renames is None or (batch.tags and not set(_spelled(batch.tags, renames)).issubset(self.tags)):
            return None
        return renames

    def _add(self, name: str, kind: str) -> str:
        key = name.casefold()
        spelling, stored = self.columns.get(key, (name, kind))
        widest = widen(stored, kind)
        if widest is None:
            raise Invalid(
                f'column "{spelling}": cannot mix {_plain(stored)} and {_plain(kind)}; '
                f"{self.full_name} stores it as {stored}"
            )
        self.columns[key] = (spelling, widest)
        return spelling


def _spelled(names: Iterable[str], renames: dict[str, str]) -> list[str]:
    return [renames.get(name, name) for name in names]


def _plain(kind: str) -> str:
    return {"BIGINT": "integer", "DOUBLE": "float", "VARCHAR": "text", "BLOB": "binary", "BOOLEAN": "boolean"}.get(
        kind, kind.lower()
    )


def rows_as_table(schema: TableSchema, chunks: list[dict[str, pa.Array]]) -> pa.Table:
    """Rows of a measurement as one table in the order and types of its schema.

    chunks: columns by name, each chunk with `time`. Columns that hold only nulls so far are left out, as the
    lake has no type for them; a column a chunk lacks is null there.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    lengths = [len(chunk[TIME]) for chunk in chunks]
    present = {name for chunk in chunks for name in chunk}
    for name, kind in schema.columns.values():
        if name in present and kind != "NULL":
            columns[name] = _column(name, ARROW_TYPES[kind], chunks, lengths)
    return pa.table(columns)


def _nulls(length: int, kind: pa.DataType) -> pa.Array:
    """Nulls that share one zeroed buffer, so that a thousand columns most rows lack cost nothing."""
    zeros = _zeros(1 << max(8 * (length + 1), 1 << 16).bit_length())
    bitmap = zeros.slice(0, (length + 7) // 8)
    buffers = [bitmap, zeros, zeros] if pa.types.is_string(kind) or pa.types.is_binary(kind) else [bitmap, zeros]
    return pa.Array.from_buffers(kind, length, buffers, null_count=length)


@lru_cache(4)
def _zeros(size: int) -> pa.Buffer:
    return pa.py_buffer(bytes(size))


def _column(name: str, kind: pa.DataType, chunks: list[dict[str, pa.Array]], lengths: list[int]) -> pa.ChunkedArray:
    parts = []
    for chunk, length in zip(chunks, lengths, strict=True):
        part = chunk.get(name)
        if part is None:
            part = _nulls(length, kind)
        elif part.type != kind:
            # int64 above 2**53 loses digits as DOUBLE: the rule of the type lattice, so not an error
            part = part.cast(kind, safe=False)
        parts.append(part)
    return pa.chunked_array(parts, kind)
