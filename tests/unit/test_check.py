"""The check command on damaged data directories."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import msgpack
import pyarrow.parquet as pq
import pytest

from arc import datadir
from arc.cli import main
from arc.db.engine import open_database
from arc.metrics.store import MetricStore, StoreOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory after a crash: rows in two files and in the log."""
    data_dir = datadir.create(tmp_path / "data")
    open_database(data_dir).close()
    store = MetricStore(data_dir, StoreOptions(buffer_age_s=3600))
    store.start()
    for value in (1, 2, 3, 4):
        store.write_msgpack(msgpack.packb({"m": "cpu", "columns": {"time": [value], "v": [value]}}), "plant")
        if value < 3:
            store.flush()
    store._flush_or_refuse = lambda: 0  # type: ignore[method-assign]  # what a crash leaves out
    store.close()
    return data_dir


def checked(data_dir: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    status = main(["check", "--data", str(data_dir), *flags])
    return status, capsys.readouterr().out


def data_files(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "lake" / "files").rglob("*.parquet"))


def segment(data_dir: Path) -> Path:
    [path] = (data_dir / "wal").iterdir()
    return path


def stored_values(data_dir: Path) -> list[int]:
    store = MetricStore(data_dir)
    store.start()
    store.flush()
    cursor = store.cursor()
    found = cursor.execute("SELECT v FROM lake.plant.cpu ORDER BY v").fetchall()
    cursor.close()
    store.close()
    return [value for (value,) in found]


@pytest.mark.parametrize("flags", [[], ["--deep"], ["--fix"]])
def test_what_a_crash_leaves_is_sound(data: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert checked(data, capsys, *flags) == (0, f"{data} is sound\n")
    assert stored_values(data) == [1, 2, 3, 4]


def test_a_missing_file_is_damage_that_nothing_mends(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = data_files(data)[0]
    lost.unlink()

    status, out = checked(data, capsys, "--fix")

    assert status == 1
    assert out.startswith(f"{lost.relative_to(data)}: is missing; its rows are lost")


def test_a_cut_file_is_damage(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data_files(data)[0]
    os.truncate(file, file.stat().st_size - 1)

    status, out = checked(data, capsys)

    assert status == 1
    assert "the catalog says" in out


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_lake_goes_on_without_a_damaged_file(data: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    file = data_files(data)[0]
    [value] = pq.read_table(file).column("v").to_pylist()
    if damage == "cut":
        os.truncate(file, 10)
    else:
        file.unlink()

    assert "to go on without it: --drop-damaged" in checked(data, capsys, "--fix")[1]
    status, out = checked(data, capsys, "--drop-damaged")

    assert status == 0
    assert "dropped" in out
    assert stored_values(data) == [kept for kept in (1, 2, 3, 4) if kept != value]
    assert (data / "lake" / "damaged" / "plant" / "cpu" / file.name).exists() == (damage == "cut")
    assert checked(data, capsys) == (0, f"{data} is sound\n")


def test_files_that_are_all_missing_are_not_dropped(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in data_files(data):
        file.unlink()

    assert checked(data, capsys, "--drop-damaged")[0] == 1
    assert checked(data, capsys)[1].count("is missing") == 2


def test_only_a_deep_check_finds_damage_among_the_rows(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data_files(data)[0]
    content = bytearray(file.read_bytes())
    content[4:40] = b"\xff" * 36
    file.write_bytes(content)

    assert checked(data, capsys)[0] == 0
    status, out = checked(data, capsys, "--deep")

    assert status == 1
    assert "cannot be read" in out


def test_a_file_that_nothing_needs_is_no_damage_and_can_be_removed(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orphan = data_files(data)[0].with_name("arc-0.parquet")
    orphan.write_bytes(b"x")

    status, out = checked(data, capsys)
    assert status == 0
    assert f"{orphan.relative_to(data)}: no snapshot knows it; --fix helps\n" in out
    status, out = checked(data, capsys, "--fix")
    assert (status, orphan.exists()) == (0, False)
    assert "no snapshot knows it; removed" in out


def test_an_unfinished_end_of_the_log_is_cut_off(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = segment(data)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"half an entry")

    status, out = checked(data, capsys)
    assert status == 1
    assert "its last 13 bytes cannot be read" in out
    status, _ = checked(data, capsys, "--fix")

    assert (status, path.stat().st_size) == (0, size)
    assert stored_values(data) == [1, 2, 3, 4]


def test_damage_inside_the_log_is_told_and_left_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = segment(data)
    content = bytearray(path.read_bytes())
    content[30] ^= 0xFF
    content[0] ^= 0xFF
    path.write_bytes(content)

    status, out = checked(data, capsys, "--fix")

    assert status == 1
    assert "its header is damaged" in out
    assert "bytes at 16 cannot be read" in out
    assert path.read_bytes() == content
    assert stored_values(data) == [1, 2, 4]


def test_damaged_metadata_and_catalog(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (data / "arc.db", data / "lake" / "catalog.ducklake"):
        content = bytearray(path.read_bytes())
        content[:4096] = os.urandom(4096)
        path.write_bytes(content)

    status, out = checked(data, capsys)

    assert status == 1
    assert "arc.db: file is not a database" in out
    assert "lake/catalog.ducklake: the catalog cannot be read" in out


def test_references_to_missing_rows_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(data / "arc.db") as db:
        db.execute("CREATE TABLE child (parent INTEGER REFERENCES api_tokens (id))")
        db.execute("INSERT INTO child VALUES (77)")
    db.close()

    status, out = checked(data, capsys)

    assert status == 1
    assert "table child, row 1: refers to api_tokens, which has no such row" in out


def test_a_directory_in_use_or_missing_is_not_checked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with datadir.locked(data):
        assert main(["check", "--data", str(data)]) == 1
    assert "is in use by process" in capsys.readouterr().err
    assert main(["check", "--data", str(tmp_path / "typo")]) == 1
    assert not (tmp_path / "typo").exists()
