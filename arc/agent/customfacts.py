"""Custom facts: a directory of executables that print a JSON object, and of JSON files with one.

docs/agent.md describes it for those who write one.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import time
from typing import Any

from arc.agent.plugins import files_in

log = logging.getLogger(__name__)

TIME_LIMIT_S = 10.0  # for each executable
MAX_BYTES = 65_536  # of each
RESERVED = ("online",)


class CustomFacts:
    """collect() may be called again and again; what is wrong with a file is logged when it changes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._complaints: dict[str, str] = {}

    def collect(self) -> dict[str, Any]:
        """Of all files in the order of their names, so a later one wins."""
        facts: dict[str, Any] = {}
        for path in files_in(self._directory):
            try:
                facts |= _facts(_content(path))
                self._complaints.pop(path, None)
            except (OSError, ValueError) as error:
                if self._complaints.get(path) != str(error):
                    log.error("facts of %s: %s", path, error)
                self._complaints[path] = str(error)
        return facts


def _content(path: str) -> bytes:
    """Raises OSError, ValueError."""
    if path.endswith(".json"):
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    if not os.access(path, os.X_OK):
        raise ValueError("is neither a JSON file nor executable")
    with subprocess.Popen(
        [path], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    ) as process:
        deadline = time.monotonic() + TIME_LIMIT_S
        try:
            out = _output(process, deadline)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, TimeoutError):
            raise ValueError(f"took longer than {TIME_LIMIT_S:g} s") from None
        finally:
            if process.returncode is None:  # not reaped, so the group is still its own
                os.killpg(process.pid, signal.SIGKILL)
    if status != 0:
        raise ValueError(f"ended with status {status}")
    return out


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """All of it, or more than is allowed. Raises TimeoutError."""
    out, pipe = b"", process.stdout
    while pipe is not None and len(out) <= MAX_BYTES:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        block = pipe.read(MAX_BYTES)
        if not block:
            break
        out += block
    if len(out) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes")
    return out


def _facts(content: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes")
    try:
        found = json.loads(content)
        json.dumps(found, allow_nan=False)  # NaN and 1e999 can be read, but the server takes neither
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    if any(name in found for name in RESERVED):
        raise ValueError(f"names {', '.join(RESERVED)} are not free")
    return found
