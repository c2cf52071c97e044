"""The parts of Arc that handlers call, handed over by arc.app and found again through `parts()`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import current_app

from arc.logs import LogRing
from arc.metrics.query.cache import ResultCache
from arc.web.counters import RequestCounters
from arc.web.history import History

if TYPE_CHECKING:
    from arc.access.audit import AuditTrail
    from arc.access.tokens import TokenStore
    from arc.actions.node import Node
    from arc.backup.service import Backups
    from arc.config import Config
    from arc.fleet.service import Fleet
    from arc.jobs.service import Jobs
    from arc.metrics.importing import Importer
    from arc.metrics.query.engine import QueryEngine
    from arc.metrics.store import MetricStore
    from arc.metrics.upkeep import Upkeep


@dataclass(frozen=True)
class Parts:
    config: Config
    tokens: TokenStore
    store: MetricStore
    queries: QueryEngine
    importer: Importer
    backups: Backups
    upkeep: Upkeep
    jobs: Jobs
    fleet: Fleet
    audit: AuditTrail
    log_ring: LogRing = field(default_factory=LogRing)
    cache: ResultCache = field(default_factory=ResultCache)
    requests: RequestCounters = field(default_factory=RequestCounters)
    history: History = field(default_factory=History)
    node: Node | None = None
    started_s: float = field(default_factory=time.monotonic)
    is_stopping: threading.Event = field(default_factory=threading.Event)

    def uptime_s(self) -> float:
        return time.monotonic() - self.started_s


def parts() -> Parts:
    """The parts of the application that answers the current request."""
    found: Parts = current_app.extensions["arc"]
    return found
