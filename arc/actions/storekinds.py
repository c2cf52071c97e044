"""Kinds that look after the store of a node: flush, compact, backup, verify, and its graceful stop.

What they do is handed in; each runs in the background, so that the engine can stop meanwhile. All of them may be
repeated: when the process dies in one, the next process begins it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arc.actions.errors import VerifyFailed
from arc.actions.kinds import Context, Kind, Outcome, Stage, composite, done, failed
from arc.actions.schema import options

if TYPE_CHECKING:
    from arc.actions.host import Host
    from arc.actions.kinds import Invoke
    from arc.actions.schema import Schema

Task = Callable[[dict[str, Any]], dict[str, Any]]  # arguments with their defaults -> what the payload says at the end

MAX_ISSUES = 100  # that a payload lists
STORE_STOP = "replicante.io/store.stop"

_DATABASE = {"type": ["string", "null"], "default": None, "description": "one database; null means all"}
_MEASUREMENT = {"type": ["string", "null"], "default": None, "description": "one measurement; null means all"}
_TIER = {"enum": ["hourly", "daily"], "default": "hourly", "description": "small files, or middle ones"}
_METADATA = {"type": "boolean", "default": True, "description": "tokens and all else that is no metric"}
_CONFIG = {"type": "boolean", "default": False, "description": "options that differ from their defaults"}
_DRY_RUN = {"type": "boolean", "default": False, "description": "only count"}
_DEEP = {"type": "boolean", "default": False, "description": "read every file in full"}


def kinds(host: Host) -> list[Kind]:
    """Those whose work the host can do."""
    where = {"database": _DATABASE, "measurement": _MEASUREMENT}
    found = [
        _kind("flush", "Move buffered rows into files", options(**where), host.flush),
        _kind(
            "compact",
            "Merge small files into larger ones",
            options(**where, tier=_TIER),
            host.compact,
        ),
        _kind(
            "retention",
            "Remove rows that retention policies do not allow any more",
            options(database=_DATABASE, dry_run=_DRY_RUN),
            host.retain,
        ),
        _kind("verify", "Look for damage in the store", options(deep=_DEEP), host.verify, _judged),
        _kind("resume", "Take writes again after store.stop", options(), host.resume_store),
    ]
    return (
        [kind for kind in found if kind]
        + ([_backup(host.backup, host.check_backup)] if host.backup else [])
        + [_store_stop(host)]
    )


def graceful_stop(host: Host) -> Invoke | None:
    """The step that stops the store of this node; None when it has none."""
    return _step(host.stop_store, done) if host.stop_store else None


def _kind(
    name: str, description: str, args: Schema, task: Task | None, judge: Callable[[Any], Outcome] = done
) -> Kind | None:
    if task is None:
        return None
    return Kind(f"arc.edge/store.{name}", description, _step(task, judge), args, permission="actions:store")


def _backup(take: Task, check: Callable[[str], list[str]] | None) -> Kind:
    """take, then verify: a backup nobody has read is none."""
    stages = [Stage("take", _step(take, done))]
    if check:
        stages.append(Stage("verify", _verify_backup(check)))
    return composite(
        "arc.edge/store.backup",
        "Copy the whole store, and read the copy",
        stages,
        args=options(include_metadata=_METADATA, include_config=_CONFIG),
        permission="actions:store",
    )


def _store_stop(host: Host) -> Kind:
    step = graceful_stop(host) or (lambda context: done("this node has no store to stop"))
    return Kind(
        STORE_STOP,
        "Take no more writes and make all of them durable",
        step,
        is_original=True,
        permission="actions:store",
    )


def _step(task: Task, judge: Callable[[Any], Outcome]) -> Invoke:
    def step(context: Context) -> Outcome | None:
        is_finished, payload = context.in_background(lambda: task(context.args or {}), context.kind)
        return judge(payload) if is_finished else None

    return step


def _verify_backup(check: Callable[[str], list[str]]) -> Invoke:
    def step(context: Context) -> Outcome | None:
        is_finished, issues = context.in_background(lambda: check(context.payload["backup_id"]), "verify")
        if not is_finished:
            return None
        if issues:
            raise VerifyFailed(f"the backup is damaged: {issues[0]}")
        return done(context.payload)

    return step


def _judged(found: dict[str, Any]) -> Outcome:
    """found: `checked` and `issues`."""
    issues = found["issues"]
    payload = found | {"issues": issues[:MAX_ISSUES], "issue_count": len(issues)}
    if not issues:
        return done(payload)
    return failed(payload | {"error": f"{len(issues)} issues were found", "variant": VerifyFailed.__name__})
