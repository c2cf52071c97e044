"""Commands of the agent: python arc.py agent [COMMAND]; without a command it runs until it is told to stop.

init | start | stop | status | facts | list | run <plugin> <action>
Only what a command needs is loaded.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from arc import __version__
from arc.agent import config
from arc.agent.spool import SpoolFailed
from arc.errors import ArcError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arc.agent.config import Settings

RUNNING, STOPPED, UNKNOWN = 0, 3, 4  # exit codes of `status`
START_S = 10.0  # seconds until an agent that was started must run
LOOK_S = 0.05
EPILOG = """commands: init, start, stop, status, facts, list, run; each has --help. Without one the agent runs.
Options come from flags, then ARC_AGENT_... in the environment, then the file, then defaults."""

log = logging.getLogger("arc.agent")


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, 1 an error, 2 wrong usage; `status` has its own."""
    command, rest = (argv[0], argv[1:]) if argv and argv[0] in COMMANDS else ("", argv)
    run, describe = COMMANDS[command]
    parser = argparse.ArgumentParser(
        prog=f"arc agent {command}".strip(), description=run.__doc__, epilog=None if command else EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    describe(parser)
    args = vars(parser.parse_args(rest))
    flags = {name: args.pop(name) for name in [*config.BY_NAME, "config_file"] if name in args}

    def read() -> Settings:
        return config.load(flags, os.environ)

    try:
        exit_status = run(read(), **args) if command else serve(read)
        sys.stdout.flush()
        return exit_status
    except (ArcError, SpoolFailed) as error:
        print(f"arc agent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `facts | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 1


def serve(read: Callable[[], Settings]) -> int:
    """Run the agent of this machine until SIGTERM or Ctrl-C."""
    started_by = os.getppid()  # asked first: `agent start` ends as soon as the lock is held
    from arc.agent import daemon, service

    settings = read()
    _log_to_stderr(settings.log_level)
    lock = daemon.hold_lock(settings.state_dir)
    try:
        agent = daemon.Agent(settings, read)
        agent.run()
    finally:
        os.close(lock)
    return service.begin_anew(started_by) if agent.shall_restart else 0


def init(settings: Settings, enrolment_token: str, systemd: bool, start: bool) -> int:
    """Enrol this machine, or just write its configuration, and perhaps install the service."""
    from arc.agent import enrol, service

    settings.require_server()
    enrolled = enrol.exchange(settings, enrolment_token) if enrolment_token else settings
    path = enrol.write_file(enrolled)
    print(f"{enrolled.identity}: configuration written to {path}")
    if systemd or (start and service.has_systemd()):
        print(f"service written to {service.install(path, settings.stop_timeout)}")
    if start and _holder(enrolled) is not None:
        stop(enrolled)  # it has the credential of before
    return start_agent(enrolled) if start else 0


def start_agent(settings: Settings) -> int:
    """Start the agent in the background: through systemd where its unit is installed, else as a process."""
    from arc.agent import service

    if _holder(settings) is not None:
        print("the agent runs already")
        return 0
    service.start(settings)
    deadline = time.monotonic() + START_S
    while (pid := _holder(settings)) is None:
        if time.monotonic() > deadline:
            print(f"arc agent: it does not run; see {service.log_path(settings)} or its journal", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)
    print(f"the agent runs, process {pid}")
    return 0


def stop(settings: Settings) -> int:
    """Stop the agent; what it runs may finish first."""
    import signal

    pid = _holder(settings)
    if pid is None:
        print("no agent runs")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.stop_timeout + START_S
    while _holder(settings) == pid:
        if time.monotonic() > deadline:
            print("arc agent: it still runs", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)
    print("the agent has stopped")
    return 0


def status(settings: Settings) -> int:
    """Say whether the agent runs: exit code 0 running, 3 stopped, 4 unknown."""
    from arc.agent import daemon

    try:
        pid = daemon.holder(settings.state_dir)
    except FileNotFoundError:
        pid = None
    except (OSError, ValueError) as error:
        print(f"unknown: {error}")
        return UNKNOWN
    print("stopped" if pid is None else f"running, process {pid}")
    return STOPPED if pid is None else RUNNING


def show_facts(settings: Settings) -> int:
    """Collect the facts of this machine once and print them as JSON."""
    import json

    from arc.agent import facts, plugins

    _log_to_stderr("error")
    found = facts.merged(facts.collect(facts.groups(settings, plugins.load(settings.plugin_dir))))
    shown = {name: value for name, value in found.items() if value is not None or not name.startswith("metadata_")}
    print(json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False))
    return 0


def show_plugins(settings: Settings) -> int:
    """List plug-ins and their actions."""
    from arc.agent import plugins

    found = plugins.load(settings.plugin_dir)
    width = max(map(len, [*found, "PLUGIN"]))
    print(f"{'PLUGIN':{width}}  {'STATE':8}  ACTIONS")
    for name, plugin in sorted(found.items()):
        state = "enabled" if plugin.is_enabled else "disabled"
        print(f"{name:{width}}  {state:8}  {', '.join([*plugin.actions, *plugins.SWITCHES])}")
    return 0


def run(
    settings: Settings, plugin: str, action: str, on_machine: str | None, timeout: int, payload: str | None, stdin: bool
) -> int:
    """Carry out one action, here or on another machine, and print its output as it comes."""
    from arc.agent import oneshot

    if timeout < 1:
        raise ConfigError("timeout needs to be a positive integer")
    if stdin and payload is not None:
        raise ConfigError("--stdin and --payload are mutually exclusive")
    text = sys.stdin.read() if stdin else payload or ""
    if on_machine is None:
        return oneshot.here(settings, plugin, action, text, timeout)
    settings.require_server()
    return oneshot.there(settings, on_machine, plugin, action, text, timeout)


def _holder(settings: Settings) -> int | None:
    from arc.agent import daemon

    try:
        return daemon.holder(settings.state_dir)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot use {settings.state_dir}: {error.strerror}") from None


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


def _all_options(parser: argparse.ArgumentParser) -> None:
    _options(parser, *config.BY_NAME)
    parser.add_argument("--version", "-v", action="version", version=__version__)


def _init_options(parser: argparse.ArgumentParser) -> None:
    _options(parser, *config.BY_NAME)
    parser.add_argument("--enrolment-token", default="", metavar="TOKEN", help="made by POST /api/v1/agents/init")
    parser.add_argument("--systemd", action="store_true", help="install a systemd unit, enabled")
    parser.add_argument("--start", action="store_true", help="start the agent, with systemd where there is one")


def _run_options(parser: argparse.ArgumentParser) -> None:
    _options(parser, "server", "token", "ca_cert", "install_dir", "plugin_dir")
    parser.add_argument("plugin", help="such as rpc or execute")
    parser.add_argument("action", help="such as ping or script")
    parser.add_argument(
        "--identity", "-i", dest="on_machine", metavar="MACHINE", help="do it there, by way of the server"
    )
    parser.add_argument("--timeout", "-t", type=int, default=60, metavar="S", help="seconds it may take; 60")
    parser.add_argument("--payload", "-p", metavar="TEXT", help="input of the action")
    parser.add_argument("--stdin", "-s", action="store_true", help="read the input of the action from standard input")


def _place_options(parser: argparse.ArgumentParser) -> None:
    _options(parser, "install_dir", "stop_timeout")


def _local_options(parser: argparse.ArgumentParser) -> None:
    _options(parser, "install_dir", "plugin_dir", "facts_dir", "identity", "metadata")


def _options(parser: argparse.ArgumentParser, *names: str) -> None:
    parser.add_argument("--config-file", "-c", metavar="FILE", help="configuration; INSTALL_DIR/arc.cfg unless given")
    for name in names:
        option = config.BY_NAME[name]
        if option.kind is bool:
            parser.add_argument(option.flag, action="store_true", default=None, help=option.meaning)
        else:
            default = f"; {option.default}" if option.default else ""
            parser.add_argument(option.flag, metavar=option.kind.__name__.upper(), help=option.meaning + default)


COMMANDS: dict[str, tuple[Callable[..., int], Callable[[argparse.ArgumentParser], Any]]] = {
    "": (serve, _all_options),
    "init": (init, _init_options),
    "start": (start_agent, _place_options),
    "stop": (stop, _place_options),
    "status": (status, _place_options),
    "facts": (show_facts, _local_options),
    "list": (show_plugins, _local_options),
    "run": (run, _run_options),
}
