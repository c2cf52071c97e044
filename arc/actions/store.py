"""Actions on disk: one SQLite file per node, through the standard library.

actions: one row per action, `seq` in the order of scheduling; history: one row per transition; used_ids: ids of deleted
actions; facts: what a node decides once, such as its own id.
Any thread may call it. Each method is one transaction; a transition and its history are one, so they always agree.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from arc.actions.errors import ActionAlreadyExists, ActionNotFound, NewerSchema, QueueFull
from arc.actions.records import ActionRecord, HistoryItem, Json, State, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BUSY_MS = 5000
CACHE_KB = 512  # pages in memory per connection; the edge agent has little

# One entry per schema version; one that was released is never edited.
MIGRATIONS = (
    (
        """CREATE TABLE actions (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
            args TEXT NOT NULL, headers TEXT NOT NULL, requester TEXT NOT NULL, requested_by TEXT NOT NULL,
            version TEXT NOT NULL, created_at INTEGER NOT NULL, scheduled_at INTEGER NOT NULL, finished_at INTEGER,
            state TEXT NOT NULL, payload TEXT NOT NULL, revision INTEGER NOT NULL, invocations INTEGER NOT NULL,
            is_begun INTEGER NOT NULL, crashes INTEGER NOT NULL, running_us INTEGER NOT NULL,
            touched_at INTEGER NOT NULL, cancel_reason TEXT) STRICT""",
        "CREATE INDEX actions_unfinished ON actions (state, seq) WHERE finished_at IS NULL",
        "CREATE INDEX actions_finished ON actions (seq) WHERE finished_at IS NOT NULL",
        """CREATE TABLE history (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            seq INTEGER NOT NULL REFERENCES actions (seq) ON DELETE CASCADE,
            at INTEGER NOT NULL, state TEXT NOT NULL, payload TEXT NOT NULL) STRICT""",
        "CREATE INDEX history_seq ON history (seq, number)",
        "CREATE TABLE used_ids (id TEXT PRIMARY KEY, kind TEXT NOT NULL, expires_at INTEGER NOT NULL) STRICT",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    ),
)

_FIELDS = tuple(field.name for field in fields(ActionRecord))
_COLUMNS = ", ".join(_FIELDS)
_JSON = ("args", "headers", "payload")
_ADD = f"INSERT INTO actions ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')})"  # noqa: S608
_BY_SEQ = f"SELECT {_COLUMNS} FROM actions WHERE seq = ?"  # noqa: S608
_BY_ID = f"SELECT {_COLUMNS} FROM actions WHERE id = ?"  # noqa: S608
_HEAD = f"SELECT {_COLUMNS} FROM actions WHERE finished_at IS NULL ORDER BY state = 'RUNNING' DESC, seq LIMIT 1"  # noqa: S608
_QUEUE = "SELECT kind, id, state FROM actions WHERE finished_at IS NULL ORDER BY state = 'RUNNING' DESC, seq"
_FINISHED = """SELECT kind, id, state FROM actions WHERE finished_at IS NOT NULL
    AND seq < coalesce((SELECT seq FROM actions WHERE id = :before), 9223372036854775807)
    ORDER BY seq DESC LIMIT :limit"""
# A record is only written as it was read: an action cannot be cancelled after a handler has begun.
_GUARD = "seq = :seq AND revision = :revision AND is_begun = :is_begun AND finished_at IS NULL"
_BEGIN = f"""UPDATE actions SET is_begun = 1, invocations = invocations + 1, crashes = :crashes,
    running_us = :running_us, touched_at = :now WHERE {_GUARD}"""  # noqa: S608
_SETTLE = f"UPDATE actions SET is_begun = 0, crashes = 0, touched_at = :now WHERE {_GUARD}"  # noqa: S608
_CHANGE = f"""UPDATE actions SET state = :state, payload = :payload, finished_at = :finished_at, is_begun = 0,
    crashes = 0, revision = revision + 1, touched_at = :now WHERE {_GUARD}"""  # noqa: S608
# The events of NEW and of the end stay, the oldest of the rest go.
_CAP_HISTORY = """DELETE FROM history WHERE number IN (SELECT number FROM history WHERE seq = :seq AND state = 'RUNNING'
    ORDER BY number LIMIT max(0, (SELECT count(*) FROM history WHERE seq = :seq) - :keep))"""
# What nobody has fetched yet who wants to know of it stays longer, but not for ever.
_OLDEST = """SELECT seq FROM actions WHERE finished_at IS NOT NULL AND seq < (
        SELECT seq FROM actions WHERE finished_at IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET :keep - 1)
    AND (seq < (SELECT seq FROM actions WHERE finished_at IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET 10 * :keep - 1)
        OR NOT EXISTS (SELECT 1 FROM history WHERE history.seq = actions.seq AND number > :acknowledged))
    ORDER BY seq LIMIT :limit"""
_CHANGED = """SELECT seq, max(number) AS newest FROM history WHERE number > ? GROUP BY seq ORDER BY newest LIMIT ?"""
_BACKLOG = """SELECT count(*), min(CASE WHEN state = 'NEW' THEN scheduled_at END),
    coalesce(max(CASE WHEN state = 'RUNNING' THEN running_us END), 0) FROM actions WHERE finished_at IS NULL"""
_ACKNOWLEDGED = "acknowledged"  # name of a fact
_EVERYTHING = (1 << 63) - 1


@dataclass(frozen=True)
class Backlog:
    """What has not ended. oldest_new_at: when what waits longest was scheduled. running_us: of the one that runs."""

    count: int
    oldest_new_at: int | None
    running_us: int


class ActionStore:
    """history_max: events kept per action."""

    def __init__(self, directory: str | os.PathLike[str], history_max: int = 1000) -> None:
        self.path = os.path.join(directory, "actions.db")
        self.history_max = history_max
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self._writer = _Connection(self.path)
        try:
            self._migrate()
            self._reader = _Connection(self.path)  # of its own, so that a look never waits for the disk
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def add(self, new: ActionRecord, queue_max: int) -> ActionRecord:
        """Store an action as NEW, last in the queue; its seq is assigned here.

        Raises ActionAlreadyExists, also for the id of a deleted action that is remembered; QueueFull.
        """
        values = _values(new) | {"seq": None}
        with self._writer.transaction() as tx:
            if used := _use(tx, new.id):
                raise ActionAlreadyExists(new.id, *used)
            (waiting,) = tx.execute("SELECT count(*) FROM actions WHERE finished_at IS NULL").fetchone()
            if waiting >= queue_max:
                raise QueueFull(queue_max)
            seq = tx.execute(_ADD, values).lastrowid
            _note(tx, seq, new.scheduled_at, State.NEW, values["payload"])
            return _record(tx.execute(_BY_SEQ, (seq,)).fetchone())

    def add_ended(self, ended: Iterable[tuple[ActionRecord, list[HistoryItem]]]) -> int:
        """Store actions that ended elsewhere, each with its history, newest event first; returns how many.

        They come before all that is here, in the order given. Left out is what has an id that is known, as in add(), or
        that of one before it.
        """
        new: dict[str, tuple[ActionRecord, list[HistoryItem]]] = {}
        with self._writer.transaction() as tx:
            for record, history in ended:
                if not _use(tx, record.id):
                    new.setdefault(record.id, (record, history))
            (lowest,) = tx.execute("SELECT min(coalesce((SELECT min(seq) FROM actions), 1), 1)").fetchone()
            for seq, (record, history) in enumerate(new.values(), lowest - len(new)):
                tx.execute(_ADD, _values(record) | {"seq": seq})
                for item in reversed(history):
                    _note(tx, seq, item.at, item.state, encode(item.payload))
                tx.execute(_CAP_HISTORY, {"seq": seq, "keep": self.history_max})
        return len(new)

    def head(self) -> ActionRecord | None:
        """What is to be worked on: the one that is RUNNING, else the NEW one that waits longest."""
        with self._reader.transaction("DEFERRED") as tx:
            row = tx.execute(_HEAD).fetchone()
        return row and _record(row)

    def get(self, action_id: str) -> tuple[ActionRecord, list[HistoryItem]]:
        """An action and its history, newest event first, as of one instant. Raises ActionNotFound."""
        with self._reader.transaction("DEFERRED") as tx:
            row = tx.execute(_BY_ID, (action_id.lower(),)).fetchone()
            if row is None:
                raise ActionNotFound(action_id)
            return _with_history(tx, row)

    def changed_since(self, number: int, limit: int) -> tuple[int, list[tuple[ActionRecord, list[HistoryItem]]]]:
        """Actions with events after this number, in the order of their newest ones, and the number to go on from."""
        with self._reader.transaction("DEFERRED") as tx:
            changed = tx.execute(_CHANGED, (number, limit)).fetchall()
            found = [_with_history(tx, tx.execute(_BY_SEQ, (seq,)).fetchone()) for seq, _ in changed]
        return (changed[-1][1] if changed else number), found

    def acknowledge(self, number: int) -> None:
        """What happened up to this event is known elsewhere."""
        with self._writer.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_ACKNOWLEDGED, str(number)))

    def queue(self) -> list[Summary]:
        """All that has not ended, in the order of execution."""
        with self._reader.transaction("DEFERRED") as tx:
            return [_summary(row) for row in tx.execute(_QUEUE)]

    def finished(self, limit: int, before: str | None = None) -> list[Summary]:
        """What has ended, last scheduled first; before: an id, to list what was scheduled before it."""
        with self._reader.transaction("DEFERRED") as tx:
            return [_summary(row) for row in tx.execute(_FINISHED, {"limit": limit, "before": before})]

    def finished_count(self) -> int:
        with self._reader.transaction("DEFERRED") as tx:
            (count,) = tx.execute("SELECT count(*) FROM actions WHERE finished_at IS NOT NULL").fetchone()
        return int(count)

    def backlog(self) -> Backlog:
        with self._reader.transaction("DEFERRED") as tx:
            return Backlog(*tx.execute(_BACKLOG).fetchone())

    def last_scheduled_at(self, names: tuple[str, ...]) -> int | None:
        """When the newest action of these kinds that did not fail was scheduled here; imported ones do not count."""
        marks = ", ".join("?" * len(names))
        with self._reader.transaction("DEFERRED") as tx:
            (at,) = tx.execute(
                f"SELECT max(scheduled_at) FROM actions WHERE kind IN ({marks}) AND state != 'FAILED' AND seq > 0",  # noqa: S608
                names,
            ).fetchone()
        return None if at is None else int(at)

    def is_known(self, action_id: str) -> bool:
        with self._reader.transaction("DEFERRED") as tx:
            return tx.execute("SELECT 1 FROM actions WHERE id = ?", (action_id,)).fetchone() is not None

    def begin(self, record: ActionRecord, crashes: int, running_us: int, now_us: int) -> bool:
        """Note that a handler is about to run; False when somebody ended the action meanwhile."""
        values = {"crashes": crashes, "running_us": running_us, "now": now_us}
        with self._writer.transaction() as tx:
            return tx.execute(_BEGIN, values | _guard(record)).rowcount == 1

    def settle(self, record: ActionRecord, now_us: int) -> bool:
        """Note that the handler came back and nothing has changed."""
        with self._writer.transaction() as tx:
            return tx.execute(_SETTLE, {"now": now_us} | _guard(record)).rowcount == 1

    def change(self, record: ActionRecord, state: State, payload: str, now_us: int) -> ActionRecord | None:
        """One transition with its event; None when the action is not as it was read. payload: JSON text."""
        finished_at = now_us if state.is_final else None
        values = {"state": state, "payload": payload, "finished_at": finished_at, "now": now_us} | _guard(record)
        with self._writer.transaction() as tx:
            if tx.execute(_CHANGE, values).rowcount != 1:
                return None
            _note(tx, record.seq, now_us, state, payload)
            tx.execute(_CAP_HISTORY, {"seq": record.seq, "keep": self.history_max})
            return _record(tx.execute(_BY_SEQ, (record.seq,)).fetchone())

    def ask_to_cancel(self, action_id: str, reason: str) -> None:
        with self._writer.transaction() as tx:
            tx.execute("UPDATE actions SET cancel_reason = ? WHERE id = ? AND finished_at IS NULL", (reason, action_id))

    def prune(self, keep: int, limit: int, now_us: int, expires_at: int) -> int:
        """Delete finished actions beyond the newest `keep`, oldest first, at most `limit`; returns how many.

        What changed after the last acknowledge() is spared until there are ten times as many.
        Their ids are remembered until expires_at; ids whose time is over are forgotten.
        """
        with self._writer.transaction() as tx:
            tx.execute("DELETE FROM used_ids WHERE expires_at <= ?", (now_us,))
            values = {"keep": keep, "limit": limit, "acknowledged": _acknowledged(tx)}
            doomed = tx.execute(_OLDEST, values).fetchall()
            tx.executemany(
                "INSERT OR REPLACE INTO used_ids SELECT id, kind, ? FROM actions WHERE seq = ?",
                [(expires_at, seq) for (seq,) in doomed],
            )
            tx.executemany("DELETE FROM actions WHERE seq = ?", doomed)
        return len(doomed)

    def remember(self, name: str, value: str) -> str:
        """The fact of this name: what was given when it was asked for first."""
        with self._writer.transaction() as tx:
            tx.execute("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
            (kept,) = tx.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(kept)

    def _migrate(self) -> None:
        with self._writer.transaction() as tx:
            (version,) = tx.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise NewerSchema(self.path, version, len(MIGRATIONS))
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    tx.execute(statement)
            tx.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


class _Connection:
    """One connection that threads take turns with."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._sqlite = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",  # with NORMAL a power cut may take back what was acknowledged
            "foreign_keys = ON",
            f"cache_size = -{CACHE_KB}",
        ):
            self._sqlite.execute(f"PRAGMA {pragma}")

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._sqlite.execute(f"BEGIN {kind}")
            try:
                yield self._sqlite
                self._sqlite.execute("COMMIT")
            except BaseException:
                if self._sqlite.in_transaction:  # some errors have ended it already
                    self._sqlite.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._sqlite.close()


def encode(value: Json) -> str:
    """Raises TypeError or ValueError for what is no JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _use(tx: sqlite3.Connection, action_id: str) -> tuple[str, str | None] | None:
    """Kind and state of the action that has this id; of one that was deleted, the kind."""
    used: tuple[str, str | None] | None = tx.execute(
        "SELECT kind, state FROM actions WHERE id = :id UNION ALL SELECT kind, NULL FROM used_ids WHERE id = :id",
        {"id": action_id},
    ).fetchone()
    return used


def _guard(record: ActionRecord) -> dict[str, int]:
    return {"seq": record.seq, "revision": record.revision, "is_begun": record.is_begun}


def _note(tx: sqlite3.Connection, seq: int | None, at: int, state: State, payload: str) -> None:
    tx.execute("INSERT INTO history (seq, at, state, payload) VALUES (?, ?, ?, ?)", (seq, at, state, payload))


def _with_history(tx: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[ActionRecord, list[HistoryItem]]:
    record = _record(row)
    rows = tx.execute("SELECT at, state, payload FROM history WHERE seq = ? ORDER BY number DESC", (record.seq,))
    return record, [HistoryItem(record.id, at, State(state), json.loads(payload)) for at, state, payload in rows]


def _acknowledged(tx: sqlite3.Connection) -> int:
    """The event up to which all is known elsewhere; where nobody asks, that is every one."""
    row = tx.execute("SELECT value FROM facts WHERE name = ?", (_ACKNOWLEDGED,)).fetchone()
    return int(row[0]) if row else _EVERYTHING


def _values(record: ActionRecord) -> dict[str, Any]:
    values = dict(vars(record))
    return values | {name: encode(values[name]) for name in _JSON}


def _record(row: tuple[Any, ...]) -> ActionRecord:
    values = dict(zip(_FIELDS, row, strict=True))
    values |= {name: json.loads(values[name]) for name in _JSON}
    return ActionRecord(**values | {"state": State(values["state"]), "is_begun": bool(values["is_begun"])})


def _summary(row: tuple[str, str, str]) -> Summary:
    kind, action_id, state = row
    return Summary(kind, action_id, State(state))
