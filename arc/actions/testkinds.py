"""Kinds that try the engine out: no effect on the node. Names and behaviour are those of the original agents."""

from __future__ import annotations

from typing import Any

from arc.actions.errors import FreeForm
from arc.actions.kinds import Context, Kind, Outcome, done, running
from arc.actions.records import seconds

SCOPE = "agent.replicante.io"

_PING_ARGS = {
    "type": ["object", "null"],
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 1, "description": "how many answers"}
    },
}
_LOOP_ARGS = {"properties": {"target": {"default": 10, "description": "how many steps; what is no number means 10"}}}


def kinds(*, with_debug: bool = False) -> list[Kind]:
    return [
        _kind("test.ping", "Answer `count` times, one per step", _ping, _PING_ARGS),
        _kind("test.loop", "Count up to `target`, one per step", _loop, _LOOP_ARGS),
        _kind("test.success", "End well at once", lambda context: done()),
        _kind("test.fail", "Fail at once", _fail),
        *(_debug_kinds() if with_debug else ()),
    ]


def _debug_kinds() -> list[Kind]:
    return [
        _kind("debug.success", "End well at once", lambda context: done()),
        _kind("debug.progress", "End well at the second step", _progress),
        _kind("debug.fail", "Fail at once", _fail),
    ]


def _kind(name: str, description: str, invoke: Any, args: dict[str, Any] | None = None) -> Kind:
    return Kind(
        f"{SCOPE}/{name}",
        description,
        invoke,
        args,
        aliases=(f"replicante.io/{name}", f"arc.edge/{name}"),
        is_mutating=False,
        is_original=True,
    )


def _ping(context: Context) -> Outcome:
    lines = [*(context.payload or ()), f"Pong at {seconds(context.now_us)}"]
    return running(lines) if len(lines) < context.args["count"] else done(lines)


def _loop(context: Context) -> Outcome:
    known = context.payload or {"count": 0, "target": _target(context.args)}
    count, target = known["count"] + 1, known["target"]
    payload = {"count": count, "target": target}
    return done(payload) if count >= target else running(payload)


def _target(args: Any) -> int:
    target = args.get("target") if isinstance(args, dict) else None
    return target if isinstance(target, int) and not isinstance(target, bool) and target >= 0 else 10


def _progress(context: Context) -> Outcome:
    return done() if context.payload is None and context.attempt > 1 else running()


def _fail(context: Context) -> Outcome:
    raise FreeForm("this kind fails, whatever it is asked")
