"""A web application over real tokens and fake metrics, for the tests of arc/web."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from arc import config
from arc.access.audit import AuditTrail
from arc.access.tokens import TokenStore
from arc.db.engine import open_database
from arc.fleet.service import Fleet
from arc.jobs.service import Jobs
from arc.metrics.query.guard import Plan
from arc.metrics.storage.wal import Entry
from arc.metrics.store import PendingWrite
from arc.web.application import create_app
from arc.web.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask.testing import FlaskClient

    from arc.db.engine import Database
    from arc.metrics.query.engine import Asker

SECRET = "admin-secret-of-the-unit-tests-0123456789"
ADMIN = {"Authorization": f"Bearer {SECRET}"}


@dataclass
class FakeStore:
    is_ready: bool = True
    fails_with: Exception | None = None
    writes: list[tuple[bytes, str, str]] = field(default_factory=list)

    def stamps(self, wanted: object) -> tuple[int, ...]:
        return ()

    def accept_msgpack(self, body: bytes, database: str, announced_encoding: str = "") -> PendingWrite:
        if self.fails_with:
            raise self.fails_with
        self.writes.append((body, database, announced_encoding))
        return PendingWrite(self, Entry(1, database, body, 0), [], 0)  # type: ignore[arg-type]

    def write_lines(self, body: bytes, database: str) -> None:
        if self.fails_with:
            raise self.fails_with
        self.writes.append((body, database, ""))

    def finish(self, write: PendingWrite) -> None:
        pass


@dataclass
class FakeResult:
    id: str = "q-1"
    table: pa.Table = field(default_factory=lambda: pa.table({"n": [1, 2]}))
    types: list[str] = field(default_factory=lambda: ["BIGINT"])
    execution_ms: float = 1.5
    wait_ms: float = 0.25
    planning_ms: float = 0.5


@dataclass
class FakeQueries:
    result: FakeResult = field(default_factory=FakeResult)
    fails_with: Exception | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def plan(self, sql: str, database: str) -> Plan:
        return Plan(is_volatile=True)

    def run(self, sql: str, *, database: str, is_gone: Callable[[], bool] | None, asker: Asker) -> FakeResult:
        self.asked.append({"sql": sql, "database": database, "is_gone": is_gone})
        if self.fails_with:
            raise self.fails_with
        return self.result


class WebApp:
    """`web.client` sends requests, `with` closes it; options are flags as `**{"server.cors_enabled": "true"}`."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        self.db: Database = open_database(data_dir)
        self.tokens = TokenStore(self.db)
        self.tokens.bootstrap(SECRET)
        self.audit = AuditTrail(self.db)
        self.store = FakeStore()
        self.queries = FakeQueries()
        settings = config.load(None, {}, options)
        jobs = Jobs(self.db, settings, data_dir)  # its workers are not started
        fleet = Fleet(self.db, settings, self.tokens, self.store.write_lines)  # its sweeper is not started
        self.parts = Parts(settings, self.tokens, self.store, self.queries, None, None, None, jobs, fleet, self.audit)  # type: ignore[arg-type]
        self.app = create_app(self.parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def token(self, *permissions: str) -> dict[str, str]:
        """Headers of a new token that may do just this."""
        _, secret = self.tokens.create("only-" + "-".join(permissions), permissions=permissions)
        return {"Authorization": f"Bearer {secret}"}
