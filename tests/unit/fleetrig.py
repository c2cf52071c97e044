"""A fleet over a real database, with agents that are driven by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from arc import config
from arc.access.tokens import TokenStore
from arc.db.engine import open_database
from arc.fleet.intake import Speaker
from arc.fleet.messages import Command, Fields, Registration, Reply
from arc.fleet.service import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from arc.fleet.executions import Outcome
    from arc.fleet.intake import Receipt
    from arc.fleet.records import Execution

SECOND = 1_000_000
NOW = 1_760_875_200 * SECOND  # 2025-10-19T12:00:00Z
USER = {"id": "ada", "name": "ada", "roles": ["admin"]}
EVERYONE = Speaker(None)


@dataclass
class Lines:
    """Where metrics go."""

    written: list[tuple[bytes, str]] = field(default_factory=list)
    fails_with: Exception | None = None

    def write(self, body: bytes, database: str) -> None:
        if self.fails_with:
            raise self.fails_with
        self.written.append((body, database))


class FleetRig:
    """options: of [fleet], as texts. Its sweeper runs only when a test says so."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        self.db = open_database(data_dir)
        self.tokens = TokenStore(self.db)
        self.lines = Lines()
        settings = config.load(None, {}, {f"fleet.{name}": value for name, value in options.items()})
        self.fleet = Fleet(self.db, settings, self.tokens, self.lines.write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop_waiting()
        self.db.close()

    def register(self, agent_id: str = "edge-1", *, now_us: int = NOW, project: str = "", **payload: Any) -> str:
        """A registration with an id of its own; returns the event it made."""
        registration = Registration.parse(Fields({"payload": payload, "project": project}), agent_id)
        with self.db.transaction() as tx:
            return self.fleet.agents.register(
                tx, agent_id, registration, project=project, organization="", token_id=None, now_us=now_us
            )

    def run(self, agent_id: str = "edge-1", *, now_us: int = NOW, timeout_s: int = 10, within_s: int = 60) -> Execution:
        command = Command(agent_id, timeout_s, "execute", "script", "uptime")
        return self.fleet.executions.create(command, USER, now_us, deliver_within_s=within_s)

    def reply(
        self, request_id: str, state: str, *, agent_id: str = "edge-1", now_us: int = NOW, **more: Any
    ) -> Outcome:
        """number and payload among others; final unless it is executing."""
        message = {"request_id": request_id, "agent": "execute", "action": "script", "state": state}
        message |= {"final": state.lower() not in ("queued", "executing"), "number": 1, **more}
        with self.db.transaction() as tx:
            return self.fleet.executions.reply(tx, agent_id, Reply.parse(Fields(message), agent_id), now_us)

    def post(self, *messages: dict[str, Any], agent_id: str = "edge-1", epoch: str = "e1") -> Receipt:
        return self.fleet.post(agent_id, EVERYONE, epoch, list(messages))

    def facts(self, agent_id: str = "edge-1") -> dict[str, Any]:
        return self.fleet.agents.get(agent_id).facts

    def status(self, request_id: str) -> str:
        return self.fleet.executions.get(request_id).status.name.lower()
