"""Damage and shortage: a broken write-ahead log costs only what is broken, a full disk costs nothing acknowledged."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.server import NO_FLUSH, ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.server import Answer, Connection

REQUESTS = 20
DISK_MB = 48


def row(number: int) -> dict[str, object]:
    """One request of one row that can be found in the log by its text."""
    return {"m": "logged", "t": 1_697_472_000_000 + number, "fields": {"n": number, "text": needle(number).decode()}}


def needle(number: int) -> bytes:
    return b"needle-%04d-needle" % number


def killed_with_log(server: ArcServer) -> Path:
    """Start, store REQUESTS rows that only the log holds, kill; the segment with all of them."""
    server.start()
    with server.connect() as connection:
        for number in range(REQUESTS):
            connection.store(row(number))
    server.kill9()
    return next(path for path in (server.data_dir / "wal").iterdir() if needle(REQUESTS - 1) in path.read_bytes())


def stored_numbers(server: ArcServer) -> list[int]:
    with server.connect() as connection:
        return [number for (number,) in connection.query("SELECT n FROM logged ORDER BY n")]


@pytest.fixture
def logged(make_server: Callable[..., ArcServer]) -> ArcServer:
    """A server whose rows stay in the log until it is told to flush."""
    return make_server(options=NO_FLUSH)


def test_damaged_tail_is_cut_off_and_reported(logged: ArcServer) -> None:
    segment = killed_with_log(logged)
    end = segment.read_bytes().index(needle(REQUESTS - 1)) + 5
    with segment.open("r+b") as file:
        file.truncate(end)  # the last request lacks its end, as after a power cut

    logged.start()

    assert stored_numbers(logged) == list(range(REQUESTS - 1))
    assert "cut off" in logged.stderr


def test_damaged_middle_costs_only_the_damaged_requests(logged: ArcServer) -> None:
    segment = killed_with_log(logged)
    content = segment.read_bytes()
    for number in (3, 11):
        content = content.replace(needle(number), b"?" * len(needle(number)))
    segment.write_bytes(content)

    logged.start()

    assert stored_numbers(logged) == [number for number in range(REQUESTS) if number not in (3, 11)]
    assert logged.stderr.count("skipped") >= 2


def test_server_writes_on_after_a_damaged_log(logged: ArcServer) -> None:
    segment = killed_with_log(logged)
    with segment.open("ab") as file:
        file.write(b"\x00\xff rubbish")
    logged.start()

    with logged.connect() as connection:
        connection.store(row(REQUESTS))
    logged.kill9()
    logged.start()

    assert stored_numbers(logged) == list(range(REQUESTS + 1))


class SmallDisk:
    """A file system in memory that can be made larger; mounting needs root."""

    def __init__(self, path: Path, size_mb: int) -> None:
        self.path = path
        path.mkdir()
        self._mount(f"size={size_mb}m")

    def grow(self, size_mb: int) -> None:
        self._mount(f"remount,size={size_mb}m")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "arc-test", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        disk = SmallDisk(tmp_path / "disk", DISK_MB)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    disk.unmount()


@pytest.fixture
def squeezed(small_disk: SmallDisk) -> Iterator[ArcServer]:
    """A started server whose data directory lies on the small disk."""
    with ArcServer(small_disk.path / "data") as server:
        yield server


def thousand_rows(first: int) -> dict[str, object]:
    numbers = list(range(first, first + 1000))
    return {
        "m": "squeezed",
        "columns": {"n": numbers, "text": [f"{number * 0x9E3779B97F4A7C15:064x}" for number in numbers]},
    }


def store_until_refused(connection: Connection) -> tuple[int, Answer]:
    """Store numbered rows until a write is refused; the rows acknowledged and the refusal."""
    acknowledged = 0
    while True:
        answer = connection.write(thousand_rows(acknowledged))
        if answer.status != 204:
            return acknowledged, answer
        acknowledged += 1000


def counted(server: ArcServer) -> list[int]:
    """Rows, different rows and highest row of the measurement."""
    with server.connect() as connection:
        return connection.query("SELECT count(*), count(DISTINCT n), max(n) FROM squeezed")[0]


def test_full_disk_refuses_writes_and_keeps_what_it_acknowledged(squeezed: ArcServer) -> None:
    with squeezed.connect() as connection:
        acknowledged, refusal = store_until_refused(connection)

    assert refusal.status == 503
    assert int(refusal.headers["Retry-After"]) >= 1
    assert acknowledged > 0
    assert counted(squeezed) == [acknowledged, acknowledged, acknowledged - 1]


def test_server_works_again_when_there_is_space(squeezed: ArcServer, small_disk: SmallDisk) -> None:
    with squeezed.connect() as connection:
        acknowledged, _ = store_until_refused(connection)
        small_disk.grow(DISK_MB * 4)

        wait_until(lambda: connection.write(thousand_rows(acknowledged)).status == 204, "a write is taken again")
        connection.flush()

    total = acknowledged + 1000
    assert counted(squeezed) == [total, total, total - 1]
    squeezed.restart()
    assert counted(squeezed) == [total, total, total - 1]


def test_kill_9_on_a_full_disk_loses_nothing(squeezed: ArcServer, small_disk: SmallDisk) -> None:
    with squeezed.connect() as connection:
        acknowledged, _ = store_until_refused(connection)
    squeezed.kill9()
    small_disk.grow(DISK_MB * 4)

    squeezed.start()

    assert counted(squeezed) == [acknowledged, acknowledged, acknowledged - 1]


def test_stop_on_a_full_disk_is_clean_and_loses_nothing(squeezed: ArcServer, small_disk: SmallDisk) -> None:
    with squeezed.connect() as connection:
        acknowledged, _ = store_until_refused(connection)

    squeezed.stop()

    small_disk.grow(DISK_MB * 4)
    squeezed.start()
    assert counted(squeezed) == [acknowledged, acknowledged, acknowledged - 1]
