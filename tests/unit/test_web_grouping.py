"""Small writes that arrive together: begun together, answered together, and nobody waits for them long."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from arc.metrics.store import MetricStore
from arc.web.grouping import WriteThread
from arc.web.server import GROUPED_BYTES, MAX_GROUP, ArcServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

WAIT_S = 20.0


class FakeWrite:
    """Notes what is done with it; its answer waits for `may_answer`."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes
        self.may_answer, self.is_answered = threading.Event(), threading.Event()

    def begin(self) -> None:
        self.notes.append(f"begin {self.name}")

    def service(self) -> None:
        assert self.may_answer.wait(WAIT_S)
        self.notes.append(f"answer {self.name}")
        self.is_answered.set()


@contextmanager
def write_thread(woken: threading.Event) -> Iterator[WriteThread]:
    thread = WriteThread(woken.set)
    thread.start()
    try:
        yield thread
    finally:
        thread.close()


def test_all_of_a_group_begin_before_any_is_answered() -> None:
    notes: list[str] = []
    group = [FakeWrite(name, notes) for name in "ab"]
    for write in group:
        write.may_answer.set()

    with write_thread(threading.Event()) as thread:
        thread.hand_over(group)

    assert notes == ["begin a", "begin b", "answer a", "answer b"]


def test_group_goes_on_after_a_write_that_breaks() -> None:
    notes: list[str] = []
    broken, good = FakeWrite("broken", notes), FakeWrite("good", notes)
    good.may_answer.set()
    broken.service = None  # type: ignore[method-assign, assignment]

    with write_thread(threading.Event()) as thread:
        thread.hand_over([broken, good])

    assert notes == ["begin broken", "begin good", "answer good"]


def test_main_thread_does_not_wait_for_a_slow_group_and_is_woken_by_its_end() -> None:
    slow, woken = FakeWrite("slow", []), threading.Event()

    with write_thread(woken) as thread:
        thread.hand_over([slow])
        assert not slow.is_answered.is_set()
        slow.may_answer.set()

        assert woken.wait(WAIT_S)
        assert slow.is_answered.is_set()


def who(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the thread that called; /write/bad fails, and /write/later does when its answer is asked for."""
    if environ["PATH_INFO"] == "/write/bad":
        raise RuntimeError("first half")
    name = threading.current_thread().name.partition("-")[0].encode()

    def answer() -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/write/later":
            raise RuntimeError("second half")
        start_response("200 OK", [("Content-Length", str(len(name)))])
        yield name

    return answer()


@contextmanager
def serving(app: WSGIApplication) -> Iterator[ArcServer]:
    server = ArcServer(app, "127.0.0.1", 0, 2, grouped=["/write", "/write/bad", "/write/later"])
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def answer_to(server: ArcServer, method: str, path: str, body: Any = b"x", **options: Any) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as connection:
        connection.request(method, path, body, **options)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize(
    ("method", "path", "body", "thread"),
    [
        ("POST", "/write", b"x", b"writes"),
        ("POST", "/write", b"x" * (GROUPED_BYTES + 1), b"request"),
        ("GET", "/write", b"", b"request"),
        ("POST", "/other", b"x", b"request"),
    ],
)
def test_small_writes_have_one_thread_and_all_else_others(method: str, path: str, body: bytes, thread: bytes) -> None:
    with serving(who) as server:
        assert answer_to(server, method, path, body) == (200, thread)


def test_body_of_unknown_length_is_no_small_write() -> None:
    with serving(who) as server:
        assert answer_to(server, "POST", "/write", iter([b"x"]), encode_chunked=True)[1] == b"request"


@pytest.mark.parametrize("path", ["/write/bad", "/write/later"])
def test_write_that_fails_fails_alone(path: str) -> None:
    with serving(who) as server:
        assert answer_to(server, "POST", path)[0] == 500
        assert answer_to(server, "POST", "/write") == (200, b"writes")


def test_more_writes_at_once_than_a_group_holds_are_all_answered() -> None:
    request = b"POST /write HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"

    with serving(who) as server, ExitStack() as opened:
        address = ("127.0.0.1", server.port)
        clients = [opened.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(2 * MAX_GROUP + 1)]
        for client in clients:
            client.sendall(request)
        assert all(client.recv(1000).startswith(b"HTTP/1.1 200 OK") for client in clients)


def test_writes_sent_one_behind_the_other_are_answered_one_behind_the_other() -> None:
    request = b"POST /write HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"

    with serving(who) as server, socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(3 * request)
        received = b""
        while received.count(b"writes") < 3:
            piece = connection.recv(1000)
            assert piece
            received += piece


def test_slow_write_does_not_keep_others_from_an_answer() -> None:
    began, may_go_on = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/write":
            began.set()
            assert may_go_on.wait(WAIT_S)
        return who(environ, start_response)

    with serving(app) as server, closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as slow:
        slow.request("POST", "/write", b"x")
        assert began.wait(WAIT_S)
        assert answer_to(server, "GET", "/other", b"") == (200, b"request")
        may_go_on.set()
        assert slow.getresponse().read() == b"writes"


def test_stop_answers_a_write_under_way() -> None:
    began, may_go_on = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began.set()
        assert may_go_on.wait(WAIT_S)
        return who(environ, start_response)

    with (
        serving(app) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as client,
    ):
        client.request("POST", "/write", b"x")
        assert began.wait(WAIT_S)
        server.stop()
        may_go_on.set()
        assert client.getresponse().read() == b"writes"


def test_writes_accepted_together_share_one_append_and_one_sync(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    store.start()
    try:
        before = store.wal.syncs
        bodies = [msgpack.packb({"m": "cpu", "columns": {"v": [value]}}) for value in range(3)]
        writes = [store.accept_msgpack(body, "default") for body in bodies]
        assert store.views([("default", "cpu")]) == [None]  # nothing is seen before it is on disk

        writes[0].finish()

        assert store.wal.syncs == before + 1
        [view] = store.views([("default", "cpu")])
        assert view is not None
        assert view.buffered is not None
        assert view.buffered.num_rows == 3
        for write in writes[1:]:
            write.finish()
        assert (store.wal.syncs, store.wal.entries) == (before + 1, 3)
    finally:
        store.close()
