"""Plug-ins: what an agent can do. A plug-in has a name and actions; more are loaded from a directory.

    from arc.agent.plugins import ActionFailed, Plugin, Task

    class Pump(Plugin):
        name = "pump"
        actions = ("flush",)

        def flush(self, task: Task) -> str:
            task.run(["/usr/local/bin/pumpctl", "flush", task.payload])
            return "flushed\\n"

docs/agent.md describes the interface for those who write one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import stat
from typing import TYPE_CHECKING

from arc.agent.errors import ActionFailed, ActionStopped
from arc.agent.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ActionFailed", "ActionStopped", "Plugin", "Task", "builtin", "load"]

log = logging.getLogger(__name__)

SWITCHES = ("enable", "disable")


class Plugin:
    """Base of all. An action is a method: it returns the text that ends the log, or raises ActionFailed.

    name: how requests call it. actions: names of the methods that requests may call.
    """

    name = ""
    actions: tuple[str, ...] = ()
    is_enabled = True

    def enable(self, task: Task) -> str:
        return ""

    def disable(self, task: Task) -> str:
        return ""

    def find(self, action: str) -> Callable[[Task], str | None]:
        """Raises ActionFailed with the text that a requester gets."""
        if not self.is_enabled and action not in SWITCHES:
            raise ActionFailed("Agent not enabled\n")
        if action not in (*self.actions, *SWITCHES):
            raise ActionFailed("Action not found\n")
        found: Callable[[Task], str | None] = getattr(self, action)
        return found


class Chef(Plugin):
    """Known by name only: requests for it get the answer they expect where chef is not installed."""

    name = "chef"
    actions = ("zero",)
    is_enabled = False

    def enable(self, task: Task) -> str:
        raise ActionFailed("enabling chef agent failed")


def builtin() -> list[Plugin]:
    from arc.agent.execute import Execute
    from arc.agent.rpc import Rpc

    return [Chef(), Execute(), Rpc()]


def load(directory: str) -> dict[str, Plugin]:
    """All plug-ins by name. What cannot be loaded is logged and left out."""
    found = {plugin.name: plugin for plugin in builtin()}
    for path in files_in(directory, ".py"):
        for plugin in _from_file(path):
            if plugin.name in found:
                log.error("plug-in %r of %s: there is one of that name already", plugin.name, path)
            else:
                found[plugin.name] = plugin
    return found


def files_in(directory: str, suffix: str = "") -> list[str]:
    """Files by name, without hidden ones and those that anybody may write."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        log.error("%s", error)
        return []
    paths = [os.path.join(directory, name) for name in names if name.endswith(suffix) and not name.startswith(".")]
    return [path for path in paths if _is_trusted(path)]


def _is_trusted(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        log.error("%s", error)
        return False
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        log.error("%s: ignored, because everybody may write it", path)
        return False
    return stat.S_ISREG(mode)


def _from_file(path: str) -> Iterable[Plugin]:
    name = f"arc_plugin_{os.path.basename(path).removesuffix('.py')}"
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Plugin)]
        return [kind() for kind in kinds if kind.name and kind.__module__ == name]
    except Exception:  # whatever is in the file, the agent goes on without it
        log.exception("plug-in %s cannot be loaded", path)
        return []
