"""A real server for tests: `python arc.py server` as a process of its own, on its own port and data directory.

ArcServer(data_dir).start() -> request/write/query over keep-alive connections -> stop() (SIGTERM, exit 0) or kill9()
The same object may be started again after either; data, port and token stay the same.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgpack
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAUNCHER = str(Path(__file__).resolve().parents[2] / "arc.py")
TOKEN = "integration-test-token-0123456789abcdef"  # the bootstrap token of every server started here
WRITE_PATH = "/write/v2/msgpack"
NO_FLUSH = {  # options under which rows stay in the log and the buffer until a flush is asked for
    "ingest.buffer_age_s": "3600",
    "ingest.buffer_rows": "1000000000",
    "ingest.buffer_size": "2GB",
    "wal.segment_size": "2GB",
}
READY_S = 60.0  # seconds a start may take on a busy machine
EXIT_S = 60.0  # seconds a SIGTERM may take: running requests, final flush


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0, pause_s: float = 0.02) -> Any:
    """Poll until `condition()` is true and return its value; AssertionError naming `what` after the time-out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause_s)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}")


def free_port() -> int:
    """A TCP port of the loopback interface nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def arrow(self) -> pa.Table:
        with pa.ipc.open_stream(self.body) as reader:
            return reader.read_all()


class Connection:
    """One keep-alive connection of one thread; opened at the first request, `with` closes it."""

    def __init__(self, port: int, token: str | None = TOKEN, timeout_s: float = 120.0) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Send a request without waiting; a dict or list goes as JSON."""
        sent = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if isinstance(body, dict | list):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        self._http.request(method, path, body=body, headers={**sent, **(headers or {})})

    def receive(self) -> Answer:
        response = self._http.getresponse()
        return Answer(response.status, response.headers, response.read())

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        self.send(method, path, body, headers)
        return self.receive()

    def write(self, payload: Any, database: str = "default") -> Answer:
        """POST a MessagePack payload: an item, a list of items or {"batch": [...]}; bytes go as they are."""
        body = payload if isinstance(payload, bytes) else msgpack.packb(payload)
        headers = {"Content-Type": "application/msgpack", "x-arc-database": database}
        return self.request("POST", WRITE_PATH, body, headers)

    def store(self, payload: Any, database: str = "default") -> None:
        """`write` that must be acknowledged."""
        answer = self.write(payload, database)
        assert answer.status == 204, (answer.status, answer.body)

    def flush(self) -> None:
        answer = self.request("POST", "/write/flush")
        assert answer.status == 200, (answer.status, answer.body)

    def query(self, sql: str) -> list[list[Any]]:
        """Rows of `POST /query`, which must succeed."""
        answer = self.request("POST", "/query", {"sql": sql})
        assert answer.status == 200, (answer.status, answer.body)
        rows: list[list[Any]] = answer.json()["data"]
        return rows

    def table(self, sql: str) -> pa.Table:
        """Result of `POST /query/arrow`, which must succeed."""
        answer = self.request("POST", "/query/arrow", {"sql": sql})
        assert answer.status == 200, (answer.status, answer.body)
        return answer.arrow()


class ArcServer:
    """One server process and its data directory.

    options: `{"wal.sync": "interval"}` becomes the environment variable ARC_WAL_SYNC.
    token: the bootstrap token; None lets the server make one up (first-run banner).
    """

    def __init__(self, data_dir: Path, options: Mapping[str, str] | None = None, token: str | None = TOKEN) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.token = token
        self._options = {"server.host": "127.0.0.1", "collect.host": "false", **(options or {})}
        self._log_path = data_dir.with_name(f"{data_dir.name}.stderr")
        self._stdout_path = data_dir.with_name(f"{data_dir.name}.stdout")
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, failed: object, *_: object) -> None:
        """Stop what still runs; after a failure without waiting and without hiding that failure."""
        if self.is_running:
            self.kill9() if failed else self.stop()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stderr(self) -> str:
        """What this start wrote to stderr so far."""
        return self._log_path.read_bytes()[self._log_from :].decode(errors="replace")

    @property
    def stdout(self) -> str:
        return self._stdout_path.read_text(errors="replace")

    def start(self) -> Self:
        """Start the process and wait until /ready answers 200."""
        self.spawn()
        try:
            wait_until(self.is_ready, f"{self.url}/ready (log: {self._log_path})", READY_S)
        except BaseException:
            self.kill9()  # a start that failed must not leave its process behind
            raise
        return self

    def spawn(self) -> None:
        """Start the process without waiting for anything."""
        assert not self.is_running
        self._log_from = self._log_path.stat().st_size if self._log_path.exists() else 0
        with self._log_path.open("ab") as log, self._stdout_path.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, LAUNCHER, "server", "--port", str(self.port), "--data", str(self.data_dir)],
                cwd=self.data_dir.parent,  # where no arc.conf lies
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,  # kill9() ends the whole group, should the server have children
            )

    def _environment(self) -> dict[str, str]:
        """The caller's environment without its ARC_* variables, plus ours."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
        environ |= {f"ARC_{name.upper().replace('.', '_')}": value for name, value in self._options.items()}
        return environ | ({"ARC_AUTH_BOOTSTRAP_TOKEN": self.token} if self.token else {})

    def is_ready(self) -> bool:
        """Whether /ready answers 200; AssertionError when the process has ended."""
        assert self.is_running, f"server ended with {self._process and self._process.returncode}: {self.stderr[-4000:]}"
        try:
            with self.connect(timeout_s=5.0) as connection:
                return connection.request("GET", "/ready").status == 200
        except OSError:
            return False

    def connect(self, token: str | None = None, timeout_s: float = 120.0) -> Connection:
        return Connection(self.port, token or self.token, timeout_s)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = EXIT_S) -> int:
        """Exit status of the process, which must end by itself within the time."""
        assert self._process is not None, "never started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"still running after {timeout_s:.0f} s: {self.stderr[-4000:]}") from None

    def stop(self) -> None:
        """SIGTERM; the server must finish, flush and exit 0."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert status == 0, f"exit status {status}: {self.stderr[-4000:]}"

    def kill9(self) -> None:
        """SIGKILL to the whole process group: no handler, no flush, no goodbye."""
        assert self._process is not None, "never started"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()
