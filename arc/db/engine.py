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
_VERSION = sa.text("SELECT version_num FROM alembic_version")
_CHANGES = "SELECT value FROM settings WHERE name = ?"


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
        self._disk = _Disk(Path(f"{self._engine.url.database}-wal")) if self._is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database; nothing it does is kept."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self, *, is_durable: bool = True) -> Iterator[sa.Connection]:
        """A connection whose statements are kept together, or not at all. Transactions do not nest.

        is_durable: on disk when this returns. Otherwise with the next durable one at the latest: a power cut may undo
        it, the death of the process does not. Others see it, and take their turn, while it waits for the disk.
        Raises Unavailable when the database stays locked or has no space.
        """
        if not self._writer.acquire(timeout=BUSY_S):
            raise Unavailable("the metadata database is busy")
        try:
            with (
                self._engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection,
                connection.begin(),
            ):
                yield connection
            number = self._disk.count() if self._disk else 0
        except OperationalError as error:
            raise _unavailable(error) or error from None
        finally:
            self._writer.release()
        if self._disk and is_durable:
            self._disk.sync(number)

    def changes_of(self, table: str) -> int:
        """Another number when anybody, in any process, has changed rows of a table whose changes are counted.

        Those of api_tokens are (migration 0006). Only SQLite tells; elsewhere always 0.
        """
        return self._watch.changes_of(table) if self._watch else 0

    def close(self) -> None:
        if self._watch:
            self._watch.close()
        if self._disk:
            self._disk.close()
        self._engine.dispose()


class _Watch:
    """Changes of tables, on a connection of its own.

    PRAGMA data_version counts the commits of all others and takes 4 µs; only after one is the table's count read.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(str(engine.url.database), isolation_level=None, check_same_thread=False)
        self._counted: dict[str, tuple[int, int]] = {}  # by table: version of the database, changes by then

    def changes_of(self, table: str) -> int:
        with self._lock:
            # First, so that the count is never older than it.
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            seen, changes = self._counted.get(table, (None, 0))
            if seen != version:
                row = self._connection.execute(_CHANGES, (f"{table}.changes",)).fetchone()
                changes = int(row[0]) if row else 0
                self._counted[table] = (version, changes)
            return changes

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _Disk:
    """Brings commits to disk, outside of the writers' turns and several with one wait.

    SQLite itself waits once per commit and in the middle of a turn; that halved the number of tasks per second. Its
    write-ahead log is a file like others, so who waits for it does not matter.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._committed = 0  # changed only in a writer's turn
        self._synced = 0

    def count(self) -> int:
        """The number of the commit that has just been made."""
        self._committed += 1
        return self._committed

    def sync(self, number: int) -> None:
        """Return when the commit is on disk."""
        with self._lock:
            if self._synced >= number:
                return  # it was there when somebody else waited
            committed = self._committed
            sync = getattr(os, "fdatasync", os.fsync)  # not every system has it
            sync(self._opened())
            self._synced = committed

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _opened(self) -> int:
        """The file that SQLite writes to now: it makes a new one when all had closed the last."""
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDWR)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)  # the file itself may be new
            finally:
                os.close(directory)
        return self._descriptor


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
        # Threads are bounded elsewhere; a reader shall not wait for a free connection. The one used last is taken
        # first: the pages of the database that SQLite keeps with it are good until another connection has written.
        engine = sa.create_engine(url, max_overflow=-1, pool_use_lifo=True, connect_args=connect_args)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(f"[database] url: {error}") from None
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """NORMAL, because _Disk waits for the disk after a commit.

    LIKE tells upper from lower case, as in PostgreSQL.
    """
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "case_sensitive_like = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Writers take the lock at once: one that starts as a reader cannot wait for it later."""
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


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
