"""Waits until a sidecar answers: GET its port, published on this host's loopback interface, until status 200."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

from arc.runtimes.base import TaskFailed

if TYPE_CHECKING:
    from arc.runtimes.base import Deadline, Probe
    from arc.runtimes.engine import Engine
    from arc.runtimes.output import Output

HOST = "127.0.0.1"
PAUSE_S = 1.0
TRY_S = 3.0  # the longest one request may take


def wait_until_ready(engine: Engine, container: str, probe: Probe, deadline: Deadline, output: Output) -> None:
    """Raises TaskFailed when the container has ended or is not ready within the time of the probe."""
    failure = f"error waiting for container {container} to be ready"
    ends_at = time.monotonic() + probe.timeout_s
    while True:
        port = engine.published_port(container, probe.port)
        if port is None:
            raise TaskFailed(f"{failure}: it does not run")
        answer = _try(port, probe.path)
        if answer == "status code 200":
            return
        output.add(f"Probe for container {container} returned {answer}. Retrying...\n".encode())
        deadline.check()
        if time.monotonic() >= ends_at:
            raise TaskFailed(f"{failure}: probe timed out after {probe.timeout_s:g}s")
        deadline.stop.wait(min(PAUSE_S, ends_at - time.monotonic(), deadline.remaining_s() or PAUSE_S))


def _try(port: int, path: str) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=TRY_S)
    try:
        connection.request("GET", "/" + path.removeprefix("/"))
        return f"status code {connection.getresponse().status}"
    except (OSError, http.client.HTTPException) as exc:
        return str(exc) or type(exc).__name__
    finally:
        connection.close()
