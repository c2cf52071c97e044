"""Kinds that start, stop and restart services, through systemd or configured commands.

A step asks the supervisor once and then looks, once per invocation, until the service is as it should be or the looks
are used up. A restart of the service that this very process belongs to is one request to the supervisor, made when the
record is on disk; the process that comes after it finishes the action.
"""

from __future__ import annotations

import fnmatch
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from arc.actions import commands
from arc.actions.errors import InvalidArgs, ServiceOpFailed
from arc.actions.kinds import Context, Kind, Outcome, Stage, composite, done, failed, running
from arc.actions.records import State
from arc.actions.schema import options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arc.actions.records import Json

COMMAND_S = 10.0  # seconds a supervisor may take to answer
WAIT_S = 30  # seconds a service may take to start or stop
ORIGINAL_SCOPE = "replicante.io"
UNIT_PATTERN = r"^(?!-)[A-Za-z0-9:_.@\\-]{1,128}$"


class Supervisor(Protocol):
    """Raises ServiceOpFailed."""

    def pid(self) -> str | None:
        """None: the service does not run."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def restart(self) -> None: ...


@dataclass(frozen=True)
class Systemd:
    """A unit of systemd; is_user: of the user's instance."""

    unit: str
    is_user: bool = False
    running_states: tuple[str, ...] = ("running",)

    def pid(self) -> str | None:
        shown = self.show("MainPID", "SubState")
        return shown["MainPID"] if shown["SubState"] in self.running_states else None

    def start(self) -> None:
        self._call("start", "--no-block")

    def stop(self) -> None:
        self._call("stop", "--no-block")

    def restart(self) -> None:
        self._call("restart", "--no-block")

    def reload(self) -> None:
        self._call("reload", "--no-block")

    def show(self, *properties: str) -> dict[str, str]:
        lines = self._call("show", f"--property={','.join(properties)}").splitlines()
        return dict.fromkeys(properties, "") | {
            name: value for name, _, value in (line.partition("=") for line in lines)
        }

    def _call(self, verb: str, *flags: str) -> str:
        user = ("--user",) if self.is_user else ()
        return _ask(["systemctl", *user, verb, *flags, "--", self.unit])


@dataclass(frozen=True)
class Commands:
    """A service under the care of three commands. pid_command prints a process id, or nothing."""

    pid_command: Sequence[str]
    start_command: Sequence[str]
    stop_command: Sequence[str]

    def pid(self) -> str | None:
        return _ask(self.pid_command).strip() or None

    def start(self) -> None:
        _ask(self.start_command)

    def stop(self) -> None:
        _ask(self.stop_command)

    def restart(self) -> None:
        raise ServiceOpFailed("the service is this very agent, and commands cannot restart what runs them")


@dataclass(frozen=True)
class Steps:
    """The steps of one service, or of the one that the arguments name.

    find: the supervisor. wait_s: how long it may take. note: members that each payload gets.
    """

    find: Callable[[Json], Supervisor]
    wait_s: Callable[[Json], float] = lambda args: WAIT_S
    note: Callable[[Json], dict[str, Json]] = lambda args: {}

    def start(self, context: Context) -> Outcome:
        supervisor = self.find(context.args)
        if context.state is State.NEW:
            supervisor.start()
        return self._look(context, supervisor.pid(), should_run=True)

    def stop(self, context: Context) -> Outcome:
        supervisor = self.find(context.args)
        if context.state is State.NEW:
            supervisor.stop()
        return self._look(context, supervisor.pid(), should_run=False)

    def stop_to_restart(self, context: Context) -> Outcome:
        """As stop(), unless the service is this process."""
        asked_by = (context.payload or {}).get("instance")
        if asked_by is None:
            pid = self.find(context.args).pid() if context.state is State.NEW else None
            return self._restart_self(context, pid) if pid == str(os.getpid()) else self.stop(context)
        if asked_by != context.instance:
            return done(self._payload(context, 0, "the agent was restarted", None))
        return self._once_more(context, str(os.getpid()), {"instance": asked_by})

    def settle(self, context: Context) -> Outcome | None:
        """Still the same process after a while?"""
        pid = self.find(context.args).pid()
        known = context.payload or {}
        if pid is None or pid != known.get("pid"):
            restarts = 1 if pid else 0
            return failed(known | {"message": "the service did not stay up", "pid": pid, "restarts_seen": restarts})
        if "settle_from_s" not in known:
            return running(known | {"settle_from_s": context.running_s})
        if context.running_s - known["settle_from_s"] < context.args["settle_s"]:
            return None
        return done({name: known[name] for name in known if name != "settle_from_s"} | {"restarts_seen": 0})

    def _restart_self(self, context: Context, pid: str) -> Outcome:
        payload = self._payload(context, 0, "asked to restart the agent itself", pid) | {"instance": context.instance}
        return running(payload, then=self.find(context.args).restart)

    def _look(self, context: Context, pid: str | None, should_run: bool) -> Outcome:
        if (pid is not None) == should_run:
            message = "the service is running" if should_run else "the service is not running"
            return done(self._payload(context, self._attempt(context), message, pid))
        return self._once_more(context, pid, {})

    def _once_more(self, context: Context, pid: str | None, more: dict[str, Json]) -> Outcome:
        attempt = self._attempt(context)
        if attempt >= math.ceil(self.wait_s(context.args) / context.interval_s):
            return failed(self._payload(context, attempt, "the service took too long", pid) | more)
        return running(self._payload(context, attempt + 1, None, pid) | more)

    def _attempt(self, context: Context) -> int:
        return 0 if context.state is State.NEW else int((context.payload or {}).get("attempt", 0))

    def _payload(self, context: Context, attempt: int, message: str | None, pid: str | None) -> dict[str, Json]:
        return {"attempt": attempt, "message": message, "pid": pid} | self.note(context.args)


def _no_graceful(context: Context) -> Outcome:
    return done("this node has no graceful stop of its store")


def original_kinds(supervisor: Supervisor, wait_s: float, graceful: Any = None) -> list[Kind]:
    """`replicante.io/service.*`: the one service that is configured. graceful: the step that stops its store."""
    steps = Steps(lambda args: supervisor, lambda args: wait_s)
    first = Stage("graceful", graceful or _no_graceful)
    stop, start = Stage("stop", steps.stop), Stage("start", steps.start)
    restart = Stage("stop", steps.stop_to_restart)
    rest: dict[str, Any] = {"permission": "actions:service", "is_original": True}
    scoped: dict[str, Any] = {"args": {"type": ["object", "null"]}, "is_scoped": True} | rest
    name = f"{ORIGINAL_SCOPE}/service"
    return [
        Kind(f"{name}.start", "Start the service", steps.start, **rest),
        Kind(f"{name}.stop", "Stop the service", steps.stop, **rest),
        composite(f"{name}.restart", "Stop and start the service", (restart, start), **scoped),
        composite(f"{name}.graceful.stop", "Stop the store in good order, then the service", (first, stop), **scoped),
        composite(
            f"{name}.graceful.restart",
            "Stop the store in good order, then stop and start the service",
            (first, restart, start),
            aliases=(f"{name}.gracefulrestart",),
            **scoped,
        ),
    ]


def unit_kinds(allowed: Sequence[str]) -> list[Kind]:
    """`arc.edge/service.*`: any unit of systemd whose name matches a pattern of the allow-list."""
    steps = Steps(_unit_of, lambda args: float(args["timeout_s"]), lambda args: {"unit": args["unit"]})
    unit = {"type": "string", "pattern": UNIT_PATTERN, "description": "name of the unit, such as nginx.service"}
    scope = {"enum": ["system", "user"], "default": "system", "description": "whose systemd"}
    timeout = {"type": "integer", "minimum": 1, "maximum": 600, "default": WAIT_S, "description": "seconds"}
    settle = {"type": "integer", "minimum": 0, "maximum": 60, "default": 5, "description": "seconds it must stay up"}
    which = options("unit", unit=unit, scope=scope)
    args = options("unit", unit=unit, scope=scope, timeout_s=timeout)
    rest: dict[str, Any] = {"permission": "actions:service"}

    def check(args: Json) -> None:
        if not any(fnmatch.fnmatchcase(args["unit"], pattern) for pattern in allowed):
            raise InvalidArgs("args.unit", f"a unit that may be managed: {', '.join(allowed) or 'there is none'}")

    def check_stop(args: Json) -> None:
        check(args)
        if args["unit"].removesuffix(".service") + ".service" == own_unit():
            raise InvalidArgs("args.unit", "another unit than the agent's own, which nothing would start again")

    name = "arc.edge/service"
    return [
        Kind(f"{name}.start", "Start a unit", steps.start, args, check, **rest),
        Kind(f"{name}.stop", "Stop a unit", steps.stop, args, check_stop, **rest),
        composite(
            f"{name}.restart",
            "Stop and start a unit, and see that it stays up",
            (Stage("stop", steps.stop_to_restart), Stage("start", steps.start), Stage("settle", steps.settle)),
            args=options("unit", unit=unit, scope=scope, timeout_s=timeout, settle_s=settle),
            check=check,
            **rest,
        ),
        Kind(f"{name}.reload", "Have a unit read its configuration again", _reload, which, check, **rest),
        Kind(
            f"{name}.status",
            "State, process and memory of a unit",
            _status,
            which,
            check,
            is_mutating=False,
        ),
    ]


def own_unit() -> str:
    """The unit of systemd that this process belongs to; empty when there is none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = file.read().split()
    except OSError:
        return ""
    last = groups[-1].rpartition("/")[2] if groups else ""
    return last if last.endswith(".service") else ""


def _unit_of(args: Json) -> Systemd:
    return Systemd(args["unit"], args.get("scope") == "user")


def _reload(context: Context) -> Outcome:
    _unit_of(context.args).reload()
    return done({"message": "asked to reload"})


def _status(context: Context) -> Outcome:
    shown = _unit_of(context.args).show("ActiveState", "SubState", "MainPID", "StateChangeTimestamp", "MemoryCurrent")
    memory = shown["MemoryCurrent"]
    return done(
        {
            "active_state": shown["ActiveState"],
            "sub_state": shown["SubState"],
            "pid": shown["MainPID"] if shown["MainPID"] not in ("", "0") else None,
            "since": shown["StateChangeTimestamp"] or None,
            "memory_bytes": int(memory) if memory.isdecimal() else None,
        }
    )


def _ask(argv: Sequence[str]) -> str:
    try:
        result = commands.run(argv, COMMAND_S)
    except (OSError, ValueError) as error:
        raise ServiceOpFailed(f"{argv[0] if argv else 'nothing'} cannot be run: {error}") from error
    if not result.is_good:
        raise ServiceOpFailed(f"{' '.join(argv)} {result}")
    return result.stdout
