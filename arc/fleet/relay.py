"""Relay: actions of agents by way of the server, which agents ask and nobody can call.

schedule -> row PENDING -> messages (at the agent's next poll, until it has answered) -> take: answer, copies, report
-> (committed) settle: wakes who waits for a change or for a place (places.py)
What an agent says of its own actions wins, but what has ended stays as it is. Between two reports the server shows
the last one. Source: the actions specification, section 9.5.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import bindparam, delete, func, insert, select, update

from arc import clock
from arc.db.fleet_tables import agent_actions, agent_nodes
from arc.errors import Conflict, Invalid, NotFound, Unavailable
from arc.fleet.messages import Fields
from arc.fleet.untold import Untold
from arc.fleet.values import refuse_nul

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import sqlalchemy as sa

    from arc.db.engine import Database
    from arc.fleet.places import Places

PENDING, LOST = "PENDING", "LOST"  # beside NEW, RUNNING, DONE, FAILED of the agents
SHOWN = {PENDING: "NEW", LOST: "FAILED"}  # what clients are told
STATES = ("NEW", "RUNNING", "DONE", "FAILED")
ENDED = ("DONE", "FAILED")
PASSING = ("QueueFull", "Draining", "EngineElsewhere", "Unavailable")  # refusals that a later try may not meet
MAX_ATTEMPTS = 10
MAX_ID = 36  # characters, of a UUID
ASK_PAUSE_S = 5.0  # seconds between two requests to an agent to report
MAX_WAITING = 500  # actions that an agent has yet to be told of
MAX_TOLD = 64  # of them at a time; each may have arguments of 256 KB, and an agent reads answers up to 32 MB

Message = dict[str, Any]
Json = Any

_C = agent_actions.c
_ONE = select(agent_actions).where(_C.agent_id == bindparam("agent"), _C.action_id == bindparam("action"))
_UNTOLD = (_C.request.is_not(None)) | (_C.cancel_reason.is_not(None))
_WAITING = select(agent_actions).where(_C.agent_id == bindparam("agent"), _UNTOLD).order_by(_C.number).limit(MAX_TOLD)
_WAITING_COUNT = select(func.count()).select_from(agent_actions).where(_C.agent_id == bindparam("agent"), _UNTOLD)
_QUEUE = (
    select(_C.kind, _C.action_id, _C.state)
    .where(_C.agent_id == bindparam("agent"), _C.finished_at.is_(None))
    .order_by(_C.state != "RUNNING", _C.seq.is_(None), _C.seq, _C.number)
)
_FINISHED = (
    select(_C.kind, _C.action_id, _C.state)
    .where(_C.agent_id == bindparam("agent"), _C.finished_at.is_not(None))
    .order_by(_C.finished_at.desc(), _C.number.desc())
)
_COUNT = (
    select(func.count())
    .select_from(agent_actions)
    .where(_C.agent_id == bindparam("agent"), _C.finished_at.is_not(None))
)
_HAND = update(agent_actions).where(_C.number == bindparam("row")).values(handed_at=bindparam("at"))
_REPORT = select(agent_nodes.c.report, agent_nodes.c.observed_at).where(agent_nodes.c.agent_id == bindparam("agent"))


class MayHand(Protocol):
    """Whether something was not handed out just now."""

    def __call__(self, request_id: str, *, cancel: bool) -> bool: ...


class ActionNotFound(NotFound):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"no action with id {action_id[:60]!r}")


class ActionAlreadyExists(Conflict):
    def __init__(self, action_id: str, kind: str, state: str) -> None:
        super().__init__(f"an action with id {action_id!r} was scheduled before")
        self.details = {"existing": {"id": action_id, "kind": kind, "state": state}}


class ActionFinished(Conflict):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"action {action_id!r} has ended")


class QueueFull(Unavailable):
    def __init__(self, agent_id: str) -> None:
        super().__init__(f"{MAX_WAITING} actions wait for {agent_id!r} already", retry_after_s=5)


@dataclass(frozen=True)
class Copy:
    """An action as its agent reported it. seq: its place in the agent's order; info: as clients see it."""

    action_id: str
    kind: str
    state: str
    seq: int
    revision: int
    finished_at: int | None
    info: dict[str, Json]

    @classmethod
    def parse(cls, raw: Any) -> Copy:
        """Raises Invalid."""
        fields = Fields(raw, "each copy")
        info = fields.raw("info")
        action = Fields(info.get("action") if isinstance(info, dict) else None, "the action of a copy")
        copy = cls(
            action.text("id"),
            action.text("kind"),
            action.text("state"),
            fields.integer("seq"),
            fields.integer("revision"),
            fields.optional_integer("finished_at"),
            info,
        )
        if copy.state not in STATES or (copy.state in ENDED) != (copy.finished_at is not None):
            raise Invalid("the state of a copy does not do")
        if not 1 <= len(copy.action_id) <= MAX_ID or not 0 <= copy.revision < 2**31:
            raise Invalid("the id or the revision of a copy does not do")
        return copy


class Relay:
    """Any thread may call it. wake: has an agent that waits for work ask for it."""

    def __init__(self, db: Database, places: Places, wake: Callable[[str], None]) -> None:
        self._db = db
        self._places = places
        self._wake = wake
        self._lock = threading.Lock()
        self._watchers: list[tuple[str, threading.Event]] = []  # of whose actions, and what to set at a change
        self._is_stopping = False
        self._untold = Untold()
        self._wanted: set[str] = set()  # agents that shall report
        self._asked_at: dict[str, float] = {}  # when that was asked for last, in monotonic seconds

    def start(self) -> None:
        with self._db.read() as connection:
            self._untold.add(*connection.scalars(select(_C.agent_id).where(_UNTOLD).distinct()))

    def stop_waiting(self) -> None:
        """Nobody waits for a change from now on."""
        self._is_stopping = True
        self._notify(None)

    def ask_for_report(self, agent_id: str) -> None:
        """Have an agent tell everything again, of which nothing is known although somebody wants to know it."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._asked_at.get(agent_id, -ASK_PAUSE_S) >= ASK_PAUSE_S:  # who wants to know asks often
                self._asked_at[agent_id] = now_s
                self._wanted.add(agent_id)

    def schedule(self, agent_id: str, request: dict[str, Json], info: dict[str, Json]) -> None:
        """Have an agent told. request: what it needs; info: what clients see until it reports.

        Raises ActionAlreadyExists, QueueFull.
        """
        values = {"agent_id": agent_id, "action_id": request["id"], "kind": request["kind"], "state": PENDING}
        values |= {"revision": 0, "attempts": 0, "info": _text(info), "request": _text(request)}
        with self._db.transaction() as tx:
            if row := tx.execute(_ONE, {"agent": agent_id, "action": request["id"]}).first():
                raise ActionAlreadyExists(row.action_id, row.kind, shown(row.state))
            if (tx.scalar(_WAITING_COUNT, {"agent": agent_id}) or 0) >= MAX_WAITING:
                raise QueueFull(agent_id)
            tx.execute(insert(agent_actions), values)
        self._untold.add(agent_id)

    def cancel(self, agent_id: str, action_id: str, reason: str, now_us: int) -> str:
        """End an action the agent cannot have, else have the agent told. Returns the state it is in then.

        Raises ActionNotFound, ActionFinished, Invalid.
        """
        refuse_nul("reason", reason)
        with self._db.transaction() as tx:
            row = _one(tx, agent_id, action_id)
            if row.finished_at is not None:
                raise ActionFinished(row.action_id)
            is_here = row.state == PENDING and row.handed_at is None
            if is_here:
                _end(tx, row, "Cancelled", f"cancelled: {reason}" if reason else "cancelled", now_us)
            else:
                tx.execute(update(agent_actions).where(_C.number == row.number).values(cancel_reason=reason))
        if is_here:
            self.settle(agent_id, now_us)
            return "CANCELLED"
        self._untold.add(agent_id)
        return shown(row.state)

    def messages(self, agent_id: str, may_hand: MayHand, now_us: int) -> list[Message]:
        """What the agent is to be told."""
        found: list[Message] = []
        if agent_id in self._wanted:
            found.append({"type": "action", "op": "report", "id": ""})
            with self._lock:
                self._wanted.discard(agent_id)

        def hand_over() -> list[Any]:
            with self._db.transaction() as tx:
                rows = list(tx.execute(_WAITING, {"agent": agent_id}))
                found.extend(self._hand_over(tx, rows, may_hand, now_us))
                return rows

        self._untold.look(agent_id, hand_over)
        return found

    def take(self, tx: sa.Connection, agent_id: str, message: Fields, now_us: int) -> list[Copy]:
        """Take in what an agent says; returns the actions that have ended by it. Raises Invalid."""
        if (report := message.raw("node")) is not None:
            _keep_report(tx, agent_id, report, now_us)
        for answer in _list(message, "answers"):
            _settle(tx, agent_id, Fields(answer, "each answer"), now_us)
        copies = [Copy.parse(raw) for raw in _list(message, "copies")]
        changed = [copy for copy in copies if _keep(tx, agent_id, copy, now_us)]
        if (known := message.raw("known")) is not None:
            _lose(tx, agent_id, known, now_us)
        return [copy for copy in changed if copy.finished_at is not None]

    def settle(self, agent_id: str, now_us: int) -> None:
        """After something about an agent's actions was stored: wake who waits for it."""
        self._notify(agent_id)
        if not self._places.is_contended:
            return
        with self._db.read() as connection:
            waiting = self._places.next_in_line(connection, now_us)
        for each in waiting:
            self._wake(each)

    def wait_for_change(self, agent_id: str, action_id: str, revision: int, timeout_s: float) -> None:
        """Until an action has another revision, or the time is over. Raises ActionNotFound."""
        watcher = agent_id, threading.Event()
        until_s = time.monotonic() + timeout_s
        with self._lock:
            self._watchers.append(watcher)
        try:
            # A look at the database follows each report of the agent only.
            while not self._is_stopping and self.info(agent_id, action_id)[1] == revision:
                if not watcher[1].wait(until_s - time.monotonic()):
                    break
                watcher[1].clear()
        finally:
            with self._lock:
                self._watchers.remove(watcher)

    def report(self, agent_id: str) -> tuple[dict[str, Json], int] | None:
        """What the agent said of itself, and when; None when it never did."""
        with self._db.read() as connection:
            row = connection.execute(_REPORT, {"agent": agent_id}).first()
        return None if row is None else (json.loads(row.report), row.observed_at)

    def queue(self, agent_id: str) -> list[dict[str, str]]:
        """What has not ended, in the order of execution as far as it is known."""
        with self._db.read() as connection:
            return [_summary(row) for row in connection.execute(_QUEUE, {"agent": agent_id})]

    def finished(self, agent_id: str, limit: int, before: str | None) -> tuple[list[dict[str, str]], int]:
        """What has ended, the last first, and how much of it there is."""
        with self._db.read() as connection:
            total = connection.scalar(_COUNT, {"agent": agent_id}) or 0
            rows = connection.execute(_FINISHED, {"agent": agent_id}).all()
        places = [place for place, row in enumerate(rows) if row.action_id == before]
        start = places[0] + 1 if places else 0
        return [_summary(row) for row in rows[start : start + limit]], total

    def info(self, agent_id: str, action_id: str) -> tuple[dict[str, Json], int]:
        """An action as clients see it, and its revision. Raises ActionNotFound."""
        with self._db.read() as connection:
            row = _one(connection, agent_id, action_id)
        return json.loads(row.info), row.revision

    def prune(self, before_us: int) -> int:
        """Forget copies of what ended before."""
        with self._db.transaction() as tx:
            return tx.execute(delete(agent_actions).where(_C.finished_at < before_us)).rowcount

    def _hand_over(self, tx: sa.Connection, rows: Iterable[Any], may_hand: MayHand, now_us: int) -> Iterator[Message]:
        is_held = False  # and all that comes after it: the agent gets its actions in order
        for row in rows:
            if row.request is not None:
                is_held = is_held or self._places.must_wait(tx, row, now_us)
                if not is_held and may_hand(row.action_id, cancel=False):
                    if row.handed_at is None:
                        tx.execute(_HAND, {"row": row.number, "at": now_us})
                    yield {"type": "action", "op": "schedule", **json.loads(row.request)}
            if row.cancel_reason is not None and may_hand(row.action_id, cancel=True):
                yield {"type": "action", "op": "cancel", "id": row.action_id, "reason": row.cancel_reason}

    def _notify(self, agent_id: str | None) -> None:
        with self._lock:
            for watched, changed in self._watchers:
                if agent_id in (None, watched):
                    changed.set()


def shown(state: str) -> str:
    return SHOWN.get(state, state)


def _one(connection: sa.Connection, agent_id: str, action_id: str) -> Any:
    row = connection.execute(_ONE, {"agent": agent_id, "action": action_id.lower()}).first()
    if row is None:
        raise ActionNotFound(action_id)
    return row


def _keep_report(tx: sa.Connection, agent_id: str, report: Any, now_us: int) -> None:
    if not isinstance(report, dict):
        raise Invalid("node must be a JSON object")
    tx.execute(delete(agent_nodes).where(agent_nodes.c.agent_id == agent_id))
    tx.execute(insert(agent_nodes), {"agent_id": agent_id, "report": _text(report), "observed_at": now_us})


def _settle(tx: sa.Connection, agent_id: str, answer: Fields, now_us: int) -> None:
    """What the agent says to something it was told. One that it has already is one it has accepted."""
    row = tx.execute(_ONE, {"agent": agent_id, "action": answer.text("id")}).first()
    if row is None:
        return
    this = update(agent_actions).where(_C.number == row.number)
    if answer.text("op") == "cancel":
        tx.execute(this.values(cancel_reason=None))
        return
    error = answer.raw("error")
    if error is None:
        tx.execute(this.values(request=None))
        return
    fields = Fields(error, "the error of an answer")
    if fields.text("kind") == "ActionAlreadyExists":
        tx.execute(this.values(request=None))
    elif row.state == PENDING and fields.text("kind") in PASSING and row.attempts + 1 < MAX_ATTEMPTS:
        tx.execute(this.values(attempts=row.attempts + 1))
    elif row.state == PENDING:
        _end(tx, row, fields.text("kind", "Refused"), fields.text("message", "refused by the agent"), now_us)


def _keep(tx: sa.Connection, agent_id: str, copy: Copy, now_us: int) -> bool:
    """Whether the copy was news. What was lost and is there again goes on."""
    row = tx.execute(_ONE, {"agent": agent_id, "action": copy.action_id}).first()
    values = {"seq": copy.seq, "revision": copy.revision, "kind": copy.kind, "state": copy.state}
    values |= {"finished_at": copy.finished_at, "info": _text(copy.info), "request": None, "handed_at": now_us}
    if row is None:
        tx.execute(insert(agent_actions), {"agent_id": agent_id, "action_id": copy.action_id, "attempts": 0, **values})
        return True
    if row.state in ENDED or (row.revision >= copy.revision and row.state != LOST):
        return False
    tx.execute(update(agent_actions).where(_C.number == row.number).values(**values))
    return True


def _lose(tx: sa.Connection, agent_id: str, known: Any, now_us: int) -> None:
    """End what the agent had and does not know any more. known: ids of all that it has."""
    if not isinstance(known, list):
        raise Invalid("known must be a list of ids")
    had = select(agent_actions).where(_C.agent_id == agent_id, _C.seq.is_not(None), _C.finished_at.is_(None))
    kept = set(known)
    for row in tx.execute(had).all():
        if row.action_id not in kept:
            _end(tx, row, "Lost", "the agent does not know this action any more", now_us, LOST)


def _end(tx: sa.Connection, row: Any, variant: str, text: str, now_us: int, state: str = "FAILED") -> None:
    """Fail an action on the server's side."""
    info = json.loads(row.info)
    at = clock.rfc3339(now_us - now_us % clock.US_PER_S)
    payload = {"error": text, "layers": [text], "trace": None, "variant": variant,
               "progress": info["action"]["state_payload"]}  # fmt: skip
    event = {"action_id": row.action_id, "timestamp": at, "state": "FAILED", "state_payload": payload}
    info["action"] |= {"state": "FAILED", "finished_ts": at, "state_payload": payload}
    info["history"] = [event, *info["history"]]
    changed = {"state": state, "finished_at": now_us, "info": _text(info), "request": None, "cancel_reason": None}
    tx.execute(update(agent_actions).where(_C.number == row.number).values(**changed, revision=row.revision + 1))


def _list(message: Fields, name: str) -> Iterable[Any]:
    found = message.raw(name) or []
    if not isinstance(found, list):
        raise Invalid(f"{name} must be a list")
    return found


def _summary(row: Any) -> dict[str, str]:
    return {"kind": row.kind, "id": row.action_id, "state": shown(row.state)}


def _text(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
