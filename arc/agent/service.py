"""The agent as a service: a unit of systemd, or a process in the background where there is no systemd; its restart."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from arc.agent.config import FILE_NAME
from arc.errors import ConfigError

if TYPE_CHECKING:
    from arc.agent.config import Settings

NAME = "arc-agent.service"
UNIT_PATH = f"/etc/systemd/system/{NAME}"
RESTART_STATUS = 75  # exit status that has systemd start the agent again
KILL_AFTER_S = 30  # beyond the time a stop waits for what runs
# KillMode: programs that were started on purpose, such as services of the machine, outlive the agent.
UNIT = """\
[Unit]
Description=Arc agent
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
RestartForceExitStatus={restart_status}
SuccessExitStatus={restart_status}
KillMode=process
TimeoutStopSec={stop_s}
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def has_systemd() -> bool:
    return os.path.isdir("/run/systemd/system")


def install(config_file: str, stop_timeout_s: float) -> str:
    """Write the unit and enable it, where systemd runs. Returns the path of the unit. Raises ConfigError."""
    command = " ".join(_quoted(word) for word in _command(config_file))
    stop_s = round(stop_timeout_s) + KILL_AFTER_S
    text = UNIT.format(command=command, stop_s=stop_s, restart_status=RESTART_STATUS)
    try:
        with open(UNIT_PATH, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"cannot write the unit: {error}") from None
    if has_systemd():
        _systemctl("daemon-reload")
        _systemctl("enable", NAME)
    return UNIT_PATH


def start(settings: Settings) -> None:
    """Raises ConfigError."""
    config_file = os.path.join(settings.install_dir, FILE_NAME)
    if has_systemd() and os.path.exists(UNIT_PATH):
        _systemctl("start", NAME)
        return
    if not os.path.exists(config_file):
        raise ConfigError(f"there is no {config_file}; write it with `agent init`")
    os.makedirs(settings.state_dir, mode=0o700, exist_ok=True)
    with open(log_path(settings), "ab") as out:
        subprocess.Popen(
            _command(config_file), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def begin_anew(started_by: int) -> int:
    """Start the same command again, as another process where nobody loses track of it. The exit status of this one.

    started_by: process id of the parent at the start.
    """
    from arc.actions.services import own_unit

    unit, own_pid = own_unit(), str(os.getpid())
    main_pid = _main_pid(unit) if unit else ""
    if unit == NAME and main_pid == own_pid:
        return RESTART_STATUS
    command = [sys.executable, *sys.orig_argv[1:]]
    # A terminal, a container, a supervisor, another unit: they know the agent by its process id.
    if os.getppid() == started_by or main_pid in (own_pid, None):
        os.execv(sys.executable, command)  # noqa: S606 - the same command again
    subprocess.Popen(command, start_new_session=True)
    return 0


def _main_pid(unit: str) -> str | None:
    """The process that systemd takes for the unit; None when nobody can tell."""
    from arc.actions.errors import ServiceOpFailed
    from arc.actions.services import Systemd

    try:
        return Systemd(unit).show("MainPID")["MainPID"]
    except ServiceOpFailed:
        return None


def log_path(settings: Settings) -> str:
    return os.path.join(settings.state_dir, "agent.log")


def _command(config_file: str) -> list[str]:
    return [sys.executable, os.path.abspath(sys.argv[0]), "agent", "--config-file", os.path.abspath(config_file)]


def _quoted(word: str) -> str:
    """For ExecStart."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if " " in word or escaped != word else word


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise ConfigError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
