"""The metadata database: transactions, migrations, file modes, and the data directory around it."""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from arc import datadir
from arc.db import engine, fleet_tables, tables  # noqa: F401 - its tables belong to the metadata
from arc.db.engine import Database, SchemaTooNew, open_database
from arc.db.tables import api_tokens
from arc.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path)
    yield opened
    opened.close()


def add(connection: Connection, *names: str) -> None:
    for name in names:
        rest = {"description": "", "permissions": "", "created_at": 0, "enabled": True}
        connection.execute(insert(api_tokens).values(name=name, token_hash=name, **rest))


def commit(db: Database, name: str) -> None:
    with db.transaction() as tx:
        add(tx, name)


def count(db: Database) -> int:
    with db.read() as connection:
        return connection.scalar(select(func.count()).select_from(api_tokens)) or 0


def test_transaction_keeps_everything_or_nothing(db: Database) -> None:
    with db.transaction() as tx:
        add(tx, "kept")

    with pytest.raises(IntegrityError), db.transaction() as tx:
        add(tx, "dropped", "kept")

    assert count(db) == 1


def test_reader_sees_one_state_while_others_write(db: Database) -> None:
    with db.read() as reader:
        before = reader.scalar(select(func.count()).select_from(api_tokens))
        with db.transaction() as tx:
            add(tx, "new")
        assert reader.scalar(select(func.count()).select_from(api_tokens)) == before

    assert count(db) == 1


def test_writers_wait_for_each_other(db: Database) -> None:
    def write(start: int) -> None:
        for number in range(start, start + 20):
            with db.transaction() as tx:
                seen = tx.scalar(select(func.count()).select_from(api_tokens))
                add(tx, f"{number}-{seen}")

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with db.read() as connection:
        seen = sorted(int(name.split("-")[1]) for name in connection.scalars(select(api_tokens.c.name)))
    assert seen == list(range(80))


def test_locked_database_is_unavailable(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_S", 0.01)
    impatient = Database(f"sqlite:///{tmp_path}/arc.db")
    try:
        with db.transaction(), pytest.raises(Unavailable), impatient.transaction():
            pass
        with db.transaction(), pytest.raises(Unavailable), db.transaction():
            pass
    finally:
        impatient.close()


def test_change_of_another_process_is_counted(db: Database, tmp_path: Path) -> None:
    other = Database(f"sqlite:///{tmp_path}/arc.db")
    before = db.changes_of("api_tokens")
    assert db.changes_of("api_tokens") == before

    with other.transaction() as tx:
        add(tx, "new")
    other.close()

    assert db.changes_of("api_tokens") != before


def test_sqlite_is_set_up_for_safety(db: Database) -> None:
    with db.read() as connection:
        found = {
            name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }

    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}


def test_only_durable_transactions_wait_for_the_disk(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[os.stat_result] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(os.fstat(file)), fdatasync(file)))

    for is_durable in (True, False, True):
        with db.transaction(is_durable=is_durable) as tx:
            add(tx, f"durable {is_durable} {len(synced)}")

    assert len(synced) == 2


def test_what_is_synced_is_the_log_of_the_database(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_ino))

    with db.transaction() as tx:
        add(tx, "new")

    assert synced == [(tmp_path / "arc.db-wal").stat().st_ino]


def test_commits_that_wait_together_need_the_disk_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    at_disk, go, synced = threading.Event(), threading.Event(), []

    def slow(file: int) -> None:
        synced.append(file)
        at_disk.set()
        assert go.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow)
    threads = [threading.Thread(target=commit, args=(db, f"t{number}")) for number in range(5)]
    threads[0].start()
    assert at_disk.wait(10)
    for thread in threads[1:]:
        thread.start()
    deadline = time.monotonic() + 10
    while count(db) < 5:  # all are committed while the first still waits for the disk
        assert time.monotonic() < deadline
    go.set()
    for thread in threads:
        thread.join()

    assert len(synced) == 2


def test_files_are_private(db: Database, tmp_path: Path) -> None:
    with db.transaction() as tx:
        add(tx, "x")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert modes == {"arc.db": 0o600, "arc.db-wal": 0o600, "arc.db-shm": 0o600}


def test_second_start_changes_nothing(tmp_path: Path) -> None:
    first = open_database(tmp_path)
    with first.transaction() as tx:
        add(tx, "kept")
    first.close()

    second = open_database(tmp_path)

    assert count(second) == 1
    second.close()


def test_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = open_database(tmp_path)
    with newer.transaction() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.close()

    with pytest.raises(SchemaTooNew, match="schema 9999"):
        open_database(tmp_path)

    left = Database(f"sqlite:///{tmp_path}/arc.db")
    with left.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    left.close()


def is_no_search_index(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or "_search" not in str(name)


def test_migrations_make_what_the_tables_say(db: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with db.read() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": is_no_search_index}
        context = MigrationContext.configure(connection, opts=options)
        difference = compare_metadata(context, tables.metadata)

    assert difference == []
    assert ScriptDirectory(str(engine.MIGRATIONS)).get_current_head() == tables.REVISION


def test_any_directory_name_will_do(tmp_path: Path) -> None:
    odd = datadir.create(tmp_path / "50% of ?a=b #1")

    opened = open_database(odd)

    assert count(opened) == 0
    assert (odd / "arc.db").stat().st_size > 0
    opened.close()


def test_unusable_url_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[database\] url"):
        open_database(tmp_path, "nonsense")


def test_data_directory_is_private(tmp_path: Path) -> None:
    made = datadir.create(tmp_path / "a" / "data")

    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_data_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"\[storage\] dir"):
        datadir.create(tmp_path / "file")


def test_data_directory_is_held_by_one(tmp_path: Path) -> None:
    with datadir.locked(tmp_path), pytest.raises(datadir.DataDirInUse, match=str(tmp_path)), datadir.locked(tmp_path):
        pass

    with datadir.locked(tmp_path):
        assert (tmp_path / "lock").read_text().strip().isdecimal()
