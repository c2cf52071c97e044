"""`arc.edge/exec`: a command of an allow-list. No shell, ever: what is not on the list cannot be run.

The process belongs to the one that started it, which waits for it when it is told to stop. When it dies, nobody learns
how the command ended: what is left of it is ended too, and the action fails as Interrupted.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc.actions import commands
from arc.actions.errors import Cancelled, ExitStatus, Interrupted, InvalidArgs, Timeout
from arc.actions.kinds import Context, Kind, Outcome, Stage, composite, done, failed
from arc.actions.schema import options
from arc.actions.store import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc.actions.records import Json

SHOWN_BYTES = 28_000  # of each stream as JSON, so that both fit into a payload


@dataclass(frozen=True)
class Allowed:
    """A command that may be run. argv: its fixed head; args: one expression per argument that may follow.

    env: names of variables that a caller may set. ok_codes: exit statuses that are no failure.
    """

    argv: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ok_codes: tuple[int, ...] = (0,)
    timeout_max_s: int = 3600
    description: str = ""


def kind(allowed: Mapping[str, Allowed]) -> Kind:
    """The one kind that runs all of them."""
    steps = _Exec(allowed)
    listed = "; ".join(f"{name}: {each.description or ' '.join(each.argv)}" for name, each in sorted(allowed.items()))
    return composite(
        "arc.edge/exec",
        "Run a command that the configuration allows",
        (Stage("start", steps.start), Stage("wait", steps.wait)),
        args=options(
            "command",
            command={"enum": sorted(allowed), "description": listed},
            args={
                "type": "array",
                "items": {"type": "string"},
                "maxItems": 32,
                "default": [],
                "description": "the rest",
            },
            env={
                "type": "object",
                "additionalProperties": {"type": "string"},
                "default": {},
                "description": "variables; masked when shown",
                "x-secret": True,
            },
            stdin={
                "type": "string",
                "maxLength": 65_536,
                "default": "",
                "description": "masked when shown",
                "x-secret": True,
            },
            timeout_s={"type": "integer", "minimum": 1, "maximum": 3600, "default": 60, "description": "seconds"},
        ),
        check=steps.check,
        permission="actions:exec",
        is_cancellable=True,
        is_held=steps.is_running,
    )


class _Exec:
    def __init__(self, allowed: Mapping[str, Allowed]) -> None:
        self._allowed = allowed
        self._started: dict[str, commands.Command] = {}

    def is_running(self, action_id: str) -> bool:
        return action_id in self._started

    def check(self, args: Json) -> None:
        allowed = self._allowed[args["command"]]
        if len(args["args"]) > len(allowed.args):
            raise InvalidArgs("args.args", f"at most {len(allowed.args)} arguments for {args['command']}")
        for index, (pattern, text) in enumerate(zip(allowed.args, args["args"], strict=False)):
            if not re.fullmatch(pattern, text) or "\0" in text:
                raise InvalidArgs(f"args.args.{index}", f"a text of the form {pattern}")
        for name, value in args["env"].items():
            if name not in allowed.env or "\0" in value:
                raise InvalidArgs(f"args.env.{name[:60]}", f"one of {', '.join(allowed.env) or 'no variables'}")
        if args["timeout_s"] > allowed.timeout_max_s:
            raise InvalidArgs("args.timeout_s", f"at most {allowed.timeout_max_s} for {args['command']}")

    def start(self, context: Context) -> Outcome:
        if context.is_recovered:
            raise Interrupted
        args = context.args
        argv = [*self._allowed[args["command"]].argv, *args["args"]]
        command = commands.Command(argv, args["stdin"].encode(errors="replace"), args["env"])
        self._started[context.id] = command
        return done({"pid": command.pid, "started_at": _started_at(command.pid)})

    def wait(self, context: Context) -> Outcome | None:
        command = self._started.get(context.id)
        if command is None:
            _end_left_over(context.payload)
            raise Interrupted
        if context.cancel_reason is not None:
            command.cancel()
        is_finished, result = context.in_background(lambda: command.wait(context.args["timeout_s"]), "exec")
        if not is_finished:
            return None
        del self._started[context.id]
        return self._judged(context, result)

    def _judged(self, context: Context, result: commands.Result) -> Outcome:
        stdout, stderr = _end_of(result.stdout), _end_of(result.stderr)
        payload = {
            "exit_code": result.status if result.status >= 0 else None,
            "signal": -result.status if result.status < 0 else None,
            "stdout": stdout,
            "stderr": stderr,
            "truncated": result.is_truncated or (stdout, stderr) != (result.stdout, result.stderr),
            "duration_s": round(result.duration_s, 3),
        }
        ok_codes = self._allowed[context.args["command"]].ok_codes
        if result.ended == "exit" and result.status in ok_codes:
            return done(payload)
        variant = {"exit": ExitStatus, "timeout": Timeout, "cancel": Cancelled}[result.ended]
        how = {"exit": f"ended with status {result.status}", "timeout": "took too long", "cancel": "was cancelled"}
        return failed(payload | {"error": f"the command {how[result.ended]}", "variant": variant.__name__})


def _end_of(text: str) -> str:
    """As much of the end as a payload has room for."""
    while (size := len(encode(text))) > SHOWN_BYTES:
        text = text[len(text) - len(text) * SHOWN_BYTES // size :]
    return text


def _started_at(pid: int) -> float | None:
    import psutil  # a megabyte that only this needs

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _end_left_over(payload: Json) -> None:
    """End the group of a command whose starter died; its leader still has the start time that was noted."""
    started_at = _started_at(payload["pid"])
    if started_at is not None and abs(started_at - (payload["started_at"] or 0)) < 1:
        try:
            os.killpg(payload["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass
