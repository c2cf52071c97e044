"""The fleet as one part of the server: builds what belongs together, and does what needs several of them.

Fleet(db, config, credentials, write_lines) -> start() -> .agents .executions .enrolment | post, poll, run, cancel
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arc import clock
from arc.fleet.agents import AgentStore
from arc.fleet.counters import FleetCounters
from arc.fleet.enrolment import Enrolment
from arc.fleet.executions import ExecutionStore
from arc.fleet.hub import Hub
from arc.fleet.intake import Intake
from arc.fleet.messages import MAX_PAYLOAD
from arc.fleet.news import News
from arc.fleet.places import Places
from arc.fleet.presence import Presence
from arc.fleet.relay import Relay
from arc.fleet.sweeper import Step, Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from arc.config import Config
    from arc.db.engine import Database
    from arc.fleet.enrolment import Credentials, Enrolled
    from arc.fleet.intake import Receipt, Speaker
    from arc.fleet.messages import Command
    from arc.fleet.records import Agent, Execution

DAY_US = 86_400 * clock.US_PER_S
HANDED_S = 5.0  # until what was handed out and is not confirmed is handed out again
OFFLINE_BATCH = 50  # agents of one transaction, so that others get their turn when a network falls silent
MAX_RETRY_SHARE = 0.65  # of the time after which a silent agent is offline: the longest it is sent away
SAVE_SEEN_S = 15.0
SWEEP_PAUSE_S = 5.0
SWEEP_S = 60.0  # between two passes of what is in no hurry

Message = dict[str, Any]


class Fleet:
    """Any thread may call it.

    credentials: makes the tokens of agents. write_lines: stores line protocol in a database of metrics.
    """

    def __init__(
        self, db: Database, config: Config, credentials: Credentials, write_lines: Callable[[bytes, str], object]
    ) -> None:
        self._db = db
        self._options = config.section("fleet")
        name = socket.gethostname()
        self.agents = AgentStore(db, name)
        self.executions = ExecutionStore(db, name)
        self.enrolment = Enrolment(db, credentials)
        places = Places(self._options["max_unavailable"], self._options["max_unavailable_s"])
        self.relay = Relay(db, places, lambda agent_id: self.hub.wake(agent_id))
        self.counters = FleetCounters()
        self.news = News(write_lines)
        self.presence = Presence()
        longest_s = self._options["offline_after_s"] * MAX_RETRY_SHARE
        self.hub: Hub[Message] = Hub(self._options["long_poll_slots"], longest_s, lambda: len(self.presence))
        pause_s = max(0.2, min(SWEEP_PAUSE_S, self._options["offline_after_s"] / 5))
        self.sweeper = Sweeper(self._steps(), self.counters, pause_s)
        self._handed = _Handed()
        self._intake = Intake(db, self.agents, self.executions, self.relay, self.counters, write_lines)

    def start(self) -> None:
        self.presence.begin(self.agents.online(), clock.now_us())
        self.executions.start()
        self.relay.start()
        self.sweeper.start()

    def stop_waiting(self) -> None:
        """Answer the polls that wait."""
        self.hub.close()
        self.relay.stop_waiting()

    def stop(self) -> None:
        """May be called twice."""
        self.hub.close()
        self.sweeper.stop()
        self.agents.save_seen(self.presence.unsaved())
        self.news.ship()

    # What agents do

    def post(self, agent_id: str, speaker: Speaker, epoch: str, messages: list[Any]) -> Receipt:
        """Take in a batch; any is a sign of life. Raises Denied, Invalid, Unavailable."""
        now_us = clock.now_us()
        receipt = self._intake.receive(agent_id, speaker, epoch, messages, now_us)
        if receipt.has_actions:
            self.relay.settle(agent_id, now_us)
        for event in receipt.events:
            self.news.agent(agent_id, event, now_us)
        for execution in receipt.ended:
            self.news.ended(execution)
        for action in receipt.ended_actions:
            self.news.action(agent_id, action)
        if receipt.events and receipt.events[-1] == "offline":
            self.presence.go_offline(agent_id)
        elif receipt.events:
            self.presence.come_online(agent_id, now_us)
        elif not receipt.said_goodbye:
            self._sign_of_life(agent_id, now_us)
        if receipt.has_replies:
            self.hub.keep_busy(agent_id)
        return receipt

    def poll(
        self, agent_id: str, speaker: Speaker, wait_s: float, is_gone: Callable[[], bool]
    ) -> tuple[list[Message], float]:
        """What the agent shall do, and after how many seconds to ask again. Raises Denied."""
        if not self._check_speaker(agent_id, speaker):
            return [], self.hub.retry_s()
        self._sign_of_life(agent_id, clock.now_us())
        timeout_s = min(wait_s, self._options["long_poll_s"])
        return self.hub.wait(agent_id, timeout_s, lambda: self._messages_for(agent_id), is_gone)

    def leave(self, agent_id: str, speaker: Speaker) -> None:
        """The agent stops. Raises Denied."""
        if self._check_speaker(agent_id, speaker):
            self._go_offline([agent_id], clock.now_us(), "stopped")

    def enrol(self, secret: str, identity: str) -> Enrolled:
        """Exchange an enrolment token for the credential of an agent. Raises Denied, Invalid, Conflict."""
        now_us = clock.now_us()
        enrolled = self.enrolment.exchange(secret, identity, now_us)
        self._intake.forget(enrolled.agent_id)
        self.news.agent(enrolled.agent_id, "enrolled", now_us)
        return enrolled

    # What users do

    def agent(self, agent_id: str, project: str | None = None) -> Agent:
        """With the last sign of life. Raises AgentNotFound, OtherProject."""
        return self.fresh(self.agents.get(agent_id, project))

    def fresh(self, agent: Agent) -> Agent:
        """With a sign of life that is not stored yet."""
        seen_at = self.presence.last_seen(agent.agent_id)
        return replace(agent, last_seen_at=max(agent.last_seen_at, seen_at)) if seen_at else agent

    def delete_agent(self, agent_id: str, project: str | None = None) -> None:
        """Raises AgentNotFound, OtherProject."""
        now_us = clock.now_us()
        self.agents.delete(agent_id, now_us, project)
        self._intake.forget(agent_id)
        self.presence.go_offline(agent_id)
        self.news.agent(agent_id, "deleted", now_us)

    def run(
        self, command: Command, user: dict[str, Any], project: str | None = None, deliver_within_s: int | None = None
    ) -> Execution:
        """Have a command carried out. Raises AgentNotFound, OtherProject."""
        within_s = self._options["deliver_within_s"] if deliver_within_s is None else deliver_within_s
        execution = self.executions.create(command, user, clock.now_us(), deliver_within_s=within_s, project=project)
        self.counters.add(executed=1)
        self.hub.wake(command.agent_id)
        return execution

    def cancel(self, request_id: str, project: str | None = None) -> Execution:
        """Raises ExecutionNotFound, OtherProject, Conflict when it has ended."""
        execution = self.executions.cancel(request_id, clock.now_us(), self._handed.is_on_its_way, project)
        if execution.status.is_final:
            self.news.ended(execution)
        self.hub.wake(execution.agent_id)
        return execution

    def schedule_action(self, agent_id: str, request: dict[str, Any], info: dict[str, Any]) -> None:
        """Have the engine of an agent carry out an action; see Relay.schedule."""
        self.relay.schedule(agent_id, request, info)
        self.hub.wake(agent_id)

    def ask_for_report(self, agent_id: str) -> None:
        """See Relay.ask_for_report."""
        self.relay.ask_for_report(agent_id)
        self.hub.wake(agent_id)

    def cancel_action(self, agent_id: str, action_id: str, reason: str) -> str:
        """See Relay.cancel."""
        state = self.relay.cancel(agent_id, action_id, reason, clock.now_us())
        self.hub.wake(agent_id)
        return state

    def ping(self) -> None:
        """Ask the database for nothing. Raises when it does not answer."""
        with self._db.read() as connection:
            connection.exec_driver_sql("SELECT 1")

    # Inside

    def _check_speaker(self, agent_id: str, speaker: Speaker) -> bool:
        """Whether the agent is known; for most agents that needs no look into the database."""
        if self.presence.last_seen(agent_id) is not None and speaker.agent_id == agent_id:
            return True
        known = self.agents.known(agent_id)
        speaker.check(agent_id, known)
        return known is not None

    def _sign_of_life(self, agent_id: str, now_us: int) -> None:
        if not self.presence.seen(agent_id, now_us) and self.agents.come_online(agent_id, now_us):
            self.presence.come_online(agent_id, now_us)
            self.news.agent(agent_id, "online", now_us)

    def _go_offline(self, agent_ids: list[str], now_us: int, detail: str) -> int:
        gone = self.agents.go_offline(agent_ids, now_us, detail)
        for agent_id in gone:
            self.news.agent(agent_id, "offline", now_us, detail)
        for agent_id in agent_ids:
            seen_at = self.presence.go_offline(agent_id)
            if seen_at is not None and seen_at >= now_us:  # it spoke while that was being stored
                self._sign_of_life(agent_id, seen_at)
        return len(gone)

    def _messages_for(self, agent_id: str) -> list[Message]:
        """What is to be done and was not handed out just now, as much as the agent reads; the rest is next."""
        now_us, size = clock.now_us(), 0
        found: list[Message] = []
        for execution in self.executions.pending(agent_id):
            is_cancelled = execution.cancel_requested_at is not None
            if not is_cancelled and execution.deliver_until <= now_us:
                continue  # the sweeper is about to fail it
            length = 0 if is_cancelled else len(execution.payload)
            if found and size + length > MAX_PAYLOAD:
                break
            if self._handed.may_hand(execution.request_id, cancel=is_cancelled):
                size += length
                found.append(_cancel(execution) if is_cancelled else _request(execution))
        return found + self.relay.messages(agent_id, self._handed.may_hand, now_us)

    def _steps(self) -> list[Step]:
        return [
            Step("offline", 0, self._sweep_silent),
            Step("seen", SAVE_SEEN_S, lambda _: self.agents.save_seen(self.presence.unsaved())),
            Step("unfetched", 0, lambda now_us: self._expired(self.executions.fail_unfetched(now_us))),
            Step("expired", 0, lambda now_us: self._expired(self.executions.fail_expired(now_us))),
            Step("logs", SWEEP_S, self._join_logs),
            Step("executions", SWEEP_S, lambda now_us: self.executions.prune(now_us - self._kept_us())),
            Step("actions", SWEEP_S, lambda now_us: self.relay.prune(now_us - self._kept_us())),
            Step("events", SWEEP_S, lambda now_us: self.agents.prune_events(now_us - self._kept_us())),
            Step("enrolment", SWEEP_S, self.enrolment.prune),
            Step("points", 0, lambda _: self.news.ship()),
        ]

    def _kept_us(self) -> int:
        days: float = self._options["execution_retention_days"]
        return round(days * DAY_US)

    def _sweep_silent(self, now_us: int) -> int:
        silent = self.presence.silent(now_us - round(self._options["offline_after_s"] * clock.US_PER_S))
        batches = (silent[start : start + OFFLINE_BATCH] for start in range(0, len(silent), OFFLINE_BATCH))
        return sum(self._go_offline(batch, now_us, "nothing heard") for batch in batches)

    def _expired(self, failed: list[Execution]) -> int:
        self.counters.add(expired=len(failed))
        for execution in failed:
            self.news.ended(execution)
        return len(failed)

    def _join_logs(self, now_us: int) -> int:
        sizes = self.executions.logs.aggregate(now_us)
        for size_bytes in sizes:
            self.counters.log_sizes.add(size_bytes)
        return len(sizes)


class _Handed:
    """Requests and cancellations that were handed out a moment ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[tuple[str, bool], float] = {}  # monotonic seconds, the oldest first

    def may_hand(self, request_id: str, *, cancel: bool) -> bool:
        """Whether it was not handed out just now; notes that it is."""
        now_s = time.monotonic()
        with self._lock:
            for key in [key for key, at in self._at.items() if at < now_s - 2 * HANDED_S]:
                del self._at[key]
            if now_s - self._at.get((request_id, cancel), -HANDED_S) < HANDED_S:
                return False
            self._at[request_id, cancel] = now_s
            return True

    def is_on_its_way(self, request_id: str) -> bool:
        """Whether an agent may just be getting it."""
        at = self._at.get((request_id, False))
        return at is not None and time.monotonic() - at < 2 * HANDED_S


def _request(execution: Execution) -> Message:
    return {
        "version": execution.version,
        "sender": execution.sender,
        "to": execution.agent_id,
        "request_id": execution.request_id,
        "timeout": execution.timeout_s,
        "agent": execution.plugin,
        "action": execution.action,
        "payload": execution.payload,
        "type": "request",
    }


def _cancel(execution: Execution) -> Message:
    return {"type": "cancel", "request_id": execution.request_id}
