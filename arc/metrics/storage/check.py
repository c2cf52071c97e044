"""Is what is on disk what the catalog says? For a data directory that nobody uses.

check_lake: every file a snapshot needs is there, as long as it was, a whole Parquet file with the right number of rows
check_log: every segment of the write-ahead log can be read to its end
A fault says what is wrong; where mending loses no row, it brings the means, and where rows are lost already, the means
to do without them: until then, no query of their measurement works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from arc.metrics.storage.lakefiles import CATALOG, CATALOG_FILE, FOLDER, LakeFile, doomed_files, forget_file, lake_files
from arc.metrics.storage.wal import find_entries, has_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_HEADER_BYTES = 16
_DEEP_ROWS = 100_000  # that are decoded at a time


@dataclass(frozen=True)
class Fault:
    """Something on disk that is not as it should be.

    is_damage: False for what a crash leaves and the next start removes. fix: mends it, as `remedy` says.
    drop: gives the rows of a damaged file up for lost.
    """

    path: Path
    text: str
    is_damage: bool = True
    remedy: str = ""
    fix: Callable[[], None] | None = None
    drop: Callable[[], None] | None = None


def check_lake(lake: Path, *, deep: bool) -> Iterator[Fault]:
    """Compare the catalog with the files. deep: decode all rows."""
    catalog = lake / CATALOG_FILE
    if not catalog.exists():
        return  # no server has started here yet
    try:
        needed, doomed = _named_files(catalog, lake / FOLDER)
    except duckdb.Error as error:
        yield Fault(catalog, f"the catalog cannot be read: {error}; restore a backup")
        return
    # With no file at all, it is more likely that a disk is not mounted than that all is lost.
    is_there = any(file.path.exists() for file in needed)
    for file in needed:
        fault = _fault_of(file, deep=deep)
        if fault and file.is_current:
            # Without its file of deleted positions, rows that were deleted would come back.
            drop = partial(_drop, lake, file.path, file.number) if is_there and file.number is not None else None
            yield Fault(file.path, fault, drop=drop)
        elif fault:
            yield Fault(file.path, f"{fault} (only older snapshots need it)", is_damage=False)
    known = {file.path for file in needed} | doomed
    for path in sorted((lake / FOLDER).rglob("*.parquet")):
        if path not in known:
            yield Fault(path, "no snapshot knows it", False, "removed", path.unlink)


def check_log(directory: Path) -> Iterator[Fault]:
    """Read every segment of a write-ahead log."""
    for path in sorted(directory.glob("*.wal")):
        data = path.read_bytes()
        if not path.stem.isdigit() or not has_header(data, int(path.stem)):
            yield Fault(path, "its header is damaged; what follows is read all the same")
        end = min(_HEADER_BYTES, len(data))
        for start, _, next_ in find_entries(data):
            if start > end:
                yield Fault(path, f"{start - end} bytes at {end} cannot be read; what stands after them can")
            end = next_
        if end < len(data):
            text = f"its last {len(data) - end} bytes cannot be read: a write that a crash cut short, or damage"
            yield Fault(path, text, remedy="cut off", fix=partial(os.truncate, path, end))


def _named_files(catalog: Path, folder: Path) -> tuple[list[LakeFile], set[Path]]:
    with duckdb.connect(":memory:") as connection:
        path = str(catalog).replace("'", "''")
        connection.execute(f"ATTACH '{path}' AS {CATALOG} (READ_ONLY)")
        return lake_files(connection, folder), doomed_files(connection, folder)


def _drop(lake: Path, path: Path, number: int) -> None:
    """Go on without a file of rows; what there is of it is kept in lake/damaged/."""
    forget_file(lake / CATALOG_FILE, number)
    if path.exists():
        kept = lake / "damaged" / path.relative_to(lake / FOLDER)
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.replace(kept)


def _fault_of(file: LakeFile, *, deep: bool) -> str:
    try:
        size = file.path.stat().st_size
        if size != file.size_bytes:
            return f"has {size} bytes, the catalog says {file.size_bytes}; its rows are lost, unless a backup has them"
        with pq.ParquetFile(file.path) as found:
            rows = found.metadata.num_rows
            if deep:
                rows = sum(batch.num_rows for batch in found.iter_batches(_DEEP_ROWS))
    except FileNotFoundError:
        return "is missing; its rows are lost, unless a backup has them"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}; its rows are lost, unless a backup has them"
    return "" if rows == file.rows else f"has {rows} rows, the catalog says {file.rows}"
