"""Plug-in execute: a command, a script, or a program in an archive.

Source: the remote agents specification, section 7.5.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from arc.agent import processes
from arc.agent.errors import ActionFailed
from arc.agent.plugins import Plugin

if TYPE_CHECKING:
    from arc.agent.task import Task

SHELL = "/bin/bash"


class Execute(Plugin):
    name = "execute"
    actions = ("command", "script", "tarball")

    def command(self, task: Task) -> None:
        """Payload: a JSON array of strings, or text that is split at white space, without a shell."""
        processes.run(task, _words(task.payload))

    def script(self, task: Task) -> None:
        """Payload: the text of a script for bash."""
        if not task.payload:
            raise ActionFailed("empty payload")
        import tempfile  # here, because it loads shutil and the modules of all compressions

        descriptor, path = tempfile.mkstemp(".sh", processes.files_of(task.request_id))
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(task.payload)
            processes.run(task, [SHELL, path])
        finally:
            with contextlib.suppress(FileNotFoundError):  # scripts that remove themselves are common
                os.unlink(path)

    def tarball(self, task: Task) -> None:
        """Payload: a JSON object with `url`, `path`, and perhaps `arguments` and `environment`."""
        import tempfile

        from arc.agent import archives  # with tarfile and zipfile, which most agents never need

        wanted = _tarball(task.payload)
        task.heartbeat()
        files = processes.files_of(task.request_id)
        with tempfile.TemporaryDirectory(prefix=files, ignore_cleanup_errors=True) as directory:
            archives.fetch(wanted["url"], directory, task)
            program = archives.inside(directory, wanted["path"])
            processes.run(task, [program, *wanted["arguments"]], directory, wanted["environment"])


def _words(payload: str) -> list[str]:
    try:
        parsed = json.loads(payload)
    except (ValueError, RecursionError):
        parsed = payload
    is_array = isinstance(parsed, list) and all(isinstance(word, str) for word in parsed)
    words: list[str] = [] if parsed is None else parsed if is_array else payload.split()
    if not words:
        raise ActionFailed("invalid payload. Command should by a string or array")
    return words


def _tarball(payload: str) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ActionFailed(f"invalid json payload for tarball action: {error}") from None
    if not isinstance(fields, dict):
        raise ActionFailed("invalid json payload for tarball action: it must be an object")
    wanted = {"url": "", "path": "", "arguments": [], "environment": {}}
    wanted |= {name: value for name, value in fields.items() if name in wanted and value is not None}
    environment = wanted["environment"]
    checks = {
        "url": isinstance(wanted["url"], str),
        "path": isinstance(wanted["path"], str),
        "arguments": _are_texts(wanted["arguments"], list),
        "environment": isinstance(environment, dict) and _are_texts(list(environment.values()), list),
    }
    for name, is_right in checks.items():
        if not is_right:
            raise ActionFailed(f"invalid json payload for tarball action: {name} has the wrong type")
    return wanted


def _are_texts(values: Any, kind: type[Any]) -> bool:
    return isinstance(values, kind) and all(isinstance(value, str) for value in values)
