"""Mounts of a task: what it may see of the host, and the form that the container engine takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc.runtimes.base import TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arc.runtimes.base import Mount

# Who can write to one of these is root of this host.
ENGINE_SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
)
FOREIGN_TYPES = ("tmpfs", "nfs", "nfs4", "cifs")  # of volumes: memory or another host's files, nothing of this host
BIND_FLAGS = {"bind", "rbind"}
CREATED_MODE = 0o707  # of a host directory that did not exist


@dataclass(frozen=True)
class BindPolicy:
    """allowed: whether tasks may mount directories of the host. sources: the only ones; empty is any but the engine's
    socket. sockets: more sockets that are refused unless listed."""

    allowed: bool = False
    sources: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()

    def resolve(self, source: str) -> Path:
        """Where the source leads, links and `..` followed. Raises TaskFailed when it is not allowed."""
        if not self.allowed:
            raise TaskFailed("bind mounts are not allowed")
        path = _real(source)
        listed = {_real(entry) for entry in self.sources}
        is_socket = any(_real(socket).is_relative_to(path) for socket in (*ENGINE_SOCKETS, *self.sockets))
        if not os.path.isabs(source) or (path not in listed and (listed or is_socket)):
            raise TaskFailed(f"src bind mount is not allowed: {source}")
        return path


def prepare(mount: Mount, policy: BindPolicy, new_volume: Callable[[Mount], str]) -> dict[str, Any]:
    """One entry of a container's mounts; creates the volume or host directory it needs. Raises TaskFailed."""
    if mount.type == "volume":
        _require(mount.target, "volume target is required")
        _check_options(mount.opts, policy)
        return {"Type": "volume", "Source": new_volume(mount), "Target": mount.target}
    if mount.type == "bind":
        _require(mount.target, "bind target is required")
        _require(mount.source, "bind source is required")
        path = policy.resolve(mount.source)
        _create(path)
        return {"Type": "bind", "Source": str(path), "Target": mount.target}
    if mount.type == "tmpfs":
        _require(mount.target, "tmpfs target is required")
        _require(not mount.source, "tmpfs source should be empty")
        return {"Type": "tmpfs", "Target": mount.target}
    raise TaskFailed(f"unknown mount type: {mount.type}")


def _check_options(opts: Mapping[str, str], policy: BindPolicy) -> None:
    """The options of a volume can mount whatever the host has: then the policy of bind mounts holds."""
    is_bind = not BIND_FLAGS.isdisjoint(opts.get("o", "").split(","))
    if is_bind or (set(opts) & {"type", "device"} and opts.get("type") not in FOREIGN_TYPES):
        policy.resolve(opts.get("device", ""))


def _require(condition: object, text: str) -> None:
    if not condition:
        raise TaskFailed(text)


def _create(path: Path) -> None:
    if path.exists():
        return
    try:
        path.mkdir(parents=True)
        path.chmod(CREATED_MODE)
    except OSError as exc:
        raise TaskFailed(f"error creating mount directory: {path}: {exc.strerror}") from exc


def _real(path: str) -> Path:
    return Path(os.path.realpath(path))
