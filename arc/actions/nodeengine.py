"""The engine of a node, made of its configuration, which it can read again while it runs.

arc.edge/config.reload or SIGHUP -> read -> Setup -> what differs from the one in force -> ActionEngine.replace
What cannot be used is refused before anything has changed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arc.actions import host
from arc.actions.engine import ActionEngine
from arc.actions.kinds import Catalogue
from arc.actions.nodekinds import RELOAD, Reload, log_levels
from arc.errors import ArcError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from arc.actions.records import ActionRecord
    from arc.actions.worker import EngineOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """What a configuration says, at one time.

    live, fixed: options by their keys, those that a reload puts in force and those that only a start reads.
    on_reload: told when the live ones have come into force.
    """

    live: dict[str, Any]
    fixed: dict[str, Any]
    engine: EngineOptions
    node: host.NodeOptions
    log_level: str
    on_reload: Callable[[], None] = lambda: None

    @property
    def reloadable(self) -> dict[str, Any]:
        return self.live | {f"plugins/{name}.toml": each for name, each in self.node.plugins.items()}


class NodeEngine(ActionEngine):
    """able: what the node lets its actions do. read: the configuration as it is now; raises ConfigError."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        able: host.Host,
        setup: Setup,
        read: Callable[[], Setup],
        on_change: Callable[[ActionRecord], None] = lambda record: None,
    ) -> None:
        self._able = replace(able, reload=self._reload)
        self._setup = setup
        self._read = read
        kinds = host.kinds(self._able, setup.node)
        super().__init__(directory, kinds, setup.engine, version=able.version, on_change=on_change)

    def ask_to_reload(self) -> None:
        """For a signal: what comes of it is in the history, as of any other action."""
        try:
            self.schedule(RELOAD, {}, requested_by="SIGHUP")
        except ArcError as error:
            log.error("the configuration is not read again: %s", error)

    def _reload(self) -> Reload:
        """Raises ConfigError."""
        old, new = self._setup, self._read()
        catalogue = Catalogue(host.kinds(self._able, new.node))

        def apply() -> None:
            self.replace(catalogue, new.engine)
            if new.log_level != old.log_level:  # else one that was set for a while may stay so long
                log_levels.set("", new.log_level)
            self._setup = replace(new, fixed=old.fixed)
            new.on_reload()

        changed = _differing(old.reloadable, new.reloadable)
        requires_restart = _differing(old.fixed, new.fixed)
        known = len(old.reloadable | new.reloadable) + len(old.fixed | new.fixed)
        return Reload(changed, requires_restart, known - len(changed) - len(requires_restart), apply)


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
