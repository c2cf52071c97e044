"""The worker: advances one action at a time, by one invocation of its kind per cycle.

cycle: head of the queue -> begin -> Kind.invoke -> change -> the next

Three short transactions frame each invocation, none is open during it. An action that is RUNNING goes before all
others, so they never mix; the wall clock plays no part in the order. When the process dies, the next one finds the
record as it was stored last, sees from `is_begun` whether a handler was cut off, and goes on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from arc import clock
from arc.actions import schema
from arc.actions.background import Background
from arc.actions.errors import (
    ActionCrashed,
    ActionFailed,
    ActionNotAvailable,
    Deadline,
    IllegalTransition,
    Interrupted,
    InvalidArgs,
    PayloadTooLarge,
)
from arc.actions.kinds import Catalogue, Context, Kind, Outcome
from arc.actions.records import TRANSITIONS, ActionRecord, Json, State
from arc.actions.store import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from arc.actions.store import ActionStore

log = logging.getLogger(__name__)

PRUNE_INTERVAL_S = 3600.0  # seconds between two clean-ups
PRUNE_LIMIT = 500  # actions deleted by one of them, so that it never holds the queue up for long
LONG_STEP_S = 5.0  # seconds; a step that takes longer is logged
RETRY_S = (1.0, 60.0)  # seconds until an outcome that could not be stored is tried again: first and longest
UNKNOWN_KIND = "_unknown"  # how counters call a kind that is not there any more
MAX_LAYERS = 10  # causes of an error that are shown
US = clock.US_PER_S


@dataclass(frozen=True)
class EngineOptions:
    """Named as in section [actions] of the configuration.

    interval_s: between two steps of an action. queue_max: actions that may wait. keep: finished ones that are kept.
    history_max: events per action. payload_max: bytes. crash_max: how often the process may die in one step.
    id_memory_days: how long the id of a deleted action counts as used. header_deny: further headers not to keep.
    """

    interval_s: float = 1.0
    queue_max: int = 500
    keep: int = 100
    history_max: int = 1000
    payload_max: int = 65_536
    crash_max: int = 3
    id_memory_days: int = 30
    header_deny: Collection[str] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> EngineOptions:
        return cls(**{each.name: section[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Clocks:
    """now_us: wall clock, for what is stored. monotonic: seconds, for what is measured."""

    now_us: Callable[[], int] = clock.now_us
    monotonic: Callable[[], float] = time.monotonic


@dataclass
class Counters:
    """Since the start. scheduled: by kind and requester; rejected: requests to schedule by what was wrong.

    invocations, and seconds spent in them: by kind.

    finished: actions by kind, state and variant, which is empty when the kind itself reported the end.
    errors: cycles and outcomes that the disk refused.
    """

    scheduled: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    invocations: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    finished: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    pruned: int = 0
    errors: int = 0
    last_cycle_at: int = 0


@dataclass(frozen=True)
class Change:
    """What is to be stored of a step. state None: nothing has changed. payload: JSON text."""

    state: State | None
    payload: str
    pause_s: float = 0
    then: Callable[[], None] | None = None
    variant: str = ""

    @classmethod
    def failed(cls, error: BaseException, progress: Json) -> Change:
        """The end that the engine gives an action."""
        return cls(State.FAILED, _failure(error, progress), variant=type(error).__name__)


@dataclass(frozen=True)
class _Unsaved:
    record: ActionRecord
    change: Change
    error: str
    delay_s: float


class Worker:
    """Only one thread may call cycle(); on_change is told each record that has changed.

    options, catalogue: may be replaced between two steps, and by a step.
    """

    def __init__(
        self,
        store: ActionStore,
        catalogue: Catalogue,
        options: EngineOptions,
        clocks: Clocks,
        version: str,
        on_change: Callable[[ActionRecord], None],
    ) -> None:
        self.instance = f"{os.getpid()}-{os.urandom(6).hex()}"
        self.background = Background()
        self.counters = Counters()
        self.catalogue = catalogue
        self.options = options
        self._store = store
        self._clocks = clocks
        self._version = version
        self._on_change = on_change
        self._unsaved: _Unsaved | None = None
        self._last_look: tuple[int, float] = (0, 0.0)  # seq of the last step, and when it began
        self._next_prune = clocks.monotonic()

    @property
    def fault(self) -> str | None:
        """Why the outcome of a step cannot be stored; None when all is well."""
        return self._unsaved.error if self._unsaved else None

    def cycle(self) -> float | None:
        """One step of one action. Returns the seconds until the next; None when nothing is waiting."""
        self.counters.last_cycle_at = self._clocks.now_us()
        if self._unsaved:
            return self._save_again(self._unsaved)
        self._prune_when_due()
        record = self._store.head()
        return None if record is None else self._advance(record)

    def must_finish(self) -> bool:
        """Whether something of the action under way would end with this process, and its outcome be lost."""
        record = self._store.head()
        kind = self.catalogue.find(record.kind) if record else None
        return record is not None and kind is not None and kind.is_held(record.id)

    def end(self, record: ActionRecord, reason: Exception) -> ActionRecord | None:
        """Fail an action; the changed record, or None when somebody else was faster."""
        return self._transition(record, Change.failed(reason, record.payload))

    def _transition(self, record: ActionRecord, change: Change) -> ActionRecord | None:
        state = change.state or record.state
        changed = self._store.change(record, state, change.payload, self._clocks.now_us())
        if changed:
            if changed.state.is_final:
                self._note_end(changed, change.variant)
            self._on_change(changed)
        return changed

    def _note_end(self, record: ActionRecord, variant: str) -> None:
        kind = record.kind if self.catalogue.find(record.kind) else UNKNOWN_KIND
        self.counters.finished[kind, record.state.value, variant] += 1
        log.info("action %s: %s is %s", record.id, record.kind, record.state.value)

    def prune(self) -> int:
        """Delete old finished actions; returns how many."""
        now_us = self._clocks.now_us()
        expires_at = now_us + self.options.id_memory_days * 86_400 * US
        deleted = self._store.prune(self.options.keep, PRUNE_LIMIT, now_us, expires_at)
        self.counters.pruned += deleted
        if deleted:
            log.info("actions: deleted %d old ones", deleted)
        return deleted

    def _prune_when_due(self) -> None:
        if self._clocks.monotonic() >= self._next_prune:
            self._next_prune = self._clocks.monotonic() + PRUNE_INTERVAL_S
            self.prune()

    # --- one step

    def _advance(self, record: ActionRecord) -> float:
        kind = self.catalogue.find(record.kind)
        if kind is None:
            return self._give_up(record, ActionNotAvailable(record.kind))
        if refusal := self._reason_to_give_up(record, kind):
            return self._give_up(record, refusal)
        running_us = record.running_us + self._elapsed_us(record)
        self._last_look = (record.seq, self._clocks.monotonic())
        if not self._store.begin(record, record.crashes + record.is_begun, running_us, self._clocks.now_us()):
            return 0  # cancelled this very moment
        is_late = 0 < kind.deadline_s * US < running_us
        change = self._invoke(kind, self._context(record, kind, running_us, is_late), record)
        record = replace(record, is_begun=True)
        if is_late and change.state is not State.DONE:
            change = Change.failed(Deadline(kind.deadline_s), record.payload)
        return self._save(record, change)

    def _give_up(self, record: ActionRecord, reason: Exception) -> float:
        return self._save(record, Change.failed(reason, record.payload))

    def _reason_to_give_up(self, record: ActionRecord, kind: Kind) -> Exception | None:
        """Why this action fails without being invoked."""
        if record.is_begun:
            log.warning("actions: the process died in a step of %s", record.id, extra={"kind": record.kind})
            if record.crashes + 1 > self.options.crash_max:
                return ActionCrashed(record.crashes + 1)
            if kind.on_crash == "fail":
                return Interrupted()
        if record.invocations == 0 and record.version != self._version:
            try:
                kind.check_args(record.args)
            except InvalidArgs as error:
                return error
        return None

    def _elapsed_us(self, record: ActionRecord) -> int:
        """Time since the last step of this action began; over a restart by the wall clock, where that went forward."""
        seq, at = self._last_look
        if seq == record.seq:
            return int((self._clocks.monotonic() - at) * US)
        return max(0, self._clocks.now_us() - record.touched_at) if record.invocations else 0

    def _context(self, record: ActionRecord, kind: Kind, running_us: int, is_late: bool) -> Context:
        return Context(
            id=record.id,
            kind=record.kind,
            args=schema.with_defaults(kind.args, record.args),
            headers=record.headers,
            state=record.state,
            payload=record.payload,
            now_us=self._clocks.now_us(),
            instance=self.instance,
            attempt=record.invocations + 1,
            running_s=running_us / US,
            is_recovered=record.is_begun,
            cancel_reason="the time is over" if is_late else record.cancel_reason,
            interval_s=self.options.interval_s,
            background=self.background.run,
        )

    def _invoke(self, kind: Kind, context: Context, record: ActionRecord) -> Change:
        began = self._clocks.monotonic()
        try:
            return self._checked(record, kind.invoke(context))
        except (Exception, SystemExit) as error:  # a handler must not end the thread
            if not isinstance(error, ActionFailed):
                log.exception("actions: %s raised", kind.name, extra={"action": record.id})
            return Change.failed(error, context.progress)
        finally:
            took_s = self._clocks.monotonic() - began
            self.counters.invocations[kind.name] += 1
            self.counters.seconds[kind.name] += took_s
            if took_s > LONG_STEP_S:
                log.warning("actions: a step of %s took %.1f s", kind.name, took_s, extra={"action": record.id})

    def _checked(self, record: ActionRecord, outcome: Outcome | None) -> Change:
        """The change an outcome asks for. Raises IllegalTransition, PayloadTooLarge, TypeError, ValueError."""
        if outcome is None:
            if record.state is State.RUNNING:
                return Change(None, "", self.options.interval_s)
            outcome = Outcome(State.RUNNING, record.payload)  # what has begun is not shown as waiting
        if outcome.state not in TRANSITIONS[record.state]:
            raise IllegalTransition(record.state, outcome.state)
        payload = encode(outcome.payload)
        if len(payload) > self.options.payload_max:
            raise PayloadTooLarge(len(payload), self.options.payload_max)
        pause_s = self.options.interval_s if outcome.pause_s is None else outcome.pause_s
        return Change(outcome.state, payload, 0 if outcome.state.is_final else pause_s, outcome.then)

    # --- its outcome

    def _save(self, record: ActionRecord, change: Change) -> float:
        try:
            return self._settle(record, change)
        except sqlite3.Error as error:
            log.error("actions: the outcome of %s cannot be stored yet: %s", record.id, error)
            self.counters.errors += 1
            self._unsaved = _Unsaved(record, change, str(error), RETRY_S[0])
            return RETRY_S[0]

    def _save_again(self, unsaved: _Unsaved) -> float:
        """The handler is not invoked again meanwhile: it did its work."""
        try:
            pause_s = self._settle(unsaved.record, unsaved.change)
        except sqlite3.Error as error:
            delay_s = min(unsaved.delay_s * 2, RETRY_S[1])
            self._unsaved = replace(unsaved, error=str(error), delay_s=delay_s)
            return delay_s
        self._unsaved = None
        return pause_s

    def _settle(self, record: ActionRecord, change: Change) -> float:
        if change.state is None:
            self._store.settle(record, self._clocks.now_us())
            return change.pause_s
        changed = self._transition(record, change)
        if changed is None:
            log.error("actions: %s was changed by somebody else; the outcome is dropped", record.id)
        elif change.then:
            self._follow_up(changed, change.then)
        return change.pause_s

    def _follow_up(self, record: ActionRecord, then: Callable[[], None]) -> None:
        try:
            then()
        except Exception as error:
            log.exception("actions: %s failed", record.kind, extra={"action": record.id})
            if not record.state.is_final:
                self.end(record, error)


def _failure(error: BaseException, progress: Json) -> str:
    """The payload of an action that the engine ends: what went wrong, and how far it had come."""
    layers: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(layers) < MAX_LAYERS:
        layers.append(str(cause) or type(cause).__name__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    payload = {"error": layers[0], "layers": layers, "trace": None, "variant": type(error).__name__}
    with suppress(TypeError, ValueError):  # the progress may be what was no JSON
        return encode(payload | {"progress": progress})
    return encode(payload | {"progress": None})
