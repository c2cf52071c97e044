"""Write-ahead log: what a client was told is stored is on disk here before it is told.

    segment = header, entry, entry, ...
    header  = "ARCWAL1\\n", segment number u64
    entry   = marker "\\xabARC", length of what follows the CRC u32, CRC32 u32,
              received_us i64, kind u8, length of database u8, length of options u16, database, options, body

The body is the request as it came (still compressed), so writing costs a copy and no encoding, and replay
runs the same decoder. Numbers are little endian. Segments are named by their number, which only grows;
a flush records the number it has made redundant in the lake's own transaction (lake.py), then the
segments up to it are removed. MetricStore serialises calls; nothing here locks except the syncing thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arc import clock

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine; zlib's gives the same at a fifth of the speed
    from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<8sQ")
_MAGIC = b"ARCWAL1\n"
_MARKER = b"\xabARC"
_FRAME = struct.Struct("<4sII")
_META = struct.Struct("<qBBH")
_MAX_IOV = 512  # buffers in one writev; Linux allows 1,024
SYNC_MODES = ("always", "interval", "off")


@dataclass(frozen=True, slots=True)
class Entry:
    """One acknowledged request.

    kind: which decoder reads the body (decode/formats.py). options: what the decoder needs beside it, as text.
    received_us: microseconds UTC; the time of rows that carry none.
    """

    kind: int
    database: str
    body: bytes
    received_us: int
    options: str = ""

    def frames(self) -> tuple[bytes, bytes]:
        """Head and body as they go to disk; the body is not copied."""
        database, options = self.database.encode(), self.options.encode()
        meta = _META.pack(self.received_us, self.kind, len(database), len(options)) + database + options
        crc = crc32(self.body, crc32(meta))
        return _FRAME.pack(_MARKER, len(meta) + len(self.body), crc) + meta, self.body


@dataclass(frozen=True, slots=True)
class ReplayedSegment:
    name: str
    entries: int
    replayed_at: int  # microseconds UTC


@dataclass(slots=True)
class ReplayReport:
    """What a replay met. skipped: damaged entries inside a segment; cut_bytes: unreadable tails removed."""

    entries: int = 0
    skipped: int = 0
    cut_bytes: int = 0
    segments: list[ReplayedSegment] = field(default_factory=list)


class WriteAheadLog:
    """Segments in one directory, one of them open for appending.

    sync: `always` (fdatasync before append returns), `interval` (a thread syncs every sync_interval_ms), `off`.
    segment_bytes: a segment is full from this size on; `is_full` asks for a flush.
    """

    def __init__(
        self,
        directory: Path,
        sync: str = "always",
        sync_interval_ms: int = 100,
        segment_bytes: int = 64 << 20,
    ) -> None:
        self.directory = directory
        self.sync = sync
        self.segment_bytes = segment_bytes
        self.entries = self.bytes_written = self.syncs = self.rotations = self.failed_writes = 0
        self.report = ReplayReport()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = self.segments()
        self._number = numbers[-1] if numbers else 0
        self._fd = -1
        self._size = 0
        self._dirty = False
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        if sync == "interval":
            self._syncer = threading.Thread(
                target=self._sync_forever, args=(sync_interval_ms / 1000,), name="wal-sync", daemon=True
            )
            self._syncer.start()

    @property
    def number(self) -> int:
        """Number of the segment that is (or was last) written."""
        return self._number

    @property
    def size_bytes(self) -> int:
        """Bytes in the open segment."""
        return self._size

    @property
    def position(self) -> int:
        """Where the next entry goes: number of the segment times 2**32 plus bytes in it. It only grows."""
        return (self._number << 32) + self._size if self._fd >= 0 else (self._number + 1) << 32

    @property
    def is_full(self) -> bool:
        return self._size >= self.segment_bytes

    def segments(self) -> list[int]:
        """Numbers of the segments on disk, ascending."""
        return sorted(int(path.stem) for path in self.directory.glob("*.wal") if path.stem.isdigit())

    def path(self, number: int) -> Path:
        return self.directory / f"{number:016d}.wal"

    def start_after(self, number: int) -> None:
        """Never use a segment number up to `number` again: the lake holds its rows."""
        self._number = max(self._number, number)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries as one block and, with `sync = always`, return when they are on disk.

        Raises OSError; then none of them is in the log.
        """
        if self._fd < 0:
            self._open(self._number + 1)
        start = self._size
        try:
            frames = [part for entry in entries for part in entry.frames()]
            for first in range(0, len(frames), _MAX_IOV):
                self._size += _write_all(self._fd, frames[first : first + _MAX_IOV])
            if self.sync == "always":
                os.fdatasync(self._fd)
                self.syncs += 1
        except OSError:
            self.failed_writes += 1
            self._take_back(start)
            raise
        self._dirty = True
        self.entries += len(entries)
        self.bytes_written += self._size - start

    def rotate(self) -> int:
        """Close the open segment; the next append begins a new one. Returns the number of the closed segment."""
        if self._fd >= 0:
            if self.sync != "off":
                os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._size = 0
            self._dirty = False
            self.rotations += 1
        return self._number

    def remove_through(self, number: int) -> None:
        """Remove the segments up to `number`: their rows are in the lake."""
        for segment in self.segments():
            if segment <= number and not (segment == self._number and self._fd >= 0):
                self.path(segment).unlink(missing_ok=True)

    def sync_now(self) -> None:
        """Have what was appended on disk, whatever `sync` says. Raises OSError."""
        if self._fd >= 0:
            os.fdatasync(self._fd)
            self._dirty = False
            self.syncs += 1

    def copy_to(self, target: Path, through: int) -> None:
        """Copy the closed segments up to `through` to a new directory. One that vanishes meanwhile is in the lake."""
        target.mkdir(mode=0o700)
        for number in self.segments():
            if number <= through:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(self.path(number), target / self.path(number).name)

    def read(self, number: int) -> Iterator[Entry]:
        """Entries of one segment in the order they were written; adds to `report`. Before the first append only.

        Damage inside a segment costs the damaged entry; a tail without any readable entry is cut off, as a
        crash during an append leaves it.
        """
        before = self.report.entries
        yield from self._read(number)
        replayed = ReplayedSegment(self.path(number).name, self.report.entries - before, clock.now_us())
        self.report.segments.append(replayed)

    def _read(self, number: int) -> Iterator[Entry]:
        data = self.path(number).read_bytes()
        if not has_header(data, number):
            log.error("wal: segment %d has a damaged header", number)
        position = min(_HEADER.size, len(data))
        for at, entry, end in find_entries(data):
            if at > position:
                self.report.skipped += 1
                log.error("wal: segment %d: %d damaged bytes at %d skipped", number, at - position, position)
            position = end
            self.report.entries += 1
            yield entry
        if position < len(data):
            self._cut(number, position, len(data))

    def close(self) -> None:
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join(5)
        self.rotate()

    def _open(self, number: int) -> None:
        fd = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, [_HEADER.pack(_MAGIC, number)])
            directory = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(directory)  # the segment's name must survive as surely as its entries
            finally:
                os.close(directory)
        except OSError:
            self.failed_writes += 1
            os.close(fd)
            self.path(number).unlink(missing_ok=True)
            raise
        self._fd, self._number, self._size = fd, number, _HEADER.size

    def _take_back(self, start: int) -> None:
        """Leave the segment as it was before a failed append and write no more to it.

        After a failed sync the kernel may have dropped the pages, so what follows goes to a new segment.
        """
        try:
            os.ftruncate(self._fd, start)
            os.fdatasync(self._fd)
        except OSError:
            log.exception("wal: segment %d keeps the remains of a failed write", self._number)
        os.close(self._fd)
        self._fd, self._size, self._dirty = -1, 0, False

    def _sync_forever(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            fd = self._fd
            if self._dirty and fd >= 0:
                self._dirty = False
                try:
                    os.fdatasync(fd)
                    self.syncs += 1
                except OSError as exc:
                    if exc.errno != errno.EBADF:  # EBADF: rotated meanwhile, and rotate syncs
                        log.exception("wal: sync failed")

    def _cut(self, number: int, position: int, end: int) -> None:
        self.report.cut_bytes += end - position
        log.warning("wal: segment %d: unfinished tail of %d bytes at %d cut off", number, end - position, position)
        os.truncate(self.path(number), position)


def _write_all(fd: int, frames: list[bytes]) -> int:
    """Write frames as one block; returns their size."""
    total = sum(map(len, frames))
    written = os.writev(fd, frames)
    if written < total:  # a disk that fills up takes a part of it; the rest tells why
        rest = memoryview(b"".join(frames))[written:]
        while rest:
            count = os.write(fd, rest)
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[count:]
    return total


def find_entries(segment: bytes) -> Iterator[tuple[int, Entry, int]]:
    """The undamaged entries of a segment: where each begins, itself, where it ends."""
    position = _HEADER.size
    while (found := _next_entry(segment, position)) is not None:
        yield found
        position = found[2]


def has_header(segment: bytes, number: int) -> bool:
    """Also true for a part of it, as a crash at the creation of a segment leaves it."""
    return segment[: _HEADER.size] == _HEADER.pack(_MAGIC, number)[: len(segment)]


def _next_entry(data: bytes, position: int) -> tuple[int, Entry, int] | None:
    """The first undamaged entry at or after position: where it begins, itself, where it ends."""
    while True:
        position = data.find(_MARKER, position)
        if position < 0:
            return None
        entry = _read_entry(data, position)
        if entry is not None:
            return position, *entry
        position += 1


def _read_entry(data: bytes, position: int) -> tuple[Entry, int] | None:
    begin = position + _FRAME.size
    if begin + _META.size > len(data):
        return None
    _, length, crc = _FRAME.unpack_from(data, position)
    end = begin + length
    if length < _META.size or end > len(data) or crc32(memoryview(data)[begin:end]) != crc:
        return None
    received_us, kind, database_length, options_length = _META.unpack_from(data, begin)
    names = begin + _META.size
    options = names + database_length
    body = options + options_length
    return (
        Entry(
            kind=kind,
            database=data[names:options].decode(),
            body=data[body:end],
            received_us=received_us,
            options=data[options:body].decode(),
        ),
        end,
    )
