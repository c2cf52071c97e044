"""What a node lets its actions do, and the kinds that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arc.actions import commands, nodekinds, plugins, services, storekinds, testkinds
from arc.actions.errors import ServiceOpFailed
from arc.actions.services import Commands, Supervisor, Systemd
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from arc.actions.kinds import Kind
    from arc.actions.storekinds import Task

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Of this boot of the machine."""
    return BOOT_ID.read_text("utf-8").strip()


@dataclass(frozen=True)
class Host:
    """What the program hands in. None: this node cannot do it, and the kinds that need it are not there.

    flush, compact, backup, verify, stop_store, resume_store: from arguments to what the payload says; they may take
    long and are called in a thread of their own. backup's payload has `backup_id`; verify's `checked` and `issues`.
    check_backup: what is wrong with the backup of an id.
    restart: has this process replaced by another soon, and returns. drain: is all work finished? Asked again and again.
    update_command: gets the version as its last argument. version: of the running Arc.
    """

    version: str = ""
    flush: Task | None = None
    compact: Task | None = None
    backup: Task | None = None
    check_backup: Callable[[str], list[str]] | None = None
    verify: Task | None = None
    stop_store: Task | None = None
    resume_store: Task | None = None
    restart: Callable[[], None] | None = None
    drain: Callable[[], bool] = lambda: True
    reboot: Callable[[], None] | None = None
    boot_id: Callable[[], str] = read_boot_id
    update_command: Sequence[str] = ()


def kinds(host: Host, options: Mapping[str, Any]) -> list[Kind]:
    """All kinds of a node. options: section [actions] of the configuration. Raises ConfigError."""
    supervised = supervisor(options)
    graceful = storekinds.graceful_stop(host)
    return [
        *testkinds.kinds(with_debug=options["debug_kinds"]),
        *(services.original_kinds(supervised, options["service_wait_s"], graceful) if supervised else ()),
        *(services.unit_kinds(options["service_allow"]) if options["service_allow"] else ()),
        *storekinds.kinds(host),
        *nodekinds.kinds(host),
        *plugins.kinds(options["plugins"]),
    ]


def supervisor(options: Mapping[str, Any]) -> Supervisor | None:
    """Who looks after the node's own service; None when nobody is configured."""
    named = options["service_supervisor"]
    needed = {
        "none": (),
        "systemd": ("service_unit",),
        "commands": ("service_pid_command", "service_start_command", "service_stop_command"),
    }[named]
    for name in needed:
        if not options[name]:
            raise ConfigError(f'[actions] service_supervisor = "{named}" needs {name}')
    if named == "systemd":
        return Systemd(options["service_unit"], running_states=tuple(options["service_running_states"]))
    return Commands(*(options[name] for name in needed)) if needed else None


def reboot_by(argv: Sequence[str]) -> Callable[[], None] | None:
    """What runs a configured command; None for an empty one."""
    if not argv:
        return None

    def reboot() -> None:
        result = commands.run(argv, services.COMMAND_S)
        if not result.is_good:
            raise ServiceOpFailed(f"{argv[0]} {result}")

    return reboot
