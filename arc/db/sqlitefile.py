"""SQLite files as files: a consistent copy of one that is in use, and a check of one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def copy(source: Path, target: Path) -> None:
    """A copy as of one instant, whoever else writes meanwhile; the target is on disk when this returns."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(_open(source)) as connection, closing(sqlite3.connect(target)) as copied:
        connection.backup(copied)  # all pages in one step, so nobody commits between two of them
        copied.execute("PRAGMA journal_mode = DELETE")  # a file of its own, without -wal and -shm beside it


def faults(path: Path) -> list[str]:
    """What SQLite itself finds wrong with a file: damage, and references to rows that are not there."""
    try:
        with closing(_open(path)) as connection:
            found = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error as error:
        return [str(error)]
    return found + [
        f"table {table}, row {row}: refers to {parent}, which has no such row" for table, row, parent, _ in broken
    ]


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)  # never make a file that is not there
