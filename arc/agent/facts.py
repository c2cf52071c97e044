"""Facts: what is collected in groups, and sent when it changes.

start -> one registration with all facts; each interval -> a registration per group that changed; now and then -> all
A fact that is gone is sent as null, which removes it at the server.
Source: the remote agents specification, section 7.6.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from arc import __version__, clock
from arc.agent import hostfacts
from arc.agent.customfacts import CustomFacts
from arc.agent.metadata import metadata
from arc.agent.spool import SpoolFailed, new_id
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.agent.config import Settings
    from arc.agent.plugins import Plugin
    from arc.agent.spool import Spool

    Facts = dict[str, Any]
    Groups = dict[str, Callable[[], Facts]]

log = logging.getLogger(__name__)

KNOWN = "fact_names"  # note in the spool: facts that the server may hold


def groups(settings: Settings, plugins: Mapping[str, Plugin]) -> Groups:
    """In the order in which they count: custom facts cannot replace what the agent finds itself."""
    arc = {"arc_version": __version__, "identity": settings.identity}
    arc |= {name: value for name in ("project", "organization") if (value := getattr(settings, name))}
    found: Groups = {
        "custom": CustomFacts(settings.facts_dir).collect,
        "host": hostfacts.host,
        "cpu": hostfacts.cpu,
        "memory": hostfacts.memory,
        "disk": hostfacts.disk,
        "network": hostfacts.network,
        "uptime": hostfacts.uptime,
        "agents": lambda: {"agents": _agents(plugins)},
        "arc": lambda: arc,
    }
    return found | ({"metadata": metadata} if settings.metadata else {})


def collect(sources: Groups) -> dict[str, Facts]:
    """Facts by group; a group that fails is left out, and the others are not."""
    found = {}
    for name, source in sources.items():
        try:
            found[name] = source()
        except Exception as error:  # a host may be stranger than we thought
            log.error("facts of group %s: %s: %s", name, type(error).__name__, error)
    own = {fact for name, facts in found.items() if name != "custom" for fact in facts}
    if "custom" in found:
        found["custom"] = {fact: value for fact, value in found["custom"].items() if fact not in own}
    return found


def merged(found: Mapping[str, Facts]) -> Facts:
    return {fact: value for facts in found.values() for fact, value in facts.items()}


class FactLoop(PeriodicLoop):
    """Registers this machine and keeps the server's picture of it true. The first pass comes at once."""

    name = "facts"

    def __init__(self, spool: Spool, settings: Settings, sources: Groups) -> None:
        super().__init__(settings.facts_interval)
        self._spool = spool
        self._settings = settings
        self._sources = sources
        self._full_us = round(settings.full_facts_interval * clock.US_PER_S)
        self._full_at: int | None = None
        self._sent: dict[str, Facts] = {}

    def start(self) -> None:
        super().start()
        self.wake()

    def step(self, now_us: int) -> int:
        """Returns the number of registrations."""
        if not self._spool.has_room:  # what is there already goes first
            return 0
        found = self._sent | collect(self._sources)
        try:
            if self._full_at is None or now_us >= self._full_at:
                self._send_all(found)
                self._full_at = now_us + self._full_us
                return 1
            changed = [name for name, facts in found.items() if facts != self._sent.get(name)]
            for name in changed:
                gone = dict.fromkeys(self._sent.get(name, {}).keys() - merged(found).keys())
                self._register(found[name] | gone)
                self._sent[name] = found[name]
            return len(changed)
        except SpoolFailed as error:
            log.error("facts wait: %s", error)
            return 0

    def refresh(self) -> None:
        """Look for all facts and send them, now."""
        self._full_at = None
        self.wake()

    def register_online(self) -> None:
        """Say that this machine is there. Raises SpoolFailed."""
        self._register({"online": True})

    def _send_all(self, found: dict[str, Facts]) -> None:
        """Names are noted before and after, so that none that the server may hold is ever forgotten."""
        facts = merged(found)
        known = set(json.loads(self._spool.note(KNOWN) or "[]"))
        self._spool.set_note(KNOWN, json.dumps(sorted(known | facts.keys())))
        self._register(dict.fromkeys(known - facts.keys()) | facts)
        self._spool.set_note(KNOWN, json.dumps(sorted(facts)))
        self._sent = found

    def _register(self, facts: Facts) -> None:
        settings = self._settings
        registration = {
            "registration_id": new_id(),
            "version": 1,
            "sender": settings.identity,
            "project": settings.project,
            "organization": settings.organization,
            "payload": facts,
        }
        self._spool.append("registration", registration)


def _agents(plugins: Mapping[str, Plugin]) -> Facts:
    return {name: "enabled" if plugins[name].is_enabled else "disabled" for name in sorted(plugins)}
