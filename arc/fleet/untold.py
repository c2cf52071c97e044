"""Agents that have yet to be told something: a poll of any other must not cost a look into the database."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Row = TypeVar("Row")


class Untold:
    """Any thread may call it. Whoever stores something for an agent adds it after the commit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: set[str] = set()

    def add(self, *agent_ids: str) -> None:
        with self._lock:
            self._agents.update(agent_ids)

    def look(self, agent_id: str, fetch: Callable[[], list[Row]]) -> list[Row]:
        """What fetch() finds for an agent; nothing, without asking it, when there is nothing."""
        if agent_id not in self._agents:
            return []
        with self._lock:
            self._agents.discard(agent_id)  # first: what comes after the look puts it in again
        found = None
        try:
            found = fetch()
            return found
        finally:
            if found != []:
                self.add(agent_id)
