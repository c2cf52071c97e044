"""The metadata database: many readers, one writer at a time.

open_database -> Alembic steps -> Database.read() | Database.transaction() -> SQLAlchemy connection
What only SQLite knows stays in this module.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from arc.db import tables
from arc.errors import ConfigError, Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_S = 10  # seconds a transaction waits for its turn
MIGRATIONS = Path(__file__).with_name("migrations")
_SYNCHRONOUS = {True: "FULL", False: "NORMAL"}
_VERSION = sa.text("SELECT version_num FROM alembic_version")


class SchemaTooNew(Conflict):
    def __init__(self, found: str) -> None:
        super().__init__(
            f"the metadata database was written by a newer Arc (schema {found}, this program knows {tables.REVISION});"
            " start that version, or restore a backup made before the upgrade"
        )


class Database:
    """Connections to one database. Any thread may call it."""

    def __init__(self, url: str | sa.URL) -> None:
        self._engine = _create_engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        # Threads of this process queue here: SQLite itself makes a waiter sleep and try again.
        self._writer = threading.Lock()
        self._watch = _Watch(self._engine) if self._is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database; nothing it does is kept."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self, *, is_durable: bool = True) -> Iterator[sa.Connection]:
        """A connection whose statements are kept together, or not at all. Transactions do not nest.

        is_durable: on disk when this returns. Otherwise with the next durable one at the latest: a power cut may undo
        it, the death of the process does not.
        Raises Unavailable when the database stays locked or has no space.
        """
        if not self._writer.acquire(timeout=BUSY_S):
            raise Unavailable("the metadata database is busy")
        try:
            with (
                self._engine.connect().execution_options(sqlite_synchronous=_SYNCHRONOUS[is_durable]) as connection,
                connection.begin(),
            ):
                yield connection
        except OperationalError as error:
            raise _unavailable(error) or error from None
        finally:
            self._writer.release()

    def version(self) -> int:
        """Changes when anybody, in any process, has committed. Only SQLite tells; elsewhere always 0."""
        return self._watch.version() if self._watch else 0

    def close(self) -> None:
        if self._watch:
            self._watch.close()
        self._engine.dispose()


class _Watch:
    """PRAGMA data_version on a connection of its own: it counts the commits of all others. 4 µs a call."""

    def __init__(self, engine: sa.Engine) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(str(engine.url.database), isolation_level=None, check_same_thread=False)

    def version(self) -> int:
        with self._lock:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def open_database(data_dir: Path, url: str = "") -> Database:
    """The database at the url, or `arc.db` in the data directory, brought to the newest schema.

    Raises SchemaTooNew and leaves the database alone when a newer Arc has written it.
    """
    path = data_dir / "arc.db"
    if not url:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)  # SQLite gives its -wal and -shm files the same mode
    database = Database(url or sa.URL.create("sqlite", database=str(path)))
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _create_engine(url: str | sa.URL) -> sa.Engine:
    try:
        is_sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        connect_args = {"timeout": BUSY_S, "isolation_level": None} if is_sqlite else {}
        # Threads are bounded elsewhere; a reader shall not wait for a free connection.
        engine = sa.create_engine(url, max_overflow=-1, connect_args=connect_args)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(f"[database] url: {error}") from None
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """FULL, because what is acknowledged must be on disk: with NORMAL a power cut may undo the last commits.

    LIKE tells upper from lower case, as in PostgreSQL.
    """
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "case_sensitive_like = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Writers take the lock at once: one that starts as a reader cannot wait for it later."""
    synchronous = connection.get_execution_options().get("sqlite_synchronous")
    if synchronous and connection.info.get("synchronous") != synchronous:  # the connection remembers it, too
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        connection.info["synchronous"] = synchronous
    connection.exec_driver_sql("BEGIN IMMEDIATE" if synchronous else "BEGIN")


def _unavailable(error: OperationalError) -> Unavailable | None:
    text = str(error.orig)
    if "locked" in text:
        return Unavailable("the metadata database is busy")
    return Unavailable("no space for the metadata database", retry_after_s=10) if "full" in text else None


def _migrate(database: Database) -> None:
    with database.transaction() as connection:
        found = connection.scalar(_VERSION) if sa.inspect(connection).has_table("alembic_version") else None
        if found == tables.REVISION:
            return
        _run_alembic(connection, found)


def _run_alembic(connection: sa.Connection, found: str | None) -> None:
    """Import Alembic here: it costs 0.1 s and 7 MB, and most starts have nothing to migrate."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaTooNew(found)
    command.upgrade(config, "head")
