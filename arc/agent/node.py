"""Node: the action engine of this machine, and what the server gets to know of it.

message of type `action` -> engine.schedule | cancel -> answer, when it was refused
engine -> Reporter -> spool: report of the node, copies of all that changes -> server
Each start tells everything again, and which actions there are, so that the server's copies cannot go astray for long;
so does one that asks for it.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from typing import TYPE_CHECKING, Any

import arc
from arc.actions import host
from arc.actions.attributes import Datastore, Shards, Version, info_agent
from arc.actions.node import Node
from arc.actions.nodeengine import NodeEngine, Setup
from arc.actions.worker import EngineOptions
from arc.agent.spool import SpoolFailed
from arc.errors import ArcError, ConfigError
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from arc.actions.engine import ActionEngine
    from arc.agent.config import Settings
    from arc.agent.listener import Listener
    from arc.agent.spool import Spool

    Copy = dict[str, Any]

log = logging.getLogger(__name__)

PLUGIN_FOLDER = "actions.d"
LIVE = (  # options that need no restart
    "service_unit", "service_allow", "reboot_command", "update_command", "shutdown_command", "log_level",
)  # fmt: skip
CLUSTER = "unenrolled"  # the server puts its own in place of it
LOOK_S = 60.0  # seconds between two looks, beside those that a change causes
GATHER_S = 0.2  # seconds in which changes become one message
PAGE = 20  # actions read at a time
STEP_S = 2.0  # seconds that a step has at a stop, however urgent
MESSAGE_BYTES = 300_000  # of copies, from which on a message is full


class AgentNode:
    """able: what the rest of the agent does for its actions. read: the options as they are now."""

    def __init__(self, settings: Settings, spool: Spool, able: host.Host, read: Callable[[], Settings]) -> None:
        directory = os.path.join(settings.install_dir, PLUGIN_FOLDER)
        self.engine = NodeEngine(
            settings.state_dir,
            able,
            _setup(settings, directory),
            lambda: self._changed_setup(read(), directory),
            on_change=lambda record: self._reporter.wake(),
        )
        self._spool = spool
        datastore = Datastore(CLUSTER, settings.identity, "ArcEdgeAgent", arc.__version__)
        version = Version.of_sources(arc.__version__, os.path.dirname(os.path.dirname(arc.__file__)))
        self.node = Node(self.engine, version, lambda: datastore, Shards(lambda: (), _no_shard))
        self._reporter = Reporter(self.node, self.engine, spool)
        self._listener = _listener(settings, self.node, self.engine) if settings.listen else None

    def start(self) -> None:
        self.engine.start()
        self._reporter.start()
        self._reporter.wake()
        if self._listener:
            self._listener.start()

    def stop(self, finish_s: float) -> None:
        """After this nothing is spooled; what ended in the last moment is told at the next start.

        finish_s: seconds for what would be lost with the process.
        """
        self.engine.begin_stop()
        self.engine.join(max(finish_s, STEP_S))
        if self._listener:
            self._listener.stop()
        self._reporter.stop(2.0)
        self.engine.stop(0.0)

    def handle(self, message: Mapping[str, Any]) -> None:
        """Do what the server has to say. Raises SpoolFailed."""
        op, action_id = str(message.get("op")), str(message.get("id"))
        if op == "report":
            self._reporter.begin_again()
            return
        try:
            self._cancel(action_id, message) if op == "cancel" else self._schedule(action_id, message)
            error = None
        except ArcError as refusal:
            log.info("action %s: %s refused: %s", action_id, op, refusal)
            error = {"kind": type(refusal).__name__, "message": str(refusal)}
        if error or op == "cancel":  # a copy is answer enough to the rest
            self._spool.append("actions", {"answers": [{"op": op, "id": action_id, "error": error}]})

    def _changed_setup(self, settings: Settings, plugins: str) -> Setup:
        """Raises ConfigError, also for what would stop the next start."""
        settings.require_server()
        return _setup(settings, plugins, self._reporter.begin_again)

    def _schedule(self, action_id: str, message: Mapping[str, Any]) -> None:
        headers = message.get("headers") or {}
        self.engine.schedule(
            str(message.get("kind")),
            message.get("args"),
            action_id=action_id,
            created_us=int(message["created_at"]),
            requester=str(message.get("requester", "CORE_API")),
            headers=headers.items(),
            requested_by=str(message.get("requested_by", "")),
        )

    def _cancel(self, action_id: str, message: Mapping[str, Any]) -> None:
        self.engine.cancel(action_id, str(message.get("reason", "")))


class Reporter(PeriodicLoop):
    """Keeps the server's copies true."""

    name = "action-reporter"

    def __init__(self, node: Node, engine: ActionEngine, spool: Spool) -> None:
        super().__init__(LOOK_S)
        self._node = node
        self._engine = engine
        self._spool = spool
        self._number = 0  # of the last event that was told
        self._has_begun = False

    def begin_again(self) -> None:
        """Tell everything once more."""
        self._has_begun = False
        self.wake()

    def step(self, now_us: int) -> int:
        self._stop.wait(GATHER_S)
        try:
            return self._tell()
        except SpoolFailed as error:
            log.error("actions: %s", error)
            self._has_begun = False
            return 0

    def _tell(self) -> int:
        is_first, self._has_begun = not self._has_begun, True
        if is_first:
            self._number = 0
            self._spool.append("actions", {"node": self._report()})
        told, number = 0, -1
        while number != self._number:
            number = self._number
            self._number, copies = self._engine.changed_since(number, PAGE)
            for message in _messages(copies):
                self._spool.append("actions", {"copies": message})
            told += len(copies)
        if is_first:
            self._spool.append("actions", {"known": self._known()})
        if told:
            self._engine.acknowledge(self._number)
        return told

    def _report(self) -> dict[str, Any]:
        return {
            "agent": info_agent(self._node.version),
            "datastore": self._node.datastore().as_dict(),
            "shards": self._node.shards.as_dict(),
            "kinds": [kind.as_dict() for kind in self._engine.kinds()],
        }

    def _known(self) -> list[str]:
        return [action.id for action in (*self._engine.queue(), *self._engine.finished(1000))]


def _setup(settings: Settings, plugins: str, on_reload: Callable[[], None] = lambda: None) -> Setup:
    """Raises ConfigError."""
    return Setup(
        live={name: value for name, value in vars(settings).items() if name in LIVE},
        fixed={name: value for name, value in vars(settings).items() if name not in LIVE},
        engine=EngineOptions(history_max=100),
        node=_options(settings, plugins),
        log_level=settings.log_level,
        on_reload=on_reload,
    )


def _options(settings: Settings, plugins: str) -> host.NodeOptions:
    """Raises ConfigError."""
    return host.NodeOptions(
        plugins=host.read_plugins(plugins if os.path.isdir(plugins) else ""),
        service_supervisor="systemd" if settings.service_unit else "none",
        service_unit=settings.service_unit,
        service_allow=settings.service_allow.replace(",", " ").split(),
        reboot_command=_words("reboot_command", settings.reboot_command),
        update_command=_words("update_command", settings.update_command),
        shutdown_command=_words("shutdown_command", settings.shutdown_command),
    )


def _listener(settings: Settings, node: Node, engine: ActionEngine) -> Listener:
    from arc.agent.listener import Listener  # five megabytes that only this needs

    return Listener(settings.listen, settings.listen_token, node, engine)


def _words(name: str, command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _messages(copies: list[Copy]) -> Iterator[list[Copy]]:
    """Copies as they fit into messages; the history of one that is too long loses its middle."""
    message: list[Copy] = []
    size = 0
    for copy in copies:
        length = len(json.dumps(copy))
        if length > MESSAGE_BYTES:
            history = copy["info"]["history"]
            copy["info"]["history"] = [history[0], history[-1]]
            length = len(json.dumps(copy))
        if message and size + length > MESSAGE_BYTES:
            yield message
            message, size = [], 0
        message.append(copy)
        size += length
    if message:
        yield message


def _no_shard(shard_id: str) -> Any:
    raise LookupError(shard_id)
