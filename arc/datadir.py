"""The data directory: private to its owner, and used by one server at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from arc.errors import ArcError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


class DataDirInUse(ArcError):
    def __init__(self, path: Path, pid: str) -> None:
        self.holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"data directory {path} is in use by {self.holder}; stop it or choose another directory with --data"
        )


def create(path: str | Path) -> Path:
    """The absolute path of the directory, made with mode 0700 if there is none. Raises ConfigError."""
    directory = Path(path).expanduser().absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"[storage] dir = {path}: {error.strerror}") from None
    return directory


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock file. Raises DataDirInUse.

    The lock belongs to the open file, so the kernel frees it however the process ends.
    """
    with (directory / "lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DataDirInUse(directory, file.read().strip()) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
