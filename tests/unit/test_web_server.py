"""The HTTP server itself: connections, errors it makes on its own, large bodies, stopping."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from arc.web.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LIMIT = 1000  # bytes a body may have here
WAIT_S = 20.0


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers 204 to /none, in pieces of unknown length to /pieces, an exception to /broken, else what came."""
    if environ["PATH_INFO"] == "/broken":
        raise RuntimeError("secret inner state")
    if environ["PATH_INFO"] == "/none":
        start_response("204 No Content", [])
        return []
    if environ["PATH_INFO"] == "/pieces":
        start_response("200 OK", [])
        return iter([b"a", b"b"])
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def serving(app: WSGIApplication, **options: Any) -> Iterator[ArcServer]:
    server = ArcServer(app, "127.0.0.1", 0, 2, **{"max_body_bytes": LIMIT, **options})
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[ArcServer]:
    with serving(echo) as running:
        yield running


def connect(server: ArcServer) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S))


def raw(server: ArcServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        with closing(answer):
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/none", "/pieces", "/echo"])
def test_connection_stays_open_after_every_kind_of_answer(server: ArcServer, path: str) -> None:
    with connect(server) as connection:
        connection.connect()
        opened = connection.sock
        for _ in range(3):
            connection.request("POST", path, b"x")
            assert connection.getresponse().read() in (b"", b"ab", b"x")
            assert connection.sock is opened


def test_client_that_asks_for_it_is_hung_up_on(server: ArcServer) -> None:
    status, headers, _ = raw(server, b"POST /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert (status, headers["connection"]) == (204, "close")


def test_chunked_body_arrives_whole(server: ArcServer) -> None:
    with connect(server) as connection:
        connection.request("POST", "/echo", iter([b"one", b"two"]), encode_chunked=True)
        assert connection.getresponse().read() == b"onetwo"


def test_body_may_reach_the_limit(server: ArcServer) -> None:
    with connect(server) as connection:
        connection.request("POST", "/echo", b"x" * LIMIT)
        assert len(connection.getresponse().read()) == LIMIT


@pytest.mark.parametrize("size", [LIMIT + 1, 5 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_client_that_sends_too_much_reads_413(server: ArcServer, size: int, chunked: bool) -> None:
    with connect(server) as connection:
        body = iter([b"x" * size]) if chunked else b"x" * size
        connection.request("POST", "/echo", body, encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["code"] == "request too large"


def test_client_that_asks_before_it_sends_too_much_is_told_at_once(server: ArcServer) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"

    assert raw(server, request)[0] == 413


def test_client_that_asks_before_it_sends_is_told_to_go_on(server: ArcServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"ok")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n", 501),
        (b"GET /broken HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\n\r\n", 500),
    ],
)
def test_errors_of_the_server_itself_look_like_all_others(server: ArcServer, request_bytes: bytes, status: int) -> None:
    answered, headers, body = raw(server, request_bytes)

    error = json.loads(body)
    assert answered == error["status"] == status
    assert error["detail"] == error["message"] == error["error"]
    assert error["success"] is False
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert b"secret inner state" not in body


def test_idle_connections_do_not_stand_in_the_way(server: ArcServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(150)]
    try:
        with connect(server) as connection:
            connection.request("POST", "/echo", b"x")
            assert connection.getresponse().read() == b"x"
        for connection in idle:
            connection.sendall(b"POST /none HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 204")
    finally:
        for connection in idle:
            connection.close()


def test_hang_up_is_noticed_while_the_request_runs() -> None:
    started, noticed = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started.set()
        until(environ["waitress.client_disconnected"])
        noticed.set()
        return echo(environ, start_response)

    with serving(app) as server:
        with connect(server) as connection:
            connection.request("GET", "/")
            assert started.wait(WAIT_S)
        assert noticed.wait(WAIT_S)


def test_stop_answers_what_runs_and_takes_nothing_new() -> None:
    started, finish = threading.Event(), threading.Event()
    answer = b"x" * 5_000_000  # more than a socket takes at once

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started.set()
        assert finish.wait(WAIT_S)
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    with serving(app) as server, connect(server) as connection, connect(server) as idle:
        idle.connect()
        connection.request("GET", "/")
        assert started.wait(WAIT_S)
        server.stop()
        assert idle.sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), WAIT_S)
        finish.set()
        assert connection.getresponse().read() == answer


def test_stop_waits_for_a_stuck_request_only_so_long() -> None:
    started, finish = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started.set()
        finish.wait(WAIT_S)
        return echo(environ, start_response)

    with serving(app, stop_timeout_s=0.1) as server, connect(server) as connection:
        connection.request("GET", "/")
        assert started.wait(WAIT_S)
        server.close()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.getresponse()
        finish.set()


def test_stop_tells_answers_that_wait() -> None:
    started, stopping = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started.set()
        assert stopping.wait(WAIT_S)
        return echo(environ, start_response)

    with serving(app, on_stop=stopping.set) as server, connect(server) as connection:
        connection.request("GET", "/none")
        assert started.wait(WAIT_S)
        assert not stopping.is_set()
        server.stop()
        assert connection.getresponse().status == 204


def test_close_before_run_and_twice_gives_everything_back() -> None:
    server = ArcServer(echo, "127.0.0.1", 0, 2)
    server.close()
    server.close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), WAIT_S)


def test_taken_port_raises_and_leaves_no_thread(server: ArcServer) -> None:
    with pytest.raises(OSError, match="in use"):
        ArcServer(echo, "127.0.0.1", server.port, 2)
