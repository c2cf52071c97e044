"""What a node lets its actions do, and the kinds that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from arc.actions import commands, nodekinds, services, storekinds, testkinds
from arc.actions.errors import ServiceOpFailed
from arc.actions.services import Commands, Supervisor, Systemd
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arc.actions.execkind import Allowed
    from arc.actions.external import External
    from arc.actions.kinds import Kind
    from arc.actions.nodekinds import Reload
    from arc.actions.storekinds import Task

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def read_boot_id() -> str:
    """Of this boot of the machine."""
    with open(BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


@dataclass(frozen=True)
class Host:
    """What the program hands in. None: this node cannot do it, and the kinds that need it are not there.

    flush, compact, backup, retain, verify, stop_store, resume_store: from arguments to what the payload says; they may
    take long, and have a thread of their own. backup's payload has `backup_id`; verify's `checked` and `issues`.
    check_backup: what is wrong with the backup of an id.
    restart: has this process replaced by another soon, and returns. drain: is all work finished? Asked again and again.
    refresh_facts: has all facts looked for and sent soon.
    reload: reads the configuration again; raises ConfigError.
    reboot: None takes the configured command. version: of the running Arc. node_id: as others know this node.
    """

    version: str = ""
    node_id: str = ""
    flush: Task | None = None
    compact: Task | None = None
    backup: Task | None = None
    check_backup: Callable[[str], list[str]] | None = None
    retain: Task | None = None
    verify: Task | None = None
    stop_store: Task | None = None
    resume_store: Task | None = None
    refresh_facts: Callable[[], None] | None = None
    restart: Callable[[], None] | None = None
    drain: Callable[[], bool] = lambda: True
    reload: Callable[[], Reload] | None = None
    reboot: Callable[[], None] | None = None
    boot_id: Callable[[], str] = read_boot_id


@dataclass(frozen=True)
class NodeOptions:
    """What an operator decides, named as in section [actions] of the configuration.

    plugins: what the files of the directory say, by name.
    """

    debug_kinds: bool = False
    plugins: Mapping[str, Allowed | External] = field(default_factory=dict)
    service_supervisor: str = "none"
    service_unit: str = ""
    service_running_states: Sequence[str] = ("running",)
    service_pid_command: Sequence[str] = ()
    service_start_command: Sequence[str] = ()
    service_stop_command: Sequence[str] = ()
    service_wait_s: float = services.WAIT_S
    service_allow: Sequence[str] = ()
    reboot_command: Sequence[str] = ()
    update_command: Sequence[str] = ()
    shutdown_command: Sequence[str] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> NodeOptions:
        """Raises ConfigError."""
        named = {each.name: section[each.name] for each in fields(cls)}
        return cls(**named | {"plugins": read_plugins(section["plugins"])})


def read_plugins(directory: str) -> dict[str, Allowed | External]:
    """What the files of a plug-in directory say, by name; an empty directory is none. Raises ConfigError."""
    if not directory:
        return {}
    from arc.actions.plugins import read  # two megabytes with what it needs; an agent without plug-ins does without

    return read(directory)


def kinds(host: Host, options: NodeOptions) -> list[Kind]:
    """All kinds of a node. Raises ConfigError."""
    supervised = supervisor(options)
    graceful = storekinds.graceful_stop(host)
    return [
        *testkinds.kinds(with_debug=options.debug_kinds),
        *(services.original_kinds(supervised, options.service_wait_s, graceful) if supervised else ()),
        *(services.unit_kinds(options.service_allow) if options.service_allow else ()),
        *storekinds.kinds(host),
        *nodekinds.kinds(
            host,
            host.reboot or _call_of(options.reboot_command),
            options.update_command,
            _call_of(options.shutdown_command),
        ),
        *(_plugin_kinds(options) if options.plugins else ()),
    ]


def _plugin_kinds(options: NodeOptions) -> list[Kind]:
    from arc.actions import plugins

    return plugins.kinds(options.plugins)


def supervisor(options: NodeOptions) -> Supervisor | None:
    """Who looks after the node's own service; None when nobody is configured. Raises ConfigError."""
    named = options.service_supervisor
    if named == "systemd":
        _demand(options, "service_unit")
        return Systemd(options.service_unit, running_states=tuple(options.service_running_states))
    if named == "commands":
        _demand(options, "service_pid_command", "service_start_command", "service_stop_command")
        return Commands(options.service_pid_command, options.service_start_command, options.service_stop_command)
    return None


def _demand(options: NodeOptions, *names: str) -> None:
    for name in names:
        if not getattr(options, name):
            raise ConfigError(f'[actions] service_supervisor = "{options.service_supervisor}" needs {name}')


def _call_of(argv: Sequence[str]) -> Callable[[], None] | None:
    """What runs a configured command; None for an empty one."""
    if not argv:
        return None

    def call() -> None:
        result = commands.run(argv, services.COMMAND_S)
        if not result.is_good:
            raise ServiceOpFailed(f"{argv[0]} {result}")

    return call
