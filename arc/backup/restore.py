"""The way back: a backup becomes a data directory.

unpack into .restore/ of the new directory, every byte checked -> rename its parts into place, metadata last
Nothing is ever written over: the directory must be empty, so what went wrong can be tried again. Its lock is held, so
no server starts on half of it.
"""

from __future__ import annotations

import shutil
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arc import datadir
from arc.backup import archive
from arc.backup.archive import BadBackup, Manifest, Pieces
from arc.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from arc.backup.archive import Stream

_STAGE = ".restore"
_HARMLESS = {"lock", "lost+found", _STAGE}  # what an empty directory may hold: a new disk, or a restore that failed


class NotEmpty(Conflict):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not empty; restore into a new directory")


def restore(stream: Stream, data_dir: Path) -> Generator[int, None, Manifest]:
    """Fill an empty data directory; yields bytes as they are done and returns what the backup said of itself.

    Raises BadBackup, NotEmpty, DataDirInUse; then the directory is as empty as before, and a new one is gone.
    """
    is_new = not data_dir.exists()
    with datadir.locked(datadir.create(data_dir)):
        if any(path.name not in _HARMLESS for path in data_dir.iterdir()):
            raise NotEmpty(data_dir)
        stage = data_dir / _STAGE
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir(mode=0o700)
            yield from archive.unpack(stream, stage)
            manifest = Manifest.read(stage)
            _put_in_place(stage, data_dir)
        except BaseException:
            if is_new:
                shutil.rmtree(data_dir, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return manifest


@contextmanager
def opened(backup: Path) -> Iterator[tuple[int, Stream]]:
    """A backup, be it a directory or a tar file: how long it is, and the stream. Raises BadBackup."""
    if backup.is_dir():
        Manifest.read(backup)
        yield archive.packed_size(backup), Pieces(archive.pack(backup))
        return
    try:
        size, file = backup.stat().st_size, backup.open("rb")
    except OSError as error:
        raise BadBackup(f"{backup}: {error.strerror}") from None
    with file:
        if not tarfile.is_tarfile(file):
            raise BadBackup(f"{backup} is no backup, which is a directory or a tar file")
        yield size, file


def _put_in_place(stage: Path, data_dir: Path) -> None:
    """Metadata last: without it a server would make new tokens, which nobody overlooks."""
    parts = sorted((stage / archive.DATA).iterdir(), key=lambda path: path.suffix == ".db")
    settings = stage / archive.SETTINGS
    for path in [settings, *parts] if settings.exists() else parts:
        path.rename(data_dir / path.name)
    archive.sync_directories(data_dir)
