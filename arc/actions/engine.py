"""The engine: what the rest of Arc knows of actions.

schedule -> ActionStore.add -> (thread) Worker.cycle until nothing is left -> wait for the next
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from arc import clock
from arc.actions import rules, schema
from arc.actions.errors import (
    ActionFinished,
    Cancelled,
    Draining,
    EngineElsewhere,
    InvalidArgs,
    NotCancellable,
)
from arc.actions.kinds import Catalogue, Kind
from arc.actions.records import ActionRecord, HistoryItem, Json, State, Summary
from arc.actions.store import ActionStore
from arc.actions.worker import Clocks, Counters, EngineOptions, Worker
from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

IDLE_S = 3600.0  # seconds without work until the thread looks whether something is to be cleaned up


class ActionEngine:
    """Any thread may call it. A directory has one engine at a time; a second one serves reads and schedules nothing.

    version: of the running Arc. on_change: told each record that was added or changed, in the engine's thread or the
    caller's; what it raises is logged.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        kinds: Iterable[Kind],
        options: EngineOptions | None = None,
        *,
        version: str = "",
        clocks: Clocks | None = None,
        on_change: Callable[[ActionRecord], None] = lambda record: None,
    ) -> None:
        options, catalogue = options or EngineOptions(), Catalogue(kinds)
        self.store = ActionStore(directory, options.history_max)
        self._version = version
        self._clocks = clocks or Clocks()
        self._on_change = on_change
        self._worker = Worker(self.store, catalogue, options, self._clocks, version, self._announce)
        self._lock_path = os.path.join(directory, "actions.lock")
        self._lock_fd: int | None = None
        self._is_elsewhere = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Begin to work; False when another process does, which is logged."""
        if not self._take_lock():
            self._is_elsewhere = True
            log.error("actions: another process works on %s; this one only reads", self.store.path)
            return False
        self._is_elsewhere = False
        self._thread = threading.Thread(target=self._run, name="actions", daemon=True)
        self._thread.start()
        return True

    def begin_stop(self) -> None:
        """Take no more actions, begin no more steps, answer who waits for a change."""
        self._stop.set()
        self._wake.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """After begin_stop(): wait for what runs, a long step that will be repeated too."""
        ends = time.monotonic() + timeout_s
        if self._thread is not None:
            self._thread.join(timeout_s)
        if not self.is_at_work:  # its thread is the one that changes what runs in the background
            self._worker.background.join(ends - time.monotonic())

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the step that runs; what is unfinished goes on at the next start.

        Of long steps, those that can be repeated are given up.
        """
        self.begin_stop()
        self.join(timeout_s)
        if self.is_at_work:
            log.warning("actions: a step still runs after the time it was given; the next start repeats it")
            return  # it needs the store
        self.store.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @property
    def is_at_work(self) -> bool:
        """From start() on; after begin_stop() until what ran then has ended."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def options(self) -> EngineOptions:
        return self._worker.options

    @property
    def catalogue(self) -> Catalogue:
        return self._worker.catalogue

    def replace(self, catalogue: Catalogue, options: EngineOptions) -> None:
        """Other kinds and options from now on. What is queued of a kind that has gone fails as ActionNotAvailable."""
        # A request that is being taken meanwhile sees either of them; none needs both as of one instant.
        self._worker.catalogue, self._worker.options = catalogue, options
        self.store.history_max = options.history_max

    @property
    def instance(self) -> str:
        """Of this process; no other has the same."""
        return self._worker.instance

    @property
    def fault(self) -> str | None:
        """Why the outcome of a step cannot be stored; None when all is well."""
        return self._worker.fault

    @property
    def counters(self) -> Counters:
        return self._worker.counters

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def schedule(
        self,
        kind: str,
        args: Json,
        *,
        action_id: str | None = None,
        created_us: int | None = None,
        requester: str | None = None,
        may_claim: bool = True,
        headers: Iterable[tuple[str, str]] = (),
        requested_by: str = "",
    ) -> ActionRecord:
        """Queue an action; it is on disk when this returns.

        action_id: a UUID of the caller's, so that a repeated request cannot make a second action.
        requester: who is said to have asked; may_claim: whether the caller may say so.
        requested_by: the name of the token. Raises what arc/actions/errors.py has above ActionFailed.
        """
        with self._counting_refusals():
            found = self.catalogue.get(kind)
            found.check_args(args)
            now_us = self._clocks.now_us()
            new = ActionRecord(
                id=rules.action_id(action_id),
                kind=kind,
                args=args,
                created_at=now_us if created_us is None else created_us,
                scheduled_at=now_us,
                touched_at=now_us,
                requester=rules.requester(requester, may_claim=may_claim),
                headers=rules.headers(headers, self.options.header_deny),
                requested_by=requested_by,
                version=self._version,
            )
            self._refuse_when_stopping()
            self._refuse_too_soon(found, new)
            record = self.store.add(new, self.options.queue_max)
        with self._changed:
            self.counters.scheduled[kind, record.requester] += 1
        log.info("action %s: %s scheduled", record.id, kind, extra={"by": requested_by})
        self._announce(record)
        self._wake.set()
        return record

    def cancel(self, action_id: str, reason: str = "") -> ActionRecord:
        """End an action that waits; ask one that runs to end itself. Raises ActionFinished, NotCancellable."""
        record, _ = self.store.get(action_id)
        if record.state is State.NEW and not record.is_begun:
            if changed := self._worker.end(record, Cancelled(reason)):
                return changed
            record, _ = self.store.get(action_id)  # the worker was faster
        if record.state.is_final:
            raise ActionFinished(record.id)
        kind = self.catalogue.find(record.kind)
        if kind is None or not kind.is_cancellable:
            raise NotCancellable(record.id, record.kind)
        self.store.ask_to_cancel(record.id, reason)
        return self.store.get(action_id)[0]

    def get(self, action_id: str) -> tuple[ActionRecord, list[HistoryItem]]:
        """A record and its history, newest event first, as of one instant. Raises ActionNotFound."""
        return self.store.get(action_id)

    def info(self, action_id: str) -> dict[str, Json]:
        """The same as clients see it: `action` and `history`, secret arguments masked."""
        return self._shown(*self.store.get(action_id))

    def changed_since(self, number: int, limit: int = 100) -> tuple[int, list[dict[str, Json]]]:
        """Copies of actions that changed after the event of this number, oldest change first, and the next number.

        Each has `info` as clients see it, `seq`, `revision`, `finished_at`. For who keeps copies: start with 0, and
        acknowledge() the number when they are stored.
        """
        number, found = self.store.changed_since(number, limit)
        copies = [
            {
                "seq": record.seq,
                "revision": record.revision,
                "finished_at": record.finished_at,
                "info": self._shown(record, history),
            }
            for record, history in found
        ]
        return number, copies

    def acknowledge(self, number: int) -> None:
        """A copy has all up to this number. From then on the clean-up spares what it does not have."""
        self.store.acknowledge(number)

    def queue(self) -> list[Summary]:
        """What has not ended, in the order of execution."""
        return self.store.queue()

    def finished(self, limit: int = 100, before: str | None = None) -> list[Summary]:
        """What has ended, last scheduled first; before: the id to go on from."""
        return self.store.finished(limit, before)

    def kinds(self) -> list[Kind]:
        """By name."""
        return list(self.catalogue)

    def wait_for_change(self, action_id: str, revision: int, timeout_s: float) -> bool:
        """Wait until an action has another revision; False when the time is over first. Raises ActionNotFound."""

        def has_changed() -> bool:
            return self._stop.is_set() or self.store.get(action_id)[0].revision != revision

        with self._changed:
            return self._changed.wait_for(has_changed, timeout_s)

    def cycle(self) -> float | None:
        """One step, for who has not started the thread. Returns the seconds until the next; None: nothing waits."""
        return self._worker.cycle()

    def prune(self) -> int:
        """Delete old finished actions, as the thread does every hour; returns how many."""
        return self._worker.prune()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause_s = self._worker.cycle()
            except Exception:  # trouble with the disk must not end the thread
                self.counters.errors += 1
                log.exception("actions: cycle failed, next in %s s", self.options.interval_s)
                pause_s = self.options.interval_s
            if pause_s is None:
                self._wake.wait(IDLE_S)
            elif pause_s > 0:
                self._stop.wait(pause_s)
        self._finish()

    def _finish(self) -> None:
        """See an action through that would be lost with the process."""
        try:
            while self._worker.must_finish():
                self._worker.background.join(self.options.interval_s)
                self._worker.cycle()
        except Exception:
            log.exception("actions: the outcome of the last step is lost")

    def _shown(self, record: ActionRecord, history: Iterable[HistoryItem]) -> dict[str, Json]:
        kind = self.catalogue.find(record.kind)
        shown = replace(record, args=schema.masked(kind.args if kind else None, record.args))
        return {"action": shown.as_dict(), "history": [item.as_dict() for item in history]}

    def _announce(self, record: ActionRecord) -> None:
        with self._changed:
            self._changed.notify_all()
        try:
            self._on_change(record)
        except Exception:
            log.exception("actions: an observer failed")

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except ArcError as refusal:
            with self._changed:
                self.counters.rejected[type(refusal).__name__] += 1
            raise

    def _refuse_when_stopping(self) -> None:
        if self._is_elsewhere:
            raise EngineElsewhere
        if self._stop.is_set():
            raise Draining

    def _refuse_too_soon(self, kind: Kind, new: ActionRecord) -> None:
        if not kind.cooldown_s or self.store.is_known(new.id):  # a repeated request is told that it was taken
            return
        last = self.store.last_scheduled_at((kind.name, *kind.aliases))
        if last is not None and 0 <= new.scheduled_at - last < kind.cooldown_s * clock.US_PER_S:
            raise InvalidArgs("args", f"at least {kind.cooldown_s:g} s since the last action of this kind")

    def _take_lock(self) -> bool:
        self._lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_fd)
            self._lock_fd = None
            return False
        return True
