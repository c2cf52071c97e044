"""What a backup is: a directory, and the same as a stream of tar.

    SHA256SUMS      of every other file, so that `sha256sum -c SHA256SUMS` works too
    manifest.json   what is in it
    arc.conf        options that differ from their defaults, if asked for
    data/           arc.db, lake/, wal/: a data directory, as a server would start on it

    seal: checksums of a directory -> pack: directory to stream -> unpack: stream to directory, every byte checked
The long ones are generators of what they have just done: who drives them shows progress and may stop.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import tarfile
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
DATA = "data"
SETTINGS = "arc.conf"
FORMAT = 1  # a reader refuses what is newer
_PIECE_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


class BadBackup(ArcError):
    """It is no backup, or not the one that was made."""


class Stream(Protocol):
    """What unpack() reads from: at most `size` bytes at a time, none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Pieces:
    """A stream out of pieces that come one after the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        found, self._rest = self._rest[:size], self._rest[size:]
        return bytes(found)


@dataclass(frozen=True)
class Manifest:
    """What is in a backup. databases: name, measurements, file_count, size_bytes of each."""

    backup_id: str
    created_at: str
    databases: list[dict[str, Any]]
    has_metadata: bool
    has_config: bool
    has_secrets: bool
    arc_version: str
    total_files: int = 0
    total_size_bytes: int = 0
    backup_type: str = "full"
    version: int = FORMAT

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Raises BadBackup."""
        try:
            found = json.loads((directory / MANIFEST).read_bytes())
            if found["version"] > FORMAT:
                raise BadBackup(f"{directory} was made by a newer Arc ({found['arc_version']})")
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadBackup(f"{directory} is no backup: {error}") from None

    def write(self, directory: Path) -> None:
        write(directory / MANIFEST, json.dumps(asdict(self), indent=2).encode() + b"\n")


def files(directory: Path) -> list[Path]:
    """All files below it, in the order they travel: checksums and manifest first."""
    found = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return sorted(found, key=lambda path: (path != directory / SUMS, path != directory / MANIFEST))


def seal(directory: Path) -> Iterator[tuple[int, int]]:
    """Write the checksums of a complete directory and bring all of it to disk. Yields files and bytes done."""
    lines = []
    for number, path in enumerate(files(directory)):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for piece in _pieces(file):
                digest.update(piece)
                yield number, len(piece)
            os.fsync(file.fileno())
        lines.append(f"{digest.hexdigest()}  {path.relative_to(directory).as_posix()}\n")
    write(directory / SUMS, "".join(lines).encode())
    sync_directories(directory)


def faults(directory: Path) -> list[str]:
    """What is not as it was sealed; every byte is read."""
    found = []
    for line in (directory / SUMS).read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        try:
            with (directory / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    found.append(f"{name} is not what it was when the backup was made")
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}")
    return found


def packed_size(directory: Path) -> int:
    """Bytes that pack() yields."""
    return sum(len(_header(path, directory)) + _padded(path.stat().st_size) for path in files(directory)) + 2 * _BLOCK


def pack(directory: Path) -> Iterator[bytes]:
    """A sealed directory as tar."""
    for path in files(directory):
        size = path.stat().st_size
        yield _header(path, directory)
        with path.open("rb") as file:
            yield from _pieces(file)
        yield bytes(_padded(size) - size)
    yield bytes(2 * _BLOCK)


def unpack(stream: Stream, target: Path) -> Iterator[int]:
    """Fill an empty directory from tar, also compressed. Raises BadBackup unless each file is as it was sealed."""
    sums: dict[str, str] | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|*", bufsize=_PIECE_BYTES) as tar:  # type: ignore[call-overload]
            for member in tar:
                path = _inside(target, member)
                if sums is None:
                    sums = _read_sums(tar, member)
                    write(path, _lines(sums))
                    continue
                digest = yield from _unpack_file(tar, member, path)
                if sums.pop(member.name, None) != digest:
                    raise BadBackup(f"{member.name} is not what it was when the backup was made")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadBackup(f"the backup cannot be unpacked: {error}") from None
    if sums is None or sums:
        raise BadBackup(f"the backup is incomplete: {next(iter(sums)) if sums else SUMS} is missing")
    sync_directories(target)


def sync_directories(top: Path) -> None:
    """Names of files survive a power cut only when their directories were synced."""
    for path in (top, *(path for path in top.rglob("*") if path.is_dir())):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _unpack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Generator[int, None, str]:
    """Returns the digest of what was written."""
    digest = hashlib.sha256()
    source = _opened(tar, member)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _create(path) as file:
        for piece in _pieces(source):
            file.write(piece)
            digest.update(piece)
            yield len(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _inside(target: Path, member: tarfile.TarInfo) -> Path:
    """Where a member goes. Raises BadBackup for what does not belong below the target."""
    name = member.name
    if name.startswith("/") or posixpath.normpath(name) != name or name.split("/")[0] == "..":
        raise BadBackup(f"{name[:200]!r} is nothing a backup holds")
    return target / name


def _read_sums(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, str]:
    if member.name != SUMS:
        raise BadBackup(f"it begins with {member.name[:200]!r}, not with {SUMS}: no backup")
    lines = _opened(tar, member).read().decode(errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isfile() else None
    if content is None:
        raise BadBackup(f"{member.name[:200]!r} is no plain file")
    return content


def _lines(sums: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _header(path: Path, directory: Path) -> bytes:
    info = tarfile.TarInfo(path.relative_to(directory).as_posix())
    status = path.stat()
    info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def write(path: Path, content: bytes) -> None:
    """A new file that is on disk when this returns."""
    with _create(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
