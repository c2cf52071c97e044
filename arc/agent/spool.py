"""Spool: what the server has to get, on disk, in order, until it has confirmed it.

append (reply, registration, received, metrics) -> messages -> batch -> server -> acknowledge -> gone
Every message has a number that is never used again, within an epoch that names this file. The server remembers
the last number of the epoch, so that what is sent twice counts once.
A kill loses nothing. The file is not synced with each message: a power cut may lose the last ones, and then the
numbers start a new epoch (`check_epoch`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

DROP_AT_ONCE = 50  # samples of metrics that make room for something else
NOT_DUE = float("inf")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body TEXT NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS metrics ON messages (seq) WHERE kind = 'metrics';
CREATE TABLE IF NOT EXISTS executions (
    request_id TEXT PRIMARY KEY, plugin TEXT NOT NULL, action TEXT NOT NULL, accepted_at INTEGER NOT NULL,
    number INTEGER NOT NULL DEFAULT 0, is_final INTEGER NOT NULL DEFAULT 0, pid INTEGER, process_start TEXT)
    WITHOUT ROWID;
"""
_DROP_OLDEST = """
DELETE FROM messages WHERE seq IN (SELECT seq FROM messages WHERE kind = 'metrics' ORDER BY seq LIMIT ?) RETURNING size
"""
_PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -256", "journal_size_limit = 1048576")


class SpoolFailed(Exception):
    """The file cannot be written now: the disk is full or worse."""


class Spool:
    """Any thread may call it.

    identity: whose messages these are; a file of another one is put aside. max_bytes: of the messages that wait.
    """

    def __init__(self, path: str, identity: str, max_bytes: int) -> None:
        self._lock = threading.RLock()
        self._max_bytes = max_bytes
        self._due = threading.Condition()
        self._due_at = 0.0  # monotonic seconds: whatever the last process left is due at once
        self._dropped = 0
        self._connection = _open(path, identity)
        self.epoch = self.note("epoch")
        self._bytes: int = self._one("SELECT coalesce(sum(size), 0) FROM messages")
        self._first_seq: int = 1 + self._one(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @property
    def has_room(self) -> bool:
        """Whether output of processes may go on coming."""
        return self._bytes < self._max_bytes

    @property
    def waiting(self) -> int:
        """How many messages the server has not confirmed."""
        return self._one("SELECT count(*) FROM messages")

    def append(self, kind: str, fields: Mapping[str, Any], *, delay_s: float = 0.0) -> None:
        """Add a message. delay_s: how long it may wait for others to go with it. Raises SpoolFailed."""
        with self.transaction() as tx:
            self.add(tx, kind, fields)
        self.wake(delay_s)

    def add(self, tx: sqlite3.Connection, kind: str, fields: Mapping[str, Any]) -> None:
        """The same as a part of a transaction, which the caller ends with `wake`."""
        text = json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
        raw = text.encode("utf-8", "replace")  # half a surrogate pair is no text for anybody
        body, size = raw.decode(), len(raw)
        if self._bytes + size > self._max_bytes and not self._make_room(tx, size) and kind == "metrics":
            self._note_drop(1)
            return
        tx.execute("INSERT INTO messages (kind, body, size) VALUES (?, ?, ?)", (kind, body, size))
        self._bytes += size

    def batch(self, max_bytes: int, max_messages: int) -> list[tuple[int, str]]:
        """Number and text of the oldest messages, at least one if there is any."""
        found: list[tuple[int, str]] = []
        with self._lock:
            for seq, body, size in self._connection.execute(
                "SELECT seq, body, size FROM messages ORDER BY seq LIMIT ?", (max_messages,)
            ):
                max_bytes -= size
                if found and max_bytes < 0:
                    break
                found.append((seq, body))
        return found

    def acknowledge(self, last_seq: int) -> None:
        """The server has all up to this number. Raises SpoolFailed."""
        with self.transaction() as tx:
            (size,) = tx.execute("SELECT coalesce(sum(size), 0) FROM messages WHERE seq <= ?", (last_seq,)).fetchone()
            tx.execute("DELETE FROM messages WHERE seq <= ?", (last_seq,))
            self._bytes -= size

    def forget(self, seq: int) -> None:
        """Give up a message that the server will never take. Raises SpoolFailed."""
        with self.transaction() as tx:
            tx.execute("DELETE FROM messages WHERE seq = ?", (seq,))
            self._bytes = tx.execute("SELECT coalesce(sum(size), 0) FROM messages").fetchone()[0]

    def check_epoch(self, last_seq: int) -> None:
        """last_seq: what the server has of the epoch, asked at the start.

        If that is more than this file knew when it was opened, the file lost its last messages, and new ones would
        get numbers that the server has seen.
        """
        if last_seq >= self._first_seq:
            log.warning("the spool lost messages, %d of them delivered; starts anew", last_seq - self._first_seq + 1)
            self.epoch = new_id()
            self.set_note("epoch", self.epoch)

    def note(self, name: str) -> str:
        """A text that was set before, else empty."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def set_note(self, name: str, value: str) -> None:
        """Raises SpoolFailed."""
        with self.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises SpoolFailed."""
        with self._lock:
            before = self._bytes
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._bytes = before
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise SpoolFailed(f"the spool cannot be written: {error}") from error
                raise

    def wake(self, delay_s: float = 0.0) -> None:
        """There is something to send, in `delay_s` at the latest."""
        with self._due:
            due_at = time.monotonic() + delay_s
            if due_at < self._due_at:
                self._due_at = due_at
                self._due.notify_all()

    def wait_due(self, is_stopped: threading.Event) -> None:
        """Until something is due, or the event is set and `wake` was called."""
        with self._due:
            while not is_stopped.is_set():
                left_s = self._due_at - time.monotonic()
                if left_s <= 0:
                    break
                self._due.wait(None if left_s == NOT_DUE else left_s)
            self._due_at = NOT_DUE

    def _make_room(self, tx: sqlite3.Connection, size: int) -> bool:
        """The oldest metrics go; replies and registrations stay, whatever it takes."""
        while self._bytes + size > self._max_bytes:
            oldest = tx.execute(_DROP_OLDEST, (DROP_AT_ONCE,)).fetchall()
            if not oldest:
                return False
            self._bytes -= sum(freed for (freed,) in oldest)
            self._note_drop(len(oldest))
        return True

    def _note_drop(self, count: int) -> None:
        if self._dropped == 0:
            log.warning("the spool is full: the oldest metrics are dropped")
        self._dropped += count

    def _one(self, query: str) -> int:
        with self._lock:
            value: int = self._connection.execute(query).fetchone()[0]
        return value


def new_id() -> str:
    """Like secrets.token_hex, which would load OpenSSL: 3.5 MB."""
    return os.urandom(16).hex()


def _open(path: str, identity: str) -> sqlite3.Connection:
    try:
        connection = _prepared(path)
        owner = connection.execute("SELECT value FROM notes WHERE name = 'identity'").fetchone()
        if owner is None or owner[0] == identity:
            connection.executemany(
                "INSERT OR IGNORE INTO notes VALUES (?, ?)", [("identity", identity), ("epoch", new_id())]
            )
            return connection
        log.warning("the spool is of %r: put aside", owner[0])
        connection.close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # no access, no space: nothing is wrong with the file
            raise SpoolFailed(f"{path}: {error}") from None
        log.error("the spool is damaged and put aside: %s", error)
    _put_aside(path)
    return _open(path, identity)


def _prepared(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(_SCHEMA)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        connection.close()
        raise
    return connection


def _put_aside(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, f"{path}.old{suffix}")
