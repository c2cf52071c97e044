"""Intake: what agents send, each message with its effect exactly once, in order.

POST messages -> Intake.receive -> metrics written -> one transaction: registrations, replies, confirmations and the
number of the last message -> (committed) presence, news, counters
A message that was delivered before is known by its number within the epoch of the agent's spool. Metrics are written
ahead of the transaction: a crash between the two lets the agent send them again, and their points are there twice.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from arc.errors import Denied, Invalid
from arc.fleet.messages import Fields, Registration, Reply
from arc.fleet.news import escaped
from arc.fleet.records import Execution, Known, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import sqlalchemy as sa

    from arc.db.engine import Database
    from arc.fleet.agents import AgentStore
    from arc.fleet.counters import FleetCounters
    from arc.fleet.executions import ExecutionStore
    from arc.fleet.relay import Copy, Relay

HOST_DATABASE = "host"
MAX_MESSAGES = 1000  # of one request
_LOCKS = 64


class NotTheSpeaker(Denied):
    def __init__(self, agent_id: str) -> None:
        super().__init__(f"this token does not speak for {agent_id!r}")


@dataclass(frozen=True)
class Speaker:
    """Who sends for an agent. token_id: None while access control is off. agent_id: the only one it may speak for."""

    token_id: int | None
    agent_id: str | None = None
    project: str | None = None
    organization: str | None = None

    def check(self, agent_id: str, known: Known | None) -> None:
        """known: of the agent, None while there is none of that id. Raises NotTheSpeaker."""
        if self.token_id is None or self.agent_id == agent_id:
            return
        if self.agent_id is not None or (known is not None and known.token_id != self.token_id):
            raise NotTheSpeaker(agent_id)


@dataclass
class Receipt:
    """What came of a batch. rejected: number and reason; these count as delivered. events: online, offline."""

    last_seq: int = 0
    rejected: list[tuple[int, str]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    ended: list[Execution] = field(default_factory=list)
    ended_actions: list[Copy] = field(default_factory=list)
    has_replies: bool = False
    has_actions: bool = False
    said_goodbye: bool = False
    may_report: bool = False  # an agent that nobody knows registers first


class Intake:
    """Any thread may call it. write_lines: stores line protocol in a database."""

    def __init__(
        self,
        db: Database,
        agents: AgentStore,
        executions: ExecutionStore,
        relay: Relay,
        counters: FleetCounters,
        write_lines: Callable[[bytes, str], object],
    ) -> None:
        self._db = db
        self._agents = agents
        self._executions = executions
        self._relay = relay
        self._counters = counters
        self._write_lines = write_lines
        # One batch of an agent at a time: a client that gave up waiting sends again while the first is being worked on.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._known: dict[str, Known] = {}  # by agent, guarded by its lock: a look into the database costs more

    def receive(self, agent_id: str, speaker: Speaker, epoch: str, messages: list[Any], now_us: int) -> Receipt:
        """Raises Denied, Invalid for what is no batch at all, Unavailable when the metrics cannot be written now."""
        numbered = _numbered(messages)
        with self._lock_of(agent_id):
            known = self._known.get(agent_id) or self._agents.known(agent_id)
            speaker.check(agent_id, known)
            delivered = known.last_seq if known is not None and known.epoch == epoch else 0
            receipt = Receipt(last_seq=delivered)
            fresh = [(seq, message) for seq, message in numbered if seq > delivered]
            self._store_metrics(agent_id, fresh, receipt)
            receipt.may_report = known is not None or speaker.token_id is None or speaker.agent_id == agent_id
            if fresh:  # else it was a heartbeat, or all of it had been delivered before
                self._known.pop(agent_id, None)  # until the commit: nobody knows what a failed one has left
                with self._db.transaction() as tx:
                    self._take(tx, agent_id, speaker, fresh, now_us, receipt)
                    self._agents.mark_delivered(tx, agent_id, epoch, receipt.last_seq)
                if known is not None:
                    known = replace(known, epoch=epoch, last_seq=receipt.last_seq)
            if known is not None:
                self._known[agent_id] = known
        return receipt

    def forget(self, agent_id: str) -> None:
        """Somebody else has changed what is stored of the agent."""
        with self._lock_of(agent_id):
            self._known.pop(agent_id, None)

    def _lock_of(self, agent_id: str) -> threading.Lock:
        return self._locks[hash(agent_id) % _LOCKS]

    def _store_metrics(self, agent_id: str, fresh: Iterable[tuple[int, Fields]], receipt: Receipt) -> None:
        for seq, message in fresh:
            if message.raw("type") == "metrics":
                try:
                    lines = message.text("lines").encode()
                    _check_host(lines, agent_id)
                    if lines.strip():
                        self._write_lines(lines, HOST_DATABASE)
                except Invalid as error:
                    receipt.rejected.append((seq, str(error)))

    def _take(
        self,
        tx: sa.Connection,
        agent_id: str,
        speaker: Speaker,
        fresh: Iterable[tuple[int, Fields]],
        now_us: int,
        receipt: Receipt,
    ) -> None:
        for seq, message in fresh:
            try:
                self._take_one(tx, agent_id, speaker, message, now_us, receipt)
            except Invalid as error:
                receipt.rejected.append((seq, str(error)))
            receipt.last_seq = max(receipt.last_seq, seq)
        receipt.rejected.sort()

    def _take_one(
        self, tx: sa.Connection, agent_id: str, speaker: Speaker, message: Fields, now_us: int, receipt: Receipt
    ) -> None:
        receipt.said_goodbye = False  # unless it is the last message
        kind, began_s = message.raw("type"), time.perf_counter()
        if kind in ("reply", "received", "actions") and not receipt.may_report:
            raise Invalid("the agent is not registered")
        if kind == "registration":
            self._register(tx, agent_id, speaker, message, now_us, receipt)
        elif kind == "reply":
            self._reply(tx, agent_id, message, now_us, receipt)
        elif kind == "actions":
            receipt.has_actions = True
            receipt.ended_actions += self._relay.take(tx, agent_id, message, now_us)
        elif kind == "received":
            self._executions.received(tx, agent_id, _request_ids(message), now_us)
        elif kind != "metrics":
            raise Invalid(f"unknown type of message {kind!r}")
        if kind in self._counters.messages:
            self._counters.add_message(kind, time.perf_counter() - began_s)

    def _register(
        self, tx: sa.Connection, agent_id: str, speaker: Speaker, message: Fields, now_us: int, receipt: Receipt
    ) -> None:
        registration = Registration.parse(message, agent_id)
        event = self._agents.register(
            tx,
            agent_id,
            registration,
            project=_scope("project", speaker.project, registration.project),
            organization=_scope("organization", speaker.organization, registration.organization),
            token_id=speaker.token_id,
            now_us=now_us,
        )
        receipt.may_report, receipt.said_goodbye = True, registration.is_goodbye
        if event:
            receipt.events.append(event)

    def _reply(self, tx: sa.Connection, agent_id: str, message: Fields, now_us: int, receipt: Receipt) -> None:
        reply = Reply.parse(message, agent_id)
        receipt.has_replies = True
        outcome = self._executions.reply(tx, agent_id, reply, now_us)
        if outcome.ended:
            receipt.ended.append(outcome.ended)
        if outcome.is_new and reply.is_final:
            succeeded, failed = reply.status is Status.COMPLETE, reply.status is Status.FAILED
            self._counters.add(succeeded=int(succeeded), failed=int(failed))


def _numbered(messages: list[Any]) -> list[tuple[int, Fields]]:
    """By number, as they have to take effect. Raises Invalid."""
    if len(messages) > MAX_MESSAGES:
        raise Invalid(f"at most {MAX_MESSAGES} messages at a time")
    found = [(fields.integer("seq"), fields) for fields in map(Fields, messages)]
    if any(seq < 1 for seq, _ in found):
        raise Invalid("seq must be a whole number from 1")
    return sorted(found, key=lambda pair: pair[0])


def _scope(what: str, held: str | None, said: str) -> str:
    """Project or organization of a registration: the token's own; a token without leaves it to the agent."""
    if held is not None and said not in ("", held):
        raise Invalid(f"the token is not for {what} {said!r}")
    return said if held is None else held


def _request_ids(message: Fields) -> list[str]:
    found = message.raw("request_ids")
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Invalid("request_ids must be a list of texts")
    return found[:MAX_MESSAGES]


def _check_host(lines: bytes, agent_id: str) -> None:
    """Every line has the agent's id as its only tag `host`: nobody reports for another machine. Raises Invalid."""
    tag = b",host=" + escaped(agent_id).encode()
    for number, line in enumerate(lines.splitlines(), 1):
        head = line.replace(rb"\ ", b"\0").partition(b" ")[0] + b","
        is_own = (
            tag.replace(rb"\ ", b"\0") + b"," in head and head.lower().count(b",host=") == 1
        )  # else the last counts
        if line.strip() and not line.startswith(b"#") and not is_own:
            raise Invalid(f"line {number} lacks the tag host={agent_id}")
