"""Real agents for tests: `python arc.py agent` as processes, enrolled at a real server.

Edge(server, dir, name).enrol().start() -> run(...) through the server's API -> stop() (SIGTERM) or kill9()
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.integration.server import LAUNCHER, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.integration.server import ArcServer, Connection

FINAL = ("complete", "failed")
QUICK = {"facts-interval": "0.5", "metrics-interval": "0.5", "poll-time": "5", "log-level": "debug"}


def enrolment_token(admin: Connection, **subject: str) -> str:
    answer = admin.request("POST", "/api/v1/agents/init", subject)
    assert answer.status == 200, answer.body
    token: str = answer.json()["token"]
    return token


class Edge:
    """One agent. prefix: command in front, such as `ip netns exec NAME`. url: how it reaches the server.

    program: what Python runs.
    """

    def __init__(
        self,
        server: ArcServer,
        directory: Path,
        identity: str,
        options: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        url: str | None = None,
        program: str = LAUNCHER,
    ) -> None:
        self.server = server
        self.identity = identity
        self.directory = directory / identity
        self.url = url or server.url
        self._options = QUICK | dict(options or {})
        self._prefix = list(prefix)
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the agent itself."""
        return int((self.directory / "state" / "agent.lock").read_text())

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `arc agent WORDS` for this agent, here, and wait for it."""
        line = [sys.executable, self._program, "agent", *words, "--install-dir", str(self.directory)]
        return subprocess.run(line, capture_output=True, text=True, env=_environment(), timeout=60, check=False)

    def enrol(self, admin: Connection) -> Edge:
        """By way of the server's own address, also for an agent that will reach it by another."""
        token = enrolment_token(admin, CN=self.identity)
        named = ["--server", self.server.url, "--identity", self.identity, f"--enrolment-token={token}"]
        done = self.command("init", *named)
        assert done.returncode == 0, done.stderr
        return self

    def start(self) -> Edge:
        """Start the process without waiting for anything."""
        flags = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        flags += ["--install-dir", str(self.directory), "--server", self.url]
        with (self.directory / "stderr").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, self._program, "agent", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                process_group=0,
            )
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """The exit status."""
        assert self._process is not None
        os.kill(self.pid, number)
        return self._process.wait(timeout_s)

    def kill9(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.is_running:
            self.kill9()


def facts(admin: Connection, identity: str) -> dict[str, Any]:
    answer = admin.request("GET", f"/api/v1/agents/{identity}/facts")
    return answer.json() if answer.status == 200 else {}


def is_online(admin: Connection, identity: str) -> bool:
    return facts(admin, identity).get("online") is True


def wait_online(admin: Connection, *identities: str) -> None:
    for identity in identities:
        wait_until(lambda name=identity: is_online(admin, name), f"{identity} online")


def run(admin: Connection, identity: str, plugin: str, action: str, payload: str = "", timeout: int = 60) -> str:
    body = {"to": identity, "timeout": timeout, "agent": plugin, "action": action, "payload": payload}
    answer = admin.request("POST", "/api/v1/jobs", body)
    assert answer.status == 200, answer.body
    request_id: str = answer.json()["request_id"]
    return request_id


def job(admin: Connection, request_id: str) -> dict[str, Any]:
    answer = admin.request("GET", f"/api/v1/jobs/{request_id}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def ended(admin: Connection, request_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """The job, once it has ended."""

    def look() -> dict[str, Any] | None:
        found = job(admin, request_id)
        return found if found["status"] in FINAL else None

    found: dict[str, Any] = wait_until(look, f"end of {request_id}", timeout_s)
    return found


def log_of(admin: Connection, request_id: str) -> str:
    answer = admin.request("GET", f"/api/v1/jobs/{request_id}/log", headers={"Accept": "text/plain"})
    return answer.body.decode() if answer.status == 200 else ""


def wait_log(admin: Connection, request_id: str, condition: Callable[[str], object], what: str) -> str:
    wait_until(lambda: condition(log_of(admin, request_id)), f"{what} in the log of {request_id}")
    return log_of(admin, request_id)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
