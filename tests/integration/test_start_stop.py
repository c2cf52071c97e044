"""How a server starts and ends: banner, modes, lock, readiness, SIGTERM."""

from __future__ import annotations

import re
import signal
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

from tests.integration.server import NO_FLUSH, TOKEN, ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.server import Connection

SLOW_QUERY = "SELECT sum(a.range * b.range % 7) FROM range(20000) a, range({}) b"
BANNER = "FIRST RUN - INITIAL ADMIN TOKEN GENERATED"


def cpu_s(server: ArcServer) -> float:
    used = psutil.Process(server.pid).cpu_times()
    return float(used.user + used.system)


def wait_until_busy(server: ArcServer) -> None:
    """Until the server has spent a fifth of a second of CPU: the query sent before is being executed."""
    start = cpu_s(server)
    wait_until(lambda: cpu_s(server) > start + 0.2, "query under way")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rows_of(server: ArcServer, measurement: str) -> int:
    with server.connect() as connection:
        count: int = connection.query(f"SELECT count(*) FROM {measurement}")[0][0]
    return count


def test_sigterm_lets_running_request_finish(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as connection:
        connection.send("POST", "/query", {"sql": SLOW_QUERY.format(8_000)})
        wait_until_busy(server)

        server.signal(signal.SIGTERM)

        assert connection.receive().status == 200
    assert server.wait() == 0


def test_sigterm_keeps_every_acknowledged_row(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as connection:
        for _ in range(20):
            connection.store({"m": "kept", "columns": {"value": [1.5] * 50}})

    server.restart()

    assert rows_of(server, "kept") == 1_000


def test_sigint_ends_like_sigterm(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()

    server.signal(signal.SIGINT)

    assert server.wait() == 0


def test_second_signal_ends_at_once_and_loses_nothing(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    with server.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.store({"m": "kept", "columns": {"value": [1.5] * 50}})
        slow = pool.submit(endless_query, server)
        wait_until_busy(server)
        server.signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server), "first signal noticed")

        server.signal(signal.SIGTERM)

        server.wait(timeout_s=5)
        assert not slow.result()
    server.start()
    assert rows_of(server, "kept") == 50


def endless_query(server: ArcServer) -> bool:
    """Whether a query of many minutes was answered with a result; False when the server went away or gave up."""
    with server.connect() as connection:
        try:
            return connection.request("POST", "/query", {"sql": SLOW_QUERY.format(100_000_000)}).status == 200
        except OSError:
            return False


def test_second_server_on_the_same_directory_refuses(make_server: Callable[..., ArcServer]) -> None:
    first = make_server().start()
    second = ArcServer(first.data_dir)
    second.spawn()

    assert second.wait() != 0

    assert str(first.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    assert first.is_ready()


def test_directory_is_free_again_after_kill_9(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    server.kill9()

    server.start()

    assert server.is_ready()


def test_banner_shows_the_admin_token_once(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(token=None)
    server.start()
    assert server.stderr.count(BANNER) == 1
    secret = re.search(r"Initial admin API token: (\S+)", server.stderr)
    assert secret is not None
    with server.connect(token=secret[1]) as connection:
        assert connection.request("GET", "/auth/tokens").status == 200

    server.restart()

    assert BANNER not in server.stderr
    assert secret[1] not in server.stdout + server.stderr


def test_bootstrap_token_is_never_printed(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()
    server.stop()

    assert TOKEN not in server.stdout + server.stderr


def test_start_prints_url_and_data_directory(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()

    printed = server.stdout + server.stderr

    assert f":{server.port}" in printed
    assert str(server.data_dir) in printed


def test_data_directory_is_for_its_owner_only(make_server: Callable[..., ArcServer]) -> None:
    server = make_server().start()

    assert mode(server.data_dir) == 0o700
    assert mode(server.data_dir / "arc.db") == 0o600


def is_listening(server: ArcServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


def readiness(connection: Connection) -> Iterator[int]:
    """Status of /ready again and again until it is 200."""
    status = 0
    while status != 200:
        status = connection.request("GET", "/ready").status
        yield status


def test_ready_is_503_until_replay_is_done(make_server: Callable[..., ArcServer]) -> None:
    server = make_server(options=NO_FLUSH).start()
    with server.connect() as connection:
        for _ in range(20):
            connection.store({"m": "replayed", "columns": {"value": [0.5] * 100_000, "text": ["x"] * 100_000}})
    server.kill9()

    server.spawn()
    wait_until(lambda: is_listening(server), "port open")
    with server.connect() as connection:
        seen = list(readiness(connection))

    assert set(seen) == {503, 200}
    assert rows_of(server, "replayed") == 2_000_000
