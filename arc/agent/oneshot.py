"""One action for somebody at a terminal: in this process, or on another machine by way of the server.

Exit status: 0 complete; 1 failed, or the machine said nothing for longer than the action may take.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from arc.agent import plugins
from arc.agent.errors import ActionFailed
from arc.agent.executions import carry_out
from arc.agent.http import Connection, Url
from arc.agent.spool import new_id
from arc.agent.task import COMPLETE, EXECUTING, Owner, Task
from arc.errors import ConfigError, Denied, TimedOut, Unavailable

if TYPE_CHECKING:
    from arc.agent.config import Settings

SILENCE_S = 2.0  # beyond the time limit
LOOK_S = (0.1, 1.0)  # between two looks at the log: at first, at most


class _Terminal(Owner):
    def report(self, task: Task, state: str, text: str) -> None:
        try:
            _print(text)
        except BrokenPipeError:
            raise ActionFailed("nobody reads the output") from None


def here(settings: Settings, plugin: str, action: str, payload: str, timeout_s: int) -> int:
    """Raises ConfigError for what is no plug-in or action."""
    found = plugins.load(settings.plugin_dir)
    if plugin not in found or action not in (*found[plugin].actions, *plugins.SWITCHES):
        raise ConfigError("You need to provide a valid agent and action name")
    task = Task(new_id(), payload, timeout_s, _Terminal())
    try:
        state, text = carry_out(task, found, plugin, action)
    finally:
        task.close()
    _print(text)
    return _ended(state, text)


def there(settings: Settings, identity: str, plugin: str, action: str, payload: str, timeout_s: int) -> int:
    """Raises ArcError."""
    server = _Server(settings)
    command = {"to": identity, "timeout": timeout_s, "agent": plugin, "action": action, "payload": payload}
    try:
        request_id = server.ask("POST", "/api/v1/jobs", command)["request_id"]
        print(f"job {request_id}", file=sys.stderr)
        return _follow(server, request_id, timeout_s + SILENCE_S)
    finally:
        server.close()


def _follow(server: _Server, request_id: str, silence_s: float) -> int:
    text, after, pause_s, deadline = "", -1, LOOK_S[0], time.monotonic() + silence_s
    while time.monotonic() < deadline:
        status = server.ask("GET", f"/api/v1/jobs/{request_id}")["status"]  # first, so that the log is whole at its end
        found = server.ask("GET", f"/api/v1/jobs/{request_id}/log?after={after}", missing={"parts": []})
        for part in found["parts"]:
            text = part["content"]
            _print(text)
            after, pause_s, deadline = part["number"], LOOK_S[0], time.monotonic() + silence_s
        if status not in ("queued", EXECUTING):
            return _ended(status, text)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LOOK_S[1])
    raise TimedOut(f"no reply for {silence_s:g} s")


class _Server:
    def __init__(self, settings: Settings) -> None:
        self._prefix = Url.parse(settings.server).path.rstrip("/")
        self._connection = Connection(settings.server, settings.ca_cert)
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token}"

    def ask(self, method: str, path: str, body: Any = None, missing: Any = None) -> Any:
        """missing: what stands for a 404. Raises Denied, Unavailable."""
        content = b"" if body is None else json.dumps(body).encode()
        try:
            answer = self._connection.request(method, self._prefix + path, content, self._headers)
            if answer.status == 404 and missing is not None:
                return missing
            found = json.loads(answer.body)
        except (OSError, ValueError) as error:
            raise Unavailable(f"no answer: {error}") from None
        if answer.status != 200:
            kind = Denied if answer.status in (401, 403) else Unavailable
            raise kind(f"{answer.status} {answer.reason}: {found.get('error') or found.get('detail') or ''}")
        return found

    def close(self) -> None:
        self._connection.close()


def _ended(state: str, text: str) -> int:
    """text: what was printed last."""
    if text and not text.endswith("\n"):
        _print("\n")
    print(state, file=sys.stderr)
    return 0 if state == COMPLETE else 1


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
