"""The record of a task -> the work a runtime is handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arc.clock import US_PER_S
from arc.jobs.durations import parse_duration
from arc.jobs.planning import CONTAINER
from arc.runtimes.base import Limits, Mount, Probe, Registry, Sidecar, Step, Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc.jobs.records import Task

    Definition = Mapping[str, Any]


@dataclass(frozen=True)
class WorkDefaults:
    """For tasks that do not say it themselves. cpus, memory: of containers; timeout: as in a document."""

    cpus: str = ""
    memory: str = ""
    timeout: str = ""


def work_of(task: Task, defaults: WorkDefaults) -> Work:
    """Raises Invalid for a duration that is none."""
    definition = task.definition
    return Work(
        task_id=task.id,
        job_id=task.job_id,
        main=_step(definition),
        pre=tuple(_step(step, step.get("timeout")) for step in definition.get("pre") or ()),
        post=tuple(_step(step, step.get("timeout")) for step in definition.get("post") or ()),
        sidecars=tuple(map(_sidecar, definition.get("sidecars") or ())),
        mounts=tuple(Mount(**mount) for mount in definition.get("mounts") or ()),
        networks=tuple(definition.get("networks") or ()),
        limits=_limits(definition.get("limits") or {}, defaults if task.runtime == CONTAINER else WorkDefaults()),
        gpus=definition.get("gpus") or "",
        workdir=definition.get("workdir") or "",
        timeout_s=_seconds(definition.get("timeout") or defaults.timeout),
    )


def _step(definition: Definition, timeout: str | None = None) -> Step:
    """The timeout of the main step is that of the whole task."""
    registry = definition.get("registry") or {}
    return Step(
        name=definition["name"],
        image=definition.get("image") or "",
        run=definition.get("run") or "",
        cmd=tuple(definition.get("cmd") or ()),
        entrypoint=tuple(definition.get("entrypoint") or ()),
        env=definition.get("env") or {},
        files=definition.get("files") or {},
        registry=Registry(registry.get("username", ""), registry.get("password", "")) if registry else None,
        timeout_s=_seconds(timeout),
    )


def _sidecar(definition: Definition) -> Sidecar:
    probe = definition.get("probe")
    step = _step(definition, definition.get("timeout"))
    if not probe:
        return Sidecar(step)
    timeout_s = _seconds(probe.get("timeout"))
    return Sidecar(step, Probe(probe["path"], probe["port"], 60.0 if timeout_s is None else timeout_s))


def _limits(given: Definition, defaults: WorkDefaults) -> Limits:
    return Limits(given.get("cpus") or defaults.cpus, given.get("memory") or defaults.memory)


def _seconds(duration: str | None) -> float | None:
    return parse_duration(duration) / US_PER_S if duration else None
