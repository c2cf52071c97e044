"""Kinds that change the node itself: log level, configuration, restart and update of the agent, reboot, shutdown.

What ends this very process is called when the record says that it was asked for; a later process sees from an id
(of the process, of the boot) that it has happened, and finishes the action.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arc import clock
from arc.actions import commands
from arc.actions.errors import ExitStatus, InvalidArgs, InvalidConfig, Timeout, VerifyFailed
from arc.actions.kinds import Context, Kind, Outcome, Stage, composite, done, failed, running
from arc.actions.schema import options
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arc.actions.host import Host
    from arc.actions.records import Json

RESTART_S = 120.0  # seconds within which a new process must have taken over
UPDATE_S = 900.0  # seconds an update command may take
RELOAD = "arc.edge/config.reload"
REBOOT_COOLDOWN_S = 600.0  # seconds between two reboots
LEVELS = ["debug", "info", "warning", "error", "critical"]

_DELAY = {"type": "integer", "minimum": 0, "default": 1, "description": "seconds to wait before"}
_REASON = {"type": "string", "minLength": 1, "maxLength": 200, "description": "why, for the history"}


def kinds(
    host: Host,
    reboot: Callable[[], None] | None = None,
    update_command: Sequence[str] = (),
    shut_down: Callable[[], None] | None = None,
) -> list[Kind]:
    """Those that the node can do. update_command: gets the version as its last argument."""
    found = [log_level()]
    if host.reload:
        found.append(_reload(host.reload))
    if host.refresh_facts:
        found.append(_refresh_facts(host.refresh_facts))
    if host.restart:
        found.append(_restart(host, host.restart))
    if host.restart and update_command:
        found.append(_update(host, host.restart, update_command))
    if reboot:
        found.append(_reboot(host, reboot))
    if shut_down:
        found.append(_shutdown(host, shut_down))
    return found


# --- log level


class LogLevels:
    """Levels set for a while. timer: as threading.Timer."""

    def __init__(self, timer: Callable[[float, Callable[[], None]], threading.Timer] = threading.Timer) -> None:
        self._new_timer = timer
        self._running: dict[str, tuple[threading.Timer, int]] = {}  # by logger: until when, and back to which level

    def __call__(self, context: Context) -> Outcome:
        name, ttl_s = context.args["logger"] or "", context.args["ttl_s"]
        previous = logging.getLevelName(logging.getLogger(name).getEffectiveLevel()).lower()
        before = self.set(name, context.args["level"])
        if ttl_s:
            self._revert_later(name, before, ttl_s)
        until = clock.rfc3339(context.now_us + ttl_s * clock.US_PER_S) if ttl_s else None
        return done({"previous": previous, "current": context.args["level"], "reverts_at": until})

    def set(self, name: str, level: str) -> int:
        """Set the level of a logger for good; returns the one that was set for good before."""
        logger = logging.getLogger(name)
        timer, before = self._running.pop(name, (None, logger.level))
        if timer:
            timer.cancel()
        logger.setLevel(level.upper())
        return before

    def _revert_later(self, name: str, level: int, ttl_s: float) -> None:
        def revert() -> None:
            self._running.pop(name, None)
            logging.getLogger(name).setLevel(level)

        timer = self._new_timer(ttl_s, revert)
        timer.daemon = True
        timer.start()
        self._running[name] = (timer, level)


log_levels = LogLevels()  # of the process, as its loggers are


def log_level() -> Kind:
    level = {"enum": LEVELS, "description": "least level that is logged"}
    logger = {"type": ["string", "null"], "default": None, "description": "part of Arc, such as arc.fleet; null: all"}
    ttl = {
        "type": "integer",
        "minimum": 0,
        "maximum": 86_400,
        "default": 3600,
        "description": "seconds; 0: for good",
    }
    args = options("level", level=level, logger=logger, ttl_s=ttl)
    return Kind("arc.edge/agent.loglevel", "Log more or less for a while", log_levels, args)


def _refresh_facts(refresh: Callable[[], None]) -> Kind:
    def step(context: Context) -> Outcome:
        refresh()
        return done({"message": "all facts are looked for and sent again"})

    return Kind("arc.edge/facts.refresh", "Look for all facts again and send them", step, options())


# --- configuration


@dataclass(frozen=True)
class Reload:
    """What a configuration that has been read anew differs in.

    changed: keys that apply() puts in force; requires_restart: those that only a start reads.
    """

    changed: list[str]
    requires_restart: list[str]
    unchanged_count: int
    apply: Callable[[], None]

    def as_dict(self) -> dict[str, Json]:
        return {name: value for name, value in vars(self).items() if name != "apply"}


def _reload(read: Callable[[], Reload]) -> Kind:
    checked: dict[str, Reload] = {}  # by action; a process that knows of none has read everything at its start

    def check(context: Context) -> Outcome:
        try:
            checked[context.id] = found = read()
        except ConfigError as error:
            raise InvalidConfig(str(error)) from None
        return done(found.as_dict())

    def apply(context: Context) -> Outcome:
        found = checked.pop(context.id, None)
        if found and not context.args["dry_run"]:
            found.apply()
        return done(context.payload)

    dry_run = {"type": "boolean", "default": False, "description": "only say what would change"}
    return composite(
        RELOAD,
        "Read the configuration again and put in force what needs no restart",
        (Stage("check", check), Stage("apply", apply)),
        args=options(dry_run=dry_run),
        permission="actions:config",
    )


# --- restart and update of the agent


def _restart(host: Host, restart: Callable[[], None]) -> Kind:
    drain = {"type": "boolean", "default": True, "description": "finish first what the node is doing"}
    return composite(
        "arc.edge/agent.restart",
        "Restart this process",
        (
            Stage("drain", lambda context: _drained(host, context)),
            Stage("restart", lambda context: _ask_to_restart(context, restart)),
            Stage("verify", _verify_restart),
        ),
        args=options(delay_s=_DELAY | {"maximum": 300}, drain=drain),
        permission="actions:power",
    )


def _update(host: Host, restart: Callable[[], None], command: Sequence[str]) -> Kind:
    version = {
        "type": "string",
        "pattern": r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$",
        "description": "the one to have",
    }

    def verify(context: Context) -> Outcome | None:
        outcome = _verify_restart(context)
        if outcome and host.version != context.args["version"]:
            raise VerifyFailed(f"version {host.version} runs after the update to {context.args['version']}")
        return outcome

    return composite(
        "arc.edge/agent.update",
        "Install another version of Arc, restart, and see that it runs",
        (
            Stage("install", lambda context: _install(context, [*command, context.args["version"]])),
            Stage("restart", lambda context: _ask_to_restart(context, restart)),
            Stage("verify", verify),
        ),
        args=options("version", version=version),
        permission="actions:power",
    )


def _drained(host: Host, context: Context) -> Outcome | None:
    return done() if not context.args["drain"] or host.drain() else None


def _install(context: Context, argv: Sequence[str]) -> Outcome | None:
    is_finished, result = context.in_background(lambda: commands.run(argv, UPDATE_S), "install")
    if not is_finished:
        return None
    if not result.is_good:
        raise (ExitStatus if result.ended == "exit" else Timeout)(f"{argv[0]} {result}")
    return done({"output": result.stdout[-4000:]})


def _ask_to_restart(context: Context, restart: Callable[[], None]) -> Outcome:
    payload = dict(context.payload or {})
    if delay_s := (context.args or {}).get("delay_s", 0) if "delayed" not in payload else 0:
        return running(payload | {"delayed": True}, pause_s=delay_s)
    payload.pop("delayed", None)
    payload |= {"old_instance": context.instance, "old_pid": os.getpid()} | _asked_now(context)
    return done(payload, pause_s=context.interval_s, then=restart)


def _verify_restart(context: Context) -> Outcome | None:
    asked = context.payload
    if context.instance != asked["old_instance"]:
        return done(_finished(context, {"new_instance": context.instance, "new_pid": os.getpid()}))
    if context.running_s - asked["asked_s"] > RESTART_S:
        return failed(asked | {"message": f"the same process runs {RESTART_S:.0f} s after it was asked to restart"})
    return None


# --- reboot and shutdown


def _reboot(host: Host, reboot: Callable[[], None]) -> Kind:
    args = options(
        "reason",
        reason=_REASON,
        delay_s=_DELAY | {"maximum": 600, "default": 5},
        max_wait_s={
            "type": "integer",
            "minimum": 60,
            "maximum": 3600,
            "default": 600,
            "description": "seconds till up",
        },
    )
    return composite(
        "arc.edge/node.reboot",
        "Reboot this machine, and see that it came up again",
        (
            Stage("prepare", lambda context: _prepare_reboot(host, context)),
            Stage("reboot", lambda context: _ask_to_reboot(context, reboot)),
            Stage("verify", lambda context: _verify_reboot(host, context, reboot)),
        ),
        args=args,
        permission="actions:power",
        cooldown_s=REBOOT_COOLDOWN_S,
    )


def _prepare_reboot(host: Host, context: Context) -> Outcome | None:
    return done({"old_boot_id": host.boot_id()}) if _is_flushed(host, context) else None


def _is_flushed(host: Host, context: Context) -> bool:
    flush = host.flush or (lambda args: args)
    return context.in_background(lambda: flush({"database": None, "measurement": None}))[0]


def _ask_to_reboot(context: Context, reboot: Callable[[], None]) -> Outcome:
    payload = dict(context.payload)
    if delay_s := context.args["delay_s"] if "delayed" not in payload else 0:
        return running(payload | {"delayed": True}, pause_s=delay_s)
    payload.pop("delayed", None)
    payload |= {"instance": context.instance} | _asked_now(context)
    return done(payload, pause_s=context.interval_s, then=reboot)


def _verify_reboot(host: Host, context: Context, reboot: Callable[[], None]) -> Outcome | None:
    asked = context.payload
    boot_id = host.boot_id()
    if boot_id != asked["old_boot_id"]:
        return done(_finished(context, {"new_boot_id": boot_id}))
    if context.running_s - asked["asked_s"] > context.args["max_wait_s"]:
        return failed(asked | {"message": f"not rebooted within {context.args['max_wait_s']} s"})
    if context.instance != asked["instance"]:  # this process came between the record and the command
        return running(asked | {"instance": context.instance}, then=reboot)
    return None


def _shutdown(host: Host, shut_down: Callable[[], None]) -> Kind:
    def check(args: Json) -> None:
        if args["confirm"] != host.node_id:
            raise InvalidArgs("args.confirm", f"the id of this node, {host.node_id}")

    message = {"message": "asked to shut down"}
    return composite(
        "arc.edge/node.shutdown",
        "Switch this machine off",
        (
            Stage("prepare", lambda context: done() if _is_flushed(host, context) else None),
            Stage("shutdown", lambda context: done(message, then=shut_down)),
        ),
        args=options(
            "reason", "confirm", reason=_REASON, confirm={"type": "string", "description": "the id of the node"}
        ),
        check=check,
        permission="admin",
        on_crash="fail",
    )


def _asked_now(context: Context) -> dict[str, Json]:
    return {"asked_at": context.now_us, "asked_s": context.running_s}


def _finished(context: Context, found: dict[str, Json]) -> dict[str, Any]:
    """The payload at the end: without what was only noted on the way."""
    kept = {name: value for name, value in context.payload.items() if name not in ("asked_at", "asked_s", "instance")}
    down_s = max(0, context.now_us - context.payload["asked_at"]) / clock.US_PER_S
    return kept | found | {"down_s": round(down_s, 1)}
