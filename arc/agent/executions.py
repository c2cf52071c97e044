"""Executions: requests of the server, each in a thread of its own, with a reply for all that becomes of it.

accept -> journal -> thread: plug-in -> heartbeat, output, ... -> complete | failed
cancel -> the thread's task is stopped -> failed, `cancelled`
Source: the remote agents specification, sections 6.3, 6.4 and 7.2.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from arc import clock
from arc.agent import processes
from arc.agent.errors import ActionFailed
from arc.agent.spool import SpoolFailed
from arc.agent.task import COMPLETE, EXECUTING, FAILED, Owner, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.agent.journal import Journal
    from arc.agent.plugins import Plugin

log = logging.getLogger(__name__)

MAX_TIMEOUT_S = 86_400
MAX_TEXT = 65_536  # characters of one reply
DISK_FULL_S = 1.0  # between two tries to spool a reply


def carry_out(task: Task, plugins: Mapping[str, Plugin], plugin: str, action: str) -> tuple[str, str]:
    """State and last text of an execution. Never raises but for what ends the program."""
    try:
        if plugin not in plugins:
            raise ActionFailed("Agent not found\n")
        state, text = COMPLETE, plugins[plugin].find(action)(task) or ""
    except ActionFailed as error:
        state, text = FAILED, str(error)
    except Exception as error:
        log.exception("%s/%s failed", plugin, action)
        state, text = FAILED, f"{type(error).__name__}: {error}"
    if task.stopped_with:
        return FAILED, task.stopped_with
    return state, text


class Executions(Owner):
    """Any thread may call it."""

    def __init__(self, journal: Journal, plugins: Mapping[str, Plugin], identity: str, has_room: Callable[[], bool]):
        self._journal = journal
        self._plugins = plugins
        self._identity = identity
        self._has_room = has_room
        self._lock = threading.Condition()
        self._running: dict[str, tuple[Task, str, str]] = {}  # with plug-in and action, by request id
        self._is_closed = False

    def recover(self) -> None:
        """End what the agent was doing when it was killed."""
        for left in self._journal.unfinished():
            groups = processes.kill_strays(left.request_id, left.pid, left.process_start)
            processes.remove_files(left.request_id)
            log.warning("job %s was cut off; stopped %d process groups of it", left.request_id, groups)
            fields = self._fields(left.plugin, left.action, FAILED, "agent was restarted")
            self._journal.reply(left.request_id, fields | {"ended_at": clock.now_us()}, is_final=True)

    def accept(self, message: Mapping[str, Any]) -> None:
        """Begin with a request; one that was here before is only confirmed. Raises SpoolFailed."""
        try:
            request_id, timeout_s, plugin, action, payload = _checked(message)
        except ValueError as error:
            log.warning("a request is dropped: %s", error)
            return
        with self._lock:
            if self._is_closed or not self._journal.accept(request_id, plugin, action):
                return
            task = Task(request_id, payload, timeout_s, self)
            self._running[request_id] = (task, plugin, action)
        log.info("job %s: %s/%s begins", request_id, plugin, action)
        name, args = f"job-{request_id[:8]}", (task, plugin, action)
        threading.Thread(target=self._work, args=args, name=name, daemon=True).start()

    def cancel(self, request_id: str) -> None:
        """Stop an execution. One that never came here has ended before it began. Raises SpoolFailed."""
        with self._lock:
            if found := self._running.get(request_id):
                found[0].stop("cancelled")
            elif self._journal.accept(request_id, "agent", "cancel"):
                self._journal.reply(request_id, self._fields("agent", "cancel", FAILED, "cancelled"), is_final=True)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether nothing runs any more."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, timeout_s)

    def close_when_idle(self) -> bool:
        """From the moment nothing runs, nothing begins. Whether that is so."""
        with self._lock:
            self._is_closed = not self._running
            return self._is_closed

    def stop_all(self, text: str, timeout_s: float, *, abandon: bool = False) -> None:
        """End what runs; nothing begins any more. abandon: at once, without replies."""
        with self._lock:
            self._is_closed = True
            for task, _, _ in self._running.values():
                task.stop(text, abandon=abandon)
        if not self.wait_idle(timeout_s):
            log.warning("%d jobs did not stop in time", len(self._running))

    def report(self, task: Task, state: str, text: str) -> None:
        """Spool a reply; a disk that is full holds the execution up."""
        if task.is_abandoned:
            return
        _, plugin, action = self._running[task.request_id]
        fields = self._fields(plugin, action, state, text)
        if task.started_at:
            fields["started_at"] = task.started_at
        if state != EXECUTING:
            fields["ended_at"] = clock.now_us()
            if task.exit_code is not None:
                fields["exit_code"] = task.exit_code
        while True:
            try:
                self._journal.reply(task.request_id, fields, is_final=state != EXECUTING)
            except SpoolFailed as error:
                log.error("job %s: %s", task.request_id, error)
                time.sleep(DISK_FULL_S)
            else:
                return

    def started(self, task: Task, pid: int, process_start: str) -> None:
        try:
            self._journal.started(task.request_id, pid, process_start)
        except SpoolFailed as error:  # the mark in its environment is enough on most systems
            log.error("job %s: %s", task.request_id, error)

    def has_room(self) -> bool:
        return self._has_room()

    def _work(self, task: Task, plugin: str, action: str) -> None:
        try:
            state, text = carry_out(task, self._plugins, plugin, action)
            while len(text) > MAX_TEXT:
                self.report(task, EXECUTING, text[:MAX_TEXT])
                text = text[MAX_TEXT:]
            self.report(task, state, text)
            log.info("job %s: %s", task.request_id, "abandoned" if task.is_abandoned else state)
        except Exception:
            log.exception("job %s is lost", task.request_id)
        finally:
            with self._lock:
                del self._running[task.request_id]
                task.close()
                self._lock.notify_all()

    def _fields(self, plugin: str, action: str, state: str, text: str) -> dict[str, Any]:
        return {"sender": self._identity, "agent": plugin, "action": action, "state": state, "payload": text}


def _checked(message: Mapping[str, Any]) -> tuple[str, int, str, str, str]:
    """Request id, time limit, plug-in, action and payload. Raises ValueError; section 6.3."""
    valid = {
        "version": _is_int(message.get("version")) and message["version"] >= 1,
        "sender": _is_text(message.get("sender")),
        "to": _is_text(message.get("to")),
        "request_id": _is_text(message.get("request_id")),
        "timeout": _is_int(message.get("timeout")) and 1 <= message["timeout"] <= MAX_TIMEOUT_S,
        "agent": _is_text(message.get("agent")),
        "action": _is_text(message.get("action")),
    }
    for name, is_valid in valid.items():
        if not is_valid:
            raise ValueError(f"attribute '{'requestID' if name == 'request_id' else name}' is missing or invalid")
    payload = message.get("payload")
    if not isinstance(payload, str | None):
        raise ValueError("attribute 'payload' is missing or invalid")
    return message["request_id"], message["timeout"], message["agent"], message["action"], payload or ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_int(value: Any) -> bool:
    return type(value) is int
