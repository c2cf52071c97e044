"""How a server ends whose metrics do not open. In a process of its own, as a signal ends it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0  # longest a process may take
SERVE = """
import sys, threading
from arc.cli import main
from arc.metrics.store import MetricStore

def start(store):
    {start}

MetricStore.start = start
sys.exit(main(["--host", "127.0.0.1", "--port", "0", "--data", sys.argv[1], "--set", "server.shutdown_timeout_s=0"]))
"""


@contextmanager
def server_whose_store(start: str, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A server with `start` in place of MetricStore.start; listening when this returns."""
    command = [sys.executable, "-c", SERVE.format(start=start), str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)


def wait_until_listening(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any("listens on" in line for line in process.stderr)


def test_replay_that_fails_stops_the_server(tmp_path: Path) -> None:
    with server_whose_store('raise OSError("no such disk")', tmp_path) as process:
        _, stderr = process.communicate(timeout=WAIT_S)

    assert process.returncode == 1
    assert stderr.endswith("arc: metrics cannot be opened: no such disk\n")
    assert "Traceback" in stderr  # in the log


def test_stop_does_not_wait_for_a_long_replay(tmp_path: Path) -> None:
    with server_whose_store("threading.Event().wait()", tmp_path) as process:
        wait_until_listening(process)

        process.send_signal(signal.SIGTERM)

        assert process.wait(WAIT_S) == 0


def test_port_in_use_is_one_clear_line_without_a_secret(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "arc.py", "--host", "127.0.0.1", "--port", str(taken.getsockname()[1])]

        done = run(*command, "--data", str(tmp_path))

    assert done.returncode == 2
    assert done.stderr == f"arc: cannot listen on 127.0.0.1 port {command[-1]}: Address already in use\n"
