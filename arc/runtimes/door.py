"""Where the container engine is and whether somebody listens there, found out without its SDK.

The SDK takes 20 MB and 0.2 s to load, which a server on a host without an engine saves.
"""

from __future__ import annotations

import os
import socket

from arc.runtimes.base import RuntimeUnavailable

CONNECT_S = 5.0  # seconds for the first answer


def address_of(host: str) -> str:
    """The engine's address. host: as configured; empty for DOCKER_HOST or the usual socket."""
    return host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def knock(address: str) -> None:
    """Raises RuntimeUnavailable when nobody listens at a socket. The SDK notices too, but leaves its own open."""
    if not address.startswith("unix://"):
        return
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(CONNECT_S)
            door.connect(address.removeprefix("unix://"))
    except OSError as exc:
        raise unavailable(address, exc) from exc


def unavailable(address: str, cause: object) -> RuntimeUnavailable:
    return RuntimeUnavailable(f"no container engine answers at {address}: {cause}")
