"""How the many files of a measurement become few: which are worth it, and one step at a time.

    worthwhile -> merge_step: DuckLake merges the oldest files beside flushes and queries, one output a step
                  copy_step:  files with deleted rows, which it does not merge, are copied into one, while flushes wait

A step takes at most a number of files and bytes, because DuckLake plans 0.2 MB of memory per input file and limits
only its outputs. A merge keeps older snapshots readable: merged files know which row came with which snapshot.
"""

from __future__ import annotations

import logging
from bisect import bisect
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from arc.metrics.storage.lake import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb

    from arc.metrics.storage.lake import Lake
    from arc.metrics.upkeep.files import StoredFile, Table

log = logging.getLogger(__name__)

MIXED_SIZES = 4  # times the size of most: files up to there merge with them
WORN_SHARE = 0.25  # of deleted rows: from here on a file is worth rewriting, whatever its size

_SET_TARGET = "CALL ducklake_set_option('lake', 'target_file_size', ?, schema => ?, table_name => ?)"
_MERGE = (
    "CALL ducklake_merge_adjacent_files('lake', ?, schema => ?, max_compacted_files => ?::UBIGINT,"
    " min_file_size => ?::UBIGINT, max_file_size => ?::UBIGINT)"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is worth a merge: at least min_files files below half of target_bytes, older than min_age_us."""

    min_files: int
    target_bytes: int
    min_age_us: int = 0
    max_files: int = 250

    def is_small(self, file: StoredFile) -> bool:
        return file.size_bytes < self.target_bytes // 2


def worthwhile(files: Iterable[StoredFile], sizes: Sizes, now_us: int) -> list[StoredFile]:
    """The files that merge steps would work on, oldest first; none when there are too few."""
    files = [
        file
        for file in files
        if sizes.is_small(file)
        and not file.deleted_rows
        # without a limit of age also rows count whose clock was ahead
        and (not sizes.min_age_us or file.newest_us <= now_us - sizes.min_age_us)
    ]
    if files:
        # Larger ones wait until there are more like them: written again with every few small ones, they would cost
        # more than they gain.
        most = MIXED_SIZES * median(file.size_bytes for file in files)
        files = [file for file in files if file.size_bytes <= most]
    return files if len(files) >= sizes.min_files else []


def worn(files: Iterable[StoredFile], sizes: Sizes) -> list[StoredFile]:
    """Files to rewrite because of their deleted rows; small ones count when they are many, as DuckLake merges none."""
    found = [file for file in files if file.deleted_rows and file.size_bytes <= 2 * sizes.target_bytes]
    much = [file for file in found if file.deleted_rows >= file.rows * WORN_SHARE]
    small = [file for file in found if sizes.is_small(file)]
    return sorted({*much, *(small if len(small) >= sizes.min_files else ())}, key=lambda file: file.id)


def apart(files: Iterable[StoredFile], bad: Iterable[StoredFile]) -> list[StoredFile]:
    """Most of the files, so chosen that a merge of them does not touch the bad ones; at least two, or none.

    DuckLake can be told only by their sizes which files to take, so these are all smaller than some bad file and
    larger than the next. Lake.write_file sees to it that few files are of one size.
    """
    sizes = sorted({file.size_bytes for file in bad})
    bands: dict[int, list[StoredFile]] = {}
    for file in files:
        if file.size_bytes not in sizes:
            bands.setdefault(bisect(sizes, file.size_bytes), []).append(file)
    most = max(bands.values(), key=len, default=[])
    return most if len(most) > 1 else []


def merge_step(cursor: duckdb.DuckDBPyConnection, table: Table, files: list[StoredFile], sizes: Sizes) -> None:
    """Merge the first of `files` in the cursor's transaction; nothing smaller or larger than all of them."""
    database, measurement = table
    bounds = [min(file.size_bytes for file in files), max(file.size_bytes for file in files) + 1]
    cursor.execute(_SET_TARGET, [f"{_step_bytes(files, sizes)}B", database, measurement])
    outputs = 1
    while outputs < 2 * len(files):
        # Counted as an output is also a file that fits to no other of its schema, so one may not be enough.
        if cursor.execute(_MERGE, [measurement, database, outputs, *bounds]).fetchall():
            return
        outputs *= 2


def copy_step(lake: Lake, table: Table, files: list[StoredFile], sizes: Sizes) -> None:
    """Write the rows of the first of `files` anew and drop those files, in one transaction."""
    database, measurement = table
    some = list(_first(files, sizes))
    name = f"lake.{quoted(database)}.{quoted(measurement)}"
    chosen = f"filename IN ({', '.join(literal(str(file.path)) for file in some)})"
    with lake.exclusive(f"rewrite {len(some)} files of {database}.{measurement}") as cursor:
        cursor.execute(_SET_TARGET, [f"{2 * sizes.target_bytes}B", database, measurement])
        [(added,)] = cursor.execute(f"INSERT INTO {name} SELECT * FROM {name} WHERE {chosen}").fetchall()  # noqa: S608
        [(removed,)] = cursor.execute(f"DELETE FROM {name} WHERE {chosen}").fetchall()  # noqa: S608
        if added != removed:
            raise RuntimeError(f"{database}.{measurement}: {removed} rows would have become {added}")


def unreadable(files: Iterable[StoredFile]) -> list[StoredFile]:
    """Those of the files that are gone, cut or garbled; reads all of them."""
    return [file for file in files if not _is_readable(file)]


def _is_readable(file: StoredFile) -> bool:
    try:
        with pq.ParquetFile(file.path) as parquet:
            rows: int = sum(batch.num_rows for batch in parquet.iter_batches())
            return rows == file.rows
    except (OSError, pa.ArrowException) as error:
        log.warning("compaction: cannot read %s: %s", file.path, error)
        return False


def _step_bytes(files: list[StoredFile], sizes: Sizes) -> int:
    """The size of output at which DuckLake takes a step's worth of files, whichever schema it begins with."""
    schemas: dict[int, list[StoredFile]] = {}
    for file in files:
        schemas.setdefault(file.schema, []).append(file)
    groups = [group for group in schemas.values() if len(group) > 1] or [files]
    return min(sum(file.size_bytes for file in _first(group, sizes)) for group in groups)


def _first(files: list[StoredFile], sizes: Sizes) -> Iterator[StoredFile]:
    """The first of the files, as many as fit into one step; at least two."""
    total = 0
    for number, file in enumerate(files[: sizes.max_files]):
        total += file.size_bytes
        if number > 1 and total > sizes.target_bytes:
            return
        yield file
