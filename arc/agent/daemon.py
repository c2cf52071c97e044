"""Daemon: builds the parts of the agent, starts them in order, waits for a signal, stops them in reverse.

SIGTERM: what runs may finish, new requests are still served until nothing runs. SIGINT: at once.
SIGHUP: the configuration is read again, unless a terminal ends.
One agent at a time has a state directory; the lock file in it holds its process id.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from arc import __version__, clock
from arc.agent import facts, plugins
from arc.agent.client import Client, Refused
from arc.agent.executions import Executions
from arc.agent.journal import Journal
from arc.agent.link import Link
from arc.agent.sampler import SamplerLoop, sampler_of
from arc.agent.spool import Spool, SpoolFailed
from arc.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    from arc.agent.config import Settings
    from arc.agent.node import AgentNode
    from arc.loop import PeriodicLoop

log = logging.getLogger(__name__)

LOCK_NAME, SPOOL_NAME = "agent.lock", "spool.db"
DRAIN_S = 5.0  # seconds a stop spends on delivering what is spooled
KILL_S = 5.0  # seconds executions get to end when they are told to
LOOK_S = 0.1  # how often a graceful stop looks whether something runs
PRUNE_S = 3600.0


class Agent:
    """One agent; run() returns when it was told to stop. read: the options as they are now."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        settings.require_server()
        self._settings = settings
        self._is_restarting = False
        self._signals: list[int] = []
        self._woken, self._wake = os.pipe()  # locks are not for signal handlers
        self._spool = Spool(
            os.path.join(settings.state_dir, SPOOL_NAME), settings.identity, settings.spool_size * 2**20
        )
        self._journal = Journal(self._spool)
        self._plugins = plugins.load(settings.plugin_dir)
        self._executions = Executions(self._journal, self._plugins, settings.identity, lambda: self._spool.has_room)
        self._facts = facts.FactLoop(self._spool, settings, facts.groups(settings, self._plugins))
        self._client = Client(settings.server, settings.token, settings.identity, settings.ca_cert)
        handlers = {
            "request": self._executions.accept,
            "cancel": lambda message: self._executions.cancel(str(message.get("request_id"))),
            "action": self._refuse_action,
        }
        self._node: AgentNode | None = None
        if settings.actions:
            from arc.actions.host import Host
            from arc.agent.node import AgentNode

            able = Host(
                version=__version__,
                node_id=settings.identity,
                restart=self.restart,
                drain=lambda: self._executions.wait_idle(0),
                refresh_facts=self._facts.refresh,
            )
            self._node = AgentNode(settings, self._spool, able, read)
            handlers["action"] = self._node.handle
        self._link = Link(self._client, self._spool, handlers, settings.poll_time, self._facts.register_online)
        self._loops: list[PeriodicLoop] = [self._facts]

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)
        if not os.isatty(0):  # the end of a terminal ends what was started there
            signal.signal(signal.SIGHUP, self._note_signal)
        self._executions.recover()
        self._facts.register_online()
        if self._settings.metrics_interval and (sampler := sampler_of(self._settings.identity)):
            self._loops.append(SamplerLoop(self._spool, sampler, self._settings.metrics_interval))
        for loop in self._loops:
            loop.start()
        self._link.start()
        if self._node:
            self._node.start()
        log.info("agent %s talks to %s", self._settings.identity, self._settings.server)
        try:
            self._wait()
            self._stop()
        finally:
            self._spool.close()

    def _refuse_action(self, message: Mapping[str, Any]) -> None:
        """While actions are switched off; or what is scheduled for this machine would wait for ever."""
        op, action_id = str(message.get("op")), str(message.get("id"))
        error = {"kind": "ActionsDisabled", "message": "actions are switched off on this machine"}
        if op != "report":
            self._spool.append("actions", {"answers": [{"op": op, "id": action_id, "error": error}]})

    def restart(self) -> None:
        """Have the agent stop in good order and begin anew; returns at once."""
        self._is_restarting = True
        os.write(self._wake, b"x")

    @property
    def shall_restart(self) -> bool:
        """Once it has stopped. Who told it to stop meanwhile gets what he wants."""
        return self._is_restarting and not self._is_told_to_stop

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        os.write(self._wake, b"x")

    @property
    def _is_told_to_stop(self) -> bool:
        return signal.SIGTERM in self._signals or signal.SIGINT in self._signals

    @property
    def _is_urgent(self) -> bool:
        return signal.SIGINT in self._signals

    def _wait(self) -> None:
        """Until it has to stop. Meanwhile the journal is kept short."""
        while not self._is_restarting and not self._is_told_to_stop:
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._reload()
            with suppress(SpoolFailed):
                self._journal.prune(clock.now_us())
            if select.select([self._woken], [], [], PRUNE_S)[0]:
                os.read(self._woken, 1)

    def _reload(self) -> None:
        if self._node:
            self._node.engine.ask_to_reload()
        else:
            log.error("actions are off, so the configuration is read at the start only")

    def _stop(self) -> None:
        log.info("stopping%s", " at once" if self._is_urgent else " when nothing runs any more")
        deadline = time.monotonic() + self._settings.stop_timeout
        while not self._is_urgent and time.monotonic() < deadline:
            if self._executions.close_when_idle():
                break
            self._executions.wait_idle(LOOK_S)
        self._link.stop_polling()
        if self._node:
            self._node.stop(0.0 if self._is_urgent else deadline - time.monotonic())
        self._executions.stop_all("agent was stopped", KILL_S, abandon=self._is_urgent)
        for loop in reversed(self._loops):
            loop.stop(1.0)
        self._link.stop(0.0 if self._is_urgent else DRAIN_S)
        if not self._link.is_down:
            self._say_goodbye()
        log.info("stopped")

    def _say_goodbye(self) -> None:
        """On a connection of its own: the others may be in the middle of something."""
        settings = self._settings
        client = Client(settings.server, settings.token, settings.identity, settings.ca_cert)
        try:
            client.say_goodbye()
        except (OSError, Refused) as error:
            log.warning("could not say goodbye: %s", error)
        finally:
            client.close()


def hold_lock(state_dir: str) -> int:
    """Descriptor of the lock, held until it is closed. Raises Unavailable when another agent has it, ConfigError."""
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(state_dir, LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use {state_dir}: {error.strerror}; choose another --install-dir") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unavailable(f"an agent runs in {state_dir} already") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def holder(state_dir: str) -> int | None:
    """Process id of the agent that runs there; None when none does. Raises OSError when nobody can tell."""
    descriptor = os.open(os.path.join(state_dir, LOCK_NAME), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return int(os.read(descriptor, 20) or b"0") or None
    finally:
        os.close(descriptor)
