"""A new user has something to ask: the server's own host."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.integration.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.server import ArcServer, Connection


TABLES = ["cpu", "disk", "load", "mem", "net", "process"]


def has_sample(connection: Connection) -> bool:
    answer = connection.request("POST", "/query", {"sql": "SHOW TABLES FROM host"})
    return answer.status == 200 and sorted(row[1] for row in answer.json()["data"]) == TABLES


def test_host_can_be_asked_as_soon_as_the_server_runs(make_server: Callable[..., ArcServer]) -> None:
    with make_server(options={"collect.host": "true"}) as server, server.connect() as connection:
        wait_until(lambda: has_sample(connection), "a first sample")

        assert connection.query("SELECT DISTINCT host FROM host.cpu") == [[socket.gethostname()]]
        assert connection.query("SELECT total_bytes > 0 FROM host.disk WHERE path = '/'") == [[True]]
        assert connection.query("SELECT rss_bytes > 0 FROM host.process WHERE program = 'server'") == [[True]]


def test_samples_go_on_over_a_restart(make_server: Callable[..., ArcServer]) -> None:
    with make_server(options={"collect.host": "true", "collect.interval_s": "0.2"}) as server:
        with server.connect() as connection:
            wait_until(lambda: has_sample(connection), "a first sample")
        server.restart()
        with server.connect() as connection:
            before = connection.query("SELECT count(*) FROM host.load")[0][0]

            assert before > 0
            wait_until(lambda: connection.query("SELECT count(*) FROM host.load")[0][0] > before, "one more sample")


def test_switched_off_nothing_is_collected(make_server: Callable[..., ArcServer]) -> None:
    with make_server(options={"collect.host": "false"}) as server, server.connect() as connection:
        assert ["host"] not in connection.query("SHOW DATABASES")
