"""Backups of a real store and real metadata: what is in them, what a damaged one does, one at a time."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from arc import datadir
from arc.access.tokens import TokenStore
from arc.backup import archive
from arc.backup.archive import BadBackup, Manifest, Pieces
from arc.backup.restore import NotEmpty, opened, restore
from arc.backup.service import BackupNotFound, Backups, Busy, Content, Sources
from arc.config import load
from arc.db import sqlitefile
from arc.db.engine import open_database
from arc.errors import Invalid
from arc.metrics.store import MetricStore, StoreOptions
from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "the-secret-of-the-backup-tests-0123456789"
NO_FLUSH = StoreOptions(buffer_age_s=3600)


class Kept:
    """A data directory in use, with a token and rows both in the lake and in the log."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.db = open_database(datadir.create(data_dir))
        TokenStore(self.db).bootstrap(SECRET)
        self.store = MetricStore(data_dir, NO_FLUSH)
        self.store.start()
        self.write(1)
        self.store.flush()
        self.write(2)
        self.copied: Callable[[], None] = lambda: None
        self.backups = Backups(Sources(data_dir, self.copy_metrics, lambda secrets: f"secrets = {secrets}\n"))

    def write(self, value: int) -> None:
        item = {"m": "my-cpu", "columns": {"time": [value], "v": [value]}}
        self.store.write_msgpack(msgpack.packb(item), "plant")

    def copy_metrics(self, target: Path) -> list[dict[str, Any]]:
        self.store.copy_to(target)
        self.copied()
        return [{"name": "plant", "measurements": ["my-cpu"], "file_count": 1, "size_bytes": 1}]

    def backup(self, content: Content | None = None) -> str:
        """A finished backup."""
        backup_id = self.backups.start(content or Content())
        self.wait()
        progress = self.backups.status()
        assert progress is not None
        assert (progress.status, progress.error) == ("completed", None)
        assert progress.processed_files == progress.total_files
        assert progress.processed_bytes == progress.total_bytes > 0
        return backup_id

    def wait(self) -> None:
        wait_until(lambda: self.backups.status().completed_at, "end of the backup")  # type: ignore[union-attr]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "data")
    yield kept
    kept.backups.stop()
    kept.store.close()
    kept.db.close()


def restored(source: Path, data_dir: Path) -> Manifest:
    with opened(source) as (size, stream):
        work = restore(stream, data_dir)
        done = 0
        while True:
            try:
                done += next(work)
            except StopIteration as end:
                assert 0 < done < size
                return end.value


def values(data_dir: Path) -> list[int]:
    """What a server would find in a data directory."""
    store = MetricStore(data_dir, NO_FLUSH)
    store.start()
    store.flush()
    cursor = store.cursor()
    found = cursor.execute('SELECT v FROM lake.plant."my-cpu" ORDER BY v').fetchall()
    cursor.close()
    store.close()
    return [value for (value,) in found]


def test_a_backup_has_everything_acknowledged_before_it(kept: Kept, tmp_path: Path) -> None:
    path = kept.backups.path(kept.backup())
    kept.write(3)

    manifest = restored(path, tmp_path / "new")

    assert values(tmp_path / "new") == [1, 2]
    db = open_database(tmp_path / "new")
    assert TokenStore(db).authenticate(SECRET).may("admin")
    db.close()
    assert (manifest.has_metadata, manifest.has_config, manifest.has_secrets) == (True, True, False)
    assert (tmp_path / "new" / "arc.conf").read_text() == "secrets = False\n"


def test_rows_of_the_log_come_along_when_they_cannot_be_flushed(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept.store, "flush", lambda: 0)
    path = kept.backups.path(kept.backup())
    monkeypatch.undo()

    restored(path, tmp_path / "new")

    assert len(list((tmp_path / "new" / "wal").iterdir())) == 1
    assert values(tmp_path / "new") == [1, 2]


def test_a_flush_between_log_and_lake_neither_loses_nor_doubles_rows(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_log, flush = kept.store.wal.copy_to, kept.store.flush

    def copy_log_then_flush(target: Path, through: int) -> None:
        copy_log(target, through)
        kept.write(3)
        flush()

    monkeypatch.setattr(kept.store, "flush", lambda: 0)
    monkeypatch.setattr(kept.store.wal, "copy_to", copy_log_then_flush)
    path = kept.backups.path(kept.backup())
    monkeypatch.undo()

    restored(path, tmp_path / "new")

    assert values(tmp_path / "new") == [1, 2, 3]


def test_parts_can_be_left_out_and_secrets_put_in(kept: Kept) -> None:
    (kept.data_dir / "secrets").mkdir()
    (kept.data_dir / "secrets" / "key").write_bytes(b"k")

    bare = kept.backups.path(kept.backup(Content(metadata=False, config=False)))
    full = kept.backups.path(kept.backup(Content(secrets=True)))

    assert {path.name for path in bare.iterdir()} == {"SHA256SUMS", "manifest.json", "data"}
    assert {path.name for path in (bare / "data").iterdir()} == {"lake", "wal"}
    assert (full / "data" / "secrets" / "key").read_bytes() == b"k"
    assert (full / "arc.conf").read_text() == "secrets = True\n"


def test_data_files_are_links_and_survive_their_removal(kept: Kept, tmp_path: Path) -> None:
    path = kept.backups.path(kept.backup())

    for file in (kept.data_dir / "lake" / "files").rglob("*.parquet"):
        assert file.stat().st_nlink == 2
        file.unlink()

    restored(path, tmp_path / "new")
    assert values(tmp_path / "new") == [1, 2]


def test_list_get_delete(kept: Kept) -> None:
    first, second = kept.backup(), kept.backup()
    (kept.data_dir / "backups" / "backup-by-hand").mkdir()

    assert {manifest.backup_id for manifest in kept.backups.list()} == {first, second}
    assert kept.backups.get(first).databases[0]["name"] == "plant"
    kept.backups.delete(first)
    assert [manifest.backup_id for manifest in kept.backups.list()] == [second]
    with pytest.raises(BackupNotFound):
        kept.backups.get(first)
    for bad in ("", "..", "../backups", "backup-1"):
        with pytest.raises(Invalid):
            kept.backups.delete(bad)


def test_one_operation_at_a_time(kept: Kept) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        at_work.set()
        assert go_on.wait(30)

    done = kept.backup()
    kept.copied = hold
    kept.backups.start(Content())
    assert at_work.wait(30)

    for attempt in (
        lambda: kept.backups.start(Content()),
        lambda: kept.backups.delete(done),
        lambda: kept.backups.download(done),
    ):
        with pytest.raises(Busy):
            attempt()

    go_on.set()
    kept.wait()
    _, pieces = kept.backups.download(done)
    with pytest.raises(Busy):
        kept.backups.start(Content())
    pieces.close()
    kept.backups.delete(done)


def test_a_backup_can_be_fetched_as_soon_as_it_is_completed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, end = [], kept.backups._end

    def look_then_end() -> None:
        progress = kept.backups.status()
        seen.append(progress and progress.status)
        end()

    monkeypatch.setattr(kept.backups, "_end", look_then_end)
    kept.backup()

    assert seen == ["running"]


def test_a_failed_backup_says_why_and_leaves_nothing(kept: Kept) -> None:
    def fail() -> None:
        raise OSError("no space")

    kept.copied = fail
    kept.backups.start(Content())
    kept.wait()

    progress = kept.backups.status()
    assert progress is not None
    assert (progress.status, progress.error) == ("failed", "no space")
    assert kept.backups.list() == []
    assert list((kept.data_dir / "tmp").iterdir()) == []


def test_a_stop_ends_a_running_backup(kept: Kept) -> None:
    kept.copied = lambda: kept.backups._stop.set()
    kept.backups.start(Content())

    kept.backups.stop()

    assert kept.backups.status().status == "failed"  # type: ignore[union-attr]
    assert kept.backups.list() == []


def test_what_a_killed_backup_left_is_removed_at_the_start(kept: Kept) -> None:
    stage = kept.data_dir / "tmp" / "backup-stage-x"
    (stage / "data").mkdir(parents=True)

    Backups(Sources(kept.data_dir, kept.copy_metrics, str))

    assert not stage.exists()


def test_download_is_a_tar_that_restores(kept: Kept, tmp_path: Path) -> None:
    size, pieces = kept.backups.download(kept.backup())
    tar = tmp_path / "b.tar"
    tar.write_bytes(b"".join(pieces))

    assert tar.stat().st_size == size
    with tarfile.open(tar) as opened_tar:
        assert opened_tar.getnames()[:2] == ["SHA256SUMS", "manifest.json"]
    restored(tar, tmp_path / "new")
    assert values(tmp_path / "new") == [1, 2]


@pytest.fixture
def packed(tmp_path: Path) -> dict[str, bytes]:
    """The files of a small sealed backup, by name, in the order they travel."""
    directory = tmp_path / "sealed"
    (directory / "data" / "lake").mkdir(parents=True)
    (directory / "data" / "lake" / "f").write_bytes(b"rows" * 1000)
    Manifest("backup-1", "now", [], False, False, False, "1").write(directory)
    assert sum(size for _, size in archive.seal(directory)) > 4000
    return {str(path.relative_to(directory)): path.read_bytes() for path in archive.files(directory)}


def tar(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), tarfile.REGTYPE if name == archive.SUMS else kind
            made.addfile(info, io.BytesIO(content))
    return io.BytesIO(out.getvalue())


def test_packed_files_are_unpacked(packed: dict[str, bytes], tmp_path: Path) -> None:
    restored_to = tmp_path / "new"

    list(restore(tar(packed), restored_to))

    assert (restored_to / "lake" / "f").read_bytes() == packed["data/lake/f"]
    assert (restored_to / "lake" / "f").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files | {"data/lake/f": b"rowz" * 1000},
        lambda files: files | {"data/lake/g": b"more"},
        lambda files: {name: files[name] for name in files if name != "data/lake/f"},
        lambda files: {name: files[name] for name in files if name != "SHA256SUMS"},
        lambda files: files | {"../f": b""},
        lambda files: files | {"/tmp/f": b""},
        lambda files: files | {"data/../../f": b""},
        lambda files: {},
    ],
)
def test_a_damaged_backup_is_refused_and_leaves_no_directory(
    packed: dict[str, bytes], tmp_path: Path, damage: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    with pytest.raises(BadBackup):
        list(restore(tar(damage(packed)), tmp_path / "new"))

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(packed: dict[str, bytes], tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BadBackup):
        list(restore(tar(packed, kind), tmp_path / "new"))


def test_a_cut_stream_is_refused(packed: dict[str, bytes], tmp_path: Path) -> None:
    whole = tar(packed).getvalue()

    for length in (0, 100, 512, 2000, 5000):
        with pytest.raises(BadBackup):
            list(restore(io.BytesIO(whole[:length]), tmp_path / "new"))


def test_only_an_empty_directory_is_restored_into(packed: dict[str, bytes], tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()
    (target / "arc.db").touch()

    with pytest.raises(NotEmpty):
        list(restore(tar(packed), target))
    (target / "arc.db").unlink()
    with datadir.locked(target), pytest.raises(datadir.DataDirInUse):
        list(restore(tar(packed), target))
    list(restore(tar(packed), target))


def test_what_is_no_backup(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadBackup), opened(path):
            pass
    (tmp_path / "manifest.json").write_text('{"version": 99, "arc_version": "9"}')
    with pytest.raises(BadBackup, match="made by a newer Arc"):
        Manifest.read(tmp_path)


def test_a_failed_restore_leaves_an_empty_directory_that_was_there(packed: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()

    with pytest.raises(BadBackup):
        list(restore(io.BytesIO(tar(packed).getvalue()[:2000]), tmp_path / "new"))

    assert {path.name for path in (tmp_path / "new").iterdir()} == {"lock"}


def test_pieces_are_read_like_a_file() -> None:
    stream = Pieces(iter([b"", b"abc", b"de"]))

    assert [stream.read(2) for _ in range(4)] == [b"ab", b"c", b"de", b""]


def test_a_copy_of_a_database_has_what_was_committed(tmp_path: Path) -> None:
    source = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    source.execute("PRAGMA journal_mode = WAL")
    source.execute("CREATE TABLE t (n)")
    source.execute("INSERT INTO t VALUES (1)")
    source.execute("BEGIN IMMEDIATE")
    source.execute("INSERT INTO t VALUES (2)")

    sqlitefile.copy(tmp_path / "a.db", tmp_path / "b.db")

    source.close()
    copied = sqlite3.connect(tmp_path / "b.db")
    assert copied.execute("SELECT n FROM t").fetchall() == [(1,)]
    copied.close()
    assert {path.name for path in tmp_path.iterdir()} == {"a.db", "b.db"}


def test_settings_as_toml(tmp_path: Path) -> None:
    changed = load(None, {"ARC_AUTH_BOOTSTRAP_TOKEN": SECRET}, {"server.port": "9000", "wal.sync": "off"})

    (tmp_path / "arc.conf").write_text(changed.as_toml(with_secrets=True))

    assert SECRET not in changed.as_toml(with_secrets=False)
    again = load(str(tmp_path / "arc.conf"), {}, {})
    for section, name in (("auth", "bootstrap_token"), ("server", "port"), ("wal", "sync")):
        assert again.get(section, name) == changed.get(section, name)
