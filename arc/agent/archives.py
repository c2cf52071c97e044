"""Archives for execute/tarball: fetched, unpacked without leaving their directory."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
import zipfile
from typing import TYPE_CHECKING

from arc import __version__
from arc.agent.errors import ActionFailed
from arc.agent.http import download

if TYPE_CHECKING:
    from arc.agent.task import Task

PLAIN_NAME = "tarstream"  # of what is no archive we know
SILENCE_S = 30.0


def fetch(url: str, directory: str, task: Task) -> None:
    """Download and unpack. Raises ActionFailed."""
    path = os.path.join(directory, ".download")
    timeout_s = max(1.0, min(SILENCE_S, task.deadline - time.monotonic()))
    try:
        status, reason = download(url, path, timeout_s, task.check, {"User-Agent": f"arc/{__version__}"})
    except (OSError, ValueError) as error:
        task.check()
        raise ActionFailed(f"failed to retrieve {url}: {error}") from None
    if status >= 300:
        raise ActionFailed(f"failed to retrieve {url}: {status} {reason}")
    task.check()
    try:
        _unpack(path, directory)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ActionFailed(f"failed to unpack {url}: {error}") from None


def inside(directory: str, path: str) -> str:
    """Path of a program of the archive. Raises ActionFailed when it leads out."""
    root = os.path.realpath(directory)
    found = os.path.realpath(os.path.join(root, path))
    if not path or not found.startswith(root + os.sep):
        raise ActionFailed(f"path {path!r} is not inside the archive")
    return found


def _unpack(path: str, directory: str) -> None:
    if zipfile.is_zipfile(path):
        _unzip(path, directory)
    elif archive := _tar(path):
        with archive:
            archive.extractall(directory, filter="data")  # refuses what leads out, devices, foreign owners
    else:
        os.replace(path, os.path.join(directory, PLAIN_NAME))
        return
    os.unlink(path)


def _tar(path: str) -> tarfile.TarFile | None:
    """Plain, gzip or bzip2; what else Python could read is none of ours."""
    for read in (tarfile.TarFile.taropen, tarfile.TarFile.gzopen, tarfile.TarFile.bz2open):
        try:
            return read(path)
        except (tarfile.TarError, OSError, EOFError):
            continue
    return None


def _unzip(path: str, directory: str) -> None:
    """As zipfile does it, with the modes that programs need."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            target = inside(directory, member.filename)
            if member.is_dir():
                os.makedirs(target, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out)
            if mode := (member.external_attr >> 16) & 0o755:
                os.chmod(target, mode)
