"""Options of the agent: a flag over the environment (ARC_AGENT_...) over the file over the default.

Lines of the file are `key: value` or `key = value`; names match in any case, `-` and blanks count as `_`.
Source: the remote agents specification, section 12.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from arc.agent.http import Url
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "ARC_AGENT_"
FILE_NAME = "arc.cfg"
IDENTITY = re.compile(r"[-_.0-9a-zA-Z]{1,64}", re.ASCII)
SECRETS = ("token", "listen_token")
LEVELS = ("debug", "info", "warning", "error")

_LINE = re.compile(r"\s*(?P<key>[^:=#]+?)\s*[:=]\s*(?P<value>.*?)\s*")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Option(NamedTuple):
    name: str
    kind: type[Any]
    default: Any
    meaning: str
    minimum: float = 0

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    Option("server", str, "", "address of the server"),
    Option("token", str, "", "credential; better in the file than on the command line, where others see it"),
    Option("identity", str, "", "name of this machine in the fleet; the host name unless given"),
    Option("project", str, "", "project, where the token leaves it open"),
    Option("organization", str, "", "organization, where the token leaves it open"),
    Option("ca_cert", str, "", "file with certificates to trust instead of the system's"),
    Option("install_dir", str, "", "configuration and state; /opt/arc for root, else ~/.arc-agent"),
    Option("plugin_dir", str, "", "plug-ins; INSTALL_DIR/plugins unless given"),
    Option("facts_dir", str, "", "custom facts; INSTALL_DIR/facts.d unless given"),
    Option("facts_interval", float, 60.0, "seconds between two looks for changed facts", 0.1),
    Option("full_facts_interval", float, 1800.0, "seconds between two registrations with all facts", 0.1),
    Option("metrics_interval", float, 10.0, "seconds between two samples of this host; 0 takes none"),
    Option("poll_time", float, 30.0, "seconds a request for work may wait at the server", 0.1),
    Option("spool_size", int, 64, "megabytes that may wait on disk while the server is away", 1),
    Option("stop_timeout", float, 300.0, "seconds a stop waits for what runs"),
    Option("metadata", bool, False, "ask the cloud's metadata service for facts"),
    Option("actions", bool, True, "carry out actions that the server or somebody on this machine schedules"),
    Option("listen", str, "", "address and port at which to serve this node's actions, such as 127.0.0.1:8001"),
    Option("listen_token", str, "", "what callers of that address must know; at least 16 characters"),
    Option("service_unit", str, "", "unit of systemd that replicante.io/service.* are about"),
    Option("service_allow", str, "", "units that arc.edge/service.* may manage, with blanks between; * is anything"),
    Option("reboot_command", str, "", "reboots this machine; none, no arc.edge/node.reboot"),
    Option("update_command", str, "", "installs the version that is its last word; none, no arc.edge/agent.update"),
    Option("shutdown_command", str, "", "switches this machine off; none, no arc.edge/node.shutdown"),
    Option("log_level", str, "info", ", ".join(LEVELS)),
)
BY_NAME = {option.name: option for option in OPTIONS}


class Settings:
    """What is in force. Its text hides the token."""

    server: str
    token: str
    identity: str
    project: str
    organization: str
    ca_cert: str
    install_dir: str
    plugin_dir: str
    facts_dir: str
    facts_interval: float
    full_facts_interval: float
    metrics_interval: float
    poll_time: float
    spool_size: int
    stop_timeout: float
    metadata: bool
    actions: bool
    listen: str
    listen_token: str
    service_unit: str
    service_allow: str
    reboot_command: str
    update_command: str
    shutdown_command: str
    log_level: str

    def __init__(self, **values: Any) -> None:
        vars(self).update({option.name: option.default for option in OPTIONS} | values)
        self.install_dir = self.install_dir or default_install_dir()
        self.plugin_dir = self.plugin_dir or os.path.join(self.install_dir, "plugins")
        self.facts_dir = self.facts_dir or os.path.join(self.install_dir, "facts.d")
        self.identity = self.identity or socket.gethostname()
        for name in ("identity", "log_level", "server"):
            _check(name, getattr(self, name))
        if self.listen and not self.actions:
            raise ConfigError("listen is for the actions of this machine, which actions = false switches off")

    def __repr__(self) -> str:
        shown = {name: "***" if name in SECRETS and value else value for name, value in vars(self).items()}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def state_dir(self) -> str:
        return os.path.join(self.install_dir, "state")

    def require_server(self) -> None:
        """Raises ConfigError unless there is somebody to talk to."""
        if not self.server:
            raise ConfigError("no server: give --server URL, or enrol with `agent init`")


def default_install_dir() -> str:
    is_root = getattr(os, "geteuid", lambda: 1)() == 0
    return "/opt/arc" if is_root else os.path.join(os.path.expanduser("~"), ".arc-agent")


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """flags: by name of the option, and `config_file`; None is not given. Raises ConfigError."""
    given = {name: value for name, value in flags.items() if value is not None}
    named = given.pop("config_file", None) or environ.get(PREFIX + "CONFIG_FILE")
    found = {option.name: environ[PREFIX + option.name.upper()] for option in OPTIONS
             if environ.get(PREFIX + option.name.upper())}  # fmt: skip
    install_dir = given.get("install_dir") or found.get("install_dir") or default_install_dir()
    path = named or os.path.join(install_dir, FILE_NAME)
    above = found | given
    values = {name: _typed(name, value, "" if name in above else f"{path}: ")
              for name, value in (_file(path, is_named=bool(named)) | above).items()}  # fmt: skip
    if named and "install_dir" not in values:
        values["install_dir"] = os.path.dirname(os.path.abspath(named))
    return Settings(**values)


def _file(path: str, *, is_named: bool) -> dict[str, str]:
    """Raises ConfigError; a file nobody named may be absent or closed to us."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"invalid config file: {path}: {error}") from None
    except OSError as error:
        if is_named:
            raise ConfigError(f"invalid config file: {error}") from None
        return {}
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"invalid config file: {path}: {error}") from None


def parse(text: str) -> dict[str, str]:
    """Options of a file by their name. Raises ConfigError."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"line {number} is no `key: value`")
        name = _normal(match["key"])
        if name not in BY_NAME:
            raise ConfigError(f"line {number}: unknown option {match['key']!r}")
        found[name] = _unquoted(match["value"])
    return found


def _normal(key: str) -> str:
    name = key.upper().replace("-", "_").replace(" ", "_")
    return name.removeprefix(PREFIX).removeprefix("ARC_").lower()


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value
    return re.split(r"\s+#", value, maxsplit=1)[0]


def _typed(name: str, value: Any, where: str) -> Any:
    """where: what a complaint begins with. Raises ConfigError."""
    try:
        typed = _of_type(BY_NAME[name], value)
        _check(name, typed)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    return typed


def _of_type(option: Option, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if option.kind is bool:
            return _truth(value)
        typed = option.kind(value)
    except ValueError:
        raise ConfigError(f"{option.name}: {value!r} does not do; it is {option.meaning}") from None
    if option.kind is not str and not option.minimum <= typed < float("inf"):
        raise ConfigError(f"{option.name}: must be at least {option.minimum:g}")
    return typed


def _truth(value: str) -> bool:
    if value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ValueError


def _check(name: str, value: Any) -> None:
    if name == "identity" and value and not IDENTITY.fullmatch(value):
        raise ConfigError("identity must have 1 to 64 of the characters A-Z, a-z, 0-9, dot, hyphen and underscore")
    if name == "log_level" and value.lower() not in LEVELS:
        raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}")
    if name == "server" and value:
        try:
            Url.parse(value)
        except ValueError as error:
            raise ConfigError(f"server: {error}") from None
