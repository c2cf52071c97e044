"""Presence: when each online agent was last heard of, in memory, so that a heartbeat costs no transaction.

heartbeat -> Presence.seen -> (every 15 s) unsaved -> agents.last_seen_at; silent -> offline
After a start every agent that was online has the full time again to be heard of.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Presence:
    """Online agents by id. Any thread may call it. Instants are microseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._unsaved: set[str] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, agent_ids: Iterable[str], now_us: int) -> None:
        """At a start: those that were online."""
        with self._lock:
            self._seen = dict.fromkeys(agent_ids, now_us)

    def seen(self, agent_id: str, now_us: int) -> bool:
        """Note a sign of life; False of an agent that is not known to be online, which then is for come_online()."""
        with self._lock:
            if agent_id not in self._seen:
                return False
            self._seen[agent_id] = now_us
            self._unsaved.add(agent_id)
            return True

    def come_online(self, agent_id: str, now_us: int) -> None:
        with self._lock:
            self._seen[agent_id] = now_us

    def go_offline(self, agent_id: str) -> int | None:
        """Also of an agent that is no more. When it was last heard of; None if it was not known to be online."""
        with self._lock:
            self._unsaved.discard(agent_id)
            return self._seen.pop(agent_id, None)

    def last_seen(self, agent_id: str) -> int | None:
        return self._seen.get(agent_id)

    def silent(self, since_us: int) -> list[str]:
        """Of whom nothing was heard since."""
        with self._lock:
            return [agent_id for agent_id, at in self._seen.items() if at < since_us]

    def unsaved(self) -> dict[str, int]:
        """When agents were last seen, of those that were since the last call."""
        with self._lock:
            due, self._unsaved = self._unsaved, set()
            return {agent_id: self._seen[agent_id] for agent_id in due}
